"""The weights of a decoder from a GGUF file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wgpu_q4.decoder.affine import BLOCKS, AffineMatrix, from_blocks
from wgpu_q4.decoder.config import Config, Rope, RopeType
from wgpu_q4.decoder.families import Family, family_of
from wgpu_q4.decoder.gguf_metadata import Metadata, read_metadata
from wgpu_q4.decoder.gguf_tensors import check_tensors
from wgpu_q4.decoder.weights import Floats, LayerMatrix, LayerWeights, Weights, stack, to_half
from wgpu_q4.errors import FormatError
from wgpu_q4.files.regular import StrPath, checked_path, map_file, shown
from wgpu_q4.foreign.gguf import from_gguf, from_q4_0
from wgpu_q4.foreign.gguf_header import Tensor, read_header, tensor_bytes
from wgpu_q4.foreign.shards import other_shards
from wgpu_q4.weight import Q4Weight

if TYPE_CHECKING:
    from gguf import GGMLQuantizationType

_ROPE_TYPES: dict[str, RopeType] = {"none": "default", "linear": "linear"}
_SCALED_BY_HIDDEN = {("gemma2", 46), ("gemma3", 62)}
"""Family and layers of the models (27B) that scale queries by hidden / heads, not by head_dim."""


def weights_of_file(path: StrPath) -> Weights:
    """Return the weights of a GGUF file; those of a layer are read when they are asked for.

    Raises:
        ImportError: the ``gguf`` library is not installed.
        FormatError: no whole GGUF file, or of a model that the decoder does not run.
        OSError: the file cannot be opened.
    """
    return _File(checked_path(path)).weights()


def config_of_metadata(metadata: Metadata, vocab: int, divisors: Sequence[float] = ()) -> Config:
    """Return the shape of a decoder from the metadata of its file.

    Args:
        metadata: of the file.
        vocab: rows of the embedding.
        divisors: what the frequencies of heads are divided by, if the file says so.

    Raises:
        FormatError: a model of another family, or with a part that the decoder does not run.
    """
    family = family_of(metadata.architecture, gguf=True)
    layers = metadata.count("block_count")
    heads = metadata.count("attention.head_count")
    hidden = metadata.count("embedding_length")
    head_dim = metadata.count("attention.key_length", hidden // heads)
    if metadata.number("attention.value_length", head_dim) != head_dim:
        raise FormatError("the decoder needs keys and values of the same number of columns")
    if metadata.number("rope.dimension_count", head_dim) != head_dim:
        raise FormatError("the decoder rotates whole heads: rope.dimension_count must be head_dim")
    kind = metadata.word("rope.scaling.type", "none")
    if kind not in _ROPE_TYPES:
        raise FormatError(f"the decoder rotates heads as {', '.join(_ROPE_TYPES)}, not as {kind!r}")
    whole = Rope(
        metadata.number("rope.freq_base", 10000.0),
        _ROPE_TYPES[kind],
        metadata.number("rope.scaling.factor", 1.0),
        divisors=tuple(divisors),
    )
    ropes: tuple[Rope, ...] = (whole,)
    windows = rope_of_layer = (0,) * layers
    every = family.global_every
    if every:
        local = [number % every != every - 1 for number in range(layers)]
        window = metadata.count("attention.sliding_window", least=0)
        windows = tuple(window if is_local else 0 for is_local in local)
        if family.local_theta is not None:
            ropes = (whole, Rope(metadata.number("rope.freq_base_swa", family.local_theta)))
            rope_of_layer = tuple(int(is_local) for is_local in local)
    by_hidden = (family.gguf, layers) in _SCALED_BY_HIDDEN
    scaled_by = hidden // heads if by_hidden else head_dim
    caps = [
        metadata.number(key) if is_used and metadata.has(key) else None
        for key, is_used in (
            ("attn_logit_softcapping", family.score_cap),
            ("final_logit_softcapping", True),
        )
    ]
    return Config(
        family=family.name,
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=metadata.count("attention.head_count_kv", heads),
        head_dim=head_dim,
        intermediate=metadata.count("feed_forward_length"),
        vocab=vocab,
        epsilon=float(metadata.number("attention.layer_norm_rms_epsilon")),
        activation=family.activation,
        qkv_bias=family.qkv_bias,
        head_norm=family.head_norm,
        post_norms=family.post_norms,
        embedding_factor=float(np.sqrt(hidden)) if family.root_embedding else 1.0,
        query_factor=float(scaled_by) ** -0.5,
        score_cap=caps[0],
        logit_cap=caps[1],
        windows=windows,
        ropes=ropes,
        rope_of_layer=rope_of_layer,
        positions=metadata.count("context_length"),
        end_of_text=metadata.ids("eos_token_id", "eot_token_id"),
    )


class _File:
    """A GGUF file, mapped, and its tensors made into what the decoder holds."""

    def __init__(self, path: str) -> None:
        self._path, self._where = path, shown(path)
        self._tensors: dict[str, tuple[Tensor, NDArray[np.uint8]]] = {}
        self._metadata = Metadata({})
        shards = self._open(path)
        try:
            from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
        except ImportError as error:
            raise ImportError(
                "reading GGUF files needs the gguf library: pip install 'wgpu_q4[hf]'"
            ) from error
        self._sizes, self._kinds = GGML_QUANT_SIZES, GGMLQuantizationType
        for other in other_shards(path, shards):
            self._open(other)
        self._family: Family = family_of(self._metadata.architecture, gguf=True)
        vocab = self._tensor("token_embd.weight")[0].shape[0]
        divisors: Sequence[float] = ()
        if "rope_freqs.weight" in self._tensors:
            divisors = self._floats("rope_freqs.weight").tolist()
        self._config = config_of_metadata(self._metadata, vocab, divisors)
        headers = {name: tensor for name, (tensor, _) in self._tensors.items()}
        try:
            check_tensors(headers, self._config, self._family)
        except FormatError as error:
            raise FormatError(f"{self._where}: {error}") from error

    def weights(self) -> Weights:
        """Return all of them."""
        head = "output.weight"
        return Weights(
            config=self._config,
            embedding=from_gguf(self._path, "token_embd.weight"),
            head=from_gguf(self._path, head) if head in self._tensors else None,
            final_gain=self._floats("output_norm.weight"),
            layer=self._layer,
        )

    def _open(self, path: str) -> int:
        """Add the tensors of one file, and its metadata if it names an architecture.

        Returns:
            The files of the model.
        """
        content = map_file(path)
        try:
            header = read_header(content)
            metadata = Metadata(read_metadata(content))
        except FormatError as error:
            raise FormatError(f"{shown(path)} is not a whole GGUF file ({error})") from error
        self._tensors |= {name: (found, content) for name, found in header.tensors.items()}
        if metadata.architecture:
            self._metadata = metadata
        return header.shards

    def _layer(self, number: int) -> LayerWeights:
        at = f"blk.{number}."
        bias = head_gains = None
        if self._config.qkv_bias:
            bias = np.concatenate([self._floats(f"{at}attn_{name}.bias") for name in "qkv"])
        if self._config.head_norm:
            gains = [self._floats(f"{at}attn_{name}_norm.weight") for name in "qk"]
            head_gains = np.stack(gains)
        post = self._config.post_norms
        return LayerWeights(
            qkv=stack(
                [
                    self._rotated(f"{at}attn_q.weight", self._config.heads),
                    self._rotated(f"{at}attn_k.weight", self._config.kv_heads),
                    self._matrix(f"{at}attn_v.weight"),
                ]
            ),
            output=self._matrix(f"{at}attn_output.weight"),
            gate_up=stack([self._matrix(f"{at}ffn_{name}.weight") for name in ("gate", "up")]),
            down=self._matrix(f"{at}ffn_down.weight"),
            attention_gain=self._floats(f"{at}attn_norm.weight"),
            unit_gain=self._floats(f"{at}ffn_norm.weight"),
            qkv_bias=bias,
            head_gains=head_gains,
            post_attention_gain=self._floats(f"{at}post_attention_norm.weight") if post else None,
            post_unit_gain=self._floats(f"{at}post_ffw_norm.weight") if post else None,
        )

    def _rotated(self, name: str, heads: int) -> LayerMatrix:
        """Return a matrix of heads whose halves are rotated together.

        GGUF holds the rows of some families pair by pair: the first of each half, the second.
        """
        matrix = self._matrix(name)
        if not self._family.gguf_interleaved:
            return matrix
        rows = np.arange(matrix.shape[0]).reshape(heads, -1, 2).swapaxes(1, 2).reshape(-1)
        if isinstance(matrix, Q4Weight):
            return Q4Weight(matrix.packed_as("linear")[rows], matrix.scales[rows])
        if isinstance(matrix, AffineMatrix):
            return matrix.take(rows)
        return matrix[rows]

    def _matrix(self, name: str) -> LayerMatrix:
        kind, data = self._data(name)
        if kind.name == "Q4_0":
            return from_q4_0(data, "float16")
        if kind.name in BLOCKS:
            try:
                return from_blocks(kind.name, data)
            except FormatError as error:
                raise FormatError(f"{self._where}: tensor {name!r}: {error}") from error
        return to_half(self._dequantized(kind, data), f"{self._where}: tensor {name!r}")

    def _floats(self, name: str) -> Floats:
        kind, data = self._data(name)
        return self._dequantized(kind, data).reshape(-1)

    def _dequantized(self, kind: GGMLQuantizationType, data: NDArray[np.uint8]) -> Floats:
        from gguf import dequantize

        try:
            values: NDArray[Any] = dequantize(data, kind)
        except NotImplementedError as error:
            raise FormatError(f"{self._where}: tensors of type {kind.name} are not read") from error
        return values.astype(np.float32, copy=False)

    def _data(self, name: str) -> tuple[GGMLQuantizationType, NDArray[np.uint8]]:
        tensor, content = self._tensor(name)
        rows = tensor.shape if len(tensor.shape) > 1 else (1, *tensor.shape)
        try:
            kind = self._kinds(tensor.kind)
            return kind, tensor_bytes(tensor._replace(shape=rows), self._sizes[kind], content)
        except (FormatError, ValueError) as error:
            raise FormatError(f"{self._where}: tensor {name!r}: {error}") from error

    def _tensor(self, name: str) -> tuple[Tensor, NDArray[np.uint8]]:
        """Return a tensor, and every byte of the file that it is in."""
        if name not in self._tensors:
            raise FormatError(f"{self._where} has no tensor {name!r}")
        return self._tensors[name]
