"""Matrices in files: safetensors of our own, GGUF of others.

* `saving`     `save_file`: equal matrices stored once, the file whole or absent
* `loading`    `load_file`: mapped, never copied, checked against the digests
* `gguf`       `from_gguf`: a tensor of a GGUF model; `shards`  the files that one is split into
* `regular`    a path opened once and mapped; `replacing`: a file that takes another's place
* `header`, `metadata`, `gguf_header`   what the bytes before the data say
"""

from wgpu_q4.files.gguf import UnknownTensorError, from_gguf
from wgpu_q4.files.loading import load_file
from wgpu_q4.files.saving import save_file

__all__ = ["UnknownTensorError", "from_gguf", "load_file", "save_file"]
