"""The kernels of `argmax` and `top_k` on floats of every kind, which no product would give.

Ids and values are compared to the bit.  `tools.mutants` runs some of the floats on other backends,
and on kernels with a wrong place.
"""

from __future__ import annotations

import numpy as np
import pytest

from tests.cases import limited_context
from tests.reductions import FLOATS, best, check_floats, kept_of
from wgpu_q4.device import context_for
from wgpu_q4.kernels import Reduce, plan_reduce


def test_what_is_right_is_numpys_argmax() -> None:
    for logits in FLOATS.values():
        np.testing.assert_array_equal(best(logits, 1)[..., 0], logits.argmax(-1))


@pytest.mark.parametrize("name", FLOATS)
def test_argmax_of_floats(name: str) -> None:
    check_floats(context_for(), FLOATS[name], "argmax", 1)


@pytest.mark.parametrize("name", FLOATS)
def test_top_k_of_floats(name: str) -> None:
    for kept in kept_of(FLOATS[name].shape[1]):
        check_floats(context_for(), FLOATS[name], "top_k", kept)


@pytest.mark.parametrize("name", FLOATS)
def test_ids_alone_and_values_apart(name: str) -> None:
    check_floats(context_for(), FLOATS[name], "argmax", 1, results="ids")
    kept = min(40, FLOATS[name].shape[1])
    check_floats(context_for(), FLOATS[name], "top_k", kept, results="values_and_ids")


def test_more_slices_than_one_workgroup_takes() -> None:
    """1,048,577 floats are 1025 slices, which are two."""
    logits = np.zeros((1, (1 << 20) + 1), np.float32)
    assert len(plan_reduce((logits.shape[1],), 1, "argmax", 1, context_for().limits).stages) == 3
    check_floats(context_for(), logits, "argmax", 1)
    logits[0, -1] = 1
    check_floats(context_for(), logits, "argmax", 1)
    check_floats(context_for(), logits, "top_k", 3)


@pytest.mark.parametrize(("reduce", "kept"), [("argmax", 1), ("top_k", 5)])
def test_grids_are_folded(reduce: Reduce, kept: int) -> None:
    """With some workgroups too many, which have nothing to do."""
    context = limited_context({"max-compute-workgroups-per-dimension": 6})
    logits = np.random.default_rng(4).standard_normal((7, 2053)).astype(np.float32)
    plan = plan_reduce((2053,), 7, reduce, kept, context.limits)
    assert plan.stages[0].workgroups == (6, 4, 1)  # 7 rows of 3 slices are 21
    check_floats(context, logits, reduce, kept)
