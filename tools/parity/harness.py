"""Cases × backends, each backend in a worker process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from tools.codegen.shaders import executorch_shaders
from tools.parity.backends import package_versions
from tools.parity.cases import Case
from tools.vulkan.drivers import find_driver, list_drivers
from wgpu_q4.errors import DeviceError

REQUIRED = (
    "numpy",
    "executorch",
    "wgpu/lavapipe",
    "wgpu/swiftshader",
    "wgpudawn/swiftshader",
    "vulkan/lavapipe",
    "vulkan/swiftshader",
    "chromium/swiftshader",
)
"""The backends that every run has, unless they are left out by name."""

_KINDS = ("wgpu", "wgpudawn", "vulkan")
_ALL_KINDS = ("numpy", "executorch", *_KINDS, "glsl-dir", "chromium")
_MOST_CRASHES = 8
_SECONDS_FOR_A_CASE = 600


@dataclass
class Cell:
    """What one backend made of one case.

    Attributes:
        status: ``exact``, ``excused`` (see `excuses`), ``differs``, ``error``, ``not applicable``
            or ``not run``.
        ulp: the largest error in units in the last place, where there is a result.
        differing: how many of the values differ.
        values: how many there are.
        seconds: taken by the backend, its preparations included.
        excuses: the names of the excuses that it needed.
        remark: the first difference, an error's text, or why it does not apply.
    """

    status: str = "not run"
    ulp: int = 0
    differing: int = 0
    values: int = 0
    seconds: float = 0.0
    excuses: list[str] = field(default_factory=list)
    remark: str = ""

    @property
    def failed(self) -> bool:
        """Whether the run fails by this."""
        return self.status in ("differs", "error", "not run")


@dataclass
class Column:
    """One backend: who it was, and a cell for each case.

    Attributes:
        name: as given on the command line.
        summary: what ran on which adapter; empty if it is absent.
        versions: of its packages.
        problem: why it is absent, or what went wrong besides the cases.
        cells: in the order of the cases.
    """

    name: str
    cells: list[Cell]
    summary: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    problem: str = ""

    @property
    def failed(self) -> bool:
        """Whether the run fails by this backend."""
        return bool(self.problem) or any(cell.failed for cell in self.cells)

    def count(self, status: str) -> int:
        """How many cases ended in ``status``."""
        return sum(cell.status == status for cell in self.cells)


@dataclass
class Result:
    """A whole run.

    Attributes:
        cases: the rows.
        columns: the backends.
        left_out: backends that did not run, and why.
        versions: of Python, this package and the system.
    """

    cases: list[Case]
    columns: list[Column]
    left_out: dict[str, str]
    versions: dict[str, str]

    @property
    def failed(self) -> bool:
        """Whether any backend is absent, wrong or broken."""
        return not self.cases or not self.columns or any(item.failed for item in self.columns)


def choose_backends(
    only: Sequence[str] = (), without: Sequence[str] = (), glsl_dir: Path | None = None
) -> tuple[list[str], dict[str, str]]:
    """Which backends run.

    By default those that every machine must have, and those on each GPU that has a Vulkan driver.

    Args:
        only: these and no others; ``vulkan`` stands for ``vulkan/`` on every driver.
        without: all but these.
        glsl_dir: also the kernels of a GLSL folder, as ``glsl-dir/`` on every driver.

    Returns:
        The names, and those left out with the reason.

    Raises:
        ValueError: a name that no backend has.
    """
    left_out = {
        "wgpudawn/lavapipe": "Dawn refuses Mesa's CPU driver of Debian 12: it lacks a feature"
    }
    names = list(REQUIRED)
    for driver in list_drivers():
        if driver.is_software:
            continue
        if _has_device(driver.name):
            names += [f"{kind}/{driver.name}" for kind in _KINDS]
        else:
            left_out[f"*/{driver.name}"] = "the driver is installed, its hardware is not here"
    if glsl_dir is not None:
        names += [
            name.replace("vulkan/", "glsl-dir/") for name in names if name.startswith("vulkan/")
        ]
    for pattern in (*only, *without):
        # A name may be of a backend that is not here; it then fails, unless it is left out.
        kind, slash, _ = pattern.partition("/")
        if kind not in _ALL_KINDS or (slash and kind in ("numpy", "executorch")):
            raise ValueError(f"no backend is called {pattern!r}; there are: {', '.join(names)}")
        if kind == "glsl-dir" and glsl_dir is None:
            raise ValueError(f"{pattern!r} needs a folder of GLSL: use --glsl-dir")
    if only:
        chosen = [name for name in names if _matches(name, only)]
        chosen += [name for name in only if "/" in name and name not in chosen]
        left_out |= {name: "not among those of --only" for name in names if name not in chosen}
        names = chosen
    left_out |= {name: "left out by name" for name in names if _matches(name, without)}
    return [name for name in names if not _matches(name, without)], left_out


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
    """Run every case on every backend.

    Args:
        cases: the rows.
        names: the backends, as `choose_backends` gives them.
        left_out: those that do not run, and why, for the report.
        glsl: the folder of the GLSL for ``vulkan/…``; by default this package's.
        glsl_dir: the folder of the GLSL for ``glsl-dir/…``.
        progress: called with a backend's name after each of its cases, from any thread.
        jobs: workers at a time.
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


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(name == pattern or name.partition("/")[0] == pattern for pattern in patterns)


