"""Parameters of an exported program, added and dropped together with their placeholders."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from executorch.backends.transforms.utils import delete_constant_placeholder
from numpy.typing import NDArray
from torch._guards import detect_fake_mode
from torch._subclasses.fake_tensor import FakeTensorConverter
from torch.export import ExportedProgram
from torch.export.graph_signature import (
    ExportGraphSignature,
    InputKind,
    InputSpec,
    TensorArgument,
)
from torch.fx import Node

from wgpu_q4.executorch.constants import constant, leaf_tensors, source


class Parameters:
    """The parameters of a program that may be changed in place.

    Args:
        program: with a graph, a signature and dictionaries that nobody else holds.
    """

    def __init__(self, program: ExportedProgram) -> None:
        self._program = program
        self._names = {node.name for node in program.graph.nodes} | set(program.state_dict)
        self._read_before = {node for node in self._placeholders() if node.users}
        values = [node.meta["val"] for node in program.graph.nodes if "val" in node.meta]
        fake_mode = detect_fake_mode(values)
        assert fake_mode is not None  # every exported program was traced in one
        self._fake_mode = fake_mode
        self._added: dict[str, Node] = {}

    def owner(self, value: Node) -> str:
        """An identifier for the module that holds the tensor of ``value``: ``model_embed``."""
        placeholder = source(value)
        name = value.name if placeholder is None else self._target(placeholder)
        name = re.sub(r"\.parametrizations\.(\w+)\.original\d*$", r".\1", name)
        name = re.sub(r"\W", "_", name.removesuffix(".weight").removesuffix(".packed"))
        return f"m_{name}" if name[:1].isdigit() else name  # it becomes an argument's name

    def unused_name(self, name: str) -> str:
        """``name``, with a number if there is a node or a parameter of that name."""
        number, chosen = 1, name
        while any(taken == chosen or taken.startswith(f"{chosen}_") for taken in self._names):
            number += 1
            chosen = f"{name}_{number}"
        return chosen

    def add(self, name: str, array: NDArray[Any]) -> Node:
        """A new parameter that holds ``array``; the same node for a name that was added before.

        Where the program has a parameter of that name itself, the new one gets a number.
        """
        if name in self._added:
            return self._added[name]
        wanted, number = name, 1
        while name in self._names:
            number += 1
            name = f"{wanted}_{number}"
        program = self._program
        tensor = torch.from_numpy(array if array.flags.writeable else np.array(array))
        with program.graph.inserting_before(next(iter(program.graph.nodes))):
            node: Node = program.graph.placeholder(name)
        node.meta["val"] = FakeTensorConverter().from_real_tensor(self._fake_mode, tensor)
        program.state_dict[name] = torch.nn.Parameter(tensor, requires_grad=False)
        spec = InputSpec(InputKind.PARAMETER, TensorArgument(node.name), name, None)
        signature = program.graph_signature
        program._graph_signature = ExportGraphSignature(
            [spec, *signature.input_specs], signature.output_specs
        )
        self._names |= {name, node.name}
        self._added[wanted] = node
        return node

    def replace(self, old: Node, new: Node) -> None:
        """Let every reader of ``old``, the program's outputs included, read ``new``."""
        old.replace_all_uses_with(new)
        self._program.graph_signature.replace_all_uses(old.name, new.name)

    def drop_unread(self, memory: Iterable[int]) -> None:
        """Delete the parameters that lost their last reader, and unread names of ``memory``.

        Args:
            memory: addresses of tensors that the program needs no more.
        """
        gone = set(memory)
        for node in list(self._placeholders()):
            if node.users:
                continue
            tensor = constant(self._program, node)
            if tensor is None:
                continue
            if node in self._read_before or any(
                leaf.data_ptr() in gone for leaf in leaf_tensors(tensor)
            ):
                delete_constant_placeholder(self._program, node)

    def _placeholders(self) -> list[Node]:
        return list(self._program.graph.find_nodes(op="placeholder"))

    def _target(self, placeholder: Node) -> str:
        signature = self._program.graph_signature
        for names in (
            signature.inputs_to_parameters,
            signature.inputs_to_buffers,
            signature.inputs_to_lifted_tensor_constants,
        ):
            if placeholder.name in names:
                return str(names[placeholder.name])
        return str(placeholder.target)
