"""What the tests of files share: matrices, files laid out by hand, a look at what was written."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import safetensors.numpy
from gguf import GGMLQuantizationType as Kind
from numpy.typing import NDArray

from tests.devices import HANGS
from wgpu_q4 import format as q4gsw
from wgpu_q4.errors import FormatError
from wgpu_q4.files import load_file
from wgpu_q4.weight import Q4Weight


def random_floats(vocab: int = 13, embed_dim: int = 96, seed: int = 0) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((vocab, embed_dim)).astype(np.float32)


def assert_equal(result: Q4Weight, expected: Q4Weight) -> None:
    assert result.group_size == expected.group_size
    np.testing.assert_array_equal(result.packed_as("linear"), expected.packed_as("linear"))
    np.testing.assert_array_equal(result.scales, expected.scales, strict=True)


def tensors_of(path: Path) -> dict[str, NDArray[Any]]:
    """What any safetensors reader sees."""
    return safetensors.numpy.load_file(path)


def names_in(directory: Path) -> list[str]:
    return sorted(os.listdir(directory))


def run_python(code: str, *args: object, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "if True:\n" + code, *map(str, args)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=HANGS, **options
    )


# `build` lays a safetensors file out byte by byte: the library refuses to write hostile ones.

PACKED, SCALES = q4gsw.quantize(random_floats(5, 48), 16)
METADATA = {"version": 1, "weights": {"w": {"group_size": 16}, "tied": {"alias_of": "w"}}}
Tensors = dict[str, tuple[str, list[int], bytes]]
TENSORS: Tensors = {
    "w.packed": ("U8", [5, 24], PACKED.tobytes()),
    "w.scales": ("F16", [5, 3], SCALES.tobytes()),
}


def build(tensors: Tensors, metadata: object) -> bytes:
    """A safetensors file with its tensors in the order given, and any JSON as our metadata."""
    text = metadata if isinstance(metadata, str) else json.dumps(metadata)
    header: dict[str, Any] = {"__metadata__": {"wgpu_q4": text}}
    data = b""
    for name, (dtype, shape, octets) in tensors.items():
        offsets = [len(data), len(data) + len(octets)]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
        data += octets
    encoded = json.dumps(header).encode()
    return struct.pack("<Q", len(encoded)) + encoded + data


def refuse(path: Path, content: bytes, message: str) -> None:
    path.write_bytes(content)
    with pytest.raises(FormatError, match=message) as caught:
        load_file(path)
    assert str(path) in str(caught.value)


TOKENS = "token_embd.weight"


def write_gguf(
    path: Path,
    tensors: dict[str, tuple[NDArray[Any], Kind | None]],
    endianness: gguf.GGUFEndian = gguf.GGUFEndian.LITTLE,
) -> None:
    writer = gguf.GGUFWriter(path, "llama", endianess=endianness)
    writer.add_array("tokenizer.ggml.scores", [0.5] * 40)
    for name, (data, kind) in tensors.items():
        writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
