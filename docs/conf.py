"""Sphinx configuration: `nox -s docs` builds the pages into ``docs/_build``."""

import ccx
import ccx.store.records

project = "ccx"
author = "The ccx authors"
release = version = ccx.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"ccx {release}"
html_show_sourcelink = False
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]
suppress_warnings = [
    "myst.header",  # pages begin where their subject begins
    "autodoc.mocked_object",
]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_mock_imports = ["cupy", "torch", "torchvision"]
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
default_role = "code"
copybutton_exclude = ".linenos, .gp, .go"


def _plain_bars(_app, _what, _name, _object, _options, lines):
    """Let |F| mean the size of F, as docstrings write it, and no substitution of reStructuredText."""
    for place, line in enumerate(lines):
        parts = line.split("``")
        lines[place] = "``".join(part if odd % 2 else part.replace("|", r"\|") for odd, part in enumerate(parts))


def _fields_once(_app, what, _name, kind, _options, lines):
    """Leave out of a record's text what its fields mean: autodoc lists each of them, with the text below it."""
    if what == "class" and issubclass(kind, ccx.store.records.Record) and "Attributes" in lines:
        del lines[lines.index("Attributes") :]


def setup(app):
    app.connect("autodoc-process-docstring", _fields_once, priority=400)
    app.connect("autodoc-process-docstring", _plain_bars, priority=400)  # before napoleon's own
