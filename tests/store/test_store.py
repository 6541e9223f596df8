"""Files of ccx: nothing half-written, nothing misread."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import ccx
from ccx.errors import DTypeError, InputError, StoreError
from ccx.store import (
    content_hash,
    folders,
    json_text,
    load_arrays,
    make_folder,
    new_folder,
    read_json,
    save_arrays,
    write_atomic,
    write_bytes,
    write_text,
)
from ccx.store.arrays import _header_checksum
from tests.support.full_disk import FullDisk, file_size_limit

FORMAT = "ccx.test/1"
DTYPES = ["?", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8"]


# ------------------------------------------------------------------------------- atomic writing


def test_write_replaces_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "note.txt"
    write_text(path, "old")
    write_text(path, "größer")
    assert path.read_text(encoding="utf-8") == "größer"
    write_bytes(str(path), b"")
    assert path.read_bytes() == b""
    assert os.listdir(tmp_path) == ["note.txt"]  # noqa: PTH208  # hidden files too


def test_write_respects_umask_and_links(tmp_path: Path) -> None:
    umask = os.umask(0o027)
    try:
        write_text(tmp_path / "file", "1")
    finally:
        os.umask(umask)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "file")
    write_text(link, "2")
    assert link.is_symlink()
    assert (tmp_path / "file").read_text() == "2"


@pytest.mark.parametrize("failure", [RuntimeError("mine"), KeyboardInterrupt()])
def test_an_exception_keeps_the_old_file(tmp_path: Path, failure: BaseException) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def fail() -> None:
        with write_atomic(path) as file:
            file.write(b"new")
            raise failure

    with pytest.raises(type(failure)):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("n_bytes", [0, 1, 4095, 4096, 8192, 20_000, 99_999])
def test_a_full_disk_keeps_the_old_file(tmp_path: Path, n_bytes: int) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def fill_up() -> None:
        with write_atomic(path) as file:
            for _ in range(100):
                file.write(bytes(1000))

    with (
        file_size_limit(n_bytes),
        pytest.raises(StoreError, match=r"file: cannot write it \(File too large\); make room"),
    ):
        fill_up()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("n_good", range(2))
def test_failing_fsync_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_good: int) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    FullDisk(monkeypatch, n_good, ("fsync",))
    with pytest.raises(StoreError, match="No space left"):
        write_text(path, "new")
    assert path.read_text() == ("old" if n_good == 0 else "new")  # the folder's own flush comes after the rename
    assert list(tmp_path.iterdir()) == [path]


def test_unwritable_places(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="missing/file: cannot write it"):
        write_text(tmp_path / "missing" / "file", "")
    with pytest.raises(StoreError, match="Is a directory"):
        write_text(tmp_path, "")
    assert list(tmp_path.iterdir()) == []


def kill_a_writer(path: Path, *, has_unnamed: bool = True) -> None:
    """Kill a process that is writing a file, on a system with files that have no name or without."""
    code = """
        import os, sys
        from ccx.store import write_atomic
        if sys.argv[2] == "False":
            del os.O_TMPFILE
        with write_atomic(sys.argv[1]) as file:
            file.write(bytes(100_000))
            file.flush()
            print("writing", flush=True)
            sys.stdin.read()
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), str(path), str(has_unnamed)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(ccx.__file__).parents[1],
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"writing\n"
        child.kill()


