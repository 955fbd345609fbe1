"""The ops on a second driver, through both implementations of WebGPU: naga's code and Tint's.

One process for each runs every case (`tests.backend_cases`) on SwiftShader, on a device with
WebGPU's default limits and no feature, which Dawn enforces strictly.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.backend_cases import Case, cases, integer_cases, outcome
from tests.cases import assert_same_bits
from tests.devices import run_on_swiftshader
from tools.codegen.shaders import WEBGPU_SHADERS, executorch_shaders
from wgpu_q4.device import context_for
from wgpu_q4.kernels import matrix_shaders, optional_shaders, piece_names, portable_shaders

IMPLEMENTATIONS = ("wgpu", "wgpudawn")


@dataclass(frozen=True)
class Backend:
    """An implementation on an adapter, and what came of the cases there."""

    implementation: str
    adapter: str
    subnormals: bool
    kernels: list[str]
    outcomes: Mapping[str, str | None]

    def __str__(self) -> str:
        return f"{self.implementation} on {self.adapter}"


def run_cases(implementation: str) -> Backend:
    report = run_on_swiftshader("tests.backend_cases", implementation)
    return Backend(**json.loads(report))


@pytest.fixture(scope="module")
def backends() -> dict[str, Backend]:
    """Both at once: each keeps one core busy, mostly with compiling."""
    with ThreadPoolExecutor() as pool:
        return dict(zip(IMPLEMENTATIONS, pool.map(run_cases, IMPLEMENTATIONS), strict=True))


@pytest.fixture(params=IMPLEMENTATIONS)
def backend(request: pytest.FixtureRequest, backends: dict[str, Backend]) -> Backend:
    asked: str = request.param
    found = backends[asked]
    assert found.implementation == asked, f"asked for {asked}, ran {found}"
    assert "SwiftShader" in found.adapter, f"SwiftShader was to run this, not {found}"
    return found


@pytest.mark.parametrize("name", [name for name, _ in cases()])
def test_op(backend: Backend, name: str) -> None:
    assert backend.outcomes[name] is None, f"{backend}:\n{backend.outcomes[name]}"


@pytest.mark.parametrize(
    ("name", "case"),
    list(integer_cases()),
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_integers_on_the_first_driver(webgpu_device: Any, name: str, case: Case) -> None:
    """The other tests of these kernels have the adapter's own limits, which are wider."""
    assert context_for(webgpu_device).limits["max-compute-workgroup-storage-size"] == 16384
    case(webgpu_device)


def test_every_piece_ran(backend: Backend) -> None:
    """What the cases are meant to cover, from the names of the kernels that were compiled."""
    variants = {variant.name: variant for variant in portable_shaders()}
    ran = {piece for name in backend.kernels for piece in variants[name].pieces}
    others = (*executorch_shaders(), *WEBGPU_SHADERS)
    for_others = {piece for variant in others for piece in variant.pieces}
    runnable = {piece for variant in variants.values() for piece in variant.pieces}
    # SwiftShader has no matrix units: test_matrix_units.py.
    for_others |= {piece for variant in matrix_shaders() for piece in variant.pieces}
    # Nor has a device without features half-precision arithmetic or subgroups.
    for_others |= {piece for variant in optional_shaders() for piece in variant.pieces}
    assert runnable | for_others == set(piece_names())
    left_out = runnable - ran
    # Of two ways to convert, a device uses one; the other case has a device of its own.
    optional = {"half/native", "half/integer"}
    optional |= {"decoder/two_halves_native", "decoder/two_halves_integer"}
    if not backend.subnormals:
        optional.add("linear/gemv/nibbles_subnormal")
    assert left_out <= optional, f"{backend} ran nothing with {left_out - optional}"
    assert len(left_out & {"half/native", "half/integer"}) == 1


def test_a_failing_case_is_reported() -> None:
    """An outcome is only as good as its failures."""

    def fails(values: NDArray[Any]) -> None:
        assert_same_bits(values, np.zeros(3, np.float32))

    assert outcome(fails, np.zeros(3, np.float32)) is None
    for wrong in (np.ones(3, np.float32), -np.zeros(3, np.float32), np.zeros(3, np.float16)):
        assert "AssertionError" in (outcome(fails, wrong) or "")
