"""`embedding`: the same bits as the oracle from every kernel, and nothing from a wrong id."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.cases import (
    LONG,
    ODD,
    ONE_GROUP,
    PRIME,
    TINY,
    WHOLE,
    WIDE,
    Shape,
    anew,
    assert_same_bits,
    limited_context,
    random_weight,
    some_ids,
)
from wgpu_q4 import DeviceLimitError, Q4Weight, embedding, reference
from wgpu_q4.device import Context, context_for
from wgpu_q4.device.textures import Texture3d, pack_width
from wgpu_q4.format import ScalesDtype
from wgpu_q4.kernels import Dispatch, HalfSupport, Layout, OutputDtype, Storage, plan_embedding
from wgpu_q4.ops import gather

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

    monkeypatch.setattr(gather, "context_for", context)


@pytest.fixture(params=["own", "integer"])
def halves(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Half precision converted as suits the device, and as on one without correct built-ins."""
    if request.param == "integer":
        monkeypatch.setattr(context_for(), "half_support", HalfSupport())
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
    result = embedding(ids, weight, dtype, layout=layout, storage=storage)
    assert_same_bits(result, reference.embedding(ids, weight, dtype))


@every_layout
@every_storage
@every_dtype
@pytest.mark.usefixtures("halves")
def test_either_conversion_of_halves_is_exact(
    dtype: OutputDtype, storage: Storage, layout: Layout
) -> None:
    weight, ids = random_weight(ODD, "float16"), some_ids(ODD)
    result = embedding(ids, weight, dtype, layout=layout, storage=storage)
    assert_same_bits(result, reference.embedding(ids, weight, dtype))


@every_layout
@every_storage
@pytest.mark.parametrize("shape", [TINY, WHOLE, ONE_GROUP, WIDE, LONG], ids=str)
def test_every_shape_is_exact(shape: Shape, storage: Storage, layout: Layout) -> None:
    weight, ids = random_weight(shape, "float16"), some_ids(shape)
    result = embedding(ids, weight, layout=layout, storage=storage)
    assert_same_bits(result, reference.embedding(ids, weight))


@every_layout
@pytest.mark.parametrize("convention", ["linear", "embedding"])
def test_either_nibble_order_serves_every_layout(convention: Any, layout: Layout) -> None:
    weight = random_weight(ODD, "float16", convention)
    other = random_weight(ODD, "float16", "embedding" if convention == "linear" else "linear")
    ids = np.arange(ODD.vocab)
    result = embedding(ids, weight, layout=layout)
    assert_same_bits(result, reference.embedding(ids, weight))
    assert not np.array_equal(result, reference.embedding(ids, other))


def test_a_row_worked_out_by_hand() -> None:
    packed = np.array([[0x88, 0x88, 0x88, 0x88] * 2, [0x10, 0x32, 0x54, 0x76] + [0xF0] * 4])
    weight = Q4Weight(packed.astype(np.uint8), np.array([[1, 1], [0.5, -2]], np.float16))
    expected = [-4, -3.5, -3, -2.5, -2, -1.5, -1, -0.5, *[16, -14] * 4]
    for layout in LAYOUTS:
        result = embedding(np.array([1, 0]), weight, layout=layout)
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
    result = embedding(ids, weight, "float16", layout=layout, storage=storage)
    assert_same_bits(result, expected)


@every_layout
@every_dtype
@pytest.mark.usefixtures("halves")
def test_half_scales_keep_their_subnormals(dtype: OutputDtype, layout: Layout) -> None:
    bits = np.concatenate([np.arange(0, 0x400, 7), np.arange(0x8001, 0x8400, 11), [0x7BFF, 0x3FF]])
    weight = all_nibbles(bits.astype(np.uint16).view(np.float16))
    ids = np.arange(weight.shape[0])
    result = embedding(ids, weight, dtype, layout=layout)
    assert_same_bits(result, reference.embedding(ids, weight, dtype))


@pytest.mark.parametrize(
    "dtype", [np.float16, np.dtype(np.float16), torch.float16, "float16"], ids=repr
)
def test_the_dtype_may_be_numpys_or_torchs(dtype: Any) -> None:
    weight, ids = random_weight(ODD, "float16"), some_ids(ODD)
    assert_same_bits(embedding(ids, weight, dtype), reference.embedding(ids, weight, "float16"))


# Ids


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
    result = embedding(np.asarray(ids), weight, storage=storage)
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
        result = embedding(view, weight, storage=storage)
        assert_same_bits(result, reference.embedding(view, weight))


