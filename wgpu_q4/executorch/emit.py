"""ExecuTorch's 4-bit ops, written into a graph in place of a use of a matrix.

``et_vk.linear_q4gsw`` wants the scales as ``[K/G, V]``, ``et_vk.embedding_q4gsw`` as ``[V, K/G]``:
the same numbers in two orders, and so two blobs, since ExecuTorch stores equal bytes once and these
are not equal.  A transposing op before one of them is no way out: in the runtime both prepack their
scales from a constant and refuse a computed tensor.  What works is to leave the scales out of the
lookup:

    rows   = et_vk.embedding_q4gsw(packed, ones [V, 1], group_size=K, ids)      # u - 8, exactly
    scale  = aten.index.Tensor(scales [K/G, V], [None, ids]) -> permute         # [ids, K/G]
    result = rows [ids, K/G, G] * scale [ids, K/G, 1]

``(u − 8) · 1`` is exact and the product is rounded once, as in the op itself: the rows are the same
bits.  Every op is one that ExecuTorch's Vulkan backend has, with dynamic shapes, and the scales are
the linear's own constant.  The ones cost 2·V bytes, where a second copy of float32 scales costs
4·V·K/G.  Measured at V = 512, K = 256, G = 32: 87,040 bytes of ``.pte`` instead of 101,248, and
79,104 instead of 84,864 with float16 scales.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import executorch.backends.vulkan.custom_ops_lib  # noqa: F401  registers et_vk
import torch
from torch._dispatch.python import enable_python_dispatcher
from torch.fx import Graph, Node


class Emitter:
    """Writes ops before a node, with the meta data that later passes want.

    Args:
        anchor: the node that is to be replaced; its place in the model is passed on.
    """

    def __init__(self, anchor: Node) -> None:
        self._graph: Graph = anchor.graph
        self._anchor = anchor

    def call(self, target: Any, *args: Any) -> Node:
        """One op call; its fake result is computed from the fake arguments."""
        with self._graph.inserting_before(self._anchor):
            node = self._graph.call_function(target, args)
        node.meta = {
            key: value
            for key, value in self._anchor.meta.items()
            if key in ("nn_module_stack", "stack_trace", "source_fn_stack", "from_node")
        }
        # Without the Python dispatcher a decomposition cannot be given symbolic sizes.
        with self._anchor.meta["val"].fake_mode, enable_python_dispatcher():
            node.meta["val"] = target(*map(_fake, args))
        return node

    def view(self, node: Node, shape: Sequence[int | torch.SymInt], like: Node) -> Node:
        """``node`` in another shape.

        Args:
            node: what to view.
            shape: of the result; it may begin with sizes of ``like`` that are not constants.
            like: the node that these sizes are read from, by position.
        """
        dynamic = [axis for axis, size in enumerate(shape) if not isinstance(size, int)]
        sizes: list[Any] = list(shape)
        for axis in dynamic:
            # One unknown can be left for the op to find out; with more, each must be read.
            alone = len(dynamic) == 1
            sizes[axis] = -1 if alone else self.call(torch.ops.aten.sym_size.int, like, axis)
        return self.call(torch.ops.aten.view.default, node, sizes)


def embedding(anchor: Node, packed: Node, scales: Node, group_size: int, indices: Node) -> Node:
    """The lookup with scales ``[V, K/G]`` of its own."""
    target = torch.ops.et_vk.embedding_q4gsw.default
    return Emitter(anchor).call(target, packed, scales, group_size, indices, True)


def embedding_with_linear_scales(
    anchor: Node, packed: Node, ones: Node, scales: Node, group_size: int, indices: Node
) -> Node:
    """The lookup with the linear's scales ``[K/G, V]``, as the module explains.

    Args:
        anchor: the embedding node that it replaces.
        packed: ``[V, K/2]``, linear convention.
        ones: ``[V, 1]``.
        scales: ``[K/G, V]``.
        group_size: ``G``.
        indices: ids of one or more dimensions.
    """
    emit = Emitter(anchor)
    aten = torch.ops.aten
    embed_dim = packed.meta["val"].shape[1] * 2
    groups = embed_dim // group_size
    ids_shape = tuple(indices.meta["val"].shape)
    rows = emit.call(
        torch.ops.et_vk.embedding_q4gsw.default, packed, ones, embed_dim, indices, True
    )
    # Ids and activations may have any strides, which a view would refuse.
    flat = indices if len(ids_shape) == 1 else emit.call(aten.reshape.default, indices, [-1])
    scale = emit.call(aten.index.Tensor, scales, [None, flat])
    scale = emit.call(aten.permute.default, scale, [1, 0])
    if scale.meta["val"].dtype != torch.float32:
        scale = emit.call(aten._to_copy.default, scale)
        scale.kwargs = {"dtype": torch.float32}
        scale.meta["val"] = scale.meta["val"].to(torch.float32)
    scale = emit.call(aten.view.default, scale, [-1, groups, 1])
    grouped = emit.call(aten.view.default, rows, [-1, groups, group_size])
    product = emit.call(aten.mul.Tensor, grouped, scale)
    return emit.view(product, (*ids_shape, embed_dim), indices)


def linear(
    anchor: Node, packed: Node, scales: Node, group_size: int, x: Node, bias: Node | None
) -> Node:
    """The product with scales ``[K/G, V]``; more than two dimensions of x are folded, as
    ExecuTorch's op takes a matrix."""
    emit = Emitter(anchor)
    shape = tuple(x.meta["val"].shape)
    vocab, embed_dim = packed.meta["val"].shape[0], packed.meta["val"].shape[1] * 2
    target = torch.ops.et_vk.linear_q4gsw.default
    if len(shape) == 2:
        return emit.call(target, x, packed, scales, group_size, bias)
    matrix = emit.call(torch.ops.aten.reshape.default, x, [-1, embed_dim])
    product = emit.call(target, matrix, packed, scales, group_size, bias)
    return emit.view(product, (*shape[:-1], vocab), x)


def _fake(value: Any) -> Any:
    if isinstance(value, Node):
        return value.meta["val"]
    if isinstance(value, (list, tuple)):
        return [_fake(item) for item in value]
    return value
