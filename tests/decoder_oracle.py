"""A decoder in float64 numpy, plain and slow, and random weights for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wgpu_q4 import Q4Weight
from wgpu_q4.decoder import Config, LayerWeights, Rope, Weights
from wgpu_q4.decoder.affine import AffineMatrix
from wgpu_q4.decoder.weights import LayerMatrix
from wgpu_q4.kernels.decoder import WeightType

Doubles = NDArray[np.float64]

PLAIN = Config(
    family="llama",
    layers=2,
    hidden=64,
    heads=4,
    kv_heads=2,
    head_dim=16,
    intermediate=96,
    vocab=101,
    epsilon=1e-5,
    activation="silu",
    qkv_bias=False,
    head_norm=False,
    post_norms=False,
    embedding_factor=1.0,
    query_factor=0.25,
    score_cap=None,
    logit_cap=None,
    windows=(0, 0),
    ropes=(Rope(10000.0),),
    rope_of_layer=(0, 0),
    positions=4096,
    end_of_text=(2,),
)
EVERYTHING = replace(
    PLAIN,
    activation="gelu",
    qkv_bias=True,
    head_norm=True,
    post_norms=True,
    embedding_factor=8.0,
    score_cap=4.0,
    logit_cap=9.0,
    windows=(6, 0),
    ropes=(Rope(10000.0), Rope(1e6, "linear", 8.0)),
    rope_of_layer=(0, 1),
)
"""All that one family or another does."""


@cache
def random_weights(
    config: Config, body: WeightType = "float16", scales: str = "float16", tied: bool = True
) -> Weights:
    """Return random weights, the same objects for the same arguments."""
    rng = np.random.default_rng(5)

    def floats(*shape: int) -> NDArray[np.float32]:
        return rng.standard_normal(shape, np.float32) * np.float32(0.3)

    def matrix(rows: int, columns: int) -> LayerMatrix:
        values = floats(rows, columns)
        if body == "q4gsw":
            return Q4Weight.quantize(values)
        return values.astype(np.float16) if body == "float16" else affine(values, body)

    def gain(columns: int) -> NDArray[np.float32]:
        return 1 + floats(columns)

    layers = [
        LayerWeights(
            qkv=matrix(config.qkv_columns, config.hidden),
            output=matrix(config.hidden, config.heads * config.head_dim),
            gate_up=matrix(2 * config.intermediate, config.hidden),
            down=matrix(config.hidden, config.intermediate),
            attention_gain=gain(config.hidden),
            unit_gain=gain(config.hidden),
            qkv_bias=floats(config.qkv_columns) if config.qkv_bias else None,
            head_gains=1 + floats(2, config.head_dim) if config.head_norm else None,
            post_attention_gain=gain(config.hidden) if config.post_norms else None,
            post_unit_gain=gain(config.hidden) if config.post_norms else None,
        )
        for _ in range(config.layers)
    ]
    embedding = Q4Weight.quantize(floats(config.vocab, config.hidden), 32, scales)
    head = None if tied else Q4Weight.quantize(floats(config.vocab, config.hidden), 64)
    final = gain(config.hidden)
    return Weights(
        config=config, embedding=embedding, head=head, final_gain=final, layer=layers.__getitem__
    )


def logits_of(weights: Weights, ids: Sequence[int]) -> Doubles:
    """Return the logits ``[n, vocab]`` of a model after each of ``ids``."""
    config = weights.config
    x = doubles(weights.embedding)[list(ids)] * np.float32(config.embedding_factor)
    for number in range(config.layers):
        layer = weights.layer(number)
        part = attention(weights, number, norm(x, layer.attention_gain, config))
        x = x + after(part, layer.post_attention_gain, config)
        made = norm(x, layer.unit_gain, config) @ doubles(layer.gate_up).T
        gate, up = np.split(made, 2, axis=1)
        part = activate(gate, config) * up @ doubles(layer.down).T
        x = x + after(part, layer.post_unit_gain, config)
    head = weights.embedding if weights.head is None else weights.head
    return capped(norm(x, weights.final_gain, config) @ doubles(head).T, config.logit_cap)


def attention(weights: Weights, number: int, x: Doubles) -> Doubles:
    """Return what the attention of a layer makes of normalized rows."""
    config, layer = weights.config, weights.layer(number)
    made = x @ doubles(layer.qkv).T
    if layer.qkv_bias is not None:
        made = made + layer.qkv_bias
    heads = made.reshape(len(x), -1, config.head_dim).swapaxes(0, 1)
    ends = [config.heads, config.heads + config.kv_heads]
    queries, keys, values = np.split(heads, ends)
    if layer.head_gains is not None:
        queries = norm(queries, layer.head_gains[0], config)
        keys = norm(keys, layer.head_gains[1], config)
    rope = config.ropes[config.rope_of_layer[number]]
    queries, keys = rotated(queries, rope), rotated(keys, rope)
    shared = config.heads // config.kv_heads
    keys, values = np.repeat(keys, shared, axis=0), np.repeat(values, shared, axis=0)
    scores = capped(queries @ keys.swapaxes(1, 2) * config.query_factor, config.score_cap)
    ahead = np.arange(len(x))[:, None] - np.arange(len(x))
    window = config.windows[number] or len(x)
    scores = np.where((ahead >= 0) & (ahead < window), scores, -np.inf)
    shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
    shares = shares / shares.sum(axis=-1, keepdims=True)
    mixed: Doubles = (shares @ values).swapaxes(0, 1).reshape(len(x), -1)
    return mixed @ doubles(layer.output).T


def rotated(heads: Doubles, rope: Rope) -> Doubles:
    """Return heads ``[h, n, d]`` rotated by their position."""
    count, columns = heads.shape[1:]
    frequencies = rope.theta ** (-np.arange(0, columns, 2) / columns) / rope.factor
    angles = np.arange(count)[:, None] * np.concatenate([frequencies, frequencies])
    first, second = np.split(heads, 2, axis=-1)
    turned: Doubles = np.concatenate([-second, first], axis=-1)
    result: Doubles = heads * np.cos(angles) + turned * np.sin(angles)
    return result


def norm(x: Doubles, gain: NDArray[Any], config: Config) -> Doubles:
    """Return rows over the root of their mean square, times a gain."""
    mean: Doubles = (x**2).mean(axis=-1, keepdims=True)
    normed: Doubles = x / np.sqrt(mean + config.epsilon) * gain
    return normed


def after(part: Doubles, gain: NDArray[Any] | None, config: Config) -> Doubles:
    """Return what a layer's part adds to the residual stream."""
    return part if gain is None else norm(part, gain, config)


