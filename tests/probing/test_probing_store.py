"""Stored activations: resumed after kill -9 and full disks, and never stale in silence."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

import ccx
from ccx.errors import DTypeError, InputError, ShapeError, StoreError
from ccx.store import RowLog
from tests.support.full_disk import FullDisk, file_size_limit
from tests.support.seals import unseal

pytestmark = pytest.mark.needs("torch")
CALLS = ("open", "pwrite", "fsync", "ftruncate", "replace")


@pytest.fixture
def models():
    from tests.support import probed_models

    return probed_models


@pytest.fixture
def every_batch(monkeypatch):
    monkeypatch.setattr("ccx.probing.recording.COMMIT_SECONDS", 0.0)


def probe(folder, models, **options):
    arguments = {"layers": ["layer1", "layer2.0"], "batch_size": 3, **options}
    loader = arguments.pop("loader", None)
    return ccx.probe(
        arguments.pop("model", None) or models.net(),
        models.images() if loader is None else loader,
        arguments.pop("layers"),
        out=folder,
        **arguments,
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture
def calls(models, monkeypatch):
    """Return a list that grows by one at every pass of a model; a hook would be part of what identifies it."""
    found: list[int] = []
    forward = models.Net.forward

    def counted(self, x):
        found.append(1)
        return forward(self, x)

    monkeypatch.setattr(models.Net, "forward", counted)
    return found


def test_files_that_numpy_reads(models, tmp_path):
    found = probe(tmp_path / "a" / "b", models)
    in_memory = ccx.probe(models.net(), models.images(), ["layer1", "layer2.0"], batch_size=3)
    for layer, array in found.items():
        assert np.array_equal(array, in_memory[layer])
        assert type(array) is np.ndarray
        assert not array.flags.writeable
        np.save(tmp_path / "saved.npy", in_memory[layer])
        path = tmp_path / "a" / "b" / f"{layer}.npy"
        assert path.read_bytes() == (tmp_path / "saved.npy").read_bytes()
        assert isinstance(array.base, np.memmap) or isinstance(array.base.base, np.memmap)
    assert [path.name for path in sorted((tmp_path / "a" / "b").iterdir())] == [
        "layer1.npy", "layer2.0.npy", "rows.jsonl", "run.json", "timings.jsonl",
    ]  # fmt: skip
    one = probe(tmp_path / "one", models, layers="layer1", dtype="float16")
    assert one.dtype == np.float16
    assert np.array_equal(one, in_memory["layer1"].astype(np.float16))


def test_names_of_layers_are_no_paths(models, tmp_path):
    import torch

    model = torch.nn.Sequential()
    model.add_module("/up here", torch.nn.ReLU())
    found = ccx.probe(model, models.images(), "/up here", out=tmp_path / "out")
    assert np.array_equal(found, np.maximum(models.images(), 0))
    assert (tmp_path / "out" / "%2Fup%20here.npy").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_of_what_is_stored_one_batch_is_computed_again(models, tmp_path, calls):
    whole = probe(tmp_path, models)
    before = contents(tmp_path)
    calls.clear()
    again = probe(tmp_path, models)
    assert len(calls) == 1
    assert all(np.array_equal(again[layer], whole[layer]) for layer in whole)
    probe(tmp_path, models, batch_size=7)  # samples are told apart, batches are not
    assert len(calls) == 2
    assert contents(tmp_path) == before


def test_a_stopped_run_goes_on(models, tmp_path, every_batch, calls):
    def stopping(n_batches, error):
        images = models.images()
        for first in range(0, 3 * n_batches, 3):
            yield images[first : first + 3]
        raise error

    probe(tmp_path / "whole", models)
    for n_batches, error in ((1, KeyboardInterrupt()), (2, ValueError("mine")), (0, SystemExit())):
        folder = tmp_path / f"{n_batches}"
        with pytest.raises(type(error)):
            probe(folder, models, loader=stopping(n_batches, error))
        rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
        assert [row["stop"] for row in rows] == [3, 6][:n_batches]
        assert not list(folder.glob("*.npy"))  # none that could be taken for the whole
        calls.clear()
        probe(folder, models)
        assert len(calls) == 4 - n_batches + (n_batches > 0)
        assert contents(folder) == contents(tmp_path / "whole")


def test_an_interrupt_keeps_batches_that_were_not_yet_flushed(models, tmp_path):
    def stopping():
        yield models.images()[:3]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        probe(tmp_path, models, loader=stopping())
    assert json.loads((tmp_path / "rows.jsonl").read_text())["stop"] == 3


def test_a_batch_that_was_stored_in_part(models, tmp_path, every_batch):
    def stopping():
        yield models.images()[:3]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        probe(tmp_path / "out", models, loader=stopping())
    found = probe(tmp_path / "out", models, batch_size=4)
    whole = ccx.probe(models.net(), models.images(), ["layer1", "layer2.0"])
    assert all(np.allclose(found[layer], whole[layer], atol=1e-6) for layer in whole)
    rows = [json.loads(line) for line in (tmp_path / "out" / "rows.jsonl").read_text().splitlines()]
    assert [(row["first"], row["stop"], len(row["samples"])) for row in rows] == [
        (0, 3, 3),
        (3, 4, 1),
        (4, 8, 4),
        (8, 10, 2),
    ]


def test_a_stale_folder_is_refused(models, tmp_path):
    import torch

    probe(tmp_path, models)
    before = contents(tmp_path)

    class Other(models.Net):
        pass

    trained = models.net()
    with torch.no_grad():
        trained.layer1[0].weight[0, 0, 0, 0] += 1e-6
    buffered = models.net()
    buffered.layer2[0].bn.running_mean[0] = 1e-6
    strided = models.net()
    strided.layer1[0].stride = (1, 1)
    other = Other()
    other.load_state_dict(models.net().state_dict())
    images = models.images()
    changed = images.copy()
    changed[4, 2, 8, 10] = np.nextafter(changed[4, 2, 8, 10], 9, dtype=np.float32)
    swapped = images[[0, 1, 2, 3, 4, 6, 5, 7, 8, 9]]
    for options, message in [
        ({"model": trained}, "differs in content of weights"),
        ({"model": buffered}, "differs in content of weights"),
        ({"model": strided}, "differs in content of architecture"),
        ({"model": other}, "differs in content of architecture"),
        ({"model": models.net(1)}, "differs in content of weights"),
        ({"layers": ["layer1"]}, r'differs in layers \(\["layer1", "layer2.0"\] there, \["layer1"\] here\)'),
        ({"units": [0, 1]}, r"differs in units \(null there, \[0, 1\] here\)"),
        ({"precision": "bfloat16"}, "differs in precision"),
        ({"dtype": "float16"}, r'differs in dtype \("float32" there, "float16" here\)'),
        ({"skip": 1}, "differs in skip"),
        ({"preprocessing": ccx.models.Preprocessing(9)}, "differs in preprocessing"),
        ({"data_id": "mine"}, "differs in data"),
        ({"loader": changed}, "sample 4 of the data is not the one that was probed there"),
        ({"loader": swapped}, "sample 5 of the data"),
        ({"loader": images.astype(np.float64)}, "sample 0 of the data"),
        ({"loader": images[:9]}, "holds 10 samples, and the data end after 9"),
        ({"loader": images[:6]}, "holds 10 samples, and the data end after 6"),
        ({"loader": np.concatenate([images, images[:1]])}, "was finished after 10 samples, and the data have more"),
    ]:
        with pytest.raises(StoreError, match=f"{message}.*(pass overwrite=True|choose another folder)"):
            probe(tmp_path, models, **options)
        assert contents(tmp_path) == before, message


def test_overwrite(models, tmp_path):
    probe(tmp_path / "one", models)
    probe(tmp_path / "two", models, model=models.net(1), layers=["layer2.0"])
    assert contents(tmp_path / "one") != contents(tmp_path / "two")
    probe(tmp_path / "one", models, model=models.net(1), layers=["layer2.0"], overwrite=True)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    probe(tmp_path / "new", models, overwrite=True)
    for name in ("explained", "foreign"):
        (tmp_path / name).mkdir()
    RowLog(tmp_path / "explained", key=("unit",), settings={"beam": 5}, hashes={}, version="1").close()
    (tmp_path / "foreign" / "run.json").write_text("{}")
    for name, message in (("explained", "holds something else than activations"), ("foreign", "no format of ccx")):
        before = contents(tmp_path / name)
        for overwrite in (False, True):
            with pytest.raises(StoreError, match=message):
                probe(tmp_path / name, models, overwrite=overwrite)
        assert contents(tmp_path / name) == before


def test_one_writer_at_a_time(models, tmp_path):
    def nested():
        yield models.images()[:3]
        for overwrite in (False, True):
            with pytest.raises(StoreError, match="another process writes to it; wait for it, or choose"):
                probe(tmp_path, models, overwrite=overwrite)
        yield models.images()[3:]

    probe(tmp_path, models, loader=nested())
    probe(tmp_path, models)


def test_a_name_for_the_data_spares_reading_more_than_a_batch(models, tmp_path, calls):
    def one_batch():
        yield models.images()[:3]
        raise AssertionError

    whole = probe(tmp_path, models, data_id="ten images")
    assert "samples" not in json.loads((tmp_path / "rows.jsonl").read_text().splitlines()[0])
    calls.clear()
    again = probe(tmp_path, models, data_id="ten images", loader=one_batch())
    assert len(calls) == 1
    assert np.array_equal(again["layer1"], whole["layer1"])
    with pytest.raises(StoreError, match="'layer1' puts out something else than what is stored: sample 0, unit 0"):
        probe(tmp_path, models, data_id="ten images", loader=models.images()[::-1].copy())
    with pytest.raises(InputError, match="at least one batch"):
        probe(tmp_path, models, data_id="ten images", loader=[])
    with pytest.raises(StoreError, match=r'differs in data \("ten images" there, "others" here\)'):
        probe(tmp_path, models, data_id="others")


def test_damaged_folders(models, tmp_path):
    probe(tmp_path, models)
    path = tmp_path / "layer1.npy"
    whole = path.read_bytes()
    for content, message in [
        (whole[:-1], "damaged: its size is not that of the stored samples"),
        (whole + b"\0", "damaged: its size"),
        (whole[:50], "damaged: its head cannot be read"),
        (b"", "damaged: its head"),
        (whole.replace(b"(10, ", b"(11, "), "damaged: its size"),
        (None, "layer1.npy.part: is missing, and 10 samples should be in it"),
    ]:
        path.unlink() if content is None else path.write_bytes(content)
        with pytest.raises(StoreError, match=message):
            probe(tmp_path, models)
    path.with_name("layer1.npy.part").write_bytes(whole[:-1])
    with pytest.raises(StoreError, match=r"layer1\.npy\.part: truncated: \d+ bytes, 10 samples need"):
        probe(tmp_path, models)
    probe(tmp_path, models, overwrite=True)
    assert path.read_bytes() == whole


def test_damaged_rows(models, tmp_path, every_batch):
    probe(tmp_path, models)
    rows = tmp_path / "rows.jsonl"
    whole = rows.read_text()
    rows.write_text(whole.replace('"stop":3', '"stop":4'))
    with pytest.raises(StoreError, match=r"rows\.jsonl, line 1: damaged: it does not fit its checksum"):
        probe(tmp_path, models)
    rows.write_text(whole)
    unseal(tmp_path)  # behind the checksums
    lines = rows.read_text().splitlines(keepends=True)
    for damaged in (
        lines[1:],
        [lines[0], *lines[2:]],
        [lines[0].replace('"stop":3', '"stop":4'), *lines[1:]],
        [lines[0].replace('"stop":3', '"stop":0'), *lines[1:]],
        [lines[0].replace('"stop":3', '"stop":"3"'), *lines[1:]],
        [lines[0].replace('"stop"', '"end"'), *lines[1:]],
        [lines[0].replace('"samples"', '"others"'), *lines[1:]],
    ):
        rows.write_text("".join(damaged))
        with pytest.raises(
            StoreError, match=r"damaged: its row of sample \d does not fit those before it; pass overwrite"
        ):
            probe(tmp_path, models)
    rows.write_text("".join(lines[:2]))  # two files that are finished, beside rows that are not
    with pytest.raises(StoreError, match="damaged: its size is not that of the stored samples"):
        probe(tmp_path, models)


def test_samples_of_another_shape_than_the_stored_ones(models, tmp_path, every_batch):
    images = models.images()
    with pytest.raises(ShapeError, match="one shape"):
        probe(tmp_path, models, loader=[images[:3], images[3:6, :, :7]])
    with pytest.raises(ShapeError, match="one shape"):  # now the first of this run
        probe(tmp_path, models, loader=[images[:3], images[3:6, :, :7]])
    found = probe(tmp_path, models)
    assert len(found["layer1"]) == 10


def test_a_shuffling_or_augmenting_loader_is_caught(models, tmp_path):
    rng = np.random.default_rng(0)

    class Augmenting:
        def __iter__(self):
            yield models.images() + rng.standard_normal((10, 3, 9, 11), np.float32)

    probe(tmp_path, models, loader=Augmenting())
    with pytest.raises(StoreError, match=r"sample 0 .*switch off what changes from run to run"):
        probe(tmp_path, models, loader=Augmenting())


def test_errors_before_anything_is_stored_leave_the_folder_free(models, tmp_path):
    for options, kind in [({"layers": "nope"}, InputError), ({"loader": 3}, DTypeError), ({"units": [9]}, InputError)]:
        with pytest.raises(kind):
            probe(tmp_path / "out", models, **options)
    found = probe(tmp_path / "out", models)
    assert len(found["layer1"]) == 10


def test_a_model_without_numbers(models, tmp_path):
    with pytest.raises(
        InputError, match=r"model: expected weights that can be read, got layer1\.0\.weight on the device meta"
    ):
        probe(tmp_path, models, model=models.net().to("meta"))


def test_no_room_is_said_before_the_work(models, tmp_path, monkeypatch):
    there = os.statvfs(tmp_path)
    full = os.statvfs_result((there.f_bsize, there.f_frsize, there.f_blocks, 1, 0, *tuple(there)[5:]))
    monkeypatch.setattr(os, "statvfs", lambda _path: full)
    with pytest.raises(StoreError, match=r"needs \d\.\d\d GB more, and 0\.00 GB are free; make room"):
        probe(tmp_path, models)


def test_samples_are_told_apart_by_name_dtype_shape_and_bytes():
    import torch

    from ccx.probing.loaders import as_batch

    def digests(value):
        return as_batch(value).digests()

    rng = np.random.default_rng(0)
    numbers = torch.from_numpy(rng.standard_normal((3, 4, 2), np.float32))
    others = [
        numbers.view(torch.int32),
        numbers.reshape(3, 2, 4),
        numbers.reshape(3, 8),
        numbers.flip(1),
        {"x": numbers},
        {"y": numbers},
        {"x": numbers[:, :2], "y": numbers[:, 2:]},
        {"x": numbers, "y": numbers[:, :0].sum(1)},
    ]
    found = [digests(numbers), *map(digests, others)]
    assert len({one for batch in found for one in batch}) == 3 * len(found)
    assert all(len(one) == 32 for batch in found for one in batch)
    for same in (numbers.numpy(), numbers.numpy().copy("F"), (numbers, "label"), numbers.requires_grad_()):
        assert digests(same) == found[0]
    for kind in (torch.bool, torch.bfloat16, torch.float16, torch.int64):
        assert digests((numbers > 0).to(kind)) == digests((numbers > 0).clone().to(kind))


def test_a_sample_is_noted_only_when_its_numbers_are_on_the_disk(models, tmp_path, monkeypatch, every_batch):
    """In the order of calls: files of numbers are flushed between their last write and the row that vouches for it."""
    calls = []

    def noted(name):
        function = getattr(os, name)

        def call(descriptor, *arguments):
            calls.append((name, Path(f"/proc/self/fd/{descriptor}").readlink().name))
            return function(descriptor, *arguments)

        return call

    for name in ("pwrite", "fsync"):
        monkeypatch.setattr(os, name, noted(name))
    probe(tmp_path, models)
    dirty, n_rows = set(), 0
    for call, name in calls:
        if name.endswith(".part"):
            (dirty.add if call == "pwrite" else dirty.discard)(name)
        elif (call, name) == ("pwrite", "rows.jsonl"):
            assert not dirty
            n_rows += 1
    assert n_rows == 4
    assert not dirty


N_CALLS = 55  # of the operating system, in a run of four batches


def test_calls_are_counted(models, tmp_path, monkeypatch, every_batch):
    disk = FullDisk(monkeypatch, 1000, CALLS)
    probe(tmp_path, models)
    assert disk.n_calls == N_CALLS


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return the files of an undisturbed run."""
    from tests.support import probed_models

    folder = tmp_path_factory.mktemp("whole")
    probe(folder, probed_models)
    return contents(folder)


