"""Mutants of the pieces that several kernels of `linear` share."""

from tools.mutants.mutant import Mutant
from tools.mutants.table.reach import (
    far_half_of_a_tile,
    in_parts,
    nibbles_of_rows,
    of_8_bits,
    of_16_bits,
    plain_rows,
)

_EXACT, _TILE = "linear/common/exact_f32", "linear/common/gemm_tile"
_QUANTIZE = "linear/common/quantize"

MUTANTS = (
    # Columns of a wider result.
    Mutant("linear/common/result", "$m * RESULT_ROW", "$m * VOCAB", "unwritten", in_parts),
    # Nibbles as floats.
    Mutant(_EXACT, "8388736.0", "8388744.0", reaches=nibbles_of_rows),
    Mutant(_EXACT, "$sums.z + $sums.w", "$sums.z", reaches=plain_rows),
    # What x is rounded to.
    Mutant(
        _QUANTIZE,
        "$first = -8 * $sum($a + $b + $c + $d); let",
        "$first = -7 * $sum($a + $b + $c + $d); let",
    ),
    Mutant(
        _QUANTIZE,
        "$second = -8 * $sum($a + $b + $c + $d); store_scale",
        "$second = -8 * $sum($a + $c + $d); store_scale",
    ),
    Mutant(_QUANTIZE, "round($values * $steps)", "trunc($values * $steps * 0.999)"),
    Mutant(
        _QUANTIZE,
        "vec4<u32>(bytes($first), bytes($second), high_bytes($first), high_bytes($second))",
        "vec4<u32>(high_bytes($first), high_bytes($second), bytes($first), bytes($second))",
        reaches=of_16_bits,
    ),
    Mutant(_QUANTIZE, "$values + 128", "$values + 127", reaches=of_16_bits),
    Mutant(_QUANTIZE, "select(127.0, 32512.0,", "select(126.0, 32512.0,", reaches=of_8_bits),
    Mutant("linear/common/integers_order_rows", "$low.yw, $high.yw", "$low.yw, $high.xz"),
    Mutant("linear/common/integers_order_blocks", "return high;", "return low;"),
    # The bias, and the tile of the GEMMs.
    Mutant("linear/common/bias_buffer", "$bias[$row]", "$bias[$row / 2u]", "read"),
    Mutant(_TILE, "+ $m, $n + TILE_N / 2u, $right)", "+ $m, $n + TILE_N / 2u, left)"),
    Mutant(
        _TILE, "$sums.left5, $sums.right5", "$sums.left4, $sums.right5", reaches=far_half_of_a_tile
    ),
)
