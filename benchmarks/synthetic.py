"""Synthetic data of the size and statistics of Broden/ADE20K, deterministic by seed.

A sample shows a *scene*: it chooses 6 to 14 *objects*, mostly those that are usual there, as overlapping wavy
ellipses from the large to the small; objects carry *parts*, some with a second part on top; every cell has one of 11
*colours*, two an object in a smooth pattern with noise, and 5 % speckle. That gives about 23 concepts and 85 atoms a
sample. A unit adds up what it prefers, by the share of each cell of its 7x7 grid, plus exponential noise.

Which objects and parts are usual together and what units prefer is drawn once; then each sample is drawn from a
seed of its own, so that it does not depend on the number of samples or threads. How often concepts occur follows
log-uniform ranks.
"""

# ruff: noqa: NPY002 - numba's own generator, which is local to the thread, is np.random

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numba
import numpy as np
from numpy.typing import NDArray

import ccx
from ccx.jobs import parallel

Ints: TypeAlias = NDArray[Any]
Floats: TypeAlias = NDArray[np.float32]

GRID = (112, 112)
ACTIVATION_GRID = (7, 7)
N_OBJECTS, N_PARTS, N_COLOURS, N_SCENES = 580, 220, 11, 389
N_CONCEPTS = N_OBJECTS + N_PARTS + N_COLOURS + N_SCENES  # 1,200
FIRST_PART = N_OBJECTS
FIRST_COLOUR = FIRST_PART + N_PARTS
FIRST_SCENE = FIRST_COLOUR + N_COLOURS
LAYERS = ("object", "part", "part of a part", "colour", "scene")
OBJECT, PART, SUBPART, COLOUR, SCENE = range(len(LAYERS))


@dataclass(frozen=True)
class Synthetic:
    """Label maps int16[N, 5, 112, 112] (ids from 1, 0 = none) and activations float32[N, U, 7, 7]."""

    labels: NDArray[np.int16]
    activations: NDArray[np.float32]
    names: list[str]
    categories: list[str]

    def concepts(self, threads: int | None = None) -> ccx.Concepts:
        """Build `ccx.Concepts` of the label maps."""
        return ccx.Concepts.from_label_maps(self.labels, self.names, categories=self.categories, threads=threads)

    def reduced(self, n_concepts: int, step: int = 1) -> Synthetic:
        """Keep the concepts that occur in most samples, and every `step`-th row and column of the label maps.

        A smaller problem of the same kind: units still prefer concepts that nobody has labelled.
        """
        labels = self.labels[:, :, ::step, ::step]
        present = np.zeros(len(self.names) + 1, np.int64)  # samples that hold each id
        for sample in labels:
            present[1:] += np.bincount(sample.ravel(), minlength=present.size)[1:] > 0
        kept = np.sort(np.argsort(-present, kind="stable")[:n_concepts])
        new_ids = np.zeros(present.size, np.int16)
        new_ids[kept] = np.arange(1, kept.size + 1)
        names, categories = ([texts[c - 1] for c in kept] for texts in (self.names, self.categories))
        return Synthetic(new_ids[labels], self.activations, names, categories)


def generate(n_samples: int, n_units: int, *, seed: int = 0, threads: int | None = None) -> Synthetic:
    """Draw samples and units; the first samples' labels are the same whatever the numbers of both are."""
    rng = np.random.default_rng(seed)
    usual_objects = _low_ranks(rng, N_OBJECTS, (N_SCENES, 40), 2.0)
    usual_parts = FIRST_PART + _low_ranks(rng, N_PARTS, (N_OBJECTS, 12), 1.7)
    usual_subparts = FIRST_PART + _low_ranks(rng, N_PARTS, (N_PARTS, 5), 1.0)
    weights = np.stack([_preferences(np.random.default_rng([seed, unit])) for unit in range(n_units)])
    labels = np.zeros((n_samples, len(LAYERS), *GRID), np.int16)
    activations = np.empty((n_samples, n_units, *ACTIVATION_GRID), np.float32)

    def draw(start: int, stop: int) -> None:
        for n in range(start, stop):
            _draw_sample(labels[n], usual_objects, usual_parts, usual_subparts, _seed_of(seed, n))
            _draw_activations(labels[n], weights, activations[n], _seed_of(seed, n) ^ 0x5A5A5A5A)

    parallel(draw, n_samples, threads)
    kinds = ["object"] * N_OBJECTS + ["part"] * N_PARTS + ["colour"] * N_COLOURS + ["scene"] * N_SCENES
    firsts = {"object": 0, "part": FIRST_PART, "colour": FIRST_COLOUR, "scene": FIRST_SCENE}
    names = [f"{kind} {c - firsts[kind] + 1}" for c, kind in enumerate(kinds)]
    return Synthetic(labels, activations, names, kinds)


