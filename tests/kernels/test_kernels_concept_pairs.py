"""What each two concepts share, against its definition."""

from __future__ import annotations

import numpy as np
from hypothesis import given

from ccx.kernels import concept_pairs as kernels
from tests.reference import concept_pairs as reference
from tests.support.planes import CASES, Case


@given(case=CASES)
def test_pairs(case: Case) -> None:
    order, *got, q, p = kernels.pairs_of(case.atoms, case.counts, case.q, case.p, case.usable)
    assert (q, p) == (case.q, case.p)
    gains = np.diagonal(reference.shared(case.member, case.gains))
    assert order.tolist() == sorted(np.flatnonzero(case.usable).tolist(), key=lambda c: (-gains[c], c))
    for ours, weights in zip(got, (case.values, case.gains), strict=True):
        np.testing.assert_array_equal(ours, reference.shared(case.member[:, order], weights), strict=True)


@given(case=CASES)
def test_gains_of_atoms_and_concepts(case: Case) -> None:
    of_atoms, of_concepts = kernels.gains_of(case.atoms, case.counts, case.q, case.p)
    np.testing.assert_array_equal(of_atoms, case.gains, strict=True)
    np.testing.assert_array_equal(of_concepts, case.gains @ case.member, strict=True)
