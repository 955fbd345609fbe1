"""The tensors that stand behind the nodes of an exported program.

Before decomposition, torchao's subclasses are one parameter each, and the graph takes their parts
out by name (``torch.ops.export.access_subclass_inner_tensor``); afterwards each part is a parameter
of its own.  Both are read here, through ops that change nothing.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import Node

_SAME_VALUE = {
    torch.ops.aten.alias.default,
    torch.ops.aten.alias_copy.default,
    torch.ops.aten.clone.default,
    torch.ops.aten.contiguous.default,
    torch.ops.aten.detach.default,
    torch.ops.aten.detach_copy.default,
    torch.ops.aten.lift_fresh_copy.default,
}

_INNER = torch.ops.export.access_subclass_inner_tensor.default


def arguments(node: Node) -> dict[str, Any]:
    """The arguments of an op call by the names of its schema, defaults filled in."""
    target: Any = node.target
    schema = target._schema.arguments
    given = dict(zip((argument.name for argument in schema), node.args, strict=False))
    given.update(node.kwargs)
    for argument in schema:
        if argument.name not in given and argument.has_default_value():
            given[argument.name] = argument.default_value
    return given


def source(value: object) -> Node | None:
    """The placeholder that ``value`` is the tensor, or a part of the tensor, of; else None."""
    node = value
    while isinstance(node, Node) and node.op == "call_function":
        if node.target not in _SAME_VALUE and node.target is not _INNER:
            return None
        node = node.args[0]
    return node if isinstance(node, Node) and node.op == "placeholder" else None


def constant(program: ExportedProgram, value: object) -> Tensor | None:
    """The tensor of a node that does not depend on the program's inputs, else None."""
    if not isinstance(value, Node):
        return None
    if value.op == "call_function" and value.target in _SAME_VALUE:
        return constant(program, value.args[0])
    if value.op == "call_function" and value.target is _INNER:
        outer = constant(program, value.args[0])
        inner = getattr(outer, str(value.args[1]), None)
        return inner if isinstance(inner, Tensor) else None
    if value.op != "placeholder":
        return None
    signature = program.graph_signature
    for names in (
        signature.inputs_to_parameters,
        signature.inputs_to_buffers,
        signature.inputs_to_lifted_tensor_constants,
    ):
        target = names.get(value.name)
        if target is not None:
            if target in signature.buffers_to_mutate.values():
                return None  # the program writes to it: no constant
            found = program.state_dict.get(target, program.constants.get(target))
            return found if isinstance(found, Tensor) else None
    return None


def leaf_tensors(tensor: Tensor) -> list[Tensor]:
    """A plain tensor itself, or the parts of a subclass that wraps others."""
    flatten = getattr(tensor, "__tensor_flatten__", None)
    if flatten is None or type(tensor) in (Tensor, torch.nn.Parameter):
        return [tensor]
    names, _ = flatten()
    return [leaf for name in names for leaf in leaf_tensors(getattr(tensor, name))]


def place(tensor: Tensor) -> tuple[object, ...]:
    """What two tensors have in common exactly if they are the same memory, read the same way."""
    return tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride()


def real_users(node: Node) -> list[Node]:
    """The ops that read a node, those that change nothing looked through."""
    users = []
    for user in node.users:
        passes = user.op == "call_function" and (
            user.target in _SAME_VALUE or user.target is _INNER
        )
        users += real_users(user) if passes else [user]
    return users
