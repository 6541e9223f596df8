"""Concept masking: whether a unit still fires when all but its concept is hidden.

Definition: La Rosa, Gilpin, Capobianco, "Towards a fuller understanding of neurons with Clustered
Compositional Explanations" (NeurIPS 2023), and its published code.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ccx import networks
from ccx.checks import integer, shown
from ccx.errors import DTypeError, InputError, ShapeError
from ccx.kernels import rows, upsample
from ccx.kernels.conversion import as_array, as_floats, describe
from ccx.kernels.shapes import check_grid
from ccx.typing import Float32Array


def cosine_concept_masking_score(before: Any, after: Any, activation_range: tuple[float, float]) -> np.float64:
    """Return how alike the activations inside a range are before and after masking: the mean cosine.

    Both maps are set to 0 wherever `before` lies outside the open range. The score is the mean over samples of the
    cosine between the two.

    Parameters
    ----------
    before, after
        float[N, ...]: activations of one unit, at their own resolution, for the images as they are and
        for the masked ones. Compared as float32.
    activation_range
        (lower, upper); a value equal to an end point is outside.

    Returns
    -------
    float64
        Between -1 and 1. A sample where either map is 0 throughout counts 0; no sample at all gives 0.

    Raises
    ------
    DTypeError, ShapeError
        If the activations are no floats or their shapes differ.
    InputError
        If the range is not lower < upper, or `after` is NaN or infinite where `before` is in range.

    Examples
    --------
    >>> before = np.array([[3.0, 4.0, 9.0], [0.0, 0.0, 9.0]])
    >>> cosine_concept_masking_score(before, 2 * before, (0.5, 5.0))  # of the second sample nothing is in range
    np.float64(0.5)

    """
    first, second = _floats(before, "before"), _floats(after, "after")
    if first.shape != second.shape:
        remedy = "pass the same unit and samples twice"
        raise ShapeError("after", wanted=describe(first), got=describe(second), remedy=remedy)
    return _mean_cosine(first, second, _checked_range(activation_range))


def get_concept_masking(  # noqa: PLR0913 - public keywords
    *,
    unit: int,
    activations: Any,
    activation_range: tuple[float, float],
    label_mask: Any,
    mask_shape: tuple[int, int],
    layer_name: str,
    model: Any,
    loader: Iterable[Any],
    input_size: int | tuple[int, int],
    rng: np.random.Generator | int | None = None,
) -> np.float64:
    """Mask all but a formula's cells with noise, run the model, and score what remains of the activations.

    Each image that holds a cell of the formula is multiplied by a map that is 1 on the formula's cells and independent,
    uniform on [0, 1) elsewhere, drawn on the grid of the mask and resized bilinearly. The result is
    `cosine_concept_masking_score` of these images. The published code multiplies after normalisation, and so does ccx:
    `loader` yields normalised images. Other images are not run.

    Parameters
    ----------
    unit
        Index of the unit along axis 1 of the layer's output.
    activations
        float[N, ...]: the unit's activations for the images as they are (`activations[:, unit]`). NaN where one shall
        not count: it lies in no range.
    activation_range
        (lower, upper), open.
    label_mask
        The formula's mask: bool[N, H, W], bool[N, P] or packed uint64[N, n_words].
    mask_shape
        (H, W).
    layer_name
        Path of the layer in `model`, such as ``"layer4"``.
    model
        A torch module that takes images. It is run in evaluation mode, without gradients, and left as it was.
    loader
        Batches of the N images in the order of `activations`: ``float[n, channels, *input_size]``, or
        tuples that begin with them.
    input_size
        Side of the images, or (height, width).
    rng
        Generator of the noise, or its seed; None = a fresh one. The noise does not depend on the size of batches.

    Returns
    -------
    float64
        Between -1 and 1; 0 if no image holds a cell of the formula. A sample with no cell in range counts 0.

    Raises
    ------
    DTypeError, ShapeError, InputError
        If something does not fit: what, and what to do.
    MissingExtraError
        If torch is not installed.

    """
    limits = _checked_range(activation_range)
    before = _floats(activations, "activations")
    mask = _label_mask(label_mask, before.shape[0], check_grid(mask_shape, 1))
    size = check_grid((input_size, input_size) if isinstance(input_size, (int, np.integer)) else input_size, 1)
    generator = np.random.default_rng(rng)
    labelled = np.asarray(mask.any(axis=(1, 2)))
    after: list[Float32Array] = []
    done = 0
    with networks.recording(model, layer_name) as outputs_of:
        for images in networks.image_batches(loader):
            n_images = images.shape[0]
            if done + n_images > len(mask) or tuple(images.shape[2:]) != size:
                wanted = f"{len(mask)} images of {size[0]}×{size[1]} in all"
                got = f"{done + n_images} or more, the last ones {list(images.shape)}"
                raise ShapeError("loader", wanted=wanted, got=got, remedy="check loader, label_mask and input_size")
            chosen = np.flatnonzero(labelled[done : done + n_images])
            if chosen.size:
                cells = mask[done + chosen]
                noise = generator.random(cells.shape, np.float32)
                weights = images.new_tensor(upsample(np.where(cells, np.float32(1), noise), size))
                outputs = outputs_of(images[chosen.tolist()] * weights[:, None])
                after.append(_of_unit(outputs, unit, before.shape[1:]))
            done += n_images
    if done != len(mask):
        remedy = "let the loader yield every image once (drop_last=False)"
        raise ShapeError("loader", wanted=f"{len(mask)} images", got=f"{done}", remedy=remedy)
    return _mean_cosine(before[labelled], np.concatenate(after), limits) if after else np.float64(0)


def _mean_cosine(before: Float32Array, after: Float32Array, limits: tuple[float, float]) -> np.float64:
    n_samples = before.shape[0]
    table = (n_samples, math.prod(before.shape[1:]))
    exact = before.reshape(table).astype(np.float64)  # NumPy would round the limits to float32
    inside = (limits[0] < exact) & (exact < limits[1])
    x = np.where(inside, exact, 0)
    y = np.where(inside, after.reshape(table), 0).astype(np.float64)
    if not np.isfinite(y).all():
        remedy = "look for what makes the model overflow on masked images"
        raise InputError("after", wanted="finite activations in range", got="NaN or infinity", remedy=remedy)
    norms = np.sqrt((x * x).sum(1)) * np.sqrt((y * y).sum(1))
    cosines = np.divide((x * y).sum(1), norms, out=np.zeros(n_samples), where=norms > 0)
    return np.float64(np.clip(cosines, -1, 1).sum() / max(1, n_samples))


def _of_unit(outputs: Any, unit: int, shape: tuple[int, ...]) -> Float32Array:
    """Return one unit of a layer's output, as float32[n, *shape]."""
    n_units = outputs.shape[1] if outputs.ndim > 1 else 0
    remedy = "units are numbered along axis 1 of the layer's output"
    index = integer("unit", unit, 0, n_units - 1, remedy, f"0..{n_units - 1}")
    maps: Float32Array = outputs[:, index].float().cpu().numpy()
    if maps.shape[1:] != shape:
        wanted = f"float[N, {', '.join(map(str, maps.shape[1:]))}], as the layer puts them out"
        got = f"[N, {', '.join(map(str, shape))}]"
        raise ShapeError("activations", wanted=wanted, got=got, remedy="pass activations[:, unit] of this layer")
    return maps


