"""What a 4-bit matrix looks like in a graph, and what keeps a matrix from being shared.

`OperandReader` reads three forms: torchao's ``dequantize_affine`` of int8 values; the packed weight
of ``quantized_decomposed.embedding_4bit``; and the packed weights of this package's own ops.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch.fx import Node

from wgpu_q4.executorch.constants import Constants, arguments

Packing = Literal["int8", "linear", "embedding"]
"""How values are stored: one int8 value a byte, or packed in one of the two nibble conventions."""

EMBED_MULTIPLE = 32
"""ExecuTorch's embedding shader writes 32 values at a time."""

VOCAB_MULTIPLE = 4
"""ExecuTorch's 4-bit linear reads scales and writes results by fours."""

GROUP_MULTIPLE = 8

FLOATS = (torch.float32, torch.bfloat16)
"""Dtypes of rows and activations.  bfloat16 is computed in float32 and rounded afterwards."""


class Unsupported(Exception):
    """A quantized matrix that cannot be shared.  The message says why."""


@dataclass(frozen=True)
class Operand:
    """A symmetric 4-bit matrix as a graph holds it.

    Attributes:
        packing: how the values are stored.
        weight: the node of the values.
        scales: the node of the scales, ``[V, K/G]`` or ``[K/G, V]``.
        scales_transposed: whether the scales are ``[K/G, V]``.
        shape: ``(V, K)``.
        group_size: ``G``.
        zero_points: the node of the zero points, all of them 0; None if there is none.
    """

    packing: Packing
    weight: Node
    scales: Node
    scales_transposed: bool
    shape: tuple[int, int]
    group_size: int
    zero_points: Node | None = None

    @property
    def nodes(self) -> list[Node]:
        """The nodes of the values, of the scales and of the zero points."""
        return [node for node in (self.weight, self.scales, self.zero_points) if node is not None]


def is_dequantized(value: object) -> bool:
    """Return whether ``value`` is the result of torchao's ``dequantize_affine``."""
    return isinstance(value, Node) and value.target is torch.ops.torchao.dequantize_affine.default


class OperandReader:
    """Reads the 4-bit matrices of one program.

    Each method raises `Unsupported` for a matrix that is not 4-bit, symmetric, quantized in groups
    along a row, and of a shape that ExecuTorch's embedding and linear both take.
    """

    def __init__(self, constants: Constants) -> None:
        self._constants = constants

    def dequantized(self, node: Node) -> Operand:
        """Return the matrix that a ``dequantize_affine`` node unpacks."""
        given = arguments(node)
        limits = given["quant_min"], given["quant_max"]
        if limits != (-8, 7) or given["input_dtype"] != torch.int8:
            raise Unsupported(f"its values are in {limits[0]}..{limits[1]}, not 4 bits in -8..7")
        if node.meta["val"].dtype not in FLOATS:
            raise Unsupported(
                f"it is dequantized to {node.meta['val'].dtype}, not float32 or bfloat16"
            )
        values = self._constants.tensor(given["input"])
        if values is None or values.ndim != 2:
            raise Unsupported("its values are not a constant matrix")
        block = list(given["block_size"])
        if len(block) != 2 or block[0] != 1:
            raise Unsupported(f"it has one scale for each block of {block}, not groups along a row")
        self._check_zero_points(given["zero_point"])
        shape = (int(values.shape[0]), int(values.shape[1]))
        zero_points = given["zero_point"]
        return self._checked(
            Operand(
                "int8", given["input"], given["scale"], False, shape, int(block[1]), zero_points
            )
        )

    def embedding_4bit(self, node: Node) -> Operand:
        """Return the matrix of a ``quantized_decomposed.embedding_4bit`` node."""
        given = arguments(node)
        limits = given["weight_quant_min"], given["weight_quant_max"]
        if limits != (-8, 7):
            raise Unsupported(f"its values are in {limits[0]}..{limits[1]}, not 4 bits in -8..7")
        if node.meta["val"].dtype not in FLOATS:
            raise Unsupported(f"its rows are {node.meta['val'].dtype}, not float32 or bfloat16")
        self._check_zero_points(given["weight_zero_points"])
        return self.packed(given["weight"], given["weight_scales"], "embedding")

    def packed(
        self, weight: Node, scales: Node, packing: Packing, *, scales_transposed: bool = False
    ) -> Operand:
        """Return the matrix of a packed weight ``[V, K/2]`` and its scales."""
        values, factors = self._constants.tensor(weight), self._constants.tensor(scales)
        if values is None or values.ndim != 2 or factors is None:
            raise Unsupported("its values and scales are not constants")
        vocab, embed_dim = int(values.shape[0]), int(values.shape[1]) * 2
        groups = factors.numel() // max(1, vocab)
        group_size = embed_dim // max(1, groups)
        return self._checked(
            Operand(packing, weight, scales, scales_transposed, (vocab, embed_dim), group_size)
        )

    def _checked(self, operand: Operand) -> Operand:
        (vocab, embed_dim), group_size = operand.shape, operand.group_size
        if group_size < 1 or group_size % GROUP_MULTIPLE or embed_dim % group_size:
            raise Unsupported(
                f"groups of {group_size} are not supported: G must divide K = {embed_dim} and be a "
                f"multiple of {GROUP_MULTIPLE}"
            )
        if embed_dim % EMBED_MULTIPLE:
            raise Unsupported(
                f"K = {embed_dim} is not a multiple of {EMBED_MULTIPLE}, which ExecuTorch's "
                f"embedding needs"
            )
        if vocab % VOCAB_MULTIPLE:
            raise Unsupported(
                f"V = {vocab} is not a multiple of {VOCAB_MULTIPLE}, which ExecuTorch's linear "
                f"needs: pad the matrix with rows of zeros"
            )
        scales = self._constants.tensor(operand.scales)
        if scales is None or scales.numel() != vocab * (embed_dim // group_size):
            raise Unsupported("its scales are not a constant [V, K/G]")
        if scales.dtype not in (torch.float16, *FLOATS):
            raise Unsupported(f"its scales are {scales.dtype}, not float16, bfloat16 or float32")
        return operand

    def _check_zero_points(self, value: object) -> None:
        if value is None:
            return
        zero_points = self._constants.tensor(value)
        if zero_points is None:
            raise Unsupported("its zero points are not constants")
        if bool(zero_points.any()):
            raise Unsupported("it is asymmetric: its zero points are not all 0")
