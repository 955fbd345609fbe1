"""A tensor of a GGUF model as a `Q4Weight`; the ``gguf`` library dequantizes.

Q4_0 holds what q4gsw holds, a float16 scale and 32 nibbles a block, so it is only shuffled: byte
``i`` of a block has element ``i`` in its low nibble and ``16 + i`` in its high one.  Every other
type is dequantized and quantized anew, a few rows at a time.
"""

from __future__ import annotations

import difflib
from bisect import bisect
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from wgpu_q4 import format as q4gsw
from wgpu_q4.arrays import ArrayLike, DTypeLike, FloatDtype, float_dtype
from wgpu_q4.errors import FormatError
from wgpu_q4.files.regular import StrPath, checked_path, map_file, shown
from wgpu_q4.foreign.gguf_header import Header, Tensor, read_header, tensor_bytes
from wgpu_q4.foreign.shards import other_shards
from wgpu_q4.foreign.source import Rows, Source
from wgpu_q4.format import Rule
from wgpu_q4.format.parallel import for_row_ranges
from wgpu_q4.format.shape import check_group_size
from wgpu_q4.weight import Q4Weight

if TYPE_CHECKING:
    from gguf import GGMLQuantizationType

Q4_0_GROUP = 32
"""Elements of a Q4_0 block: the group size of a Q4_0 tensor."""

_Q4_0_BYTES = 18
"""Bytes of a Q4_0 block: a float16 scale and 32 nibbles."""

_FLOATS = {"F16": "<f2", "F32": "<f4", "F64": "<f8"}
"""The types that need no dequantizing, as numpy writes them."""

_COMPARED = 50
"""How many names with a like beginning, and with a like ending, are compared with a wrong one."""


class UnknownTensorError(KeyError):
    """A file that has no tensor of this name; the message lists the names nearest to it."""

    def __str__(self) -> str:  # KeyError would show the message quoted and escaped
        return str(self.args[0])


def from_gguf(
    path: StrPath,
    tensor: str,
    group_size: int = Q4_0_GROUP,
    scales_dtype: DTypeLike = "float16",
    *,
    rule: Rule = "absmax",
    importance: ArrayLike | None = None,
    progress: Callable[[int], object] | None = None,
) -> Q4Weight:
    """Read one matrix of a GGUF file, or of a model that is split into several.

    Args:
        path: a GGUF file, little-endian; of a split model any of its files, which lie side by side
            under the names that llama.cpp gives them, ``model-00001-of-00003.gguf``.
        tensor: its name there: ``"token_embd.weight"`` is a language model's tied matrix.
        group_size: ``G``, a multiple of 8 that divides ``K``; a Q4_0 tensor has groups of 32 and
            takes no other.
        scales_dtype: float16 or float32, as numpy or torch write it.
        rule: of other types than Q4_0, as in `Q4Weight.quantize`.
        importance: likewise.
        progress: likewise.

    Returns:
        A Q4_0 tensor's own nibbles and scales; any other type dequantized, then quantized as by
        `Q4Weight.quantize`.

    Raises:
        ImportError: the ``gguf`` library is not installed.
        TypeError: an argument of the wrong type.
        UnknownTensorError: (a `KeyError`) no such tensor, in none of the files that there are.
        FormatError: not a whole GGUF file, a tensor that is not two-dimensional or of a type that
            ``gguf`` cannot dequantize, or a group size, dtype or value that q4gsw does not allow.
        OSError: the file cannot be opened, `FileNotFoundError` if it does not exist.
    """
    options: dict[str, Any] = {"rule": rule, "importance": importance, "progress": progress}
    return read_gguf(path, tensor, group_size, scales_dtype, options).weight


def read_gguf(
    path: StrPath, tensor: str, group_size: int, scales_dtype: DTypeLike, options: dict[str, Any]
) -> Source:
    """Return the weight of `from_gguf`, and what it was made of."""
    source = checked_path(path)
    if not isinstance(tensor, str):
        raise TypeError(f"tensor must be the name of a tensor, not {type(tensor).__name__}")
    dtype = float_dtype("scales_dtype", scales_dtype, FormatError)
    source, found = _find_tensor(source, tensor)
    kind, (vocab, embed_dim) = found.kind.name, found.shape
    rows = _rows(found)
    try:
        check_group_size(embed_dim, group_size)
        if kind == "Q4_0":
            if group_size != Q4_0_GROUP:
                raise FormatError(
                    f"its groups have {Q4_0_GROUP} values, so group_size must be {Q4_0_GROUP}, not "
                    f"{group_size}. For another, dequantize it with gguf and use Q4Weight.quantize"
                )
            weight = from_q4_0(found.data, dtype)
        elif kind in _FLOATS:
            weight = Q4Weight(*q4gsw.quantize(rows(0, vocab), group_size, dtype, **options))
        else:
            weight = Q4Weight(*q4gsw.quantize_rows(rows, found.shape, group_size, dtype, **options))
    except FormatError as error:
        raise FormatError(f"{shown(source)}: {kind} tensor {tensor!r}: {error}") from error
    return Source(weight, kind, found.data.nbytes, rows)


class _Found(NamedTuple):
    """A tensor's type, ``(V, K)``, and its bytes ``[V, bytes of a row]``."""

    kind: GGMLQuantizationType
    shape: tuple[int, int]
    data: NDArray[np.uint8]


