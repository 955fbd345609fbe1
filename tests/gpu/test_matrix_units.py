"""The kernel for matrix units without any: emulated, bounded, and asked of devices that lack them.

What needs a device that has them is in `on_matrix_units.py`, which ``make matrix-units`` runs, and
which fails where there are none.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from dataclasses import replace
from math import ceil
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.devices import run_on_swiftshader, run_python
from tests.matrix_emulation import emulated
from wgpu_q4 import Q4Weight, kernels, linear, reference
from wgpu_q4.device import context_for, dawn
from wgpu_q4.device.adapter import request_device
from wgpu_q4.device.upload import _exponent
from wgpu_q4.kernels import (
    MATRIX_UNITS,
    Accuracy,
    HalfSupport,
    Layout,
    LinearPlan,
    MatrixShape,
    MatrixUnits,
    matrix_shaders,
    plan_linear,
)

Case = tuple[int, int, int, int, str, Layout, bool]

CASES: list[Case] = [
    # V, K, G, rows of x, scales, layout, bias.  V fills no tile; K is no multiple of 64 and has a
    # group in two steps; the rows take each of the three tiles, the last of them twice.
    (130, 96, 32, 9, "float16", "rows", True),
    (257, 96, 96, 40, "float32", "blocks_buffer", False),
    (131, 160, 32, 130, "float16", "rows", True),
    (50, 32, 32, 20, "float16", "blocks_buffer", True),
]


def matrix_of(case: Case) -> tuple[Q4Weight, NDArray[np.float32], NDArray[np.float32] | None]:
    """Scales that span 24 powers of two, rows of x that span 16 of ten, a row of zeros."""
    vocab, embed_dim, group, rows, scales_dtype, _, biased = case
    rng = np.random.default_rng(4)
    packed = rng.integers(0, 256, (vocab, embed_dim // 2), np.uint8)
    scales = rng.uniform(0.5, 2, (vocab, embed_dim // group)) * rng.choice([-1, 1], (vocab, 1))
    scales *= 2.0 ** rng.integers(-16, 8, scales.shape)
    x = rng.standard_normal((rows, embed_dim)) * 10.0 ** rng.integers(-8, 8, (rows, 1))
    x[3] = 0
    bias = rng.standard_normal(vocab).astype(np.float32) if biased else None
    return Q4Weight(packed, scales.astype(scales_dtype)), x.astype(np.float32), bias


# The kernel, emulated


def run_emulated() -> None:
    """The process of `emulation`: how much of its bound the error of each case takes, as JSON."""
    original = kernels.Shader.source

    def source(variant: kernels.Shader) -> str:
        text: str = original.fget(variant)  # type: ignore[attr-defined]
        return emulated(text) if "linear/matrix_units/extensions" in variant.pieces else text

    kernels.Shader.source = property(source)  # type: ignore[assignment, method-assign]
    device = request_device()
    context_for(device).__dict__["matrix_units"] = frozenset([MATRIX_UNITS])
    shares = []
    for case in CASES:
        weight, x, bias = matrix_of(case)
        result = linear(x, weight, bias, device, accuracy="fast", layout=case[5])
        wrong = np.abs(result - reference.linear(x, weight, bias))
        bound = reference.matrix_units_bound(x, weight, bias)
        shares.append(float(np.where(wrong > 0, wrong / np.maximum(bound, 1e-300), 0).max()))
    ran = {key[0] for key in context_for(device)._kernels}
    print(json.dumps({"shares": shares, "ran": sorted(map(str, ran))}))


@pytest.fixture(scope="module")
def emulation() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run_on_swiftshader("tests.gpu.test_matrix_units", "wgpu"))
    return found


def test_the_emulated_kernel_stays_within_its_bound(emulation: dict[str, Any]) -> None:
    assert len(emulation["shares"]) == len(CASES)
    for case, share in zip(CASES, emulation["shares"], strict=True):
        assert share <= 1, f"{case}: {share} of the bound"
    assert max(emulation["shares"]) > 0.05, "a bound that nothing comes near bounds nothing"


def test_the_emulation_ran_every_tile_and_layout(emulation: dict[str, Any]) -> None:
    variants = {variant.name: variant for variant in matrix_shaders()}
    ran = {
        piece for name in emulation["ran"] if name in variants for piece in variants[name].pieces
    }
    every = {piece for variant in variants.values() for piece in variant.pieces}
    assert every - ran <= {"half/native", "half/integer"}


# The bound


def halved(values: NDArray[Any]) -> NDArray[np.float64]:
    return values.astype(np.float16).astype(np.float64)


def cut(values: NDArray[np.float64], largest: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cut off below the last bit that a float32 of the exponent of ``largest`` has."""
    with np.errstate(divide="ignore", invalid="ignore"):
        unit = 2.0 ** (np.floor(np.log2(largest)) - 23)
        return np.asarray(np.where(largest > 0, np.trunc(values / unit) * unit, 0))


