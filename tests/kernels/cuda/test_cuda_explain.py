"""`explain` and `explain_bitmaps` on emulated GPUs: the explanations of the CPU, bit for bit, in whatever batches."""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from typer.testing import CliRunner

import ccx
import ccx.kernels.cuda.formulas
from ccx.cli import app
from ccx.errors import BackendError, CCXError, InputError, MemoryBudgetError, MissingExtraError
from ccx.kernels import pack, places
from ccx.kernels.cuda import activations
from ccx.pipeline import placement
from ccx.search import ConceptMasks
from tests.support.cuda_emulator.emulator import DeviceArray, Emulator, RawKernel
from tests.support.cuda_emulator.gpu import emulated_cupy, gpus, use
from tests.support.parity_cases import CASES, CASES_WITH_UNITS, load_case

pytestmark = pytest.mark.needs("gxx")

# Sanitizers make the emulator several times slower: of the parity cases they see beams of that of odd sizes alone.
SANITIZED = os.environ.get("CCX_EMULATOR_BUILD", "plain") != "plain"
N = 6
SEEDS = st.integers(0, 2**32 - 1)


@pytest.fixture(autouse=True, scope="module")
def _gpu():
    with emulated_cupy() as patch:
        patch.setattr(ccx.kernels.cuda.formulas, "_LEAST_SLICE_ATOMS", 8)
        yield


def made_concepts(seed: int, n_concepts: int, grid: tuple[int, int]) -> ccx.Concepts:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n_concepts + 1, (N, 2, *grid))
    labels = np.where(rng.random(labels.shape) < 0.5, labels // 2, labels)
    return ccx.Concepts.from_label_maps(
        labels, [f"c{c}" for c in range(n_concepts)], valid=rng.random((N, *grid)) < 0.95
    )


def made_maps(seed: int, *shape: int) -> NDArray[np.float32]:
    """Activations [N, units, ...]: of both signs, of one, silent, constant, of two values."""
    maps = np.random.default_rng(seed).normal(size=(N, *shape)).astype(np.float32)
    for unit, change in enumerate([None, np.abs, np.zeros_like, np.ones_like, np.sign]):
        if change is not None and unit < maps.shape[1]:
            maps[:, unit] = change(maps[:, unit])
    return maps


CONCEPTS = made_concepts(0, 7, (7, 10))
MAPS = made_maps(1, 6, 3, 4)


@given(
    gpu=gpus(),
    seed=SEEDS,
    n_concepts=st.sampled_from([1, 3, 8]),
    grid=st.sampled_from([(7, 10), (1, 65), (8, 8), (1, 1)]),
    shape=st.sampled_from([(3, 4), (7, 10), (1, 1), (9, 2)]),
    dtype=st.sampled_from([np.float16, np.float32, np.float64]),
    clusters=st.sampled_from([1, 3]),
    length=st.integers(1, 4),
    beam=st.integers(1, 4),
    slots=st.sampled_from([1, 20, 6144]),
)
@settings(max_examples=25)
def test_explain_follows_the_activations(gpu, seed, n_concepts, grid, shape, dtype, clusters, length, beam, slots):
    concepts = made_concepts(seed, n_concepts, grid)
    maps = made_maps(seed, 5, *shape).astype(dtype)
    options = {"clusters": clusters, "length": length, "beam": beam, "top": 3, "quantile": 0.1, "threads": 2}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ccx.kernels.cuda.formulas, "_TABLE_SLOTS", slots)
        got = ccx.explain(gpu.place(maps), concepts, **options)
    assert got == ccx.explain(maps, concepts, **options)
    assert "cuda:0" in concepts.atoms._copies


