"""The shape of a decoder: what its weights and its kernels are made for."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wgpu_q4.errors import FormatError
from wgpu_q4.kernels.decoder import Activation

RopeType = Literal["default", "linear", "llama3"]


@dataclass(frozen=True)
class Rope:
    """How heads are rotated by their position.

    Attributes:
        theta: the base of the frequencies.
        type: ``"default"``; ``"linear"``, which divides positions by ``factor``; or ``"llama3"``,
            which divides low frequencies alone, and those between in part.
        factor: of the other types.
        low_factor, high_factor, original: of ``"llama3"``: frequencies that turn less than
            ``low_factor`` times in ``original`` positions are low.
        divisors: what each frequency is divided by, where a file lists that; else empty.
    """

    theta: float
    type: RopeType = "default"
    factor: float = 1.0
    low_factor: float = 1.0
    high_factor: float = 4.0
    original: int = 8192
    divisors: tuple[float, ...] = ()

    def frequencies(self, head_dim: int) -> NDArray[np.float32]:
        """Return the angle of one position for each pair of columns, float32 ``[head_dim / 2]``."""
        exponents = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
        exact = exponents.astype(np.float64)
        plain: NDArray[np.float32] = np.exp(-exact * np.log(self.theta)).astype(np.float32)
        if self.divisors:
            if len(self.divisors) != plain.size:
                raise FormatError(
                    f"a head of {head_dim} columns has {plain.size} frequencies, and "
                    f"{len(self.divisors)} divisors are given"
                )
            plain /= np.array(self.divisors, np.float32)
        if self.type == "default":
            return plain
        if self.type == "linear":
            return plain / np.float32(self.factor)
        turns = self.original * plain / (2 * np.pi)
        share = (turns - self.low_factor) / (self.high_factor - self.low_factor)
        share = np.clip(share, 0.0, 1.0)
        mixed: NDArray[np.float32] = ((1 - share) * plain / self.factor + share * plain).astype(
            np.float32
        )
        return mixed

    def table(self, head_dim: int, positions: int) -> NDArray[np.float32]:
        """Return cosine and sine of each angle, float32 ``[positions, head_dim / 2, 2]``."""
        angles = np.arange(positions, dtype=np.float32)[:, None] * self.frequencies(head_dim)
        wide = angles.astype(np.float64)
        return np.stack([np.cos(wide), np.sin(wide)], axis=-1).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Config:
    """The shape of a decoder of the Llama family.

    Attributes:
        family: its name in `wgpu_q4.decoder.families.FAMILIES`.
        layers: how many there are.
        hidden: columns of the residual stream, K of the embedding.
        heads, kv_heads, head_dim: the query heads, those of keys and values, and their columns.
        intermediate: columns of the gated linear unit.
        vocab: rows of the embedding.
        epsilon: what every norm adds to the mean of the squares.
        activation: of the gate.
        qkv_bias: True if queries, keys and values have a bias.
        head_norm: True if each head of queries and keys is normalized.
        post_norms: True if what a layer's part computes is normalized before it is added.
        embedding_factor: what embeddings are multiplied by.
        query_factor: what queries are multiplied by.
        score_cap, logit_cap: c, where a number x is capped as c · tanh(x / c); None for none.
        windows: for each layer the positions that a row sees, itself included; 0 for all.
        ropes: the ways to rotate heads.
        rope_of_layer: for each layer, which of them.
        positions: the positions that the model was made for.
        end_of_text: the ids that end a text.
    """

    family: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    epsilon: float
    activation: Activation
    qkv_bias: bool
    head_norm: bool
    post_norms: bool
    embedding_factor: float
    query_factor: float
    score_cap: float | None
    logit_cap: float | None
    windows: tuple[int, ...]
    ropes: tuple[Rope, ...]
    rope_of_layer: tuple[int, ...]
    positions: int
    end_of_text: tuple[int, ...]

    def __post_init__(self) -> None:
        for name in ("layers", "heads", "kv_heads", "vocab", "positions"):
            self._check(name, getattr(self, name), getattr(self, name) >= 1, "at least 1")
        self._check("epsilon", self.epsilon, 0 <= self.epsilon < math.inf, "finite, and at least 0")
        for rope in self.ropes:
            self._check("theta", rope.theta, 0 < rope.theta < math.inf, "finite, and above 0")
            self._check("factor", rope.factor, 0 < rope.factor < math.inf, "finite, and above 0")
        for cap in (self.score_cap, self.logit_cap):
            self._check("a cap", cap, cap is None or 0 < cap < math.inf, "finite, and above 0")
        self._check("a window", self.windows, min(self.windows, default=0) >= 0, "at least 0")
        for name in ("hidden", "intermediate"):
            self._check_multiple(name, getattr(self, name), 32)
        self._check_multiple("heads · head_dim", self.heads * self.head_dim, 32)
        self._check_multiple("head_dim", self.head_dim, 8)
        if self.head_dim > 256:
            raise FormatError(f"head_dim must be at most 256, not {self.head_dim}")
        if self.heads % self.kv_heads:
            raise FormatError(
                f"{self.kv_heads} heads of keys and values do not divide {self.heads} query heads"
            )

    def _check(self, name: str, value: object, right: bool, allowed: str) -> None:
        if not right:
            raise FormatError(f"{name} must be {allowed} in a model of {self.family}, not {value}")

    def _check_multiple(self, name: str, value: int, of: int) -> None:
        if value < 1 or value % of:
            raise FormatError(
                f"{name} is {value}: the decoder's kernels need a multiple of {of} in every model "
                f"of the family {self.family}"
            )

    @property
    def qkv_columns(self) -> int:
        """Columns of queries, keys and values together."""
        return (self.heads + 2 * self.kv_heads) * self.head_dim

    def with_end_of_text(self, *ids: int) -> Config:
        """Return the same shape with other ids that end a text."""
        return replace(self, end_of_text=ids)
