"""A mutant: one place of one piece of WGSL, and what must turn red when it is wrong.

The result of a mutant must be defined, or it would be caught on one day and survive on another:

* it writes each place of workgroup memory before it reads it, as the right kernel does;
* each index stays in range;
* no two invocations write different values to one place.

A result that it does not write is zero, because each case has a new device, and WebGPU clears new
buffers.  The runner checks the first rule: it runs every mutant twice, with workgroup memory filled
with different words, and the two results must have the same bits.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tools.mutants.place import PlaceError, replaced

Defined = Literal["value", "read", "unwritten"]
"""Why the result of a mutant is defined.

``value``: all reads and writes are those of the right kernel, and a value is wrong.
``read``: it reads another place, which lies in the same array and is written by then.
``unwritten``: it leaves some of its output unwritten; the rest is as above.
"""


def always(_: Any) -> bool:
    """Return True: the mutant reaches each case that has its piece."""
    return True


@dataclass(frozen=True)
class Mutant:
    """A wrong place in a piece of WGSL.

    Attributes:
        piece: the name of the piece, a path below ``wgsl/`` without a suffix.
        old: a pattern (`tools.mutants.place`) that occurs once in the piece.
        new: what replaces it.
        defined: why the result is defined.
        reaches: tells, of a case that has the piece, whether it must turn red.  The others that
            have the piece must stay green.
    """

    piece: str
    old: str
    new: str
    defined: Defined = "value"
    reaches: Callable[[Any], bool] = always

    def __str__(self) -> str:
        return f"{self.piece}: {self.old} -> {self.new or 'nothing'}"

    def changed(self, text: str) -> str:
        """Return the text of the piece with the mutant's place replaced.

        Raises:
            PlaceError: the piece has changed, and the place is gone or there twice.
        """
        try:
            return replaced(text, self.old, self.new)
        except PlaceError as error:
            raise PlaceError(f"{self.piece} has changed, choose another place: {error}") from None


def write_pieces(source: Path, folder: Path, mutants: tuple[Mutant, ...] = ()) -> Path:
    """Copy all pieces from ``source`` to the new ``folder``, with the places of the mutants wrong.

    Returns:
        ``folder``.
    """
    shutil.copytree(source, folder)
    for mutant in mutants:
        file = folder / f"{mutant.piece}.wgsl"
        file.write_text(mutant.changed(file.read_text(encoding="utf-8")), encoding="utf-8")
    return folder
