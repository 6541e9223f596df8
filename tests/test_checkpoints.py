"""Checkpoints: the published formats, files of other networks, and files that would run code."""

from __future__ import annotations

import pickle
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccx.errors import InputError, StoreError
from ccx.models import inert, read_checkpoint
from ccx.models.checkpoints import fill
from ccx.models.inert import read_whole_model

pytestmark = [pytest.mark.needs("torch"), pytest.mark.needs("torchvision")]


@pytest.fixture
def files():
    from tests import checkpoint_files

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
        assert any("norm.1" in name for name in read_whole_model(path))
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
    with pytest.raises(StoreError, match=r"it names tests\.checkpoint_files\.SetsState"):
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
    for value in ([1, 2], {"a": 1}, {}, torch.zeros(3), "text", {"state_dict": {}}, {"state_dict": {"a": "b"}}):
        torch.save(value, path)
        with pytest.raises(StoreError, match="holds no state dict; save it again with"):
            read_checkpoint(path)
    for content in (b"", b"\x80", b"text", b"\x80\x02N.", b"PK\x03\x04", b"\0" * 1000):
        path.write_bytes(content)
        with pytest.raises(StoreError, match="cannot be read as weights"):
            read_checkpoint(path)
    with tarfile.open(path, "w") as archive:
        archive.add(__file__, "pickle")
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
    made = inert._Made(
        "torch._utils._rebuild_tensor", (inert._Storage("torch.FloatStorage", "0", 4), offset, size, stride)
    )
    if wanted is None:
        with pytest.raises((RuntimeError, TypeError, ValueError)):
            inert._tensor(made, numbers)
    else:
        assert torch.equal(inert._tensor(made, numbers), torch.tensor(wanted, dtype=torch.float32))


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
    from tests import checkpoint_files as files

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
