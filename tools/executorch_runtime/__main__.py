"""``python -m tools.executorch_runtime``: run exported programs with a build of ExecuTorch."""

import sys

from tools.executorch_runtime.command import main

if __name__ == "__main__":
    sys.exit(main())
