"""What all studies are given on the command line: network, data set, settings, folders."""

from __future__ import annotations

import hashlib
import tomllib
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from ccx import models
from ccx.checks import UNBOUNDED, choice, integer
from ccx.cli import flags, terminal
from ccx.cli.data_specs import DEMO, FORMS, open_data
from ccx.cli.flags import declared, option
from ccx.datasets import Broden, Dataset
from ccx.errors import InputError, require_library
from ccx.options import RangeOptions, SearchOptions
from ccx.store.files import read_bytes, store_error
from ccx.studies import Experiment, Table
from ccx.studies.table import check_format

_NETWORK, _DATA, _FOLDERS = "Network", "Data", "Folders"
_N_CLASSES = {"places365": 365, "imagenet": 1000}
_BARE = "--pre-load-masks"  # the published scripts' option that is written with and without a value
_FORMATS = ("csv", "jsonl", "parquet")
_OF_EXPERIMENTS = (
    *("clusters", "quantile", "length", "beam", "search", "seed"),
    *("device", "batch_size", "workers", "threads"),
)


def _read_config(context: typer.Context, path: Path | None) -> Path | None:
    """Take the options in a TOML file as defaults: of the whole file, then of the table named like the command."""
    if path is None:
        return None
    try:
        content = tomllib.loads(read_bytes(path).decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise store_error(path, f"is no TOML ({error})", "write lines like length = 3") from error
    tables = {name: value for name, value in content.items() if isinstance(value, dict)}
    values = {name: value for name, value in content.items() if name not in tables}
    for name, table in tables.items():
        if name.replace("_", "-") in _names(context):
            values |= table
    known = {flag[2:].replace("-", "_"): one.name for one in context.command.params for flag in one.opts}
    chosen = {}
    for name, value in values.items():
        flag = name.replace("-", "_")
        if flag not in known or flag == "config":
            remedy = f"see ccx {context.info_name} --help"
            raise InputError("--config", wanted="names of options", got=f"{name!r} in {path}", remedy=remedy)
        is_one = "layer" in flag and isinstance(value, str)
        chosen[known[flag]] = [value] if is_one else value
    context.default_map = {**(context.default_map or {}), **chosen}
    return path


def _names(context: typer.Context) -> set[str]:
    """Return the names of a command: as it was called, and its own where that is a script's name."""
    names = (context.info_name or "", getattr(context.command.callback, "__name__", ""))
    return {name.replace("_", "-") for name in names}


@dataclass(frozen=True, kw_only=True)
class Setup:
    """The options that all studies share, under the names of the published scripts."""

    model: Annotated[str, option("A classifier of torchvision.", _NETWORK)] = "resnet18"
    pretrained: Annotated[str, option("places365, imagenet or none (untrained).", _NETWORK)] = "places365"
    dataset: Annotated[str, option("Classes of an untrained network: those of places365 or imagenet.", _NETWORK)] = (
        "places365"
    )
    checkpoint: Annotated[Path | None, option("File of the weights, instead of one in --root-models.", _NETWORK)] = None
    checkpoint_key: Annotated[
        str | None, option("Which weights, of a file with several: state_dict_ema.", _NETWORK)
    ] = None
    layer: Annotated[list[str] | None, option("Path of a layer; repeatable.", _NETWORK)] = None
    device: Annotated[str, option("Where the network runs: cpu, cuda, ...", _NETWORK)] = "cpu"
    batch_size: Annotated[int, option("Images at a time.", _NETWORK)] = 32
    workers: Annotated[int, option("Processes that read images.", _NETWORK)] = 0
    subset: Annotated[str, option("Of Broden: ade20k, pascal or any text in the paths.", _DATA)] = "ade20k"
    data: Annotated[str | None, option(f"Another data set: {FORMS}.", _DATA)] = None
    max_images: Annotated[int, option("Only so many images; 0 = all.", _DATA)] = 0
    random_units: Annotated[int, option("So many random units; 0 = all.")] = 0
    seed: Annotated[int, option("Of random choices.")] = 0
    clusters: Annotated[int, declared("clusters", "--num-clusters")] = RangeOptions.clusters
    quantile: Annotated[float, declared("quantile")] = RangeOptions.quantile
    length: Annotated[int, declared("length")] = SearchOptions.length
    beam: Annotated[int, declared("beam", "--beam-limit")] = SearchOptions.beam
    search: Annotated[str, declared("search")] = SearchOptions.search
    root_models: Annotated[Path, option("Checkpoints.", _FOLDERS)] = Path("data/model")
    root_datasets: Annotated[Path, option("Where broden1_224 lies.", _FOLDERS)] = Path("data/dataset")
    root_segmentations: Annotated[Path, option("Concepts are kept here.", _FOLDERS)] = Path("data/cache/segmentations")
    root_activations: Annotated[Path, option("Activations are kept here.", _FOLDERS)] = Path("data/cache/activations")
    root_results: Annotated[Path, option("Results are written here.", _FOLDERS)] = Path("data/results")
    pre_load_masks: Annotated[str, option("Accepted, and without effect: masks are always in memory.", hidden=True)] = (
        "false"
    )
    format: Annotated[str, option("Of the tables in the folder: csv, jsonl or parquet.")] = "csv"
    threads: flags.Threads = None
    config: Annotated[
        Path | None,
        option("TOML file of options; those on the command line win.", is_eager=True, callback=_read_config),
    ] = None

    def experiment(self) -> Experiment:
        """Open data set and network."""
        choice("--format", self.format, _FORMATS, "see --help", " or ".join(_FORMATS))
        if self.format == "parquet":
            for library in ("pandas", "pyarrow"):
                require_library(library, "parquet", "--format parquet")
        integer("--max-images", self.max_images, 0, UNBOUNDED, "0 = all images")
        network = self._network()
        same: dict[str, Any] = {name: getattr(self, name) for name in _OF_EXPERIMENTS}
        return Experiment(
            self._data(network),
            network,
            name=self._data_name(),
            network_name=self._network_name(),
            layers=self.layer or None,
            n_units=self.random_units,
            segmentations=self.root_segmentations,
            activations=self.root_activations,
            results=self.root_results,
            waiting=lambda folder: terminal.notice(f"another run works in {folder}; waiting for it ..."),
            **same,
        )

    def untrained(self) -> Experiment:
        """Open the same network without training, on the same data set."""
        return replace(self, pretrained="none", checkpoint=None, checkpoint_key=None).experiment()

    def write(self, folder: Path, name: str, table: Table) -> Path:
        """Write a table into a folder, and return its path."""
        path = folder / f"{name}.{self.format}"
        check_format(path)
        table.write(path)
        return path

    def _network(self) -> models.NamedModel:
        weights: Any = self.pretrained
        if self.pretrained == "none":
            choice("--dataset", self.dataset, _N_CLASSES, "see --help", " or ".join(_N_CLASSES))
            return models.load(self.model, weights=weights, classes=_N_CLASSES[self.dataset], seed=self.seed)
        file = self.checkpoint
        if file is None and self.pretrained != "imagenet":
            file = self.root_models
        return models.load(self.model, weights=weights, file=file, key=self.checkpoint_key)

    def _network_name(self) -> str | None:
        if self.pretrained == "none":
            return f"{self.model}_none_{self.seed}"
        chosen = f"_{self.checkpoint_key}" if self.checkpoint_key else ""
        return None if self.checkpoint is None else f"{self.model}_{self.checkpoint.name}{chosen}"

    def _data(self, network: models.NamedModel) -> Dataset:
        root = self.root_datasets / f"broden1_{network.preprocessing.size[0]}"
        data = Broden(root, self.subset) if self.data is None else open_data(self.data)
        return data.take(slice(self.max_images)) if self.max_images else data

    def _data_name(self) -> str:
        name = self.subset or "broden"
        if self.data == DEMO:
            name = DEMO
        elif self.data is not None:
            kind, _, rest = self.data.partition(":")
            spec = hashlib.sha256(self.data.encode("utf-8", "surrogateescape")).hexdigest()[:8]
            name = f"{kind}_{Path(rest.split(',')[0]).name}_{spec}"  # many data sets lie in a folder named images
        return f"{name}_{self.max_images}" if self.max_images else name


class StudyCommand(TyperCommand):
    """A command that takes ``--pre_load_masks`` with and without a value."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Give the option a value where it has none, as it would else take the next option for one."""
        filled = [
            f"{one}=true" if one.replace("_", "-") == _BARE and (after is None or after.startswith("-")) else one
            for one, after in zip_longest(args, args[1:])
        ]
        return super().parse_args(ctx, filled)
