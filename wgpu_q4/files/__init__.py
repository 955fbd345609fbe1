"""Matrices in files: safetensors of our own, GGUF of others.

* `safetensors`  `save_file` and `load_file`: equal matrices stored once, mapped, never copied
* `gguf`         `from_gguf`: a tensor of a GGUF model
"""

from wgpu_q4.files.gguf import UnknownTensorError, from_gguf
from wgpu_q4.files.safetensors import load_file, save_file

__all__ = ["UnknownTensorError", "from_gguf", "load_file", "save_file"]
