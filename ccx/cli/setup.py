"""What all studies are given on the command line: network, data set, settings, folders."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer
from rich.text import Text
from typer.core import TyperCommand

from ccx import models
from ccx.cli import flags, terminal
from ccx.cli.data_specs import DEMO, FORMS, open_data
from ccx.datasets import Broden, Dataset
from ccx.errors import InputError, MissingExtraError
from ccx.options import RangeOptions, Search, SearchOptions
from ccx.store.files import read_bytes, store_error
from ccx.studies import Experiment, Table
from ccx.studies.table import check_format

_NETWORK, _DATA, _FOLDERS = "Network", "Data", "Folders"
_N_CLASSES = {"places365": 365, "imagenet": 1000}
_BARE = "--pre-load-masks"  # the published scripts' option that is written with and without a value
_FORMATS = ("csv", "jsonl", "parquet")
_DECLARED: dict[str, tuple[str, ...]] = {
    "clusters": ("--num-clusters",), "quantile": (), "length": (), "beam": ("--beam-limit",), "search": (),
}  # fmt: skip
"""The options that `ccx.options` declares, and what the published scripts call them."""


def _option(*flags: str, help: str, panel: str | None = None, **more: Any) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(*flags, help=help, rich_help_panel=panel, **more)
    return option


@dataclass(frozen=True, kw_only=True)
class Setup:
    """The options that all studies share, under the names of the published scripts."""

    model: Annotated[str, _option("--model", help="A classifier of torchvision.", panel=_NETWORK)] = "resnet18"
    pretrained: Annotated[
        str, _option("--pretrained", help="places365, imagenet or none (untrained).", panel=_NETWORK)
    ] = "places365"
    dataset: Annotated[
        str,
        _option("--dataset", help="Classes of an untrained network: those of places365 or imagenet.", panel=_NETWORK),
    ] = "places365"
    checkpoint: Annotated[
        Path | None,
        _option("--checkpoint", help="File of the weights, instead of one in --root-models.", panel=_NETWORK),
    ] = None
    checkpoint_key: Annotated[
        str | None,
        _option("--checkpoint-key", help="Which weights, of a file with several: state_dict_ema.", panel=_NETWORK),
    ] = None
    layer: Annotated[list[str] | None, _option("--layer", help="Path of a layer; repeatable.", panel=_NETWORK)] = None
    device: Annotated[str, _option("--device", help="Where the network runs: cpu, cuda, ...", panel=_NETWORK)] = "cpu"
    batch_size: Annotated[int, _option("--batch-size", help="Images at a time.", panel=_NETWORK)] = 32
    workers: Annotated[int, _option("--workers", help="Processes that read images.", panel=_NETWORK)] = 0
    subset: Annotated[
        str, _option("--subset", help="Of Broden: ade20k, pascal or any text in the paths.", panel=_DATA)
    ] = "ade20k"
    data: Annotated[str | None, _option("--data", help=f"Another data set: {FORMS}.", panel=_DATA)] = None
    max_images: Annotated[int, _option("--max-images", help="Only so many images; 0 = all.", panel=_DATA)] = 0
    random_units: Annotated[int, _option("--random-units", help="So many random units; 0 = all.")] = 0
    seed: Annotated[int, _option("--seed", help="Of random choices.")] = 0
    clusters: int = RangeOptions.clusters
    quantile: float = RangeOptions.quantile
    length: int = SearchOptions.length
    beam: int = SearchOptions.beam
    search: Search = SearchOptions.search
    root_models: Annotated[Path, _option("--root-models", help="Checkpoints.", panel=_FOLDERS)] = Path("data/model")
    root_datasets: Annotated[Path, _option("--root-datasets", help="Where broden1_224 lies.", panel=_FOLDERS)] = Path(
        "data/dataset"
    )
    root_segmentations: Annotated[
        Path, _option("--root-segmentations", help="Concepts are kept here.", panel=_FOLDERS)
    ] = Path("data/cache/segmentations")
    root_activations: Annotated[
        Path, _option("--root-activations", help="Activations are kept here.", panel=_FOLDERS)
    ] = Path("data/cache/activations")
    root_results: Annotated[Path, _option("--root-results", help="Results are written here.", panel=_FOLDERS)] = Path(
        "data/results"
    )
    pre_load_masks: Annotated[
        str,
        _option(_BARE, help="Accepted, and without effect: masks are always in memory.", hidden=True),
    ] = "false"
    format: Annotated[str, _option("--format", help="Of the tables in the folder: csv, jsonl or parquet.")] = "csv"
    threads: flags.Threads = None
    config: Annotated[
        Path | None,
        _option("--config", help="TOML file of options; those on the command line win.", is_eager=True),
    ] = None

    def experiment(self) -> Experiment:
        """Open data set and network."""
        if self.format not in _FORMATS:
            wanted = " or ".join(_FORMATS)
            raise InputError("--format", wanted=wanted, got=repr(self.format), remedy="see --help")
        if self.format == "parquet":
            for library in ("pandas", "pyarrow"):
                require(library, "parquet", "--format parquet")
        if self.max_images < 0:
            wanted, remedy = "an integer >= 0", "0 = all images"
            raise InputError("--max-images", wanted=wanted, got=str(self.max_images), remedy=remedy)
        network = self._network()
        data = self._data(network)
        return Experiment(
            data,
            network,
            name=self._data_name(),
            network_name=self._network_name(),
            layers=self.layer or None,
            clusters=self.clusters,
            quantile=self.quantile,
            length=self.length,
            beam=self.beam,
            search=self.search,
            n_units=self.random_units,
            seed=self.seed,
            segmentations=self.root_segmentations,
            activations=self.root_activations,
            results=self.root_results,
            device=self.device,
            batch_size=self.batch_size,
            workers=self.workers,
            threads=self.threads,
            waiting=_say_waiting,
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
            if self.dataset not in _N_CLASSES:
                wanted = " or ".join(_N_CLASSES)
                raise InputError("--dataset", wanted=wanted, got=repr(self.dataset), remedy="see --help")
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
        data: Dataset
        if self.data is not None:
            data = open_data(self.data)
        else:
            root = self.root_datasets / f"broden1_{network.preprocessing.size[0]}"
            data = Broden(root, self.subset)
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


def require(library: str, extra: str, purpose: str) -> None:
    """Raise `MissingExtraError` if a library is not installed: before hours of work that need it at the end."""
    if importlib.util.find_spec(library) is None:
        raise MissingExtraError(library, extra, purpose)


def study(**defaults: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a function of a `Setup` and its own options into a command that has all of them.

    `defaults` are those of shared options that this study has of its own.
    """

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        shared = [_parameter(one.name, defaults.get(one.name, one.default)) for one in fields(Setup)]
        _, *own = inspect.signature(function, eval_str=True).parameters.values()
        own = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in own]

        def command(**values: Any) -> None:
            setup = Setup(**{one.name: values.pop(one.name) for one in fields(Setup)})
            with terminal.compile_notice():
                function(setup, **values)

        return flags.as_command(command, function, [*own, *shared])

    return decorate


