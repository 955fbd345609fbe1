"""Cases × backends, each backend in a worker process."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

from tools.codegen.shaders import executorch_shaders
from tools.parity.backends import package_versions
from tools.parity.result import Cell, Column, Result
from tools.vulkan.drivers import find_driver
from wgpu_q4.check.cases import Case
from wgpu_q4.check.process import ProcessError, answers
from wgpu_q4.errors import DeviceError

_MOST_CRASHES = 8
_SECONDS_FOR_A_CASE = 600


def run(
    cases: Sequence[Case],
    names: Sequence[str],
    left_out: Mapping[str, str] | None = None,
    *,
    glsl: Path | None = None,
    glsl_dir: Path | None = None,
    progress: Callable[[str], None] = lambda name: None,
    jobs: int = 2,
) -> Result:
    """Return what every backend makes of every case.

    Args:
        cases: the rows.
        names: the backends, as `choose_backends` returns them.
        left_out: backends that do not run, and why, for the report.
        glsl: the folder of the GLSL for ``vulkan/…``; by default this package's.
        glsl_dir: the folder of the GLSL for ``glsl-dir/…``.
        progress: called with a backend's name after each of its cases, from any thread.
        jobs: the number of workers at a time.
    """
    columns = [Column(name, [Cell() for _ in cases]) for name in names]
    with tempfile.TemporaryDirectory(prefix="wgpu_q4_parity_") as scratch:
        folders = {"vulkan": glsl or generated_folder(), "glsl-dir": glsl_dir}
        building = threading.Lock()

        @cache
        def kernels(kind: str) -> dict[str, str]:
            return _build(folders[kind], Path(scratch) / kind) if kind in folders else {}

        def fill(column: Column) -> None:
            try:
                environment = _worker_environment(column.name)
                with building:
                    built = kernels(column.name.partition("/")[0])
            except DeviceError as error:
                column.problem = str(error)
            except (OSError, RuntimeError, ImportError) as error:
                column.problem = f"its kernels do not build: {error}"
            else:
                _fill(column, cases, built, environment, lambda: progress(column.name))

        with ThreadPoolExecutor(max(1, jobs)) as pool:
            list(pool.map(fill, columns))
    return Result(list(cases), columns, dict(left_out or {}), package_versions())


def generated_folder() -> Path:
    """Return the folder ``vulkan_glsl/`` of the checkout."""
    return Path(__file__).resolve().parents[2] / "vulkan_glsl"


def _build(folder: Path | None, out: Path) -> dict[str, str]:
    from tools.codegen import build

    if folder is None:
        raise FileNotFoundError("no folder of GLSL is given: use --glsl-dir")
    built = {name: str(path) for name, path in build(folder, out).items()}
    known = {shader.name for shader in executorch_shaders()}
    if not known & built.keys():
        found = ", ".join(sorted(built)[:3]) or "none"
        raise FileNotFoundError(
            f"{folder} has none of the kernels {sorted(known)[0]} and so on; its kernels: {found}"
        )
    return built


def _worker_environment(name: str) -> dict[str, str]:
    kind, _, driver = name.partition("/")
    environment = dict(os.environ)
    # What chooses an adapter for the user's own calls must not choose one here.
    for variable in ("WGPU_Q4_ADAPTER", "WGPU_Q4_IMPLEMENTATION"):
        environment.pop(variable, None)
    # A browser brings its own drivers.
    if driver and kind != "chromium":
        environment |= find_driver(driver).environment
    return environment


def _fill(
    column: Column,
    cases: Sequence[Case],
    kernels: Mapping[str, str],
    environment: Mapping[str, str],
    progress: Callable[[], None],
) -> None:
    """Run the cases in a worker; if one of them ends the worker, the rest in another."""
    for _ in range(_MOST_CRASHES):
        done = sum(cell.status != "not run" for cell in column.cells)
        request = {
            "backend": column.name,
            "kernels": dict(kernels),
            "cases": [case.to_json() for case in cases[done:]],
        }
        try:
            _listen(column, request, environment, progress)
        except ProcessError as error:
            answered = sum(cell.status != "not run" for cell in column.cells)
            if not column.summary or answered == len(cases):
                column.problem = str(error)
                return
            column.cells[answered].status, column.cells[answered].remark = "error", str(error)
            progress()
        else:
            return
    column.problem = f"its process crashed {_MOST_CRASHES} times"


def _listen(
    column: Column,
    request: Mapping[str, object],
    environment: Mapping[str, str],
    progress: Callable[[], None],
) -> None:
    """Fill the cells that are not run yet with the answers of one worker."""
    waiting = iter([cell for cell in column.cells if cell.status == "not run"])
    for answer in answers(
        "tools.parity.worker", request, seconds=_SECONDS_FOR_A_CASE, environment=environment
    ):
        if "absent" in answer:
            column.problem = answer["absent"]
        elif "summary" in answer:
            column.summary, column.versions = answer["summary"], answer["versions"]
        elif "closed" in answer:
            column.problem = answer["closed"]
        else:
            vars(next(waiting)).update(answer)
            progress()
