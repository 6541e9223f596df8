"""The code in README and tutorial runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


def blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), flags=re.M | re.S)


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "docs/tutorial.md",
        "docs/demo.md",
        "docs/metrics.md",
        "docs/heuristics.md",
        "docs/chance.md",
        "docs/scores.md",
    ],
)
def test_the_code_of_a_page_runs_in_order(page, tmp_path, monkeypatch):
    path = ROOT / page
    if not path.exists():
        pytest.skip(f"{page} lies in the checkout, and these tests run without it")
    monkeypatch.chdir(tmp_path)
    run([block for block in blocks(path) if "import torch" not in block], page)


@pytest.mark.needs("torch")
@pytest.mark.needs("torchvision")
@pytest.mark.parametrize("page", ["README.md", "docs/probing.md"])
def test_the_torch_code_of_a_page_runs(page, tmp_path, monkeypatch):
    path = ROOT / page
    if not path.exists():
        pytest.skip(f"{page} lies in the checkout, and these tests run without it")
    monkeypatch.chdir(tmp_path)
    annotated_folder(tmp_path)
    run(blocks(path), page)


@pytest.mark.needs("torch")
@pytest.mark.needs("torchvision")
@pytest.mark.needs("matplotlib")
def test_the_tutorial_of_a_network_ends_with_its_report(tmp_path, monkeypatch):
    path = ROOT / "docs" / "network-tutorial.md"
    if not path.exists():
        pytest.skip("it lies in the checkout, and these tests run without it")
    monkeypatch.chdir(tmp_path)
    run(blocks(path), path.name)
    assert (tmp_path / "unit.png").stat().st_size > 100_000
    assert (tmp_path / "report.html").read_text(encoding="utf-8").count("<figure tabindex") == 24 * 5 * 4


def annotated_folder(folder):
    """Make what the pages take for granted: images/, labels/ and names.txt."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for name in ("images", "labels"):
        (folder / name).mkdir()
    for number in range(3):
        labels = rng.integers(0, 4, (4, 4), dtype=np.uint8).repeat(28, 0).repeat(28, 1)
        Image.fromarray(labels).save(folder / "labels" / f"{number}.png")
        pixels = rng.integers(0, 256, (112, 112, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{number}.jpg")
    (folder / "names.txt").write_text("sky\ntree\nroad\n")


def run(code: list[str], page: str) -> None:
    assert code, f"no Python block in {page}"
    namespace: dict[str, object] = {}
    for block in code:
        exec(compile(block, page, "exec"), namespace)