def test_a_killed_writer_leaves_the_old_file_and_no_obstacle(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    kill_a_writer(path)
    assert path.read_text() == "old"
    write_text(path, "new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("has_unnamed", [True, False])
def test_a_killed_writer_leaves_nothing(tmp_path: Path, has_unnamed: bool) -> None:
    kill_a_writer(tmp_path / "file", has_unnamed=has_unnamed)
    left = [path.name for path in tmp_path.iterdir()]
    assert left == [] if has_unnamed else [name.startswith(".file.") for name in left] == [True]


def test_without_files_that_have_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "O_TMPFILE")
    write_text(tmp_path / "file", "1")
    write_text(tmp_path / "file", "2")
    with pytest.raises(RuntimeError), write_atomic(tmp_path / "file"):
        raise RuntimeError
    assert (tmp_path / "file").read_text() == "2"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_is_no_regular_file_is_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    link = tmp_path / "link"
    link.symlink_to(pipe)
    for path in (pipe, link, Path("/dev/null")):
        with pytest.raises(StoreError, match="it is no regular file"):
            write_text(path, "1")
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


def test_links_in_a_circle_and_odd_paths(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    for path in (tmp_path / "a", f"{tmp_path}/nul\0byte", tmp_path / ("x" * 300)):
        with pytest.raises(StoreError):
            write_text(path, "1")


@pytest.mark.parametrize("mode", [0o600, 0o664, 0o444, 0o755])
def test_a_file_that_is_replaced_hands_on_its_mode(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "file"
    write_text(path, "1")
    path.chmod(mode)
    write_text(path, "2")
    assert path.read_text() == "2"
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_folders_are_made_with_those_above(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[Path] = []
    monkeypatch.setattr(folders, "sync_folder", flushed.append)
    assert make_folder(tmp_path / "a" / "b" / "c") == tmp_path / "a" / "b" / "c"
    assert flushed == [tmp_path, tmp_path / "a", tmp_path / "a" / "b"]
    make_folder(tmp_path / "a")
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below", "nul\0byte"):
        with pytest.raises(StoreError, match="cannot make this folder"):
            make_folder(path)


def write_two(folder: Path, text: str) -> None:
    (folder / "one").write_text(text)
    (folder / "below").mkdir()
    (folder / "below" / "two").write_text(text)


@pytest.mark.parametrize("can_exchange", [True, False])
def test_a_folder_is_replaced_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, can_exchange: bool) -> None:
    if not can_exchange:
        monkeypatch.setattr(folders, "_exchanged_at_once", lambda *_: False)
    target = tmp_path / "report"
    for text in ("old", "new"):
        with new_folder(target) as folder:
            write_two(folder, text)
        assert {path.read_text() for path in target.rglob("*") if path.is_file()} == {text}

    def interrupted() -> None:
        with new_folder(target) as folder:
            write_two(folder, "never")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert (target / "one").read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_is_there_at_every_moment(tmp_path: Path) -> None:
    """A reader that looks without end never misses it."""
    target = tmp_path / "report"
    with new_folder(target) as folder:
        write_two(folder, "0")
    done = threading.Event()
    missing: list[str] = []

    def look() -> None:
        while not done.is_set():
            if not target.is_dir():
                missing.append("gone")

    reader = threading.Thread(target=look)
    reader.start()
    for number in range(200):
        with new_folder(target) as folder:
            write_two(folder, str(number))
    done.set()
    reader.join()
    assert not missing


def test_concurrent_writers_never_mix(tmp_path: Path) -> None:
    path = tmp_path / "file"
    contents = {bytes([65 + i]) * 200_000 for i in range(6)}
    failures: list[BaseException] = []

    def work(content: bytes) -> None:
        try:
            for _ in range(5):
                write_bytes(path, content)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert path.read_bytes() in contents
    assert list(tmp_path.iterdir()) == [path]


# ----------------------------------------------------------------------------------------- JSON


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, np.float32(1), [np.zeros(2)], {"a": object()}])
def test_json_refuses_what_it_cannot_keep(value: object) -> None:
    with pytest.raises(InputError, match="settings: expected JSON"):
        json_text(value, "settings")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff",
        b"[1]",
        b"null",
        b'{"format": NaN}',
        b'{"format": "ccx.run/1", "format": "ccx.run/1"}',
        b"[" * 100_000,
        b"9" * 10_000,
        b'{"format": "ccx.runner/1"}',
        b'{"format": ["ccx.run/1"]}',
    ],
)
def test_foreign_json_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file.json"
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"file\.json: "):
        read_json(path, "ccx.run/1")
    path.write_bytes(b'{"format": "ccx.run/2"}')
    with pytest.raises(StoreError, match=r"version 2 of ccx\.run, and this ccx reads version 1"):
        read_json(path, "ccx.run/1")
    with pytest.raises(StoreError, match="No such file"):
        read_json(tmp_path / "missing", "ccx.run/1")


# ---------------------------------------------------------------------------------- array files


def layouts(array: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
    """Return equal arrays in other memory layouts."""
    wide = np.repeat(array[..., None], 2, axis=-1) if array.ndim else array
    return [
        array,
        np.array(array, order="F"),
        wide[..., 0] if array.ndim else array,
        array[::-1].copy()[::-1] if array.ndim else array,
        array.astype(array.dtype.newbyteorder(">")),
    ]


any_array = st.sampled_from(DTYPES).flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
)


