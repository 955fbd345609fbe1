"""Mutants of the GEMVs on integers, and of the pass that prepares x for them."""

from tools.mutants.mutant import Mutant
from tools.mutants.table.reach import (
    eight_rows,
    in_strips,
    in_tiles,
    more_than_two_rows,
    of_8_bits,
    of_16_bits,
    several_chunks,
    several_rows,
)

_PASS, _BEFORE = "linear/gemv_integers/quantize_x", "linear/gemv_integers/integers_before"
_HERE = "linear/gemv_integers/integers_here"
_ROWS, _BLOCKS = "linear/gemv_integers/gemv_rows", "linear/gemv_integers/gemv_blocks"

MUTANTS = (
    # Where x is kept: in a buffer that the pass filled, or in workgroup memory.
    Mutant(_PASS, "2u * PLANES + $v)", "2u * PLANES + (2u * PLANES - 1u - $v))"),
    Mutant(
        _PASS,
        "t_out_scales[$row * (embed_dim() / 32u) + $chunk]",
        "t_out_scales[$row * (embed_dim() / 32u) + (embed_dim() / 32u - 1u - $chunk)]",
    ),
    Mutant(_PASS, "min($row, sizes.x - 1u)", "min($row, sizes.x - 2u)", "read"),
    Mutant(_BEFORE, "$row * 2u * PLANES + $v", "$row * PLANES + $v", "read"),
    Mutant(_BEFORE, "($row, $w / 2u,", "($row, 1u - $w / 2u,", "read", of_8_bits),
    Mutant(_BEFORE, "$both.xy, $both.zw", "$both.zw, $both.xy", "value", of_8_bits),
    Mutant(
        _HERE,
        "return vectors[$v * CHUNKS + $chunk]",
        "return vectors[(2u * PLANES - 1u - $v) * CHUNKS + $chunk]",
        "read",
    ),
    Mutant(_HERE, "($row, $w / 2u,", "($row, 1u - $w / 2u,", "read", of_8_bits),
    Mutant(_HERE, "$both.xy, $both.zw", "$both.zw, $both.xy", "value", of_8_bits),
    Mutant(_HERE, "* CHUNKS + $chunk) * 8u", "* CHUNKS + $chunk) * 7u", "read", several_chunks),
    # The product with rows.
    Mutant(_ROWS, "+ bitcast<i32>($x.y)", ""),
    Mutant(
        _ROWS, "$counts.high << vec4<u32>(8u)", "$counts.high << vec4<u32>(7u)", "value", of_16_bits
    ),
    Mutant(_ROWS, "load_words($row + 1u, $w", "load_words($row, $w", "read", several_rows),
    Mutant(_ROWS, "load_words($row + 7u, $w", "load_words($row + 6u, $w", "read", eight_rows),
    Mutant(
        _ROWS,
        "load_scale_words($row + 2u",
        "load_scale_words($row + 1u",
        "read",
        more_than_two_rows,
    ),
    Mutant(_ROWS, "* TILES + $i)", "* TILES)", "unwritten", in_tiles),
    # The product with blocks.
    Mutant(_BLOCKS, "$x.z, $x.w, $part", "$x.y, $x.w, $part"),
    Mutant(_BLOCKS, ".high << vec4<u32>(8u)", ".high << vec4<u32>(7u)", "value", of_16_bits),
    Mutant(_BLOCKS, "2u * ($part % 2u) + 1u", "2u * ($part % 2u)", "read"),
    Mutant(_BLOCKS, "8u * $strip + 4u", "8u * $strip + 3u", "read"),
    Mutant(_BLOCKS, "* TILES + $i)", "* TILES)", "unwritten", in_strips),
    Mutant(_BLOCKS, "+ $output / 8u * TEAM", "+ $output / 8u", "read"),
)
