"""Cases of the ops that run in a process of their own, on whatever implementation it has.

``python -m tests.backend_cases`` runs them on a device with WebGPU's default limits and no feature,
and prints the outcomes as JSON.  ``tests/gpu/test_backends.py`` starts it on SwiftShader.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable, Iterator
from functools import cache, partial
from importlib import import_module
from itertools import product
from typing import Any, get_args

import numpy as np
import pytest

from tests import on_device
from tests.cases import (
    ODD,
    PRIME,
    WIDE,
    Shape,
    anew,
    assert_same_bits,
    bindings_of,
    random_weight,
    random_x,
    some_ids,
)
from tests.decoder_oracle import EVERYTHING, PLAIN, bound, logits_of, random_weights
from tests.devices import default_device, leave_workgroup_memory_as_it_is
from tests.products import INTEGER_GEMVS, WIDE_LAYOUTS, integer_weight, integer_x
from wgpu_q4 import Q4Weight, argmax, embedding, forced, linear, reference, top_k
from wgpu_q4.decoder import Config, Decoder
from wgpu_q4.decoder.choose import Logits, advance
from wgpu_q4.decoder.draw import Draw
from wgpu_q4.device import Context, context_for, default_context
from wgpu_q4.device.implementation import load_implementation
from wgpu_q4.device.pipelines import Step
from wgpu_q4.device.upload import upload
from wgpu_q4.format import ScalesDtype
from wgpu_q4.kernels import (
    Dispatch,
    HalfSupport,
    Layout,
    OutputDtype,
    Storage,
)
from wgpu_q4.kernels.decoder import CacheDtype, WeightType
from wgpu_q4.kernels.decoder.sampling import Sampling
from wgpu_q4.kernels.reduction import reduction_shader
from wgpu_q4.ops import linear_transposed

Case = Callable[[Any], None]
"""A check on a device, which raises."""

LAYOUTS: tuple[Layout, ...] = get_args(Layout)


@cache
def weight_of(shape: Shape, scales: ScalesDtype) -> Q4Weight:
    """One object for all cases, so that a device uploads it once."""
    return anew(random_weight(shape, scales))


def check_embedding(
    shape: Shape,
    scales: ScalesDtype,
    dtype: OutputDtype,
    storage: Storage,
    layout: Layout,
    device: Any,
) -> None:
    weight, ids = weight_of(shape, scales), some_ids(shape)
    with forced(layout=layout, storage=storage):
        result = embedding(ids, weight, dtype, device)
    assert_same_bits(result, reference.embedding(ids, weight, dtype))


def check_linear(
    shape: Shape,
    rows: int,
    scales: ScalesDtype,
    with_bias: bool,
    layout: Layout,
    kernel: str,
    device: Any,
) -> None:
    weight, x = weight_of(shape, scales), random_x(rows, shape.embed_dim)
    bias = random_x(shape.vocab) if with_bias else None
    with forced(layout=layout, kernel=kernel):
        result = linear(x, weight, bias, device)
    assert result.dtype == np.float32
    error = np.abs(result - reference.linear(x, weight, bias))
    assert np.all(error <= reference.linear_bound(x, weight, bias)), f"largest error {error.max()}"


def check_integers(
    shape: Shape,
    rows: int,
    scales: ScalesDtype,
    layout: Layout,
    kernel: str,
    device: Any,
) -> None:
    """To the bit: x is such that nothing is rounded."""
    weight, x = integer_weight(shape, scales), integer_x(rows, shape, kernel)
    bias = np.arange(shape.vocab, dtype=np.float32) / 8 - 4
    with forced(layout=layout, kernel=kernel):
        result = linear(x, weight, bias, device)
    np.testing.assert_array_equal(result, reference.linear(x, weight, bias))


def check_wide_subnormal(device: Any) -> None:
    """Where the device cannot, it must say so."""
    check = partial(check_linear, WIDE, 3, "float16", True, "rows", "gemv_wide_subnormal")
    if context_for(device).half_support.subnormals:
        check(device)
    else:
        with pytest.raises(ValueError, match="needs a device that keeps half-precision subnormals"):
            check(device)


def extremes(largest: int) -> Q4Weight:
    """Products from below the smallest half up to 10.4 · 2^largest, ties among them."""
    scales = 2.0 ** np.arange(-28, largest + 1) * np.array([[1], [1 + 2**-10], [-1.3]])
    packed = np.random.default_rng(6).integers(0, 256, (scales.size, 4), np.uint8)
    return Q4Weight(packed, scales.reshape(-1, 1).astype(np.float32))


def check_halves(storage: Storage, device: Any) -> None:
    """Over the whole range and beyond; in a texture only as far as the range goes.

    Given an infinity, SwiftShader's texture store writes a NaN, and spoils the value beside it.
    """
    weight = extremes(17 if storage == "buffer" else 12)
    ids = np.arange(weight.shape[0])
    with forced(storage=storage):
        result = embedding(ids, weight, "float16", device)
    assert_same_bits(result, reference.embedding(ids, weight, "float16"))


def check_integer_halves(device: Any) -> None:
    """As on a device whose conversions are wrong: they are not used."""
    device = default_device(load_implementation().__name__)
    recorded = record_kernels(device)
    vars(context_for(device))["half_support"] = HalfSupport()
    check_halves("buffer", device)
    check_halves("texture3d", device)
    check_embedding(ODD, "float16", "float32", "buffer", "rows", device)
    check_linear(WIDE, 3, "float16", False, "rows", "gemv_wide", device)
    check_decoder(PLAIN, "float16", "float16", device)
    assert recorded
    assert all(("float16" in name or "half" in name) == ("integer" in name) for name in recorded)


def check_wrong_ids(storage: Storage, layout: Layout, device: Any) -> None:
    """The kernel's own guard, with the host's check out of the way: zeros, and no other row."""
    weight = weight_of(ODD, "float16")
    ids = np.array([0, -1, ODD.vocab - 1, ODD.vocab, 5, 2**31 - 1, -(2**31)], np.int32)
    known = (ids >= 0) & (ids < ODD.vocab)
    expected = reference.embedding(np.where(known, ids, 0), weight)
    expected[~known] = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            import_module("wgpu_q4.ops.embedding"), "check_indices", lambda indices, vocab: indices
        )
        with forced(layout=layout, storage=storage):
            result = embedding(ids, weight, device=device)
    np.testing.assert_array_equal(result, expected)


def check_parts(device: Any) -> None:
    """A weight in three parts, whose rows and logits must come together."""
    weight = anew(random_weight(Shape(192, 128, 32), "float16"))
    ids, x = some_ids(Shape(192, 128, 32)), random_x(2, 128)
    with bindings_of(4096, device) as context:
        assert len(context.weight(weight).parts) == 3
        for dtype in ("float32", "float16"):
            rows = embedding(ids, weight, dtype, device)
            assert_same_bits(rows, reference.embedding(ids, weight, dtype))
        logits = linear(x, weight, device=device)
        np.testing.assert_array_equal(argmax(x, weight, device=device), logits.argmax(-1))
    error = np.abs(logits - reference.linear(x, weight))
    assert np.all(error <= reference.linear_bound(x, weight))


def check_reduce(device: Any) -> None:
    """Of a wide vocabulary, so that there are candidates to reduce again."""
    weight, x = weight_of(Shape(2053, 8, 8), "float16"), random_x(3, 8)
    logits = linear(x, weight, device=device)
    np.testing.assert_array_equal(argmax(x, weight, device=device), logits.argmax(-1))
    top = top_k(x, weight, 9, device=device)
    expected = np.argsort(-logits, axis=-1, kind="stable")[:, :9]
    np.testing.assert_array_equal(top.ids, expected)
    np.testing.assert_array_equal(top.values, np.take_along_axis(logits, expected, -1))


def check_transposed(rows: int, scales: ScalesDtype, device: Any) -> None:
    """Whose parts are more than one, the last of them shorter."""
    weight, y = weight_of(PRIME, scales), random_x(rows, PRIME.vocab)
    error = np.abs(
        linear_transposed(y, weight, device=device) - reference.linear_transposed(y, weight)
    )
    assert np.all(error <= reference.linear_transposed_bound(y, weight))


def check_decoder(
    config: Config, body: WeightType, cache: CacheDtype, device: Any, slices: int = 1
) -> None:
    """A prompt, and steps in which attention has one workgroup for a head, and several.

    ``slices`` workgroups share the columns of a tile of the prompt's products; if they are several,
    steps are those of a GPU without subgroups.
    """
    weights, context = random_weights(config, body), context_for(device)
    with pytest.MonkeyPatch.context() as patch:
        if slices > 1:
            patch.setattr(context, "is_software", False)
            patch.setattr(context, "subgroup_size", 0)
        patch.setattr("wgpu_q4.decoder.prompt.slices_of", lambda *_: slices)
        patch.setattr("wgpu_q4.decoder.token.NEAR", 6)
        decoder = Decoder(weights, device=device, capacity=32, cache=cache, slices=3)
        made = list(decoder.generate([5, 17, 3, 99], 5, end_of_text=()))
    exact = logits_of(weights, [5, 17, 3, 99, *made])
    allowed = bound(exact) if cache == "float32" else 2**-5
    assert np.abs(decoder.logits() - exact[-2]).max() < allowed
    assert np.abs(exact[range(3, 8), made] - exact[3:-1].max(axis=-1)).max() < allowed


def check_chooser(device: Any) -> None:
    """One that leaves an entry for `advance`, as those do that sample."""
    weights = random_weights(PLAIN, "q4gsw")
    ids = [5, 17, 3, 99]
    decoder = Decoder(weights, device=device, capacity=32, chooser=ByReduction())
    made = list(decoder.generate(ids, 5, end_of_text=()))
    assert made == list(
        Decoder(weights, device=device, capacity=32).generate(ids, 5, end_of_text=())
    )


def check_draw(sampling: Sampling, device: Any) -> None:
    """So cold that the largest logit is drawn every time."""
    weights, ids = random_weights(PLAIN, "q4gsw"), [5, 17, 3, 99]
    greedy = Decoder(weights, device=device, capacity=32).generate(ids, 5, end_of_text=())
    drawn = Decoder(weights, device=device, capacity=32, chooser=Draw(sampling))
    assert list(drawn.generate(ids, 5, end_of_text=())) == list(greedy)


class ByReduction:
    """Choose the largest logit by the reduction of `argmax`."""

    def begin(self, position: int, history: object) -> None:
        """Keep nothing."""

    def steps(self, context: Context, logits: Logits) -> list[Step]:
        count = logits.best_count
        constants = {"COLUMNS": count, "SLICE": 1 << (count - 1).bit_length()}
        dispatch = Dispatch(reduction_shader("argmax", "candidates"), constants, (1, 1, 1))
        sizes = upload(context, "one row", np.array([1, 0, 0, 0], np.int32), "UNIFORM")
        resources = {"t_out": logits.choice, "t_in": logits.best, "sizes": sizes}
        return [context.pipelines.step(dispatch, resources), advance(context, logits)]


def check_default_device(device: Any) -> None:
    """Without ``device=``: the adapter's own limits, and what the plan chooses there."""
    weight, ids = weight_of(WIDE, "float16"), some_ids(WIDE)
    assert_same_bits(embedding(ids, weight), reference.embedding(ids, weight))
    x = random_x(2, WIDE.embed_dim)
    error = np.abs(linear(x, weight) - reference.linear(x, weight))
    assert np.all(error <= reference.linear_bound(x, weight))
    assert default_context().implementation is context_for(device).implementation


