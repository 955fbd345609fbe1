"""`load_tied`: the tied matrix of a model, found by the names and the configuration of its files.

A model is tied if it stores its embedding and no head of its own; or, in a Hugging Face folder, if
``config.json`` says so.  Nothing but the matrix is read.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from wgpu_q4 import format as q4gsw
from wgpu_q4.arrays import ArrayLike, DTypeLike
from wgpu_q4.errors import FormatError
from wgpu_q4.files.header import read_header
from wgpu_q4.files.loading import load_file
from wgpu_q4.files.metadata import METADATA_KEY
from wgpu_q4.files.regular import StrPath, checked_path, map_file, shown
from wgpu_q4.foreign.checkpoint import CONFIG, FLOATS, Checkpoint, open_folder, read_json, widen
from wgpu_q4.foreign.compressed_tensors import grid_of_compressed_tensors
from wgpu_q4.foreign.embeddings import matrices, module_of, tied_module, untied
from wgpu_q4.foreign.gguf import open_gguf, read_gguf
from wgpu_q4.foreign.gptq import grid_of_gptq
from wgpu_q4.foreign.grid import Grid, hold
from wgpu_q4.foreign.mlx import grid_of_mlx
from wgpu_q4.foreign.shards import first_files
from wgpu_q4.foreign.source import Source
from wgpu_q4.format import Rule
from wgpu_q4.weight import Q4Weight

_OPTIONAL = ("weight_zero_point", "weight_g_idx", "g_idx")
"""Of the tensors of a 4-bit matrix, those that it may lack."""

GGUF_EMBEDDING, GGUF_HEAD = "token_embd.weight", "output.weight"


@dataclass(frozen=True)
class Wanted:
    """What the caller asked for; None stands for the matrix's own or the default."""

    group_size: int | None
    scales_dtype: DTypeLike | None
    rule: Rule
    importance: ArrayLike | None
    progress: Callable[[int], object] | None
    lossy: bool

    @property
    def scales(self) -> DTypeLike:
        """Return the dtype of a float matrix's scales."""
        return "float16" if self.scales_dtype is None else self.scales_dtype

    @property
    def options(self) -> dict[str, Any]:
        """Return how a float matrix is quantized."""
        return {"rule": self.rule, "importance": self.importance, "progress": self.progress}


def load_tied(
    path: StrPath,
    group_size: int | None = None,
    scales_dtype: DTypeLike | None = None,
    *,
    name: str | None = None,
    rule: Rule = "absmax",
    importance: ArrayLike | None = None,
    progress: Callable[[int], object] | None = None,
    lossy: bool = False,
) -> Q4Weight:
    """Return the tied matrix of a model's files.

    A matrix that is 4-bit already is taken over as it is: one that `save_file` or a tied model's
    ``save_pretrained`` wrote, GGUF's Q4_0, compressed-tensors', GPTQ's and MLX's.  One of floats is
    quantized, a few rows at a time; the float matrix never exists whole.

    Args:
        path: a Hugging Face folder (``config.json``, one safetensors file or several), a
            safetensors file, or a GGUF file (of a split model any).
        group_size: of a float matrix, 32 by default.
        scales_dtype: float16 or float32; by default float16, or what a 4-bit matrix has.
        name: of the matrix, if the names do not tell: the module that holds it, or its tensor,
            which is called ``weight`` there, or as packers call it.
        rule: of a float matrix, as in `Q4Weight.quantize`.
        importance: of a float matrix, as in `Q4Weight.quantize`.
        progress: of a float matrix, as in `Q4Weight.quantize`.
        lossy: quantize a 4-bit matrix again if q4gsw cannot hold it exactly.

    Raises:
        TypeError: an argument of the wrong type.
        FormatError: a model whose head is a matrix of its own, no embedding or several, a file that
            is not whole, or a matrix that q4gsw cannot hold.
        OSError: a file cannot be opened, `FileNotFoundError` if it does not exist.
    """
    wanted = Wanted(group_size, scales_dtype, rule, importance, progress, lossy)
    return find_tied(path, name, wanted).weight


def find_tied(path: StrPath, name: str | None, wanted: Wanted) -> Source:
    """Return the weight of `load_tied`, and what it was made of."""
    source = checked_path(path)
    if os.path.isdir(source):
        ggufs = sorted(entry for entry in os.listdir(source) if entry.endswith(".gguf"))
        if not ggufs or any(entry.endswith(".safetensors") for entry in os.listdir(source)):
            return _of_checkpoint(open_folder(source), name, wanted)
        models = first_files(ggufs)
        if len(models) != 1:
            raise FormatError(
                f"{shown(source)} has the GGUF files of {len(models)} models, "
                f"{', '.join(map(shown, ggufs[:5]))}: give the path of one"
            )
        return _of_gguf(os.path.join(source, models[0]), name, wanted)
    content = map_file(source)
    if content[:4].tobytes() == b"GGUF":
        return _of_gguf(source, name, wanted)
    beside = os.path.join(os.path.dirname(source), CONFIG)
    config = read_json(beside) if os.path.isfile(beside) else {}
    checkpoint = Checkpoint(shown(source), [source], config)
    if METADATA_KEY in read_header(content)[0].metadata:
        weight = _own(source, name)
        return Source(weight, "q4gsw", weight.nbytes, None)
    return _of_checkpoint(checkpoint, name, wanted)


