"""The shaders that are generated for ExecuTorch: its host interfaces around the pieces of wgsl.

Those of its Vulkan backend are translated to GLSL; those of its WebGPU backend are WGSL already.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import product
from typing import Literal, get_args

from wgpu_q4.format import ScalesDtype
from wgpu_q4.kernels import OutputDtype, Shader, Storage
from wgpu_q4.kernels.pieces import scales_pieces

BlockStorage = Literal["buffer", "texture2d"]
"""Where ExecuTorch holds a weight that ``pack_q4_linear_weight`` packed."""

Blocks = Literal["linear_weight_buffer", "linear_weight_texture2d", "w_4x8_nc_buffer"]
"""The layouts in which ExecuTorch's linear ops pack a weight: what ``pack_q4_linear_weight`` makes,
and what ``pack_q4_linear_weight__w_4x8_nc_buffer`` makes."""

_BLOCK_PIECES: dict[Blocks, str] = {
    "linear_weight_buffer": "weight/blocks_buffer",
    "linear_weight_texture2d": "weight/blocks_texture2d",
    "w_4x8_nc_buffer": "executorch/weight/blocks_w_4x8_buffer",
}


@cache
def executorch_embedding(
    blocks: Blocks | None, scales: ScalesDtype, output: OutputDtype, storage: Storage
) -> Shader:
    """Return a shader of ``et_vk.embedding_q4gsw``, by ExecuTorch's name for it.

    The host interface is ExecuTorch's.  Halves are converted by integers: nothing can be probed
    there, and the built-in functions differ between devices.

    Args:
        blocks: the layout in which a linear op packed the weight, or None for rows in the embedding
            convention.
    """
    half = "half" if output == "float16" else "float"
    scales_name = "" if scales == "float16" else "_float_scales"
    separator = "__" if blocks == "w_4x8_nc_buffer" else "_"
    weight_name = "" if blocks is None else f"{separator}{blocks}"
    weight: tuple[str, ...]
    if blocks is None:
        vocab = "executorch/shape/vocab_of_rows"
        weight = ("weight/nibbles_embedding", "executorch/weight/rows_embedding_wide")
    else:
        vocab = f"executorch/shape/vocab_of_scales_{'f16' if scales == 'float16' else 'f32'}"
        weight = (_BLOCK_PIECES[blocks], "executorch/weight/chunk_of_quads")
    result: tuple[str, ...] = (
        f"embedding/output_{storage}_{half}",
        "executorch/embedding/eight_as_quads",
    )
    if (storage, output) == ("buffer", "float16"):
        result = ("embedding/output_buffer_half_wide",)
    pieces = (
        *(("half/integer",) if "float16" in (scales, output) else ()),
        "executorch/shape/executorch",
        vocab,
        *weight,
        *scales_pieces(scales, "integer"),
        "executorch/scales/chunk",
        f"embedding/indices_{storage}",
        *result,
        "embedding/embedding_q4gsw",
        "executorch/embedding/grid_executorch",
    )
    return Shader(
        f"embedding_q4gsw{scales_name}{weight_name}_{storage}_{half}", tuple(dict.fromkeys(pieces))
    )


@cache
def executorch_pack(target: BlockStorage) -> Shader:
    """Return a shader of ``pack_q4_linear_weight``, by ExecuTorch's name for it."""
    return Shader(
        f"pack_q4_linear_weight_{target}",
        (
            "executorch/shape/executorch_pack",
            "weight/rows",
            f"pack/target_{target}",
            "pack/pack_q4_linear_weight",
            "executorch/pack/grid_executorch",
        ),
    )


def executorch_shaders() -> Iterator[Shader]:
    """Yield every kernel for ExecuTorch's Vulkan backend; their order means nothing."""
    blocks: tuple[Blocks | None, ...] = (None, *get_args(Blocks))
    dtypes: tuple[ScalesDtype, ...] = get_args(ScalesDtype)
    outputs: tuple[OutputDtype, ...] = get_args(OutputDtype)
    storages: tuple[Storage, ...] = get_args(Storage)
    for block, scales, output, storage in product(blocks, dtypes, outputs, storages):
        yield executorch_embedding(block, scales, output, storage)
    yield executorch_pack("buffer")
    yield executorch_pack("texture2d")


WEBGPU_EMBEDDING = Shader(
    "embedding_q4gsw",
    (
        "executorch/shape/webgpu_backend_embedding",
        "executorch/weight/rows_either",
        "executorch/shape/vocab_of_words",
        "executorch/scales/f32_rows",
        "executorch/embedding/indices_flat",
        "executorch/embedding/output_flat_float",
        "embedding/embedding_q4gsw",
        "executorch/embedding/grid_webgpu_backend",
    ),
)
"""``et_vk.embedding_q4gsw`` of the WebGPU backend, by its name for the file."""

WEBGPU_LINEAR = Shader(
    "q4gsw_linear_coop4_bicol",
    (
        "executorch/shape/webgpu_backend_linear",
        "weight/rows",
        "executorch/scales/transposed_f32",
        "executorch/linear/common/bias_optional",
        "executorch/linear/common/exact_halves",
        "executorch/linear/gemv/gemv_webgpu_backend",
    ),
)
"""``et_vk.linear_q4gsw`` of the WebGPU backend for one row of x, by its name for the file."""

WEBGPU_SHADERS = (WEBGPU_EMBEDDING, WEBGPU_LINEAR)
