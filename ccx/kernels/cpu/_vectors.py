"""What kernels do with 8, 16 and 64 numbers at once, as vectors of LLVM: it cuts them to what the processor has.

Results do not depend on the processor: products and sums are rounded as written, and none are fused. An array is where
its first item lies, and is contiguous; indices are not checked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from ccx.kernels.cpu._jit import instruction

_FLOAT, _INT, _WORD = ir.FloatType(), ir.IntType(32), ir.IntType(64)
_TILE = 64  # cells
_LANES = 8  # ranges
_BOUNDS = 16  # tiles


def _emitter(emit: Callable[..., Any]) -> Callable[..., Any]:
    """Hand over arrays as pointers to their items, and return nothing where nothing is emitted."""

    def with_pointers(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        found = [
            context.make_array(kind)(context, builder, arg).data if isinstance(kind, types.Array) else arg
            for kind, arg in zip(signature.args, args, strict=True)
        ]
        result = emit(builder, *found)
        return context.get_dummy_value() if result is None else result

    return with_pointers


def _vector(item: Any, n: int) -> Any:
    return ir.VectorType(item, n)


def _at(builder: Any, pointer: Any, index: Any, n: int) -> Any:
    item = pointer.type.pointee
    return builder.bitcast(builder.gep(pointer, [index]), _vector(item, n).as_pointer())


def _load(builder: Any, pointer: Any, index: Any, n: int) -> Any:
    loaded = builder.load(_at(builder, pointer, index, n))
    loaded.align = 4 if pointer.type.pointee == _FLOAT else pointer.type.pointee.width // 8
    return loaded


def _store(builder: Any, vector: Any, pointer: Any, index: Any) -> None:
    item = vector.type.element
    stored = builder.store(vector, _at(builder, pointer, index, vector.type.count))
    stored.align = 4 if item == _FLOAT else item.width // 8


def _picked(builder: Any, vector: Any, indices: Sequence[int], other: Any = None) -> Any:
    mask = ir.Constant(_vector(_INT, len(indices)), list(indices))
    return builder.shuffle_vector(vector, vector if other is None else other, mask)


def _repeated(builder: Any, scalar: Any, n: int) -> Any:
    one = builder.insert_element(ir.Constant(_vector(scalar.type, n), ir.Undefined), scalar, ir.Constant(_INT, 0))
    return _picked(builder, one, [0] * n)


def _joined(builder: Any, parts: list[Any]) -> Any:
    while len(parts) > 1:
        n = parts[0].type.count
        parts = [
            _picked(builder, first, range(2 * n), second) for first, second in zip(parts[::2], parts[1::2], strict=True)
        ]
    return parts[0]


_FIRST = ir.Constant(_WORD, 0)


@instruction
def at_least(typing_context: Any, values: Any, threshold: Any) -> Any:
    """Tell which of 64 values reach a threshold: float32[64], float32 -> the bits of a uint64; NaN does not."""

    def emit(builder: Any, values: Any, threshold: Any) -> Any:
        reach = builder.fcmp_ordered(">=", _load(builder, values, _FIRST, _TILE), _repeated(builder, threshold, _TILE))
        return builder.bitcast(reach, _WORD)

    return types.uint64(values, types.float32), _emitter(emit)


@instruction
def reached_between(
    typing_context: Any, low: Any, high: Any, upper: Any, lower: Any, first_near: Any, first_far: Any, last_near: Any,
    last_far: Any, thresholds: Any, n_thresholds: Any, first: Any, last: Any, at: Any,
) -> Any:  # fmt: skip
    """Count the thresholds that the bounds of 16 tiles reach: -> int32 first[at : at + 16], last[at : at + 16].

    ``low`` and ``high`` (float32) bound the values of tiles in source rows, ``upper`` and ``lower`` say where those of
    the two rows begin between which the tiles lie; then come the two weights of their first and of their last row.
    """

    def emit(builder: Any, low: Any, high: Any, upper: Any, lower: Any, *more: Any) -> None:
        *weights, thresholds, n_thresholds, first, last, at = more
        splats = [_repeated(builder, weight, _BOUNDS) for weight in weights]
        none = ir.Constant(_vector(_INT, _BOUNDS), [0] * _BOUNDS)
        bounds = []
        for source, sign in ((low, "<"), (high, ">")):
            rows = [_load(builder, source, index, _BOUNDS) for index in (upper, lower)]
            ends = [_mixed(builder, rows, splats[:2]), _mixed(builder, rows, splats[2:])]
            bounds.append(builder.select(builder.fcmp_ordered(sign, *ends), *ends))
        counts = [cgutils.alloca_once_value(builder, none) for _ in bounds]
        with cgutils.for_range(builder, n_thresholds) as loop:
            threshold = _repeated(builder, builder.load(builder.gep(thresholds, [loop.index])), _BOUNDS)
            for bound, counted in zip(bounds, counts, strict=True):
                reach = builder.sext(builder.fcmp_ordered(">=", bound, threshold), none.type)
                builder.store(builder.sub(builder.load(counted), reach), counted)
        for counted, out in zip(counts, (first, last), strict=True):
            _store(builder, builder.load(counted), out, at)

    index, weight = types.int64, types.float32
    kinds = (low, high, index, index, weight, weight, weight, weight, thresholds, index, first, last, index)
    return types.void(*kinds), _emitter(emit)


def _mixed(builder: Any, rows: Sequence[Any], weights: Sequence[Any]) -> Any:
    near, far = (builder.fmul(row, weight) for row, weight in zip(rows, weights, strict=True))
    return builder.fadd(near, far)


def _values_of_tile(load: Callable[..., Any]) -> Any:
    """Make what interpolates the values of a tile between source rows: -> float32 out[:64].

    ``spread`` holds the source rows, spread over ``width`` columns; row y of cells lies between those of numbers
    ``top[y]`` and ``bottom[y]`` (uint32), with the weights ``near[at:]`` and ``far[at:]`` of each
    cell; where ``far`` is 0 only the first of the two rows counts.
    """

    def interpolated(
        typing_context: Any,
        spread: Any,
        width: Any,
        x: Any,
        top: Any,
        bottom: Any,
        y: Any,
        near: Any,
        far: Any,
        at: Any,
        out: Any,
    ) -> Any:
        def emit(builder: Any, *pointers: Any) -> None:
            spread, width, x, top, bottom, y, near, far, at, out = pointers
            values = [load(builder, spread, width, x, rows, y) for rows in (top, bottom)]
            weights = [_load(builder, weight, at, _TILE) for weight in (near, far)]
            alone = builder.fcmp_ordered("==", weights[1], ir.Constant(weights[1].type, [0.0] * _TILE))
            _store(builder, builder.select(alone, values[0], _mixed(builder, values, weights)), out, _FIRST)

        index = types.int64
        return types.void(spread, index, index, top, bottom, index, near, far, index, out), _emitter(emit)

    return instruction(interpolated)


def _piece(builder: Any, spread: Any, width: Any, x: Any, rows: Any, y: Any, n: int) -> Any:
    """Load n values of the source row that belongs to row y of cells, from column x on."""
    row = builder.zext(builder.load(builder.gep(rows, [y])), _WORD)
    return _load(builder, spread, builder.add(builder.mul(row, width), x), n)


def _of_one_row(builder: Any, spread: Any, width: Any, x: Any, rows: Any, y: Any) -> Any:
    return _piece(builder, spread, width, x, rows, y, _TILE)


def _of_one_band(builder: Any, spread: Any, width: Any, x: Any, rows: Any, y: Any) -> Any:
    return _picked(builder, _piece(builder, spread, width, x, rows, y, 8), list(range(8)) * 8)


def _of_eight_rows(builder: Any, spread: Any, width: Any, x: Any, rows: Any, y: Any) -> Any:
    below = [builder.add(y, ir.Constant(_WORD, row)) for row in range(8)]
    return _joined(builder, [_piece(builder, spread, width, x, rows, row, 8) for row in below])


values_of_row = _values_of_tile(_of_one_row)  # a tile of 1×64 cells
values_of_band = _values_of_tile(_of_one_band)  # one of 8×8, all between the same two source rows
values_of_rows = _values_of_tile(_of_eight_rows)  # one of 8×8


@instruction
def ranges_of_whole(typing_context: Any, n_reached: Any, inside: Any, tile: Any) -> Any:
    """Write which of 8 ranges hold a tile whose values all reach so many thresholds: -> uint64 inside[8 * tile:]."""

    def emit(builder: Any, n_reached: Any, inside: Any, tile: Any) -> None:
        odd = ir.Constant(_vector(_WORD, _LANES), [2 * lane + 1 for lane in range(_LANES)])
        held = builder.icmp_signed("==", _repeated(builder, n_reached, _LANES), odd)
        _store(builder, builder.sext(held, odd.type), inside, _lanes_of(builder, tile))

    return types.void(types.int64, inside, types.int64), _emitter(emit)


@instruction
def add_popcounts(typing_context: Any, counts: Any, atom: Any, inside: Any, tile: Any, mask: Any) -> Any:
    """Add how many cells of a mask each of 8 ranges, uint64 inside[8 * tile:], holds: -> int32 counts[8 * atom:]."""

    def emit(builder: Any, counts: Any, atom: Any, inside: Any, tile: Any, mask: Any) -> None:
        words = builder.and_(_load(builder, inside, _lanes_of(builder, tile), _LANES), _repeated(builder, mask, _LANES))
        kind = ir.FunctionType(words.type, [words.type])
        popcount = cgutils.get_or_insert_function(builder.module, kind, f"llvm.ctpop.v{_LANES}i64")
        more = builder.trunc(builder.call(popcount, [words]), _vector(_INT, _LANES))
        at = _lanes_of(builder, atom)
        _store(builder, builder.add(_load(builder, counts, at, _LANES), more), counts, at)

    return types.void(counts, types.int64, inside, types.int64, types.uint64), _emitter(emit)


def _lanes_of(builder: Any, number: Any) -> Any:
    return builder.mul(number, ir.Constant(_WORD, _LANES))
