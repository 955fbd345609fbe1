"""`export`: a torch model with 4-bit modules as an ONNX file."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import onnx_ir as ir
import torch
from torch import nn

from wgpu_q4.nn.shared import Quantized
from wgpu_q4.onnx.operators import DOMAIN, check_group_size
from wgpu_q4.onnx.translation import custom_translation_table


def export(
    model: nn.Module,
    args: tuple[Any, ...] = (),
    path: str | os.PathLike[str] | None = None,
    *,
    kwargs: dict[str, Any] | None = None,
    external_data: bool = True,
    **options: Any,
) -> torch.onnx.ONNXProgram:
    """Export a model to ONNX, its 4-bit matrices for operators of ONNX Runtime.

    A matrix that several modules read is stored once: one initializer of packed bytes, one of
    scales.  A model without a 4-bit matrix is exported as `torch.onnx.export` does it.

    Args:
        model: a model that went through `wgpu_q4.nn.tie`, or has modules of `wgpu_q4.nn`.
        args, kwargs: what the model is called with while it is traced.  transformers' models take
            ``kwargs={"use_cache": False}``, unless the cache shall be an output.  With a dynamic
            batch, give ids of two rows or more: torch may take a size of 1 for a constant.
        path: the file to write; nothing is written if None.
        external_data: write the values to one file beside it, ``path`` + ".data".
        options: further arguments of `torch.onnx.export`, as ``dynamic_shapes``, ``input_names``
            and ``opset_version``.

    Returns:
        torch's program; ``program.save(path)`` writes it, ``program(*args)`` runs it.

    Raises:
        FormatError: a matrix in groups that ONNX Runtime does not take: it takes 16, 32, 64 and
            further powers of two.  Nothing is traced or written then.
        TypeError: ``dynamo=False``: torch's older exporter knows no custom ops.
        ImportError: onnxscript is not installed.
    """
    if not options.pop("dynamo", True):
        raise TypeError("dynamo=False: torch's older exporter knows no 4-bit ops; leave it out")
    for module in model.modules():
        if isinstance(module, Quantized):
            check_group_size(module.q4weight.group_size)
    table = {**custom_translation_table(), **(options.pop("custom_translation_table", None) or {})}
    optimize = options.pop("optimize", True)
    options.setdefault("verbose", False)
    program = torch.onnx.export(
        model,
        args,
        kwargs=kwargs,
        dynamo=True,
        custom_translation_table=table,
        optimize=False,
        **options,
    )
    assert program is not None  # only the older exporter returns None
    graph = program.model.graph
    kept = [*_store_in_blocks(graph), *_scales(graph)]
    if optimize:
        # torch's optimizer computes what follows from constants alone, which would store the scales
        # in each of their shapes.  It leaves alone what a caller may replace: the inputs.
        inputs = list(graph.inputs)
        graph.inputs.extend(kept)
        with _silent("onnx_ir.passes.common.initializer_deduplication"):
            program.optimize()
        program.model.graph.inputs[:] = inputs
    if path is not None:
        program.save(path, external_data=external_data)
    return program


@contextmanager
def _silent(name: str) -> Iterator[None]:
    """Keep a logger from saying that it leaves an initializer alone, which is intended."""
    logger, drop = logging.getLogger(name), lambda _: False
    logger.addFilter(drop)
    try:
        yield
    finally:
        logger.removeFilter(drop)


def _store_in_blocks(graph: ir.Graph) -> Iterator[ir.Value]:
    """Give packed bytes the shape that the operators read, and yield each initializer changed."""
    for value in list(graph.initializers.values()):
        for reshape in list(value.consumers()):
            blocks = reshape.outputs[0]
            if reshape.op_type != "Reshape" or not all(map(_is_ours, blocks.consumers())):
                continue
            tensor, shape = value.const_value, blocks.shape
            if tensor is None or shape is None or value.dtype != ir.DataType.UINT8:
                continue
            value.const_value = ir.tensor(tensor.numpy().reshape(shape.numpy()), name=value.name)
            value.shape = shape
            blocks.replace_all_uses_with(value)
            graph.remove(reshape, safe=True)
            yield value


def _scales(graph: ir.Graph) -> Iterator[ir.Value]:
    """Yield the initializers from which the scales of the operators are made."""
    for node in graph:
        if _is_ours(node):
            found = node.inputs[2]
            while found is not None and found.producer() is not None:
                found = found.producer().inputs[0]  # type: ignore[union-attr]
            if found is not None and found.is_initializer():
                yield found


def _is_ours(node: ir.Node) -> bool:
    return node.domain == DOMAIN and node.op_type in ("GatherBlockQuantized", "MatMulNBits")
