"""Two compilers take every shader: naga, which wgpu uses, and Tint, which Chrome and Dawn use.

naga compiles through wgpu, on the adapter that is there; Tint through wgpudawn on SwiftShader.
Both get a device with WebGPU's default limits and no feature, which is what every browser has.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from itertools import combinations
from typing import Any

import pytest

from tests.devices import (
    default_device,
    leave_workgroup_memory_as_it_is,
    run_on_swiftshader,
)
from tests.unit.kernels.every_shader import forms
from wgpu_q4.commands.kernel import lifted
from wgpu_q4.kernels import embedding_shader, linear_kernel
from wgpu_q4.kernels.text import workgroup_bytes


@dataclass(frozen=True)
class Module:
    """Something to compile.

    Attributes:
        source: WGSL.
        constants: the values of its overrides.
        as_pipeline: compile it for the driver too, which takes most of the time.
    """

    source: str
    constants: Mapping[str, int]
    as_pipeline: bool = True


SHAPE = {"EMBED_DIM": 64, "GROUP_SIZE": 32, "VOCAB": 50}
BROKEN = {
    "syntax": Module("@compute @workgroup_size(1) fn main( {}", {}),
    "type": Module("@compute @workgroup_size(1) fn main() { let x: u32 = 1.5; }", {}),
    "missing function": Module(
        embedding_shader("rows", "float32").source.replace("fn load_scale(", "fn load("),
        SHAPE,
    ),
    "f16 without its feature": Module(
        "@compute @workgroup_size(1) fn main() { let x = f16(1.0); }", {}
    ),
    "constant without value": Module(
        "override N: u32; @group(0) @binding(0) var<storage, read_write> out: array<u32>;"
        "@compute @workgroup_size(1) fn main() { out[0] = N; }",
        {},
    ),
    "unknown constant": Module("@compute @workgroup_size(1) fn main() {}", {"N": 1}),
}
"""Each must be refused, or a compiler's silence would mean nothing."""

TOO_MUCH = {
    "workgroup memory": Module(
        linear_kernel("gemm").shader("rows", "float16", False).source,
        {**SHAPE, "TILE_M": 256},
    ),
    "invocations": Module("@compute @workgroup_size(257) fn main() {}", {}),
}
"""Beyond the default limits.  Only Dawn checks them where the adapter itself has more."""


@cache
def shaders() -> dict[str, Module]:
    """Return every shader, by name.

    All are compiled as modules.  Pipelines are made of enough of them that each two pieces which
    occur in one shader occur together in a pipeline.
    """
    found: dict[str, Module] = {}
    met: set[frozenset[str]] = set()
    for name, plan in forms().items():
        pairs = {frozenset(pair) for pair in combinations(plan.shader.pieces, 2)}
        is_new = len(plan.shader.pieces) == 1 or not pairs <= met
        met |= pairs
        found[name] = Module(plan.shader.source, plan.constants, is_new)
    return found


def compile_with(device: Any, shader: Module) -> str | None:
    """Why ``device`` refuses the shader or a pipeline of it; None if it takes both."""
    try:
        module = device.create_shader_module(code=shader.source)
        if not shader.as_pipeline:
            return None
        device.create_compute_pipeline(
            layout="auto",
            compute={
                "module": module,
                "entry_point": "main",
                "constants": dict(shader.constants),
            },
        )
    except Exception as error:  # each implementation has its own, not all of one class
        return f"{type(error).__name__}: {error}"
    return None


@pytest.fixture(scope="module")
def naga() -> Any:
    return default_device("wgpu")


@pytest.fixture(scope="module")
def tint() -> dict[str, Any]:
    """What Tint says of every shader, and who speaks."""
    work = {name: asdict(shader) for name, shader in (shaders() | BROKEN | TOO_MUCH).items()}
    said = run_on_swiftshader("tests.gpu.test_compilers", "wgpudawn", json.dumps(work))
    answer: dict[str, Any] = json.loads(said)
    assert answer["module"] == "wgpudawn"
    assert "SwiftShader" in answer["adapter"]
    return answer


def compile_with_tint() -> None:
    """The process of `tint`: shaders from standard input, errors to standard output, as JSON."""
    leave_workgroup_memory_as_it_is()
    work = json.load(sys.stdin)
    device = default_device("wgpudawn")
    errors = {name: compile_with(device, Module(**shader)) for name, shader in work.items()}
    module = type(device).__module__.partition(".")[0]
    json.dump(
        {"module": module, "adapter": device.adapter.info["device"], "errors": errors}, sys.stdout
    )


def test_naga_compiles_every_shader(naga: Any) -> None:
    errors = {name: compile_with(naga, module) for name, module in shaders().items()}
    assert {name: error for name, error in errors.items() if error is not None} == {}
    assert len(errors) > 250


def test_tint_compiles_every_shader(tint: dict[str, Any]) -> None:
    errors = {name: tint["errors"][name] for name in shaders()}
    assert {name: error for name, error in errors.items() if error is not None} == {}


def test_naga_compiles_what_the_command_prints(naga: Any) -> None:
    name = "linear_q4gsw_gemv_rows_float16_scales"
    plan = forms()[name]
    assert compile_with(naga, Module(lifted(plan.shader), plan.constants)) is None


@pytest.mark.parametrize("name", BROKEN)
def test_naga_refuses_what_is_broken(naga: Any, name: str) -> None:
    assert compile_with(naga, BROKEN[name]) is not None


@pytest.mark.parametrize("name", [*BROKEN, *TOO_MUCH])
def test_tint_refuses_what_is_broken(tint: dict[str, Any], name: str) -> None:
    assert tint["errors"][name] is not None


def test_no_driver_is_a_failure(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """Not a skip: `pytest.fail` says what to do."""
    monkeypatch.setenv("WGPU_Q4_SWIFTSHADER_ICD", str(tmp_path / "absent.json"))
    with pytest.raises(pytest.fail.Exception, match=r"absent\.json, which is not a file"):
        run_on_swiftshader("tests.gpu.test_compilers", "wgpudawn")
    monkeypatch.delenv("WGPU_Q4_SWIFTSHADER_ICD")
    with pytest.raises(pytest.fail.Exception, match="WGPU_Q4_SWIFTSHADER_ICD is not set"):
        run_on_swiftshader("tests.gpu.test_compilers", "wgpudawn")


def test_workgroup_bytes_are_what_dawn_counts(tint: dict[str, Any]) -> None:
    """Our count, against Dawn's in the message with which it refuses a tile that is too large."""
    module = TOO_MUCH["workgroup memory"]
    counted = workgroup_bytes(module.source, module.constants)
    assert counted > 16384
    assert f"({counted} bytes)" in tint["errors"]["workgroup memory"]


if __name__ == "__main__":
    compile_with_tint()
