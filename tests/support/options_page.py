"""The page ``docs/options.md``, made from the declarations: ``python -m tests.support.options_page`` writes it."""

from pathlib import Path

from ccx.options import KINDS
from ccx.scores import Score

PAGE = Path(__file__).parents[2] / "docs" / "options.md"
HEAD = """\
# Options

What `ccx.explain` may be asked for beside its data. Each option is declared once, in `ccx/options.py`, with its
default, help and check; `ccx.explain_bitmaps`, `ccx.studies.Experiment`, the command line and the settings of a run
folder take it from there. `ccx.explain_bitmaps` has no options of ranges. `python -m tests.support.options_page` makes
this page, and a test compares the two.
"""


def page():
    """Return the page as it is to be."""
    lines = [HEAD]
    for kind in KINDS:
        lines += [f"## {kind.panel}", "", "| option | default | on the command line | what |", "|---|---|---|---|"]
        for one in kind.declared():
            default = one.default.name if isinstance(one.default, Score) else one.default
            flag = f"--{one.metadata['flag'] or one.name.replace('_', '-')}"
            lines.append(f"| `{one.name}` | {default} | `{flag}` | {one.metadata['help']} |")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(page())