def _seed_of(seed: int, sample: int) -> int:
    """Mix two numbers into 32 bits, as neighbouring seeds must not give related samples."""
    return (seed * 0x9E3779B1 + (sample + 1) * 0x85EBCA6B) % (1 << 32)


def _low_ranks(rng: np.random.Generator, n: int, shape: tuple[int, ...], power: float) -> NDArray[np.int64]:
    """Draw indices below n, the small ones more often the higher the power."""
    ranks: NDArray[np.int64] = (n * rng.random(shape) ** power).astype(np.int64)
    return ranks


def _preferences(rng: np.random.Generator) -> NDArray[np.float32]:
    """float32[C]: what a unit prefers: 6 objects, 3 parts, a colour, 3 scenes."""
    weights = np.zeros(N_CONCEPTS, np.float32)
    preferred = np.concatenate([
        _low_ranks(rng, N_OBJECTS, (6,), 2.0),
        FIRST_PART + _low_ranks(rng, N_PARTS, (3,), 2.0),
        FIRST_COLOUR + rng.integers(0, N_COLOURS, 1),
        FIRST_SCENE + _low_ranks(rng, N_SCENES, (3,), 2.0),
    ])  # fmt: skip
    weights[preferred] = rng.exponential(1.0, preferred.size)
    return weights


@numba.njit(cache=True, nogil=True)
def _log_uniform(n: int) -> int:
    """Draw a rank below n: half of them lie below sqrt(n)."""
    return min(max(int(math.exp(np.random.random() * math.log(n + 1.0))) - 1, 0), n - 1)


@numba.njit(cache=True, nogil=True)
def _draw_sample(labels: Ints, usual_objects: Ints, usual_parts: Ints, usual_subparts: Ints, seed: int) -> None:
    """Fill the label maps int16[5, H, W] of one sample, which are zeros."""
    np.random.seed(seed)
    scene = _log_uniform(N_SCENES)
    labels[SCENE] = FIRST_SCENE + scene + 1
    n_objects = np.random.randint(6, 15)
    owner: Ints = np.full(labels.shape[1:], -1, np.int64)  # which of the sample's objects a cell belongs to
    objects = np.empty(n_objects, np.int64)
    for j in range(n_objects):
        usual = np.random.random() < 0.65
        objects[j] = usual_objects[scene, _log_uniform(40)] if usual else _log_uniform(N_OBJECTS)
        if j == 0 and np.random.random() < 0.85:
            owner[:] = 0  # a background
        else:
            _draw_object(owner, j, 0.42 * math.exp(-2.0 * j / n_objects))
    for y in range(owner.shape[0]):
        for x in range(owner.shape[1]):
            if owner[y, x] >= 0:
                labels[OBJECT, y, x] = objects[owner[y, x]] + 1
    for _ in range(np.random.randint(0, 10)):
        _draw_part(labels, owner, objects, usual_parts, usual_subparts)
    _draw_colours(labels[COLOUR], owner, n_objects)


@numba.njit(cache=True, nogil=True)
def _draw_object(owner: Ints, number: int, size: float) -> None:
    height, width = owner.shape
    size *= math.exp(np.random.uniform(-0.6, 0.6))
    radius_x = max(2.5, size * width * np.random.uniform(0.5, 1.5))
    radius_y = max(2.5, size * height * np.random.uniform(0.5, 1.5))
    middle_x, middle_y = np.random.uniform(0, width), np.random.uniform(0, height)
    wave_x, wave_y = np.random.uniform(0.1, 0.5), np.random.uniform(0.1, 0.5)
    phase_x, phase_y = np.random.uniform(0, 6.3), np.random.uniform(0, 6.3)
    for y in range(max(0, int(middle_y - 1.3 * radius_y)), min(height, int(middle_y + 1.3 * radius_y) + 1)):
        for x in range(max(0, int(middle_x - 1.3 * radius_x)), min(width, int(middle_x + 1.3 * radius_x) + 1)):
            distance = ((x - middle_x) / radius_x) ** 2 + ((y - middle_y) / radius_y) ** 2
            if distance + 0.3 * math.sin(wave_x * x + phase_x) * math.sin(wave_y * y + phase_y) < 1.0:
                owner[y, x] = number


