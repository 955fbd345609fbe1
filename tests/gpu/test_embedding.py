"""`embedding`: the same bits as the oracle from every kernel, and nothing from a wrong id."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest
import torch

from tests.cases import (
    LONG,
    ODD,
    ONE_GROUP,
    PRIME,
    TINY,
    WHOLE,
    WIDE,
    Shape,
    assert_same_bits,
    random_weight,
    some_ids,
)
from wgpu_q4 import Q4Weight, embedding, forced, reference
from wgpu_q4.device import Context
from wgpu_q4.format import ScalesDtype
from wgpu_q4.kernels import HalfSupport, Layout, OutputDtype, Storage

LAYOUTS: tuple[Layout, ...] = get_args(Layout)
STORAGES: tuple[Storage, ...] = get_args(Storage)
DTYPES: tuple[OutputDtype, ...] = get_args(OutputDtype)

every_layout = pytest.mark.parametrize("layout", LAYOUTS)
every_storage = pytest.mark.parametrize("storage", STORAGES)
every_dtype = pytest.mark.parametrize("dtype", DTYPES)


@pytest.fixture(params=["own", "integer"])
def halves(
    request: pytest.FixtureRequest, context: Context, monkeypatch: pytest.MonkeyPatch
) -> str:
    """Half precision converted as suits the device, and as on one without correct built-ins."""
    if request.param == "integer":
        monkeypatch.setattr(context, "half_support", HalfSupport())
    return str(request.param)


# Every kernel


@every_layout
@every_storage
@every_dtype
@pytest.mark.parametrize("scales", get_args(ScalesDtype))
@pytest.mark.parametrize("shape", [ODD, PRIME], ids=str)
def test_every_kernel_is_exact(
    shape: Shape, scales: ScalesDtype, dtype: OutputDtype, storage: Storage, layout: Layout
) -> None:
    weight, ids = random_weight(shape, scales), some_ids(shape)
    with forced(layout=layout, storage=storage):
        result = embedding(ids, weight, dtype)
    assert_same_bits(result, reference.embedding(ids, weight, dtype))


@every_layout
@every_storage
@every_dtype
def test_halves_converted_by_integers_are_exact(
    dtype: OutputDtype,
    storage: Storage,
    layout: Layout,
    context: Context,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As on a device whose built-in conversions are not right."""
    monkeypatch.setattr(context, "half_support", HalfSupport())
    weight, ids = random_weight(ODD, "float16"), some_ids(ODD)
    with forced(layout=layout, storage=storage):
        result = embedding(ids, weight, dtype)
    assert_same_bits(result, reference.embedding(ids, weight, dtype))


@every_layout
@every_storage
@pytest.mark.parametrize("shape", [TINY, WHOLE, ONE_GROUP, WIDE, LONG], ids=str)
def test_every_shape_is_exact(shape: Shape, storage: Storage, layout: Layout) -> None:
    weight, ids = random_weight(shape, "float16"), some_ids(shape)
    with forced(layout=layout, storage=storage):
        result = embedding(ids, weight)
    assert_same_bits(result, reference.embedding(ids, weight))


@every_layout
@pytest.mark.parametrize("convention", ["linear", "embedding"])
def test_either_nibble_order_serves_every_layout(convention: Any, layout: Layout) -> None:
    weight = random_weight(ODD, "float16", convention)
    other = random_weight(ODD, "float16", "embedding" if convention == "linear" else "linear")
    ids = np.arange(ODD.vocab)
    with forced(layout=layout):
        result = embedding(ids, weight)
    assert_same_bits(result, reference.embedding(ids, weight))
    assert not np.array_equal(result, reference.embedding(ids, other))


def test_a_row_worked_out_by_hand() -> None:
    packed = np.array([[0x88, 0x88, 0x88, 0x88] * 2, [0x10, 0x32, 0x54, 0x76] + [0xF0] * 4])
    weight = Q4Weight(packed.astype(np.uint8), np.array([[1, 1], [0.5, -2]], np.float16))
    expected = [-4, -3.5, -3, -2.5, -2, -1.5, -1, -0.5, *[16, -14] * 4]
    for layout in LAYOUTS:
        with forced(layout=layout):
            result = embedding(np.array([1, 0]), weight)
        np.testing.assert_array_equal(result, [expected, [0] * 16])


# Half precision


def all_nibbles(scales: Any) -> Q4Weight:
    """Each row has the 16 nibbles and one scale."""
    scales = np.asarray(scales).reshape(-1, 1)
    row = np.array([[0x10, 0x32, 0x54, 0x76, 0x98, 0xBA, 0xDC, 0xFE]], np.uint8)
    return Q4Weight(np.repeat(row, len(scales), axis=0), scales)


@every_layout
@every_storage
@pytest.mark.usefixtures("halves")
def test_half_results_round_to_even_over_the_whole_range(layout: Layout, storage: Storage) -> None:
    rng = np.random.default_rng(4)
    largest, smallest = 65504.0, 2.0**-24
    around = np.array([1 - 2.0**-23, 1, 1 + 2.0**-23])
    scales = np.concatenate(
        [
            largest * np.array([8, 1, 1 / 7, 1 / 8]),  # at and far beyond the largest half
            65520 / 8 * around,  # times 8, the tie between it and infinity
            smallest * np.array([1, 0.5, 0.25, 0.125, 2.0**-4, 1e-3]),  # the smallest, and below
            smallest / 2 * around,  # the tie between it and zero
            smallest * 1.5 * around,  # the tie between the two smallest
            2.0**-14 / 8 * around,  # where subnormals begin
            (1 + 2.0**-11) * around,  # a tie between two normal halves
            [1e-7, 1e-30, 1e30],
            2.0 ** rng.uniform(-30, 18, 400),
        ]
    )
    signs = np.where(np.arange(scales.size) % 2, -1, 1)
    weight = all_nibbles((scales * signs).astype(np.float32))
    ids = np.arange(weight.shape[0])
    expected = reference.embedding(ids, weight, "float16")
    assert np.isinf(expected).any()
    assert ((np.abs(expected) > 0) & (np.abs(expected) < 2.0**-14)).sum() > 100
    with forced(layout=layout, storage=storage):
        result = embedding(ids, weight, "float16")
    assert_same_bits(result, expected)


@every_layout
@every_dtype
@pytest.mark.usefixtures("halves")
def test_half_scales_keep_their_subnormals(dtype: OutputDtype, layout: Layout) -> None:
    bits = np.concatenate([np.arange(0, 0x400, 7), np.arange(0x8001, 0x8400, 11), [0x7BFF, 0x3FF]])
    weight = all_nibbles(bits.astype(np.uint16).view(np.float16))
    ids = np.arange(weight.shape[0])
    with forced(layout=layout):
        result = embedding(ids, weight, dtype)
    assert_same_bits(result, reference.embedding(ids, weight, dtype))


@pytest.mark.parametrize(
    "dtype", [np.float16, np.dtype(np.float16), torch.float16, "float16"], ids=repr
)
def test_the_dtype_may_be_numpys_or_torchs(dtype: Any) -> None:
    weight, ids = random_weight(ODD, "float16"), some_ids(ODD)
    assert_same_bits(embedding(ids, weight, dtype), reference.embedding(ids, weight, "float16"))