@given(
    arrays=st.dictionaries(st.text(max_size=5), any_array, max_size=5),
    metadata=st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3),
    layout=st.integers(0, 4),
)
def test_arrays_come_back(
    tmp_path_factory: pytest.TempPathFactory, arrays: dict[str, Any], metadata: dict[str, str], layout: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "round.safetensors"
    save_arrays(path, {name: layouts(array)[layout] for name, array in arrays.items()}, metadata, FORMAT)
    found, texts = load_arrays(path, FORMAT)
    assert texts == metadata
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array, strict=True)
        assert not found[name].flags.writeable
        assert found[name].flags.aligned
        if array.dtype.kind == "f":  # NaN payloads and signs of zero as well
            assert found[name].tobytes() == array.tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
def test_safetensors_reads_our_files(tmp_path: Path, dtype: str) -> None:
    path = tmp_path / "file.safetensors"
    arrays = {
        "a": np.arange(6).reshape(2, 3).astype(dtype),
        "bytes": np.arange(3, dtype="u1"),
        "empty": np.zeros((0, 4), dtype),
        "scalar": np.ones((), dtype),
    }
    save_arrays(path, arrays, {"names": '["ü"]'}, FORMAT)
    found = safetensors.numpy.load_file(path)
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array, strict=True)
    with safetensors.safe_open(path, "np") as file:
        assert file.metadata()["names"] == '["ü"]'


def test_mapped_arrays_are_views_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    save_arrays(path, {"narrow": np.zeros(3, "u1"), "wide": np.arange(1000.0)}, {}, FORMAT)
    found, _ = load_arrays(path, FORMAT)
    assert found["wide"].ctypes.data % 64 == 0  # the widest come first, at a multiple of 64 bytes
    base: Any = found["wide"]
    while not isinstance(base, np.memmap):
        base = base.base
    assert base.mode == "r"
    write_text(path, "replaced")  # the old file lives on under the mapping
    np.testing.assert_array_equal(found["wide"], np.arange(1000.0))


def test_big_arrays_of_any_layout(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 2**40, (130, 70, 300))
    for i, other in enumerate([array.T, array[:, ::-1, ::3], array.astype(">i8").transpose(1, 0, 2)]):
        save_arrays(tmp_path / "file", {"a": other}, {}, FORMAT)
        np.testing.assert_array_equal(load_arrays(tmp_path / "file", FORMAT)[0]["a"], other, err_msg=str(i))
        assert content_hash({"a": other}) == content_hash({"a": np.array(other, dtype="<i8", order="C")})


def test_unsaveable_input_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with pytest.raises(DTypeError, match="a: expected bool"):
        save_arrays(path, {"a": np.zeros(1, complex)}, {}, FORMAT)
    with pytest.raises(DTypeError):
        save_arrays(path, {"a": np.array([None])}, {}, FORMAT)
    with pytest.raises(InputError, match="metadata"):
        save_arrays(path, {}, {"ccx.format": "x"}, FORMAT)
    with pytest.raises(InputError, match="metadata"):
        save_arrays(path, {}, {"a": 1}, FORMAT)  # type: ignore[dict-item]
    with pytest.raises(InputError, match="arrays"):
        save_arrays(path, {"__metadata__": np.zeros(1)}, {}, FORMAT)
    with pytest.raises(InputError, match="at most 100000000 bytes"):
        save_arrays(path, {}, {"long": "x" * 100_000_000}, FORMAT)
    assert list(tmp_path.iterdir()) == []


def test_other_formats_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    save_arrays(path, {"a": np.zeros(1)}, {}, "ccx.test/2")
    with pytest.raises(StoreError, match=r"version 2 of ccx\.test, and this ccx reads version 1; .* make it again"):
        load_arrays(path, FORMAT)
    save_arrays(path, {"a": np.zeros(1)}, {}, "ccx.other/1")
    with pytest.raises(StoreError, match=r"wanted a file of format ccx\.test/1, it has format 'ccx\.other/1'; check"):
        load_arrays(path, FORMAT)
    safetensors.numpy.save_file({"a": np.zeros(1)}, path)
    with pytest.raises(StoreError, match="no format of ccx; check the path"):
        load_arrays(path, FORMAT)
    np.save(tmp_path / "file.npy", np.zeros(1))
    with pytest.raises(StoreError, match="does not begin like a safetensors file"):
        load_arrays(tmp_path / "file.npy", FORMAT)
    with pytest.raises(StoreError, match=r"missing: cannot read it \(No such file"):
        load_arrays(tmp_path / "missing", FORMAT)


