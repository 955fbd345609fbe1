"""Find a place in WGSL by its content, and change it.

A pattern is a piece of WGSL.  Spaces, line breaks and comments do not count, and ``$name`` stands
for any identifier (the same one wherever ``$name`` occurs), so a place is still found after its
function was reformatted or its variables were renamed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_TOKEN = re.compile(
    r"(?P<nothing>\s+|//[^\n]*|/\*.*?\*/)"
    r"|(?P<name>\$?[A-Za-z_]\w*)|(?P<number>\d[\w.]*)|(?P<sign>.)",
    re.DOTALL,
)


class PlaceError(ValueError):
    """A pattern does not occur exactly once."""


@dataclass(frozen=True)
class _Token:
    text: str
    start: int
    end: int


def _tokens(text: str) -> list[_Token]:
    found = _TOKEN.finditer(text)
    return [_Token(m[0], m.start(), m.end()) for m in found if m["nothing"] is None]


def _match(pattern: list[_Token], tokens: list[_Token]) -> dict[str, str] | None:
    """Return what each ``$name`` stands for if the tokens match, else None."""
    names: dict[str, str] = {}
    for wanted, token in zip(pattern, tokens, strict=False):
        if wanted.text.startswith("$"):
            if not re.match(r"[A-Za-z_]", token.text):
                return None
            if names.setdefault(wanted.text, token.text) != token.text:
                return None
        elif wanted.text != token.text:
            return None
    return names


def _places(pattern: str, text: str) -> Iterator[tuple[int, int, dict[str, str]]]:
    wanted, tokens = _tokens(pattern), _tokens(text)
    for first in range(len(tokens) - len(wanted) + 1):
        here = tokens[first : first + len(wanted)]
        names = _match(wanted, here)
        if names is not None:
            yield here[0].start, here[-1].end, names


def replaced(text: str, old: str, new: str) -> str:
    """Return ``text`` with the one place that matches ``old`` replaced by ``new``.

    Args:
        text: WGSL.
        old: a pattern.
        new: WGSL, in which each ``$name`` of the pattern stands for the identifier found.

    Raises:
        PlaceError: the pattern occurs nowhere or more than once.
        KeyError: ``new`` uses a ``$name`` that ``old`` does not have.
    """
    found = list(_places(old, text))
    if len(found) != 1:
        raise PlaceError(f"{old!r} must occur once, and occurs {len(found)} times")
    start, end, names = found[0]
    inserted = re.sub(r"\$[A-Za-z_]\w*", lambda match: names[match[0]], new)
    return text[:start] + inserted + text[end:]
