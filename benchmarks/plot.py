"""Draw committed figures: ``python -m benchmarks.plot benchmarks/results/*.json``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tools.bench.document import Document
from tools.bench.plots import draw


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plot", description=__doc__)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE.json")
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: beside each file")
    options = parser.parse_args(arguments)
    for file in options.files:
        try:
            document = Document.read(file)
        except (OSError, ValueError) as error:
            print(f"benchmarks.plot: {error}", file=sys.stderr)
            return 1
        for path in draw(document, options.out or file.parent, file.stem):
            print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
