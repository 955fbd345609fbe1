"""What ExecuTorch's runtimes do with each form of graph that the pass writes, or might write.

A graph that is valid for ``torch.export`` and for ExecuTorch's partitioner may still abort a
runtime when it is loaded, or give wrong numbers.  So every form in `TABLE` was run: files exported
with the release of `versions.TESTED` were loaded and executed by runtimes built from ExecuTorch's
source, on Mesa's processor driver, and the results were compared with the eager program.  `problem`
holds the nodes that the pass has written against the table; a form that is not in the table counts
as one that does not run.

The runtimes were those of one commit, cff6f4dd32, which calls itself 1.5.0.  The sources of 1.3.1
and 1.4.1 have the same ops, with the functions that resize their results; nobody ran them here.
`tools.executorch_runtime` runs the same programs on any build.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Literal

import torch
from torch.fx import Node

from wgpu_q4.executorch.recognize import APART, HALF_SCALES, dynamic_sizes, form_of

Runtime = Literal["vulkan", "webgpu"]
RUNTIMES: tuple[Runtime, ...] = ("vulkan", "webgpu")


class Outcome(Enum):
    """What a runtime does with a form."""

    RUNS = "runs"
    LARGEST = "keeps the largest size of a dynamic dimension"
    ABORTS = "aborts the process when it loads the program"
    REFUSES = "refuses to load the program"
    FAILS = "fails when it executes the program"
    WRONG = "computes wrong numbers"


@dataclass(frozen=True)
class Row:
    """One observation.

    Attributes:
        form: the name of the form, as `form_of` returns it.
        runtime: the runtime that ran it.
        versions: the versions of the runtime that were tried.
        outcome: what happened.
        seen: the message of the runtime, or what was compared; empty if there is no more to say.
    """

    form: str
    runtime: Runtime
    versions: str
    outcome: Outcome
    seen: str = ""


_TRIED = "1.5.0 (cff6f4dd32)"


def _both(form: str, seen: str = "") -> list[Row]:
    return [Row(form, runtime, _TRIED, Outcome.RUNS, seen) for runtime in RUNTIMES]


TABLE: tuple[Row, ...] = (
    *_both("embedding_q4gsw", "rows equal to the last bit"),
    Row(
        "embedding_q4gsw, several rows of ids",
        "vulkan",
        _TRIED,
        Outcome.WRONG,
        "of b rows of ids in a texture, one in b is looked up rightly",
    ),
    Row("embedding_q4gsw, several rows of ids", "webgpu", _TRIED, Outcome.RUNS),
    Row(
        "embedding_q4gsw" + HALF_SCALES,
        "vulkan",
        _TRIED,
        Outcome.RUNS,
        "rows equal to the last bit",
    ),
    Row(
        "embedding_q4gsw" + HALF_SCALES,
        "webgpu",
        _TRIED,
        Outcome.REFUSES,
        "dtype/byte-size mismatch",
    ),
    *_both(
        "linear_q4gsw", "logits within a float32 sum on Vulkan; WebGPU's GEMM rounds to float16"
    ),
    Row(
        "linear_q4gsw" + HALF_SCALES,
        "vulkan",
        _TRIED,
        Outcome.ABORTS,
        "no shader nchw_to_buffer_float_half; before 1.4 it loads, and the logits are wrong",
    ),
    Row("linear_q4gsw" + HALF_SCALES, "webgpu", _TRIED, Outcome.REFUSES, "scales must be float32"),
    Row(
        "linear_q4gsw, x of more than two dimensions",
        "vulkan",
        _TRIED,
        Outcome.WRONG,
        "only the first item of a batch is computed",
    ),
    Row(
        "linear_dq8ca_q4gsw",
        "vulkan",
        _TRIED,
        Outcome.RUNS,
        "logits within a float32 sum; of one row, the activations are not quantized",
    ),
    Row("linear_dq8ca_q4gsw", "webgpu", _TRIED, Outcome.RUNS, "logits within a float32 sum"),
    Row(
        "index.Tensor of a matrix",
        "vulkan",
        _TRIED,
        Outcome.ABORTS,
        "index.Tensor: only one index tensor is supported",
    ),
    Row("index.Tensor of a matrix", "webgpu", _TRIED, Outcome.REFUSES, "only 1D self is supported"),
    Row("index_select", "vulkan", _TRIED, Outcome.LARGEST, "and needs textures, too small for V"),
    Row("index_select", "webgpu", _TRIED, Outcome.LARGEST),
    Row("add of integers", "vulkan", _TRIED, Outcome.RUNS),
    Row("add of integers", "webgpu", _TRIED, Outcome.WRONG, "adds their bits as float32 numbers"),
    Row("expand", "vulkan", _TRIED, Outcome.RUNS),
    Row("expand", "webgpu", _TRIED, Outcome.REFUSES, "expand_copy takes no -1"),
    Row("repeat", "vulkan", _TRIED, Outcome.RUNS),
    Row("repeat", "webgpu", _TRIED, Outcome.LARGEST),
    Row("gather", "vulkan", _TRIED, Outcome.RUNS),
    Row("gather", "webgpu", _TRIED, Outcome.LARGEST),
    Row("permute", "vulkan", _TRIED, Outcome.RUNS),
    Row("permute", "webgpu", _TRIED, Outcome.LARGEST),
    *_both("slice"),
    *_both("copy in another dtype"),
    *_both("multiply"),
    Row(APART, "vulkan", _TRIED, Outcome.RUNS),
    Row(
        APART,
        "webgpu",
        _TRIED,
        Outcome.FAILS,
        "mul(resize): operands are not broadcast-compatible",
    ),
    *_both("view"),
    Row("view, two dynamic sizes", "vulkan", _TRIED, Outcome.RUNS),
    Row(
        "view, two dynamic sizes",
        "webgpu",
        _TRIED,
        Outcome.WRONG,
        "the shape of the result is wrong",
    ),
    *_both("arithmetic of sizes"),
    *_both("quantization of rows"),
    Row("quantization of any number of rows", "vulkan", _TRIED, Outcome.RUNS),
    Row(
        "quantization of any number of rows",
        "webgpu",
        _TRIED,
        Outcome.REFUSES,
        "choose_qparams_affine: num_rows must be <=4 or a multiple of 4; and a dynamic number of "
        "rows keeps its largest size",
    ),
)

_BY_FORM = {(row.form, row.runtime): row for row in TABLE}


def problem(nodes: Sequence[Node], runtime: Runtime, *, force_fp16: bool = False) -> str:
    """Return why ``runtime`` does not run what the pass has written, or an empty string.

    Args:
        nodes: the nodes that the pass has written, in the order of the graph.
        runtime: which runtime.
        force_fp16: whether the program will be lowered with the compile option ``force_fp16``.
    """
    if force_fp16 and runtime == "webgpu":
        return "ExecuTorch's WebGPU runtime takes float32 only, and so no force_fp16"
    largest: set[Node] = set()  # nodes whose result keeps the largest size
    for node in nodes:
        form = form_of(node)
        if force_fp16:
            form = form.removesuffix(
                HALF_SCALES
            )  # with that option the activations are float16 too
        row = _BY_FORM.get((form, runtime))
        if row is None:
            return f"{node.name}: no {_TITLE[runtime]} runtime is known to run this form ({form})"
        reads_largest = not largest.isdisjoint(node.all_input_nodes)
        if row.outcome is Outcome.LARGEST:
            if dynamic_sizes(node):
                largest.add(node)
        elif reads_largest and node.target is not torch.ops.aten.slice.Tensor:
            if len(node.all_input_nodes) > 1:
                return _uncut(node, runtime)
            largest.add(node)
        elif row.outcome is not Outcome.RUNS:
            return f"{node.name}: {explain(row)}"
    written = set(nodes)
    for node in largest:
        if not written.issuperset(node.users):
            return _uncut(node, runtime)
    return ""


def _uncut(node: Node, runtime: Runtime) -> str:
    return (
        f"{node.name}: the {_TITLE[runtime]} runtime keeps the largest size of a dynamic dimension "
        f"here, and nothing cuts the result to its size"
    )


def explain(row: Row) -> str:
    """Return a row of the table as a sentence."""
    text = f"{row.form}: ExecuTorch's {_TITLE[row.runtime]} runtime {row.outcome.value}"
    return text + (f" ({row.seen})" if row.seen else "")


_TITLE: dict[Runtime, str] = {"vulkan": "Vulkan", "webgpu": "WebGPU"}
