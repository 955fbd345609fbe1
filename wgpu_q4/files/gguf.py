"""A tensor of a GGUF model as a `Q4Weight`, with the ``gguf`` library.

Q4_0 holds what q4gsw holds, a float16 scale and 32 nibbles a block, so it is only shuffled: byte
``i`` of a block has element ``i`` in its low nibble and ``16 + i`` in its high one.  Every other
type is dequantized and quantized anew, a few rows at a time.
"""

from __future__ import annotations

import difflib
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wgpu_q4 import format as q4gsw
from wgpu_q4.arrays import DTypeLike, FloatDtype, float_dtype
from wgpu_q4.errors import FormatError
from wgpu_q4.format.parallel import for_row_ranges
from wgpu_q4.format.shape import check_group_size
from wgpu_q4.weight import Q4Weight

Q4_0_GROUP = 32
"""Elements of a Q4_0 block: the group size of a Q4_0 tensor."""

_Q4_0_BYTES = 18
"""Bytes of a Q4_0 block: a float16 scale and 32 nibbles."""


class UnknownTensorError(KeyError):
    """A file that has no tensor of this name; the message lists the names nearest to it."""

    def __str__(self) -> str:  # KeyError would show the message quoted and escaped
        return str(self.args[0])


def from_gguf(
    path: str | os.PathLike[str],
    tensor: str,
    group_size: int = Q4_0_GROUP,
    scales_dtype: DTypeLike = "float16",
) -> Q4Weight:
    """Read one matrix of a GGUF file.

    Args:
        path: a GGUF file, little-endian.
        tensor: its name there: ``"token_embd.weight"`` is a language model's tied matrix.
        group_size: ``G``, a multiple of 8 that divides ``K``; a Q4_0 tensor has groups of 32 and
            takes no other.
        scales_dtype: float16 or float32, as numpy or torch write it.

    Returns:
        A Q4_0 tensor's own nibbles and scales; any other type dequantized, then quantized as by
        `Q4Weight.quantize`.

    Raises:
        ImportError: the ``gguf`` library is not installed.
        TypeError: an argument of the wrong type.
        UnknownTensorError: (a `KeyError`) no such tensor.
        FormatError: not a whole GGUF file, a tensor that is not two-dimensional or of a type that
            ``gguf`` cannot dequantize, or a group size, dtype or value that q4gsw does not allow.
        OSError: the file cannot be opened, `FileNotFoundError` if it does not exist.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"path must be a str or a pathlib.Path, not {type(path).__name__}")
    if not isinstance(tensor, str):
        raise TypeError(f"tensor must be the name of a tensor, not {type(tensor).__name__}")
    dtype = float_dtype("scales_dtype", scales_dtype, FormatError)
    found = _find_tensor(path, tensor)
    kind = found.tensor_type.name
    where = f"{os.fspath(path)}: {kind} tensor {tensor!r}"
    if len(found.shape) != 2 or 0 in found.shape:
        shape = [int(size) for size in reversed(found.shape)]
        raise FormatError(f"{where} must have shape [V, K] with V ≥ 1, not {shape}")
    try:
        check_group_size(int(found.shape[0]), group_size)
        if kind == "Q4_0":
            if group_size != Q4_0_GROUP:
                raise FormatError(
                    f"its groups have {Q4_0_GROUP} values, so group_size must be {Q4_0_GROUP}, not "
                    f"{group_size}. For another, dequantize it with gguf and use Q4Weight.quantize"
                )
            return _from_q4_0(found.data, dtype)
        if found.data.dtype.kind == "f":
            return Q4Weight.quantize(found.data, group_size, dtype)
        return _requantize(found, group_size, dtype)
    except FormatError as error:
        raise FormatError(f"{where}: {error}") from error


def _find_tensor(path: str | os.PathLike[str], name: str) -> Any:
    """The ``gguf.ReaderTensor`` called ``name``."""
    try:
        from gguf import GGUFReader
    except ImportError as error:
        raise ImportError(
            "reading GGUF files needs the gguf library: pip install 'wgpu_q4[hf]'"
        ) from error

    class Reader(GGUFReader):
        """Stops at the end of a truncated file, where the library reads on, empty, without end."""

        def _get(self, offset: int, dtype: Any, count: int = 1, *args: Any, **options: Any) -> Any:
            array = super()._get(offset, dtype, count, *args, **options)
            if array.size != count:
                raise ValueError(f"the file ends before byte {offset} + {count} × {array.itemsize}")
            return array

    with open(path, "rb"):  # an OSError about the file itself is raised here, as it is
        pass
    try:
        with np.errstate(over="ignore"):  # sizes of a hostile file; they fail as too large
            reader = Reader(path)
    except Exception as error:  # the library checks little: many types may come
        raise FormatError(
            f"{os.fspath(path)} is not a whole GGUF file, version 2 or 3 "
            f"({type(error).__name__}: {error})"
        ) from error
    if reader.byte_order != "I":
        raise FormatError(
            f"{os.fspath(path)} is a big-endian GGUF file; convert it with gguf-convert-endian"
        )
    for tensor in reader.tensors:
        if tensor.name == name:
            return tensor
    names = [tensor.name for tensor in reader.tensors]
    near = difflib.get_close_matches(name, names, n=5, cutoff=0.4)
    raise UnknownTensorError(
        f"{os.fspath(path)} has no tensor {name!r}. "
        + (f"Did you mean {', '.join(map(repr, near))}? " if near else "")
        + f"It has {len(names)}: {', '.join(map(repr, names[:5]))}{', …' if names[5:] else ''}"
    )


def _from_q4_0(data: NDArray[np.uint8], dtype: FloatDtype) -> Q4Weight:
    """The weight of ``[V, K/32 · 18]`` bytes of blocks, bit for bit."""
    vocab = data.shape[0]
    blocks = data.reshape(vocab, -1, _Q4_0_BYTES)
    packed = np.empty((vocab, blocks.shape[1], Q4_0_GROUP // 2), np.uint8)
    scales = np.empty(blocks.shape[:2], dtype)

    def shuffle(start: int, stop: int) -> None:
        part = blocks[start:stop]
        scales[start:stop] = np.ascontiguousarray(part[..., :2]).view("<f2")[..., 0]
        even, odd = part[..., 2::2], part[..., 3::2]
        packed[start:stop, :, :8] = (even & 0x0F) | (odd << 4)
        packed[start:stop, :, 8:] = (even >> 4) | (odd & 0xF0)

    for_row_ranges(vocab, data.shape[1], shuffle)
    return Q4Weight(packed.reshape(vocab, -1), scales)


def _requantize(tensor: Any, group_size: int, dtype: FloatDtype) -> Q4Weight:
    """The weight of any type that ``gguf`` dequantizes; the float matrix never exists whole."""
    from gguf import dequantize

    embed_dim, vocab = (int(size) for size in tensor.shape)
    packed = np.empty((vocab, embed_dim // 2), np.uint8)
    scales = np.empty((vocab, embed_dim // group_size), dtype)

    def requantize(start: int, stop: int) -> None:
        try:
            with np.errstate(all="ignore"):  # what is not finite is refused below, by name
                rows = dequantize(tensor.data[start:stop], tensor.tensor_type)
        except NotImplementedError as error:
            raise FormatError("the gguf library cannot dequantize this type") from error
        try:
            packed[start:stop], scales[start:stop] = q4gsw.quantize(rows, group_size, dtype)
        except FormatError as error:
            raise FormatError(f"counting rows from {start}: {error}") from error

    for_row_ranges(vocab, embed_dim * 4, requantize)
    return Q4Weight(packed, scales)
