"""NVIDIA's compilers and disassembler from PyPI packages, and what they say of a compiled kernel.

The dependency group ``cuda-compilers`` installs them. What the machine has is not used: other versions allocate other
registers.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ccx.kernels.cuda.device import FAMILIES, NVRTC_OPTIONS, fatbin_of

ARCHITECTURES = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120")


def _folder() -> Path | None:
    """Return the folder of nvcc and cuobjdump, or None without the packages."""
    spec = importlib.util.find_spec("nvidia")
    places = [] if spec is None else [Path(place) / "cu13" / "bin" for place in spec.submodule_search_locations or []]
    return next((place for place in places if (place / "nvcc").exists() and (place / "cuobjdump").exists()), None)


BIN = _folder()


# What CuPy 14.2 compiles a RawModule with, beside where headers lie: the options of ccx, then its own, which it appends
# and of which the last one counts (cupy/cuda/compiler.py: _compile_with_cache_cuda, _compile_using_nvrtc_no_warning).
# Environment variables add others: CUPY_CUDA_COMPILE_WITH_DEBUG --device-debug and --generate-line-info,
# CUPY_NVRTC_USE_PCH --pch; CUPY_COMPILE_WITH_PTX leaves PTX for the driver to compile. None makes it use nvcc, or
# jitify: both are arguments, which ccx does not give.
CUPY_OPTIONS = (*NVRTC_OPTIONS, "-ftz=true", "--device-as-default-execution-space")


def has_nvrtc() -> bool:
    """Return whether cuda-bindings can be imported, and by it NVRTC, which needs no device."""
    found = BIN is not None and importlib.util.find_spec("cuda") is not None
    return found and importlib.util.find_spec("cuda.bindings") is not None


def has_fatbins() -> bool:
    """Return whether ccx finds a fatbin for each family."""
    return all(map(fatbin_of, FAMILIES))


@dataclass
class Kernel:
    """A kernel as compiled for an architecture: registers and bytes of stack a thread, and its instructions."""

    architecture: str
    name: str
    registers: int = 0
    stack: int = 0
    instructions: list[str] = field(default_factory=list)  # LDG.E.128.CONSTANT, without operands

    def uses(self, pattern: str) -> bool:
        """Return whether an instruction matches from its start."""
        return any(re.match(pattern, instruction) for instruction in self.instructions)


def cubin_by_nvrtc(code: str, architecture: str, path: Path) -> Path:
    """Compile as CuPy does, but without a device."""
    path.write_bytes(_by_nvrtc(code, "CUBIN", f"-arch={architecture}"))
    return path


def ptx_by_nvrtc(code: str, *more: str) -> str:
    """Compile as CuPy does, with `more` options in front of its own, -> PTX."""
    return _by_nvrtc(code, "PTX", "-arch=compute_75", *more).decode()


def _by_nvrtc(code: str, what: str, *more: str) -> bytes:
    from cuda.bindings import nvrtc

    def checked(result: Any) -> Any:
        error, *value = result
        if error != nvrtc.nvrtcResult.NVRTC_SUCCESS:
            raise RuntimeError(str(error))
        return value[0] if value else None

    def text(name: str) -> bytes:
        buffer = b" " * checked(getattr(nvrtc, f"nvrtcGet{name}Size")(program))
        checked(getattr(nvrtc, f"nvrtcGet{name}")(program, buffer))
        return buffer

    program = checked(nvrtc.nvrtcCreateProgram(code.encode(), b"kernels.cu", 0, [], []))
    options = [option.encode() for option in (*more, *CUPY_OPTIONS)]
    if nvrtc.nvrtcCompileProgram(program, len(options), options)[0] != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise RuntimeError(text("ProgramLog").decode())
    return text(what)


def cubin_by_nvcc(code: str, architecture: str, path: Path, append: str = "") -> Path:
    """Compile for one architecture; with options that the user's environment appends."""
    source = path.with_suffix(".cu")
    source.write_text(code)
    command = [str(BIN / "nvcc"), "-O3", "-std=c++17", "-cubin", f"-arch={architecture}", str(source), "-o", str(path)]
    run(*command, env={**os.environ, "NVCC_APPEND_FLAGS": append})
    return path


_ARCHITECTURE = re.compile(r"^(?:arch = |\tcode for )(sm_\d+)")
_FUNCTION = re.compile(r"^\s+Function :? ?(\w+):?$")
_USAGE = re.compile(r"^\s+REG:(\d+) STACK:(\d+) ")
_INSTRUCTION = re.compile(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+ )?([A-Z][A-Z0-9_.]*)")


def disassembled(binary: Path) -> dict[tuple[str, str], Kernel]:
    """Return the kernels of a cubin or fatbin by architecture and name."""
    kernels: dict[tuple[str, str], Kernel] = {}
    architecture = ""
    kernel = Kernel("", "")
    # The usage of a cubin does not say its architecture, the instructions do: they come first.
    for line in run(str(BIN / "cuobjdump"), "-sass", str(binary)).splitlines():
        if found := _ARCHITECTURE.match(line):
            architecture = found[1]
        elif found := _FUNCTION.match(line):
            kernel = kernels[architecture, found[1]] = Kernel(architecture, found[1])
        elif found := _INSTRUCTION.match(line):
            kernel.instructions.append(found[1])
    for line in run(str(BIN / "cuobjdump"), "-res-usage", str(binary)).splitlines():
        if found := _ARCHITECTURE.match(line):
            architecture = found[1]
        elif found := _FUNCTION.match(line):
            kernel = kernels[architecture, found[1]]
        elif found := _USAGE.match(line):
            kernel.registers, kernel.stack = int(found[1]), int(found[2])
    return kernels


def run(*command: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    """Run a tool -> what it printed; fail with that."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, env=env)
    if done.returncode:
        msg = f"{' '.join(command)}\n{done.stdout}{done.stderr}"
        raise RuntimeError(msg)
    return done.stdout
