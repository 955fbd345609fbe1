"""``python -m tools.parity``: compare every backend on every case."""

from __future__ import annotations

import argparse
import sys

from tools.parity import command


def main() -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.parity", description=__doc__)
    command.add_arguments(parser)
    return command.run(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
