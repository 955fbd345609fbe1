"""The notebook on ExecuTorch runs from clean, and its bytes are those of the format."""

from __future__ import annotations

from nbformat import NotebookNode

from tests.notebooks import check_committed, executed_notebook, lines, shown

executed = executed_notebook("executorch")
PACKED, SCALES = 4096 * 256 // 2, 4096 * 256 // 32 * 4


def test_the_untied_file_holds_two_matrices_and_the_shared_one(executed: NotebookNode) -> None:
    untied, shared = shown(executed, "export"), shown(executed, "after")
    assert untied.count(f"{PACKED:,} bytes") == 2
    assert shared.count(f"{PACKED:,} bytes") == 1
    assert shared.count("blob ") >= 2
    refused, cause = lines(executed, "refused")
    assert "'FusePatternsPass'" in refused
    assert "torch.int8, got: torch.uint8" in cause
    assert f"{SCALES:,} bytes" in shown(executed, "share")


def test_runtimes_that_hold_it_once_hold_a_matrix_less(executed: NotebookNode) -> None:
    found = [line.split() for line in lines(executed, "device")[1:]]
    held = {name: [int(n.replace(",", "")) for n in numbers] for name, *numbers in found}
    # The gather of the embedding's scales takes a copy of them; scales of one are new.
    saved = PACKED - 4096 * 4
    for name in ("vulkan<1.4", "webgpu"):
        untied, shared = held[name]
        assert abs(untied - shared - saved) < 256
    untied, shared = held["vulkan>=1.4"]
    assert 0 < shared - untied < SCALES


def test_the_shared_program_computes_the_same(executed: NotebookNode) -> None:
    assert lines(executed, "run") == ["same logits: True", "same bytes: True"]
    assert lines(executed, "runtime")[0] == "same logits: True"


def test_committed_outputs_are_those_of_this_code(executed: NotebookNode) -> None:
    check_committed("executorch", executed)