@given(
    gpu=gpus(),
    seed=SEEDS,
    grid=st.sampled_from([(7, 10), (1, 65), (3, 4)]),
    garbage=st.sampled_from([np.nan, np.inf, -np.inf]),
    options=st.sampled_from(
        [{}, {"fit_samples": [0, 3, 5]}, {"search": "mmesh"}, {"exclude": np.eye(3, 4, dtype=bool)}]
    ),
)
@settings(max_examples=15)
def test_what_has_no_valid_cell_changes_nothing(gpu, seed, grid, garbage, options):
    """Nor is it an error: NaN there is seen on the GPU, and looked up in main memory."""
    rng = np.random.default_rng(seed)
    valid = rng.random((N, *grid)) < 0.5
    valid[0], valid[1] = True, False
    concepts = ccx.Concepts.from_masks(rng.random((4, N, *grid)) < 0.4, valid=valid)
    if "exclude" in options and grid[0] == 1:
        options = {"exclude": np.broadcast_to(options["exclude"], (N, 3, 4))}
    known = concepts.excluding(options["exclude"]) if "exclude" in options else concepts
    counted = known.valid_positions((3, 4))
    maps = rng.standard_normal((N, 3, 3, 4))
    options = {"clusters": 2, "length": 2, "threads": 2, **options}
    wanted = ccx.explain(np.where(counted[:, None], maps, 0), concepts, **options)
    maps = np.where(counted[:, None], maps, garbage)
    assert ccx.explain(gpu.place(maps), concepts, **options) == ccx.explain(maps, concepts, **options) == wanted
    at = np.argwhere(counted)[seed % counted.sum()]
    maps[at[0], 2, at[1], at[2]] = garbage
    with pytest.raises(InputError, match="finite values, got NaN, infinity or a value beyond float32 in unit 2;"):
        ccx.explain(gpu.place(maps), concepts, **options)


@given(gpu=gpus(), seed=SEEDS, density=st.sampled_from([0.0, 0.1, 0.5, 1.0]), packed=st.booleans())
@settings(max_examples=15)
def test_explain_bitmaps_follows_the_bitmaps(gpu, seed, density, packed):
    bitmaps = np.random.default_rng(seed).random((3, N, 7, 10)) < density
    given = pack(bitmaps.reshape(3, N, 70)) if packed else bitmaps
    got = ccx.explain_bitmaps(gpu.place(given), CONCEPTS, top=2)
    assert got == ccx.explain_bitmaps(bitmaps, CONCEPTS, top=2)


@pytest.mark.parametrize("device", ["cuda", "cuda:1", "cuda:0,cuda:2", ["cuda:2", "cuda:1", "cuda:0"], "cpu", None])
@pytest.mark.parametrize("source", [None, 0, 1])
def test_devices(device, source):
    """From main memory, from the GPU itself, and from another one."""
    gpu = use(Emulator(64, 2))
    maps = MAPS if source is None else places.parse_places(f"cuda:{source}")[0].upload(MAPS)
    assert ccx.explain(maps, CONCEPTS, device=device, threads=3) == ccx.explain(MAPS, CONCEPTS)
    bitmaps = np.random.default_rng(0).random((4, N, 7, 10)) < 0.3
    placed = bitmaps if source is None else gpu.place(bitmaps)
    assert ccx.explain_bitmaps(placed, CONCEPTS, device=device) == ccx.explain_bitmaps(bitmaps, CONCEPTS)


def test_units_are_shared_out_over_gpus(monkeypatch):
    use(Emulator())
    counted = []
    count = placement.Counter.of_ranges

    def noted(counter, values, *rest):
        counted.append((counter.place.name, values.shape[1]))
        return count(counter, values, *rest)

    monkeypatch.setattr(placement.Counter, "of_ranges", noted)
    maps = made_maps(3, 11, 2, 2)
    assert ccx.explain(maps, CONCEPTS, device="cuda:0,cuda:1", threads=4) == ccx.explain(maps, CONCEPTS)
    shared = [one for one in counted if one[0] != "cpu"]
    assert sorted(shared) == [("cuda:0", 3)] * 2 + [("cuda:1", 2), ("cuda:1", 3)]


def test_workers_find_activations_complete(monkeypatch):
    """They may still be written on the caller's stream, which is not that of other threads."""
    gpu = use(Emulator())
    maps = gpu.place(MAPS)
    ccx.explain(maps, CONCEPTS)  # atoms are there now
    events = []
    check = activations.all_finite
    monkeypatch.setattr(Emulator, "synchronize", lambda _: events.append("waited"))
    monkeypatch.setattr(activations, "all_finite", lambda values: events.append("read") or check(values))
    ccx.explain(maps, CONCEPTS)
    assert events[:2] == ["waited", "read"]


