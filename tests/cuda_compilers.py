"""NVIDIA's compilers and disassembler from PyPI packages, and what they say of a compiled kernel.

The dependency group ``cuda-compilers`` installs them. What the machine has is not used: other versions allocate other
registers.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

ARCHITECTURES = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120")


def _folder() -> Path | None:
    """Return the folder of nvcc and cuobjdump, or None without the packages."""
    spec = importlib.util.find_spec("nvidia")
    places = [] if spec is None else [Path(place) / "cu13" / "bin" for place in spec.submodule_search_locations or []]
    return next((place for place in places if (place / "nvcc").exists() and (place / "cuobjdump").exists()), None)


BIN = _folder()


def has_nvrtc() -> bool:
    """Return whether cuda-core can be imported, and by it NVRTC, which needs no device."""
    return BIN is not None and importlib.util.find_spec("cuda") is not None and _has_cuda_core()


def _has_cuda_core() -> bool:
    return importlib.util.find_spec("cuda.core") is not None and importlib.util.find_spec("cuda.bindings") is not None


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
    from cuda.core import Program, ProgramOptions

    compiled = Program(code, "c++", ProgramOptions(arch=architecture, std="c++17")).compile("cubin")
    path.write_bytes(compiled.code)
    return path


def cubin_by_nvcc(code: str, architecture: str, path: Path) -> Path:
    """Compile for one architecture."""
    source = path.with_suffix(".cu")
    source.write_text(code)
    run(str(BIN / "nvcc"), "-O3", "-std=c++17", "-cubin", f"-arch={architecture}", str(source), "-o", str(path))
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
