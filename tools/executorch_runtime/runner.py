"""One run of ``executor_runner``, by the options that a stock build of ExecuTorch has."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray


class RunFailure(Exception):
    """The executable did not give the results; the message says how it ended, and what it said."""


def run(
    executable: Path, program: Path, inputs: Sequence[NDArray[Any]], outputs: int, timeout: float
) -> list[bytes]:
    """Run a program once.

    Args:
        executable: ``executor_runner``.
        program: the ``.pte``; files are written beside it.
        inputs: at the largest sizes of the program.
        outputs: how many tensors the program returns.
        timeout: in seconds.

    Returns:
        The bytes of each output.

    Raises:
        RunFailure: the executable failed, was killed, took too long, or wrote no outputs.
    """
    folder = program.parent
    files = [folder / f"input{number}.bin" for number in range(len(inputs))]
    for file, array in zip(files, inputs, strict=True):
        array.tofile(file)
    base = folder / "output"
    command = [
        str(executable),
        f"--model_path={program}",
        f"--inputs={','.join(map(str, files))}",
        f"--output_file={base}",
    ]
    try:
        ended = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=timeout
        )
    except subprocess.TimeoutExpired as error:
        raise RunFailure(f"it took longer than {timeout:g} s") from error
    except OSError as error:
        raise RunFailure(f"it cannot be started: {error}") from error
    if ended.returncode:
        raise RunFailure(f"{_how_it_ended(ended.returncode)}: {_what_it_said(ended)}")
    results = [folder / f"{base.name}-{number}.bin" for number in range(outputs)]
    missing = [file.name for file in results if not file.exists()]
    if missing:
        raise RunFailure(f"it did not write {', '.join(missing)}: {_what_it_said(ended)}")
    return [file.read_bytes() for file in results]


def _how_it_ended(status: int) -> str:
    if status < 0:
        return f"killed by {signal.Signals(-status).name}"
    return f"exit status {status}"


def _what_it_said(ended: subprocess.CompletedProcess[str]) -> str:
    """Return the line that most likely names the error.

    ExecuTorch's log marks errors with a leading E, the cause first; an abort says ``what()``.
    """
    lines = [line.strip() for line in (ended.stderr + ended.stdout).splitlines() if line.strip()]
    causes = [line for line in lines if line.startswith("E ") or "what()" in line]
    return (causes[:1] or lines[-1:] or ["it said nothing"])[0][:300]
