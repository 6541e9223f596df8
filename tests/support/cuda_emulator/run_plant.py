"""Run one kernel of plants.cuh in two blocks of 64 threads, and print the first values that it wrote.

``python -m tests.support.cuda_emulator.run_plant KERNEL [SHARED_BYTES]``, in the environment of the sanitizer.
"""

import sys
from pathlib import Path

import numpy as np

from ccx.kernels.cuda import device
from tests.support.cuda_emulator.emulator import Emulator, RawModule


def main(name: str, shared_mem: str = "256") -> None:
    common, plants = Path(device.__file__).parents[1] / "src" / "common.cuh", Path(__file__).with_name("plants.cuh")
    code = f'{common.read_text()}#line 1 "plants.cuh"\n{plants.read_text()}'
    out = Emulator().zeros((64,), np.uint32)
    RawModule(code).get_function(name)((2,), (64,), (out,), shared_mem=int(shared_mem))
    sys.stdout.write(f"wrote {out.tolist()[:33]}\n")


main(*sys.argv[1:])
