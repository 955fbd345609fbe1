"""Matrices of other libraries, and of their files; those of 4 bits are not quantized again.

Each ``from_…`` function gives a `Q4Weight` of the very values that the other library computes with,
or refuses and says in numbers what would be lost; ``lossy=True`` accepts the loss.

* `torchao`             `from_torchao`: a tensor of ``quantize_``
* `compressed_tensors`  `from_compressed_tensors`: ``pack-quantized``, what llm-compressor writes
* `gptq`                `from_gptq`: AutoGPTQ, GPTQModel
* `mlx`                 `from_mlx`: ``mlx.core.quantize``, mode affine
* `onnxruntime`         `from_onnxruntime`: ``MatMulNBits`` and ``GatherBlockQuantized``
* `gguf`                `from_gguf`: a tensor of a GGUF model; `gguf_header`, `shards`  its files
* `tied`                `load_tied`: the tied matrix of a model's files, 4-bit already or of floats
* `checkpoint`, `embeddings`  a Hugging Face folder, mapped, and which of its matrices is tied
* `grid`                what they all are, and how it becomes a weight; `integers`  words of nibbles
* `source`              a weight beside what it was made of, and its error
"""

from wgpu_q4.foreign.compressed_tensors import from_compressed_tensors
from wgpu_q4.foreign.gguf import UnknownTensorError, from_gguf
from wgpu_q4.foreign.gptq import from_gptq
from wgpu_q4.foreign.mlx import from_mlx
from wgpu_q4.foreign.onnxruntime import from_onnxruntime
from wgpu_q4.foreign.tied import load_tied
from wgpu_q4.foreign.torchao import from_torchao

__all__ = [
    "UnknownTensorError",
    "from_compressed_tensors",
    "from_gguf",
    "from_gptq",
    "from_mlx",
    "from_onnxruntime",
    "from_torchao",
    "load_tied",
]
