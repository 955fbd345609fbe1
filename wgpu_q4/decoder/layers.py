"""The weights of a decoder on its device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wgpu_q4.decoder.config import Config
from wgpu_q4.decoder.matrices import DeviceMatrix, check_matrix, own_matrix, shared_matrix
from wgpu_q4.decoder.weights import Floats, LayerWeights, Weights, check_layer
from wgpu_q4.device.upload import upload
from wgpu_q4.errors import FormatError
from wgpu_q4.kernels.decoder import WeightType

if TYPE_CHECKING:
    from wgpu_q4.device import Context


@dataclass(frozen=True, kw_only=True)
class DeviceLayer:
    """The weights of one layer on the device: as `LayerWeights`, each in a buffer."""

    qkv: DeviceMatrix
    output: DeviceMatrix
    gate_up: DeviceMatrix
    down: DeviceMatrix
    attention_gain: Any
    unit_gain: Any
    qkv_bias: Any | None
    head_gains: Any | None
    post_attention_gain: Any | None
    post_unit_gain: Any | None

    @property
    def matrices(self) -> tuple[DeviceMatrix, ...]:
        """All of its matrices."""
        return self.qkv, self.output, self.gate_up, self.down

    @property
    def nbytes(self) -> int:
        """Bytes of the buffers."""
        vectors = (
            self.attention_gain,
            self.unit_gain,
            self.qkv_bias,
            self.head_gains,
            self.post_attention_gain,
            self.post_unit_gain,
        )
        return sum(matrix.nbytes for matrix in self.matrices) + sum(
            int(vector.size) for vector in vectors if vector is not None
        )


class DeviceModel:
    """All weights of a decoder on the device.

    Attributes:
        embedding: the matrix of the embedding in its parts, mostly one; the copy that other ops
            read too.
        head: the matrix of the head: the same if it is tied.
        final_gain: of the norm before the head.
        layers: the layers.
    """

    def __init__(self, context: Context, weights: Weights) -> None:
        config = weights.config
        check_matrix(weights.embedding, "the embedding")
        if weights.head is not None:
            check_matrix(weights.head, "the head")
        for name, matrix in (("embedding", weights.embedding), ("head", weights.head)):
            if matrix is not None and matrix.shape != (config.vocab, config.hidden):
                raise FormatError(
                    f"the {name} is {matrix.shape[0]} × {matrix.shape[1]}; the model's shape says "
                    f"{config.vocab} × {config.hidden}"
                )
        self.tied = weights.embedding, weights.head  # the copies go when these go
        self.embedding = shared_matrix(context, weights.embedding)
        self.head = self.embedding
        if weights.head is not None:
            self.head = shared_matrix(context, weights.head)
        gain = weights.final_gain.shape
        if gain != (config.hidden,):
            raise FormatError(f"final_gain must have shape ({config.hidden},), not {gain}")
        self.final_gain = upload(context, "gain before the head", weights.final_gain)
        self.layers = [
            _layer(context, config, number, weights.layer(number))
            for number in range(config.layers)
        ]

    @property
    def tied_bytes(self) -> int:
        """Bytes of the embedding and of the head, once if they are one."""
        untied = () if self.head is self.embedding else self.head
        return sum(part.nbytes for part in (*self.embedding, *untied))

    @property
    def layer_types(self) -> tuple[WeightType, ...]:
        """The types of the layers' matrices, from that of most to that of fewest."""
        types = [matrix.matrix.type for layer in self.layers for matrix in layer.matrices]
        return tuple(sorted(dict.fromkeys(types), key=types.count, reverse=True))

    @property
    def nbytes(self) -> int:
        """Bytes of all of them."""
        return self.tied_bytes + self.body_bytes

    @property
    def body_bytes(self) -> int:
        """Bytes of the layers."""
        return sum(layer.nbytes for layer in self.layers) + int(self.final_gain.size)


def _layer(context: Context, config: Config, number: int, layer: LayerWeights) -> DeviceLayer:
    check_layer(config, number, layer)

    def vector(name: str, values: Floats | None) -> Any | None:
        return None if values is None else upload(context, f"layer {number}: {name}", values)

    return DeviceLayer(
        qkv=own_matrix(context, f"layer {number}: queries, keys and values", layer.qkv),
        output=own_matrix(context, f"layer {number}: the matrix behind attention", layer.output),
        gate_up=own_matrix(context, f"layer {number}: gate and up", layer.gate_up),
        down=own_matrix(context, f"layer {number}: down", layer.down),
        attention_gain=vector("gain before attention", layer.attention_gain),
        unit_gain=vector("gain before the unit", layer.unit_gain),
        qkv_bias=vector("bias", layer.qkv_bias),
        head_gains=vector("gains of heads", layer.head_gains),
        post_attention_gain=vector("gain behind attention", layer.post_attention_gain),
        post_unit_gain=vector("gain behind the unit", layer.post_unit_gain),
    )