def _parameter(name: str, default: Any) -> inspect.Parameter:
    """Return a field of `Setup` as a parameter that typer reads."""
    if name in _DECLARED:
        return flags.parameter(name, *_DECLARED[name], default=default)
    hint = get_type_hints(Setup, include_extras=True)[name]
    annotation = _with_config(hint) if name == "config" else hint
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _with_config(hint: Any) -> Any:
    """Return the type of ``--config`` with what reads it."""
    kind, option = hint.__origin__, hint.__metadata__[0]
    option.callback = _read_config
    return Annotated[kind, option]


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
    flags = {
        flag.lstrip("-").replace("-", "_"): parameter.name
        for parameter in context.command.params
        for flag in parameter.opts
    }
    chosen = {}
    for name, value in values.items():
        flag = name.replace("-", "_")
        if flag not in flags or flag == "config":
            remedy = f"see ccx {context.info_name} --help"
            raise InputError("--config", wanted="names of options", got=f"{name!r} in {path}", remedy=remedy)
        is_one = "layer" in flag and isinstance(value, str)
        chosen[flags[flag]] = [value] if is_one else value
    context.default_map = {**(context.default_map or {}), **chosen}
    return path


def _names(context: typer.Context) -> set[str]:
    """Return the names of a command: as it was called, and its own where that is a script's name."""
    names = (context.info_name or "", getattr(context.command.callback, "__name__", ""))
    return {name.replace("_", "-") for name in names}


class StudyCommand(TyperCommand):
    """A command that takes ``--pre_load_masks`` with and without a value."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Give the option a value where it has none, as it would else take the next option for one."""
        filled = [
            f"{one}=true" if one.replace("_", "-") == _BARE and (after is None or after.startswith("-")) else one
            for one, after in zip_longest(args, args[1:])
        ]
        return super().parse_args(ctx, filled)


def _say_waiting(folder: Path) -> None:
    terminal.errors().print(Text(f"another run works in {folder}; waiting for it ..."), soft_wrap=True)
