"""A network, a data set and settings: what every study needs, computed once and kept in folders."""

from __future__ import annotations

import importlib.metadata
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ccx._version import VERSION
from ccx.concepts import Concepts
from ccx.datasets import Dataset
from ccx.errors import FilesError, InputError
from ccx.jobs import Progress
from ccx.keys import Keys
from ccx.models import NamedModel
from ccx.networks import resolve_layer
from ccx.options import EvidenceOptions, RangeOptions, SearchName, SearchOptions
from ccx.pipeline import explain
from ccx.probing import probe
from ccx.probing.identity import model_hashes
from ccx.probing.loaders import as_source
from ccx.report import report_path, write_report
from ccx.results import Explanations
from ccx.search import SEARCHES
from ccx.store import PathLike, json_text, locked_folder, write_text
from ccx.studies.random_units import random_units

_VERSIONS = ("numpy", "numba", "torch", "torchvision")


class Experiment:
    """Concepts, activations and explanations of a network on a data set, each computed when it is first asked for.

    All are kept in folders, so that a run that was killed goes on, and a later study finds what an earlier one made.
    Runs may share the folders: one works in each at a time.

    Parameters
    ----------
    data
        Annotated images.
    network
        A network with its layers and preprocessing (`ccx.models.load`, or your own module in a `NamedModel`).
    name, network_name
        What to call data set and network in the names of folders; by default the network is called by its name and
        weights.
    layers
        Paths of layers; None = those of the network.
    shape
        Grid (H, W) of the concepts; None = half the side of the network's images, as published.
    clusters, quantile, length, beam, search
        As for `ccx.explain`.
    n_units, seed
        So many random units of each layer, by this seed; 0 = all.
    options
        More arguments of `ccx.explain`.
    segmentations, activations, results
        Folders.
    device
        Where the network runs, for instance "cuda"; None = where it is.
    batch_size, workers
        Of probing.
    threads, progress
        As for `ccx.explain`.
    waiting
        Called with a folder while another run works in it.

    Raises
    ------
    InputError
        If there is no such layer, or a setting does not fit: before hours of work, not after.

    """

    def __init__(  # noqa: PLR0913 - public keywords
        self,
        data: Dataset,
        network: NamedModel,
        *,
        name: str,
        network_name: str | None = None,
        layers: Sequence[str] | None = None,
        shape: tuple[int, int] | None = None,
        clusters: int = RangeOptions.clusters,
        quantile: float = RangeOptions.quantile,
        length: int = SearchOptions.length,
        beam: int = SearchOptions.beam,
        search: SearchName = SearchOptions.search,
        n_units: int = 0,
        seed: int = 0,
        options: dict[str, Any] | None = None,
        segmentations: PathLike = "data/cache/segmentations",
        activations: PathLike = "data/cache/activations",
        results: PathLike = "data/results",
        device: str | None = None,
        batch_size: int = 32,
        workers: int = 0,
        threads: int | None = None,
        progress: Progress | bool | None = None,
        waiting: Callable[[Path], object] = lambda _folder: None,
    ) -> None:
        self.data, self.network, self.name = data, network, _file_name(name)
        self._network_name = _file_name(network_name or f"{network.name}_{network.weights}")
        self.layers = tuple(layers if layers is not None else network.layers)
        if not self.layers:
            remedy = "name one, as network.module.named_modules() does"
            raise InputError("layers", wanted="at least one layer", got="none", remedy=remedy)
        for layer in self.layers:
            resolve_layer(network.module, layer)
        ranges = RangeOptions.of({"clusters": clusters, "quantile": quantile, **(options or {})})
        asked = SearchOptions.of({"length": length, "beam": beam, "search": search, **(options or {})})
        SEARCHES[asked.search](asked, EvidenceOptions.of(options or {}).permutations)
        random_units(None, 1, n_units, np.random.default_rng(seed))  # checks it
        height, width = network.preprocessing.size
        self.shape = shape if shape is not None else (height // 2, width // 2)
        self.clusters, self.quantile = ranges.clusters, ranges.quantile
        self.length, self.beam, self.search = asked.length, asked.beam, asked.search
        self.n_units, self.seed, self.options = n_units, seed, dict(options or {})
        self._exclude = self.options.pop("exclude", None)
        self.device, self.batch_size, self.workers = device, batch_size, workers
        self.threads, self.progress, self._waiting = threads, progress, waiting
        self._segmentations, self._activations, self._results = map(Path, (segmentations, activations, results))
        self._maps: dict[str, npt.NDArray[Any]] = {}
        self._found: dict[str, Explanations] = {}

    @cached_property
    def concepts(self) -> Concepts:
        """The concepts of the data set on the grid, from the folder of segmentations if they are there."""
        folder = self._segmentations / self.name
        with locked_folder(folder, waiting=self._waiting):
            out = folder / "{}x{}.safetensors".format(*self.shape)
            concepts = self.data.concepts(self.shape, progress=self.progress, out=out)
        return concepts if self._exclude is None else concepts.excluding(self._exclude, threads=self.threads)

    def activations(self, layer: str) -> npt.NDArray[Any]:
        """Return what a layer puts out for every image, a map of the file in the folder of activations."""
        if layer not in self._maps:
            folder = self._activations / self.name / self._network_name / _file_name(layer)
            problems = self.data.check(progress=self.progress)
            if problems:
                raise FilesError(problems, "repair them, or leave those images out; nothing was probed yet")
            with locked_folder(folder, waiting=self._waiting):
                maps: Any = probe(
                    self.network,
                    self.data,
                    layer,
                    out=folder / "probe",
                    batch_size=self.batch_size,
                    workers=self.workers,
                    device=self.device,
                    progress=self.progress,
                )
            self._maps[layer] = maps
        return self._maps[layer]

    def units(self, layer: str) -> list[int]:
        """Return the units to study: all, or random ones."""
        return random_units(None, self.activations(layer).shape[1], self.n_units, np.random.default_rng(self.seed))

    def folder(self, layer: str) -> Path:
        """Return where the results of a layer are."""
        chosen = f"_{self.n_units}_units_{self.seed}" if self.n_units else ""
        above = f"_q{self.quantile:g}" if self.clusters == 1 and self.quantile != RangeOptions.quantile else ""
        settings = f"{self.clusters}_{self.length}_{self.beam}_{self.search}{above}{chosen}"
        return self._results / self.name / self._network_name / f"{_file_name(layer)}_{settings}"

    def alone(self, layer: str) -> AbstractContextManager[Path]:
        """Hold the lock of the folder of results."""
        return locked_folder(self.folder(layer), waiting=self._waiting)

    def found(self, layer: str) -> Explanations:
        """Return the explanations of a layer, from its folder of results as far as they are there.

        The folder then holds the run (``run/``), ``explanations.json``, and ``manifest.json``: settings, content
        hashes, versions and seed.
        """
        if layer not in self._found:
            activations, units, concepts = self.activations(layer), self.units(layer), self.concepts
            with self.alone(layer) as folder:
                found = explain(
                    activations,
                    concepts,
                    clusters=self.clusters,
                    quantile=self.quantile,
                    length=self.length,
                    beam=self.beam,
                    search=self.search,
                    units=units,
                    threads=self.threads,
                    progress=self.progress,
                    out=folder / "run",
                    **self.options,
                )
                found.save(folder / "explanations.json")
                write_text(folder / "manifest.json", json_text(self._manifest(layer, found), sort_keys=True) + "\n")
            self._found[layer] = found
        return self._found[layer]

    @property
    def batches(self) -> Batches:
        """The images as the network takes them, in the order of the data set."""
        return Batches(self.data, self.network, self.batch_size, self.workers)

    def report(self, layer: str) -> Path:
        """Write the report of a layer with pictures into its folder of results, and return its path."""
        found = self.found(layer)
        with self.alone(layer) as folder:
            path = report_path(folder, found)
            title = f"{self.network.name} ({self.network.weights}), {layer}, on {self.name}"
            write_report(
                path,
                found,
                self.concepts,
                activations=self.activations(layer),
                images=self.data.images,
                title=title,
                threads=self.threads,
            )
        return path if path.suffix else path / "index.html"

    def _manifest(self, layer: str, found: Explanations) -> dict[str, Any]:
        versions = {"ccx": VERSION}
        for library in _VERSIONS:
            with suppress(importlib.metadata.PackageNotFoundError):  # a module of one's own needs no torchvision
                versions[library] = importlib.metadata.version(library)
        return {
            "format": "ccx.experiment/1",
            "data": {"name": self.name, "kind": self.data.kind, "images": len(self.data)},
            "concepts": found.concepts_hash,
            "network": {
                "name": self.network.name,
                "weights": self.network.weights,
                "hashes": model_hashes(self.network.module),
            },
            "layer": layer,
            "settings": found.settings,
            "seed": self.seed,
            "versions": versions,
        }


class Batches:
    """Batches of preprocessed images, tensors float32[n, 3, h, w], read anew each time that they are iterated."""

    def __init__(self, data: Dataset, network: NamedModel, batch_size: int, workers: int) -> None:
        self._data, self._network, self._batch_size, self._workers = data, network, batch_size, workers

    @property
    def keys(self) -> Keys | None:
        """Those of the images."""
        return self._data.keys

    def __len__(self) -> int:
        return math.ceil(len(self._data) / self._batch_size)

    def __iter__(self) -> Iterator[Any]:
        source = as_source(self._data, self._network.preprocessing, self._batch_size, self._workers)
        return (batch.inputs[0] for batch in source.batches)


def _file_name(text: str) -> str:
    """Return a text as the name of a file: what may not stand there is replaced."""
    return "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in text).lstrip(".") or "_"


def run(experiment: Experiment) -> dict[str, Explanations]:
    """Explain the units of all layers of an experiment: its main study."""
    return {layer: experiment.found(layer) for layer in experiment.layers}
