"""The systems that `versus.py` races, each in a process of its own, which this file is when run as a script.

    python benchmarks/_peers.py FOLDER SYSTEM FIRST TIME_LIMIT

FOLDER holds a `Problem`. The process prepares the system, explains the bitmaps from number FIRST on, and writes what
each step took and gave as a line of ``records.jsonl`` there. A bitmap that takes more than TIME_LIMIT CPU seconds ends
the process by SIGPROF; the race starts another one for the bitmaps behind it.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

if not __package__:  # run as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import ccx
from benchmarks._machine import PeakMemory
from benchmarks._problem import Masks, Problem
from ccx.formula import And, Concept, Formula, Not, Operator, Or, canonical_ids, left_deep, tie_key

LENGTH, BEAM = 3, 5

Ids = tuple[int, ...]


class Answer(NamedTuple):
    """The formula that a system found, and the IoU that it says this has (the peer says none)."""

    formula: Formula | None
    iou: float | None = None


class System(Protocol):
    """What takes part in the race."""

    def prepare(self, problem: Problem) -> None:
        """Do what serves all bitmaps; keep what `explain` needs."""

    def explain(self, bitmap: Masks) -> Answer:
        """Find the formula for bool[N, H, W]."""


class Ccx:
    """ccx, with one of its searches."""

    def __init__(self, search: str) -> None:
        self._search: Any = search

    def prepare(self, problem: Problem) -> None:
        """Build the atoms and what all searches share; the masks are not needed afterwards."""
        self._concepts = ccx.Concepts.from_masks(problem.masks, problem.names, threads=1)
        self._concepts.prepare(threads=1)
        _ = self._concepts.content_hash  # results carry it

    def explain(self, bitmap: Masks) -> Answer:
        """Call `ccx.explain_bitmaps` with one bitmap."""
        options: dict[str, Any] = {"length": LENGTH, "beam": BEAM, "threads": 1, "progress": False}
        (found,) = ccx.explain_bitmaps(bitmap[None], self._concepts, search=self._search, **options)
        return Answer(found.formula, found.iou)


class Peer:
    """PyPI's ``compositional-explanations`` (La Rosa), with its "beam" or its "optimal" search."""

    def __init__(self, search: str) -> None:
        self._search = search
        self._cache = tempfile.TemporaryDirectory()  # gone with this object, or with the folder of the race

    def prepare(self, problem: Problem) -> None:
        """Wrap the masks for torch; let it count once how many concepts each cell has, which it then caches."""
        import torch  # noqa: TID251
        from package_utils import mask_utils

        torch.set_num_threads(1)
        n_concepts, n_samples = problem.masks.shape[:2]
        self._masks = [torch.from_numpy(mask) for mask in problem.masks.reshape(n_concepts, n_samples, -1)]
        self._disjoint = torch.from_numpy(problem.disjoint)
        self._names = problem.names
        mask_utils.get_dataset_info(self._masks, self._cache.name)

    def explain(self, bitmap: Masks) -> Answer:
        """Call its search as its page does."""
        import torch  # noqa: TID251
        from compositional_explanations import beam, optimal

        options = {
            "bitmaps": torch.from_numpy(bitmap.reshape(len(bitmap), -1)),
            "masks": self._masks,
            "disjoint_info": self._disjoint,
            "length": LENGTH,
            "device": torch.device("cpu"),
            "cache_dir": self._cache.name,
        }
        if self._search == "beam":
            found = beam.compute_beam_explanations(**options, beam_size=BEAM)
        else:
            found = optimal.compute_optimal_explanations(**options)
        return Answer(None if found is None else self._translated(found))

    def _translated(self, tree: Any) -> Formula:
        match type(tree).__name__:
            case "Leaf":
                return Concept(self._names[tree.val])
            case "Not":
                return Not(self._translated(tree.val))
            case kind:
                connective = {"And": And, "Or": Or}[kind]
                return connective(self._translated(tree.left), self._translated(tree.right))


class _Candidate(NamedTuple):
    """A left-deep formula of concept indices, |F|, |F and B|, and what sorts candidates in tie order, best first."""

    ids: Ids
    operators: Ids
    size: int
    hits: int
    key: tuple[Any, ...]


