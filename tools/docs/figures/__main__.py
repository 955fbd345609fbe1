"""Draw the figures of the documentation: ``python -m tools.docs.figures``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tools.docs.figures import draw

FOLDER = Path(__file__).resolve().parents[3] / "docs" / "figures"


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.docs.figures", description=__doc__)
    parser.add_argument("--out", type=Path, metavar="DIR", default=FOLDER)
    for path in draw(parser.parse_args(arguments).out):
        print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
