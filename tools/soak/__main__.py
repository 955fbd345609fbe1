"""``python -m tools.soak``: run the stages, print a table, exit with 1 if one has a fault."""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm

from tools.soak import stages
from tools.soak.report import as_json, as_table, write_into
from tools.soak.work import OPS
from wgpu_q4 import SoftwareAdapterWarning, device_info


def main() -> int:
    """Parse the arguments and run the stages."""
    parser = argparse.ArgumentParser(prog="python -m tools.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="of the threads (%(default)s)")
    parser.add_argument("--calls", type=int, default=10_000, help="of each op (%(default)s)")
    parser.add_argument("--devices", type=int, default=200, help="in a row (%(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the outcome here")
    parser.add_argument("--write", type=Path, help="put the table into this document")
    options = parser.parse_args()
    warnings.simplefilter("ignore", SoftwareAdapterWarning)
    adapter = device_info().adapter
    outcomes = []
    for title, total, run in _stages(options):
        with tqdm(total=total, desc=title, disable=None) as bar:
            outcomes.append(run(lambda more, bar=bar: bar.update(more)))  # type: ignore[misc]
    table = as_table(outcomes, adapter)
    print(table)
    if options.json is not None:
        options.json.write_text(json.dumps(as_json(outcomes, adapter), indent=1) + "\n")
    faults = [fault for outcome in outcomes for fault in outcome.faults]
    for fault in faults:
        print(fault, file=sys.stderr)
    if options.write is not None and not faults:
        write_into(options.write, table)
    return bool(faults)


def _stages(
    options: argparse.Namespace,
) -> list[tuple[str, float | None, Callable[[stages.Report], stages.Outcome]]]:
    seed, calls = options.seed, options.calls
    return [
        ("threads", None, lambda report: stages.threads(options.seconds, report, seed)),
        (
            "calls",
            len(OPS) * calls,
            lambda report: stages.calls(calls, report, seed),
        ),
        ("devices", options.devices, lambda report: stages.devices(options.devices, report, seed)),
    ]


if __name__ == "__main__":
    if os.environ.get("MALLOC_ARENA_MAX") is None and sys.platform == "linux":
        # With a heap for each thread, the memory of a process says little about what it holds.
        os.environ["MALLOC_ARENA_MAX"] = "2"
        os.execv(sys.executable, [sys.executable, "-m", "tools.soak", *sys.argv[1:]])
    sys.exit(main())