@pytest.mark.parametrize("n_good", range(N_CALLS))
def test_full_disk_at_every_call(models, tmp_path, monkeypatch, every_batch, whole, n_good, calls):
    with monkeypatch.context() as patch:
        FullDisk(patch, n_good, CALLS)
        with pytest.raises(StoreError, match=r"No space left on device.*(make room|check the path)"):
            probe(tmp_path / "out", models)
    kept = tmp_path / "out" / "rows.jsonl"
    n_kept = kept.read_text().count("\n") if kept.exists() else 0
    assert n_kept >= (n_good - 20) // 12  # a batch takes about ten calls
    calls.clear()
    probe(tmp_path / "out", models)
    assert len(calls) == 4 - n_kept + (n_kept > 0)
    assert contents(tmp_path / "out") == whole


def test_files_that_may_not_grow(models, tmp_path, every_batch):
    probe(tmp_path / "whole", models)
    size = (tmp_path / "whole" / "layer1.npy").stat().st_size
    for n_bytes in (0, 100, size // 2, size - 1):
        with file_size_limit(n_bytes), suppress(StoreError):
            probe(tmp_path / "out", models)
    probe(tmp_path / "out", models)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_probed_activations_go_into_explain(models, tmp_path):
    maps = probe(tmp_path, models, layers="layer1")
    masks = np.random.default_rng(0).random((3, 10, 12, 15)) < 0.4
    found = ccx.explain(maps, masks, clusters=2, progress=False)
    assert found == ccx.explain(np.array(maps), masks, clusters=2, progress=False)
    assert len(found) == 8
