"""Checkpoints: the published formats, files of other networks, and files that would run code."""

from __future__ import annotations

import pickle
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccx.errors import InputError, StoreError
from ccx.models import archives, pickles, read_checkpoint
from ccx.models.checkpoints import fill

pytestmark = [pytest.mark.needs("torch"), pytest.mark.needs("torchvision")]


@pytest.fixture
def files():
    from tests.support import checkpoint_files

    return checkpoint_files


def same(found, model):
    import torch

    expected = model.state_dict()
    assert found.keys() == expected.keys()
    for name, value in found.items():
        assert type(value) in (torch.Tensor, torch.nn.Parameter)
        assert value.dtype == expected[name].dtype
        assert torch.equal(value, expected[name]), name


@pytest.mark.parametrize("kind", ["zip", "legacy", "python2"])
def test_state_dicts(files, tmp_path, kind):
    model = files.small_resnet()
    path = tmp_path / "resnet18_places365.pth.tar"
    for value in (
        files.training_state(model),
        model.state_dict(),
        dict(model.named_parameters()) | dict(model.named_buffers()),
        {"model": model.state_dict()},
    ):
        files.save(value, path, kind)
        same(read_checkpoint(path), model)


@pytest.mark.parametrize("kind", ["zip", "legacy"])
def test_whole_models_with_old_names(files, tmp_path, kind):
    import torch

    model = files.small_densenet()
    expected = files.small_densenet()
    old = files.rename_as_of_old(model)
    path = tmp_path / "whole_densenet161_places365_python36.pth.tar"
    for value in (old, torch.nn.DataParallel(old)):
        files.save(value, path, kind)
        with pytest.raises(Exception, match=r"(?i)weights.only|allowed global|persistent"):
            torch.load(path, weights_only=True)
        assert b"norm.1" in path.read_bytes()
        found = read_checkpoint(path)
        same(found, expected)
    target = files.small_densenet()
    with torch.no_grad():
        for value in target.parameters():
            value.zero_()
    fill(target, found, path, "densenet161")
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(target.eval()(images), expected.eval()(images))


@pytest.mark.parametrize("kind", ["zip", "legacy"])
def test_whole_models_of_other_architectures(files, tmp_path, kind):
    import torch

    model = files.small_resnet()
    with torch.no_grad():
        model.fc.weight = torch.nn.Parameter(torch.randn(512, 5).T)  # not contiguous
    files.save(model, tmp_path / "file", kind)
    same(read_checkpoint(tmp_path / "file"), model)
    model.fc.weight = torch.nn.Parameter(model.fc.weight.half())
    files.save(model, tmp_path / "file", kind)
    same(read_checkpoint(tmp_path / "file"), model)


@pytest.mark.parametrize("kind", ["zip", "legacy", "python2", "pickle"])
def test_files_that_would_run_code_are_refused_and_not_run(files, tmp_path, kind):
    marker = tmp_path / "marker"
    path = tmp_path / "checkpoint.pth.tar"
    for name, value in files.hostile_values(marker).items():
        if kind == "python2" and name == "as an attribute of a model":
            continue
        if kind == "pickle":
            path.write_bytes(pickle.dumps(value, protocol=2))
        else:
            files.save(value, path, kind)
        with pytest.raises(
            StoreError, match=r"checkpoint\.pth\.tar: (refused, and nothing in it was run: it names|cannot)"
        ):
            read_checkpoint(path)
        assert not marker.exists(), name
    # The files would have done it.
    path.write_bytes(pickle.dumps(files.hostile_values(marker)["system"]))
    pickle.loads(path.read_bytes())
    assert marker.exists()