def multiplied_as_the_units_do(
    x: NDArray[np.float32], weight: Q4Weight, bias: NDArray[np.float32] | None
) -> NDArray[np.float64]:
    """The kernel's arithmetic in numpy, with units that cut off all that they may."""
    scale = 2.0 ** _exponent(weight.scales)
    row_scale = 2.0 ** (15 - np.frexp(np.abs(x).max(axis=1, keepdims=True).astype(float))[1])
    left = halved(x * row_scale)
    nibbles = reference.matrix(Q4Weight(weight.packed, np.ones_like(weight.scales)))
    scales = halved(weight.scales.astype(np.float64) * scale)
    right = halved(nibbles * np.repeat(scales, weight.group_size, axis=1))
    sums = np.zeros((len(x), len(right)))
    for k in range(0, left.shape[1], 16):
        terms = left[:, None, k : k + 16] * right[None, :, k : k + 16]
        terms = np.concatenate([sums[..., None], terms], axis=-1)
        largest = np.abs(terms).max(axis=-1)
        added = cut(terms, largest[..., None]).sum(axis=-1)
        sums = cut(added, np.abs(added))
    product = sums / scale / row_scale
    return np.asarray((product if bias is None else product + bias).astype(np.float32), np.float64)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_bound_holds_for_units_that_cut_off(case: Case) -> None:
    weight, x, bias = matrix_of(case)
    x[3] = 1e-30  # the emulation divides by the largest of a row
    wrong = np.abs(multiplied_as_the_units_do(x, weight, bias) - reference.linear(x, weight, bias))
    assert (wrong <= reference.matrix_units_bound(x, weight, bias)).all()


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_the_largest_scale_is_brought_below_2_to_the_12(dtype: Any) -> None:
    for largest in (1.0, 1.999, 2.0**-24, 2.0**-14, 3e-5, 0.01, 60000.0):
        scales = np.array([[0, largest, largest / 3, -largest]], dtype)
        assert 2**11 <= float(scales[0, 1]) * 2.0 ** _exponent(scales) < 2**12
    assert _exponent(np.zeros((2, 2), dtype)) == 0
    assert _exponent(np.array([[1, -np.inf]], dtype)) == 0


# The choice

LLAMA = MatrixShape(128256, 2048, 32, "float16")
SMALL: Mapping[str, int] = {
    "max-compute-workgroup-storage-size": 16384,
    "max-compute-invocations-per-workgroup": 256,
    "max-compute-workgroup-size-x": 256,
    "max-compute-workgroups-per-dimension": 65535,
}
LARGE = {**SMALL, "max-compute-workgroup-storage-size": 49152}


def planned(
    shape: MatrixShape = LLAMA,
    rows: int = 500,
    layout: Layout = "rows",
    limits: Mapping[str, int] = LARGE,
    accuracy: Accuracy = "fast",
    units: Collection[MatrixUnits] = (MATRIX_UNITS,),
    kernel: str | None = None,
) -> LinearPlan:
    support = HalfSupport(subnormals=True, rounding=True)
    return plan_linear(shape, rows, layout, False, limits, support, kernel, accuracy, units)


def uses_units(plan: LinearPlan) -> bool:
    return plan.product.shader.name in {variant.name for variant in matrix_shaders()}


def test_matrix_units_are_used_where_accuracy_allows() -> None:
    assert not uses_units(planned(accuracy="exact"))
    assert uses_units(planned(accuracy="fast"))
    assert uses_units(planned(accuracy="int8"))
    assert uses_units(planned(layout="blocks_buffer"))
    assert not uses_units(planned(rows=1))


WRONG_UNITS = [
    replace(MATRIX_UNITS, m=8, n=8, k=8),
    replace(MATRIX_UNITS, n=8),
    replace(MATRIX_UNITS, sums="f16"),
    replace(MATRIX_UNITS, factors="u8", sums="u32"),
    # Its subgroups may have 64 lanes, of which the kernel would leave out every other.
    replace(MATRIX_UNITS, most_subgroup=64),
]


def test_other_units_are_left_alone() -> None:
    for units in ([], WRONG_UNITS):
        assert not uses_units(planned(units=units))
        with pytest.raises(
            ValueError, match=r"^gemm_matrix needs a device with matrix units .*Dawn"
        ):
            planned(units=units, kernel="gemm_matrix")
    assert uses_units(planned(units=[*WRONG_UNITS, MATRIX_UNITS]))


