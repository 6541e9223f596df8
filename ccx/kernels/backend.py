"""What a backend offers, and which one serves some arrays: those of NumPy are the CPU's, those of CuPy a GPU's.

A backend is a package with a module for each family of kernels, and each module satisfies the protocol of its family.
The functions are documented here once. They get what the public function of the same name in `ccx.kernels` was given,
checked; arrays lie where the backend computes, and results stay there, unless the host is named. `threads` is how many
processors of the host may help, None = all; on a GPU it changes nothing.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import numpy as np

from ccx.errors import BackendError
from ccx.kernels.conversion import on_gpu
from ccx.typing import Array, Float32Array, Int32Array, IntArray, UInt8Array

if TYPE_CHECKING:
    from ccx.kernels.activations import Grid
    from ccx.kernels.atoms import Atoms, ConceptRows
    from ccx.kernels.estimates import ConceptShapes, Estimate, FormulaShapes

Kernels = TypeVar("Kernels")


class RowKernels(Protocol):
    """Packed rows, uint64[..., n_words]."""

    def pack(self, bits: Array, threads: int | None) -> Array:
        """Pack bool[..., n_bits] -> uint64[..., n_words]."""

    def unpack(self, rows: Array, n_bits: int, threads: int | None) -> Array:
        """Undo `pack` -> bool[..., n_bits]."""

    def logical_and(self, a: Array, b: Array, out: Array | None, threads: int | None) -> Array:
        """Return a & b, in `out` if given; leading axes broadcast, here and below."""

    def logical_or(self, a: Array, b: Array, out: Array | None, threads: int | None) -> Array:
        """Return a | b."""

    def logical_and_not(self, a: Array, b: Array, out: Array | None, threads: int | None) -> Array:
        """Return a & ~b."""

    def popcount(self, rows: Array, threads: int | None) -> Array:
        """Count the ones of each row -> int64[...]."""

    def and_popcount(self, a: Array, b: Array, threads: int | None) -> Array:
        """Count the ones of a & b -> int64[...]."""

    def intersection_counts(self, a: Array, b: Array, threads: int | None) -> Array:
        """Count the ones that each row of `a` shares with each of `b`: [n, n_words], [m, n_words] -> int64[n, m]."""

    def formula_rows(
        self, rows: Array, operands: IntArray, operators: UInt8Array, last_word: np.uint64, threads: int | None
    ) -> Array:
        """Combine rows by a left-deep formula; operands and operators lie on the host.

        `last_word` is the last word of a row of ones.
        """


class ShapeKernels(Protocol):
    """Boxes and rectangles of packed masks uint64[..., n_words] of a shape (H, W) -> int32[..., 4]."""

    def bounding_boxes(self, rows: Array, shape: tuple[int, int], threads: int | None) -> Array:
        """Return the smallest box around the ones of each mask."""

    def inscribed_rectangles(self, rows: Array, shape: tuple[int, int], threads: int | None) -> Array:
        """Return the first largest rectangle of ones in each mask."""


class ActivationKernels(Protocol):
    """Activations float[M, h, w], or float[N, U, h, w], that spread over a `Grid`, which lies on the host."""

    def upsample(self, maps: Array, grid: Grid, threads: int | None) -> Array:
        """Interpolate -> float32[M, H, W]."""

    def upsample_pack(self, maps: Array, grid: Grid, start: np.float32, stop: np.float32, threads: int | None) -> Array:
        """Pack the cells of start <= value < stop -> uint64[M, n_words]."""

    def range_histogram(
        self,
        maps: Array,
        lower: Float32Array,
        upper: Float32Array,
        grid: Grid,
        atoms: Atoms,
        out: Array | None,
        threads: int | None,
    ) -> Array:
        """Count cells by range lower <= value < upper, float32[U, K] of the host, and atom -> int64[U, K, G].

        With `out`, counts are added to those in it, here and in `bitmap_histogram`.
        """

    def bitmap_histogram(self, rows: Array, atoms: Atoms, out: Array | None, threads: int | None) -> Array:
        """Count the ones of packed rows uint64[M, N, n_words] by atom -> int64[M, G]."""

    def all_finite(self, values: Array) -> bool:
        """Return whether no value is NaN or infinite, as a float32."""

    def copy_of_units(self, activations: Array, units: Sequence[int]) -> Array:
        """Return some units of float[N, U, h, w] as contiguous float32[N, len(units), h, w]."""


class AtomKernels(Protocol):
    """Sums over atoms of their weights int64[M, G], or int64[G]; exact modulo 2^64."""

    def concept_counts(self, atoms: Atoms, weights: Array) -> Array:
        """Sum over the atoms that hold each concept: int64[M, G] -> int64[M, C]."""

    def total_counts(self, atoms: Atoms, weights: Array) -> Array:
        """Sum over all atoms: int64[M, G] -> int64[M]."""

    def with_sizes(self, atoms: Atoms, weights: Array) -> Array:
        """Return the atoms' cells and weights int64[G] as int64[2, G]."""

    def pair_counts(self, atoms: Atoms, weights: Array, threads: int | None) -> Array:
        """Sum over the atoms that hold both of two concepts: int64[G] -> int64[C, C]."""