@pytest.mark.parametrize("kind", ["zip", "legacy"])
def test_the_refusal_names_what_was_refused(files, tmp_path, kind):
    path = tmp_path / "file"
    for name, wanted in [("system", "posix.system"), ("eval", "__builtin__.eval"), ("import", "__builtin__.__imp")]:
        files.save(files.hostile_values(tmp_path / "marker")[name], path, kind)
        with pytest.raises(StoreError, match=rf"nothing in it was run: it names {wanted}.*, not only weights; save it"):
            read_checkpoint(path)
    files.save({"state_dict": files.small_resnet().state_dict(), "by": files.SetsState("x")}, path, kind)
    with pytest.raises(StoreError, match=r"it names tests\.support\.checkpoint_files\.SetsState"):
        read_checkpoint(path)


def test_instructions_beyond_those_of_checkpoints(files, tmp_path):
    path = tmp_path / "file"
    for program, message in [
        (b"\x80\x02\x82\x01.", "refused.*EXT1"),
        (b"(S'touch marker'\nios\nsystem\n.", "refused.*"),
        (b"\x80\x02(cos\nsystem\nX\x01\x00\x00\x00xo.", r"refused.*os\.system"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x01x\x85R.", r"refused.*os\.system"),
    ]:
        files.save(files.small_resnet(), path, "zip")
        files.repack(path, program)
        with pytest.raises(StoreError, match=message):
            read_checkpoint(path)


def test_files_that_hold_no_weights(files, tmp_path):
    import torch

    path = tmp_path / "file"
    for value in ([1, 2], {"a": 1}, {}, torch.zeros(3), "text", {"state_dict": {}}, {"a": torch.tensor(3.0)}):
        torch.save(value, path)
        with pytest.raises(StoreError, match="holds no state dict; save it again with"):
            read_checkpoint(path)
    for content in (b"\x80", b"\x80\x02N.", b"PK\x03\x04", b"\0" * 1000):
        path.write_bytes(content)
        with pytest.raises(StoreError, match="cannot be read as weights"):
            read_checkpoint(path)
    with pytest.raises(StoreError, match=r"cannot read it \(No such file"):
        read_checkpoint(tmp_path / "nowhere")
    with pytest.raises(StoreError, match=r"cannot read it \(Is a directory"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize("kind", ["zip", "legacy"])
@pytest.mark.parametrize("whole", [False, True])
def test_truncated_files(files, tmp_path, kind, whole):
    path = tmp_path / "file"
    model = files.small_densenet()
    files.save(model if whole else files.training_state(model), path, kind)
    content = path.read_bytes()
    for share in (0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99):
        path.write_bytes(content[: int(share * len(content))])
        with pytest.raises(StoreError, match=r"file: (cannot be read as weights|refused)"):
            read_checkpoint(path)
    path.write_bytes(content[:-1])
    with pytest.raises(StoreError):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("offset", "size", "stride", "wanted"),
    [
        (0, (2, 2), (2, 1), [[0, 1], [2, 3]]),
        (1, (3,), (1,), [1, 2, 3]),
        (4, (0,), (1,), []),
        (3, (2,), (0,), [3, 3]),
        (2, (3,), (1,), None),
        (0, (2, 2), (3, 1), None),
        (-1, (2,), (1,), None),
        (0, (-2,), (1,), None),
        (3, (2,), (-1,), None),
        (0, (2,), (1, 1), None),
        (0, (1 << 62, 4), (1, 1), None),
        (0, (1 << 36,), (0,), None),  # 256 GB of one number
        (0, (5,), (0,), None),
        (0, "aa", (1, 1), None),
    ],
)
def test_tensors_reach_no_further_than_their_storage(offset, size, stride, wanted):
    import torch

    numbers = {"0": torch.arange(4.0)}
    made = pickles.Made("torch._utils._rebuild_tensor", (pickles.Storage("float", "0", 4), offset, size, stride))
    contents = archives.Contents(None, lambda storage: numbers[storage.key])
    if wanted is None:
        with pytest.raises((RuntimeError, TypeError, ValueError)):
            contents.tensor(made)
    else:
        assert torch.equal(contents.tensor(made), torch.tensor(wanted, dtype=torch.float32))


def test_sizes_that_no_memory_holds(files, tmp_path):
    path = tmp_path / "file"
    files.save(files.small_resnet(), path, "legacy")
    whole = path.read_bytes()
    huge = (1 << 61).to_bytes(8, "little")
    for n_items in (64, 512 * 512 * 9):
        path.write_bytes(whole.replace(n_items.to_bytes(8, "little"), huge))
        with pytest.raises(StoreError, match="cannot be read as weights"):
            read_checkpoint(path)
    files.save(files.small_resnet(), path, "zip")
    files.repack(path, b"\x80\x04\x8d" + (1 << 62).to_bytes(8, "little") + b"x.")  # a text of so many bytes
    with pytest.raises(StoreError, match="cannot be read as weights"):
        read_checkpoint(path)


@pytest.mark.parametrize("kind", ["zip", "legacy"])
@given(data=st.data())
def test_damaged_files_are_read_or_refused(tmp_path_factory, kind, data):
    """Whatever bytes are changed, the outcome is weights or a `StoreError`, and no other exception."""
    from tests.support import checkpoint_files as files

    path = tmp_path_factory.getbasetemp() / f"damaged-{kind}"
    whole = tmp_path_factory.getbasetemp() / f"whole-{kind}"
    if not whole.exists():
        files.save(files.small_densenet(), whole, kind)
    content = bytearray(whole.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        where = data.draw(st.integers(0, min(len(content), 60_000) - 1))
        content[where] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        found = read_checkpoint(path)
    except StoreError:
        return
    assert found


def test_a_checkpoint_of_another_architecture(files, tmp_path):
    import torchvision

    path = tmp_path / "file"
    target = torchvision.models.resnet18(num_classes=365)
    for model, wanted in [
        (torchvision.models.resnet34(), r"has besides layer1\.2\..* and \d+ more.*it looks like resnet34: load that"),
        (torchvision.models.squeezenet1_1(), r"lacks conv1\.weight.*it looks like squeezenet1_1: load that"),
        (torchvision.models.resnet18(), r"differs in fc\.weight \[1000, 512\], not \[365, 512\].*give classes=1000"),
        (files.small_densenet(), "check the model's name"),
    ]:
        before = {name: value.clone() for name, value in target.state_dict().items()}
        with pytest.raises(InputError, match=rf"file: expected weights of resnet18, got .*{wanted}"):
            fill(target, model.state_dict(), path, "resnet18")
        assert all((value == before[name]).all() for name, value in target.state_dict().items())


def test_counts_that_old_batch_normalisation_did_not_keep(files):
    import torch

    model, target = files.small_resnet(), files.small_resnet()
    state = {name: value + 1 for name, value in model.state_dict().items() if "num_batches" not in name}
    fill(target, state, "file", "resnet18")
    assert torch.equal(target.conv1.weight, model.conv1.weight + 1)
    del state["bn1.weight"]
    with pytest.raises(InputError, match=r"lacks bn1\.weight; it looks like a changed one"):
        fill(target, state, "file", "resnet18")


def kinds_of_files(model):
    """Return what training scripts write around the weights of a model: what it is -> what is saved."""
    import argparse
    import collections
    import datetime
    import pathlib
    import types

    import numpy as np
    import torch

    state = model.state_dict()

    def behind(prefix):
        return {prefix + name: value for name, value in state.items()}

    optimizer = torch.optim.Adam(model.parameters())
    sum(value.sum() for value in model.parameters()).backward()
    optimizer.step()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    averaged = torch.optim.swa_utils.AveragedModel(model)
    settings = argparse.Namespace(
        lr=0.1, at=pathlib.Path("x"), when=datetime.datetime(2020, 1, 1), on=torch.device("cpu")
    )
    return {
        "compiled": behind("_orig_mod."),
        "parallel": behind("module."),
        "parallel, compiled": behind("module._orig_mod."),
        "compiled, parallel": behind("_orig_mod.module."),
        "inner compiled": {name.replace("layer1.", "layer1._orig_mod."): value for name, value in state.items()},
        "of Lightning": {"state_dict": behind("model."), "epoch": 1, "hyper_parameters": {"lr": 0.1}, "callbacks": {}},
        "of Lightning, with a loss": {"state_dict": {**behind("model."), "loss.weight": torch.ones(5)}},
        "as a backbone": behind("backbone."),
        "as a backbone in more": {"model": behind("module.student.backbone.")},
        "averaged": averaged.state_dict(),
        "with settings": {"model": state, "args": settings},
        "with numbers of NumPy": {
            "state_dict": state,
            "best": np.float64(0.5),
            "all": np.arange(5),
            "z": np.array(["a"]),
        },
        "with an optimizer": {
            "model_state_dict": state,
            "optimizer": optimizer.state_dict(),
            "loss": torch.tensor(1.0),
        },
        "only averages": {"state_dict_ema": state},
        "under net": {"net": state, "acc": 1.0},
        "under a name of its own": {"my_network": state, "classes": ["a", "b"], "where": {"x": (1, 2)}},
        "under two": {"checkpoint": {"model": state}, "criterion": {"weight": torch.ones(5)}},
        "with counters": {**state, "total_ops": torch.zeros(1), "layer1.0.total_params": torch.zeros(1)},
        "without counts": {name: value for name, value in state.items() if "num_batches" not in name},
        "as parameters": dict(model.named_parameters()) | dict(model.named_buffers()),
        "with other containers": {
            "state_dict": state,
            "log": collections.defaultdict(list, a=[1.0]),
            "seen": {1, 2},
            "count": collections.Counter("aab"),
            "last": collections.deque([1, 2]),
            "more": types.SimpleNamespace(a=1),
            "sizes": torch.Size([1, 2]),
            "dtype": torch.bfloat16,
        },
    }


@pytest.mark.states(
    "Checkpoints",
    "prefixes of names: `module.`, `_orig_mod.`, `model.`, `backbone.`, any other",
    "accepted",
    "stripped where all of the network's names are behind one",
)
@pytest.mark.states(
    "Checkpoints",
    "weights under `state_dict`, `model`, `net`, `state_dict_ema` or another key",
    "accepted",
    "if they are the only network in the file",
)
@pytest.mark.states(
    "Checkpoints",
    "namespaces, numbers of NumPy, paths, optimizers, counters beside the weights",
    "accepted",
    "read as data, and left",
)
@pytest.mark.parametrize("kind", ["zip", "legacy"])
def test_what_training_scripts_write(files, tmp_path, kind):
    import torch

    model = files.small_resnet()
    path = tmp_path / "file"
    for name, value in kinds_of_files(model).items():
        files.save(value, path, kind)
        target = files.small_resnet()
        with torch.no_grad():
            for parameter in target.parameters():
                parameter.zero_()
        fill(target, read_checkpoint(path), path, "resnet18")
        for key, wanted in model.state_dict().items():
            assert name == "without counts" or torch.equal(target.state_dict()[key], wanted), (name, key)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_protocol_and_dtype(tmp_path, protocol):
    import torch

    rng = torch.Generator().manual_seed(0)
    plain = torch.randint(-9, 9, (4, 6), generator=rng)
    names = ("float16", "float32", "float64", "bfloat16", "int8", "int16", "int32", "int64", "bool", "complex64")
    state = {name: plain.to(getattr(torch, name)) for name in (*names, "float8_e4m3fn")}
    state |= {"transposed": plain.T, "part": plain[1:3, ::2], "empty": torch.empty(0, 3), "scalar": torch.tensor(2.0)}
    torch.save(state, tmp_path / "file", pickle_protocol=protocol)
    found = read_checkpoint(tmp_path / "file")
    assert found.keys() == state.keys()
    for name, value in state.items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name].to(torch.complex64), value.to(torch.complex64)), name


