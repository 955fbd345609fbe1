"""The parity harness: a selection of its cases on every backend, and faults that it must find.

``make parity`` runs all cases, the 128256×2048 ones too.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import shaders
from tools.parity import contract, harness, report
from tools.parity.choice import REQUIRED, choose_backends
from tools.parity.excuses import excuses_of
from tools.parity.result import Result
from wgpu_q4.check import oracle
from wgpu_q4.check.cases import Case
from wgpu_q4.check.excuses import judge
from wgpu_q4.check.lists import corner_cases, upstream_cases

CORNERS = corner_cases()


def is_float32_in_buffers(case: Case) -> bool:
    """Whether ExecuTorch's WebGPU backend takes a case."""
    dtypes = {case.output, case.scales}
    places = (case.storage, case.weight)
    in_buffers = places in (("buffer", "flat"), ("buffer", "linear_buffer"))
    return case.op == "embedding" and dtypes == {"float32"} and in_buffers


def selection() -> list[Case]:
    """Each kernel once, and each kind of corner once, in few shapes: a shape is a pipeline.

    And all corners in float32 and buffers, which are the only ones of the drop-in for WebGPU.
    """
    kernels = [case for case in CORNERS if case.note.startswith("every kernel")]
    packers = [case for case in CORNERS if case.op == "pack" and case.vocab % 8]
    kinds: dict[tuple[object, ...], Case] = {}
    for case in CORNERS:
        if case.op == "embedding" and case not in kernels:
            rank = len(case.ids_shape)
            kinds.setdefault((case.note, rank, case.scale_kind, case.id_kind), case)
    floats = filter(is_float32_in_buffers, CORNERS)
    return list(dict.fromkeys([*kernels, *packers, *kinds.values(), *floats]))


@pytest.fixture(scope="module")
def result() -> Result:
    names, left_out = choose_backends()
    return harness.run(selection(), names, left_out)


@pytest.mark.parametrize("name", REQUIRED)
def test_every_backend_is_right(result: Result, name: str) -> None:
    column = next(column for column in result.columns if column.name == name)
    assert column.problem == ""
    wrong = {
        case.name: (cell.status, cell.differing, cell.remark)
        for case, cell in zip(result.cases, column.cells, strict=True)
        if cell.failed
    }
    assert not wrong
    kind, _, driver = name.partition("/")
    assert {"lavapipe": "llvmpipe"}.get(driver, driver) in column.summary.lower()
    # Ids outside the vocabulary are an error before any kernel of this package runs, and packing is
    # no operator of PyTorch's; excuses are for the few cases that are about them.
    outside = sum(case.id_kind == "outside" for case in result.cases)
    packing = sum(case.op == "pack" for case in result.cases)
    not_applicable = {"vulkan": 0, "chromium": 0, "executorch": outside + packing}.get(
        kind, outside
    )
    if kind.startswith("drop-in-"):
        not_applicable = sum(not is_float32_in_buffers(case) for case in result.cases)
        assert len(result.cases) - not_applicable > 10
    assert outside >= 1
    assert column.count("not applicable") == not_applicable
    excuses = Counter(excuse for cell in column.cells for excuse in cell.excuses)
    assert sum(excuses.values()) <= 4, excuses
    assert not result.failed


@pytest.mark.parametrize("storage", ["buffer", "texture3d"])
def test_a_stray_write_is_caught(storage: str) -> None:
    case = Case("corners", 8, 32, 32, (2, 3), storage=storage, recorded_shape=(3, 5))  # type: ignore[arg-type]
    dispatch = contract.dispatch(case, b"")
    assert dispatch.grid == (1, 5, 3)
    found = dispatch.resources[0].data.copy()
    right = oracle.expected(case)
    if storage == "buffer":
        found[:6] = right.reshape(6, 32)
    else:
        found[:2, :3] = right.reshape(2, 3, 8, 4)
    np.testing.assert_array_equal(contract.result(case, found), right)
    found.reshape(-1)[-1] = 0
    with pytest.raises(contract.StrayWriteError, match="1 values"):
        contract.result(case, found)


