"""How the objects of this package look in a notebook: a table of names and values.

The table sets no colour.  It takes those of its page, light or dark, and so do the bars in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

Line = str | int
Row = tuple[str, Line | Sequence[Line]]
"""A name, and a value of one line or several.  A string is text.  An integer is a number of bytes,
and is drawn: its bar is as long as its share of the largest number in the table."""

_LONGEST = 16
"""The longest bar, in widths of a letter."""


def table(caption: str, rows: Iterable[Row]) -> str:
    """Return a table as HTML, for a ``_repr_html_``; all text is escaped.

    Args:
        caption: the title of the table.
        rows: from top to bottom.  A row without lines is left out.
    """
    shown = [(name, [*_lines(value)]) for name, value in rows]
    numbers = [line for _, lines in shown for line in lines if isinstance(line, int)]
    largest = max(numbers, default=0)
    cells = "".join(
        f"<tr style='background:none'><th style='{_CELL};white-space:nowrap'>{escape(name)}</th>"
        f"<td style='{_CELL}'>{''.join(_html(line, largest) for line in lines)}</td></tr>"
        for name, lines in shown
        if lines
    )
    return (
        f"<table style='color:inherit'><caption style='text-align:left;color:inherit'>"
        f"{escape(caption)}</caption><tbody>{cells}</tbody></table>"
    )


_CELL = "padding:.1em 1em .1em 0;text-align:left;vertical-align:top;color:inherit"


def _lines(value: Line | Sequence[Line]) -> Sequence[Line]:
    return [value] if isinstance(value, str | int) else value


def _html(line: Line, largest: int) -> str:
    if isinstance(line, str):
        return f"<div>{escape(line)}</div>"
    width = _LONGEST * line / largest if largest else 0
    bar = f"width:{width:.2f}em;height:.5em;background:currentColor;opacity:.5"
    return f"<div>{line:,} bytes</div><div style='{bar}'></div>"
