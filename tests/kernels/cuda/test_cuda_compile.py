"""The CUDA kernels as compiled for every GPU, by nvcc into the wheel's fatbins and by NVRTC as CuPy does it.

The table of docs/gpu.md is the contract: each kernel's registers at most, and what it moves in 128 bits.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from ccx.kernels.cuda import device
from tests.support.cuda_compilers import (
    ARCHITECTURES,
    BIN,
    Kernel,
    cubin_by_nvcc,
    cubin_by_nvrtc,
    disassembled,
    ptx_by_nvrtc,
    run,
)

pytestmark = pytest.mark.needs("nvcc")

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "gpu.md"
FAMILIES = device.FAMILIES


FUSED = "a fused multiply-add, which rounds otherwise than the CPU"
FLUSHED = "takes denormals for zeros, which the CPU does not"
_OF_DIVISIONS = r"U?F2I\.FTZ\.U32\.(F32\.)?TRUNC\.NTZ$"  # of integers, of which none is a denormal


class Contract(NamedTuple):
    """What a kernel may use: so many registers per thread; "loads" and "stores" say what it moves in 128 bits."""

    registers: int
    wide: str = ""


def contracts() -> dict[str, Contract]:
    """Read the table: | `family.cuh: kernel` | registers | 128 bits | ..."""
    rows = re.findall(r"^\| `\w+\.cuh: (\w+)` \| (\d+) \| ([a-z, ]*?) *\|", PAGE.read_text(), re.MULTILINE)
    return {name: Contract(int(registers), wide) for name, registers, wide in rows}


def kernel_names(family: str) -> list[str]:
    return re.findall(r"^KERNEL void (\w+)\(", device.source_of(family), re.MULTILINE)


def faults(kernel: Kernel, contract: Contract) -> list[str]:
    """Return what is wrong with a compiled kernel."""
    found = []
    if kernel.stack or kernel.uses("LDL|STL"):
        found.append("spills, or keeps an array in local memory")
    if kernel.registers > contract.registers:
        found.append(f"{kernel.registers} registers, {contract.registers} are recorded")
    for what, instruction in (("loads", "LDG"), ("stores", "STG")):
        if what in contract.wide and not kernel.uses(rf"{instruction}\b.*\.(128|256)\b"):
            found.append(f"no {what} of 128 bits")
    if kernel.uses("U?[FD]FMA"):
        found.append(FUSED)
    if kernel.uses(rf"(?!{_OF_DIVISIONS}).*\.FTZ"):
        found.append(FLUSHED)
    return found


@pytest.fixture(scope="session")
def wheel(tmp_path_factory) -> Path:
    """The wheel with its fatbins, as a user with nvcc builds it."""
    folder = tmp_path_factory.mktemp("wheel")
    define = "--config-settings=cmake.define."
    options = [f"{define}CCX_CUDA=ON", f"{define}CCX_NVCC={BIN / 'nvcc'}"]
    environment = {name: value for name, value in os.environ.items() if name != "SKBUILD_CMAKE_DEFINE"}
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    run(*pip, *options, str(ROOT), env=environment)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="session")
def by_nvcc(wheel, tmp_path_factory) -> Callable[[str], dict[tuple[str, str], Kernel]]:
    """Give the kernels of a family from the wheel."""
    folder = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)

    def kernels(family: str) -> dict[tuple[str, str], Kernel]:
        (path,) = (folder / "ccx/kernels/src").glob(f"{family}-*.fatbin")
        return disassembled(path)

    return kernels


def by_nvrtc(folder: Path) -> Callable[[str], dict[tuple[str, str], Kernel]]:
    """Give the kernels of a family from the text that CuPy is given."""

    def kernels(family: str) -> dict[tuple[str, str], Kernel]:
        code = device.source_of(family)
        return {
            key: kernel
            for architecture in ARCHITECTURES
            for key, kernel in disassembled(cubin_by_nvrtc(code, architecture, folder / architecture)).items()
        }

    return kernels


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("compiler", ["nvcc", pytest.param("nvrtc", marks=pytest.mark.needs("nvrtc"))])
def test_kernels_keep_their_contract_on_every_gpu(compiler, family, request, tmp_path):
    compiled = (request.getfixturevalue("by_nvcc") if compiler == "nvcc" else by_nvrtc(tmp_path))(family)
    names = kernel_names(family)
    assert names
    assert set(compiled) == {(architecture, name) for architecture in ARCHITECTURES for name in names}
    recorded = contracts()
    most = {name: max(compiled[architecture, name].registers for architecture in ARCHITECTURES) for name in names}
    unrecorded = {name: registers for name, registers in most.items() if name not in recorded}
    assert not unrecorded, f"docs/gpu.md records no registers of these; they use {unrecorded}"
    wrong = {key: found for key, kernel in compiled.items() if (found := faults(kernel, recorded[key[1]]))}
    assert not wrong


# Whatever else options say of floats: what CuPy's environment variables, or others of ccx or CuPy, might bring.
FLOAT_OPTIONS = [
    (),
    ("--use_fast_math",),
    ("-fmad=true", "-prec-div=false", "-prec-sqrt=false"),
    ("--device-debug", "--generate-line-info"),
]


@pytest.mark.needs("nvrtc")
@pytest.mark.parametrize("options", FLOAT_OPTIONS, ids=" ".join)
def test_no_option_changes_what_kernels_compute(options):
    """In PTX: floats are moved, multiplied, added and converted, as kernels say, and nothing else."""
    for family in FAMILIES:
        on_floats = set(
            re.findall(r"\b[a-z0-9_.]+\.[bf](?:16|32|64)\b", ptx_by_nvrtc(device.source_of(family), *options))
        )
        on_floats = {name for name in on_floats if re.search(r"\.f\d\d", name) and not re.match("ld|st|mov|selp", name)}
        assert on_floats <= {"mul.rn.f32", "add.rn.f32", "cvt.rn.f32.f64"}, family


@pytest.mark.parametrize("architecture", ["sm_75", "sm_90"])
def test_nor_what_nvcc_appends(architecture, tmp_path):
    binary = cubin_by_nvcc(device.source_of("activations"), architecture, tmp_path / "fast.cubin", "--use_fast_math")
    recorded = contracts()
    for kernel in disassembled(binary).values():
        assert not {FUSED, FLUSHED} & set(faults(kernel, recorded[kernel.name]))


def test_the_table_names_no_other_kernels():
    assert set(contracts()) == {name for family in FAMILIES for name in kernel_names(family)}


# Mistakes, their contracts, and what `faults` must find in what nvcc makes of them, and CuPy; the last ones are as they
# should be.
class Plant(NamedTuple):
    """A kernel, its contract, its faults by nvcc, and further ones by CuPy."""

    body: str
    contract: Contract = Contract(256)
    faults: tuple[str, ...] = ()
    by_cupy: tuple[str, ...] = ()


PLANTS = {
    "spill": Plant(
        """KERNEL void plant(const int* in, int* out, int n) {
          int kept[64];
          for (int i = 0; i < n; ++i) kept[i % 64] = in[i];
          for (int i = 0; i < 64; ++i) out[i] = kept[n - i & 63];
        }""",
        faults=("spills, or keeps an array in local memory",),
    ),
    "fused": Plant(
        "KERNEL void plant(const float* in, float* out) { out[0] = in[0] * in[1] + in[2]; }",
        faults=(FUSED,),
        by_cupy=(FLUSHED,),
    ),
    "fused 64 bits": Plant(
        "KERNEL void plant(const double* in, double* out) { out[0] = in[0] * in[1] + in[2]; }", faults=(FUSED,)
    ),
    "rounded, and flushed": Plant(
        "KERNEL void plant(const float* in, float* out) { out[0] = __fadd_rn(__fmul_rn(in[0], in[1]), in[2]); }",
        by_cupy=(FLUSHED,),
    ),
    "compared": Plant("KERNEL void plant(const float* in, int* out) { out[0] = in[0] < in[1]; }", by_cupy=(FLUSHED,)),
    "greatest": Plant(
        "KERNEL void plant(const float* in, float* out) { out[0] = max(in[0], in[1]); }", by_cupy=(FLUSHED,)
    ),
    "words of 32 bits": Plant(
        "KERNEL void plant(const int* in, int* out) { for (int i = 0; i < 4; ++i) out[8 * i] = in[9 * i]; }",
        Contract(256, "loads, stores"),
        ("no loads of 128 bits", "no stores of 128 bits"),
    ),
    "ieee": Plant(
        """KERNEL void plant(const float* in, const double* wide, float* out) {
          out[0] = ieee_add(ieee_mul(in[0], in[1]), ieee_float(wide[0]));
        }"""
    ),
    "a division of integers": Plant("KERNEL void plant(u32* out, u32 a, u32 b) { out[0] = a / b; }"),
    "words of 128 bits": Plant(
        "KERNEL void plant(const uint4* in, uint4* out) { out[threadIdx.x] = in[threadIdx.x]; }",
        Contract(256, "loads, stores"),
    ),
}


@pytest.mark.parametrize("plant", PLANTS)
@pytest.mark.parametrize("architecture", ["sm_75", "sm_120"])
@pytest.mark.parametrize("compiler", ["nvcc", pytest.param("nvrtc", marks=pytest.mark.needs("nvrtc"))])
def test_mistakes_are_seen(compiler, plant, architecture, tmp_path):
    body, contract, wanted, by_cupy = PLANTS[plant]
    code = (device._SOURCES / "common.cuh").read_text() + body
    compiled = cubin_by_nvcc if compiler == "nvcc" else cubin_by_nvrtc
    (kernel,) = disassembled(compiled(code, architecture, tmp_path / "plant.cubin")).values()
    assert (kernel.architecture, kernel.name) == (architecture, "plant")
    assert faults(kernel, contract) == [*wanted, *(by_cupy if compiler == "nvrtc" else ())]
    fewer = contract._replace(registers=kernel.registers - 1)
    assert f"{kernel.registers} registers, {kernel.registers - 1} are recorded" in faults(kernel, fewer)


def test_the_wheel_holds_one_fatbin_a_family_that_ccx_finds(wheel, tmp_path, monkeypatch):
    assert wheel.name.endswith("-py3-none-any.whl"), "code of GPUs, none of the host"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    monkeypatch.setattr(device, "_SOURCES", tmp_path / "ccx" / "kernels" / "src")
    fatbins = {device.fatbin_of(family) for family in FAMILIES}
    assert fatbins == set(device._SOURCES.glob("*.fatbin"))
    for fatbin in fatbins:
        assert "sm_120.ptx" in run(str(BIN / "cuobjdump"), "-lptx", str(fatbin))


@pytest.fixture
def tree(tmp_path):
    """A project with two small families."""
    sources = tmp_path / "tree" / "ccx" / "kernels" / "src"
    sources.mkdir(parents=True)
    shutil.copy(ROOT / "CMakeLists.txt", tmp_path / "tree")
    shutil.copy(device._SOURCES / "common.cuh", sources)
    for family in ("first", "second"):
        (sources / f"{family}.cuh").write_text(f"KERNEL void {family}(int* out) {{ out[0] = 1; }}\n")
    return tmp_path / "tree"


def cmake(*options: str, path: str = os.environ["PATH"]) -> str:
    """Run the CMake that came with this Python; without `path`, nothing else is on PATH."""
    with_cmake = os.pathsep.join(filter(None, [str(Path(sys.executable).parent), path]))
    return run("cmake", *options, env={**os.environ, "PATH": with_cmake})


def configure(tree: Path, *options: str, **path: str) -> str:
    no_system = "-DCMAKE_FIND_USE_CMAKE_SYSTEM_PATH=OFF"  # which is searched besides PATH
    return cmake("-G", "Ninja", "-S", str(tree), "-B", str(tree / "build"), no_system, *options, **path)


def built(tree: Path) -> set[str]:
    cmake("--build", str(tree / "build"))
    return {path.name for path in (tree / "build").glob("*-*.fatbin")}


def test_a_change_compiles_what_it_touches(tree):
    configure(tree, f"-DCCX_NVCC={BIN / 'nvcc'}")
    before = built(tree)
    assert {name.partition("-")[0] for name in before} == {"first", "second"}
    assert built(tree) == before
    sources = tree / "ccx" / "kernels" / "src"
    times = {path.name: path.stat().st_mtime_ns for path in (tree / "build").glob("*-*.fatbin")}
    (sources / "first.cuh").write_text("KERNEL void first(int* out) { out[0] = 2; }\n")
    (sources / "third.cuh").write_text("KERNEL void third(int* out) { out[0] = 3; }\n")
    added = built(tree) - before
    assert {name.partition("-")[0] for name in added} == {"first", "third"}
    assert all((tree / "build" / name).stat().st_mtime_ns == time for name, time in times.items())
    with (sources / "common.cuh").open("a") as file:
        file.write("// changed\n")
    assert {name.partition("-")[0] for name in built(tree) - before - added} == {"first", "second", "third"}


@pytest.mark.parametrize(
    ("nvcc", "message"), [(None, "CCX_CUDA=ON, but nvcc was not found"), ("/bin/false", "cannot compile for sm_75")]
)
def test_on_fails_where_auto_goes_without(tree, nvcc, message):
    options = [] if nvcc is None else [f"-DCCX_NVCC={nvcc}"]
    with pytest.raises(RuntimeError, match=message):
        configure(tree, "-DCCX_CUDA=ON", *options, path="")
    assert "CUDA kernels are left to NVRTC" in configure(tree, "-DCCX_CUDA=AUTO", *options, path="")
    assert built(tree) == set()


def test_off_does_not_even_look(tree):
    assert "nvcc" not in configure(tree, "-DCCX_CUDA=off", f"-DCCX_NVCC={BIN / 'nvcc'}")
    assert built(tree) == set()


def test_another_word_is_refused(tree):
    with pytest.raises(RuntimeError, match="CCX_CUDA: expected AUTO, ON or OFF, got 'YES'"):
        configure(tree, "-DCCX_CUDA=YES")