def test_the_last_half_scale_is_excused_on_vulkan_alone() -> None:
    odd = Case("corners", 3, 32, 32, (4,), weight="linear_buffer", id_kind="ends")
    found = oracle.expected(odd)
    found[1::2] = 0

    def status(backend: str, case: Case = odd, more: int = 0) -> str:
        return judge(case, found + more, excuses_of(backend)).status

    assert status("vulkan/lavapipe") == "excused"
    assert status("vulkan/lavapipe", more=1) == "differs"
    assert status("vulkan/lavapipe", replace(odd, id_kind="repeated")) == "differs"
    assert status("vulkan/lavapipe", replace(odd, scales="float32")) == "differs"
    for backend in ("wgpu/lavapipe", "glsl-dir/lavapipe", "wgpu/swiftshader"):
        assert status(backend) == "differs"


def test_a_wrong_shader_turns_cases_red(tmp_path: Path) -> None:
    """ExecuTorch's side of the shader is kept, the zero point moved by one."""
    for path in harness.generated_folder().iterdir():
        source = path.read_text(encoding="utf-8")
        (tmp_path / path.name).write_text(source.replace("8.0", "7.0"), encoding="utf-8")
    cases = [case for case in CORNERS if case.note.startswith("every kernel")][::5]
    wrong = harness.run(cases, ["glsl-dir/lavapipe"], glsl_dir=tmp_path)
    (mutated,) = wrong.columns
    assert mutated.count("differs") == len(cases)
    assert wrong.failed
    text = report.text(wrong)
    assert "FAILED" in text
    assert "values differ; at [0, 0, 0, 0]" in text


def test_the_scalar_shader_of_the_benchmark_is_right() -> None:
    """What the generated shaders are measured against does the same work."""
    cases = [case for case in shaders.cases(24, 96, 5) if case.output == "float32"]
    assert len(cases) == 3
    folder = shaders.SCALAR
    (column,) = harness.run(cases, ["glsl-dir/lavapipe"], glsl_dir=folder).columns
    assert [cell.status for cell in column.cells] == ["exact"] * 3, column


def test_a_crash_costs_one_case(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A worker whose second case ends the process goes on with the third in a new one."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os\n"
        "from wgpu_q4.check.cases import Case\n"
        "matrix = Case.matrix\n"
        "Case.matrix = lambda case: os._exit(7) if case.vocab == 13 else matrix(case)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    cases = [Case("corners", vocab, 32, 32, (2,)) for vocab in (8, 13, 21)]
    (column,) = harness.run(cases, ["numpy"]).columns
    assert [cell.status for cell in column.cells] == ["exact", "error", "exact"]
    assert "ended with status 7" in column.cells[1].remark
    assert column.problem == ""
    assert column.failed


def test_what_is_absent_or_broken_fails_the_run(tmp_path: Path) -> None:
    broken = tmp_path / "broken_icd.json"
    broken.write_text('{"file_format_version": "1.0.0", "ICD": {"library_path": "./no.so"}}')
    names = ["numpy", "vulkan/voodoo", f"wgpu/{broken}", "glsl-dir/lavapipe"]
    absent = harness.run(CORNERS[:1], names, glsl_dir=tmp_path / "nowhere")
    numpy_column, *others = absent.columns
    assert not numpy_column.failed
    assert all(column.problem for column in others)
    assert "no Vulkan driver is called 'voodoo'" in others[0].problem
    assert "do not build" in others[2].problem
    assert absent.failed
    assert "absent or broken: vulkan/voodoo" in report.verdict(absent)
    assert Result([], [], {}, {}).failed


def test_a_folder_without_the_kernels_fails(tmp_path: Path) -> None:
    """It would otherwise have nothing to compare, and pass."""
    result = harness.run(upstream_cases()[:1], ["glsl-dir/lavapipe"], glsl_dir=tmp_path)
    assert result.failed
    assert "has none of the kernels" in result.columns[0].problem