def written_by_hand(path, tensors):
    """Write a file of safetensors."""
    import json

    header, content = {"__metadata__": {"format": "pt"}}, b""
    for name, (kind, array) in tensors.items():
        offsets = [len(content), len(content) + array.nbytes]
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": offsets}
        content += array.tobytes()
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content)


@pytest.mark.states("Checkpoints", "files of safetensors", "accepted", "their sizes are checked first")
def test_safetensors(tmp_path):
    import numpy as np
    import torch

    path = tmp_path / "model.safetensors"
    numbers = np.arange(12, dtype=np.float32).reshape(3, 4)
    tensors = {
        "module.a": ("F32", numbers),
        "module.b": ("BF16", np.zeros(5, np.uint16)),
        "module.c": ("I64", np.arange(3)),
    }
    written_by_hand(path, tensors)
    found = read_checkpoint(path)
    assert torch.equal(found["a"], torch.from_numpy(numbers))
    assert found["b"].dtype == torch.bfloat16
    assert found["c"].tolist() == [0, 1, 2]
    whole = path.read_bytes()
    for content, message in [
        (whole[:-1], "truncated, or a size is not the one announced"),
        (whole[:40], "truncated, or no file of safetensors"),
        (whole.replace(b"[3, 4]", b"[4, 4]"), "a size is not the one announced"),
        (whole.replace(b"[3, 4]", b"[3,-4]"), "sizes are no numbers"),
        (whole.replace(b"F32", b"F99"), "F99"),
        (whole.replace(b'"shape"', b'"shap3"'), "shape"),
        (whole.replace(b'{"__', b'["__'), "cannot be read as weights"),
    ]:
        path.write_bytes(content)
        with pytest.raises(StoreError, match=message):
            read_checkpoint(path)


