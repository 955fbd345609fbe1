"""``python -m tools.pyodide --out DIR``: write a page on which Python runs with this package."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tools.pyodide.page import write


def main() -> int:
    """Write the folder, and say how to look at it."""
    parser = argparse.ArgumentParser(prog="python -m tools.pyodide", description=__doc__)
    folder = "a folder that is new, empty, or was written by this command"
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help=folder)
    local = "put Pyodide and numpy into the folder (17 MB), so that the page needs no CDN"
    parser.add_argument("--local", action="store_true", help=local)
    options = parser.parse_args()
    try:
        write(options.out, local=options.local)
    except OSError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"wrote {options.out}. Any web server will do; this one is Python's:")
    print(f"    python -m http.server --directory {options.out} 8000")
    print("and then open http://localhost:8000/ in Chrome, Edge, Firefox 153 or Safari 27.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
