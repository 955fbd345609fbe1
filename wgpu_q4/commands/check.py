"""Compare what this adapter computes with the float64 reference.

Embeddings and packed blocks must agree bit for bit; products must be within their derived bounds.
This takes less than a minute on most machines.

Examples:
  wgpu-q4 check
  wgpu-q4 check --implementation wgpudawn --only embedding
  wgpu-q4 check --json > report.json        to compare machines, or for a bug report

--json prints:
  agrees, verdict              whether nothing is wrong, and that as a sentence
  wgpu_q4, python, system      versions
  adapter, implementation      what was checked
  findings                     for each check: op, title, status (agrees, allowed, differs, failed,
                               not here), detail, share (of its bound, for a product), seconds
"""

from __future__ import annotations

import argparse

from wgpu_q4.check.checks import all_checks
from wgpu_q4.check.runner import run as run_checks
from wgpu_q4.commands.answer import Answer, UsageError, add_adapter_options
from wgpu_q4.commands.progress import progress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_adapter_options(parser)
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="checks with TEXT in their title"
    )


def run(options: argparse.Namespace) -> Answer:
    """Run the checks and return the report."""
    total = len(all_checks(options.only))
    if not total:
        raise UsageError(f"no check has {options.only!r} in its title")
    with progress(total, options.json) as shown:
        report = run_checks(options.only, options.adapter, options.implementation, shown.begin)
    return Answer(report.to_json(), str(report), 0 if report.agrees else 1)
