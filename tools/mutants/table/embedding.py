"""Mutants of the embedding and of packing, and of what they share with `linear`.

They run as cases of the parity harness: the same piece of WGSL goes to naga, to Tint and, as GLSL,
to raw Vulkan, and each of them must notice.
"""

from tools.mutants.mutant import Mutant
from wgpu_q4.check.cases import Case

# V and K are such that a block's place lies within the matrix even if row and column are swapped.
ROWS = Case("mutants", 64, 32, 16, (5,), weight="flat", scales="float16")
BLOCKS = Case("mutants", 64, 32, 16, (5,), weight="linear_buffer", scales="float32")
TEXTURE = Case("mutants", 64, 32, 16, (5,), weight="linear_texture2d", scales="float32")
PACKED = Case("mutants", 64, 32, 16, weight="linear_buffer", op="pack")
CASES = (ROWS, BLOCKS, TEXTURE, PACKED)


def on_rows(case: Case) -> bool:
    return case == ROWS


def on_blocks(case: Case) -> bool:
    return case == BLOCKS


def on_texture(case: Case) -> bool:
    return case == TEXTURE


def packing(case: Case) -> bool:
    return case == PACKED


def lookups(case: Case) -> bool:
    return case != PACKED


MUTANTS = (
    Mutant("weight/nibbles_embedding", "- 8.0", "- 7.0", reaches=on_rows),
    Mutant("weight/nibbles_embedding", "12u, 8u)", "12u, 9u)", reaches=on_rows),
    Mutant("weight/blocks_buffer", ">> ($row & 4u)", ">> ($row & 5u)", reaches=on_blocks),
    Mutant("weight/blocks_buffer", "- 8.0", "- 7.0", reaches=on_blocks),
    Mutant(
        "weight/blocks_texture2d", "vec2<u32>($k4, $n8)", "vec2<u32>($n8, $k4)", "read", on_texture
    ),
    Mutant("weight/blocks_texture2d", "vec4<u32>(15u)", "vec4<u32>(14u)", reaches=on_texture),
    Mutant("scales/f16", "$at & 1u", "1u - ($at & 1u)", "read", on_rows),
    Mutant("pack/pack_q4_linear_weight", "8u * $n8 + 4u", "8u * $n8 + 5u", "read", packing),
    Mutant("embedding/embedding_q4gsw", "$weight * $scale", "$weight + $scale", reaches=lookups),
)
