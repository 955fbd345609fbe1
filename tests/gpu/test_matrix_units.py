"""The kernel for matrix units without any: emulated, bounded, and asked of devices that lack them.

When it is chosen is tested in ``tests/unit/kernels/test_matrix_units.py``.  What needs a device
that has them is in `on_matrix_units.py`, which ``make matrix-units`` runs, and which fails where
there are none.
"""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.devices import ROOT, run_on_swiftshader, run_python
from tests.matrix_emulation import emulated
from wgpu_q4 import Q4Weight, forced, kernels, linear, reference
from wgpu_q4.device import context_for, dawn
from wgpu_q4.device.adapter import request_device
from wgpu_q4.device.residents import exponent_of
from wgpu_q4.kernels import (
    MATRIX_UNITS,
    Layout,
    MatrixUnits,
    matrix_shaders,
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
        with forced(layout=case[5]):
            result = linear(x, weight, bias, device, accuracy="fast")
        wrong = np.abs(result - reference.linear(x, weight, bias))
        bound = reference.matrix_units_bound(x, weight, bias)
        shares.append(float(np.where(wrong > 0, wrong / np.maximum(bound, 1e-300), 0).max()))
    ran = context_for(device).pipelines.kernels
    print(json.dumps({"shares": shares, "ran": sorted(ran)}))


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
    scale = 2.0 ** exponent_of(weight.scales)
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
        assert 2**11 <= float(scales[0, 1]) * 2.0 ** exponent_of(scales) < 2**12
    assert exponent_of(np.zeros((2, 2), dtype)) == 0
    assert exponent_of(np.array([[1, -np.inf]], dtype)) == 0


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
    with (
        pytest.raises(ValueError, match=r"gemm_matrix needs a device with matrix units .*wgpudawn"),
        forced(kernel="gemm_matrix"),
    ):
        linear(x, weight)


def test_an_instance_that_is_there_is_left_as_it_is() -> None:
    """Whoever configured Dawn before has the say; and a second adapter is no second instance."""
    code = (
        "from wgpudawn.backends.dawn import extras\n"
        "extras.set_instance_extras(enable_toggles=['disable_workgroup_init'])\n"
        "from wgpu_q4.device.adapter import list_adapters\n"
        "list_adapters('wgpudawn'), list_adapters('wgpudawn')\n"
    )
    run_python("-c", code, PYTHONPATH=str(ROOT))


if __name__ == "__main__":
    run_emulated()
