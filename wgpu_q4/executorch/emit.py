"""ExecuTorch's 4-bit ops, written into a graph in place of a use of a matrix.

``et_vk.linear_q4gsw`` takes its scales as ``[K/G, V]`` and ``et_vk.embedding_q4gsw`` as
``[V, K/G]``.  These are the same numbers in two orders, and ExecuTorch stores equal bytes once, but
these are not equal.  Transposing one of them in the graph is no way out: the Vulkan runtime
prepacks the scales of both ops, and so requires constants.  `embedding_with_linear_scales`
therefore leaves the scales out of the lookup, and multiplies afterwards by scales that it gathers
from the linear's constant:

    rows   = et_vk.embedding_q4gsw(packed, ones [V, 1], group_size=K, ids)        # u - 8, exactly
    scale  = gather(scales [K/G, V], dim=1, ids repeated to [K/G, n]), permuted to [n, K/G]
    result = rows [n, K/G, G] * scale [n, K/G, 1]

``(u − 8) · 1`` is exact and the product is rounded once, as in the op itself: the rows have the
same bits.  The ones cost 4·V bytes of the file, where a second copy of float32 scales costs
4·V·K/G.

Three details look redundant and are not.  Ids of several rows are flattened: ExecuTorch's Vulkan
shader reads them wrongly from a texture.  A dynamic number of ids cuts the scales to that number:
in the WebGPU runtime, the results of gather and permute keep their largest size.  A dynamic number
of flattened ids multiplies the scales by one, see `needs_one`.  `wgpu_q4.executorch.forms` has what
each runtime does with each form.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import executorch.backends.vulkan.custom_ops_lib  # noqa: F401  registers et_vk
import torch
from torch._dispatch.python import enable_python_dispatcher
from torch.fx import Graph, Node

_ATEN = torch.ops.aten


class Emitter:
    """Writes ops before a node, with the meta data that later passes need.

    Args:
        anchor: the node that is to be replaced.  Its place in the model is passed on.
        written: every node that is written is appended to this list.
    """

    def __init__(self, anchor: Node, written: list[Node]) -> None:
        self._graph: Graph = anchor.graph
        self._anchor = anchor
        self._written = written

    def call(self, target: Any, *args: Any, **kwargs: Any) -> Node:
        """Write one call.  Its fake result is computed from the fake arguments."""
        with self._graph.inserting_before(self._anchor):
            node = self._graph.call_function(target, args, kwargs)
        node.meta = {
            key: value
            for key, value in self._anchor.meta.items()
            if key in ("nn_module_stack", "stack_trace", "source_fn_stack", "from_node")
        }
        # Without the Python dispatcher a decomposition cannot be given symbolic sizes.
        with self._anchor.meta["val"].fake_mode, enable_python_dispatcher():
            node.meta["val"] = target(*map(_fake, args), **kwargs)
        self._written.append(node)
        return node

    def cast(self, node: Node, dtype: torch.dtype) -> Node:
        """Write a copy in another dtype; return the node itself if it has that dtype."""
        if node.meta["val"].dtype == dtype:
            return node
        return self.call(_ATEN._to_copy.default, node, dtype=dtype)

    def view(self, node: Node, shape: Sequence[int | torch.SymInt], like: Node) -> Node:
        """Write a view in another shape.

        Args:
            node: what to view.
            shape: of the result.  Sizes that are not constants must be sizes of ``like``.
            like: the node that these sizes are read from, by position.
        """
        dynamic = [axis for axis, size in enumerate(shape) if not isinstance(size, int)]
        sizes: list[Any] = list(shape)
        for axis in dynamic:
            # The op infers one unknown size.  With more, each must be read.
            alone = len(dynamic) == 1
            sizes[axis] = -1 if alone else self.call(_ATEN.sym_size.int, like, axis)
        return self.call(_ATEN.view.default, node, sizes)

    def count(self, node: Node) -> int | Node:
        """Return how many elements ``node`` has; if that is dynamic, write the product."""
        shape = node.meta["val"].shape
        known, factors = 1, []
        for axis, size in enumerate(shape):
            if isinstance(size, int):
                known *= size
            else:
                factors.append(self.call(_ATEN.sym_size.int, node, axis))
        if not factors:
            return known
        count = factors[0]
        for factor in factors[1:]:
            count = self.call(operator.mul, count, factor)
        return count if known == 1 else self.call(operator.mul, count, known)


def embedding(emit: Emitter, packed: Node, scales: Node, group_size: int, indices: Node) -> Node:
    """Write the lookup with scales ``[V, K/G]`` of its own."""
    embed_dim = packed.meta["val"].shape[1] * 2
    rows = _lookup(emit, packed, scales, group_size, indices)
    if len(rows.meta["val"].shape) == len(indices.meta["val"].shape) + 1:
        return rows
    return emit.view(rows, (*indices.meta["val"].shape, embed_dim), indices)


def embedding_with_linear_scales(
    emit: Emitter,
    packed: Node,
    ones: Node,
    scales: Node,
    group_size: int,
    indices: Node,
    one: Node | None = None,
) -> Node:
    """Write the lookup with the linear's scales ``[K/G, V]``, as the module explains.

    Args:
        emit: writes before the embedding.
        packed: ``[V, K/2]``, linear convention.
        ones: ``[V, 1]``, of the dtype of the scales.
        scales: ``[K/G, V]``.
        group_size: ``G``.
        indices: ids of any shape.
        one: a constant 1 ``[1, 1]``, required if `needs_one` says so.
    """
    embed_dim = packed.meta["val"].shape[1] * 2
    groups = embed_dim // group_size
    rows = _lookup(emit, packed, ones, embed_dim, indices)

    index = emit.call(_ATEN.reshape.default, indices, [1, -1])
    index = emit.call(_ATEN.repeat.default, emit.cast(index, torch.int64), [groups, 1])
    scale = emit.call(_ATEN.gather.default, scales, 1, index)
    scale = emit.call(_ATEN.permute.default, scale, [1, 0])
    count = emit.count(indices)
    if not isinstance(count, int):
        scale = emit.call(_ATEN.slice.Tensor, scale, 0, 0, count)
    if needs_one(indices):
        assert one is not None
        scale = emit.call(_ATEN.mul.Tensor, scale, one)
    scale = emit.cast(scale, torch.float32)
    scale = emit.call(_ATEN.view.default, scale, [-1, groups, 1])

    grouped = emit.call(_ATEN.view.default, rows, [-1, groups, group_size])
    product = emit.call(_ATEN.mul.Tensor, grouped, scale)
    return emit.view(product, (*indices.meta["val"].shape, embed_dim), indices)


def needs_one(indices: Node) -> bool:
    """Return whether the gathered scales are multiplied by one.

    They are if a dynamic number of ids is flattened.  The WebGPU runtime resizes one op further in
    each pass, and requires that the operands of a product are not resized two passes apart.
    """
    return _is_flattened(indices) and any(
        not isinstance(size, int) for size in indices.meta["val"].shape
    )


def _is_flattened(indices: Node) -> bool:
    """Return whether ids are a scalar, or have, or may have, more than one row."""
    shape = indices.meta["val"].shape
    return len(shape) == 0 or any(size != 1 for size in shape[:-1])


def _lookup(emit: Emitter, packed: Node, scales: Node, group_size: int, indices: Node) -> Node:
    """Write the op itself, on ids ``[n]`` if they have another shape than ``[1, n]``."""
    if _is_flattened(indices):
        indices = emit.call(_ATEN.reshape.default, indices, [-1])
    target = torch.ops.et_vk.embedding_q4gsw.default
    return emit.call(target, packed, scales, group_size, indices, True)


def linear(
    emit: Emitter, packed: Node, scales: Node, group_size: int, x: Node, bias: Node | None
) -> Node:
    """Write the product of a matrix x ``[n, K]`` with scales ``[K/G, V]``: ``[n, V]``."""
    target = torch.ops.et_vk.linear_q4gsw.default
    return emit.call(target, x, packed, scales, group_size, bias)


def folded(emit: Emitter, x: Node) -> Node:
    """Write x ``[..., K]`` as a matrix ``[n, K]``.

    ExecuTorch's Vulkan runtime computes only the first item of a batch.
    """
    shape = x.meta["val"].shape
    return x if len(shape) == 2 else emit.call(_ATEN.reshape.default, x, [-1, shape[-1]])


def unfolded(emit: Emitter, product: Node, x: Node) -> Node:
    """Write a product ``[n, V]`` in the shape ``[..., V]`` that belongs to x ``[..., K]``."""
    shape = tuple(x.meta["val"].shape)
    if len(shape) == 2:
        return product
    return emit.view(product, (*shape[:-1], product.meta["val"].shape[1]), x)


def _fake(value: Any) -> Any:
    if isinstance(value, Node):
        return value.meta["val"]
    if isinstance(value, (list, tuple)):
        return [_fake(item) for item in value]
    return value