@cache
def _has_device(driver: str) -> bool:
    """Asked in a process of its own: some drivers end the one that loads them without hardware."""
    script = (
        "import sys; from tools.vulkan import Device; Device(sys.argv[1]).close(); print('yes')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, driver], capture_output=True, text=True, timeout=60
    )
    return done.stdout.strip() == "yes"


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
    environment: dict[str, str],
    progress: Callable[[], None],
) -> None:
    """Run the cases in a worker; if one of them ends it, the rest in another."""
    # Absolute: the worker must import this very package, from wherever it is started.
    package_parent = str(Path(__file__).resolve().parents[2])
    environment["PYTHONPATH"] = os.pathsep.join(
        filter(None, (package_parent, environment.get("PYTHONPATH")))
    )
    crashes = 0
    while True:
        done = sum(cell.status != "not run" for cell in column.cells)
        request = {
            "backend": column.name,
            "kernels": dict(kernels),
            "cases": [case.to_json() for case in cases[done:]],
        }
        crash = _work(column, request, column.cells[done:], environment, progress)
        if not crash:
            return
        crashes += 1
        answered = sum(cell.status != "not run" for cell in column.cells)
        if not column.summary or answered == len(cases) or crashes == _MOST_CRASHES:
            column.problem = crash
            return
        column.cells[answered].status, column.cells[answered].remark = "error", crash
        progress()


def _work(
    column: Column,
    request: Mapping[str, Any],
    cells: Sequence[Cell],
    environment: Mapping[str, str],
    progress: Callable[[], None],
) -> str:
    """One worker; returns how it ended, empty if well."""
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as complaints,
        subprocess.Popen(
            [sys.executable, "-m", "tools.parity.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
            env=environment,
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        watchdog = _Watchdog(process)
        try:
            # If it dies before it has read all, its exit status says so below.
            with suppress(BrokenPipeError):
                process.stdin.write(json.dumps(request))
                process.stdin.close()
            _listen(column, process.stdout, cells, progress, watchdog)
        finally:
            watchdog.stop()
        status = process.wait()
        if not status:
            return ""
        complaints.seek(0)
        last = complaints.read().strip().splitlines()[-1:] or [""]
        reason = "took too long" if watchdog.fired else f"ended with status {status}"
        return f"its process {reason}. {last[0]}".strip()


def _listen(
    column: Column,
    answers: Iterable[str],
    cells: Iterable[Cell],
    progress: Callable[[], None],
    watchdog: _Watchdog,
) -> None:
    waiting = iter(cells)
    for line in answers:
        watchdog.reset()
        answer: dict[str, Any] = json.loads(line)
        if "absent" in answer:
            column.problem = answer["absent"]
        elif "summary" in answer:
            column.summary, column.versions = answer["summary"], answer["versions"]
        elif "closed" in answer:
            column.problem = answer["closed"]
        else:
            vars(next(waiting)).update(answer)
            progress()


class _Watchdog:
    """Ends a process that says nothing for too long."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.fired = False
        self._process = process
        self._timer: threading.Timer | None = None
        self.reset()

    def reset(self) -> None:
        self.stop()
        self._timer = threading.Timer(_SECONDS_FOR_A_CASE, self._fire)
        self._timer.daemon = True
        self._timer.start()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _fire(self) -> None:
        self.fired = True
        self._process.kill()
