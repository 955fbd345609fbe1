"""The command ``wgpu-q4``: parse the arguments, run a sub-command, turn errors into an exit status.

The sub-commands are the modules of `wgpu_q4.commands`.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from wgpu_q4 import __version__
from wgpu_q4.commands import bench, check, info, inspect, kernel, pack, web
from wgpu_q4.errors import DeviceError, FormatError

EXIT_STATUS = (
    "Exit status: 0 if all is well; 1 if something was found wrong or failed; 2 for wrong "
    "arguments, or if something is missing (a file, an adapter, a package)."
)

_COMMANDS = {
    "info": info,
    "pack": pack,
    "inspect": inspect,
    "kernel": kernel,
    "bench": bench,
    "check": check,
    "web": web,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``wgpu-q4`` with these arguments (by default those of the process).

    Returns:
        The exit status; see `EXIT_STATUS`.
    """
    parser = argparse.ArgumentParser(
        prog="wgpu-q4",
        description="A tied embedding and output matrix, once, in 4 bits, on any GPU.",
        epilog=EXIT_STATUS,
    )
    parser.add_argument("--version", action="version", version=f"wgpu-q4 {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, command in _COMMANDS.items():
        added = commands.add_parser(
            name, help=command.HELP, description=command.__doc__, epilog=EXIT_STATUS
        )
        command.add_arguments(added)
        added.set_defaults(run=command.run)
    options = parser.parse_args(arguments)
    try:
        status: int = options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads has seen enough, as `head` has
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        return 0
    except FormatError as error:
        return _fail(error, 1)
    except (DeviceError, ImportError, OSError) as error:
        return _fail(error, 2)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    return status


def _fail(error: object, status: int) -> int:
    print(f"wgpu-q4: {error}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
