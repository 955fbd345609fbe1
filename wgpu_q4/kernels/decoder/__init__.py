"""The kernels of a whole decoder: what stands between the embedding and the head.

One file per idea:

* `shapes`     a matrix in each type of weight, and the heads of an attention layer
* `rows`       the residual stream and its norms, gated units, the end of a step
* `attention`  heads made ready, the cache, attention over it
* `gemv`       a product with one row of x, and what is done before and after it
* `teams`      how the GEMV's invocations share the work, by kind of device
* `gemm`       a product with many rows of x and a weight of another type than q4gsw
* `catalogue`  every shader, and an example of each
"""

from wgpu_q4.kernels.decoder.attention import plan_attention, plan_heads, plan_token_attention
from wgpu_q4.kernels.decoder.catalogue import (
    decoder_dispatches,
    decoder_shaders,
    optional_dispatches,
)
from wgpu_q4.kernels.decoder.gemm import plan_gemm
from wgpu_q4.kernels.decoder.gemv import GemvPlan, plan_gemv
from wgpu_q4.kernels.decoder.rows import ADVANCE, plan_choose_best, plan_glu, plan_norm
from wgpu_q4.kernels.decoder.shapes import (
    Activation,
    CacheDtype,
    Epilogue,
    HeadShape,
    Matrix,
    Source,
    WeightType,
    float_bits,
)

__all__ = [
    "ADVANCE",
    "Activation",
    "CacheDtype",
    "Epilogue",
    "GemvPlan",
    "HeadShape",
    "Matrix",
    "Source",
    "WeightType",
    "decoder_dispatches",
    "decoder_shaders",
    "float_bits",
    "optional_dispatches",
    "plan_attention",
    "plan_choose_best",
    "plan_gemm",
    "plan_gemv",
    "plan_glu",
    "plan_heads",
    "plan_norm",
    "plan_token_attention",
]
