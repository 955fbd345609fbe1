"""The help of ``wgpu-q4``'s commands, as a reader has it."""

from __future__ import annotations

import re

from wgpu_q4.cli import build_parser
from wgpu_q4.commands.completion import arguments_of


def helps() -> dict[str, str]:
    """Return the help of each command by its name."""
    commands = next(a.choices for a in arguments_of(build_parser()) if isinstance(a.choices, dict))
    return {name: parser.format_help() for name, parser in commands.items()}


def keys_of_json(command: str, other_case: str = " ") -> set[str]:
    """Return the keys that a command's help says ``--json`` prints.

    Args:
        command: its name.
        other_case: the beginning of the line above keys of which this run has none.
    """
    section = re.search(r"^--json prints:\n((?:(?!exit status:).*\n)+)", helps()[command], re.M)
    assert section is not None
    keys, counted = set(), True
    for line in section[1].splitlines():
        if line[:1].isalpha():
            counted = not line.startswith(other_case)
        found = re.match(r"  (\w+(?:, \w+)*),?(?:  |$)", line)
        if found and counted:
            keys |= set(found[1].split(", "))
    return keys
