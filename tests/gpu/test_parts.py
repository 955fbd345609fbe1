"""Weights larger than a binding: in parts, and the same bits as in one."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.cases import (
    PRIME,
    WIDE,
    Shape,
    anew,
    assert_same_bits,
    bindings_of,
    limited_context,
    random_weight,
    random_x,
    some_ids,
)
from tests.devices import default_device
from tests.products import KERNELS, assert_within_bound, integer_weight, integer_x
from tests.recorder import Recorder
from tests.reductions import FLOATS, best, check_floats, kept_of
from wgpu_q4 import DeviceLimitError, Q4Weight, argmax, embedding, forced, linear, reference, top_k
from wgpu_q4.device import Context, context_for
from wgpu_q4.format import Convention, ScalesDtype
from wgpu_q4.kernels import Accuracy, Layout
from wgpu_q4.ops import linear_transposed

MIB = 1 << 20


@pytest.fixture(scope="module")
def mib() -> Context:
    """A device that binds 1 MiB at a time."""
    return limited_context({"max-storage-buffer-binding-size": MIB})


def parts_of(weight: Q4Weight, context: Context) -> list[int]:
    """How many rows each part has."""
    return [part.shape.vocab for part in context.weight(weight).parts]


def assert_as_in_one_part(weight: Q4Weight, context: Context) -> None:
    """All ops give the bits that the default device gives, which holds the weight in one part."""
    vocab, embed_dim = weight.shape
    one, device = anew(weight), context.device
    ids = some_ids(Shape(vocab, embed_dim, weight.group_size))
    for dtype in ("float32", "float16"):
        assert_same_bits(embedding(ids, weight, dtype, device), embedding(ids, one, dtype))
    x, bias, y = random_x(1, embed_dim), random_x(vocab), random_x(1, vocab)
    assert_same_bits(linear(x, weight, bias, device), linear(x, one, bias))
    assert_same_bits(argmax(x, weight, bias, device), argmax(x, one, bias))
    found, expected = top_k(x, weight, 70, bias, device), top_k(x, one, 70, bias)
    assert_same_bits(found.ids, expected.ids)
    assert_same_bits(found.values, expected.values)
    errors = np.abs(linear_transposed(y, weight, device) - reference.linear_transposed(y, weight))
    assert (errors <= reference.linear_transposed_bound(y, weight)).all()


# How a weight is divided


@pytest.mark.parametrize(
    ("shape", "binding", "parts"),
    [
        (Shape(64, 128, 128), 4096, [64]),  # 64 bytes a row: a whole binding
        (Shape(65, 128, 128), 4096, [64, 1]),
        (Shape(128, 128, 128), 4096, [64, 64]),
        (Shape(1, 8192, 8192), 4096, [1]),
        (Shape(129, 64, 64), 4096, [128, 1]),
        (Shape(300, 64, 64), 4096, [128, 128, 44]),
        (Shape(260, 64, 64), 8192, [192, 68]),  # even parts, not full ones
        (Shape(257, 8, 8), 1024, [192, 65]),  # the scales, 4 bytes each, are no larger
    ],
    ids=str,
)
def test_rows_are_divided(shape: Shape, binding: int, parts: list[int]) -> None:
    with bindings_of(binding) as context:
        assert parts_of(anew(random_weight(shape, "float32")), context) == parts


def test_scales_may_be_the_larger_half() -> None:
    """4 bytes of weight and 4 of float32 scale a row of 8; with two groups, 8 and 8."""
    weight = anew(random_weight(Shape(200, 16, 8), "float32"))
    with bindings_of(1024) as context:
        assert parts_of(weight, context) == [128, 72]


def test_every_byte_is_on_the_device_once() -> None:
    context = context_for(default_device("wgpu"))
    context.limits = {**context.limits, "max-storage-buffer-binding-size": 4096}
    weight = anew(random_weight(PRIME, "float16"))
    recorder = Recorder(context.device)
    assert_as_in_one_part(weight, context)
    resident = context.weight(weight)
    assert [part.shape.vocab for part in resident.parts] == [64, 64, 64, 64, 1]
    assert resident.nbytes == weight.nbytes + 2  # the last of an odd number of scales is padded
    labels = [call["label"] for call in recorder.named("create_buffer")]
    assert (labels.count("wgpu_q4 packed rows"), labels.count("wgpu_q4 scales")) == (5, 5)
    assert max(part.scales.size for part in resident.parts) <= 4096
    described = resident.describe()
    assert ": rows in 5 parts, " in described
    assert described in weight._repr_html_()


# Results


@settings(max_examples=6)
@given(st.data())
def test_any_shape_in_any_parts(data: st.DataObject) -> None:
    embed_dim = 8 * data.draw(st.integers(1, 16), "K / 8")
    groups = [size for size in range(8, embed_dim + 1, 8) if embed_dim % size == 0]
    group_size = data.draw(st.sampled_from(groups), "G")
    shape = Shape(data.draw(st.integers(1, 700), "V"), embed_dim, group_size)
    scales: ScalesDtype = data.draw(st.sampled_from(get_args(ScalesDtype)))
    convention: Convention = data.draw(st.sampled_from(get_args(Convention)))
    weight = anew(random_weight(shape, scales, convention))
    dtype, kept = data.draw(st.sampled_from(["float16", "float32"]), "dtype"), min(shape.vocab, 70)
    ids, x, y = some_ids(shape), random_x(1, embed_dim), random_x(1, shape.vocab)
    # 64 rows of weight or of scales, and 70 candidates of each of 11 parts.
    binding = data.draw(st.integers(max(64 * embed_dim // 2, 11 * 70 * 8), 1 << 15), "binding")
    with bindings_of(binding) as context:
        resident = context.weight(weight)
        assert sum(part.shape.vocab for part in resident.parts) == shape.vocab
        assert_same_bits(embedding(ids, weight, dtype), reference.embedding(ids, weight, dtype))
        logits = linear(x, weight)
        assert_within_bound(logits, x, weight)
        np.testing.assert_array_equal(top_k(x, weight, kept).ids, best(logits, kept))
        errors = np.abs(linear_transposed(y, weight) - reference.linear_transposed(y, weight))
        assert (errors <= reference.linear_transposed_bound(y, weight)).all()
        assert max(buffer.size for buffer in resident.resources) <= binding


@pytest.mark.parametrize(
    ("shape", "scales"),
    [
        (Shape(262_144 + 1, 8, 8), "float16"),  # a row of logits is larger than a binding, too
        (Shape(5003, 1024, 32), "float16"),
        (Shape(2 * 2048 + 63, 1024, 1024), "float32"),
        (Shape(12_289, 256, 8), "float32"),
    ],
    ids=str,
)
def test_a_binding_of_a_mebibyte(shape: Shape, scales: ScalesDtype, mib: Context) -> None:
    weight = anew(random_weight(shape, scales))
    assert len(parts_of(weight, mib)) > 1
    assert_as_in_one_part(weight, mib)


@pytest.mark.parametrize("accuracy", get_args(Accuracy))
@pytest.mark.parametrize("rows", [3, 40])
def test_the_kernels_of_the_table(rows: int, accuracy: Accuracy, mib: Context) -> None:
    weight, x = anew(random_weight(Shape(4096, 1024, 32), "float16")), random_x(rows, 1024)
    assert parts_of(weight, mib) == [2048, 2048]
    found = linear(x, weight, None, mib.device, accuracy=accuracy)
    assert_same_bits(found, linear(x, weight, accuracy=accuracy))


@pytest.mark.parametrize(("kernel", "layout", "shape", "rows"), KERNELS, ids=str)
def test_every_kernel_and_layout(kernel: str, layout: Layout, shape: Shape, rows: int) -> None:
    """Integers are summed exactly: every output is right, and is where it belongs."""
    vocab = {PRIME: 896, WIDE: 640}[shape]  # two even parts, for which one kernel is compiled
    shape = Shape(vocab, shape.embed_dim, shape.group_size)
    weight, x = anew(integer_weight(shape, "float16")), integer_x(rows, shape, kernel)
    bias = np.arange(shape.vocab, dtype=np.float32)
    with bindings_of(1 << 14) as context, forced(layout=layout):
        if kernel == "gemv_wide_subnormal" and not context.half_support.subnormals:
            kernel = "gemv_wide"
        assert parts_of(weight, context) == [vocab // 2, vocab // 2]
        with forced(kernel=kernel):
            found = linear(x, weight, bias)
    np.testing.assert_array_equal(found, reference.linear(x, weight, bias))


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("layout", get_args(Layout))
def test_rows_of_every_layout(layout: Layout, dtype: str) -> None:
    weight, ids = anew(random_weight(PRIME, "float16")), some_ids(PRIME)
    with bindings_of(4096) as context, forced(layout=layout):
        assert parts_of(weight, context) == [64, 64, 64, 64, 1]
        assert_same_bits(embedding(ids, weight, dtype), reference.embedding(ids, weight, dtype))


@pytest.mark.parametrize("parts", [2, 7])
@pytest.mark.parametrize("name", FLOATS)
def test_reductions_over_parts(name: str, parts: int) -> None:
    """NaN, zeros of either sign and ties across the parts; parts with few logits."""
    logits = FLOATS[name]
    if (vocab := logits.shape[1]) < parts:
        parts = vocab
    check_floats(context_for(), logits, "argmax", 1, parts)
    for kept in kept_of(vocab):
        check_floats(context_for(), logits, "top_k", kept, parts)


def test_integers_of_y_are_summed_exactly() -> None:
    weight = anew(integer_weight(Shape(1031, 264, 24), "float32"))
    y = np.random.default_rng(9).integers(-8, 9, (6, 1031)).astype(np.float32)
    with bindings_of(1 << 16) as context:
        assert parts_of(weight, context) == [384, 384, 263]
        found = linear_transposed(y, weight)
    np.testing.assert_array_equal(found, reference.linear_transposed(y, weight))


def test_a_sum_over_parts_has_one_order() -> None:
    weight, y = anew(random_weight(PRIME, "float16")), random_x(5, PRIME.vocab)
    with bindings_of(1 << 12):
        first = linear_transposed(y, weight)
        assert_same_bits(linear_transposed(y, weight), first)


# What runs


def test_only_the_parts_that_are_asked_run(grids: list[tuple[int, int, int]]) -> None:
    weight = anew(random_weight(PRIME, "float16"))
    with bindings_of(4096) as context:
        assert parts_of(weight, context) == [64, 64, 64, 64, 1]
        for ids, dispatches in (([3], 1), ([256], 1), ([0, 63, 64], 2), ([200, 70, 256], 3)):
            grids.clear()
            assert_same_bits(embedding(ids, weight), reference.embedding(np.array(ids), weight))
            assert len(grids) == dispatches


def test_a_repeated_call_creates_nothing() -> None:
    weight, x = anew(random_weight(WIDE, "float16")), random_x(2, WIDE.embed_dim)
    ids, y = np.arange(WIDE.vocab), random_x(2, WIDE.vocab)
    with bindings_of(4096) as context:
        assert parts_of(weight, context) == [64, 37]

        def calls() -> NDArray[np.float32]:
            best = top_k(x, weight, 3)
            rows = embedding(ids, weight)
            results = rows, linear(x, weight), best.values, linear_transposed(y, weight)
            return np.concatenate([result.ravel() for result in results])

        def created() -> tuple[int, int, int]:
            made = context.pipelines
            return context.buffers_created, made.bind_groups_created, made.pipelines_created

        first = calls()
        counted = created()
        assert_same_bits(calls(), first)
        assert created() == counted


def test_textures_hold_one_part() -> None:
    weight = anew(random_weight(PRIME, "float16"))
    with (
        bindings_of(4096),
        pytest.raises(DeviceLimitError, match=r"in 5, .* at most 4,096 bytes .*storage='buffer'"),
        forced(storage="texture3d"),
    ):
        embedding([0], weight)


def test_the_last_strip_of_blocks_may_not_fit() -> None:
    weight = anew(random_weight(Shape(125, 64, 64), "float16"))
    with bindings_of(125 * 32):
        assert_same_bits(embedding([124], weight), reference.embedding(np.array([124]), weight))
        with (
            pytest.raises(DeviceLimitError, match=r"in blocks takes 4,096 .* allows 4,000"),
            forced(layout="blocks_buffer"),
        ):
            embedding([124], weight)
