"""Mutants of the GEMMs, in float32 and on integers, and of the passes that prepare x for them."""

from tools.mutants.mutant import Mutant
from tools.mutants.table.reach import far_half_of_a_tile

_GEMM, _TRANSPOSE = "linear/gemm/gemm", "linear/gemm/transpose_x"
_INTEGERS, _PASS = "linear/gemm_integers/gemm", "linear/gemm_integers/quantize_columns"
_ROWS, _BLOCKS = "linear/gemm_integers/stage_rows", "linear/gemm_integers/stage_blocks"

MUTANTS = (
    Mutant(_GEMM, "min($column, embed_dim() - 1u)", "min($column, embed_dim() - 2u)", "read"),
    Mutant(_GEMM, "= $fetched.d", "= $fetched.c"),
    Mutant(_TRANSPOSE, "vec4<f32>($a.x, $b.x, $c.x, $d.x)", "vec4<f32>($b.x, $a.x, $c.x, $d.x)"),
    Mutant("linear/gemm/stage_rows", "[$i % 4u] = high.x", "[$i % 4u] = high.y"),
    Mutant("linear/gemm/stage_blocks", "8u * $strip + 4u", "8u * $strip + 3u", "read"),
    Mutant(_PASS, "8u + 4u * $v", "8u + 4u * (1u - $v)"),
    Mutant(
        _PASS,
        "t_out_scales[$chunk * sizes.y + $row]",
        "t_out_scales[(embed_dim() / 32u - 1u - $chunk) * sizes.y + $row]",
    ),
    Mutant(_PASS, "min($row, sizes.x - 1u)", "min($row, sizes.x - 2u)", "read"),
    Mutant(
        _INTEGERS, "$far = TILE_M / 2u + $m", "$far = TILE_M / 4u + $m", "read", far_half_of_a_tile
    ),
    Mutant(_INTEGERS, "= min($chunk, $last) * WORDS", "= min($chunk, $last - 1u) * WORDS", "read"),
    Mutant(_INTEGERS, "= $fetched.b", "= $fetched.a"),
    Mutant(_ROWS, "[$i % 4u] = $word &", "[$i % 4u] = ($word >> 1u) &"),
    Mutant(_ROWS, "* 4u + $i / TILE_N", "* 3u + $i / TILE_N", "read"),
    Mutant(_BLOCKS, "$block >> vec4<u32>(4u)", "$block >> vec4<u32>(5u)"),
    Mutant(_BLOCKS, "+ $lane % WORDS)", "+ (WORDS - 1u - $lane % WORDS))", "read"),
)