def cases() -> Iterator[tuple[str, Case]]:
    """Every storage, layout and dtype of the embedding; every kernel and layout of the linear."""
    storages: tuple[Storage, ...] = get_args(Storage)
    dtypes: tuple[OutputDtype, ...] = get_args(OutputDtype)
    shapes: dict[ScalesDtype, Shape] = {"float16": PRIME, "float32": ODD}
    for (scales, shape), dtype, storage, layout in product(
        shapes.items(), dtypes, storages, LAYOUTS
    ):
        name = f"embedding-{layout}-{scales}-scales-{storage}-{dtype}"
        yield name, partial(check_embedding, shape, scales, dtype, storage, layout)
    kernels: tuple[str, ...] = ("gemv", "gemm")
    # Either dtype of scales with a bias and without one, for either kernel, in four layouts.
    for (turn, layout), kernel in product(enumerate(LAYOUTS), kernels):
        scales = "float16" if turn % 2 == 0 else "float32"
        bias, rows = (turn < 2) == (kernel == "gemv"), 70 if kernel == "gemm" else 3
        name = f"{kernel}-{layout}-{scales}-scales{'-bias' if bias else ''}"
        yield name, partial(check_linear, PRIME, rows, scales, bias, layout, kernel)
    yield "gemv_wide", partial(check_linear, WIDE, 3, "float16", True, "rows", "gemv_wide")
    yield "gemv_wide-17", partial(check_integers, WIDE, 17, "float32", "rows", "gemv_wide")
    yield from integer_cases()
    yield "gemv_wide_subnormal", check_wide_subnormal
    for storage in storages:
        yield f"halves-{storage}", partial(check_halves, storage)
        yield f"wrong-ids-{storage}", partial(check_wrong_ids, storage, "rows")
    yield "wrong-ids-blocks", partial(check_wrong_ids, "texture3d", "blocks_texture2d")
    yield "reduce", check_reduce
    yield "device-arrays", on_device.check
    yield "parts", check_parts
    yield "transposed-float16", partial(check_transposed, 1, "float16")
    yield "transposed-float32", partial(check_transposed, 5, "float32")
    yield "decoder-chooser", check_chooser
    for name, sampling in (
        ("all", Sampling(temperature=1e-3)),
        ("nucleus", Sampling(temperature=1e-3, top_p=0.9)),
        ("best", Sampling(temperature=1e-3, top_k=5)),
        ("penalty", Sampling(temperature=1e-3, repetition_penalty=1 + 2**-20)),
    ):
        yield f"draw-{name}", partial(check_draw, sampling)
    yield "decoder-q4gsw", partial(check_decoder, PLAIN, "q4gsw", "float16")
    yield "decoder-affine4", partial(check_decoder, PLAIN, "affine4", "float16")
    yield "decoder-affine8", partial(check_decoder, PLAIN, "affine8", "float16", slices=3)
    yield "decoder-float16", partial(check_decoder, EVERYTHING, "float16", "float32")
    yield "integer-halves", check_integer_halves
    yield "default-device", check_default_device


