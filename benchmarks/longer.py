"""Prove optima of four concepts and more at Broden/ADE20K scale, and say how long it took or how far it came.

    python benchmarks/longer.py [--samples 22000] [--units 32] [--lengths 4 5] [--step 8] [--seconds 60]

CPU seconds of one thread, beam search and the shorter lengths included (docs/optimal.md).
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that this file runs as a script

from benchmarks._machine import Clock, machine
from benchmarks.synthetic import generate
from ccx.clustering import unit_ranges
from ccx.kernels import range_histogram
from ccx.search import SearchOptions, beam_search, optimal_search

CLUSTERS = 5


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--samples", type=int, default=22_000)
    parser.add_argument("--units", type=int, default=32)
    parser.add_argument("--lengths", type=int, nargs="+", default=[4, 5])
    parser.add_argument("--step", type=int, default=8, help="take every so many ranges (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=60, help="time limit of a range (default: %(default)s)")
    options = parser.parse_args()
    print(machine())
    data = generate(options.samples, options.units)
    concepts = data.concepts()
    counts = []
    for unit in range(options.units):
        values = np.ascontiguousarray(data.activations[:, unit])
        ranges = unit_ranges(values, clusters=CLUSTERS)
        counts += list(range_histogram(values[:, None], ranges[None], concepts.atoms)[0])
    beam_search(concepts, counts[0], SearchOptions(length=4), threads=1)
    optimal_search(concepts, counts[0], SearchOptions(length=4, time_limit=options.seconds), threads=1)  # compiles
    for length in options.lengths:
        seconds, gaps, better, proven = [], [], 0, 0
        for count in counts[:: options.step]:
            beam = beam_search(concepts, count, SearchOptions(length=length), threads=1)
            with Clock() as clock:
                found = optimal_search(
                    concepts, count, SearchOptions(length=length, time_limit=options.seconds), threads=1
                )
            best = found.found[0].iou
            better += best > beam.found[0].iou
            proven += found.optimal
            seconds.append(clock.cpu)
            upper = math.inf if found.upper_bound is None else found.upper_bound
            if not found.optimal:
                gaps.append(upper / best - 1)
            print(
                f"length {length}: IoU {best:.5f}, upper bound {upper:.5f}, {found.evaluations:.2e} evaluations, "
                f"{clock.cpu:.2f} CPU s of {clock.wall:.2f} s, {clock.others:.1f} processors busy beside",
                flush=True,
            )
        print(
            f"length {length}: {proven} of {len(seconds)} ranges proven, median {np.median(seconds):.2f} CPU s, "
            f"at most {max(seconds):.2f}; gaps of the others {[f'{gap:.2%}' for gap in gaps]}; "
            f"the beam fell short in {better}"
        )


if __name__ == "__main__":
    main()
