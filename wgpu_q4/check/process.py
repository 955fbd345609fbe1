"""A Python module in a process of its own, which answers with one JSON object a line.

A kernel may crash or hang a driver, and takes its process with it.  The caller then knows by the
answers so far which one was due.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any


class ProcessError(RuntimeError):
    """The process did not end well; the message says how it ended."""


def answers(
    module: str,
    request: Mapping[str, Any],
    *,
    seconds: float,
    environment: Mapping[str, str] | None = None,
) -> Iterator[dict[str, Any]]:
    """Start ``python -m module``, hand it a request, and yield its answers as they come.

    Args:
        module: a module that calls `serve`.
        request: what JSON can hold.
        seconds: how long the process may take for an answer.
        environment: the variables of the process, by default those of this one.

    Raises:
        ProcessError: the process ended with another status than 0, or took too long.
    """
    variables = dict(os.environ if environment is None else environment)
    # The process imports this very package, wherever it was imported from.
    variables["PYTHONPATH"] = os.pathsep.join(path or os.getcwd() for path in sys.path)
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as complaints,
        subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
            encoding="utf-8",
            env=variables,
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        answered, ended, late = (threading.Event() for _ in range(3))

        def watch() -> None:
            while answered.wait(seconds):
                answered.clear()
                if ended.is_set():
                    return
            late.set()
            process.kill()

        threading.Thread(target=watch, daemon=True).start()
        try:
            with suppress(BrokenPipeError):  # its exit status says why it is gone
                process.stdin.write(json.dumps(request))
                process.stdin.close()
            for line in process.stdout:
                answered.set()
                yield json.loads(line)
            status = process.wait()
        finally:
            ended.set()
            answered.set()
            process.kill()  # nothing happens to a process that has ended
        if status:
            complaints.seek(0)
            last = complaints.read().strip().splitlines()[-1:] or [""]
            reason = "took too long" if late.is_set() else f"ended with status {status}"
            raise ProcessError(f"its process {reason}. {last[0]}".strip())


def serve() -> tuple[dict[str, Any], Callable[..., None]]:
    """Return the request that this process was handed, and a function that answers.

    The function takes the fields of an answer.  What libraries print to standard output goes to
    standard error.
    """
    stream = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(**fields: Any) -> None:
        stream.write(json.dumps(fields) + "\n")
        stream.flush()

    return json.load(sys.stdin), say