@pytest.mark.parametrize(
    ("shape", "layout", "limits", "lacking"),
    [
        (MatrixShape(50, 64, 16, "float16"), "rows", LARGE, "K and G multiples of 32"),
        (MatrixShape(50, 72, 24, "float16"), "blocks_buffer", LARGE, "K and G multiples of 32"),
        (LLAMA, "rows_embedding", LARGE, "the layout 'rows' or 'blocks_buffer'"),
        (LLAMA, "blocks_texture2d", LARGE, "the layout 'rows' or 'blocks_buffer'"),
        (LLAMA, "rows", SMALL, ".* 24,064 bytes of workgroup memory"),
    ],
)
def test_what_matrix_units_cannot_do_goes_elsewhere(
    shape: MatrixShape, layout: Layout, limits: Mapping[str, int], lacking: str
) -> None:
    assert not uses_units(planned(shape, layout=layout, limits=limits))
    with pytest.raises(ValueError, match=f"^gemm_matrix needs {lacking}"):
        planned(shape, layout=layout, limits=limits, kernel="gemm_matrix")


@pytest.mark.parametrize("embed_dim", [32, 64, 96, 2048, 2080])
@pytest.mark.parametrize("rows", [1, 5, 32, 33, 64, 65, 128, 129, 1000])
def test_matrix_units_cover_every_output(rows: int, embed_dim: int) -> None:
    shape = MatrixShape(257, embed_dim, 32, "float16")
    plan = planned(shape, rows, kernel="gemm_matrix")
    (tile,) = (p for p in plan.product.shader.pieces if p.startswith("linear/matrix_units/tile_"))
    tile_rows, tile_outputs = map(int, tile.removeprefix("linear/matrix_units/tile_").split("x"))
    subgroups = plan.product.constants["SUBGROUPS_M"]
    assert 4 // subgroups * tile_outputs == 128
    assert plan.padded_rows == ceil(rows / (tile_rows * subgroups)) * tile_rows * subgroups
    tiles = plan.padded_rows // (tile_rows * subgroups) * ceil(shape.vocab / 128)
    assert plan.product.workgroups == (tiles, 1, 1)
    assert plan.preparation is not None
    padded_dim = ceil(embed_dim / 64) * 64
    assert plan.preparation.workgroups == (plan.padded_rows, 1, 1)
    assert plan.preparation.constants == {**shape.constants, "PADDED_DIM": padded_dim}
    assert plan.x_bytes == plan.padded_rows * padded_dim * 2
    assert plan.x_scale_bytes == plan.padded_rows * 4


# Devices


CONFIG = {
    "m": 16,
    "n": 16,
    "k": 16,
    "component_type": "f16",
    "result_component_type": "f32",
    "min_subgroup_size": 32,
    "max_subgroup_size": 32,
}


@pytest.fixture
def described(monkeypatch: pytest.MonkeyPatch) -> Any:
    """An adapter as Dawn describes one with matrix units."""
    from wgpudawn.backends.dawn import extras

    monkeypatch.delenv(dawn.ENVIRONMENT_VARIABLE, raising=False)
    configs = [CONFIG, {**CONFIG, "component_type": "u8", "result_component_type": "u32"}]
    adapter = SimpleNamespace(features=set(dawn.FEATURES))
    monkeypatch.setattr(
        extras, "get_adapter_properties", lambda _: {"subgroup_matrix_configs": configs}
    )
    return adapter


def test_what_an_adapter_describes(described: Any) -> None:
    found = dawn.matrix_units(described, described)
    assert found == {MATRIX_UNITS, MatrixUnits(16, 16, 16, "u8", "u32", 32, 32)}


@pytest.mark.parametrize("absent", dawn.FEATURES)
def test_a_device_without_a_feature_has_none(described: Any, absent: str) -> None:
    device = SimpleNamespace(features=set(dawn.FEATURES) - {absent})
    assert dawn.matrix_units(device, described) == frozenset()


def test_they_can_be_left_alone(described: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(dawn.ENVIRONMENT_VARIABLE, "0")
    assert dawn.matrix_units(described, described) == frozenset()


def test_a_device_without_them_says_so() -> None:
    weight, x, _ = matrix_of(CASES[0])
    context = context_for()
    assert context.matrix_units == frozenset()
    with pytest.raises(
        ValueError, match=r"gemm_matrix needs a device with matrix units .*wgpudawn"
    ):
        linear(x, weight, kernel="gemm_matrix")


def test_an_instance_that_is_there_is_left_as_it_is() -> None:
    """Whoever configured Dawn before has the say; and a second adapter is no second instance."""
    code = (
        "from wgpudawn.backends.dawn import extras\n"
        "extras.set_instance_extras(enable_toggles=['disable_workgroup_init'])\n"
        "from wgpu_q4.device.adapter import list_adapters\n"
        "list_adapters('wgpudawn'), list_adapters('wgpudawn')\n"
    )
    run_python("-c", code, PYTHONPATH=os.getcwd())


if __name__ == "__main__":
    run_emulated()
