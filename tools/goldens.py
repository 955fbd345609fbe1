"""Write the composed shaders that matter to ``tests/goldens/``: ``python -m tools.goldens``.

A change to a piece shows in the diff of every shader that has it.  A test fails while the files
differ from what the pieces make.
"""

from __future__ import annotations

from pathlib import Path

from wgpu_q4.kernels import (
    DEFAULT_LAYOUT,
    LINEAR_KERNELS,
    Layout,
    OutputDtype,
    Shader,
    embedding_shader,
    pack_shader,
)
from wgpu_q4.kernels.decoder import decoder_shaders
from wgpu_q4.kernels.reduction import reduction_shader

FOLDER = Path(__file__).resolve().parent.parent / "tests" / "goldens"
COMMAND = "python -m tools.goldens"

_LAYOUTS: tuple[Layout, ...] = ("rows", "blocks_buffer")
_OUTPUTS: tuple[OutputDtype, ...] = ("float32", "float16")

_OF_A_DECODER = {
    "decoder_attention_float16_cache",
    "decoder_attention_token_float16_cache",
    "decoder_choose_best",
    "decoder_gemm_affine4",
    "decoder_gemm_affine4_lanes",
    "decoder_gemm_float16",
    "decoder_gemv_affine4_subnormal_add",
    "decoder_gemv_affine8_add",
    "decoder_gemv_float16_add",
    "decoder_gemv_q4gsw_float16_scales_subnormal_add",
    "decoder_gemv_q4gsw_float16_scales_subnormal_best_normed",
    "decoder_gemv_q4gsw_float16_scales_subnormal_glu_normed_silu",
    "decoder_gemv_q4gsw_float16_scales_subnormal_store_normed",
    "decoder_norm_embedding_float16_scales",
}


def goldens() -> dict[str, str]:
    """Return the name and the text of each file."""
    found: list[Shader] = []
    for kernel in LINEAR_KERNELS.values():
        forms = kernel.reading(DEFAULT_LAYOUT).bodies
        found += (kernel.shader(DEFAULT_LAYOUT, "float16", False, form=form) for form in forms)
        found += kernel.preparations()
    found += (
        embedding_shader(layout, "float16", output) for layout in _LAYOUTS for output in _OUTPUTS
    )
    found.append(pack_shader("blocks_buffer"))
    found.append(reduction_shader("argmax", "logits"))
    found.append(reduction_shader("top_k", "logits"))
    found += (shader for shader in decoder_shaders() if shader.name in _OF_A_DECODER)
    return {f"{shader.name}.wgsl": shader.source for shader in found}


def main() -> None:
    """Write the files, and remove those of shaders that are no more."""
    FOLDER.mkdir(exist_ok=True)
    texts = goldens()
    for path in FOLDER.glob("*.wgsl"):
        if path.name not in texts:
            path.unlink()
    for name, text in texts.items():
        (FOLDER / name).write_text(text, encoding="utf-8")
    print(f"{len(texts)} files in {FOLDER}")


if __name__ == "__main__":
    main()
