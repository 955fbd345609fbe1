"""List what an ExecuTorch program (.pte) holds, and what it shares.

Examples:
  wgpu-q4 inspect model.pte
  wgpu-q4 inspect model.pte --json | jq .bytes_saved

--json prints:
  path, nbytes    the file, and its size
  methods, operators, delegates
                  the methods, the ops outside of delegates, and each delegate with its ops
  blobs           the named data, the largest first: keys, nbytes, sha256, users, bytes_saved
  constant_bytes  of constants outside of delegates
  device          what each runtime holds on the device, for a program of the Vulkan delegate
  bytes_saved     by sharing, against a copy of each blob for each of its users
"""

from __future__ import annotations

import argparse
import json

from wgpu_q4.commands.answer import Answer
from wgpu_q4.pte import inspect_pte


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("path", metavar="MODEL.pte", help="the program")


def run(options: argparse.Namespace) -> Answer:
    """Return the report."""
    report = inspect_pte(options.path)
    return Answer(json.loads(report.to_json()), str(report))