@pytest.mark.usefixtures("no_device")
@every_dtype
def test_no_ids_give_an_empty_array_without_a_device(dtype: OutputDtype) -> None:
    weight = random_weight(ODD, "float16")
    for size in [(0,), (3, 0), (0, 4, 2)]:
        result = embedding(np.empty(size, np.int64), weight, dtype)
        assert (result.dtype, result.shape) == (np.dtype(dtype), (*size, 24))
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
        ("3", "indices must be a numpy array, a torch tensor or a list of numbers, not str"),
        (None, "indices must be a numpy array, a torch tensor or a list of numbers, not NoneType"),
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
        ({"layout": "columns"}, "layout must be one of rows, rows_embedding, blocks_buffer, "),
        ({"storage": "texture2d"}, "storage must be one of buffer, texture3d, not 'texture2d'"),
    ],
    ids=str,
)
def test_options_that_do_not_exist(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        embedding(np.array([0]), random_weight(ODD, "float16"), **options)


def test_a_device_that_is_none() -> None:
    with pytest.raises(TypeError, match="device must be a GPUDevice of wgpu or wgpudawn"):
        embedding(np.array([0]), random_weight(ODD, "float16"), device=3)


def test_more_ids_than_a_texture_holds() -> None:
    side = context_for().limits["max-texture-dimension-3d"]
    weight, ids = random_weight(TINY, "float16"), np.zeros(side + 1, np.int64)
    with pytest.raises(DeviceLimitError, match=f"exceeds {side} .*use storage='buffer'"):
        embedding(ids, weight, storage="texture3d")
    folded = np.zeros((2, side // 2), np.int64)
    assert_same_bits(
        embedding(folded, weight, storage="texture3d"), reference.embedding(folded, weight)
    )


# What the kernel itself guards: the ids below never pass the host's check.

POISON = 0xA5
WRONG_IDS = np.array([4, -1, 12, 13, 0, 2**31 - 1, 1, -(2**31), 2, 15, 16, 1000003, 11], np.int32)


def dispatch_buffers(
    context: Context, weight: Q4Weight, layout: Layout, ids: NDArray[np.int32], dtype: OutputDtype
) -> NDArray[Any]:
    """The whole result buffer, twice as long as the result and poisoned before the dispatch."""
    resident = context.weight(weight)
    _, packed = resident.packed(context, weight, layout)
    whole = np.empty((2 * ids.size, weight.shape[1]), dtype)
    whole.view(np.uint8)[:] = POISON
    out_buffer = context.create_buffer("out", whole.nbytes, "STORAGE", "COPY_SRC", "COPY_DST")
    id_buffer = context.create_buffer("ids", ids.nbytes, "STORAGE", "COPY_DST")
    context.write(out_buffer, whole)
    context.write(id_buffer, ids)
    sizes = context.sizes(weight.shape[1], ids.size, 1, 1)
    resources = {
        "t_out": out_buffer,
        "t_indices": id_buffer,
        "t_weight": packed,
        "t_scales": resident.scales,
        "out_sizes": sizes,
    }
    plan = plan_embedding(
        resident.shape, ids.size, layout, dtype, "buffer", context.limits, context.half_support
    )
    encoder = context.device.create_command_encoder()
    context.encode(encoder, plan, resources)
    context.read(encoder, out_buffer, whole)
    return whole


def dispatch_textures(
    context: Context, weight: Q4Weight, layout: Layout, ids: NDArray[np.int32], dtype: OutputDtype
) -> NDArray[Any]:
    resident = context.weight(weight)
    _, packed = resident.packed(context, weight, layout)
    embed_dim = weight.shape[1]
    id_texture = Texture3d(context, (-(-ids.size // 4), 1, 1), "rgba32sint", "ids")
    id_texture.write(pack_width(ids.reshape(1, 1, -1)))
    texel = "rgba16float" if dtype == "float16" else "rgba32float"
    out_texture = Texture3d(context, (embed_dim // 4, ids.size, 1), texel, "out")
    sizes = context.sizes(embed_dim, ids.size, 1, 1)
    resources = {
        "t_out": out_texture.view,
        "t_indices": id_texture.view,
        "t_weight": packed,
        "t_scales": resident.scales,
        "out_sizes": sizes,
    }
    plan = plan_embedding(
        resident.shape, ids.size, layout, dtype, "texture3d", context.limits, context.half_support
    )
    encoder = context.device.create_command_encoder()
    context.encode(encoder, plan, resources)
    result = np.empty((1, ids.size, embed_dim), dtype)
    out_texture.read(encoder, result)
    return np.asarray(result[0])


def with_zeros(ids: NDArray[np.int32], weight: Q4Weight, dtype: OutputDtype) -> NDArray[Any]:
    """What the kernel does: an id that is not one has zeros."""
    known = (ids >= 0) & (ids < weight.shape[0])
    expected = reference.embedding(np.where(known, ids, 0), weight, dtype)
    expected[~known] = 0
    return expected


@every_layout
@every_dtype
@pytest.mark.parametrize("scales", get_args(ScalesDtype))
def test_the_kernel_answers_a_wrong_id_with_zeros(
    scales: ScalesDtype, dtype: OutputDtype, layout: Layout
) -> None:
    weight, context = random_weight(ODD, scales), context_for()
    with context.lock:
        whole = dispatch_buffers(context, weight, layout, WRONG_IDS, dtype)
    result, after = whole[: WRONG_IDS.size], whole[WRONG_IDS.size :]
    assert_same_bits(result, with_zeros(WRONG_IDS, weight, dtype))
    assert (after.view(np.uint8) == POISON).all()  # nothing is written past the result


@every_layout
@every_dtype
def test_the_kernel_answers_a_wrong_id_in_a_texture_with_zeros(
    dtype: OutputDtype, layout: Layout
) -> None:
    weight, context = random_weight(ODD, "float16"), context_for()
    with context.lock:
        result = dispatch_textures(context, weight, layout, WRONG_IDS, dtype)
    assert_same_bits(result, with_zeros(WRONG_IDS, weight, dtype))


@pytest.mark.parametrize("ids", [1, 85, 86, 171, 256])
def test_the_kernel_writes_its_result_and_no_more(ids: int) -> None:
    """6 quads an id, 512 a workgroup: 85 ids end before its edge, 86 after, 256 upon one."""
    weight, context = random_weight(ODD, "float16"), context_for()
    wanted = some_ids(ODD, (ids,)).astype(np.int32)
    for dtype in DTYPES:
        with context.lock:
            whole = dispatch_buffers(context, weight, "rows", wanted, dtype)
        assert_same_bits(whole[:ids], reference.embedding(wanted, weight, dtype))
        assert (whole[ids:].view(np.uint8) == POISON).all()


# Grids and results beyond a limit


@pytest.fixture
def grids(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, int]]:
    """The default device, if it took three workgroups a dimension; the grids dispatched on it."""
    context = context_for()
    limits = {**context.limits, "max-compute-workgroups-per-dimension": 3}
    seen: list[tuple[int, int, int]] = []
    dispatch = context.dispatch

    def spy(compute_pass: Any, plan: Dispatch, *rest: Any) -> None:
        seen.append(plan.workgroups)
        dispatch(compute_pass, plan, *rest)

    monkeypatch.setattr(context, "limits", limits)
    monkeypatch.setattr(context, "dispatch", spy)
    return seen


@every_layout
@every_storage
@every_dtype
def test_grids_are_folded(
    grids: list[tuple[int, int, int]], dtype: OutputDtype, storage: Storage, layout: Layout
) -> None:
    """95 ids of 18 quads, or 190 of 9 octets, are seven workgroups: three by three, two of which
    have nothing to do."""
    weight = anew(random_weight(PRIME, "float16"))
    octets = (dtype, storage) == ("float16", "buffer")
    ids = some_ids(PRIME, (10 if octets else 5, 19))
    result = embedding(ids, weight, dtype, layout=layout, storage=storage)
    assert_same_bits(result, reference.embedding(ids, weight, dtype))
    packs = layout.startswith("blocks")
    assert grids == ([(3, 2, 1)] if packs else []) + [(3, 3, 1)]


def test_a_grid_that_cannot_be_folded(grids: list[tuple[int, int, int]]) -> None:
    weight, ids = random_weight(PRIME, "float16"), np.zeros(300, np.int64)
    with pytest.raises(DeviceLimitError, match="22 workgroups exceed 3 × 3"):
        embedding(ids, weight)
    assert not grids


@pytest.fixture(scope="module")
def small() -> Context:
    """A device that binds 4 KiB at a time and takes two workgroups a dimension."""
    return limited_context(
        {
            "max-storage-buffer-binding-size": 4096,
            "max-buffer-size": 8192,
            "max-compute-workgroups-per-dimension": 2,
        }
    )


@every_dtype
@pytest.mark.parametrize("size", [(41,), (42,), (43,), (5, 100)], ids=str)
def test_results_larger_than_a_binding(
    small: Context, size: tuple[int, ...], dtype: OutputDtype
) -> None:
    """42 rows of 24 floats fit 4 KiB, of halves 85."""
    weight, ids = random_weight(ODD, "float16"), some_ids(ODD, size)
    result = embedding(ids, weight, dtype, small.device)
    assert_same_bits(result, reference.embedding(ids, weight, dtype))


def test_a_weight_larger_than_a_binding(small: Context) -> None:
    with pytest.raises(DeviceLimitError, match=r"the packed weight takes 9,252 bytes .* 4,096"):
        embedding(np.array([0]), random_weight(PRIME, "float16"), device=small.device)


def test_a_row_larger_than_a_binding(small: Context) -> None:
    weight = random_weight(Shape(1, 1032, 1032), "float16")
    with pytest.raises(DeviceLimitError, match=r"embedding takes 4,128 bytes .* allows 4,096"):
        embedding(np.array([0]), weight, device=small.device)
    half = embedding(np.array([0, 0]), weight, "float16", small.device)
    assert_same_bits(half, reference.embedding(np.array([0, 0]), weight, "float16"))