# Least budgets ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("budget", "starts"), [(60_000, {0}), (20_000, {0, 2, 4}), (9_000, {0, 1, 2, 3, 4, 5})])
def test_a_small_memory_makes_many_batches(budget, starts, monkeypatch):
    """The cells take 24 kB, their sets less than 1 kB, a unit with its histograms less than 2 kB."""
    gpu = use(Emulator())
    monkeypatch.setattr(gpu, "budget", budget)
    concepts = made_concepts(0, 2, (40, 50))
    wanted = ccx.explain(MAPS, concepts)
    parts = set()
    moved = ccx.kernels.Atoms.samples_at

    def noted(atoms, start, stop, place):
        parts.add(start)
        return moved(atoms, start, stop, place)

    monkeypatch.setattr(ccx.kernels.Atoms, "samples_at", noted)
    for maps in (MAPS, gpu.place(MAPS)):
        assert ccx.explain(maps, concepts, device="cuda", threads=1) == wanted
    assert parts == starts
    bitmaps = np.random.default_rng(0).random((3, N, 40, 50)) < 0.3
    assert ccx.explain_bitmaps(bitmaps, concepts, device="cuda", threads=1) == ccx.explain_bitmaps(bitmaps, concepts)
    assert len(parts) >= len(starts)


def test_a_small_memory_makes_small_jobs(monkeypatch):
    gpu = use(Emulator())
    counted = []
    count = placement.Counter.of_ranges
    monkeypatch.setattr(placement.Counter, "of_ranges", lambda *args: counted.append(len(args[2])) or count(*args))
    concepts = made_concepts(0, 2, (7, 10))
    maps = made_maps(3, 11, 2, 2)
    wanted = ccx.explain(maps, concepts)
    for budget, batch in ((100_000, 8), (1_000, 2)):
        counted.clear()
        monkeypatch.setattr(gpu, "budget", budget)
        assert ccx.explain(maps, concepts, device="cuda", threads=1) == wanted
        assert max(counted) == batch


def test_a_memory_for_nothing_is_refused(monkeypatch):
    gpu = use(Emulator())
    monkeypatch.setattr(gpu, "budget", 100)
    wanted = (
        r"device: expected work that fits into the 0\.0 GB free there, got .* GB for one unit; free memory of the GPU"
    )
    with pytest.raises(MemoryBudgetError, match=wanted):
        ccx.explain(MAPS, made_concepts(0, 7, (7, 10)), device="cuda")


# All else -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def launched(monkeypatch):
    """The names of all kernels that were launched."""
    names = set()
    launch = RawKernel.__call__

    def noted(kernel, *args, **options):
        names.add(kernel._name)
        launch(kernel, *args, **options)

    monkeypatch.setattr(RawKernel, "__call__", noted)
    return names


@pytest.mark.parametrize(
    ("search", "published", "kernel"),
    [
        ("optimal", False, "range_histogram_u16"),
        ("mmesh", False, "inscribed_rectangles"),
        ("mmesh", True, "inscribed_rectangles"),
        ("cfh", False, "estimate_occurrences"),
        ("areas", True, "estimate_occurrences"),
        ("none", False, "conjunction_counts"),
    ],
)
def test_other_searches(search, published, kernel, launched):
    """With and without void cells, which masks know nothing of."""
    gpu = use(Emulator())
    options = {"search": search, "published": published}
    masks = np.random.default_rng(1).random((5, N, 7, 10)) < np.array([0.02, 0.1, 0.3, 0.5, 1.0])[:, None, None, None]
    for concepts in (CONCEPTS, ccx.Concepts.from_masks(masks)):
        got = ccx.explain(gpu.place(MAPS), concepts, clusters=2, units=[0, 1], device="cuda:0,cuda:1", **options)
        assert got == ccx.explain(MAPS, concepts, clusters=2, units=[0, 1], **options)
        bitmaps = np.random.default_rng(0).random((2, N, 7, 10)) < 0.3
        got = ccx.explain_bitmaps(gpu.place(bitmaps), concepts, **options)
        assert got == ccx.explain_bitmaps(bitmaps, concepts, **options)
    assert kernel in launched


def test_masks_that_do_not_fit_are_refused(monkeypatch):
    gpu = use(Emulator())
    monkeypatch.setattr(gpu, "budget", 10_000)
    concepts = ccx.Concepts.from_masks(np.random.default_rng(1).random((100, N, 7, 10)) < 0.5)
    with pytest.raises(
        MemoryBudgetError, match=r"device: expected masks that fit into the 0\.0 GB free on cuda:0, .*beam"
    ):
        ConceptMasks(concepts).at(gpu)


