"""The notebook on a language model runs from clean, and its figures are in order."""

from __future__ import annotations

from nbformat import NotebookNode

from tests.notebooks import check_committed, executed_notebook, lines, shown

executed = executed_notebook("tied_llm")
PACKED = 49152 * 576 // 2 + 49152 * 576 // 32 * 2


def test_the_matrix_is_held_once(executed: NotebookNode) -> None:
    report, head, decoder = (shown(executed, cell) for cell in ("tie", "module", "decoder"))
    assert lines(executed, "load")[-1] == "one tensor for both ends: True"
    assert f"{PACKED:,} bytes" in report
    assert "QuantizedEmbedding, QuantizedLinear" in head
    assert f"{PACKED:,} bytes" in decoder
    assert lines(executed, "decoder-talk")[0] == "the same matrix: True"


def test_torch_and_the_device_say_the_same(executed: NotebookNode) -> None:
    (said,) = lines(executed, "talk")
    assert "Paris" in said
    assert lines(executed, "decoder-talk")[2] == said


def test_nearest_tokens_are_much_the_same_in_4_bits(executed: NotebookNode) -> None:
    found = [line.partition("'")[2].split("', '") for line in lines(executed, "nearest")]
    for four_bits, floats in zip(found[::2], found[1::2], strict=True):
        assert len(floats) == 6
        assert len(set(four_bits) & set(floats)) >= 4


def test_perplexity_grows_with_the_group(executed: NotebookNode) -> None:
    found = [float(line.split()[-1]) for line in lines(executed, "measure")[1:]]
    float32, eight, *four = found
    assert abs(eight / float32 - 1) < 0.02
    assert four == sorted(four)
    assert 1.05 < four[0] / float32 < four[-1] / float32 < 1.5


def test_committed_outputs_are_those_of_this_code(executed: NotebookNode) -> None:
    check_committed("tied_llm", executed, varying="measure")
