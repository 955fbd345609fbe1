"""What is read from the text of a shader: bindings, overrides, sizes, and a source folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from wgpu_q4.kernels import Shader, parse_bindings, read_piece, source_folder
from wgpu_q4.kernels.text import (
    Override,
    code_of,
    evaluate,
    header_of,
    overrides_of,
    paragraph_of,
    values_of,
    workgroup_bytes,
    workgroup_size,
)

SOURCE = """\
// What it is,
// in two lines.
//
// In range: the first
// reason.
// Needs: one, two.

override SIZE: u32 = 64u;  // invocations
override COUNT: u32;
const HALF = SIZE / 2u;
const RATIO = 0.5;  // of a workgroup
alias Pair = vec2<u32>;

@group(0) @binding(1) var<storage, read> t_in: array<u32>;  // data
@group(0) @binding(0) var t_out: texture_storage_3d<rgba16float, write>;
@group(0) @binding(2) var t_ids: texture_2d<i32>;
@group(0) @binding(4) var<uniform> sizes: vec4<u32>;

var<workgroup> pairs: array<Pair, HALF>;
var<workgroup> values: array<vec4<f32>, 2u * SIZE>;  /* a
comment */
var<workgroup> one: f32;

@compute @workgroup_size(SIZE, 2)
fn main() {}
"""


def test_bindings_are_read_from_the_text() -> None:
    found = {binding.number: binding for binding in parse_bindings(SOURCE)}
    assert {number: binding.name for number, binding in found.items()} == {
        0: "t_out",
        1: "t_in",
        2: "t_ids",
        4: "sizes",
    }
    assert found[1].layout_entry(4) == {
        "binding": 1,
        "visibility": 4,
        "buffer": {"type": "read-only-storage"},
    }
    assert found[0].layout_entry(4)["storage_texture"] == {
        "access": "write-only",
        "format": "rgba16float",
        "view_dimension": "3d",
    }
    assert found[2].layout_entry(4)["texture"] == {"sample_type": "sint", "view_dimension": "2d"}
    assert found[4].layout_entry(4)["buffer"] == {"type": "uniform"}


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ("@group(0) @binding(0)\nvar<storage, read> a: array<u32>;", "on one line"),
        ("@group(1) @binding(0) var<storage, read> a: array<u32>;", "on one line"),
        ("@group(0) @binding(0) var a: sampler;", "a: no kernel binds a sampler"),
    ],
)
def test_a_binding_of_another_form_is_refused(declared: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_bindings(declared)


def test_overrides_have_their_defaults_and_meanings() -> None:
    assert overrides_of(SOURCE) == (
        Override("SIZE", "u32", "64u", "invocations"),
        Override("COUNT", "u32", None, ""),
    )


def test_sizes_follow_from_the_constants() -> None:
    assert values_of(SOURCE, {"SIZE": 8}) == {"SIZE": 8, "HALF": 4}
    assert workgroup_size(SOURCE, {}) == 128
    assert workgroup_size(SOURCE, {"SIZE": 8}) == 16
    assert workgroup_bytes(SOURCE, {}) == 32 * 8 + 128 * 16 + 4
    assert workgroup_bytes(SOURCE, {"SIZE": 8}) == 4 * 8 + 16 * 16 + 4


@pytest.mark.parametrize("expression", ["N +", "f(1u)", "1.5", "M", "N << 1u"])
def test_what_is_no_integer_is_refused(expression: str) -> None:
    assert evaluate("2u * (N - 1u) / 3u % 5", {"N": 11}) == 1
    with pytest.raises(ValueError, match="expression of known integers"):
        evaluate(expression, {"N": 11})


def test_a_header_is_read_by_its_labels() -> None:
    header = header_of(SOURCE)
    assert header.startswith("What it is,\nin two lines.\n\nIn range:")
    assert paragraph_of(header, "In range") == "the first reason."
    assert paragraph_of(header, "Needs") == "one, two."
    assert paragraph_of(header, "Defines") == ""
    assert "What" not in code_of(SOURCE)
    assert "comment" not in code_of(SOURCE)


def test_another_folder_of_pieces_can_be_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "probe").mkdir()
    (tmp_path / "probe" / "halves.wgsl").write_text("// Another probe.\n", encoding="utf-8")
    original = source_folder()
    read_piece.cache_clear()
    monkeypatch.setenv("WGPU_Q4_WGSL", str(tmp_path))
    try:
        assert source_folder() == tmp_path != original
        assert Shader("probe", ("probe/halves",)).source.endswith("// Another probe.\n")
    finally:
        read_piece.cache_clear()
