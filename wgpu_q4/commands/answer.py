"""What all commands share: their answers, wrong arguments, and the options about an adapter."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Answer:
    """What a command has found or done.

    Attributes:
        document: of ``--json``, as the command's help describes it.
        text: for people; empty if the command said everything while it ran.
        status: the exit status.
    """

    document: Mapping[str, Any]
    text: str = ""
    status: int = 0


class UsageError(Exception):
    """Arguments that name nothing, or do not go together; the message says which would do."""


def add_adapter_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose an adapter."""
    parser.add_argument(
        "--adapter", metavar="TEXT", help="part of an adapter's name, as in WGPU_Q4_ADAPTER"
    )
    parser.add_argument(
        "--implementation",
        metavar="NAME",
        help="wgpu or wgpudawn, as in WGPU_Q4_IMPLEMENTATION",
    )
