"""Files of results as older versions wrote them: before checksums, so that tests reach what is checked behind these."""

from __future__ import annotations

import re
from pathlib import Path

from ccx.store.files import sealed


def unseal(path: Path) -> None:
    """Rewrite a file of results, or a run folder, in the format that had no checksums."""
    for file in (path / "run.json", path / "rows.jsonl") if path.is_dir() else (path,):
        text = re.sub(r',"checksum":"[0-9a-f]{16}"\}$', "}", file.read_text(), flags=re.MULTILINE)
        file.write_text(re.sub(r'^\{"format":"(ccx\.\w+)/[23]"', r'{"format":"\1/1"', text))


def before_range_index(path: Path) -> None:
    """Rewrite stored results in format 2, which counted ranges from 0, had no gain, and called permutations null."""
    files = (path / "run.json", path / "rows.jsonl") if path.is_dir() else (path,)
    unseal(path)
    for file in files:
        text = re.sub(r'"iou_gain":[^,]+,', "", file.read_text())
        text = re.sub(r'"range_index":(\d+)', lambda found: f'"cluster":{int(found[1]) - 1}', text)
        file.write_text(text.replace('"permutations":', '"null":'))
    text = files[0].read_text().rstrip("\n").replace('/1"', '/2"', 1)
    lines, seal = [sealed(text)], sealed(text)[1]
    files[0].write_text(lines[0][0] + "\n")
    if path.is_dir():
        rows = []
        for line in files[1].read_text().splitlines():
            row, seal = sealed(line, seal)
            rows.append(row + "\n")
        files[1].write_text("".join(rows))
