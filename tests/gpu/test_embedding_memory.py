"""What the kernels of `embedding` guard themselves, and results beyond a limit of the device."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.cases import (
    ODD,
    PRIME,
    Shape,
    anew,
    assert_same_bits,
    limited_context,
    random_weight,
    some_ids,
)
from wgpu_q4 import DeviceLimitError, Q4Weight, embedding, forced, reference
from wgpu_q4.device import Context, context_for
from wgpu_q4.device.pipelines import encode
from wgpu_q4.device.textures import Texture3d, pack_width
from wgpu_q4.format import ScalesDtype
from wgpu_q4.kernels import Layout, OutputDtype, Storage, plan_embedding

LAYOUTS: tuple[Layout, ...] = get_args(Layout)
STORAGES: tuple[Storage, ...] = get_args(Storage)
DTYPES: tuple[OutputDtype, ...] = get_args(OutputDtype)

every_layout = pytest.mark.parametrize("layout", LAYOUTS)
every_storage = pytest.mark.parametrize("storage", STORAGES)
every_dtype = pytest.mark.parametrize("dtype", DTYPES)


POISON = 0xA5
WRONG_IDS = np.array([4, -1, 12, 13, 0, 2**31 - 1, 1, -(2**31), 2, 15, 16, 1000003, 11], np.int32)


def dispatch_buffers(
    context: Context, weight: Q4Weight, layout: Layout, ids: NDArray[np.int32], dtype: OutputDtype
) -> NDArray[Any]:
    """The whole result buffer, twice as long as the result and poisoned before the dispatch."""
    resident = context.weight(weight)
    whole = np.empty((2 * ids.size, weight.shape[1]), dtype)
    whole.view(np.uint8)[:] = POISON
    out_buffer = context.create_buffer("out", whole.nbytes, "STORAGE", "COPY_SRC", "COPY_DST")
    id_buffer = context.create_buffer("ids", ids.nbytes, "STORAGE", "COPY_DST")
    context.write(out_buffer, whole)
    context.write(id_buffer, ids)
    sizes = context.scratch.sizes("test", weight.shape[1], ids.size, 1, 1)
    resources = {
        **resident.parts[0].bindings(context, weight, layout),
        "t_out": out_buffer,
        "t_indices": id_buffer,
        "out_sizes": sizes,
    }
    plan = plan_embedding(
        resident.shape, ids.size, layout, dtype, "buffer", context.limits, context.half_support
    )
    context.run([context.pipelines.step(plan, resources)], out_buffer, whole)
    return whole


def dispatch_textures(
    context: Context, weight: Q4Weight, layout: Layout, ids: NDArray[np.int32], dtype: OutputDtype
) -> NDArray[Any]:
    resident = context.weight(weight)
    embed_dim = weight.shape[1]
    id_texture = Texture3d(context, (-(-ids.size // 4), 1, 1), "rgba32sint", "ids")
    id_texture.write(pack_width(ids.reshape(1, 1, -1)))
    texel = "rgba16float" if dtype == "float16" else "rgba32float"
    out_texture = Texture3d(context, (embed_dim // 4, ids.size, 1), texel, "out")
    resources = {
        **resident.parts[0].bindings(context, weight, layout),
        "t_out": out_texture.view,
        "t_indices": id_texture.view,
        "out_sizes": context.scratch.sizes("test", embed_dim, ids.size, 1, 1),
    }
    plan = plan_embedding(
        resident.shape, ids.size, layout, dtype, "texture3d", context.limits, context.half_support
    )
    encoder = context.device.create_command_encoder()
    encode(encoder, [context.pipelines.step(plan, resources)])
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
def three(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """The default device, if it took three workgroups a dimension."""
    limits = {**context.limits, "max-compute-workgroups-per-dimension": 3}
    monkeypatch.setattr(context, "limits", limits)


@every_layout
@every_storage
@every_dtype
@pytest.mark.usefixtures("three")
def test_grids_are_folded(
    grids: list[tuple[int, int, int]], dtype: OutputDtype, storage: Storage, layout: Layout
) -> None:
    """95 ids of 18 quads, or 190 of 9 octets, are seven workgroups: three by three, two of which
    have nothing to do."""
    weight = anew(random_weight(PRIME, "float16"))
    octets = (dtype, storage) == ("float16", "buffer")
    ids = some_ids(PRIME, (10 if octets else 5, 19))
    with forced(layout=layout, storage=storage):
        result = embedding(ids, weight, dtype)
    assert_same_bits(result, reference.embedding(ids, weight, dtype))
    packs = layout.startswith("blocks")
    assert grids == ([(3, 2, 1)] if packs else []) + [(3, 3, 1)]


@pytest.mark.usefixtures("three")
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


def test_a_row_larger_than_a_binding(small: Context) -> None:
    weight = random_weight(Shape(1, 1032, 1032), "float16")
    with pytest.raises(DeviceLimitError, match=r"embedding takes 4,128 bytes .* allows 4,096"):
        embedding(np.array([0]), weight, device=small.device)
    half = embedding(np.array([0, 0]), weight, "float16", small.device)
    assert_same_bits(half, reference.embedding(np.array([0, 0]), weight, "float16"))
