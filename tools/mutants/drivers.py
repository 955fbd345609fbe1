"""Worker processes (`tools.mutants.worker`), one for each driver, that serve many requests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from tools.vulkan.drivers import find_driver

ROOT = Path(__file__).resolve().parents[2]


class WorkerError(RuntimeError):
    """A worker ended, or a kernel did not compile."""


@dataclass(frozen=True)
class Ran:
    """What came of one case: see `tools.mutants.worker`."""

    case: str
    red: bool
    defined: bool
    pieces: frozenset[str]


class Worker:
    """A process that runs cases through one implementation of WebGPU on one Vulkan driver."""

    def __init__(self, backend: str) -> None:
        """Start it.

        Args:
            backend: ``implementation/driver``, such as ``wgpudawn/swiftshader``.

        Raises:
            DeviceError: no such driver is installed.
        """
        implementation, _, driver = backend.partition("/")
        kept = {name: value for name, value in os.environ.items() if name != "WGPU_Q4_ADAPTER"}
        self.backend = backend
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tools.mutants.worker"],
            cwd=ROOT,
            env={
                **kept,
                **find_driver(driver).environment,
                "WGPU_Q4_IMPLEMENTATION": implementation,
                "PYTHONPATH": str(ROOT),
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.kill()  # Dawn may crash on its way out: nothing is left that matters
        self._process.communicate()

    def ask(self, folder: Path, cases: Iterable[str]) -> list[Ran]:
        """Run cases with the pieces in ``folder``; those that the device cannot run are left out.

        Raises:
            WorkerError: a kernel did not compile, or the process ended.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        request = {"folder": str(folder), "cases": list(cases)}
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise WorkerError(f"{self.backend}: the process ended with {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise WorkerError(f"{self.backend}: {answer['error']}")
        return [
            Ran(one["case"], one["red"], one["defined"], frozenset(one["pieces"]))
            for one in answer["ran"]
        ]
