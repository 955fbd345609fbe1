"""A Hugging Face checkpoint: safetensors files in a folder, an index of them, and ``config.json``.

Only headers are read; a tensor's bytes are mapped, and its values made when they are asked for.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wgpu_q4.errors import FormatError
from wgpu_q4.files.header import Tensor, read_header
from wgpu_q4.files.regular import map_file, shown

CONFIG, INDEX = "config.json", "model.safetensors.index.json"

_DTYPES = {
    **{"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "F8_E4M3": "u1", "F8_E5M2": "u1"},
    **{"U8": "u1", "I8": "i1", "I32": "<i4", "U32": "<u4", "I64": "<i8"},
}
"""How numpy reads the bytes of safetensors' dtypes; floats that it lacks as unsigned integers."""

FLOATS = frozenset(("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"))


class Checkpoint:
    """The tensors of a checkpoint by name, and its configuration.

    Attributes:
        where: its path, for messages.
        config: what ``config.json`` says; empty if there is none.
        names: of each tensor, in the order of the files.
    """

    def __init__(self, where: str, files: list[str], config: dict[str, Any]) -> None:
        """Read the headers of ``files``.

        Raises:
            FormatError: one of them is not a whole safetensors file, or two share a tensor's name.
            OSError: one of them cannot be opened.
        """
        self.where, self.config = where, config
        self._found: dict[str, tuple[Tensor, NDArray[np.uint8]]] = {}
        for file in files:
            try:
                header, data = read_header(map_file(file))
            except FormatError as error:
                raise FormatError(
                    f"{shown(file)} is not a whole safetensors file ({error})"
                ) from error
            for name, tensor in header.tensors.items():
                if name in self._found:
                    raise FormatError(f"{where}: two files have a tensor {name!r}")
                self._found[name] = tensor, data
        self.names = list(self._found)

    def __contains__(self, name: str) -> bool:
        return name in self._found

    def dtype(self, name: str) -> str:
        """Return safetensors' name for a tensor's dtype."""
        return self._found[name][0].dtype

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape."""
        return self._found[name][0].shape

    def raw(self, name: str) -> NDArray[Any]:
        """Return a tensor, mapped; floats that numpy lacks are unsigned integers.

        Raises:
            FormatError: a dtype that this package does not read.
        """
        tensor, data = self._found[name]
        if tensor.dtype not in _DTYPES:
            raise FormatError(f"{self.where}: tensor {name!r} is {tensor.dtype}, which is not read")
        octets = data[tensor.start : tensor.stop]
        dtype = np.dtype(_DTYPES[tensor.dtype])
        if octets.ctypes.data % dtype.itemsize:  # other writers put tensors at any offset
            octets = octets.copy()
        return octets.view(dtype).reshape(tensor.shape)

    def array(self, name: str) -> NDArray[Any]:
        """Return a tensor; bfloat16 and 8-bit floats become float32, all else is mapped."""
        return widen(self.dtype(name))(self.raw(name))


def widen(dtype: str) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """Return what makes numpy's floats of the raw values of a safetensors dtype, exactly."""
    if dtype == "BF16":
        return lambda raw: (raw.astype(np.uint32) << 16).view(np.float32)
    if dtype == "F8_E5M2":  # the upper half of a float16
        return lambda raw: (raw.astype(np.uint16) << 8).view(np.float16)
    if dtype == "F8_E4M3":
        table = _e4m3()
        return lambda raw: table[raw]
    return lambda raw: raw


def _e4m3() -> NDArray[np.float32]:
    """Return the 256 values of float8_e4m3fn: a sign, 4 bits of exponent, 3 of significand."""
    codes = np.arange(256)
    exponent, significand = codes >> 3 & 15, codes & 7
    normal = np.ldexp(1 + significand / 8, exponent - 7)
    size = np.where(exponent == 0, significand * 2.0**-9, normal)
    size[codes & 127 == 127] = np.nan
    return np.where(codes & 128, -size, size).astype(np.float32)


def open_folder(path: str) -> Checkpoint:
    """Return the checkpoint of a folder, by its index if it has one.

    Raises:
        FormatError: no safetensors file, or an index or configuration that breaks a rule.
        OSError: a file cannot be opened.
    """
    config = read_json(os.path.join(path, CONFIG)) if _has(path, CONFIG) else {}
    names: list[str]
    if _has(path, INDEX):
        files = read_json(os.path.join(path, INDEX)).get("weight_map")
        listed: list[Any] = list(files.values()) if isinstance(files, dict) else [None]
        wrong = [name for name in listed if not _is_plain(name)]
        if wrong:
            raise FormatError(
                f"{shown(path)}: 'weight_map' of {INDEX} must name files of this folder, not "
                f"{str(wrong[0])[:80]!r}"
            )
        names = sorted(set(listed))
    else:
        names = sorted(name for name in os.listdir(path) if name.endswith(".safetensors"))
        if "model.safetensors" in names:
            names = ["model.safetensors"]
    if not names:
        raise FormatError(
            f"{shown(path)} has no safetensors file: give a folder with config.json and "
            f"model.safetensors, as save_pretrained writes, or the path of a file"
        )
    return Checkpoint(shown(path), [os.path.join(path, name) for name in names], config)


def _has(path: str, name: str) -> bool:
    return os.path.isfile(os.path.join(path, name))


def _is_plain(name: object) -> bool:
    return isinstance(name, str) and name not in ("", ".", "..") and not set(name) & {*"/\\\0"}


def read_json(path: str) -> dict[str, Any]:
    """Return the object of a JSON file.

    Raises:
        FormatError: it is no JSON object.
        OSError: it cannot be read.
    """
    try:
        content = json.loads(map_file(path).tobytes())
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{shown(path)} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise FormatError(f"{shown(path)} must hold a JSON object, not a {type(content).__name__}")
    return content
