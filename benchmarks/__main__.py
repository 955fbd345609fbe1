"""``python -m benchmarks``: measure the kernels on an adapter, beside other libraries."""

from __future__ import annotations

import argparse
import sys

from tools.bench import command


def main(arguments: list[str] | None = None) -> int:
    """Measure; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure the kernels on an adapter, beside others."
    )
    command.add_arguments(parser)
    return command.run(parser.parse_args(arguments), "python -m benchmarks")


if __name__ == "__main__":
    sys.exit(main())
