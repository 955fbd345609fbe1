"""List what an ExecuTorch program (.pte) holds, and which of its ops share which bytes."""

from __future__ import annotations

import argparse

from wgpu_q4.pte import inspect_pte

HELP = "list what an ExecuTorch program (.pte) holds, and what it shares"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("path", metavar="model.pte")
    parser.add_argument("--json", action="store_true", help="print a JSON object")


def run(options: argparse.Namespace) -> int:
    """Print the report."""
    report = inspect_pte(options.path)
    print(report.to_json() if options.json else report)
    return 0