def _own(path: str, name: str | None) -> Q4Weight:
    """Return the one matrix of a file of `save_file`, or the one of that name."""
    stored = load_file(path)
    found = set(stored.values()) if name is None else {stored[name]} if name in stored else set()
    if len(found) != 1:
        raise FormatError(
            f"{shown(path)} holds {', '.join(map(repr, list(stored)[:5]))}: give the name of one"
        )
    return found.pop()


def _of_gguf(path: str, name: str | None, wanted: Wanted) -> Source:
    if name is None:
        model = open_gguf(path)
        if model.missing:
            raise FormatError(
                f"{shown(path)} is part of a split model, of which files are not there: "
                f"{', '.join(map(shown, model.missing[:3]))}"
            )
        if GGUF_HEAD in model.tensors and GGUF_EMBEDDING in model.tensors:
            raise untied(shown(path), GGUF_EMBEDDING, GGUF_HEAD)
    size = wanted.group_size or 32
    return read_gguf(path, name or GGUF_EMBEDDING, size, wanted.scales, wanted.options)


def _of_checkpoint(checkpoint: Checkpoint, name: str | None, wanted: Wanted) -> Source:
    module = module_of(checkpoint, name) if name is not None else tied_module(checkpoint)
    try:
        return _read(checkpoint, module, wanted)
    except FormatError as error:
        raise FormatError(f"{checkpoint.where}: {module!r}: {error}") from error


def _read(checkpoint: Checkpoint, module: str, wanted: Wanted) -> Source:
    """Return the matrix of a module, in whichever of the known forms it is stored."""
    tensor = matrices(checkpoint)[module]
    dtype, stored = checkpoint.dtype(tensor), tensor.rpartition(".")[2]
    if stored == "weight" and dtype in FLOATS:
        for scale in ("weight_scale", "weight_scale_inv", "scales"):
            if f"{module}.{scale}" in checkpoint:
                raise FormatError(f"it is {dtype} with {scale!r}, a format that is not taken over")
        return _quantized(checkpoint, tensor, wanted)

    sizes: list[int] = []

    def part(end: str) -> NDArray[Any] | None:
        name = f"{module}.{end}"
        if name in checkpoint:
            sizes.append(checkpoint.raw(name).nbytes)
            return checkpoint.array(name)
        if end in _OPTIONAL:
            return None
        raise FormatError(f"there is no tensor {end!r} beside its {stored!r}")

    kind, found = _taken_over(checkpoint.config, module, stored, dtype, part)
    rows = None
    if isinstance(found, Grid):
        rows = found.values
        found = hold(found, wanted.scales_dtype, wanted.lossy)
    if wanted.group_size not in (None, found.group_size):
        raise FormatError(
            f"it is 4-bit already, in groups of {found.group_size}: leave group_size out"
        )
    return Source(found, kind, sum(sizes), rows)


def _quantized(checkpoint: Checkpoint, tensor: str, wanted: Wanted) -> Source:
    raw, dtype = checkpoint.raw(tensor), checkpoint.dtype(tensor)
    vocab, embed_dim = raw.shape
    floats = widen(dtype)

    def rows(start: int, stop: int) -> NDArray[Any]:
        return floats(raw[start:stop])

    size, options = wanted.group_size or 32, wanted.options
    arrays = q4gsw.quantize_rows(rows, (vocab, embed_dim), size, wanted.scales, **options)
    return Source(Q4Weight(*arrays), dtype, raw.nbytes, rows)


def _taken_over(
    config: dict[str, Any], module: str, stored: str, dtype: str, part: Callable[[str], Any]
) -> tuple[str, Grid | Q4Weight]:
    """Return who packed a matrix that is 4-bit already, and the matrix."""
    settings = _settings(config, module)
    bits, method = settings.get("bits", 4), settings.get("quant_method")
    if bits != 4:
        raise FormatError(f"it has {bits} bits a value, and only 4 are taken over")
    match stored, dtype:
        case "weight_packed", "U8":
            return "q4gsw", Q4Weight(part("weight_packed"), part("weight_scales"))
        case "weight_packed", "I32":
            ends = ("packed", "scale", "shape", "zero_point", "g_idx")
            arrays = [part(f"weight_{end}") for end in ends]
            return "compressed-tensors", grid_of_compressed_tensors(*arrays)
        case "qweight", "I32" if method == "gptq":
            words, zeros, scales, columns = map(part, ("qweight", "qzeros", "scales", "g_idx"))
            version = settings.get("checkpoint_format", "gptq")
            return "GPTQ", grid_of_gptq(words, zeros, scales, columns, version)
        case "weight", "U32" if isinstance(settings.get("group_size"), int):
            words, scales, biases = map(part, ("weight", "scales", "biases"))
            return "MLX", grid_of_mlx(words, scales, biases, settings["group_size"])
    raise FormatError(
        f"its tensor {stored!r} of {dtype}, with quant_method {method!r} in the config, is in no "
        f"format that is taken over: floats, compressed-tensors, gptq and MLX in 4 bits are"
    )


def _settings(config: dict[str, Any], module: str) -> dict[str, Any]:
    """Return the quantization settings of a module: MLX's ``quantization`` has some by name."""
    for key in ("quantization", "quantization_config"):
        settings = config.get(key)
        if isinstance(settings, dict):
            own = settings.get(module)
            return {**settings, **own} if isinstance(own, dict) else settings
    return {}
