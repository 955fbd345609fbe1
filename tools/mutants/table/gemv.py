"""Mutants of the GEMVs in float32."""

from tools.mutants.mutant import Mutant
from tools.mutants.table.reach import (
    in_registers,
    in_slices,
    several_chunks,
    several_rows,
    two_turns_of_rows,
)

_ROWS, _BLOCKS, _WIDE = "linear/gemv/gemv_rows", "linear/gemv/gemv_blocks", "linear/gemv/gemv_wide"
_TEAM = "linear/gemv/team"

MUTANTS = (
    # For any K and G.
    Mutant(_ROWS, "$x[$at + 1u] * UNSHIFT", "$x[$at] * UNSHIFT", "read"),
    Mutant(_ROWS, "$k8 * 8u / group_size()", "$k8 * 7u / group_size()", "read"),
    Mutant(_ROWS, "($i + $lane) % TEAM", "$lane % TEAM", "read"),
    Mutant(_BLOCKS, "+ dot_low($second, $x)", "+ dot_low($second, first_x)"),
    Mutant(_BLOCKS, "8u * $n8 + 4u, $group", "8u * $n8 + 3u, $group", "read"),
    Mutant(_BLOCKS, "0.0625, 0.000244140625", "0.0625, 0.00048828125"),
    # What the wide kernels share.
    Mutant(_TEAM, "$last = vocab() - 1u", "$last = vocab() - 2u", "read"),
    Mutant(_TEAM, "$sums.second, $m + 1u", "$sums.first, $m + 1u", reaches=several_rows),
    Mutant(_TEAM, "$lane / 4u * TEAM;", "$lane / 4u * (TEAM - 1u);", "read"),
    Mutant(
        _TEAM, "$chunk * 32u / group_size()", "$chunk * 31u / group_size()", "read", several_chunks
    ),
    # Columns by the 32.
    Mutant(_WIDE, "$x = x_tile[$at + SLICE]", "$x = x_tile[$at]", "read"),
    Mutant(_WIDE, "$at + 8u * SLICE", "$at + 7u * SLICE", "read", several_rows),
    Mutant(_WIDE, "min($first_m + $row,", "min($row,", "read", two_turns_of_rows),
    Mutant(_WIDE, "load_rows($row, $first + $chunk)", "load_rows($row, $chunk)", "read", in_slices),
    Mutant(_WIDE, "= arrange_second($low, $high)", "= arrange_first($low, $high)"),
    Mutant("linear/gemv/nibbles_integer", "return high * UNSHIFT", "return low * UNSHIFT"),
    Mutant(
        "linear/gemv/nibbles_subnormal",
        "vec4<f32>($low.x, $high.x, $low.z, $high.z)",
        "vec4<f32>($low.x, $high.x, $high.z, $low.z)",
    ),
    # One row of x in registers.  A wrong nibble is noticed by the probe, which includes the piece.
    Mutant(
        "linear/gemv/nibbles_f16",
        "$low.y, $high.y, $low.w, $high.w",
        "$low.y, $low.w, $high.y, $high.w",
        reaches=in_registers,
    ),
    Mutant("decoder/gemv/x_in_rows", "$first * 8u + $i", "$i", "read", in_slices),
    Mutant("decoder/gemv/dot_nibbles", "words.y, $x.c", "words.x, $x.c"),
    Mutant("decoder/gemv/fold_subgroup", "select(far, near, upper)", "select(near, far, upper)"),
)
