"""What probing costs beyond the forward passes that it consists of, measured side by side.

``python benchmarks/probing.py --models resnet18 alexnet --images 64 --rounds 5`` (needs torch and torchvision) runs, in
turns, the bare passes (evaluation mode, no gradients), `ccx.probe` into memory, and `ccx.probe` into a new folder:
weights and every sample hashed, activations written, and flushed to the disk. It prints the CPU seconds of each, those
of hashing the weights (once a run, however many images), and the median of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch  # noqa: TID251 - what is measured

import ccx
from benchmarks._machine import machine
from ccx.probing.identity import model_hashes


def measured(work: Callable[[], Any]) -> tuple[float, float]:
    """Return CPU and wall seconds."""
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - cpu, time.perf_counter() - wall


def compare(name: str, n_images: int, batch_size: int, rounds: int) -> dict[str, Any]:
    """Measure one network; check that all ways give the same activations."""
    net = ccx.models.load(name, weights="none")
    layer = net.layers[0]
    side = net.preprocessing.size[0]
    images = torch.randn(n_images, 3, side, side, generator=torch.Generator().manual_seed(0))
    batches = list(images.split(batch_size))
    kept: list[torch.Tensor] = []

    def bare() -> None:
        with torch.no_grad():
            for batch in batches:
                net.module(batch)

    hook = net.module.get_submodule(layer).register_forward_hook(lambda _m, _i, output: kept.append(output.clone()))
    bare()
    hook.remove()
    want = torch.cat(kept).numpy()
    times: dict[str, list[tuple[float, float]]] = {"passes": [], "memory": [], "folder": []}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "out"
            times["passes"].append(measured(bare))
            times["memory"].append(measured(lambda: ccx.probe(net, batches, progress=False)))
            times["folder"].append(measured(lambda out=out: ccx.probe(net, batches, out=out, progress=False)))
            np.testing.assert_array_equal(np.load(out / f"{layer}.npy"), want)
    found: dict[str, Any] = {"network": name, "layer": layer, "side": side, "images": n_images}
    for way, seconds in times.items():
        found[f"{way}_cpu_seconds"] = round(statistics.median(cpu for cpu, _ in seconds), 3)
    found["weights_cpu_seconds"] = round(min(measured(lambda: model_hashes(net.module))[0] for _ in range(3)), 3)
    for way in ("memory", "folder"):
        for kind, index in (("cpu", 0), ("wall", 1)):
            ratios = [mine[index] / base[index] for mine, base in zip(times[way], times["passes"], strict=True)]
            found[f"{way}_{kind}_ratio"] = round(statistics.median(ratios), 3)
    return found


def main() -> None:
    """Measure, and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=["resnet18", "alexnet", "vgg16", "densenet161"])
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(json.dumps({**machine(), "torch": torch.__version__, "threads": options.threads}))
    for name in options.models:
        print(json.dumps(compare(name, options.images, options.batch_size, options.rounds)), flush=True)


if __name__ == "__main__":
    main()
