"""A copy of an exported program that can be rewritten."""

from __future__ import annotations

import copy

from torch.export import ExportedProgram


def copy_program(program: ExportedProgram) -> ExportedProgram:
    """Return the same program with its own graph, signature and dictionaries.

    The tensors are shared with the original.
    """
    module = copy.deepcopy(program.graph_module)
    for old, new in zip(program.graph.nodes, module.graph.nodes, strict=True):
        if old.op == "placeholder":
            # Copying renames an input that is called like a builtin; the signature would miss it.
            new.name, new.target = old.name, old.target
    copied: ExportedProgram = program._update(
        module,
        copy.deepcopy(program.graph_signature),
        state_dict=dict(program.state_dict),
        constants=dict(program.constants),
    )
    return copied
