"""The families of models that the decoder runs: a line each."""

from __future__ import annotations

from dataclasses import dataclass

from wgpu_q4.errors import FormatError
from wgpu_q4.kernels.decoder import Activation


@dataclass(frozen=True, kw_only=True)
class Family:
    """What sets a family of models apart from Llama.

    Attributes:
        name: as transformers' ``model_type``.
        gguf: its name in a GGUF file.
        activation: of the gate.
        qkv_bias: True if queries, keys and values always have a bias.
        head_norm: True if each head of queries and keys is normalized.
        post_norms: True if what a layer's part computes is normalized before it is added.
        one_plus: True if transformers stores the gain of a norm less one.
        root_embedding: True if embeddings are multiplied by the root of the hidden size.
        score_cap: True if scores are capped softly where the configuration has a number for it.
        gguf_interleaved: True if GGUF holds the rows of queries and keys pair by pair.
        global_every: each so many layers, the last sees all positions and the others do not; GGUF
            files do not say it. 0 if every layer sees all.
        local_theta: the base of the frequencies in those others; None for that of all layers.
    """

    name: str
    gguf: str
    activation: Activation = "silu"
    qkv_bias: bool = False
    head_norm: bool = False
    post_norms: bool = False
    one_plus: bool = False
    root_embedding: bool = False
    score_cap: bool = False
    gguf_interleaved: bool = False
    global_every: int = 0
    local_theta: float | None = None


FAMILIES = (
    Family(name="llama", gguf="llama", gguf_interleaved=True),  # SmolLM2 too
    Family(name="qwen2", gguf="qwen2", qkv_bias=True),
    Family(name="qwen3", gguf="qwen3", head_norm=True),
    Family(
        name="gemma2",
        gguf="gemma2",
        activation="gelu",
        post_norms=True,
        one_plus=True,
        root_embedding=True,
        score_cap=True,
        global_every=2,
    ),
    Family(
        name="gemma3_text",
        gguf="gemma3",
        activation="gelu",
        head_norm=True,
        post_norms=True,
        one_plus=True,
        root_embedding=True,
        global_every=6,
        local_theta=10000.0,
    ),
)


def family_of(name: str, *, gguf: bool = False) -> Family:
    """Return the family that is called ``name`` by transformers, or in GGUF files.

    Raises:
        FormatError: there is none; names those that there are.
    """
    known = {family.gguf if gguf else family.name: family for family in FAMILIES}
    if name not in known:
        raise FormatError(
            f"the decoder does not run models of type {name!r}: it runs {', '.join(known)}"
        )
    return known[name]
