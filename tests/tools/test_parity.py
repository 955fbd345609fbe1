"""The parity harness: a selection of its cases on every backend, and that it can fail.

``make parity`` runs all cases, the 128256×2048 ones too.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import shaders
from tools.parity import contract, harness, oracle, report
from tools.parity.cases import Case, all_kernels, corner_cases, random_cases, upstream_cases
from tools.parity.excuses import excused
from wgpu_q4.cli import main
from wgpu_q4.format import rows_to_blocks

CORNERS = corner_cases()
BACKENDS = [name for name in harness.REQUIRED if not name.startswith("chromium")]
"""All but the browser, which is a large download: ``make parity`` has it."""


def selection() -> list[Case]:
    """Each kernel once, and each kind of corner once, in few shapes: a shape is a pipeline."""
    kernels = [case for case in CORNERS if case.note.startswith("every kernel")]
    packers = [case for case in CORNERS if case.op == "pack" and case.vocab % 8]
    kinds: dict[tuple[object, ...], Case] = {}
    for case in CORNERS:
        if case.op == "embedding" and case not in kernels:
            rank = len(case.ids_shape)
            kinds.setdefault((case.note, rank, case.scale_kind, case.id_kind), case)
    return [*kernels, *packers, *kinds.values()]


@pytest.fixture(scope="module")
def result() -> harness.Result:
    names, left_out = harness.choose_backends(without=["chromium"])
    return harness.run(selection(), names, left_out)


@pytest.mark.parametrize("name", BACKENDS)
def test_every_backend_is_right(result: harness.Result, name: str) -> None:
    column = next(column for column in result.columns if column.name == name)
    assert column.problem == ""
    wrong = {
        case.name: (cell.status, cell.differing, cell.remark)
        for case, cell in zip(result.cases, column.cells, strict=True)
        if cell.failed
    }
    assert not wrong
    driver = {"lavapipe": "llvmpipe", "swiftshader": "SwiftShader"}.get(name.partition("/")[2], "")
    assert driver in column.summary
    # Ids outside the vocabulary are an error before any kernel runs, and packing is no operator of
    # PyTorch's; excuses are for the few cases that are about them.
    not_applicable = column.count("not applicable")
    assert not_applicable == {"vulkan": 0, "executorch": 5}.get(name.partition("/")[0], 1)
    excuses = Counter(excuse for cell in column.cells for excuse in cell.excuses)
    assert sum(excuses.values()) <= 4, excuses
    assert not result.failed


def test_upstream_cases_are_those_of_its_test() -> None:
    cases = upstream_cases()
    assert len(cases) == 34
    assert len(set(cases)) == 34
    assert sum(case.large for case in cases) == 5
    assert sum(case.weight != "flat" for case in cases) == 6
    assert sum(case.scales == "float32" for case in cases) == 10
    assert len({case.kernel for case in cases}) == 11
    assert not any("linear_weight_buffer" in case.kernel for case in cases)


def test_the_corners_are_all_there() -> None:
    kernels = {case.kernel for case in CORNERS if case.op == "embedding"}
    assert len(kernels) == len(all_kernels()) == 24
    packers = {case.kernel for case in CORNERS if case.op == "pack"}
    assert packers == {"pack_q4_linear_weight_buffer", "pack_q4_linear_weight_texture2d"}
    assert {len(case.ids_shape) for case in CORNERS} == {0, 1, 2, 3}
    assert any(case.recorded_shape for case in CORNERS)
    assert any(case.group_size == case.embed_dim for case in CORNERS)
    assert {1} < {case.vocab for case in CORNERS}
    assert any(case.vocab % 8 for case in CORNERS)
    assert {"zero", "subnormal", "largest", "ties"} < {case.scale_kind for case in CORNERS}
    assert {"ends", "repeated", "outside"} < {case.id_kind for case in CORNERS}
    assert len({case.name for case in CORNERS}) == len(CORNERS)


def test_extreme_scales_are_extreme() -> None:
    for case in CORNERS:
        scales = case.matrix().scales
        right = oracle.expected(case)
        if case.scale_kind == "subnormal":
            assert (scales > 0).all()
            assert (np.abs(right) < np.finfo(scales.dtype).tiny).all() or right.dtype != case.scales
        if case.scale_kind == "ties":
            # (u − 8) is ±1, ±2, ±4 or −8 in 7 of 16 nibbles; those products are halfway.
            exact = oracle.expected(replace(case, output="float32")).astype(np.float64)
            error = np.abs(exact - right.astype(np.float64))
            assert (2 * error == np.abs(np.spacing(right)).astype(np.float64)).mean() > 0.3
        if case.id_kind == "ends":
            assert set(case.ids().flat) == {0, case.vocab - 1}


def test_a_case_survives_json_with_its_numbers() -> None:
    for case in CORNERS:
        again = Case.from_json(json.loads(json.dumps(case.to_json())))
        assert again == case
        np.testing.assert_array_equal(again.ids(), case.ids())


def test_random_cases_follow_from_the_seed() -> None:
    assert random_cases(20, 7) == random_cases(20, 7)
    assert random_cases(20, 7) != random_cases(20, 8)
    for case in random_cases(200, 7):
        assert case.embed_dim % 32 == 0
        assert case.embed_dim % case.group_size == 0
        if case.recorded_shape is not None:
            pairs = zip(case.ids_shape, case.recorded_shape, strict=True)
            assert all(present <= recorded for present, recorded in pairs)


def test_blocks_are_those_of_the_format() -> None:
    generator = np.random.default_rng(0)
    for vocab, embed_dim in ((8, 8), (21, 96), (1, 32)):
        packed = generator.integers(0, 256, (vocab, embed_dim // 2), np.uint8)
        np.testing.assert_array_equal(oracle.blocks(packed), rows_to_blocks(packed))
    # Row 5, column 6, alone: block (0, 1), component 1, byte 2, high nibble.
    packed = np.zeros((8, 4), np.uint8)
    packed[5, 3] = 0x0B
    assert oracle.blocks(packed).tolist() == [[[0] * 4, [0, 0x00B00000, 0, 0]]]


def test_distance_counts_floats() -> None:
    right = np.array([1.0, -2.0, 0.0, 5.0], np.float32)
    assert oracle.distance(right.copy(), right) == oracle.Distance(0, 0)
    found = right.copy()
    found[1] = np.nextafter(np.float32(-2), np.float32(-3))
    assert oracle.distance(found, right).ulp == 1
    found[2] = -0.0
    signed = oracle.distance(found, right)
    assert (signed.ulp, signed.differing) == (1, 2)
    # Across zero: the smallest positive and the smallest negative float are two apart.
    tiny = np.array([6e-8], np.float16)
    assert oracle.distance(-tiny, tiny).ulp == 2
    assert oracle.distance(np.array([np.nan], np.float32), right[:1]).ulp > 1 << 22
    with pytest.raises(ValueError, match="expected float32"):
        oracle.distance(right.astype(np.float16), right)
    with pytest.raises(ValueError, match=r"\[4\]"):
        oracle.distance(right[:2], right)


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


def test_excuses_cover_only_their_own_values() -> None:
    odd = Case("corners", 3, 32, 32, (4,), weight="linear_buffer", id_kind="ends")
    right = oracle.expected(odd)
    found = right.copy()
    found[1::2] = 0
    covered, names = excused("vulkan/lavapipe", odd, found, right)
    assert names == ["last of an odd number of half scales"]
    assert covered[1::2].any()
    assert not covered[0::2].any()
    for backend, case in (
        ("wgpu/lavapipe", odd),
        ("glsl-dir/lavapipe", odd),
        ("vulkan/lavapipe", replace(odd, vocab=4)),
        ("vulkan/lavapipe", replace(odd, scales="float32")),
    ):
        assert not excused(backend, case, found, right)[0].any()
    assert not excused("vulkan/lavapipe", odd, found + 1, right)[0].any()


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
        "from tools.parity.cases import Case\n"
        "matrix = Case.matrix\n"
        "Case.matrix = lambda case: os._exit(7) if case.vocab == 13 else matrix(case)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
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
    assert harness.Result([], [], {}, {}).failed


def test_backends_are_chosen_by_name() -> None:
    names, left_out = harness.choose_backends()
    assert set(harness.REQUIRED) <= set(names)
    assert "wgpudawn/lavapipe" in left_out
    names, left_out = harness.choose_backends(without=["wgpudawn", "vulkan/lavapipe"])
    assert "wgpudawn/swiftshader" in left_out
    assert "vulkan/lavapipe" not in names
    assert "vulkan/swiftshader" in names
    assert harness.choose_backends(only=["vulkan/lavapipe", "numpy"])[0] == [
        "numpy",
        "vulkan/lavapipe",
    ]
    assert harness.choose_backends(only=["vulkan/voodoo"])[0] == ["vulkan/voodoo"]
    names, _ = harness.choose_backends(only=["glsl-dir"], glsl_dir=Path("."))
    assert names == ["glsl-dir/lavapipe", "glsl-dir/swiftshader"]
    with pytest.raises(ValueError, match="no backend is called 'voodoo'"):
        harness.choose_backends(without=["voodoo"])


def test_the_command_writes_its_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page, data = tmp_path / "out" / "parity.html", tmp_path / "parity.json"
    arguments = ["parity", "--only", "numpy", "--small", "--random", "3"]
    assert main([*arguments, "--html", str(page), "--json", str(data)]) == 0
    printed = capsys.readouterr().out
    assert "passed: 116 cases × 1 backends" in printed
    assert "not run: vulkan/lavapipe: not among those of --only" in printed
    document = json.loads(data.read_text(encoding="utf-8"))
    assert document["passed"] is True
    assert len(document["cases"]) == len(document["backends"][0]["cells"]) == 116
    html = page.read_text(encoding="utf-8")
    for name in ("numpy", *(case["name"] for case in document["cases"])):
        assert name in html
    assert "wgpudawn/lavapipe" in html
    # Self-contained: nothing is loaded from elsewhere.
    assert not re.search(r"https?://|<script|<link|src=", html)


def test_the_command_says_what_is_wrong_with_its_arguments(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["parity", "--only", "voodoo"]) == 2
    assert "no backend is called 'voodoo'" in capsys.readouterr().err
    assert main(["parity", "--cases", "voodoo"]) == 2
    assert "no case has 'voodoo'" in capsys.readouterr().err
    assert main(["parity", "--only", "vulkan/voodoo", "--cases", "[7]"]) == 1
    assert "FAILED" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["numpy/lavapipe", "executorch/lavapipe", "glsl-dir"])
def test_a_backend_that_cannot_be_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        harness.choose_backends(only=[name])


def test_a_folder_without_the_kernels_fails(tmp_path: Path) -> None:
    """It would otherwise have nothing to compare, and pass."""
    result = harness.run(upstream_cases()[:1], ["glsl-dir/lavapipe"], glsl_dir=tmp_path)
    assert result.failed
    assert "has none of the kernels" in result.columns[0].problem
