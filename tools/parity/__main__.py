"""``python -m tools.parity``: compare every backend on every case."""

import sys

from tools.parity.command import main

if __name__ == "__main__":
    sys.exit(main())
