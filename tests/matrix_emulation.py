"""Matrix units in core WGSL, so that the kernel that uses them runs where there are none.

The types and functions of Dawn's ``chromium_experimental_subgroup_matrix``, as far as the kernel
uses them, are spelled out for one lane of 32, which holds the sums of row l / 2 and eight columns;
factors stay where they are until they are multiplied.  Half-precision arithmetic becomes
single precision, rounded where the kernel stores a half: each value that it computes in half
precision is exact in single precision, so this is the same rounding.  What this cannot show is
whether Dawn takes the kernel, and what a GPU's own units make of it: ``make matrix-units`` does.
"""

from __future__ import annotations

import re

_UNITS = """
const SIDE = 16u;
const SUBGROUP = 32u;

struct XMatrix { at: u32, stride: u32 }
struct WeightMatrix { at: u32, stride: u32 }
struct SumMatrix { sums: array<f32, 8> }

var<private> emulated_lane: u32;

// The same number, unknown to the compiler: it would unroll every loop, and take minutes.
fn kept(number: u32) -> u32 {
    return number + sizes.w;
}

fn to_half(value: f32) -> f32 {
    return unpack2x16float(pack2x16float(vec2<f32>(value, 0.0))).x;
}

fn multiply_accumulate(x: XMatrix, weight: WeightMatrix, old: SumMatrix) -> SumMatrix {
    var result = old;
    for (var k = 0u; k < kept(16u); k++) {
        let x_at = x.at + emulated_lane / 2u * x.stride + k;
        let left = unpack2x16float(t_x[x_at / 2u])[x_at % 2u];
        for (var c = 0u; c < kept(8u); c++) {
            let at = weight.at + (emulated_lane % 2u * 8u + c) * weight.stride + k;
            result.sums[c] += left * unpack2x16float(weight_tile[at / 2u])[at % 2u];
        }
    }
    return result;
}

fn store_sum_matrix(at: u32, value: SumMatrix, stride: u32) {
    var stored = value;
    for (var c = 0u; c < kept(8u); c++) {
        out_tile[at + emulated_lane / 2u * stride + emulated_lane % 2u * 8u + c] = stored.sums[c];
    }
}
"""

_REPLACED = (
    # What the piece matrix_units declares.
    (r"enable \w+;|diagnostic\([^;]*;|alias \w+ = subgroup_matrix_[^;]*;", ""),
    (r"const (SIDE|SUBGROUP) = \w+;", ""),
    # Matrices.
    (r"subgroupMatrixLoad<XMatrix, row_major>\(&t_x,", "XMatrix("),
    (r"subgroupMatrixLoad<WeightMatrix, col_major>\(&weight_tile,", "WeightMatrix("),
    (r"subgroupMatrixMultiplyAccumulate", "multiply_accumulate"),
    (r"subgroupMatrixStore<row_major>\(&out_tile,", "store_sum_matrix("),
    # A subgroup is 32 neighbouring lanes.
    (r"@builtin\(subgroup(_invocation)?_id\) \w+: u32,", ""),
    (
        r"(fn main\([^{]*\{)",
        r"\1 let subgroup = lane / 32u; let subgroup_lane = lane % 32u;"
        r" emulated_lane = subgroup_lane;",
    ),
    # Halves, two to a word.
    (r"t_x: array<f16>", "t_x: array<u32>"),
    (r"weight_tile: array<f16, TILE_N \* PITCH>", "weight_tile: array<u32, TILE_N * PITCH / 2u>"),
    (
        r"weight_tile\[(at(?: \+ \du)?)\] = (\w)\.x;\s*weight_tile\[at \+ \du\] = \2\.y;",
        r"weight_tile[(\1) / 2u] = pack2x16float(\2);",
    ),
    (r"bitcast<vec2<f16>>", "unpack2x16float"),
    (r"vec([24])<f16>", r"vec\1<f32>"),
    (r": f16\b", ": f32"),
    (r"\bf16\(", "to_half("),
    (r"(\d\.\d+)h", r"\1"),
)


def emulated(source: str) -> str:
    """A kernel for matrix units as core WGSL."""
    for pattern, replacement in _REPLACED:
        source = re.sub(pattern, replacement, source)
    assert not re.search(r"\bf16\b|subgroupMatrix", re.sub("//[^\n]*", "", source))
    return source + _UNITS