def _label_mask(label_mask: Any, n_samples: int, shape: tuple[int, int]) -> NDArray[np.bool_]:
    array = as_array(label_mask, "label_mask")
    n_cells = shape[0] * shape[1]
    if array.dtype.kind == "u" and array.dtype.itemsize == 8:
        array = rows.unpack(rows.as_rows(array, "label_mask", n_cells), n_cells)
    if array.dtype.kind != "b":
        remedy = "compare first: label_mask != 0"
        raise DTypeError("label_mask", wanted="bool, or packed uint64", got=describe(array), remedy=remedy)
    if array.shape not in ((n_samples, *shape), (n_samples, n_cells)):
        wanted = f"bool[{n_samples}, {shape[0]}, {shape[1]}], flat or packed"
        remedy = "pass one mask per sample, of mask_shape"
        raise ShapeError("label_mask", wanted=wanted, got=describe(array), remedy=remedy)
    mask: NDArray[np.bool_] = array.reshape(n_samples, *shape)
    return mask


def _floats(values: Any, argument: str) -> Float32Array:
    array = as_floats(values, argument)
    if array.ndim == 0:
        raise ShapeError(argument, wanted="float[N, ...]", got="a scalar", remedy="pass one unit of all samples")
    with np.errstate(over="ignore"):  # float64 beyond float32 becomes infinite, which no range holds
        floats: Float32Array = array.astype(np.float32, copy=False)
    return floats


def _checked_range(activation_range: Any) -> tuple[float, float]:
    try:
        lower, upper = map(float, activation_range)
    except (TypeError, ValueError, OverflowError):
        lower = upper = math.nan
    if not lower < upper:
        got = shown(activation_range)
        remedy = "take an explanation's range"
        raise InputError("activation_range", wanted="(lower, upper), lower < upper", got=got, remedy=remedy)
    return lower, upper