class NumpyBeam:
    """The same exact beam search on packed masks, with NumPy and without atoms.

    For each formula F of the beam it counts |F and c| and |F and c and B| of all concepts c, in a pass over their words
    each; the three operators follow by inclusion and exclusion, as in ccx. Scores are floats, which tell different
    fractions apart as long as there are less than 2**26 cells.
    """

    def prepare(self, problem: Problem) -> None:
        """Pack the masks, 64 cells a word."""
        self._names = problem.names
        self._rows = _words(problem.masks)
        self._sizes = np.array([np.bitwise_count(row).sum(dtype=np.int64) for row in self._rows])

    def explain(self, bitmap: Masks) -> Answer:
        """Search level by level, as ccx does."""
        (inside,) = _words(bitmap[None])
        n_inside = int(bitmap.sum())
        singles = self._counts(inside)

        def candidates(parent: Ids, operators: Ids, sizes: Any, hits: Any, least: float) -> list[_Candidate]:
            scores = hits / np.maximum(n_inside + sizes - hits, 1)
            chosen = set(np.flatnonzero((hits > 0) & (scores >= least)).tolist()) - set(parent)
            return [
                _Candidate(ids, operators, int(sizes[c]), int(hits[c]), (-scores[c], *tie_key(ids, operators)))
                for c in chosen
                for ids in [(*parent, c)]
            ]

        found = sorted(candidates((), (), self._sizes, singles, 0), key=lambda one: one.key)
        parents, beam = found[: 2 * BEAM], found[:BEAM]
        for length in range(2, LENGTH + 1):
            least = -beam[-1].key[0] if len(beam) == BEAM else 0.0
            distinct = {one.key[1:]: one for one in beam}  # logically equal formulas have equal keys
            for ids, operators, size, hits, _ in parents:
                row = self._row(ids, operators)
                both, joint = self._counts(row), self._counts(row & inside)
                for operator, sizes, inner in (
                    (Operator.OR, size + self._sizes - both, hits + singles - joint),
                    (Operator.AND, both, joint),
                    (Operator.AND_NOT, size - both, hits - joint),
                ):
                    for one in candidates(ids, (*operators, operator), sizes, inner, least):
                        distinct.setdefault(one.key[1:], one)
            beam = sorted(distinct.values(), key=lambda one: one.key)[:BEAM]
            parents = [one for one in beam if len(one.ids) == length]
        if not beam:
            return Answer(None, 0.0)
        ids, operators = canonical_ids(beam[0].ids, beam[0].operators)
        return Answer(left_deep([self._names[c] for c in ids], operators), -beam[0].key[0])

    def _counts(self, words: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Cells that `words` shares with each concept; a row at a time stays in the cache."""
        return np.array([np.bitwise_count(row & words).sum(dtype=np.int64) for row in self._rows])

    def _row(self, ids: Ids, operators: Ids) -> NDArray[np.uint64]:
        row: NDArray[np.uint64] = self._rows[ids[0]]
        for concept, operator in zip(ids[1:], operators, strict=True):
            other = self._rows[concept]
            row = (row | other, row & other, row & ~other)[operator]
        return row


def _words(masks: Masks) -> NDArray[np.uint64]:
    """Pack bool[M, ...] -> uint64[M, n_words], the last word filled up with zeros."""
    packed = np.packbits(masks.reshape(len(masks), -1), axis=1)
    return np.pad(packed, ((0, 0), (0, -packed.shape[1] % 8))).view(np.uint64)


SEARCHES = ("beam", "optimal", "mmesh", "cfh", "areas", "none")
SYSTEMS: dict[str, Callable[[], System]] = {
    **{f"ccx {search}": partial(Ccx, search) for search in SEARCHES},
    "NumPy beam": NumpyBeam,
    "peer beam": partial(Peer, "beam"),
    "peer optimal": partial(Peer, "optimal"),
}


class _Step:
    """Measures the block under ``with``: CPU seconds of this process, and its memory."""

    def __init__(self, start: PeakMemory) -> None:
        self._start, self._before = start, PeakMemory()

    def __enter__(self) -> _Step:
        self._before.reset()
        self._began = resource.getrusage(resource.RUSAGE_SELF)
        return self

    def __exit__(self, *_: object) -> None:
        now = resource.getrusage(resource.RUSAGE_SELF)
        self.record = {
            "user": now.ru_utime - self._began.ru_utime,
            "system": now.ru_stime - self._began.ru_stime,
            "peak": self._before.beyond(),  # beyond what was resident when the step began
            "peak_in_all": self._start.beyond(),  # beyond the process without a problem
        }


def warm_up(system: System) -> None:
    """Import and compile what is timed later, on a problem of a few cells."""
    rng = np.random.default_rng(0)
    masks = rng.random((6, 4, 8, 8)) < 0.3
    masks[1] = masks[0] & masks[2]
    disjoint = ~(masks[:, None] & masks).any(axis=(2, 3, 4)) | np.eye(6, dtype=np.bool_)
    bitmaps = masks[:1] ^ (rng.random((1, 4, 8, 8)) < 0.1)
    system.prepare(Problem(masks, list("abcdef"), disjoint, bitmaps))
    system.explain(bitmaps[0])


def main(folder: Path, name: str, first: int, time_limit: float) -> None:
    """Run one system on the problem in `folder`."""
    warm_up(SYSTEMS[name]())
    start = PeakMemory()
    start.reset()
    problem = Problem.load(folder)
    bitmaps = problem.bitmaps
    system = SYSTEMS[name]()
    with (folder / "records.jsonl").open("a", encoding="utf-8") as log:

        def write(**record: Any) -> None:
            log.write(json.dumps(record) + "\n")
            log.flush()

        with _Step(start) as step:
            system.prepare(problem)
        del problem  # whoever needs the masks keeps them
        write(step="prepare", **step.record)
        for index in range(first, len(bitmaps)):
            answer, failure = Answer(None), None
            signal.setitimer(signal.ITIMER_PROF, time_limit)  # it counts CPU seconds
            with _Step(start) as step:
                try:
                    answer = system.explain(bitmaps[index])
                except Exception as raised:
                    failure = f"crash: {type(raised).__name__}: {raised}"
            signal.setitimer(signal.ITIMER_PROF, 0)
            formula = None if answer.formula is None else str(answer.formula)
            write(step="explain", formula=formula, claimed=answer.iou, failure=failure, **step.record)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