class FormulaKernels(Protocol):
    """Sums over the atoms that satisfy left-deep formulas, int32[F, length] and uint8[F, length - 1] of the host."""

    def formula_counts(
        self, atoms: Atoms, weights: Array, concepts: Int32Array, operators: UInt8Array, threads: int | None
    ) -> Array:
        """Sum over the atoms of each formula: weights int64[M, G] -> int64[M, F]."""

    def conjunction_counts(
        self, atoms: Atoms, weights: Array, concepts: Int32Array, operators: UInt8Array, threads: int | None
    ) -> Array:
        """Sum over the atoms of each formula AND each concept: weights int64[M, G] -> int64[M, F, C]."""


class EstimateKernels(Protocol):
    """The published estimates, and what they need of masks."""

    def concept_shapes(
        self, occurring: ConceptRows, shape: tuple[int, int], n_concepts: int, threads: int | None
    ) -> tuple[Array, Array, Array]:
        """Return boxes and rectangles int32[R, 4] of the concepts where they occur, and `full_only` bool[C]."""

    def concept_hits(self, occurring: ConceptRows, bitmap: Array, threads: int | None) -> Array:
        """Count the cells that each occurrence shares with a bitmap uint64[N, n_words] -> int32[R]."""

    def estimate_extensions(
        self,
        formulas: FormulaShapes,
        concepts: ConceptShapes,
        concept_intersections: Array,
        bitmap_areas: Array,
        n_cells: int,
        kind: Estimate,
        threads: int | None,
    ) -> tuple[Array, Array]:
        """Estimate every extension of some formulas -> numerators and denominators int64[U, F, C, 3]."""


class PermutationKernels(Protocol):
    """Histograms of a bitmap whose samples were exchanged."""

    def permuted_histogram(self, rows: Array, permutations: IntArray, atoms: Atoms, threads: int | None) -> Array:
        """Count by atom the ones of packed rows uint64[N, n_words] in orders int64[r, N] of the host -> int64[r, G]."""


class _Family(Generic[Kernels]):
    """The module of a backend's package that has this attribute's name, imported when it is first asked for."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, backend: Backend, owner: type) -> Kernels:
        module: Any = importlib.import_module(f"{backend.package}.{self._name}")
        backend.__dict__[self._name] = module  # which is looked at before this
        kernels: Kernels = module
        return kernels


class Backend:
    """The families of kernels of one package."""

    rows = _Family[RowKernels]()
    shapes = _Family[ShapeKernels]()
    activations = _Family[ActivationKernels]()
    atoms = _Family[AtomKernels]()
    formulas = _Family[FormulaKernels]()
    estimates = _Family[EstimateKernels]()
    permutations = _Family[PermutationKernels]()

    def __init__(self, package: str) -> None:
        self.package = package


CPU = Backend("ccx.kernels.cpu")
CUDA = Backend("ccx.kernels.cuda")


def backend_for(*arrays: Array) -> Backend:
    """Return the backend that owns all `arrays`; data never moves.

    Raises
    ------
    BackendError
        If the arrays live in different places.

    """
    if all(map(on_gpu, arrays)):
        return CUDA
    if all(isinstance(array, np.ndarray) and not on_gpu(array) for array in arrays):
        return CPU
    kinds = sorted({f"{type(array).__module__}.{type(array).__name__}" for array in arrays})
    msg = f"arrays must all be NumPy or all be CuPy, got {kinds}; move them to one place first"
    raise BackendError(msg)
