"""A small data set in the layout of Broden, written file by file as its description says, for tests of whole studies.

Every image shows a sky over a ground and a square of one of two colours; the network is untrained, so that nothing
depends on a download.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

LABELS = [
    # number, name, categories
    (1, "sky", "object"),
    (2, "ground", "object"),
    (3, "square", "object"),
    (4, "red", "color"),
    (5, "blue", "color"),
    (6, "corner", "part"),
    (7, "street", "scene"),
    (8, "field", "scene"),
]
COLORS = {4: (200, 30, 30), 5: (30, 30, 200)}


def write_broden(folder: Path, n_images: int, *, side: int = 224, subset: str = "ade20k", seed: int = 0) -> Path:
    """Write ``broden1_{side}`` into a folder: images of side×side, labels of half the side."""
    rng = np.random.default_rng(seed)
    root = folder / f"broden1_{side}"
    cells = side // 2
    (root / "images" / subset).mkdir(parents=True)
    rows = ["image,split,ih,iw,sh,sw,color,object,part,scene"]
    for n in range(n_images):
        horizon, left, top = (int(rng.integers(cells // 4, cells // 2)) for _ in range(3))
        size = int(rng.integers(cells // 6, cells // 3))
        color, scene = int(rng.integers(4, 6)), int(rng.integers(7, 9))
        objects = np.where(np.arange(cells)[:, None] < horizon, 1, 2) * np.ones((1, cells), int)
        objects[top : top + size, left : left + size] = 3
        colors = np.where(objects == 3, color, 0)
        parts = np.zeros((cells, cells), int)
        parts[top : top + 4, left : left + 4] = 6
        pixels = np.zeros((cells, cells, 3))
        pixels[objects == 1] = (140, 180, 230)
        pixels[objects == 2] = (90, 130, 60) if scene == 8 else (120, 120, 120)
        pixels[objects == 3] = COLORS[color]
        pixels = np.clip(pixels.repeat(2, 0).repeat(2, 1) + rng.normal(0, 8, (side, side, 1)), 0, 255)
        path = f"{subset}/{n:04d}"
        Image.fromarray(pixels.astype(np.uint8)).save(root / "images" / f"{path}.jpg", quality=90)
        for kind, labels in (("color", colors), ("object", objects), ("part", parts)):
            coded = np.stack([labels % 256, labels // 256, np.zeros_like(labels)], axis=-1)
            Image.fromarray(coded.astype(np.uint8)).save(root / "images" / f"{path}_{kind}.png")
        row = (
            f"{path}.jpg,train,{side},{side},{cells},{cells},{path}_color.png,{path}_object.png,{path}_part.png,{scene}"
        )
        rows.append(row)
    (root / "index.csv").write_text("\n".join(rows) + "\n")
    labels = ["number,name,category,frequency,coverage,syns"]
    labels += [f"{number},{name},{kind}({n_images}),{n_images},1.0,{name}" for number, name, kind in LABELS]
    (root / "label.csv").write_text("\n".join(labels) + "\n")
    kinds = ("color", "object", "part", "scene")
    (root / "category.csv").write_text(
        "name,first,last,count,frequency\n" + "".join(f"{k},1,8,2,{n_images}\n" for k in kinds)
    )
    for kind in kinds:
        own = [(number, name) for number, name, of in LABELS if of == kind]
        lines = [f"{code},{number},{name},{n_images},1.0" for code, (number, name) in enumerate(own)]
        (root / f"c_{kind}.csv").write_text("code,number,name,frequency,coverage\n" + "\n".join(lines) + "\n")
    return root