SAMPLE = {
    "flags": np.array([True, False, True]),
    "counts": np.arange(10, dtype="i8").reshape(2, 5),
    "empty": np.zeros((0, 3), "f4"),
    "half": np.arange(7, dtype="f2"),
}


def sample_bytes(folder: Path) -> bytes:
    save_arrays(folder / "sample", SAMPLE, {"names": "sky tree"}, FORMAT)
    return (folder / "sample").read_bytes()


def assert_same_or_refused(path: Path, content: bytes) -> bool:
    """Tell whether the file was refused; if not, it must hold what was saved."""
    path.write_bytes(content)
    try:
        arrays, metadata = load_arrays(path, FORMAT)
    except StoreError:
        return True
    assert metadata == {"names": "sky tree"}
    assert list(arrays) == list(SAMPLE)
    for name, array in SAMPLE.items():
        np.testing.assert_array_equal(arrays[name], array, strict=True)
    return False


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    content = sample_bytes(tmp_path)
    for end in range(len(content)):
        assert assert_same_or_refused(tmp_path / "sample", content[:end]), end
    assert assert_same_or_refused(tmp_path / "sample", content + b"\0")
    assert not assert_same_or_refused(tmp_path / "sample", content)


def test_every_flipped_bit_of_the_header_is_refused(tmp_path: Path) -> None:
    content = sample_bytes(tmp_path)
    n_header = 8 + int.from_bytes(content[:8], "little")
    n_text = len(content[:n_header].rstrip(b" "))
    for position in range(n_header):
        for bit in range(8):
            damaged = bytearray(content)
            damaged[position] ^= 1 << bit
            refused = assert_same_or_refused(tmp_path / "sample", bytes(damaged))
            assert refused or position >= n_text  # white space may become other white space


@given(data=st.data())
def test_a_wrong_byte_in_the_header_is_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.getbasetemp()
    content = bytearray(sample_bytes(folder))
    n_header = 8 + int.from_bytes(content[:8], "little")
    position = data.draw(st.integers(0, n_header - 1))
    content[position] = data.draw(st.integers(0, 255) | st.sampled_from(b'0123456789,[]{}"\\ eE.-+'))
    assert_same_or_refused(folder / "sample", bytes(content))


def crafted(folder: Path, change: Callable[[dict[str, Any]], None], data: bytes = bytes(16)) -> Path:
    """Write a file with one or two arrays of 8 bytes whose header was changed and then given the right checksum."""
    header: dict[str, Any] = {
        "__metadata__": {"ccx.format": FORMAT},
        "a": {"dtype": "U8", "shape": [8], "data_offsets": [0, 8]},
        "b": {"dtype": "F64", "shape": [1], "data_offsets": [8, 16]},
    }
    change(header)
    header["__metadata__"]["ccx.checksum"] = _header_checksum(header)
    text = json.dumps(header).encode()
    (folder / "crafted").write_bytes(len(text).to_bytes(8, "little") + text + data)
    return folder / "crafted"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda h: h["b"].update(data_offsets=[0, 8]), "'b' begins at byte 0 of the data, not 8"),  # overlap
        (lambda h: h["b"].update(data_offsets=[9, 17]), "'b' begins at byte 9 of the data, not 8"),  # gap
        (lambda h: h["a"].update(data_offsets=[-8, 0]), "'a' begins at byte -8"),
        (lambda h: h["b"].update(shape=[2], data_offsets=[8, 24]), "truncated: 16 bytes of data, its header announces"),
        (lambda h: h.pop("b"), "damaged: 16 bytes of data, its header announces 8"),
        (lambda h: h["b"].update(shape=[2]), "offsets of 'b' do not fit its shape"),
        (lambda h: h["b"].update(data_offsets=[16, 8]), "offsets of 'b' do not fit"),
        (lambda h: h["b"].update(shape=[-1], data_offsets=[16, 8]), "offsets of 'b' do not fit"),
        (lambda h: h["b"].update(shape=[-1, -1]), "offsets of 'b' do not fit"),
        (lambda h: h["b"].update(shape=[0, 2**70], data_offsets=[16, 16]), "entry for 'b' cannot be read"),
        (lambda h: h["b"].update(shape=[1] * 65), "entry for 'b' cannot be read"),
        (lambda h: h["b"].update(shape=[1.0]), "entry for 'b' cannot be read"),
        (lambda h: h["b"].update(shape=["1"]), "entry for 'b' cannot be read"),
        (lambda h: h["b"].update(shape=None), "entry for 'b' cannot be read"),
        (lambda h: h["b"].update(data_offsets=[8.0, 16.0]), "entry for 'b' cannot be read"),
        (lambda h: h["b"].update(data_offsets=[8]), "entry for 'b' cannot be read"),
        (lambda h: h["b"].update(dtype="BF16"), "entry for 'b' cannot be read"),
        (lambda h: h["b"].pop("dtype"), "entry for 'b' cannot be read"),
        (lambda h: h.update(b=[]), "entry for 'b' cannot be read"),
    ],
)
def test_impossible_headers(tmp_path: Path, change: Callable[[dict[str, Any]], None], problem: str) -> None:
    with pytest.raises(StoreError, match=problem):
        load_arrays(crafted(tmp_path, change), FORMAT)


