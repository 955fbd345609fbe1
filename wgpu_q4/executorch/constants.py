"""The tensors that stand behind the nodes of an exported program.

Before decomposition, a quantized tensor of torchao is one parameter, and the graph takes its parts
out by name (``torch.ops.export.access_subclass_inner_tensor``).  After decomposition, each part is
a parameter of its own.  `Constants` reads both forms, and looks through ops that return their
argument unchanged.
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


class Constants:
    """The constant tensors of one exported program, looked up by node."""

    def __init__(self, program: ExportedProgram) -> None:
        self._program = program

    def tensor(self, value: object) -> Tensor | None:
        """Return the tensor of a node that does not depend on the program's inputs, else None."""
        if not isinstance(value, Node):
            return None
        if value.op == "call_function" and value.target in _SAME_VALUE:
            return self.tensor(value.args[0])
        if value.op == "call_function" and value.target is _INNER:
            outer = self.tensor(value.args[0])
            inner = getattr(outer, str(value.args[1]), None)
            return inner if isinstance(inner, Tensor) else None
        return self._placeholder_tensor(value) if value.op == "placeholder" else None

    def name(self, placeholder: Node) -> str | None:
        """Return the name of the parameter, buffer or constant of a placeholder, else None."""
        signature = self._program.graph_signature
        for names in (
            signature.inputs_to_parameters,
            signature.inputs_to_buffers,
            signature.inputs_to_lifted_tensor_constants,
        ):
            if placeholder.name in names:
                return str(names[placeholder.name])
        return None

    def _placeholder_tensor(self, placeholder: Node) -> Tensor | None:
        name = self.name(placeholder)
        if name is None or name in self._program.graph_signature.buffers_to_mutate.values():
            return None  # an input of the program, or a buffer that the program writes to
        found = self._program.state_dict.get(name, self._program.constants.get(name))
        return found if isinstance(found, Tensor) else None


def arguments(node: Node) -> dict[str, Any]:
    """Return the arguments of an op call by the names in its schema, in the schema's order.

    Defaults are filled in.
    """
    target: Any = node.target
    given = {}
    for index, argument in enumerate(target._schema.arguments):
        if index < len(node.args):
            given[argument.name] = node.args[index]
        elif argument.name in node.kwargs:
            given[argument.name] = node.kwargs[argument.name]
        elif argument.has_default_value():
            given[argument.name] = argument.default_value
    return given


def source(value: object) -> Node | None:
    """Return the placeholder whose tensor ``value`` is, or is a part of; None if there is none."""
    node = value
    while isinstance(node, Node) and node.op == "call_function":
        if node.target not in _SAME_VALUE and node.target is not _INNER:
            return None
        node = node.args[0]
    return node if isinstance(node, Node) and node.op == "placeholder" else None


def leaf_tensors(tensor: Tensor) -> list[Tensor]:
    """Return the plain tensors that a tensor subclass wraps; of a plain tensor, itself."""
    flatten = getattr(tensor, "__tensor_flatten__", None)
    if flatten is None or type(tensor) in (Tensor, torch.nn.Parameter):
        return [tensor]
    names, _ = flatten()
    return [leaf for name in names for leaf in leaf_tensors(getattr(tensor, name))]


def place(tensor: Tensor) -> tuple[object, ...]:
    """Return a key that is equal for two tensors if both read the same memory in the same way."""
    return tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride()


def real_users(node: Node) -> list[Node]:
    """Return the ops that read a node, looking through ops that return their argument."""
    users = []
    for user in node.users:
        passes = user.op == "call_function" and (
            user.target in _SAME_VALUE or user.target is _INNER
        )
        users += real_users(user) if passes else [user]
    return users
