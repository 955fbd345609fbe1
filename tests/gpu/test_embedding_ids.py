"""Which ids `embedding` takes, in which arrays, and what the host refuses."""

from __future__ import annotations

from importlib import import_module
from typing import Any, get_args

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.cases import ODD, PRIME, TINY, assert_same_bits, random_weight, some_ids
from wgpu_q4 import DeviceLimitError, embedding, forced, reference
from wgpu_q4.device import Context, context_for
from wgpu_q4.kernels import Layout, OutputDtype, Storage

LAYOUTS: tuple[Layout, ...] = get_args(Layout)
STORAGES: tuple[Storage, ...] = get_args(Storage)
DTYPES: tuple[OutputDtype, ...] = get_args(OutputDtype)

every_layout = pytest.mark.parametrize("layout", LAYOUTS)
every_storage = pytest.mark.parametrize("storage", STORAGES)
every_dtype = pytest.mark.parametrize("dtype", DTYPES)


@pytest.fixture
def no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails a test that comes as far as a device."""

    def context(device: Any) -> Context:
        pytest.fail("a device was asked for")

    monkeypatch.setattr(import_module("wgpu_q4.ops.embedding"), "context_for", context)


@pytest.mark.parametrize("kind", [*np.typecodes["AllInteger"], ">i4", ">u8"])
def test_ids_of_every_integer_dtype(kind: str) -> None:
    weight = random_weight(PRIME, "float16")
    largest = min(np.iinfo(kind).max, PRIME.vocab - 1)
    ids = np.array([0, largest, 5, 5, largest - 1], kind)
    expected = reference.embedding(ids.astype(np.int64), weight)
    assert_same_bits(embedding(ids, weight), expected)


@every_storage
@pytest.mark.parametrize("size", [(), (1,), (7,), (1, 1), (2, 3), (4, 1, 3), (2, 3, 2, 5)])
def test_ids_of_every_rank(size: tuple[int, ...], storage: Storage) -> None:
    weight = random_weight(ODD, "float16")
    ids = np.random.default_rng(5).integers(0, ODD.vocab, size)
    with forced(storage=storage):
        result = embedding(np.asarray(ids), weight)
    assert_same_bits(result, reference.embedding(np.asarray(ids), weight))
    assert result.shape == (*size, ODD.embed_dim)


@pytest.mark.parametrize("ids", [[0], [12], [5] * 40, [12, 0, 12], list(range(13))], ids=str)
def test_first_last_and_repeated_ids(ids: list[int]) -> None:
    weight = random_weight(ODD, "float16")
    result = embedding(np.array(ids), weight)
    assert_same_bits(result, reference.matrix(weight)[ids].astype(np.float32))


@every_storage
def test_ids_need_not_be_contiguous(storage: Storage) -> None:
    weight, ids = random_weight(ODD, "float16"), some_ids(ODD, (6, 8))
    views = [
        ids[::2],
        ids[:, ::-1],
        ids.T,
        np.asfortranarray(ids),
        np.broadcast_to(ids[0], (3, 8)),
        ids.astype(np.int32)[::-1, 1::3],
    ]
    for view in views:
        with forced(storage=storage):
            result = embedding(view, weight)
        assert_same_bits(result, reference.embedding(view, weight))


@pytest.mark.usefixtures("no_device")
@every_dtype
def test_no_ids_give_an_empty_array_without_a_device(dtype: OutputDtype) -> None:
    weight = random_weight(ODD, "float16")
    for size in [(0,), (3, 0), (0, 4, 2)]:
        result = embedding(np.empty(size, np.int64), weight, dtype)
        assert (result.dtype, result.shape) == (np.dtype(dtype), (*size, 24))
    assert embedding([], weight, dtype).shape == (0, 24)
    tensor = embedding(torch.empty(2, 0, dtype=torch.int32), weight, dtype)
    assert (tensor.dtype, tensor.shape) == (getattr(torch, dtype), (2, 0, 24))


@pytest.mark.parametrize(
    "kind",
    [
        torch.int8,
        torch.uint8,
        torch.int16,
        torch.uint16,
        torch.int32,
        torch.uint32,
        torch.int64,
        torch.uint64,
    ],
    ids=str,
)
@every_dtype
def test_tensors_in_tensors_out(kind: torch.dtype, dtype: OutputDtype) -> None:
    weight, ids = random_weight(ODD, "float16"), some_ids(ODD, (2, 5))
    result = embedding(torch.from_numpy(ids).to(kind), weight, dtype)
    assert isinstance(result, torch.Tensor)
    assert result.device.type == "cpu"
    assert_same_bits(result.numpy(), reference.embedding(ids, weight, dtype))
    result.zero_()  # it is the caller's, and writable
    transposed = torch.from_numpy(ids).to(torch.int64).T
    assert_same_bits(embedding(transposed, weight).numpy(), reference.embedding(ids.T, weight))


@pytest.mark.parametrize("ids", [[3, 0, 3], (12,), [[1, 2], [3, 4]], 5], ids=str)
def test_ids_may_be_pythons_integers(ids: Any) -> None:
    weight = random_weight(ODD, "float16")
    expected = reference.embedding(np.array(ids, np.int64), weight)
    assert_same_bits(embedding(ids, weight), expected)


def test_a_result_is_not_touched_by_the_next_call() -> None:
    weight, ids = random_weight(ODD, "float16"), some_ids(ODD)
    first = embedding(ids, weight)
    embedding(ids[::-1], weight)
    assert_same_bits(first, reference.embedding(ids, weight))


# What the host refuses


@pytest.mark.usefixtures("no_device")
@pytest.mark.parametrize("tensors", [False, True])
@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (np.array([3, 13]), r"^indices\[1\] is 13, outside the vocabulary of 13: .* 0\.\.12$"),
        (np.array([[0, 1], [2, -1], [99, 0]]), r"^indices\[1, 1\] is -1, outside .* of 13"),
        (np.array([[0, 1], [2, 3], [2**40, -1]]), r"^indices\[2, 0\] is 1099511627776, outside"),
        (np.array(-7), r"^indices is -7, outside"),
        (np.array([0, 2**64 - 1], np.uint64), r"^indices\[1\] is 18446744073709551615, outside"),
        (np.array([2**32], np.uint64), r"^indices\[0\] is 4294967296, outside"),  # 0 in 32 bits
        (np.array([12, -(2**32)]), r"^indices\[1\] is -4294967296, outside"),
        (np.array([[[5]], [[13]]], np.int8), r"^indices\[1, 0, 0\] is 13, outside"),
    ],
)
def test_ids_outside_the_vocabulary(ids: NDArray[Any], message: str, tensors: bool) -> None:
    given: Any = torch.from_numpy(ids) if tensors else ids
    with pytest.raises(IndexError, match=message):
        embedding(given, random_weight(ODD, "float16"))


def test_ids_narrower_than_the_vocabulary() -> None:
    weight = random_weight(PRIME, "float16")
    for ids in (np.array([127, 0], np.int8), np.array([255, 0], np.uint8)):
        assert_same_bits(embedding(ids, weight), reference.embedding(ids, weight))
    with pytest.raises(IndexError, match=r"indices\[0\] is -128, outside the vocabulary of 257"):
        embedding(np.array([-128], np.int8), weight)


@pytest.mark.usefixtures("no_device")
@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (np.array([1.0]), "integer dtype, not float64"),
        (np.array([], np.float32), "integer dtype, not float32"),
        (np.array([True, False]), "integer dtype, not bool"),
        (np.array([1j]), "integer dtype, not complex128"),
        (np.array(["1"]), "integer dtype, not <U1"),
        (torch.tensor([1.0]), "integer dtype, not float32"),
        (torch.tensor([1.0], dtype=torch.bfloat16), "integer dtype, not float32"),
        (torch.tensor([True]), "integer dtype, not bool"),
        ([0.5, 1], "integer dtype, not float32"),
        (3.0, "integer dtype, not float32"),
        ("3", r"indices must be a numpy array, .*__array__ or __dlpack__, not str"),
        (None, r"indices must be a numpy array, .*__array__ or __dlpack__, not NoneType"),
    ],
)
def test_ids_that_are_not_integers(ids: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        embedding(ids, random_weight(ODD, "float16"))


@pytest.mark.usefixtures("no_device")
@pytest.mark.parametrize("weight", [np.zeros((3, 8), np.float32), torch.zeros(3, 8), None, "rows"])
def test_a_weight_that_is_none(weight: Any) -> None:
    with pytest.raises(TypeError, match=r"weight must be a Q4Weight, not \w+: make one with"):
        embedding(np.array([0]), weight)


@pytest.mark.usefixtures("no_device")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "float64"}, "dtype must be one of float32, float16, not 'float64'"),
        ({"dtype": np.int32}, "dtype must be one of float32, float16, not"),
        ({"dtype": torch.bfloat16}, "dtype must be one of float32, float16, not torch.bfloat16"),
        ({"dtype": None}, "dtype must be one of float32, float16, not None"),
    ],
    ids=str,
)
def test_dtypes_that_do_not_exist(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        embedding(np.array([0]), random_weight(ODD, "float16"), **options)


def test_a_device_that_is_none() -> None:
    with pytest.raises(TypeError, match="device must be a GPUDevice of wgpu or wgpudawn"):
        embedding(np.array([0]), random_weight(ODD, "float16"), device=3)


def test_more_ids_than_a_texture_holds() -> None:
    side = context_for().limits["max-texture-dimension-3d"]
    weight, ids = random_weight(TINY, "float16"), np.zeros(side + 1, np.int64)
    with (
        pytest.raises(DeviceLimitError, match=f"exceeds {side} .*use storage='buffer'"),
        forced(storage="texture3d"),
    ):
        embedding(ids, weight)
    folded = np.zeros((2, side // 2), np.int64)
    with forced(storage="texture3d"):
        assert_same_bits(embedding(folded, weight), reference.embedding(folded, weight))
