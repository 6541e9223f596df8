"""Building concepts from a folder in Broden's layout, beside plain decoding of its label maps with the same workers.

Both read the same PNG files with forked workers; plain decoding is ``numpy.asarray(PIL.Image.open(path))`` of each. CPU
seconds are those of this process and its workers together.

    python benchmarks/datasets.py --images 1000 --workers 2
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that this file runs as a script

from benchmarks.synthetic import COLOUR, GRID, OBJECT, PART, SCENE, SUBPART, generate
from ccx.datasets import Broden
from ccx.jobs import in_processes

SIDE = 224
PNGS = (OBJECT, PART, SUBPART, COLOUR)


def main() -> None:
    """Write the folder, measure both, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        paths = write(Path(folder), options.images)
        dataset = Broden(folder)
        concepts = dataset.concepts(workers=options.workers, progress=False)  # compiles, and fills the file cache
        n_bytes = sum(path.stat().st_size for path in paths)
        atoms = concepts.atoms.sample_atoms.size / len(dataset)
        present = sum(len(dataset.present(i)) for i in range(50)) / 50
        print(
            f"{options.images} images of {present:.0f} concepts and {atoms:.0f} atoms, {len(paths)} label maps of "
            f"{n_bytes / len(paths):.0f} bytes on average"
        )
        plain = min(timed(lambda: decode(paths, options.workers)) for _ in range(options.repeats))
        build = min(
            timed(lambda: dataset.concepts(workers=options.workers, progress=False)) for _ in range(options.repeats)
        )
        checked = min(
            timed(lambda: dataset.check(workers=options.workers, progress=False)) for _ in range(options.repeats)
        )
        print(f"{'':24}{'CPU s':>8}{'s':>8}")
        for name, (cpu, wall) in (("plain decoding", plain), ("concepts", build), ("  of which the check", checked)):
            print(f"{name:24}{cpu:8.2f}{wall:8.2f}")
        print(f"ratio {build[0] / plain[0]:.2f} in CPU seconds, {build[1] / plain[1]:.2f} in seconds")


def timed(work) -> tuple[float, float]:
    """Return CPU seconds, of workers too, and seconds."""
    before, began = cpu_seconds(), time.perf_counter()
    work()
    return cpu_seconds() - before, time.perf_counter() - began


def cpu_seconds() -> float:
    """Return the CPU seconds of this process and of all that it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def decode(paths: list[Path], workers: int) -> None:
    """Decode all files."""

    def some(first: int) -> int:
        return sum(np.asarray(Image.open(path)).size for path in paths[first : first + 256])

    assert sum(in_processes(some, range(0, len(paths), 256), workers)) == len(paths) * GRID[0] * GRID[1] * 3


def write(root: Path, n_images: int) -> list[Path]:
    """Write the synthetic data of benchmarks/synthetic.py in Broden's layout -> its label maps.

    An image has one PNG of objects, two of parts and one of colours; scenes are numbers in the index.
    """
    data = generate(n_images, 1)
    (root / "images").mkdir(parents=True)
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 255, (28, 28, 3)).astype(np.uint8))
    photo = photo.resize((SIDE, SIDE))
    lines, paths = ["image,split,ih,iw,sh,sw,color,object,part,scene"], []
    for i, layers in enumerate(data.labels.astype(int)):
        photo.save(root / "images" / f"ade20k_{i}.jpg")
        names = [f"ade20k_{i}_{layer}.png" for layer in PNGS]
        for layer, name in zip(PNGS, names, strict=True):
            pixels = np.zeros((*GRID, 3), np.uint8)
            pixels[..., 0], pixels[..., 1] = layers[layer] % 256, layers[layer] // 256
            paths.append(root / "images" / name)
            Image.fromarray(pixels).save(paths[-1])
        objects, parts, subparts, colors = names
        scene = layers[SCENE, 0, 0]
        size = f"{SIDE},{SIDE},{GRID[0]},{GRID[1]}"
        lines.append(f"ade20k_{i}.jpg,train,{size},{colors},{objects},{parts};{subparts},{scene}")
    (root / "index.csv").write_text("\n".join(lines) + "\n")
    rows = "".join(f"{n},{name},object(1),1,1,\n" for n, name in enumerate(data.names, start=1))
    (root / "label.csv").write_text("number,name,category,frequency,coverage,syns\n" + rows)
    for category in ("color", "object", "part", "scene"):
        rows = "".join(f"{n},{n},x,1,1\n" for n in range(1, len(data.names) + 1) if category == "object")
        (root / f"c_{category}.csv").write_text("code,number,name,frequency,coverage\n" + rows)
    return paths


if __name__ == "__main__":
    main()
