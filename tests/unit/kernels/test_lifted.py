"""``wgpu-q4 kernel``: the list, and a kernel with all that its host must know."""

from __future__ import annotations

import json
import re
from math import prod

import pytest

from wgpu_q4.cli import main
from wgpu_q4.commands.kernel import closest, lifted
from wgpu_q4.kernels import all_shaders, parse_bindings
from wgpu_q4.kernels.examples import examples
from wgpu_q4.kernels.text import overrides_of

Captured = pytest.CaptureFixture[str]
SHADERS = {shader.name: shader for shader in all_shaders()}
GEMV = "linear_q4gsw_gemv_rows_float16_scales"


def comment_of(text: str) -> str:
    """The first comment of a text, without its slashes."""
    return "\n".join(line[3:] for line in text.partition("\n\n")[0].splitlines())


def test_without_a_name_every_kernel_is_listed_on_a_line(capsys: Captured) -> None:
    assert main(["kernel"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(SHADERS)
    for line in lines:
        assert re.fullmatch(r"\w+  +\S.{10,100}", line), line


def test_a_name_prints_the_kernel(capsys: Captured) -> None:
    assert main(["kernel", GEMV]) == 0
    printed = capsys.readouterr().out
    assert printed == lifted(SHADERS[GEMV])
    assert printed.endswith(SHADERS[GEMV].source)
    assert comment_of(printed).startswith(f"{GEMV}\nx · Wᵀ: few rows of x, any K and G")


def test_json_has_the_kernel_or_all(capsys: Captured) -> None:
    assert main(["kernel", GEMV, "--json"]) == 0
    (only,) = json.loads(capsys.readouterr().out)["kernels"]
    assert (only["name"], only["wgsl"]) == (GEMV, lifted(SHADERS[GEMV]))
    assert main(["kernel", "--json"]) == 0
    every = json.loads(capsys.readouterr().out)["kernels"]
    assert {kernel["name"]: kernel["summary"] for kernel in every} == {
        name: shader.summary for name, shader in SHADERS.items()
    }


def test_an_unknown_name_is_answered_with_those_like_it(capsys: Captured) -> None:
    assert main(["kernel", "linear_q4gsw_gemv_row_float16_scales"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("wgpu-q4: there is no kernel 'linear_q4gsw_gemv_row_float16_sc")
    assert f" {GEMV}," in captured.err
    assert closest("gemm_int8", list(SHADERS))[0].startswith("linear_q4gsw_gemm_int8_")
    assert closest("argmax_of_logit", list(SHADERS))[0] == "argmax_of_logits"
    assert closest("@", list(SHADERS)) == []


def test_the_comment_says_what_a_host_must_do() -> None:
    comment = comment_of(lifted(SHADERS[GEMV]))
    for said in (
        "SPDX-License-Identifier: BSD-3-Clause",
        "  1  t_x       storage, read        array<vec4<f32>>  [M][K / 4]",
        "  VOCAB       u32, to be set  V",
        "  TEAM        u32 = 32u       invocations that share a row of the weight",
        "Entry point: main, with 128 invocations in a workgroup.",
        "Grid: ⌈V / (128 / TEAM)⌉ · M workgroups, folded over x and y.",
        "Folded: workgroup (x, y) is number y · (workgroups along x) + x.",
        "Assumes: TEAM is a power of two of at most 128.",
        "Example, V = 128256, K = 2048, G = 32, M = 1:",
        "  workgroups 32064 × 1 × 1 of 128 invocations, 512 bytes of workgroup memory",
    ):
        assert said in comment


def test_every_kernel_has_a_complete_comment() -> None:
    for shader in SHADERS.values():
        text = lifted(shader)
        comment = comment_of(text)
        for binding in parse_bindings(shader.source):
            assert re.search(rf"^  {binding.number}  {binding.name} ", comment, re.MULTILINE)
        for override in overrides_of(shader.source):
            assert re.search(rf"^  {override.name} +u32", comment, re.MULTILINE)
        for label in ("Grid: ", "Needs: ", "Example, ", "Entry point: main"):
            assert f"\n{label}" in comment, f"{shader.name}: no {label}"


def needed(name: str) -> str:
    comment = comment_of(lifted(SHADERS[name]))
    found = re.search(r"^Needs: (.*(?:\n  .*)*)", comment, re.MULTILINE)
    assert found is not None
    return " ".join(found[1].split())


def test_what_a_device_must_have() -> None:
    default = "WebGPU's default limits."
    keeps = "half-precision functions that keep subnormals"
    wide = "linear_q4gsw_gemv_wide_subnormal_rows_float16_scales"
    assert needed(f"{GEMV}_integer_halves") == default
    assert needed("probe_halves") == default
    assert needed(GEMV) == f"{keeps} and round to nearest even; {default}"
    assert needed(f"{wide}_integer_halves") == f"{keeps}; {default}"
    assert needed("linear_q4gsw_gemv_int8_rows_float32_scales") == (
        f"the WGSL language feature packed_4x8_integer_dot_product; {default}"
    )
    matrix = needed("linear_q4gsw_gemm_matrix_rows_float32_scales_16x64")
    assert "extension chromium_experimental_subgroup_matrix" in matrix
    assert default not in matrix


def test_a_kernel_with_subgroups_says_which_line_browsers_want() -> None:
    """naga has subgroups without ``enable subgroups;``, and refuses it; WGSL has them with it."""
    built_in = re.compile(r"\bsubgroup\w+\(|@builtin\(subgroup", re.ASCII)
    for name in [name for name, shader in SHADERS.items() if "subgroup" in shader.source]:
        code = re.sub("//.*", "", SHADERS[name].source)
        is_lacking = bool(built_in.search(code)) and "enable subgroups;" not in code
        assert ("the line 'enable subgroups;' on top" in needed(name)) == is_lacking, name


def test_every_kernel_has_an_example_of_itself() -> None:
    for shader in SHADERS.values():
        dispatch = examples()[shader.name].dispatch
        assert dispatch.shader == shader
        assert prod(dispatch.workgroups) >= 1
        unset = {o.name for o in overrides_of(shader.source) if o.default is None}
        assert unset <= set(dispatch.constants), shader.name
    assert examples().keys() == SHADERS.keys()