@numba.njit(cache=True, nogil=True)
def _draw_part(labels: Ints, owner: Ints, objects: Ints, usual_parts: Ints, usual_subparts: Ints) -> None:
    """Lay a part of its object around a random cell; on three of ten a part of that part."""
    height, width = owner.shape
    middle_y, middle_x = np.random.randint(0, height), np.random.randint(0, width)
    radius_x, radius_y = np.random.uniform(3, 15), np.random.uniform(3, 15)
    of = owner[middle_y, middle_x]
    if of < 0:
        return
    part = usual_parts[objects[of], _log_uniform(12)]
    has_subpart = np.random.random() < 0.3
    subpart = usual_subparts[part - FIRST_PART, _log_uniform(5)]
    for y in range(max(0, int(middle_y - radius_y)), min(height, int(middle_y + radius_y) + 1)):
        for x in range(max(0, int(middle_x - radius_x)), min(width, int(middle_x + radius_x) + 1)):
            if owner[y, x] != of:
                continue
            if ((x - middle_x) / radius_x) ** 2 + ((y - middle_y) / radius_y) ** 2 < 1.0:
                labels[PART, y, x] = part + 1
            if has_subpart and abs(x - middle_x) <= radius_x / 2 and abs(y - middle_y) <= radius_y / 2:
                labels[SUBPART, y, x] = subpart + 1


@numba.njit(cache=True, nogil=True)
def _draw_colours(colours: Ints, owner: Ints, n_objects: int) -> None:
    palette = np.random.permutation(N_COLOURS)[: np.random.randint(6, 12)]
    two = np.empty((n_objects + 1, 2), np.int64)  # the last row is for cells of no object
    for i in range(n_objects + 1):
        two[i, 0], two[i, 1] = palette[_log_uniform(palette.size)], palette[_log_uniform(palette.size)]
    wave_x, wave_y = np.random.uniform(0.05, 0.35), np.random.uniform(0.05, 0.35)
    phase = np.random.uniform(0, 6.3)
    for y in range(owner.shape[0]):
        for x in range(owner.shape[1]):
            pattern = math.sin(wave_x * x + phase) * math.cos(wave_y * y) + np.random.uniform(-0.4, 0.4)
            colour = two[owner[y, x], 0 if pattern > -0.2 else 1]
            if np.random.random() < 0.05:
                colour = palette[_log_uniform(palette.size)]
            colours[y, x] = FIRST_COLOUR + colour + 1


@numba.njit(cache=True, nogil=True)
def _draw_activations(labels: Ints, weights: Floats, out: Floats, seed: int) -> None:
    """Fill the activations float32[U, h, w] of one sample: weights float32[U, C]."""
    np.random.seed(seed)
    n_layers, height, width = labels.shape
    step_y, step_x = height // out.shape[1], width // out.shape[2]
    share = np.zeros(weights.shape[1] + 1, np.float32)
    present = np.empty(weights.shape[1] + 1, np.int64)
    for row in range(out.shape[1]):
        for col in range(out.shape[2]):
            n_present = 0
            for layer in range(n_layers):
                # A scene is everywhere: at full weight it would drown everything else.
                cell = np.float32((0.3 if layer == SCENE else 1.0) / (step_y * step_x))
                for y in range(row * step_y, (row + 1) * step_y):
                    for x in range(col * step_x, (col + 1) * step_x):
                        label = labels[layer, y, x]
                        if label > 0:
                            if share[label] == 0:
                                present[n_present] = label
                                n_present += 1
                            share[label] += cell
            for unit in range(weights.shape[0]):
                total = -0.25 * math.log(1e-12 + np.random.random())
                for i in range(n_present):
                    total += share[present[i]] * weights[unit, present[i] - 1]
                out[unit, row, col] = total
            for i in range(n_present):
                share[present[i]] = 0
