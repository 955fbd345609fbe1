"""``python -m benchmarks``: the same as ``wgpu-q4 bench``, in a checkout."""

from __future__ import annotations

import argparse
import sys

from tools.bench import command


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure the kernels on an adapter, beside others."
    )
    command.add_arguments(parser)
    return command.run(parser.parse_args(arguments), "python -m benchmarks")


if __name__ == "__main__":
    sys.exit(main())
