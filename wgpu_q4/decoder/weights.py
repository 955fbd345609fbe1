"""The weights of a decoder on the host, a layer at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wgpu_q4.decoder.affine import AffineMatrix
from wgpu_q4.decoder.config import Config
from wgpu_q4.errors import FormatError
from wgpu_q4.weight import Q4Weight

Floats = NDArray[np.float32]
Body = Literal["float16", "q4gsw"]
"""What a model in floats has its layers' matrices rounded or quantized to."""

LayerMatrix = Q4Weight | AffineMatrix | NDArray[np.float16]
"""A matrix of a layer, ``[outputs, inputs]``."""


@dataclass(frozen=True, kw_only=True)
class LayerWeights:
    """The weights of one layer. Gains are the numbers that a norm multiplies with.

    Attributes:
        qkv: the matrices of queries, keys and values, one above the other.
        output: the matrix behind attention.
        gate_up: the matrices of gate and up, one above the other.
        down: the matrix behind the gated linear unit.
        attention_gain, unit_gain: of the norms before attention and before the unit.
        qkv_bias: float32, if there is one.
        head_gains: float32 ``[2, head_dim]`` for queries and keys, if heads are normalized.
        post_attention_gain, post_unit_gain: of the norms behind them, if there are some.
    """

    qkv: LayerMatrix
    output: LayerMatrix
    gate_up: LayerMatrix
    down: LayerMatrix
    attention_gain: Floats
    unit_gain: Floats
    qkv_bias: Floats | None = None
    head_gains: Floats | None = None
    post_attention_gain: Floats | None = None
    post_unit_gain: Floats | None = None


@dataclass(frozen=True, kw_only=True)
class Weights:
    """All weights of a decoder.

    Attributes:
        config: the model's shape.
        embedding: the matrix of the embedding, and of the head if it is tied.
        head: the matrix of a head that is not tied.
        final_gain: of the norm before the head.
        layer: makes the weights of a layer, which are not kept.
    """

    config: Config
    embedding: Q4Weight
    head: Q4Weight | None
    final_gain: Floats
    layer: Callable[[int], LayerWeights]


def check_layer(config: Config, number: int, layer: LayerWeights) -> None:
    """Raise unless the weights of a layer have the shapes that ``config`` says.

    Raises:
        FormatError: they have not.
    """
    hidden, unit, attended = config.hidden, config.intermediate, config.heads * config.head_dim
    columns, post = config.qkv_columns, (hidden,) if config.post_norms else None
    expected: dict[str, tuple[int, ...] | None] = {
        "qkv": (columns, hidden),
        "output": (hidden, attended),
        "gate_up": (2 * unit, hidden),
        "down": (hidden, unit),
        "attention_gain": (hidden,),
        "unit_gain": (hidden,),
        "qkv_bias": (columns,) if config.qkv_bias else None,
        "head_gains": (2, config.head_dim) if config.head_norm else None,
        "post_attention_gain": post,
        "post_unit_gain": post,
    }
    for name, shape in expected.items():
        given = getattr(layer, name)
        found = None if given is None else tuple(given.shape)
        if found != shape:
            raise FormatError(
                f"{name} of layer {number} must have shape {shape}, as the model's shape says, "
                f"not {found}"
            )


def stack(parts: Sequence[LayerMatrix]) -> LayerMatrix:
    """Return matrices one above the other: as they are if all are of one type, else in float16."""
    quantized = [part for part in parts if isinstance(part, Q4Weight)]
    kinds = {(part.group_size, part.scales.dtype) for part in quantized}
    if len(quantized) == len(parts) and len(kinds) == 1:
        packed = np.concatenate([part.packed_as("linear") for part in quantized])
        return Q4Weight(packed, np.concatenate([part.scales for part in quantized]))
    affine = [part for part in parts if isinstance(part, AffineMatrix)]
    if len(affine) == len(parts) and len({part.bits for part in affine}) == 1:
        packed = np.concatenate([part.packed for part in affine])
        return AffineMatrix(packed, np.concatenate([part.pairs for part in affine]))
    floats = [
        part if isinstance(part, np.ndarray) else to_half(part.dequantize(), "a matrix")
        for part in parts
    ]
    return np.concatenate(floats)


def to_half(values: NDArray[np.floating], name: str) -> NDArray[np.float16]:
    """Return ``values`` rounded to the nearest float16.

    Raises:
        FormatError: a value is not finite, or too large for float16.
    """
    with np.errstate(over="ignore"):
        halves: NDArray[np.float16] = values.astype(np.float16)
    if not np.isfinite(halves).all():
        raise FormatError(
            f"{name} has a value that float16 does not hold (its largest is 65504): it cannot be "
            f"part of a decoder whose layers are in float16"
        )
    return halves
