"""`argmax` and `top_k`: the ids that numpy finds in the same device's logits, and nothing else."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import wgpu_q4
from tests.cases import (
    ODD,
    PRIME,
    TINY,
    WIDE,
    Shape,
    assert_same_bits,
    limited_context,
    random_weight,
    random_x,
)
from tests.reductions import best
from wgpu_q4 import Q4Weight, TopK, argmax, forced, linear, top_k
from wgpu_q4.device import context_for
from wgpu_q4.kernels import Layout


def check_best(weight: Q4Weight, x: Any, kept: int, **options: Any) -> None:
    """Both find what numpy finds in the logits of the same device."""
    logits = linear(np.asarray(x, np.float32), weight, **options)
    ids = argmax(x, weight, **options)
    assert (ids.dtype, ids.shape) == (np.int64, x.shape[:-1])
    np.testing.assert_array_equal(ids, logits.argmax(-1))
    top = top_k(x, weight, kept, **options)
    assert isinstance(top, TopK)
    expected = best(logits, kept)
    assert_same_bits(top.ids, expected)
    assert_same_bits(top.values, np.take_along_axis(logits, expected, -1).astype(x.dtype))


@pytest.mark.parametrize("shape", [TINY, ODD, PRIME, WIDE], ids=str)
@pytest.mark.parametrize("rows", [1, 3, 40])
def test_every_shape(shape: Shape, rows: int) -> None:
    weight, x = random_weight(shape, "float16"), random_x(rows, shape.embed_dim)
    check_best(weight, x, min(5, shape.vocab))
    check_best(weight, x, shape.vocab, bias=random_x(shape.vocab))


@pytest.mark.parametrize("leading", [(), (1,), (2, 3), (0,), (2, 0, 3)])
def test_leading_dimensions(leading: tuple[int, ...]) -> None:
    check_best(random_weight(ODD, "float16"), random_x(*leading, ODD.embed_dim), 4)


def test_float32_logits_decide_for_halves() -> None:
    """Two logits that are one half: the larger has the larger id."""
    packed = np.full((2, 4), 0x99, np.uint8)
    scales = np.array([[1.0], [1 + 2**-12]], np.float32)
    weight, x = Q4Weight(packed, scales), np.ones(8, np.float16)
    assert linear(x, weight)[0] == linear(x, weight)[1]
    assert argmax(x, weight) == 1
    top = top_k(x, weight, 2)
    assert top.values.dtype == np.float16
    np.testing.assert_array_equal(top.ids, [1, 0])


@pytest.mark.parametrize("layout", ["rows", "rows_embedding", "blocks_buffer", "blocks_texture2d"])
def test_every_layout(layout: Layout) -> None:
    with forced(layout=layout):
        check_best(random_weight(PRIME, "float32"), random_x(3, 72), 7)


def test_not_a_number_from_x_and_from_the_bias() -> None:
    weight, x = random_weight(ODD, "float16"), random_x(2, ODD.embed_dim)
    bias = random_x(ODD.vocab)
    bias[[3, 8]] = np.nan
    check_best(weight, x, 5, bias=bias)
    bias[3] = np.inf
    check_best(weight, x, 5, bias=bias)
    bias[8] = -np.inf
    check_best(weight, x, ODD.vocab, bias=bias)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_torch_in_torch_out(dtype: torch.dtype) -> None:
    weight = random_weight(PRIME, "float16")
    x = torch.from_numpy(random_x(2, 3, PRIME.embed_dim)).to(dtype)
    logits = linear(x.float(), weight)
    ids = argmax(x, weight)
    assert (ids.dtype, ids.shape) == (torch.int64, (2, 3))
    assert torch.equal(ids, logits.argmax(-1))
    top = top_k(x, weight, 4)
    expected = best(logits.numpy(), 4)
    np.testing.assert_array_equal(top.ids.numpy(), expected)
    assert (top.values.dtype, top.ids.dtype) == (dtype, torch.int64)
    assert torch.equal(top.values, torch.gather(logits, -1, top.ids).to(dtype))


@pytest.mark.parametrize("rows", [15, 16, 40])
def test_results_larger_than_a_binding(rows: int) -> None:
    """16 KiB at a time: chunks of the rows, each reduced."""
    limits = {"max-storage-buffer-binding-size": 16384, "max-buffer-size": 32768}
    device = limited_context(limits).device
    check_best(random_weight(PRIME, "float16"), random_x(rows, 72), 9, device=device)
    # 257 candidates take more than 257 logits.
    check_best(random_weight(PRIME, "float16"), random_x(rows, 72), 257, device=device)


def test_only_what_is_kept_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    context, seen = context_for(), []
    run = context.run

    def spy(steps: Any, source: Any, out: NDArray[Any]) -> None:
        seen.append(out.nbytes)
        run(steps, source, out)

    monkeypatch.setattr(context, "run", spy)
    weight, x = random_weight(PRIME, "float16"), random_x(3, 72)
    argmax(x, weight)
    top_k(x, weight, 10)
    linear(x, weight)
    assert seen == [3 * 8, 3 * 10 * 8, 3 * 257 * 4]


# What is refused, before anything runs


@pytest.mark.parametrize(
    ("k", "error", "message"),
    [
        (0, ValueError, r"k must be in 1..13 \(the vocabulary\), not 0"),
        (-1, ValueError, "not -1"),
        (14, ValueError, r"k must be in 1..13 \(the vocabulary\), not 14"),
        (2.0, TypeError, "k must be an integer, not float"),
        ("2", TypeError, "k must be an integer, not str"),
        (None, TypeError, "k must be an integer, not NoneType"),
    ],
)
def test_a_wrong_k(k: Any, error: type[Exception], message: str) -> None:
    weight, x = random_weight(ODD, "float16"), random_x(1, ODD.embed_dim)
    with pytest.raises(error, match=message):
        top_k(x, weight, k, device=object())  # no such device, and nobody asks


@pytest.mark.parametrize("op", [argmax, partial(top_k, k=2)])
def test_arguments_are_those_of_linear(op: Any) -> None:
    weight, x = random_weight(ODD, "float16"), random_x(1, ODD.embed_dim)
    with pytest.raises(TypeError, match="x must be float32 or float16, not float64"):
        op(x.astype(np.float64), weight)
    with pytest.raises(ValueError, match=r"x must have shape \[\.\.\., 24\]"):
        op(x[:, 1:], weight)
    with pytest.raises(ValueError, match=r"bias must have shape \[13\], not \[12\]"):
        op(x, weight, bias=np.zeros(12, np.float32))
    with pytest.raises(ValueError, match="accuracy must be one of exact, fast, int8"):
        op(x, weight, accuracy="best")
    with pytest.raises(TypeError, match="weight must be a Q4Weight"):
        op(x, x)


def test_the_largest_k() -> None:
    weight = random_weight(Shape(1500, 8, 8), "float16")
    check_best(weight, random_x(2, 8), 1024)
    check_best(weight, random_x(2, 8), int(np.int32(700)))
    with pytest.raises(ValueError, match=r"k must be in 1..1024 \(the most that a workgroup sorts"):
        top_k(random_x(1, 8), weight, 1025)


def test_a_numpy_integer_will_do() -> None:
    weight, x = random_weight(ODD, "float16"), random_x(1, ODD.embed_dim)
    assert top_k(x, weight, np.int64(3)).ids.shape == (1, 3)


def test_the_package_offers_it() -> None:
    assert wgpu_q4.TopK is TopK
    assert TopK._fields == ("values", "ids")