@pytest.mark.parametrize("search", ["beam", "optimal", "cfh"])
@pytest.mark.parametrize("fit", [None, [0, 2, 3, 5]])
def test_chance_and_held_out_samples(search, fit, launched):
    gpu = use(Emulator())
    options: dict[str, Any] = {"permutations": 3, "fit_samples": fit, "search": search}
    ranges = {"clusters": 2, "units": [0, 1]}
    got = ccx.explain(gpu.place(MAPS), CONCEPTS, **ranges, **options)
    assert got == ccx.explain(MAPS, CONCEPTS, **ranges, **options)
    assert any(one.chance for one in got)
    bitmaps = np.random.default_rng(0).random((2, N, 7, 10)) < 0.3
    got = ccx.explain_bitmaps(gpu.place(bitmaps), CONCEPTS, **options)
    assert got == ccx.explain_bitmaps(bitmaps, CONCEPTS, **options)
    assert "permuted_histogram_u16" in launched


def test_chance_without_room_for_all_cells(monkeypatch):
    """Atoms that are not kept on the GPU are permuted in main memory."""
    gpu = use(Emulator())
    concepts = made_concepts(0, 2, (40, 50))
    wanted = ccx.explain(MAPS, concepts, permutations=2, units=[0], clusters=2)
    monkeypatch.setattr(gpu, "budget", 20_000)
    assert ccx.explain(MAPS, concepts, permutations=2, units=[0], clusters=2, device="cuda", threads=1) == wanted
    assert not concepts.atoms._copies


def test_a_run_goes_on_on_another_device(tmp_path):
    gpu = use(Emulator())
    ccx.explain(gpu.place(MAPS), CONCEPTS, out=tmp_path / "run")
    rows = (tmp_path / "run" / "rows.jsonl") if (tmp_path / "run" / "rows.jsonl").exists() else None
    assert rows is not None, sorted((tmp_path / "run").iterdir())
    lines = rows.read_text().splitlines(keepends=True)
    rows.write_text("".join(lines[:4]))
    assert ccx.explain(MAPS, CONCEPTS, out=tmp_path / "run") == ccx.explain(MAPS, CONCEPTS)
    rows.write_text("".join(lines[:7]))
    assert ccx.explain(MAPS, CONCEPTS, device="cuda:0,cuda:1", out=tmp_path / "run") == ccx.explain(MAPS, CONCEPTS)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_activations_on_a_gpu_that_are_not_finite(bad, monkeypatch):
    monkeypatch.setattr("ccx.pipeline.sources._CHECK_VALUES", 50)
    gpu = use(Emulator())
    maps = MAPS.copy()
    maps[2, 1, 0, 0] = maps[5, 3, 2, 2] = bad
    with pytest.raises(InputError, match="NaN, infinity or a value beyond float32 in units 1, 3; mend"):
        ccx.explain(gpu.place(maps), CONCEPTS)


@pytest.mark.parametrize("name", ["h3_odd"] if SANITIZED else CASES_WITH_UNITS)
def test_parity_cases(name):
    use(Emulator(96, 2))
    case = load_case(name)
    concepts = ccx.Concepts.from_masks(case.masks)
    for clusters in (1, 5):
        wanted = ccx.explain(case.activations, concepts, clusters=clusters)
        assert ccx.explain(case.activations, concepts, clusters=clusters, device="cuda") == wanted


@pytest.mark.parametrize("search", ["beam"] if SANITIZED else ["beam", "optimal", "mmesh", "cfh", "areas", "none"])
@pytest.mark.parametrize("name", ["h3_odd"] if SANITIZED else CASES)
def test_bitmaps_of_parity_cases(name, search):
    use(Emulator(96, 2))
    case = load_case(name)
    concepts = ccx.Concepts.from_masks(case.masks)
    if name in CASES_WITH_UNITS:
        cells = np.stack([bitmap.cells for bitmap in case.bitmaps])
    else:
        bits = np.unpackbits(case.other["bitmap_packed"], axis=1, bitorder="little")
        cells = bits.view(np.bool_).reshape(1, *case.masks.shape[1:])
    for length in (1, 2, 3):
        options = {"length": length, "search": search}
        wanted = ccx.explain_bitmaps(cells, concepts, **options)
        assert ccx.explain_bitmaps(cells, concepts, device="cuda", **options) == wanted


