"""The first notebook runs from clean, and a kernel without an adapter lives on."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode

from tests.devices import drivers
from tests.notebooks import check_committed, executed_notebook, lines, shown
from tools.notebooks import execute

executed = executed_notebook("quickstart")


def test_weight_is_shown_before_and_after_use(executed: NotebookNode) -> None:
    before, after = shown(executed, "quantize"), shown(executed, "once")
    assert "none yet" in before
    assert "none yet" not in after
    assert "read by argmax, embedding, linear, top_k" in after
    assert after.count("read by") == 1, "one line for each copy on a device: there is one"
    plain = [shown(executed, cell, "text/plain") for cell in ("quantize", "once")]
    assert plain[0] == plain[1]


def test_ops_agree_with_numpy(executed: NotebookNode) -> None:
    assert lines(executed, "orders")[-1] == "the same matrix in the other order: True"
    assert lines(executed, "embedding")[-1] == "equal to the stored values: True"
    ids = "[[1, 3000, 17], [256, 17, 4095]]"
    assert lines(executed, "linear")[-2:] == [
        "within float32 rounding: True",
        f"best token of each vector: {ids}",
    ]
    assert lines(executed, "best")[0] == f"argmax: {ids}"
    assert lines(executed, "best")[1].startswith("top_k of token 1: token    1, score ")


def test_stored_once(executed: NotebookNode) -> None:
    sizes = [int(line.split()[-2].replace(",", "")) for line in lines(executed, "bytes")]
    float32, float16, two, one = sizes
    assert float32 == 2 * float16 == 4096 * 512 * 4
    assert two == 2 * one
    assert one == 4096 * 512 // 2 + 4096 * (512 // 32) * 2
    assert lines(executed, "save")[-2:] == ["one object: True", "same matrix: True"]


def test_a_larger_group_follows_the_matrix_less_closely(executed: NotebookNode) -> None:
    errors = [line.split("error")[1].split() for line in lines(executed, "measure")]
    usual, searched = ([float(words[place]) for words in errors] for place in (0, 3))
    assert usual == sorted(usual)
    assert searched == sorted(searched)
    assert all(one < other for one, other in zip(searched, usual, strict=True))


def test_committed_outputs_are_those_of_this_code(executed: NotebookNode) -> None:
    check_committed("quickstart", executed)


WITHOUT_ADAPTER = {
    "quantize": "import wgpu_q4, numpy as np\nweight = wgpu_q4.quantize(np.eye(32, dtype='f4'))",
    "embedding": "wgpu_q4.embedding([3], weight)",
    "again": "wgpu_q4.linear(np.ones(32, np.float32), weight)",
    "host": "print(wgpu_q4.embedding([3], weight, device='host')[0, 3])",
    "shown": "weight",
}


@pytest.fixture(scope="module")
def without_adapter(tmp_path_factory: pytest.TempPathFactory) -> NotebookNode:
    """A notebook on a machine without any driver, whose cells may raise errors."""
    folder = tmp_path_factory.mktemp("notebook")
    v4 = nbformat.v4
    cells = [
        v4.new_code_cell(code, id=name, metadata={"tags": ["raises-exception"]})  # type: ignore[no-untyped-call]
        for name, code in WITHOUT_ADAPTER.items()
    ]
    nbformat.write(v4.new_notebook(cells=cells), folder / "a.ipynb")  # type: ignore[no-untyped-call]
    return execute(folder / "a.ipynb", drivers(Path(folder, "no driver")))


def test_a_kernel_without_an_adapter_says_what_to_install(without_adapter: NotebookNode) -> None:
    outputs = {cell.id: cell.outputs for cell in without_adapter.cells}
    assert outputs["quantize"] == []  # importing and quantizing need no adapter
    for name in ("embedding", "again"):
        (error,) = outputs[name]
        assert (error.output_type, error.ename) == ("error", "DeviceError")
        assert error.evalue.startswith("wgpu finds no GPU adapter. Install a driver: ")
        assert "start Python (in a notebook, the kernel) again" in error.evalue


def test_a_kernel_without_an_adapter_lives_on(without_adapter: NotebookNode) -> None:
    value = float(lines(without_adapter, "host")[0])
    assert value == pytest.approx(1, rel=1 / 15)  # half a level of 4 bits
    assert "none yet" in shown(without_adapter, "shown")
