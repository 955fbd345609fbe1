"""From naga's GLSL to the template: names and comments come back, and texts are folded into one."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from pathlib import Path

import pytest

from tools.codegen import naga
from tools.codegen.fold import fold, merged_order
from tools.codegen.glsl import blocks


def test_fold_decides_by_as_little_as_it_can() -> None:
    def cases(text: Mapping[tuple[str, bool], str]) -> list[tuple[dict[str, str | bool], str]]:
        return [({"A": a, "B": b}, line) for (a, b), line in text.items()]

    everywhere = dict.fromkeys(product("xy", (False, True)), "same\n")
    assert fold(cases(everywhere), ["A", "B"]) == "same\n"
    by_second = {(a, b): f"{b}\n" for a, b in product("xy", (False, True))}
    assert fold(cases(by_second), ["A", "B"]) == "$if B:\n  True\n$else:\n  False\n"
    corner = everywhere | {("y", True): ""}
    assert fold(cases(corner), ["A", "B"]) == (
        '$if A == "x":\n  same\n$else:\n  $if not B:\n    same\n'
    )
    with pytest.raises(ValueError, match="several texts"):
        fold([({"A": "x"}, "1"), ({"A": "x"}, "2")], ["A"])


def test_merged_order_keeps_every_order() -> None:
    assert merged_order([["a", "c"], ["a", "b", "c"], ["d"]]) == ["a", "b", "c", "d"]
    with pytest.raises(ValueError, match="no order"):
        merged_order([["a", "b"], ["b", "a"]])


WGSL = """\
@group(0) @binding(0) var<storage, read_write> t_out: array<u32>;

// Not part of the result.
fn unused() -> u32 {
    return 1u;
}

// Twice.
fn doubled(half: u32, k4: u32) -> u32 {
    return half * 2u + k4;
}

@compute @workgroup_size(1)
fn main() {
    // Not doubled(here); a comment.
    let once = doubled(3u, 4u);
    let twice = doubled(once, doubled(once, 1u));
    if twice > 2u {
        let doubled = doubled(twice, 2u);
        t_out[doubled] = doubled;
    }
    t_out[0] = twice + twice;
}
"""


def test_translation_keeps_names_and_comments() -> None:
    (translated,) = naga.translate([WGSL])
    found = blocks(translated, WGSL, {0: "t_out"})
    assert found == {
        "doubled": "// Twice.\nuint doubled(uint half_, uint k4) {\n"
        "  return ((half_ * 2u) + k4);\n}\n",
        "main": "void main() {\n"
        "  uint once = doubled(3u, 4u);\n"
        "  uint twice = doubled(once, doubled(once, 1u));\n"
        "  if ((twice > 2u)) {\n"
        "    uint _e9 = doubled(twice, 2u);\n"
        "    t_out[_e9] = _e9;\n"
        "  }\n"
        "  t_out[0] = (twice + twice);\n"
        "}\n",
    }


def test_naga_shows_where_it_stops() -> None:
    with pytest.raises(RuntimeError, match=r"nothing_like_it"):
        naga.translate(["@compute @workgroup_size(1) fn main() { nothing_like_it(); }"])


def test_naga_must_be_there_in_its_version(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WGPU_Q4_NAGA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="make naga"):
        naga.translate([])
    (tmp_path / "package.json").write_text('{"version": "0.0.0"}')
    with pytest.raises(RuntimeError, match=r"naga-wasm 0\.0\.0, not 30\.1\.0"):
        naga.translate([])