@pytest.mark.states(
    "Checkpoints",
    "several networks in one file, such as `state_dict` and `state_dict_ema`",
    "refused",
    'say which: `key="state_dict_ema"`',
)
def test_several_networks_in_one_file(files, tmp_path):
    import torch

    path = tmp_path / "file"
    model, other = files.small_resnet(), files.small_resnet()
    with torch.no_grad():
        other.conv1.weight += 1
    one, two = model.state_dict(), other.state_dict()

    def behind(prefix, state):
        return {prefix + name: value for name, value in state.items()}

    for value, key in [
        ({"state_dict": one, "state_dict_ema": two}, "state_dict_ema"),
        ({"model": one, "ema": {"model": two}}, "ema.model"),
        ({"model": one, "model_ema": behind("module.", two)}, "model_ema"),
        ({"student": behind("module.backbone.", one), "teacher": behind("backbone.", two)}, "teacher"),
        ({"G": one, "D": two}, "D"),
    ]:
        torch.save(value, path)
        with pytest.raises(InputError, match=r"key: expected the entry with .*file, which holds several"):
            read_checkpoint(path)
        fill(model, read_checkpoint(path, key=key), path, "resnet18")
        assert torch.equal(model.conv1.weight, other.conv1.weight)
        model.load_state_dict(one := files.small_resnet().state_dict())
    torch.save({"state_dict": {**behind("module.encoder_q.", one), **behind("module.encoder_k.", two)}}, path)
    with pytest.raises(InputError, match=r"several networks, behind encoder_q\., encoder_k\.; say which: key="):
        fill(model, read_checkpoint(path), path, "resnet18")
    fill(model, read_checkpoint(path, key="encoder_k"), path, "resnet18")
    assert torch.equal(model.conv1.weight, other.conv1.weight)
    with pytest.raises(InputError, match=r"an entry of the file with weights \('state_dict'\), got 'x'; name one"):
        read_checkpoint(path, key="x")


