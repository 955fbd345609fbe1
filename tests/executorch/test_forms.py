"""The table of forms: what each runtime does with what the pass writes, held on emitted graphs.

Each row of `wgpu_q4.executorch.forms.TABLE` was seen on a real runtime.  Here a graph with that
form is built, and the check must say of it what the table says; and what the pass itself writes
must pass the check.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx import Node

from tests.executorch.programs import ET_VK, calls, check_close, targets
from tests.tied_models import (
    GROUP,
    IDS,
    LENGTH,
    OnlyLogits,
    Tied,
    export,
    quantized_int8_activations,
    quantized_shared,
)
from wgpu_q4 import ExportError
from wgpu_q4.executorch import emit, share_tied_weights
from wgpu_q4.executorch.forms import RUNTIMES, TABLE, Outcome, Runtime, problem
from wgpu_q4.executorch.recognize import form_of

ATEN = torch.ops.aten
ROWS = torch.arange(15).reshape(3, 5)
X = torch.zeros(1, 7, 256)


class Form(nn.Module):
    """A program of one form, on a packed matrix and its scales in both orders."""

    def __init__(self, forward: Callable[..., Tensor], half: bool = False) -> None:
        super().__init__()
        scales = torch.ones(8, 512, dtype=torch.float16 if half else torch.float32)
        self.register_buffer("packed", torch.zeros(512, 128, dtype=torch.uint8))
        self.register_buffer("by_group", scales)
        self.register_buffer("by_row", scales.t().contiguous())
        self.register_buffer("ones", torch.ones(512, 1))
        self.register_buffer("zeros", torch.zeros(8, 1, dtype=torch.int64))
        self._forward = forward

    def forward(self, x: Tensor) -> Tensor:
        return self._forward(self, x)


def gathered(m: Any, ids: Tensor) -> Tensor:
    scale = m.by_group.gather(1, ids.reshape(1, -1).repeat(8, 1)).permute(1, 0)
    return multiplied(m, ids, scale)


def cut(m: Any, ids: Tensor) -> Tensor:
    """The same, with the scales cut to the number of ids."""
    scale = m.by_group.gather(1, ids.reshape(1, -1).repeat(8, 1)).permute(1, 0)
    return multiplied(m, ids, ATEN.slice.Tensor(scale, 0, 0, ids.shape[0] * ids.shape[1]))


def multiplied(m: Any, ids: Tensor, scale: Tensor) -> Tensor:
    if ids.shape[0] != 1:
        ids = ids.reshape(-1)
    rows = ET_VK.embedding_q4gsw(m.packed, m.ones, 256, ids, True)
    product: Tensor = rows.view(-1, 8, 32) * scale.reshape(-1, 8, 1)
    return product


FORMS: list[tuple[str, Form, Tensor, Any]] = [
    (
        "index.Tensor of a matrix",
        Form(lambda m, ids: ATEN.index.Tensor(m.by_group, [None, ids])),
        IDS[0],
        None,
    ),
    (
        "embedding_q4gsw, several rows of ids",
        Form(lambda m, ids: ET_VK.embedding_q4gsw(m.packed, m.by_row, GROUP, ids, True)),
        ROWS,
        None,
    ),
    (
        "embedding_q4gsw, float16 scales beside float32 activations",
        Form(lambda m, ids: ET_VK.embedding_q4gsw(m.packed, m.by_row, GROUP, ids, True), half=True),
        IDS,
        None,
    ),
    (
        "linear_q4gsw, float16 scales beside float32 activations",
        Form(
            lambda m, x: ET_VK.linear_q4gsw(x, m.packed, m.by_group, GROUP, None).float(), half=True
        ),
        X[0],
        None,
    ),
    (
        "linear_q4gsw, x of more than two dimensions",
        Form(lambda m, x: ET_VK.linear_q4gsw(x, m.packed, m.by_group, GROUP, None)),
        X,
        None,
    ),
    ("add of integers", Form(lambda m, ids: m.zeros + ids.reshape(1, -1)), IDS, None),
    ("expand", Form(lambda m, ids: ids.reshape(1, -1).expand(8, -1)), IDS, None),
    (
        "index_select",
        Form(lambda m, ids: m.by_group.index_select(1, ids.reshape(-1))),
        IDS,
        LENGTH["ids"],
    ),
    ("gather", Form(gathered), IDS, LENGTH["ids"]),
    ("multiply, dynamic sizes that are known apart", Form(cut), ROWS, {0: Dim("rows", min=2)}),
    ("view, two dynamic sizes", Form(lambda m, ids: ids.reshape(ids.shape)), ROWS, "both"),
]


def nodes_of(module: Form, x: Tensor, dynamic: Any) -> list[Node]:
    sizes = {0: Dim("batch"), 1: Dim("length")} if dynamic == "both" else dynamic
    program = torch.export.export(module, (x,), dynamic_shapes=None if sizes is None else (sizes,))
    if dynamic == "both":  # torch.export drops a view that changes nothing
        with program.graph.inserting_after(program.graph.find_nodes(op="placeholder")[-1]):
            ids = program.graph.find_nodes(op="placeholder")[-1]
            view = program.graph.call_function(ATEN.view.default, (ids, [-1, 5]))
            view.meta["val"] = ids.meta["val"]
            return [view]
    return calls(program)


@pytest.mark.parametrize(("form", "module", "x", "dynamic"), FORMS, ids=[f[0] for f in FORMS])
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_form_gets_the_verdict_of_the_table(
    form: str, module: Form, x: Tensor, dynamic: Any, runtime: Runtime
) -> None:
    nodes = nodes_of(module, x, dynamic)
    assert form in {form_of(node) for node in nodes}
    row = next((row for row in TABLE if (row.form, row.runtime) == (form, runtime)), None)
    reason = problem(nodes, runtime)
    if row is None:
        assert f"known to run this form ({form})" in reason
    elif row.outcome is Outcome.RUNS:
        assert not reason
    elif row.outcome is Outcome.LARGEST:
        assert "keeps the largest size" in reason
    else:
        assert form in reason
        assert row.seen in reason


def test_a_slice_cuts_what_keeps_its_largest_size() -> None:
    whole = nodes_of(Form(gathered), IDS, LENGTH["ids"])
    assert "keeps the largest size" in problem(whole, "webgpu")
    assert not problem(nodes_of(Form(cut), IDS, LENGTH["ids"]), "webgpu")
    assert not problem(nodes_of(Form(gathered), IDS, None), "webgpu")


def test_an_unknown_op_is_not_trusted() -> None:
    nodes = nodes_of(Form(lambda m, x: x.sin()), X, None)
    for runtime in RUNTIMES:
        assert "known to run this form (aten.sin.default)" in problem(nodes, runtime)


def test_the_table_is_whole() -> None:
    assert len({(row.form, row.runtime) for row in TABLE}) == len(TABLE)
    for row in TABLE:
        assert row.runtime in RUNTIMES
        assert row.versions
        assert row.seen or row.outcome in (Outcome.RUNS, Outcome.LARGEST)


# What the pass writes -----------------------------------------------------------------------------

MODELS = {
    "weight-only": quantized_shared,
    "8-bit activations": quantized_int8_activations,
}
PROGRAMS = {
    "one row": (IDS, None),
    "rows": (ROWS, None),
    "one dimension": (IDS[0], None),
    "dynamic row": (IDS, {1: Dim("length", min=2, max=64)}),
    "dynamic rows": (ROWS, {0: Dim("batch", min=2, max=64)}),
    "dynamic both": (ROWS, {0: Dim("batch", min=2), 1: Dim("length", min=2)}),
}


def exported(model: nn.Module, name: str) -> ExportedProgram:
    ids, sizes = PROGRAMS[name]
    shapes = None if sizes is None else {"ids": sizes}
    return torch.export.export(model, (ids,), dynamic_shapes=shapes)


@pytest.mark.parametrize("once", [True, False], ids=["scales once", "scales twice"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_what_the_pass_writes_runs(name: str, once: bool) -> None:
    """Of the pass that wrote ``aten.index.Tensor(scales, [None, ids])``, each process aborted."""
    before = exported(quantized_shared(Tied()), name)
    after, report = share_tied_weights(before, scales_once=once)
    assert ATEN.index.Tensor not in targets(after)
    written = [node for node in calls(after) if node.name not in {n.name for n in calls(before)}]
    assert ET_VK.embedding_q4gsw.default in {node.target for node in written}
    assert not problem(written, "vulkan")
    both = ("vulkan", "webgpu")
    assert report.runtimes == (both if name != "dynamic both" else ("vulkan",))
    check_close(before, after, PROGRAMS[name][0])


def test_computed_ids_take_the_form_that_both_runtimes_run() -> None:
    """A dynamic number of scales is gathered on WebGPU only for ids that are an input."""

    class Computed(Tied):
        def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
            return super().forward(ids.clamp(max=500))

    program = exported(quantized_shared(Computed()), "dynamic row")
    for runtime, once in ((None, False), ("webgpu", False), ("vulkan", True)):
        _, report = share_tied_weights(program, runtime=runtime)  # type: ignore[arg-type]
        assert report.shared[0].scales_once == once
    assert report.runtimes == ("vulkan",)
    assert "multiply, dynamic sizes that are known apart" in report.notes[0]


def test_a_runtime_that_does_not_run_the_program_is_refused() -> None:
    program = exported(quantized_shared(Tied()), "dynamic both")
    with pytest.raises(ExportError, match="view, two dynamic sizes: ExecuTorch's WebGPU"):
        share_tied_weights(program, runtime="webgpu")
    assert share_tied_weights(program, runtime="vulkan")[1].runtimes == ("vulkan",)
    rows = exported(quantized_int8_activations(Tied()), "dynamic row")
    with pytest.raises(ExportError, match="num_rows must be <=4 or a multiple of 4"):
        share_tied_weights(rows, runtime="webgpu")


def test_other_backends_get_a_sentence() -> None:
    with pytest.raises(ExportError, match=r"vulkan, webgpu, not 'xnnpack': only .* share a matrix"):
        share_tied_weights(export(Tied()), runtime="xnnpack")  # type: ignore[arg-type]


def test_a_batch_is_folded_into_a_matrix() -> None:
    """ExecuTorch's Vulkan op on x [B, M, K] computes item 0 of the batch, and leaves the others."""
    before = exported(quantized_shared(OnlyLogits()), "rows")
    after, _ = share_tied_weights(before)
    (linear,) = calls(after, ET_VK.linear_q4gsw.default)
    assert linear.args[0].meta["val"].shape == (15, 256)  # type: ignore[union-attr]
    check_close(before, after, ROWS)


def test_a_pass_that_writes_another_form_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def todays(
        write: Any, packed: Node, ones: Node, scales: Node, _: int, ids: Node, __: None
    ) -> Node:
        rows: Node = write.call(ET_VK.embedding_q4gsw.default, packed, ones, 256, ids, True)
        flat = write.call(ATEN.reshape.default, ids, [-1])
        scale = write.call(ATEN.index.Tensor, scales, [None, flat])
        scale = write.call(ATEN.permute.default, scale, [1, 0])
        scale = write.call(ATEN.view.default, scale, [-1, 8, 1])
        grouped = write.call(ATEN.view.default, rows, [-1, 8, 32])
        product = write.call(ATEN.mul.Tensor, grouped, scale)
        return write.view(product, (*ids.meta["val"].shape, 256), ids)  # type: ignore[no-any-return]

    monkeypatch.setattr(emit, "embedding_with_linear_scales", todays)
    program = exported(quantized_shared(Tied()), "one row")
    with pytest.raises(ExportError, match="only one index tensor is supported"):
        share_tied_weights(program)