def activate(x: Doubles, config: Config) -> Doubles:
    """Return the activation of the gate."""
    share: Doubles = 1 / (1 + np.exp(-x))
    if config.activation == "gelu":
        share = (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))) / 2
    return x * share


def capped(x: Doubles, cap: float | None) -> Doubles:
    """Return x capped softly."""
    return x if cap is None else cap * np.tanh(x / cap)


def affine(values: NDArray[np.float32], body: WeightType) -> AffineMatrix:
    """Return values rounded to integers from the least to the largest of 32."""
    levels = 15 if body == "affine4" else 255
    groups = values.reshape(len(values), -1, 32)
    low, high = groups.min(axis=-1), groups.max(axis=-1)
    pairs = np.stack([(high - low) / levels, low], axis=-1).astype(np.float16)
    steps = (groups - pairs[..., 1:]) / pairs[..., :1].astype(np.float32)
    q: NDArray[np.uint8] = steps.round().clip(0, levels).astype(np.uint8).reshape(values.shape)
    if body == "affine4":
        q = q[:, 0::2] + np.uint8(16) * q[:, 1::2]
    return AffineMatrix(q, pairs)


def doubles(matrix: LayerMatrix) -> Doubles:
    """Return a matrix in float64."""
    values = matrix if isinstance(matrix, np.ndarray) else matrix.dequantize()
    return values.astype(np.float64)


def bound(logits: Doubles) -> float:
    """Return how far the decoder's float32 logits may be from these.

    A logit of these models comes of some 2,000 sums in a row, each off by 2⁻²⁴ of its size, which
    norms and soft maxima pass on with about their size: 1.2e-4 of the largest logit if all pull one
    way, and the root's part of it, 3e-6, if they do not.
    """
    return 1e-5 * float(np.abs(logits).max())
