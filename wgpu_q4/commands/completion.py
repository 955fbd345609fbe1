"""Print a script that completes these commands in a shell.

It completes commands, options, their values, the names of kernels, and files by their endings.

Examples:
  bash         source <(wgpu-q4 completion bash)                in ~/.bashrc
  zsh          wgpu-q4 completion zsh > ~/.zfunc/_wgpu-q4        a folder of $fpath
  fish         wgpu-q4 completion fish > ~/.config/fish/completions/wgpu-q4.fish
  tcsh         wgpu-q4 completion tcsh > ~/.wgpu-q4.csh          and source it in ~/.tcshrc
  powershell   wgpu-q4 completion powershell > wgpu-q4.ps1       and dot-source it in $PROFILE

--json prints:
  shell        the name of the shell
  script       the text of the script
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from wgpu_q4.commands.answer import Answer

GLOBS = {
    "CHECKPOINT": ("*.safetensors", "*.gguf"),
    "FILE": ("*.safetensors", "*.gguf"),
    "MODEL": ("*.gguf",),
    "MODEL.pte": ("*.pte",),
    "OUT.safetensors": ("*.safetensors",),
    "TOKENIZER.json": ("*.json",),
}
"""The files that complete an argument, by what the help calls it; folders always do."""

_KERNELS = "wgpu-q4 kernel 2>/dev/null | cut -d ' ' -f 1"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("shell", choices=("bash", "zsh", "fish", "tcsh", "powershell"))


def run(options: argparse.Namespace) -> Answer:
    """Return the script.

    Raises:
        ImportError: shtab is not installed, or too old for the shell.
    """
    try:
        import shtab
    except ImportError as error:
        raise ImportError("completion needs shtab: pip install 'wgpu_q4[completion]'") from error
    if options.shell not in shtab.SUPPORTED_SHELLS:
        raise ImportError(f"this shtab does not know {options.shell}: pip install -U shtab")
    from wgpu_q4.cli import build_parser

    parser = build_parser()
    known = {name: shtab.glob(*globs) for name, globs in GLOBS.items()}
    known |= {"DIR": shtab.DIRECTORY, "KERNEL": shtab.cmd(_KERNELS)}
    for action in arguments_of(parser):
        if action.metavar in known:
            action.complete = known[action.metavar]  # type: ignore[attr-defined]
    script = shtab.complete(parser, options.shell)
    return Answer({"shell": options.shell, "script": script}, script)


def arguments_of(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Yield the arguments of a parser and of its sub-parsers."""
    for action in parser._actions:
        yield action
        if isinstance(action.choices, dict):
            for command in action.choices.values():
                yield from arguments_of(command)
