"""``python -m tools.parity``: its options, its progress bar, its exit status."""

from __future__ import annotations

import argparse
import sys
import threading
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from tools.parity.random_cases import random_cases
from wgpu_q4.check.lists import corner_cases, upstream_cases
from wgpu_q4.commands.progress import progress


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        The exit status: 0 if every backend is there and right, 1 if not, 2 for wrong arguments or
        a missing package.
    """
    parser = argparse.ArgumentParser(
        prog="python -m tools.parity", description="Compare every backend on every case."
    )
    _add_arguments(parser)
    return _run(parser.parse_args(arguments))


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a report to look at")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write a report to compute with")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="BACKEND",
        help="only this backend, such as vulkan/lavapipe, or vulkan for every driver; repeatable",
    )
    parser.add_argument(
        "--without", action="append", default=[], metavar="BACKEND", help="not this one; repeatable"
    )
    parser.add_argument(
        "--glsl-dir",
        type=Path,
        metavar="DIR",
        help="also run the kernels of this folder, such as ExecuTorch's, as glsl-dir/DRIVER",
    )
    parser.add_argument(
        "--cases", metavar="TEXT", help="only cases with this text in their kernel or name"
    )
    parser.add_argument("--small", action="store_true", help="leave out the 128256×2048 matrices")
    parser.add_argument(
        "--random", type=_natural, default=0, metavar="N", help="add this many random cases"
    )
    parser.add_argument("--seed", type=_natural, default=0, help="of the random cases; default 0")
    parser.add_argument("--jobs", type=int, default=2, help="backends at a time; default 2")
    parser.add_argument("--all", action="store_true", help="print a line for every case")


def _run(options: argparse.Namespace) -> int:
    for module in ("vulkan", "executorch", "wgpudawn", "jinja2"):
        if find_spec(module) is None:
            return _refuse(f"the package {module} is missing: see CONTRIBUTING.md")
    from tools.parity import choice, harness, report

    for path in (options.html, options.json):
        if path is not None and path.is_dir():  # said before the run, not after it
            return _refuse(f"{path} is a directory; name a file for the report")
    cases = upstream_cases() + corner_cases() + random_cases(options.random, options.seed)
    if options.small:
        cases = [case for case in cases if not case.large]
    if options.cases:
        wanted = options.cases
        cases = [case for case in cases if wanted in case.kernel or wanted in case.name]
    if not cases:
        return _refuse(f"no case has {options.cases!r} in its name")
    try:
        names, left_out = choice.choose_backends(options.only, options.without, options.glsl_dir)
    except ValueError as error:
        return _refuse(str(error))
    lock = threading.Lock()
    with progress(len(cases) * len(names)) as shown:

        def step(name: str) -> None:
            with lock:
                shown.begin(name)

        result = harness.run(
            cases,
            names,
            left_out,
            glsl_dir=options.glsl_dir,
            progress=step,
            jobs=options.jobs,
        )
    print(report.text(result, options.all))
    for path, render in ((options.html, report.to_html), (options.json, report.to_json)):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(render(result), encoding="utf-8")
            print(f"wrote {path}")
    return int(result.failed)


def _natural(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{value} is negative")
    return value


def _refuse(why: str) -> int:
    print(f"python -m tools.parity: {why}", file=sys.stderr)
    return 2
