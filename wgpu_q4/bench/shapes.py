"""The shapes of tied matrices, and the types of command-line arguments about measurements."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable

from wgpu_q4.kernels import MatrixShape

SHAPES = {
    "llama-3.2-1b": (128256, 2048, 32),
    "gemma-3-270m": (262144, 640, 32),
    "smollm2-135m": (49152, 576, 32),
}
"""V, K and G of models whose embedding and output matrix are one."""

SHAPE_HELP = f"{', '.join(SHAPES)}, or VxKxG; by default the first, on a processor the last"


def default_shape(software: bool) -> MatrixShape:
    """Return the shape to measure on a device that runs on the processor, or on a GPU."""
    return MatrixShape(*SHAPES["smollm2-135m" if software else "llama-3.2-1b"], "float16")


def matrix_shape(text: str) -> MatrixShape:
    """Return a shape by a model's name or as ``VxKxG``.

    Raises:
        argparse.ArgumentTypeError: no such model, or no such shape.
    """
    if text in SHAPES:
        return MatrixShape(*SHAPES[text], "float16")
    match = re.fullmatch(r"(\d+)[x×](\d+)[x×](\d+)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(SHAPES)}, nor VxKxG")
    vocab, embed_dim, group_size = (int(number) for number in match.groups())
    if vocab < 1 or embed_dim < 8 or group_size < 8 or group_size % 8 or embed_dim % group_size:
        raise argparse.ArgumentTypeError(
            f"{text!r}: V must be at least 1, G a multiple of 8, and K a multiple of G"
        )
    return MatrixShape(vocab, embed_dim, group_size, "float16")


def positive(text: str) -> int:
    """Return an integer of at least 1, or raise argparse.ArgumentTypeError."""
    value = _number(text, int)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return int(value)


def seconds(text: str) -> float:
    """Return a positive number, or raise argparse.ArgumentTypeError."""
    value = _number(text, float)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no positive number of seconds")
    return float(value)


def _number(text: str, kind: Callable[[str], float]) -> float:
    try:
        return kind(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from error
