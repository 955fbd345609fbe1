"""The two ops on arrays: `embedding` looks rows up by id, `linear` multiplies with the matrix."""

from wgpu_q4.ops.gather import embedding
from wgpu_q4.ops.matmul import linear
from wgpu_q4.ops.reduce import TopK

__all__ = ["TopK", "embedding", "linear"]