class GgufModel(NamedTuple):
    """A GGUF file and the others that its model is split into.

    Attributes:
        tensors: of each tensor's name, its file and where it lies there.
        contents: the bytes of each file that was opened, mapped.
        missing: the files that the model should have and that are not there.
    """

    tensors: dict[str, tuple[str, Tensor]]
    contents: dict[str, NDArray[np.uint8]]
    missing: list[str]


def open_gguf(path: str, name: str | None = None) -> GgufModel:
    """Return the tensors of a GGUF file and, of a split model, of the files beside it.

    Args:
        path: one of the files.
        name: of a tensor; the other files are opened only if this one does not have it.

    Raises:
        FormatError: one of the files is not a whole GGUF file.
        OSError: the file cannot be opened.
    """
    model = GgufModel({}, {}, [])
    header = _open_one(model, path)
    if name is None or name not in header.tensors:
        others = other_shards(path, header.shards)
        if header.shards > 1 and not others:
            names = f"…-00001-of-{header.shards:05d}.gguf"
            model.missing.append(f"the other {header.shards - 1} (they must be called {names})")
        for other in others:
            try:
                found = _open_one(model, other)
            except FileNotFoundError:
                model.missing.append(other)
                continue
            if name in found.tensors:
                break
    return model


def _open_one(model: GgufModel, path: str) -> Header:
    content = map_file(path)
    try:
        header = read_header(content)
    except FormatError as error:
        raise FormatError(
            f"{shown(path)} is not a whole GGUF file, version 2 or 3 ({error})"
        ) from error
    model.contents[path] = content
    model.tensors.update({name: (path, tensor) for name, tensor in header.tensors.items()})
    return header


def _find_tensor(path: str, name: str) -> tuple[str, _Found]:
    """Return the file that has the tensor called ``name``, and the tensor, mapped."""
    model = open_gguf(path, name)
    if name not in model.tensors:
        raise UnknownTensorError(_unknown(shown(path), name, model))
    try:
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
    except ImportError as error:
        raise ImportError(
            "reading GGUF files needs the gguf library: pip install 'wgpu_q4[hf]'"
        ) from error
    path, tensor = model.tensors[name]
    content, where = model.contents[path], shown(path)
    try:
        kind = GGMLQuantizationType(tensor.kind)
    except ValueError as error:
        raise FormatError(
            f"{where}: tensor {name!r} has type {tensor.kind}, which this release of the gguf "
            f"library does not know"
        ) from error
    if len(tensor.shape) != 2 or 0 in tensor.shape:
        raise FormatError(
            f"{where}: {kind.name} tensor {name!r} must have shape [V, K] with V ≥ 1, not "
            f"{list(tensor.shape)}"
        )
    try:
        data = tensor_bytes(tensor, GGML_QUANT_SIZES[kind], content)
    except FormatError as error:
        raise FormatError(
            f"{where} is not a whole GGUF file, version 2 or 3: {kind.name} tensor {name!r}: "
            f"{error}"
        ) from error
    return path, _Found(kind, (tensor.shape[0], tensor.shape[1]), data)


def _unknown(where: str, name: str, model: GgufModel) -> str:
    """Return the message for a name that a model does not have."""
    near = difflib.get_close_matches(name, _candidates(name, model.tensors), n=5, cutoff=0.4)
    listed, files = list(model.tensors), len(model.contents)
    rest = f" in {files} files" if files > 1 else ""
    lost = ", ".join(map(shown, model.missing[:3])) + (", …" if model.missing[3:] else "")
    return (
        f"{where} has no tensor {name!r}. "
        + (f"Did you mean {', '.join(map(repr, near))}? " if near else "")
        + f"It has {len(listed)}{rest}: "
        + f"{', '.join(map(repr, listed[:5]))}{', …' if listed[5:] else ''}"
        + (f". Its model is split, and these files of it are not there: {lost}" if lost else "")
    )


def _candidates(name: str, names: Collection[str]) -> list[str]:
    """Return the names that share the longest beginning or the longest ending with ``name``."""
    forwards, backwards = sorted(names), sorted(other[::-1] for other in names)
    at, at_back = bisect(forwards, name), bisect(backwards, name[::-1])
    found = forwards[max(0, at - _COMPARED) : at + _COMPARED]
    ends = backwards[max(0, at_back - _COMPARED) : at_back + _COMPARED]
    return list(dict.fromkeys(found + [other[::-1] for other in ends]))


def from_q4_0(data: NDArray[np.uint8], dtype: FloatDtype) -> Q4Weight:
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


def _rows(tensor: _Found) -> Rows:
    """Return what reads a tensor's values: mapped floats, or what ``gguf`` dequantizes."""
    if tensor.kind.name in _FLOATS:
        floats = tensor.data.reshape(-1).view(_FLOATS[tensor.kind.name]).reshape(tensor.shape)
        return lambda start, stop: floats[start:stop]
    from gguf import dequantize

    def read(start: int, stop: int) -> NDArray[Any]:
        try:
            with np.errstate(all="ignore"):  # what is not finite is refused by name
                return dequantize(tensor.data[start:stop], tensor.kind)
        except NotImplementedError as error:
            raise FormatError("the gguf library cannot dequantize this type") from error

    return read
