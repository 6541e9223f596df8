"""Layouts of outputs against plain NumPy: every number of axes, any axis of units, tokens on their grid."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccx.errors import InputError, ShapeError
from ccx.probing.layouts import check_layout

pytestmark = pytest.mark.needs("torch")


def reference(output, tokens, skip, unit_axis, units):
    """Return the same by loops over units and positions."""
    axis = unit_axis if unit_axis is not None else {2: 1, 3: 2, 4: 1}[output.ndim]
    maps = []
    for unit in range(output.shape[axis]) if units is None else sorted(set(units)):
        one = output.take(unit, axis)  # [n, ...positions]
        if output.ndim == 3:
            one = np.stack([one[:, t] for t in range(skip, one.shape[1])], 1)
            if tokens is not None:
                height, width = tokens
                rows = [[one[:, row * width + column] for column in range(width)] for row in range(height)]
                one = np.moveaxis(np.array(rows), 2, 0)
        maps.append(one)
    return np.stack(maps, 1)


@st.composite
def cases(draw):
    ndim = draw(st.integers(2, 4))
    n, n_units = draw(st.integers(1, 3)), draw(st.integers(1, 5))
    side = st.integers(1, 4)
    tokens, skip = None, 0
    if ndim == 3:
        skip = draw(st.integers(0, 2))
        tokens = draw(st.none() | st.tuples(side, side))
        positions = [skip + (draw(side) if tokens is None else tokens[0] * tokens[1])]
    else:
        positions = [draw(side) for _ in range(ndim - 2)]
    unit_axis = draw(st.none() | st.integers(1, ndim - 1))
    axis = unit_axis if unit_axis is not None else {2: 1, 3: 2, 4: 1}[ndim]
    shape = [n, *positions]
    shape.insert(axis, n_units)
    units = draw(st.none() | st.lists(st.integers(0, n_units - 1), min_size=1))
    signed = unit_axis if unit_axis is None or draw(st.booleans()) else unit_axis - ndim
    return shape, tokens, skip, unit_axis, signed, units


@given(cases())
def test_outputs_are_arranged_as_numpy_would(case):
    import torch

    shape, tokens, skip, unit_axis, signed, units = case
    output = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    found = check_layout(tokens, skip, signed, units).arrange(torch.from_numpy(output), "layer", shape[0])
    want = reference(output, tokens, skip, unit_axis, units)
    assert found.shape == want.shape
    assert np.array_equal(found.numpy(), want)


@given(cases(), st.integers(0, 6))
def test_what_does_not_fit_is_refused(case, n_more):
    import torch

    shape, tokens, skip, _, signed, units = case
    output = torch.zeros(shape)
    layout = check_layout(tokens, skip, signed, units)
    with pytest.raises(ShapeError, match="samples of the batch along axis 0"):
        layout.arrange(output, "layer", shape[0] + 1 + n_more)
    with pytest.raises(InputError, match=r"unit_axis: expected an axis of|outputs of two to four axes"):
        check_layout(tokens, skip, output.ndim + n_more, units).arrange(output, "layer", shape[0])
    with pytest.raises(InputError, match="units: expected units 0"):
        check_layout(tokens, skip, signed, [*(units or []), 100]).arrange(output, "layer", shape[0])
    for n_axes in (0, 1, 5):
        with pytest.raises(ShapeError, match="outputs of two to four axes"):
            layout.arrange(torch.zeros((1,) * n_axes), "layer", 1)
