"""Building concepts from a folder in Broden's layout, beside plain decoding of its label maps with the same workers.

Both read the same PNG files with forked workers; plain decoding is ``numpy.asarray(PIL.Image.open(path))`` of each. CPU
seconds are those of this process and its workers together.

    python benchmarks/datasets.py --images 1000 --workers 2
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from ccx.datasets import Broden
from ccx.pipeline.processes import in_processes

GRID, SIDE, N_LABELS = 112, 224, 1_197
CATEGORIES = ("color", "object", "part", "material", "scene", "texture")


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

    assert sum(in_processes(some, range(0, len(paths), 256), workers)) == len(paths) * GRID * GRID * 3


def write(root: Path, n_images: int) -> list[Path]:
    """Write a folder in Broden's layout -> its label maps."""
    rng = np.random.default_rng(0)
    (root / "images").mkdir()
    photo = Image.fromarray(rng.integers(0, 255, (SIDE // 8, SIDE // 8, 3)).astype(np.uint8)).resize((SIDE, SIDE))
    lines, paths = ["image,split,ih,iw,sh,sw," + ",".join(CATEGORIES)], []
    for i in range(n_images):
        photo.save(root / "images" / f"ade20k_{i}.jpg")
        fields = gaussian_filter(rng.standard_normal((3, GRID, GRID)), (0, 5, 5))
        fields /= fields.std()
        fine = gaussian_filter(rng.standard_normal((GRID, GRID)), 0.7)
        shades = rng.normal(0, 0.7) + fields[0] + 0.3 * fine
        cells = {"color": 1 + np.digitize(shades, np.linspace(-2, 2, 10))}
        cells["object"] = 20 + voronoi(rng, 9, fields[1])
        parts = voronoi(rng, 12, fields[2])
        cells["part"] = np.where(parts % 2 == 0, 600 + parts, 0)
        row = [f"ade20k_{i}.jpg", "train", SIDE, SIDE, GRID, GRID]
        for category in CATEGORIES:
            if category in cells:
                pixels = np.zeros((GRID, GRID, 3), np.uint8)
                pixels[..., 0], pixels[..., 1] = cells[category] % 256, cells[category] // 256
                name = f"ade20k_{i}_{category}.png"
                Image.fromarray(pixels).save(root / "images" / name)
                paths.append(root / "images" / name)
                row.append(name)
            else:
                row.append(1_000 + int(rng.integers(100)) if category == "scene" else "")
        lines.append(",".join(map(str, row)))
    (root / "index.csv").write_text("\n".join(lines) + "\n")
    numbers = range(1, N_LABELS + 1)
    rows = "".join(f"{n},label {n},object(1),1,1,\n" for n in numbers)
    (root / "label.csv").write_text("number,name,category,frequency,coverage,syns\n" + rows)
    for category in CATEGORIES:
        rows = "".join(f"{n},{n},label {n},1,1\n" for n in numbers if category == "object")
        (root / f"c_{category}.csv").write_text("code,number,name,frequency,coverage\n" + rows)
    return paths


def voronoi(rng: np.random.Generator, n_regions: int, wave: np.ndarray) -> np.ndarray:
    """Return regions with wavy borders, numbered at random in 0..399."""
    at = np.stack(np.mgrid[:GRID, :GRID], axis=-1) + 5 * wave[..., None]
    seeds = rng.integers(0, GRID, (n_regions, 2))
    nearest = ((at[:, :, None] - seeds) ** 2).sum(axis=-1).argmin(axis=-1)
    return rng.integers(0, 400, n_regions)[nearest]


if __name__ == "__main__":
    main()