@pytest.mark.states(
    "Checkpoints",
    "half of a download, a web page, a pointer of git-lfs, an archive, a text",
    "refused",
    "the message says what it is",
)
def test_what_is_no_checkpoint_is_said_in_one_sentence(files, tmp_path):
    import gzip
    import io
    import zipfile

    path = tmp_path / "file"
    files.save(files.small_resnet().state_dict(), path, "zip")
    whole = path.read_bytes()
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("photo.jpg", b"x")
    with tarfile.open(tmp_path / "tar", "w") as archive:
        archive.add(__file__, "pickle")
    lfs = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
    for content, message in [
        (b"", "is empty; download it again"),
        (whole[: len(whole) // 2], r"truncated, damaged, or no checkpoint \(a zip archive without its end\); download"),
        (b"<html>quota exceeded", "is a web page, not a checkpoint; download it again"),
        (b"\n<!DOCTYPE HTML><html>", "is a web page"),
        (lfs, "is a pointer of git-lfs, not the file that it stands for; run git lfs pull"),
        (gzip.compress(whole), "is compressed with gzip; unpack it"),
        (zipped.getvalue(), "a zip archive that holds no checkpoint"),
        ((tmp_path / "tar").read_bytes(), "is a tar archive; unpack it"),
        (b"Not Found", r"is a text, not a checkpoint \(it begins 'Not Found'\)"),
        (b'{"error": "no such file"}', "is a text, not a checkpoint"),
        (b"\x89HDF\r\n\x1a\n" + b"\0" * 99, "is an HDF5 file"),
    ]:
        path.write_bytes(content)
        with pytest.raises(StoreError, match=rf"file: .*{message}") as met:
            read_checkpoint(path)
        assert "\n" not in str(met.value)


def test_an_entry_that_torch_compresses_nowhere(files, tmp_path):
    """A kilobyte of a zip archive may hold gigabytes."""
    import zipfile

    path = tmp_path / "file"
    files.save(files.small_resnet().state_dict(), path, "zip")
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    with pytest.raises(StoreError, match=r"its files (are compressed|do not fit into it)"):
        read_checkpoint(path)


def test_bounds(files, tmp_path):
    path = tmp_path / "file"
    files.save(files.small_resnet(), path, "zip")
    nested = b"\x80\x02)" + b"\x85" * 1_000_000 + b"."
    lists = (b"]q%c(h%ch%ce" % (n, n - 1, n - 1) for n in range(1, 60))  # each holds the one before twice
    shared = b"\x80\x02]q\x00" + b"".join(lists) + b"."
    far = b"\x80\x02Nr\xff\xff\xff\x7f."  # a place of the memo
    long = b"\x80\x02" + b"K\x00" * 1_600_000 + b"."
    as_keys = b"\x80\x02}" + b")" + b"\x85" * 1_000_000 + b"Ns."
    for program in (nested, shared, far, long, as_keys):
        files.repack(path, program)
        with pytest.raises(StoreError):
            read_checkpoint(path)


def test_modules_on_endless_paths(files, tmp_path):
    """45 modules, each twice in the next: 2**45 paths."""
    import torch

    path = tmp_path / "file"
    for depth in (45, 60):
        module = torch.nn.Sequential(torch.nn.Linear(1, 1))
        for _ in range(depth):
            module = torch.nn.Sequential(module, module)
        files.save(module, path, "zip")
        with pytest.raises(StoreError, match=r"more tensors, or longer names|a module was expected"):
            read_checkpoint(path)


@pytest.mark.states(
    "Checkpoints",
    "another architecture, or number of classes",
    "refused",
    "the message says what differs, and what it looks like",
)
def test_a_network_without_its_last_layer(files, tmp_path):
    model = files.small_resnet()
    state = {f"backbone.{name}": value for name, value in model.state_dict().items() if not name.startswith("fc.")}
    with pytest.raises(InputError, match=r"lacks fc\.weight, fc\.bias; it is resnet18 without fc: fill"):
        fill(model, state, tmp_path / "file", "resnet18")
