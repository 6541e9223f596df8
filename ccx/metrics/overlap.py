"""Metrics of a bitmap and a mask, all from three numbers per sample.

A is the bitmap (where the unit fires), S the mask of a formula. Sums run over all samples, "samples with A"
are those where A has a cell. Definitions: La Rosa, Gilpin, Capobianco, "Towards a fuller understanding of neurons with
Clustered Compositional Explanations" (NeurIPS 2023), and its published code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ccx.errors import DTypeError, InputError, ShapeError
from ccx.kernels import rows
from ccx.kernels.conversion import as_array, describe
from ccx.typing import IntArray

Metric: TypeAlias = "np.float64 | NDArray[np.float64]"

METRICS = (
    "iou",
    "mean_sample_iou",
    "activations_coverage",
    "detection_accuracy",
    "samples_coverage",
    "explanation_coverage",
    "avg_mask_size",
    "avg_bitmap_size",
    "avg_overlapping_bitmap_size",
    "avg_overlapping",
)
"""The names of the metrics in `Overlap.to_dict`, in its order."""


@dataclass(frozen=True, eq=False)
class Overlap:
    """How many cells of each sample belong to a bitmap, to a mask, and to both.

    All metrics follow from these counts. Make it with `of`, or from counts that you have.

    Attributes
    ----------
    bitmap_cells, mask_cells, shared_cells
        int64[..., N]: |A|, |S| and |A ∧ S| of each sample; the leading axes broadcast.
    n_cells
        Cells of a sample, P; int64[N] where samples differ, as by void cells; None where unknown, which only
        average sizes need.

    """

    bitmap_cells: IntArray
    mask_cells: IntArray
    shared_cells: IntArray
    n_cells: int | IntArray | None = None

    @classmethod
    def of(
        cls, bitmap: Any, mask: Any, *, n_cells: int | IntArray | None = None, threads: int | None = None
    ) -> Overlap:
        """Count the cells of bitmaps and masks, in one pass over packed rows.

        Parameters
        ----------
        bitmap, mask
            bool[N, P] or bool[N, H, W], or both packed, uint64[..., N, n_words] (`ccx.kernels.pack`); NumPy
            arrays or torch tensors in main memory. Leading axes broadcast: one bitmap [N, P] with
            masks [F, N, P]. The one with fewer axes tells what the last axes are: two are [N, P], more are
            [..., N, H, W]. Many flat bitmaps with many flat masks: [M, N, 1, P].
        n_cells
            Cells of a sample, or int[N]; None: P, which packed rows do not tell.
        threads
            Processors to use; None = all available. The result does not depend on it.

        Raises
        ------
        DTypeError, ShapeError, InputError
            If the arrays are of other kinds, do not fit each other, or hold more than `n_cells` cells.

        """
        names = ("bitmap", "mask")
        arrays = as_array(bitmap, "bitmap"), as_array(mask, "mask")
        n_axes = min(array.ndim for array in arrays)
        packed = [_packed(array, name, n_axes, threads) for array, name in zip(arrays, names, strict=True)]
        (a, n_cells_a), (s, n_cells_s) = packed
        if n_cells_a != n_cells_s or a.shape[-2:] != s.shape[-2:] or not _broadcast(a.shape[:-2], s.shape[:-2]):
            wanted = f"the samples and cells of {describe(arrays[0])}"
            remedy = "bring both to the same samples and grid, both packed or neither"
            raise ShapeError("mask", wanted=wanted, got=describe(arrays[1]), remedy=remedy)
        cells = n_cells_a if n_cells is None else _checked_cells(n_cells, packed)
        shared = rows.and_popcount(a, s, threads=threads)
        bitmap_cells, mask_cells = (rows.popcount(one, threads=threads) for one in (a, s))
        if cells is not None and ((bitmap_cells > cells).any() or (mask_cells > cells).any()):
            remedy = "count the cells that may be set; clear the others"
            raise InputError("n_cells", wanted="at least the cells that are set", got=repr(n_cells), remedy=remedy)
        return cls(bitmap_cells, mask_cells, shared, cells)

    @property
    def bitmap_samples(self) -> IntArray:
        """Number of samples with A, int64[...]."""
        return _n_samples(self.bitmap_cells)

    @property
    def mask_samples(self) -> IntArray:
        """Number of samples with S, int64[...]."""
        return _n_samples(self.mask_cells)

    @property
    def shared_samples(self) -> IntArray:
        """Number of samples with A ∧ S, int64[...]."""
        return _n_samples(self.shared_cells)

    @property
    def iou(self) -> Metric:
        """See `ccx.metrics.iou`."""
        shared = self.shared_cells.sum(-1)
        return _ratio(shared, self.bitmap_cells.sum(-1) + self.mask_cells.sum(-1) - shared)

    @property
    def sample_iou(self) -> NDArray[np.float64]:
        """See `ccx.metrics.sample_iou`."""
        return np.asarray(_ratio(self.shared_cells, self.bitmap_cells + self.mask_cells - self.shared_cells))

    @property
    def mean_sample_iou(self) -> Metric:
        """The mean of `sample_iou` over all samples."""
        ious = self.sample_iou
        return _ratio(ious.sum(-1), np.int64(ious.shape[-1]))

    @property
    def activations_coverage(self) -> Metric:
        """See `ccx.metrics.activations_coverage`."""
        return _ratio(self.shared_cells.sum(-1), self.bitmap_cells.sum(-1))

    @property
    def detection_accuracy(self) -> Metric:
        """See `ccx.metrics.detection_accuracy`."""
        return _ratio(self.shared_cells.sum(-1), self.mask_cells.sum(-1))

    @property
    def samples_coverage(self) -> Metric:
        """See `ccx.metrics.samples_coverage`."""
        return _ratio(self.shared_samples, self.mask_samples)

    @property
    def explanation_coverage(self) -> Metric:
        """See `ccx.metrics.explanation_coverage`."""
        return _ratio(self.shared_samples, self.bitmap_samples)

    @property
    def avg_mask_size(self) -> Metric:
        """See `ccx.metrics.avg_mask_size`."""
        return self._mean_share(self.mask_cells, self.mask_cells)

    @property
    def avg_bitmap_size(self) -> Metric:
        """See `ccx.metrics.avg_mask_size`, which gives this for the bitmap."""
        return self._mean_share(self.bitmap_cells, self.bitmap_cells)

    @property
    def avg_overlapping_bitmap_size(self) -> Metric:
        """See `ccx.metrics.avg_overlapping_bitmap_size`."""
        return self._mean_share(self.bitmap_cells, self.shared_cells)

    @property
    def avg_overlapping(self) -> Metric:
        """See `ccx.metrics.avg_overlapping`."""
        return self._mean_share(self.shared_cells, self.shared_cells)

    def to_dict(self) -> dict[str, Metric]:
        """Return every metric by its name (`METRICS`): float64[...] of one shape, or all scalars."""
        shape = np.broadcast_shapes(self.bitmap_cells.shape, self.mask_cells.shape, self.shared_cells.shape)[:-1]
        values = {name: getattr(self, name) for name in METRICS}
        return values if not shape else {name: np.broadcast_to(value, shape) for name, value in values.items()}

    def _mean_share(self, cells: IntArray, present: IntArray) -> Metric:
        """Return the mean of cells / n_cells over the samples where `present` is not 0."""
        if self.n_cells is None:
            remedy = "packed rows do not tell their number of bits"
            raise InputError("n_cells", wanted="the number of cells of a sample", got="None", remedy=remedy)
        counted = np.where(present > 0, cells, 0)
        if isinstance(self.n_cells, int):  # one division: integers to the end
            return _ratio(counted.sum(-1), _n_samples(present) * self.n_cells)
        return _ratio(np.asarray(_ratio(counted, self.n_cells)).sum(-1), _n_samples(present))


def iou(bitmap: Any, mask: Any, *, threads: int | None = None) -> Metric:
    """Return |A ∧ S| / |A ∨ S|; 0 where both are empty.

    Parameters
    ----------
    bitmap, mask
        What `Overlap.of` takes: bool[N, P], bool[N, H, W] or packed uint64[N, n_words] each, with further
        axes in front for many at once.
    threads
        Processors to use; None = all available.

    Returns
    -------
    float64 or float64[...]
        A scalar for one bitmap and one mask, else one value for each pair. NumPy also for torch.

    Raises
    ------
    DTypeError, ShapeError
        If the arrays are of other kinds or do not fit each other.

    Examples
    --------
    >>> iou(np.array([[True, True, False]]), np.array([[False, True, True]]))
    np.float64(0.3333333333333333)

    """
    return Overlap.of(bitmap, mask, threads=threads).iou


def sample_iou(bitmap: Any, mask: Any, *, threads: int | None = None) -> NDArray[np.float64]:
    """Return the IoU of each sample, float64[..., N]; 0 where both are empty. Arguments as for `iou`."""
    return Overlap.of(bitmap, mask, threads=threads).sample_iou


def activations_coverage(bitmap: Any, mask: Any, *, threads: int | None = None) -> Metric:
    """Return |A ∧ S| / |A|, the share of the firing that the formula covers; 0 if A is empty.

    Arguments as for `iou`.
    """
    return Overlap.of(bitmap, mask, threads=threads).activations_coverage


def detection_accuracy(bitmap: Any, mask: Any, *, threads: int | None = None) -> Metric:
    """Return |A ∧ S| / |S|, the share of the formula's cells where the unit fires; 0 if S is empty.

    Arguments as for `iou`.
    """
    return Overlap.of(bitmap, mask, threads=threads).detection_accuracy


def samples_coverage(bitmap: Any, mask: Any, *, threads: int | None = None) -> Metric:
    """Return the share of the samples with S that have A ∧ S; 0 if there are none.

    Arguments as for `iou`.
    """
    return Overlap.of(bitmap, mask, threads=threads).samples_coverage


def explanation_coverage(bitmap: Any, mask: Any, *, threads: int | None = None) -> Metric:
    """Return the share of the samples with A that have A ∧ S; 0 if there are none.

    Arguments as for `iou`.
    """
    return Overlap.of(bitmap, mask, threads=threads).explanation_coverage


def avg_mask_size(mask: Any, *, n_cells: int | IntArray | None = None, threads: int | None = None) -> Metric:
    """Return |S| / P, averaged over the samples with S; 0 if there are none.

    Parameters
    ----------
    mask
        One of the arrays that `iou` takes (a formula's mask or a bitmap).
    n_cells
        Cells of a sample P, or int[N]; packed rows need it.
    threads
        Processors to use; None = all available.

    Returns
    -------
    float64 or float64[...]
        A share of a sample, between 0 and 1.

    Raises
    ------
    InputError
        If packed rows come without `n_cells`; further errors as for `iou`.

    """
    return Overlap.of(mask, mask, n_cells=n_cells, threads=threads).avg_mask_size


def avg_overlapping_bitmap_size(
    bitmap: Any, mask: Any, *, n_cells: int | IntArray | None = None, threads: int | None = None
) -> Metric:
    """Return |A| / P, averaged over the samples with A ∧ S; 0 if there are none.

    Arguments as for `iou`, `n_cells` as for `avg_mask_size`.
    """
    return Overlap.of(bitmap, mask, n_cells=n_cells, threads=threads).avg_overlapping_bitmap_size


def avg_overlapping(
    bitmap: Any, mask: Any, *, n_cells: int | IntArray | None = None, threads: int | None = None
) -> Metric:
    """Return |A ∧ S| / P, averaged over the samples with A ∧ S; 0 if there are none.

    Arguments as for `iou`, `n_cells` as for `avg_mask_size`.
    """
    return Overlap.of(bitmap, mask, n_cells=n_cells, threads=threads).avg_overlapping


def _ratio(numerator: Any, denominator: Any) -> Metric:
    """Divide; 0 where the denominator is 0, since nothing covers nothing."""
    shape = np.broadcast_shapes(np.shape(numerator), np.shape(denominator))
    zeros = np.zeros(shape, np.float64)
    ratios: Metric = np.divide(numerator, denominator, out=zeros, where=denominator != 0)[()]
    return ratios


def _n_samples(cells: IntArray) -> IntArray:
    return np.asarray(np.count_nonzero(cells, axis=-1), np.int64)


def _packed(array: Any, argument: str, n_axes: int, threads: int | None) -> tuple[NDArray[np.uint64], int | None]:
    """Return packed rows uint64[..., N, n_words] of an array, and its cells per sample; None: packed before.

    `n_axes` is the number of axes of a single bitmap or mask, or more.
    """
    wanted = "bool[N, P], bool[N, H, W] or packed uint64[N, n_words], more axes in front"
    if array.dtype.kind not in "bu" or (array.dtype.kind == "u" and array.dtype.itemsize != 8):
        raise DTypeError(argument, wanted=wanted, got=describe(array), remedy=f"compare first: {argument} != 0")
    if n_axes < 2 or array.ndim < 2:
        raise ShapeError(argument, wanted=wanted, got=describe(array), remedy="a single sample is [1, P]")
    if array.dtype.kind == "u":
        return array, None
    n_cell_axes = 1 if n_axes == 2 else 2
    lead, grid = array.shape[:-n_cell_axes], array.shape[-n_cell_axes:]
    n_cells = int(np.prod(grid, dtype=np.int64))
    return rows.pack(array.reshape(*lead, n_cells), threads=threads), n_cells


def _broadcast(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    return all(1 in pair or pair[0] == pair[1] for pair in zip(reversed(a), reversed(b), strict=False))


def _checked_cells(n_cells: Any, packed: list[tuple[NDArray[np.uint64], int | None]]) -> int | IntArray:
    """Return `n_cells` as an int, or as int64[N]."""
    n_samples, n_words = packed[0][0].shape[-2:]
    if isinstance(n_cells, (int, np.integer)):
        known, count = packed[0][1], int(n_cells)
        if known not in (None, count) or count < 0 or rows.n_words(count) != n_words:
            wanted = f"a number of cells that takes {n_words} words" if known is None else f"{known}"
            raise InputError("n_cells", wanted=wanted, got=str(count), remedy="pass H * W")
        for argument, (one, _) in zip(("bitmap", "mask"), packed, strict=True):
            rows.check_padding(argument, one, count)
        return count
    cells = as_array(n_cells, "n_cells")
    if cells.dtype.kind not in "iu" or cells.shape != (n_samples,):
        wanted = f"an integer or int64[{n_samples}]"
        raise ShapeError("n_cells", wanted=wanted, got=describe(cells), remedy="count the valid cells of each sample")
    counts: IntArray = cells.astype(np.int64)
    return counts