def test_crafted_file_is_fine_unchanged(tmp_path: Path) -> None:
    assert load_arrays(crafted(tmp_path, lambda _: None), FORMAT)[0]["b"].tolist() == [0.0]


def test_huge_header_length_reads_nothing(tmp_path: Path) -> None:
    for n_header in (10**8 + 1, 2**63, 2**64 - 1):
        (tmp_path / "file").write_bytes(n_header.to_bytes(8, "little") + b"{}")
        with pytest.raises(StoreError, match="does not begin like a safetensors file"):
            load_arrays(tmp_path / "file", FORMAT)
    (tmp_path / "file").write_bytes((10**8).to_bytes(8, "little") + b"{}")
    with pytest.raises(StoreError, match="truncated: 10 bytes"):
        load_arrays(tmp_path / "file", FORMAT)


# --------------------------------------------------------------------------------------- hashes


@given(array=any_array)
def test_hash_knows_content_not_layout(array: np.ndarray[Any, Any]) -> None:
    expected = content_hash({"a": array, "beam": 5})
    assert len(expected) == 32
    for other in layouts(array):
        assert content_hash({"beam": 5, "a": other}) == expected
    if array.size:
        changed = array.copy()
        changed.reshape(-1).view("u1")[-1] ^= 1
        assert content_hash({"a": changed, "beam": 5}) != expected


def test_hash_of_mapped_arrays(tmp_path: Path) -> None:
    save_arrays(tmp_path / "file", SAMPLE, {}, FORMAT)
    assert content_hash(load_arrays(tmp_path / "file", FORMAT)[0]) == content_hash(SAMPLE)


def test_different_parts_hash_differently() -> None:
    one = np.ones(4, "u1")
    parts: list[dict[str, object]] = [
        {},
        {"a": one},
        {"b": one},
        {"a": one.view("i1")},
        {"a": one.view("?")},
        {"a": one.reshape(2, 2)},
        {"a": one.reshape(4, 1)},
        {"a": one[:3], "b": one},
        {"a": one, "b": one[:3]},
        {"a": np.zeros(0, "u1")},
        {"a": np.zeros((0, 1), "u1")},
        {"a": [1, 1, 1, 1]},
        {"a": "1"},
        {"a": 1},
        {"a": 1.0},
        {"a": None},
        {"a": {"b": 1}},
        {"a": {"b": 2}},
    ]
    assert len({content_hash(part) for part in parts}) == len(parts)
    assert content_hash({"a": {"x": 1, "y": (2,)}}) == content_hash({"a": {"y": [2], "x": 1}})


def test_hash_is_stable() -> None:
    # Caches written today must be found tomorrow.
    assert content_hash({"a": np.arange(3, dtype="i4"), "beam": 5}) == "25d24b5cd03446794140c756da0d07e1"


def test_hash_refuses_other_parts() -> None:
    with pytest.raises(DTypeError, match="labels: expected"):
        content_hash({"labels": np.array(["a"])})
    with pytest.raises(InputError, match="beam: expected JSON"):
        content_hash({"beam": object()})
