"""What the layer of `layer.py` should cost an H100, on paper: the table of docs/gpu.md.

    python benchmarks/gpu_roofline.py

Nothing here was measured on a GPU. Sizes are those of `synthetic.generate(22_000, 512)`, means of some units;
instructions were counted in the machine code for sm_90, along the path that most cells or atoms take. All lanes of a
warp pay for the longest path.
"""

from __future__ import annotations

from dataclasses import dataclass

# H100 SXM
BANDWIDTH = 3.35e12  # bytes a second of HBM3
PROCESSORS, CLOCK = 132, 1.98e9
FLOPS = PROCESSORS * 128 * CLOCK  # 33.5e12 additions or multiplications; a fused pair is never used
SHARED_ATOMICS = PROCESSORS * 32 * CLOCK  # where no two lanes meet
# What well-behaved kernels reach: 80 % of the bandwidth, 60 % of the instructions of a sustained 1.755 GHz, 12 cycles
# for a warp's addition in shared memory to five atoms.
REACHED_BANDWIDTH = 0.8 * BANDWIDTH
REACHED_INSTRUCTIONS = 0.6 * PROCESSORS * 128 * 1.755e9
REACHED_ATOMICS = PROCESSORS * 32 / 12 * 1.755e9

# The layer
SAMPLES, CELLS, MAP = 22_000, 112 * 112, 7 * 7
UNITS, RANGES, UNITS_A_PASS = 512, 5, 8
ATOMS, ATOM_CONCEPTS, CONCEPTS = 680_491, 2_488_711, 1_200
SAMPLE_ATOMS = 1_886_140  # (sample, atom) pairs
SLOTS_IN_USE = 1.92  # of the 5 counts that a unit has for such a pair
ATOMS_IN_RANGE = 0.41  # of all, mean of a range
MOST_CONCEPTS = 7  # of an atom in a warp
# Atoms that a search visits, as a share of all: for its starts and the partners of pairs; for pairs, in two rows
SINGLES, PAIRS = 0.69, 0.21
ADDITIONS = 840_000  # of a search, to counts of formulas; those of single concepts come on top
# Instructions for an atom visited, a row of it, a formula of two concepts, and each concept of an atom that counts
VISITING, WEIGHING, JUDGING, ADDING = 60, 35, 160, 25

SEARCHES = UNITS * RANGES
HISTOGRAM = 8 * ATOMS  # of a range


@dataclass
class Kernel:
    """Work of a kernel in the whole layer."""

    name: str
    launches: float
    n_bytes: float
    flops: float = 0
    shared_atomics: float = 0
    instructions: float = 0

    @property
    def floor(self) -> float:
        """Seconds that no implementation of the same plan can beat."""
        return max(self.n_bytes / BANDWIDTH, self.flops / FLOPS, self.shared_atomics / SHARED_ATOMICS)

    @property
    def expected(self) -> float:
        """Seconds, if memory, instructions and shared memory overlap."""
        return max(
            self.n_bytes / REACHED_BANDWIDTH,
            self.instructions / REACHED_INSTRUCTIONS,
            self.shared_atomics / REACHED_ATOMICS,
        )


def kernels() -> list[Kernel]:
    """Return the kernels of `ccx.explain` for the layer."""
    values = 4 * SAMPLES * UNITS * MAP
    cells = SAMPLES * CELLS
    passes = UNITS / UNITS_A_PASS
    flushed = SLOTS_IN_USE * SAMPLE_ATOMS * UNITS
    row = WEIGHING + ADDING * MOST_CONCEPTS
    searching = SINGLES * (VISITING + row) + PAIRS * (VISITING + JUDGING + 2 * row)
    reading = 20 + 2 * ATOM_CONCEPTS / ATOMS  # bytes: which atom, where its concepts start, and these
    return [
        Kernel("find_not_finite", 1, values, instructions=10 * values / 4),
        Kernel("copies of units, by CuPy", UNITS, 2 * values),
        Kernel("zeros for histograms", passes, SEARCHES * HISTOGRAM),
        Kernel(
            "range_histogram_u16",
            passes,
            values + passes * 2 * cells + 2 * 32 * flushed,  # a 32-byte sector read and written for a count added
            flops=9 * cells * UNITS,
            shared_atomics=cells * UNITS,
            instructions=(120 + 60 / UNITS_A_PASS) * cells * UNITS + 25 * flushed,
        ),
        Kernel("formula_counts (sums)", SEARCHES, SEARCHES * HISTOGRAM, instructions=30 * ATOMS * SEARCHES),
        Kernel(
            "conjunction_counts (concepts)",
            SEARCHES,
            SEARCHES * HISTOGRAM,
            shared_atomics=2 * ATOMS_IN_RANGE * ATOM_CONCEPTS * SEARCHES,
            instructions=(35 + ADDING * MOST_CONCEPTS) * ATOMS * SEARCHES,
        ),
        Kernel(
            "conjunction_counts (formulas)",
            2.9 * SEARCHES,
            ((SINGLES + PAIRS) * (reading + 8) + PAIRS * 8) * ATOMS * SEARCHES,
            shared_atomics=2 * ADDITIONS * SEARCHES,
            instructions=searching * ATOMS * SEARCHES,
        ),
        Kernel("copies of sizes and counts, by CuPy", 2 * SEARCHES, 4 * SEARCHES * HISTOGRAM),
    ]


def table() -> str:
    """Return the Markdown table."""
    lines = [
        "| kernel | launches | bytes | floating-point | in shared memory | instructions | floor | expected |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in kernels():
        counts = [
            f"{count / 1e9:,.1f} G" if count else "" for count in (one.flops, one.shared_atomics, one.instructions)
        ]
        times = [f"{seconds * 1e3:,.1f} ms" for seconds in (one.floor, one.expected)]
        cells = [one.name, f"{one.launches:,.0f}", f"{one.n_bytes / 1e9:,.1f} GB", *counts, *times]
        lines.append("| " + " | ".join(cells) + " |")
    floor, expected = (sum(times) for times in zip(*((one.floor, one.expected) for one in kernels()), strict=True))
    lines.append(f"| **together** | | | | | | **{floor:.2f} s** | **{expected:.2f} s** |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
