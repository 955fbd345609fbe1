"""The directive ``command-help``: the help of ``wgpu-q4`` or of one of its commands, as it is.

```{command-help} pack
```
"""

from __future__ import annotations

import io
import os
from contextlib import redirect_stdout
from typing import Any
from unittest.mock import patch

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from wgpu_q4.cli import main

_COLUMNS = "80"


def help_of(command: str = "") -> str:
    """Return what ``wgpu-q4 COMMAND --help`` prints in a terminal of 80 columns.

    Args:
        command: its name; empty for ``wgpu-q4`` itself.

    Raises:
        ValueError: there is no command of this name.
    """
    said = io.StringIO()
    with patch.dict(os.environ, COLUMNS=_COLUMNS, NO_COLOR="1"), redirect_stdout(said):
        try:
            main([command, "--help"] if command else ["--help"])
        except SystemExit as end:
            if end.code:
                raise ValueError(f"wgpu-q4 has no command {command!r}") from None
    return said.getvalue()


class CommandHelp(SphinxDirective):
    """Show the help of the command that the argument names, or of ``wgpu-q4`` itself."""

    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return the help as a block of text."""
        text = help_of(*self.arguments)
        return [nodes.literal_block(text, text, language="none")]


def setup(app: Any) -> dict[str, Any]:
    """Register the directive with Sphinx."""
    app.add_directive("command-help", CommandHelp)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
