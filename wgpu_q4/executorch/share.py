"""The pass: an embedding and a head that hold the same 4-bit matrix read one parameter."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.export import ExportedProgram
from torch.fx import Node

from wgpu_q4.arrays import DTypeLike, float_dtype
from wgpu_q4.errors import FormatError
from wgpu_q4.executorch import emit, lowering  # noqa: F401  lowering registers a pattern
from wgpu_q4.executorch.constants import constant, real_users, source
from wgpu_q4.executorch.contents import Content, Contents, Key
from wgpu_q4.executorch.detect import TiedLinears, how_held, match
from wgpu_q4.executorch.parameters import Parameters
from wgpu_q4.executorch.report import LeftAlone, SharedWeight, ShareReport
from wgpu_q4.executorch.uses import Use, find_uses
from wgpu_q4.format import SMALLEST_NORMAL, ScalesDtype

_INT8_NOTE = (
    "a head with 8-bit activations keeps its int8 parameter, which ExecuTorch's own pattern packs "
    "to the same bytes: still one blob"
)


def share_tied_weights(
    exported_program: ExportedProgram,
    *,
    scales_dtype: DTypeLike | None = None,
    scales_once: bool = True,
) -> tuple[ExportedProgram, ShareReport]:
    """Let every embedding that holds a linear's 4-bit matrix read the linear's packed bytes.

    To be run on what ``torch.export.export`` gives, before ``to_edge_transform_and_lower``.  A
    matrix that an embedding and a linear hold (`detect_tied_linear_weight` says when they do) is
    packed in the linear convention into one parameter, and both become ExecuTorch's ops on it:
    ``et_vk.embedding_q4gsw`` with ``is_linear_weight=True`` and ``et_vk.linear_q4gsw``.  A linear
    with 8-bit activations stays as it is, for ExecuTorch's own pattern to fuse into
    ``et_vk.linear_dq8ca_q4gsw``, whose packed bytes are then the same blob.  Whatever else reads
    the original parameter still finds it.

    Args:
        exported_program: not changed; the tensors are shared with the result where they stay.
        scales_dtype: dtype of the shared scales in the file; None leaves them as they are.
            ``"float16"`` rounds them, and so changes results by up to 2⁻¹¹ of themselves; where
            scales lie below float16's normal range it loses more, and the report says so.
        scales_once: take the embedding's scales from the linear's transposed constant with some
            more ops, see `wgpu_q4.executorch.emit`; False stores them in both orders.

    Returns:
        The program, the same object if nothing was shared, and what was done.

    Raises:
        TypeError: something else than an exported program.
        ValueError: a program that is in the edge dialect already.
        FormatError: ``scales_dtype`` is not allowed, or scales do not fit it.
    """
    dtype = None if scales_dtype is None else float_dtype("scales_dtype", scales_dtype, FormatError)
    if not isinstance(exported_program, ExportedProgram):
        raise TypeError(
            f"share_tied_weights takes what torch.export.export returns, not "
            f"{type(exported_program).__name__}"
        )
    if exported_program.dialect == "EDGE":
        raise ValueError(
            "share_tied_weights works on the program of torch.export.export: run it before "
            "to_edge or to_edge_transform_and_lower"
        )
    uses = find_uses(exported_program)
    contents = Contents(exported_program)
    found = [match(use, uses, contents) for use in uses if use.kind == "embedding"]
    groups: dict[Key, list[TiedLinears]] = {}
    left = _left_alone(found)
    for tied in found:
        if tied.linears and tied.content is not None:
            if np.isfinite(tied.content.scales).all():
                groups.setdefault(tied.content.key, []).append(tied)
            else:
                name = tied.embedding.node.name
                left.append(LeftAlone(name, "embedding", "its scales are not all finite"))
    if not groups:
        return exported_program, ShareReport((), tuple(left))

    program = _copy(exported_program)
    parameters = Parameters(program)
    nodes = {node.name: node for node in program.graph.nodes}
    shared, replaced = [], []
    for group in groups.values():
        readers = [*(tied.embedding for tied in group), *group[0].linears]
        content = group[0].content
        assert content is not None
        how = how_held(readers, contents)
        shared.append(_rewrite(parameters, nodes, readers, content, how, dtype, scales_once))
        replaced += readers
    program.graph.eliminate_dead_code()
    parameters.drop_unread(
        tensor.data_ptr()
        for use in replaced
        if use.operand is not None
        for node in use.operand.nodes
        if (tensor := constant(exported_program, node)) is not None
    )
    left += _still_read(program, replaced)
    program.graph_module.recompile()
    program.graph.lint()
    program.validate()  # type: ignore[no-untyped-call]
    return program, ShareReport(tuple(shared), tuple(left))


def _left_alone(found: Sequence[TiedLinears]) -> list[LeftAlone]:
    left: dict[tuple[str, str], LeftAlone] = {}
    for tied in found:
        for miss in tied.near_misses:
            left.setdefault((miss.node, miss.reason), miss)
        if not tied.linears and tied.embedding.operand is not None:
            name = tied.embedding.node.name
            left.setdefault((name, ""), LeftAlone(name, "embedding", "no linear holds its matrix"))
    return list(left.values())


def _copy(program: ExportedProgram) -> ExportedProgram:
    """The same program with a graph, a signature and dictionaries of its own."""
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


def _rewrite(
    parameters: Parameters,
    nodes: dict[str, Node],
    readers: Sequence[Use],
    content: Content,
    how: str,
    dtype: ScalesDtype | None,
    scales_once: bool,
) -> SharedWeight:
    """Replace the readers of one matrix; ``nodes`` are those of the new graph by name."""
    embeddings = [use for use in readers if use.kind == "embedding"]
    rewritten = [u for u in readers if u.kind == "linear" and not u.quantized_activations]
    int8 = [use for use in readers if use.quantized_activations]
    scales, notes = content.scales, [_INT8_NOTE] if int8 else []
    if dtype is not None and scales.dtype != dtype:
        if int8:
            notes.append(f"its scales stay {scales.dtype}: linear_dq8ca_q4gsw needs float32")
        else:
            scales = _converted(scales, dtype)
            # Scales of groups that are all zero are the smallest float32; they may become zero.
            lowest = SMALLEST_NORMAL["float16"]
            small = (content.scales > SMALLEST_NORMAL["float32"]) & (content.scales < lowest)
            if dtype == "float16" and small.any():
                notes.append(
                    f"{int(small.sum()):,} of its scales are below float16's normal range "
                    f"({lowest:.2g}) and lose precision"
                )
    vocab, groups = scales.shape
    embed_dim = content.packed.shape[1] * 2
    group_size = embed_dim // groups
    first = readers[0].operand
    assert first is not None
    name = parameters.unused_name(parameters.owner(first.weight) + "_q4")
    packed = parameters.add(name, content.packed)
    by_group = parameters.add(f"{name}_scales", np.ascontiguousarray(scales.T))
    # With one group a row both orders are the same bytes, which ExecuTorch stores once.
    plain = [use for use in embeddings if not scales_once or groups == 1 or not _ids_ndim(use)]
    by_row = parameters.add(f"{name}_row_scales", scales) if plain else None
    ones = None
    if len(plain) < len(embeddings):
        ones = parameters.add(f"ones_{vocab}", np.ones((vocab, 1), np.float16))
    for use in embeddings:
        assert use.indices is not None
        anchor, indices = nodes[use.node.name], nodes[use.indices.name]
        if use in plain:
            assert by_row is not None
            result = emit.embedding(anchor, packed, by_row, group_size, indices)
        else:
            assert ones is not None
            result = emit.embedding_with_linear_scales(
                anchor, packed, ones, by_group, group_size, indices
            )
        parameters.replace(anchor, result)
        nodes[anchor.name] = result  # what later readers of it are to find
    for use in rewritten:
        assert use.x is not None
        anchor, x = nodes[use.node.name], nodes[use.x.name]
        bias = None if use.bias is None else nodes[use.bias.name]
        result = emit.linear(anchor, packed, by_group, group_size, x, bias)
        parameters.replace(anchor, result)
        nodes[anchor.name] = result  # what later readers of it are to find
    return SharedWeight(
        name=str(packed.target),
        shape=(vocab, embed_dim),
        group_size=group_size,
        scales_dtype="float16" if scales.dtype == np.float16 else "float32",
        sha256=content.sha256,
        packed_bytes=content.packed.nbytes,
        scales_bytes=scales.nbytes,
        embeddings=tuple(use.node.name for use in embeddings),
        linears=tuple(use.node.name for use in (*rewritten, *int8)),
        how=how,
        scales_once=not plain or groups == 1,
        notes=tuple(notes),
    )


def _ids_ndim(use: Use) -> int:
    return 0 if use.indices is None else int(use.indices.meta["val"].ndim)


def _converted(scales: NDArray[Any], dtype: ScalesDtype) -> NDArray[Any]:
    with np.errstate(over="ignore"):
        converted = scales.astype(dtype)
    if not np.isfinite(converted).all():
        raise FormatError(
            f"a scale is {float(np.abs(scales).max()):.6g}, beyond float16 (65504): leave "
            f"scales_dtype at None"
        )
    return converted


def _still_read(program: ExportedProgram, replaced: Sequence[Use]) -> list[LeftAlone]:
    """The original parameters that something besides the replaced ops reads."""
    before = [use for use in replaced if use.operand is not None]
    values = {source(use.operand.weight): use for use in before if use.operand is not None}
    expected = {
        source(use.operand.weight)
        for use in before
        if use.operand is not None and use.quantized_activations
    }
    names = {node.name for node in values if node is not None and node not in expected}
    left = []
    for node in program.graph.find_nodes(op="placeholder"):
        if node.name in names:
            readers = ", ".join(reader.name for reader in real_users(node))
            left.append(LeftAlone(node.name, "parameter", f"{readers} reads it too: it is kept"))
    return left