# What is asked for --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("device", "error", "message"),
    [
        ("gpu", InputError, r'device: expected "cpu", "cuda", .* got \'gpu\'; leave it out to follow the arrays'),
        ("cuda:x", InputError, "got 'cuda:x'"),
        ("cuda:-1", InputError, "got 'cuda:-1'"),
        ("cuda:", InputError, "got 'cuda:'"),
        ("cpu:0", InputError, "got 'cpu:0'"),
        ("cuda,cuda:0", InputError, "got 'cuda,cuda:0'"),
        ("cpu,cuda", InputError, "got 'cpu,cuda'"),
        ("", InputError, "got ''"),
        ([], InputError, r"got \[\]"),
        (1, InputError, "got 1"),
        (["cuda", 1], InputError, r"got \['cuda', 1\]"),
        ("cuda:3", BackendError, "device='cuda:3': CuPy finds GPUs 0 to 2"),
    ],
)
def test_devices_that_are_none(device: Any, error: type[CCXError], message: str) -> None:
    with pytest.raises(error, match=message):
        ccx.explain(MAPS, CONCEPTS, device=device)
    with pytest.raises(error, match=message):
        ccx.explain_bitmaps(np.zeros((1, N, 7, 10), np.bool_), CONCEPTS, device=device)


def test_what_is_read_in_main_memory_is_not_moved_unasked():
    gpu = use(Emulator())
    masks = np.ones((2, N, 7, 10), np.bool_)
    with pytest.raises(BackendError, match=r"concepts: annotations are read in main .* pass cupy.asnumpy\(concepts\)"):
        ccx.explain(gpu.place(MAPS), gpu.place(masks))
    with pytest.raises(BackendError, match=r"ranges: ranges are read in main memory, got float64\[1, 2\] on a GPU"):
        ccx.explain(gpu.place(MAPS), CONCEPTS, ranges=gpu.place(np.array([[0.1, 0.5]])))
    there = CONCEPTS.atoms.at(gpu)
    for formulas in ((gpu.place(np.zeros((1, 1), np.int32)), [[]]), ([[0, 1]], gpu.place(np.zeros((1, 1), np.uint8)))):
        with pytest.raises(BackendError, match="formulas are read in main memory"):
            ccx.kernels.conjunction_counts(there, there.cells[None], *formulas)


def test_without_cupy(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(MissingExtraError, match=r"device='cuda' needs CuPy .*cupy-cuda12x.*ccx\[cupy-cuda13x\]"):
        ccx.explain(MAPS, CONCEPTS, device="cuda")
    assert ccx.explain(MAPS, CONCEPTS, device="cpu") == ccx.explain(MAPS, CONCEPTS)


def test_the_command_line_counts_on_gpus(tmp_path):
    use(Emulator())
    np.save(tmp_path / "maps.npy", MAPS)
    CONCEPTS.save(tmp_path / "concepts.safetensors")
    command = [
        "explain",
        str(tmp_path / "maps.npy"),
        "--concepts",
        str(tmp_path / "concepts.safetensors"),
        "--no-report",
    ]
    for number, device in enumerate(["cpu", "cuda:0,cuda:1"]):
        done = CliRunner().invoke(app, [*command, "--device", device, "--out", str(tmp_path / str(number))])
        assert done.exit_code == 0, done.output
    assert ccx.load(tmp_path / "1") == ccx.load(tmp_path / "0") == ccx.explain(MAPS, CONCEPTS)
    done = CliRunner().invoke(app, [*command, "--device", "cuda:7", "--out", str(tmp_path / "2")])
    assert (done.exit_code, "CuPy finds GPUs 0 to 2" in done.output) == (2, True)


class Tensor:
    """``torch.Tensor`` on a GPU."""

    device = SimpleNamespace(type="cuda")
    dtype, layout = "torch.float32", "torch.strided"

    def __init__(self, array: NDArray[Any], *, requires_grad: bool = True) -> None:
        self._array, self._requires_grad = array, requires_grad

    def detach(self) -> Tensor:
        return Tensor(self._array, requires_grad=False)

    def __dlpack__(self) -> NDArray[Any]:
        if self._requires_grad:
            msg = "can't export tensors that require gradient"
            raise BufferError(msg)
        if self._array.dtype == np.complex64:  # as CuPy says of bfloat16
            raise BufferError
        return self._array


def test_tensors_of_torch_on_a_gpu(monkeypatch):
    use(Emulator())
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(Tensor=Tensor))
    assert ccx.explain(Tensor(MAPS), CONCEPTS) == ccx.explain(MAPS, CONCEPTS)
    assert isinstance(ccx.kernels.upsample(Tensor(MAPS), (7, 10)), DeviceArray)
    with pytest.raises(CCXError, match=r"expected a tensor that CuPy can view, .* convert it"):
        ccx.explain(Tensor(MAPS.astype(np.complex64)), CONCEPTS)
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(MissingExtraError, match=r"activations, a torch tensor on .* needs CuPy"):
        ccx.explain(Tensor(MAPS), CONCEPTS)
