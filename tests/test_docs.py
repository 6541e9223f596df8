"""The code in README and tutorial runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), flags=re.M | re.S)


@pytest.mark.parametrize(
    "page", ["README.md", "docs/tutorial.md", "docs/demo.md", "docs/metrics.md", "docs/heuristics.md", "docs/chance.md"]
)
def test_the_code_of_a_page_runs_in_order(page, tmp_path, monkeypatch):
    path = ROOT / page
    if not path.exists():
        pytest.skip(f"{page} lies in the checkout, and these tests run without it")
    monkeypatch.chdir(tmp_path)
    run([block for block in blocks(path) if "import torch" not in block], page)


@pytest.mark.needs("torch")
def test_the_torch_code_of_the_readme_runs():
    path = ROOT / "README.md"
    if not path.exists():
        pytest.skip("the README lies in the checkout, and these tests run without it")
    run(blocks(path), "README.md")


def run(code: list[str], page: str) -> None:
    assert code, f"no Python block in {page}"
    namespace: dict[str, object] = {}
    for block in code:
        exec(compile(block, page, "exec"), namespace)
