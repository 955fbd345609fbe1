"""Compare what this adapter and its driver compute with the float64 reference.

Embeddings and packed blocks must agree bit for bit; products must be within their derived bounds.
This takes less than a minute on most machines.
"""

from __future__ import annotations

import argparse
import json
import sys

from wgpu_q4.check.checks import all_checks
from wgpu_q4.check.runner import run as run_checks
from wgpu_q4.commands.progress import progress

HELP = "compare what this adapter computes with the float64 reference"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("--adapter", help="part of an adapter's name, as in WGPU_Q4_ADAPTER")
    parser.add_argument("--implementation", help="wgpu or wgpudawn, as in WGPU_Q4_IMPLEMENTATION")
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="checks with TEXT in their title"
    )
    parser.add_argument("--json", action="store_true", help="print a JSON object")


def run(options: argparse.Namespace) -> int:
    """Run the checks and print the report."""
    total = len(all_checks(options.only))
    if not total:
        print(f"wgpu-q4: no check has {options.only!r} in its title", file=sys.stderr)
        return 2
    with progress(total) as shown:
        report = run_checks(options.only, options.adapter, options.implementation, shown.begin)
    print(json.dumps(report.to_json(), indent=1) if options.json else report)
    return 0 if report.agrees else 1
