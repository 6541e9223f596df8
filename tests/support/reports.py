"""A small result with its data, and a reader of the pages that are written of it."""

from __future__ import annotations

from html.parser import HTMLParser

import numpy as np

import ccx

VOID = {"meta", "link", "br", "input", "image", "use", "rect", "path", "line", "img"}


def tiny(names=("sky", "tree", "road", "car"), categories=("object", "object", "part", "part")):
    """Return concepts, activations and explanations of 4 samples of 6×8 cells; no chance is involved."""
    rows, columns = np.mgrid[:6, :8]
    masks = np.stack(
        [
            np.stack([rows < 3 + n % 2 for n in range(4)]),
            np.stack([columns > 3 + n for n in range(4)]),
            np.stack([(rows + columns + n) % 3 == 0 for n in range(4)]),
            np.stack([(rows > 3) & (columns < 2 + n) for n in range(4)]),
        ]
    )
    concepts = ccx.Concepts.from_masks(masks, names, categories=categories)
    fires = (masks[0] & ~masks[1]).astype(np.float32)
    speckled = (rows * 8 + columns)[None] * np.array([1, 3, 5, 7], np.float32)[:, None, None] % 11
    silent = np.zeros_like(fires)
    return concepts, np.stack([fires + speckled / 100, speckled + 1, silent], axis=1).astype(np.float32)


def explained(concepts, activations, **options):
    return ccx.explain(activations, concepts, **{"clusters": 3, "length": 2, "progress": False} | options)


class Checker(HTMLParser):
    """Collects tags and texts, and checks that elements close in order."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.texts, self.ids, self.targets = [], [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        values = dict(attrs)
        assert not any(name.startswith("on") for name in values), values
        self.ids += [values["id"]] if "id" in values else []
        self.targets += [values["href"]] if "href" in values else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        assert tag in VOID

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def checked(page):
    checker = Checker()
    checker.feed(page)
    checker.close()
    assert checker.open == []
    assert len(set(checker.ids)) == len(checker.ids)
    for target in checker.targets:
        assert target.startswith("data:image/jpeg;base64,") or target[1:] in checker.ids, target
    return checker
