"""The command ``wgpu-q4``: parse the arguments, run a sub-command, turn errors into an exit status.

The sub-commands are the modules of `wgpu_q4.commands`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from types import ModuleType

from wgpu_q4 import __version__
from wgpu_q4.commands import bench, check, completion, info, inspect, kernel, pack, web
from wgpu_q4.commands.answer import Answer, UsageError
from wgpu_q4.errors import DeviceError, FormatError
from wgpu_q4.foreign import UnknownTensorError

EXIT_STATUS = """\
exit status:
  0    all is well; a reader that closes the pipe, as head does, is no error
  1    the answer is bad: a check differs, a file is damaged, a matrix does not fit
  2    no answer: wrong arguments, or a file, an adapter or a package is missing or fails
  130  Control-C"""

GROUPS: dict[str, tuple[ModuleType, ...]] = {
    "your machine": (info, check, bench),
    "models and files": (pack, inspect),
    "your own code": (kernel, web),
    "your shell": (completion,),
}
"""The commands, in the order of the help."""


class _Overview(argparse.ArgumentParser):
    """The parser of the whole command, whose help shows the commands in groups."""

    def format_help(self) -> str:
        """Return the help."""
        lines = ["usage: wgpu-q4 COMMAND … [--json]", "", str(self.description)]
        for title, modules in GROUPS.items():
            lines += ["", f"{title}:"]
            lines += [f"  {_name(module):12}{_summary(module)}" for module in modules]
        return "\n".join([*lines, "", str(self.epilog), ""])


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command; its sub-parsers have the help of each sub-command."""
    parser = _Overview(
        prog="wgpu-q4",
        description="A tied embedding and output matrix, once, in 4 bits, on any GPU.",
        epilog=f"wgpu-q4 COMMAND --help shows options, examples and the object of --json; "
        f"--version, the version.\n\n{EXIT_STATUS}",
    )
    parser.add_argument("--version", action="version", version=f"wgpu-q4 {__version__}")
    commands = parser.add_subparsers(
        dest="command", metavar="COMMAND", required=True, parser_class=argparse.ArgumentParser
    )
    for module in [module for modules in GROUPS.values() for module in modules]:
        about, heading, rest = str(module.__doc__).partition("\nExamples:\n")
        added = commands.add_parser(
            _name(module),
            help=_summary(module),
            description=about,
            epilog=f"{heading.lower()}{rest}\n{EXIT_STATUS}".lstrip(),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(added)
        added.add_argument("--json", action="store_true", help="print one JSON object instead")
        added.set_defaults(run=module.run)
    return parser


def _name(module: ModuleType) -> str:
    return module.__name__.rpartition(".")[2]


def _summary(module: ModuleType) -> str:
    """Return the first line of a command's docstring, as a line of a list."""
    line = str(module.__doc__).partition("\n")[0].rstrip(".")
    return line[0].lower() + line[1:]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``wgpu-q4`` with these arguments (by default those of the process).

    Returns:
        The exit status; see `EXIT_STATUS`.
    """
    try:
        try:
            options = build_parser().parse_args(arguments)
            answer: Answer = options.run(options)
            text = json.dumps(answer.document, indent=1) if options.json else answer.text
            if text:
                print(text.removesuffix("\n"))
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # whoever reads has seen enough, as `head` has
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        return 0
    except (FormatError, UnknownTensorError) as error:
        return _fail(error, 1)
    except (UsageError, DeviceError, ImportError, OSError) as error:
        return _fail(error, 2)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    return answer.status


def _fail(error: object, status: int) -> int:
    print(f"wgpu-q4: {error}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