LONG_ROW = Shape(3, 16384, 64)
"""One that workgroups of 16 KiB cannot quantize for themselves."""


def integer_cases() -> Iterator[tuple[str, Case]]:
    """Every kernel on integers with every layout it reads: x quantized here or before, 8 rows at
    once, and both tiles for both ways to stage the weight."""
    for kernel, layout in product(INTEGER_GEMVS, WIDE_LAYOUTS):
        scales: ScalesDtype = "float16" if kernel == "gemv_int16" else "float32"
        several = 9 if (kernel, layout) == ("gemv_int8", "rows") else 3
        for shape, rows in ((WIDE, 1), (WIDE, several), (LONG_ROW, 1)):
            yield (
                f"{kernel}-{layout}-{shape}-{rows}",
                partial(check_integers, shape, rows, scales, layout, kernel),
            )
    for layout, rows in zip(LAYOUTS, (13, 70, 13, 70), strict=True):
        scales = "float16" if rows == 13 else "float32"
        yield (
            f"gemm_int8-{layout}-{rows}",
            partial(check_integers, WIDE, rows, scales, layout, "gemm_int8"),
        )


def record_kernels(device: Any) -> set[str]:
    """The names of the kernels that a device compiles from now on."""
    names: set[str] = set()
    create = device.create_compute_pipeline

    def recorded(**arguments: Any) -> Any:
        names.add(arguments["label"])
        return create(**arguments)

    device.create_compute_pipeline = recorded
    return names


def outcome(case: Case, device: Any) -> str | None:
    """None, or what went wrong."""
    try:
        case(device)
    except Exception:
        return traceback.format_exc()
    return None


def main() -> None:
    """Run all cases here; print the outcomes as JSON."""
    if load_implementation().__name__ == "wgpudawn":
        leave_workgroup_memory_as_it_is()
    device = default_device(load_implementation().__name__)
    names = record_kernels(device)
    outcomes = {name: outcome(case, device) for name, case in cases()}
    report = {
        "implementation": type(device).__module__.partition(".")[0],
        "adapter": device.adapter.info["device"],
        "subnormals": context_for(device).half_support.subnormals,
        "kernels": sorted(names),
        "outcomes": outcomes,
    }
    json.dump(report, sys.stdout)


if __name__ == "__main__":
    main()
