"""The judgement of mutants by the parity harness: the embedding and packing, on every backend.

The harness runs the WGSL through naga and Tint, and on raw Vulkan the GLSL that is generated from
it.  If a backend stayed green, it would not run what stands in the pieces, or no case would look.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tools.mutants.drivers import ROOT, WorkerError
from tools.mutants.mutant import Mutant
from tools.mutants.suites import pieces_with
from tools.mutants.table.embedding import BLOCKS, CASES, TEXTURE
from tools.mutants.verdict import Verdict, compared
from tools.parity import harness
from tools.parity.result import Cell
from wgpu_q4 import kernels

BACKENDS = (
    "wgpu/lavapipe",
    "wgpu/swiftshader",
    "wgpudawn/swiftshader",
    "vulkan/lavapipe",
    "vulkan/swiftshader",
)
TEST = "tests/tools/test_parity.py::test_every_backend_is_right"


def red(*mutants: Mutant) -> dict[str, frozenset[str]]:
    """Run all cases with these places wrong; return the cases that come out wrong, by backend.

    Raises:
        WorkerError: a backend is absent, or a case has no result.
    """
    with pieces_with(*mutants) as folder, tempfile.TemporaryDirectory() as scratch:
        before = os.environ.get(kernels.SOURCE_VARIABLE)
        os.environ[kernels.SOURCE_VARIABLE] = str(folder)  # the harness hands it to its workers
        try:
            _generate(Path(scratch))
            result = harness.run(CASES, BACKENDS, glsl=Path(scratch))
        finally:
            del os.environ[kernels.SOURCE_VARIABLE]
            if before is not None:
                os.environ[kernels.SOURCE_VARIABLE] = before
    found = {}
    for column in result.columns:
        if column.problem:
            raise WorkerError(f"{column.name}: {column.problem}")
        cells = list(zip(result.cases, column.cells, strict=True))
        broken = [f"{case.name}: {cell}" for case, cell in cells if not _has_result(cell)]
        if broken:
            raise WorkerError(f"{column.name}: {'; '.join(broken)}")
        found[column.name] = frozenset(case.name for case, cell in cells if _is_red(cell))
    return found


def expected(mutant: Mutant, backend: str) -> frozenset[str]:
    """Return the names of the cases that the mutant must turn red on a backend."""
    reached = {case.name for case in CASES if mutant.reaches(case)}
    if mutant.piece.startswith("pack/") and backend.startswith("wgpu"):
        # This package packs the blocks itself there; raw Vulkan is given right ones.
        reached |= {BLOCKS.name, TEXTURE.name}
    return frozenset(reached)


def judge(mutant: Mutant) -> Verdict:
    """Run all cases on all backends with a place wrong, and compare which cases turned red."""
    try:
        found = red(mutant)
    except WorkerError as error:
        return Verdict(mutant, {}, TEST, (str(error),))
    problems = [
        problem
        for backend in BACKENDS
        for problem in compared(backend, expected(mutant, backend), found[backend])
    ]
    return Verdict(mutant, found, TEST, tuple(problems))


def _has_result(cell: Cell) -> bool:
    return cell.status in ("exact", "differs")


def _is_red(cell: Cell) -> bool:
    return cell.status == "differs"


def _generate(out: Path) -> None:
    """Write the GLSL of the pieces, of which only kernels with float buffers are to be built."""
    done = subprocess.run(
        [sys.executable, "-m", "tools.codegen", "--out", str(out)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise WorkerError(f"tools.codegen: {done.stderr}")
    for file in out.glob("*.yaml"):
        text = file.read_text(encoding="utf-8")
        for value in ("texture3d", "half"):
            text = text.replace(f"      - VALUE: {value}\n", "")
        file.write_text(text, encoding="utf-8")
