"""A whole model for a page: the program of its decoder, and its weights."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wgpu_q4.commands.answer import UsageError
from wgpu_q4.commands.web_programs import LIMITS
from wgpu_q4.decoder import Weights
from wgpu_q4.decoder.program import program_of
from wgpu_q4.decoder.weights import Body
from wgpu_q4.weight import Q4Weight

EMBEDDING, HEAD = "embed_tokens", "lm_head"
"""The names of a model's matrices in the file that the page loads."""


def is_model(path: Path) -> bool:
    """Tell if a path names a whole model: a GGUF file, or a folder of Hugging Face's."""
    return path.is_dir() or path.suffix.lower() == ".gguf"


class TensorFile:
    """Bytes of tensors, which arrive one after the other and become a safetensors file.

    Args:
        folder: where there is room for them.
    """

    def __init__(self, folder: Path) -> None:
        self._bytes = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  # gone when this goes
        self._ends: dict[str, int] = {}

    def put(self, name: str, data: NDArray[np.uint8]) -> None:
        """Append bytes to the last tensor, or begin the next one."""
        self._bytes.write(data.tobytes())
        self._ends[name] = self._bytes.tell()

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return self._bytes.tell()

    def save(self, path: Path) -> None:
        """Write the file."""
        header: dict[str, Any] = {}
        start = 0
        for name, end in self._ends.items():
            header[name] = {"dtype": "U8", "shape": [end - start], "data_offsets": [start, end]}
            start = end
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        self._bytes.seek(0)
        with path.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            shutil.copyfileobj(self._bytes, file, 1 << 20)


def weights_of(model: Path, body: Body) -> Weights:
    """Return the weights of a model.

    Raises:
        ImportError: a library that reads it is not installed.
        FormatError: a model that the decoder does not run.
    """
    if model.is_dir():
        from wgpu_q4.decoder.huggingface import weights_of_model

        return weights_of_model(model, body, 32)
    from wgpu_q4.decoder.gguf import weights_of_file

    return weights_of_file(model)


def matrices_of(weights: Weights) -> dict[str, Q4Weight]:
    """Return the matrices of embedding and head by their names, one object if they are tied."""
    embedding = weights.embedding
    return {EMBEDDING: embedding, HEAD: embedding if weights.head is None else weights.head}


def write_up(weights: Weights, tensors: TensorFile, context: int) -> dict[str, Any]:
    """Return the program of a model and its shape, and hand its layers to ``tensors``.

    Raises:
        FormatError: a matrix that the kernels cannot read.
        UsageError: ``context`` is more than the model was made for.
    """
    config = weights.config
    if not 1 <= context <= config.positions:
        raise UsageError(
            f"--context must be in 1..{config.positions}, the positions that the model was made "
            f"for, not {context}"
        )
    limits = {**LIMITS, **dict.fromkeys(_OF_THE_VISITOR, 1 << 53)}
    return {
        **program_of(weights, tensors.put, limits, capacity=context),
        "matrices": [EMBEDDING, HEAD],
        "capacity": context,
        "end": list(config.end_of_text),
        "about": f"{config.family}, {config.layers} layers, hidden {config.hidden}",
    }


_OF_THE_VISITOR = ("max-buffer-size", "max-storage-buffer-binding-size")
"""Limits that the page compares with the sizes of its buffers."""
