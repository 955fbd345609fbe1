"""The command ``wgpu-q4``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from wgpu_q4 import __version__
from wgpu_q4.errors import DeviceError, FormatError


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="wgpu-q4",
        description="A tied embedding and output matrix, once, in 4 bits, on any GPU.",
    )
    parser.add_argument("--version", action="version", version=f"wgpu-q4 {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    info = commands.add_parser(
        "info", help="list WebGPU implementations and adapters, and what will be used of them"
    )
    info.add_argument("--adapter", help="part of an adapter's name, as in WGPU_Q4_ADAPTER")
    info.add_argument("--implementation", help="wgpu or wgpudawn, as in WGPU_Q4_IMPLEMENTATION")
    info.add_argument("--all", action="store_true", help="every limit and feature")
    inspect = commands.add_parser(
        "inspect", help="list what an ExecuTorch program (.pte) holds, and what it shares"
    )
    inspect.add_argument("path", metavar="model.pte")
    inspect.add_argument("--json", action="store_true", help="as a JSON object")
    chosen = parser.parse_args(arguments)
    if chosen.command == "inspect":
        return _inspect(chosen.path, as_json=chosen.json)
    return _info(chosen)


def _info(chosen: argparse.Namespace) -> int:
    from wgpu_q4.device.report import print_report

    try:
        print_report(chosen.adapter, chosen.implementation, everything=chosen.all)
    except DeviceError as error:
        print(f"wgpu-q4: {error}", file=sys.stderr)
        return 1
    return 0


def _inspect(path: str, *, as_json: bool) -> int:
    try:
        from wgpu_q4.executorch import inspect_pte

        report = inspect_pte(path)
    except (FormatError, ImportError, OSError) as error:
        print(f"wgpu-q4: {error}", file=sys.stderr)
        return 1
    print(report.to_json() if as_json else report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
