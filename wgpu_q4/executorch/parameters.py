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

from wgpu_q4.executorch.constants import Constants, leaf_tensors, source


class Parameters:
    """Adds parameters to a program and drops them, in place.

    Args:
        program: a program whose graph, signature and dictionaries nobody else holds.
    """

    def __init__(self, program: ExportedProgram) -> None:
        self._program = program
        self._constants = Constants(program)
        self._names = {node.name for node in program.graph.nodes} | set(program.state_dict)
        self._read_before = {node for node in self._placeholders() if node.users}
        values = [node.meta["val"] for node in program.graph.nodes if "val" in node.meta]
        fake_mode = detect_fake_mode(values)
        assert fake_mode is not None  # every exported program was traced in one
        self._fake_mode = fake_mode
        self._added: dict[str, Node] = {}

    def owner(self, value: Node) -> str:
        """Return an identifier for the module that holds the tensor of ``value``: ``m_embed``."""
        placeholder = source(value)
        name = None if placeholder is None else self._constants.name(placeholder)
        name = name or value.name
        name = re.sub(r"\.parametrizations\.(\w+)\.original\d*$", r".\1", name)
        name = re.sub(r"\W", "_", name.removesuffix(".weight").removesuffix(".packed"))
        return f"m_{name}" if name[:1].isdigit() else name  # it becomes an argument's name

    def unused_name(self, name: str) -> str:
        """Return ``name``, with a number if the program has a node or parameter of that name."""
        number, chosen = 1, name
        while any(taken == chosen or taken.startswith(f"{chosen}_") for taken in self._names):
            number += 1
            chosen = f"{name}_{number}"
        return chosen

    def add(self, name: str, array: NDArray[Any]) -> Node:
        """Add a parameter that holds ``array``, or return the node that was added as ``name``.

        If the program itself has a parameter of that name, the new parameter gets a number.
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
        """Let every reader of ``old`` read ``new``, the program's outputs included."""
        old.replace_all_uses_with(new)
        self._program.graph_signature.replace_all_uses(old.name, new.name)

    def drop_unread(self, memory: Iterable[int]) -> None:
        """Delete the parameters that lost their last reader, and unread aliases of ``memory``.

        Args:
            memory: addresses of tensors that the program no longer needs.
        """
        gone = set(memory)
        for node in list(self._placeholders()):
            if node.users:
                continue
            tensor = self._constants.tensor(node)
            if tensor is None:
                continue
            if node in self._read_before or any(
                leaf.data_ptr() in gone for leaf in leaf_tensors(tensor)
            ):
                delete_constant_placeholder(self._program, node)

    def _placeholders(self) -> list[Node]:
        return list(self._program.graph.find_nodes(op="placeholder"))
