"""Matrices in safetensors files of our own; those of others are in `wgpu_q4.foreign`.

* `saving`     `save_file`: equal matrices stored once, the file whole or absent
* `loading`    `load_file`: mapped, never copied, checked against the digests
* `regular`    a path opened once and mapped; `replacing`: a file that takes another's place
* `header`, `metadata`   what the bytes before the data say
"""

from wgpu_q4.files.loading import load_file
from wgpu_q4.files.saving import save_file

__all__ = ["load_file", "save_file"]
