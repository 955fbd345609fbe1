"""The tensors that a GGUF file has of each layer, and the shapes that they must have."""

from __future__ import annotations

from collections.abc import Mapping

from wgpu_q4.decoder.config import Config
from wgpu_q4.decoder.families import Family
from wgpu_q4.errors import FormatError
from wgpu_q4.foreign.gguf_header import Tensor

Shape = tuple[int, ...]


def layer_tensors(config: Config, family: Family) -> dict[str, Shape]:
    """Return the shapes, rows first, of the tensors of a layer, by their names in it."""
    hidden, columns = config.hidden, config.head_dim
    queries, keys = config.heads * columns, config.kv_heads * columns
    found: dict[str, Shape] = {
        "attn_q.weight": (queries, hidden),
        "attn_k.weight": (keys, hidden),
        "attn_v.weight": (keys, hidden),
        "attn_output.weight": (hidden, queries),
        "ffn_gate.weight": (config.intermediate, hidden),
        "ffn_up.weight": (config.intermediate, hidden),
        "ffn_down.weight": (hidden, config.intermediate),
        "attn_norm.weight": (hidden,),
        "ffn_norm.weight": (hidden,),
    }
    if family.head_norm:
        found |= {"attn_q_norm.weight": (columns,), "attn_k_norm.weight": (columns,)}
    if family.post_norms:
        found |= {"post_attention_norm.weight": (hidden,), "post_ffw_norm.weight": (hidden,)}
    if family.qkv_bias:
        found |= {"attn_q.bias": (queries,), "attn_k.bias": (keys,), "attn_v.bias": (keys,)}
    return found


def check_tensors(tensors: Mapping[str, Tensor], config: Config, family: Family) -> None:
    """Raise unless a model's tensors are those that its metadata tells of.

    Raises:
        FormatError: one is missing, has another shape, or would be left out by the decoder.
    """
    expected = layer_tensors(config, family)
    known = set()
    for layer in range(config.layers):
        for name, shape in expected.items():
            known.add(f"blk.{layer}.{name}")
            _check(tensors, f"blk.{layer}.{name}", shape)
    _check(tensors, "output_norm.weight", (config.hidden,))
    others = {name for name in tensors if name.startswith("blk.")} - known
    if others:
        raise FormatError(
            f"the decoder does not know the tensor {min(others)!r} of a model of type "
            f"{family.gguf!r}"
        )


def _check(tensors: Mapping[str, Tensor], name: str, shape: Shape) -> None:
    found = tensors.get(name)
    if found is None:
        raise FormatError(f"it has no tensor {name!r}")
    if found.shape != shape:
        raise FormatError(
            f"tensor {name!r} has shape {list(found.shape)}; the metadata says {list(shape)}"
        )
