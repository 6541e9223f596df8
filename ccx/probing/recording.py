"""`probe`: run a network over data and record what its layers put out."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, get_args

import numpy as np

from ccx import memory, networks
from ccx.checks import UNBOUNDED, choice, integer
from ccx.errors import InputError
from ccx.jobs import Progress, check_progress, interruptible, progress_reporter
from ccx.keys import Activations, check_keys
from ccx.models import NamedModel
from ccx.probing.identity import check_weights, described, model_hashes
from ccx.probing.layouts import check_layout
from ccx.probing.loaders import Preprocess, Source, as_source
from ccx.probing.runner import Array, Arrays, Precision, Runner, StoredDtype
from ccx.probing.storing import ActivationFolder
from ccx.store import PathLike

_MOST_WORKERS = 1024  # processes that PyTorch would start at once
COMMIT_SECONDS = 5.0  # a run that is killed loses the batches of about so long


@interruptible()
def probe(  # noqa: PLR0913 - public keywords
    model: Any,
    loader: Any,
    layers: Any = None,
    *,
    output: networks.Output = None,
    inputs: int | None = None,
    units: Iterable[int] | None = None,
    tokens: tuple[int, int] | None = None,
    skip: int = 0,
    unit_axis: int | None = None,
    call: int | None = None,
    preprocessing: Preprocess | None = None,
    batch_size: int = 32,
    workers: int = 0,
    device: Any = None,
    precision: Precision = "float32",
    dtype: StoredDtype = "float32",
    data_id: str | None = None,
    keys: Sequence[str] | None = None,
    out: PathLike | None = None,
    overwrite: bool = False,
    progress: Progress | bool | None = None,
) -> Any:
    """Run a network over data and return the activations of its layers, ready for `explain`.

    The model runs in evaluation mode and without gradients. Afterwards hooks, device and every module's training flag
    are as they were, also after an exception or Ctrl-C.

    Parameters
    ----------
    model
        A torch module, or a network of `ccx.models.load`, whose layers and preprocessing are the defaults.
    loader
        Batches: any iterable of tensors, of tuples that begin with one (see `inputs`), or of mappings of tensors,
        which become the model's keyword arguments; a torch DataLoader whose sampler lists all samples in order. One
        array of all
        samples, or a mapping of such. Or single samples: a torch data set with an index, a data set of
        `ccx.datasets`, a list of images (paths, Pillow, uint8[h, w, 3]), a folder of pictures (in natural order of
        their names), or an array uint8[N, h, w, 3].
    layers
        The path of a module such as ``"layer4"`` or ``"layer2.0.conv1"``, or the module itself; or several in a list,
        which are recorded in one pass.
    output
        Of layers that put out a tuple, a mapping or an object: which entry, such as ``0``, ``"last_hidden_state"`` or
        ``"states.0"``. None takes the only tensor, and refuses several.
    inputs
        Of batches that are tuples: how many entries are inputs of the model; the others, such as labels, are left out.
        None = 1, but a second entry with two axes or more is refused if the model could take it.
    units
        Indices of the units to keep; None = all. Unit i of the result is the i-th of them in ascending order.
    tokens, skip
        Of outputs with three axes: the grid (h, w) on which the tokens lie, and how many precede it (a vision
        transformer's class and register tokens). Without `tokens` they stay a row, behind `skip`.
    unit_axis
        The axis of the units in the layer's output; None = axis 1 of two or four (as convolutions have them), the last
        of three (as transformers have them with ``batch_first=True``). Axis 0 must be that of the samples.
    call
        Of a layer that runs several times in one pass: which run counts, 0 = the first, -1 = the last. None
        refuses such a layer.
    preprocessing
        From a single image to a tensor, such as `ccx.models.Preprocessing`; samples that are tensors of anything but
        uint8 are taken as they are, and so are batches.
    batch_size, workers
        Of single samples: how many run at once, and how many processes read them.
    device
        Where to run the model, for instance "cuda"; None = where it is.
    precision
        "bfloat16" or "float16" run the model in mixed precision (`torch.autocast`).
    dtype
        Of the result: "float32", or "float16" for half the disk; values beyond float16 are refused.
    data_id
        Your name for the data. Instead of hashing every sample, `out` then trusts that data of the same name are the
        same, and reads no more than one batch of them when nothing is left to do.
    keys
        Who the samples are, one distinct text each (`ccx.keys`). By default as the data tell: files by their paths
        below the folder, or, in a list, below the deepest folder that holds them all; data sets of ``ccx.datasets`` and
        of torchvision as these list them; None where they do not tell.
    out
        A folder: activations are appended to one ``.npy`` file per layer, memory-mapped in the result; a run that was
        killed goes on, and what is there already is not computed again, except the first batch, to be compared. It
        refuses weights, layers, settings or samples other than those that it was begun with, and a model whose outputs
        differ.
    overwrite
        Discard what `out` holds of an earlier probe.
    progress
        None = a bar if the standard error is a terminal; True, False; or a function that is called with
        (samples done, samples in all); the latter is 0 while nobody knows.

    Returns
    -------
    float32 or float16
        [N, U, h, w], [N, U, T] or [N, U]; a read-only map of the file with `out`. Of several layers a dict of them by
        path, of one layer its array. Where the keys of the samples are known it carries them (`ccx.Activations`), and
        is read-only, too.

    Raises
    ------
    InputError
        (`ShapeError`, `DTypeError`, `MemoryBudgetError`) if something does not fit.
    StoreError
        If `out` cannot be written or holds something else, or a picture cannot be read. Work that was stored is kept.
    MissingExtraError
        If torch is not installed.

    Examples
    --------
    >>> maps = ccx.probe(model, images, "layer4", out="layer4")  # doctest: +SKIP
    >>> found = ccx.explain(maps, concepts)  # doctest: +SKIP

    """
    networks.require_torch("probing")
    check_progress(progress)
    layout = check_layout(tokens, skip, unit_axis, units)
    _check_options(call, batch_size, workers, precision, dtype, data_id, inputs)
    module = model
    if isinstance(model, NamedModel):
        module, preprocessing = model.module, preprocessing or model.preprocessing
        layers = layers or (model.layers[0] if model.layers else None)
    names = _layer_names(layers, module)
    check_weights(module)
    runner = Runner(module, names, layout, call, networks.check_output(output), precision, dtype, device)
    n_inputs = 1 if inputs is None and not networks.takes_several(networks.unwrapped(module)) else inputs
    source = as_source(loader, preprocessing, batch_size, workers, n_inputs)
    if keys is not None:
        source = replace(source, keys=check_keys("keys", keys, source.n_samples))
    with progress_reporter(progress, "probing") as report:
        if out is None:
            found = _in_memory(runner, source, report)
        else:
            settings = {**runner.settings(), "inputs": n_inputs or 1, "data": data_id}
            settings["preprocessing"] = described(preprocessing)
            hashes = model_hashes(module)
            with ActivationFolder(out, layers=names, settings=settings, hashes=hashes, overwrite=overwrite) as folder:
                folder.begin(source.keys, is_sure=data_id is None or keys is not None)
                _into_folder(folder, runner, source, report, is_hashed=data_id is None)
                found = folder.arrays()
    return found if isinstance(layers, (list, tuple)) else found[names[0]]


def _in_memory(runner: Runner, source: Source, report: Progress) -> Arrays:
    """Probe into arrays: of their final size at once, where it is known."""
    total = source.n_samples
    found: dict[str, list[Array]] = {layer: [] for layer in runner.layers}
    done = 0
    with runner.running() as run:
        report(0, total or 0)
        for batch in source.batches:
            arrays = run(batch)
            for layer, array in arrays.items():
                if not found[layer] and total is not None:
                    memory.require_bytes("out", total * array[0].nbytes, "give out=, a folder to store them in")
                    found[layer].append(np.empty((total, *array.shape[1:]), array.dtype))
                if total is None:
                    found[layer].append(array)
                elif done + len(array) <= total:
                    found[layer][0][done : done + len(array)] = array
            done += batch.n_samples
            report(done, total or 0)
    _check_end(done, source)
    arrays = {layer: parts[0] if len(parts) == 1 else np.concatenate(parts) for layer, parts in found.items()}
    if source.keys is None:
        return arrays
    return {layer: Activations.carrying(array, source.keys) for layer, array in arrays.items()}


def _into_folder(
    folder: ActivationFolder, runner: Runner, source: Source, report: Progress, *, is_hashed: bool
) -> None:
    """Probe into a folder, from where it stands; what is stored there is compared, and not computed again.

    Of the stored samples the first batch is computed again, whatever the hashes say, as they cannot see all.
    """
    total = source.n_samples
    n_before = folder.n_stored
    done, committed = 0, time.monotonic()
    with runner.running() as run:
        report(0, total or 0)
        for batch in source.batches:
            first, done = done, done + batch.n_samples
            digests = batch.digests() if is_hashed else None
            if digests is not None:
                folder.check(first, digests)
            if done > n_before and folder.finished:
                folder.refuse_more()
            if first == 0 or done > n_before:
                n_known = min(max(0, n_before - first), batch.n_samples)
                arrays = run(batch)
                if first == 0:
                    folder.check_numbers({layer: array[:n_known] for layer, array in arrays.items()})
                arrays = {layer: array[n_known:] for layer, array in arrays.items()}
            if done > n_before:
                if total is not None and first <= n_before:
                    folder.require_room(sum(array[0].nbytes for array in arrays.values()), total)
                folder.append(arrays, None if digests is None else digests[n_known:])
                if time.monotonic() - committed >= COMMIT_SECONDS:
                    folder.commit()
                    committed = time.monotonic()
            report(done, total or 0)
            if folder.finished and not is_hashed:
                folder.finish()
                return  # the data are believed by their name
        _check_end(done, source)
        folder.check_end(done)
        folder.finish()


def _check_end(n_samples: int, source: Source) -> None:
    if n_samples == 0:
        raise InputError("loader", wanted="at least one batch", got="none", remedy="an iterator can be used only once")
    networks.check_count(n_samples, source.n_samples)
    if source.keys is not None and len(source.keys) != n_samples:
        raise InputError("keys", wanted=f"{n_samples} keys", got=str(len(source.keys)), remedy="give one per sample")


def _layer_names(layers: Any, module: Any) -> tuple[str, ...]:
    """Return the layers' paths, each of which is there."""
    import torch

    names = (layers,) if isinstance(layers, (str, torch.nn.Module)) else layers
    if not isinstance(names, (list, tuple)) or not names:
        # What is no module has no children here, and is refused with its first layer.
        children: dict[str, Any] = dict(getattr(module, "named_children", dict)())
        listed = f", such as {', '.join(list(children)[:10])}" if children else ""
        remedy = f"name one as model.named_modules() does{listed}; or several in a list"
        raise InputError("layers", wanted="a layer", got=repr(layers), remedy=remedy)
    paths = [networks.layer_path(module, layer) for layer in names]
    for path in paths:
        networks.resolve_layer(module, path)
    if len(set(paths)) < len(paths):
        raise InputError("layers", wanted="each layer once", got=f"{paths}", remedy="name it once")
    return tuple(paths)


def _check_options(
    call: Any, batch_size: Any, workers: Any, precision: Any, dtype: Any, data_id: Any, inputs: Any
) -> None:
    remedy = "leave it out"
    integer("batch_size", batch_size, 1, UNBOUNDED, remedy)
    integer("workers", workers, 0, _MOST_WORKERS, "one per processor is plenty")
    for name, value, least in (("call", call, -UNBOUNDED), ("inputs", inputs, 1)):
        if value is not None:
            integer(name, value, least, UNBOUNDED, remedy)
    choice("precision", precision, get_args(Precision), "leave it out for float32")
    choice("dtype", dtype, get_args(StoredDtype), "leave it out for float32")
    if data_id is not None and (not isinstance(data_id, str) or not data_id):
        raise InputError("data_id", wanted="None or a text", got=repr(data_id), remedy="leave it out to hash the data")
