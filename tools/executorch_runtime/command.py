"""``python -m tools.executorch_runtime``: its options, its table, its exit status."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tools.executorch_runtime.cases import CASES, LARGE, Case

MISSING = """\
executorch-runtime needs ExecuTorch's executor_runner, and has {what}.
The Python package of ExecuTorch has no GPU runtime. Build one from ExecuTorch's source, with
EXECUTORCH_BUILD_EXECUTOR_RUNNER and EXECUTORCH_BUILD_VULKAN or EXECUTORCH_BUILD_WEBGPU set to ON,
and run
    make executorch-runtime RUNNER=path/to/executor_runner"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        The exit status: 0 if every shared program gave the right results, 1 if one did not, 2 if
        the runner is missing or no case was chosen.
    """
    parser = argparse.ArgumentParser(
        prog="python -m tools.executorch_runtime",
        description="Run exported programs with a build of ExecuTorch, and compare the results.",
    )
    parser.add_argument("--runner", default="", metavar="FILE", help="its executor_runner")
    parser.add_argument(
        "--runtime",
        choices=("vulkan", "webgpu"),
        default="vulkan",
        help="the backend that the runner was built with; default vulkan",
    )
    parser.add_argument("--only", default="", metavar="TEXT", help="cases with TEXT in their name")
    parser.add_argument("--large", action="store_true", help="add SmolLM2's and Llama's shapes")
    parser.add_argument("--timeout", type=float, default=300, metavar="S", help="for a run")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep the programs in this folder")
    options = parser.parse_args(arguments)
    found = shutil.which(options.runner) if options.runner else None
    if found is None:
        what = f"nothing that can be run at {options.runner!r}" if options.runner else "none"
        print(MISSING.format(what=what), file=sys.stderr)
        return 2
    runner = Path(found).resolve()
    cases = [case for case in CASES + LARGE * options.large if options.only in str(case)]
    if not cases:
        print(f"no case has {options.only!r} in its name", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        wrong = [
            case
            for number, case in enumerate(cases)
            if not _try(case, runner, folder / f"{number:02}", options.runtime, options.timeout)
        ]
    print(f"{len(cases)} programs, {len(wrong)} wrong")
    return int(bool(wrong))


def _try(case: Case, runner: Path, folder: Path, runtime: str, timeout: float) -> bool:
    """Export and run a case, print a line, and return whether a shared program went wrong."""
    from tools.executorch_runtime.export import export
    from tools.executorch_runtime.runner import RunFailure, run
    from tools.executorch_runtime.verdict import judge
    from wgpu_q4 import ExportError

    os.makedirs(folder, exist_ok=True)
    try:
        exported = export(case, folder, runtime)  # type: ignore[arg-type]
    except ExportError as error:
        print(f"refused  {case}: {error}", flush=True)
        return True
    target = "webgpu" if runtime == "webgpu" else "vulkan>=1.4"
    size = f"file {exported.nbytes:,}, constants on the device {exported.constants[target]:,}"
    try:
        outputs = run(runner, exported.file, [exported.ids], 2, timeout)
    except RunFailure as error:
        right, said = False, str(error)
    else:
        verdict = judge(exported, outputs)
        right, said = verdict.right, f"rows {verdict.rows}; logits {verdict.logits}"
    word = "right" if right else ("WRONG" if case.shared else "(wrong)")
    print(f"{word:<8} {case}: {said}; {size}", flush=True)
    return right or not case.shared
