"""What a reader sees of an object in a notebook: its table, read by a parser of XML."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree


def read(shown: Any) -> dict[str, list[str]]:
    """Return the lines beside each name in the table of an object; the caption is under ``""``.

    A bar is a line of its own: its width in `em`.  The table must be well-formed, and take all
    colours from its page, so that it is legible on a light and on a dark one.
    """
    html = shown if isinstance(shown, str) else shown._repr_html_()
    table = ElementTree.fromstring(html)
    assert table.tag == "table"
    styles = ";".join(element.get("style", "") for element in table.iter())
    colours = re.findall(r"(?:color|background)\s*:\s*([^;]+)", styles)
    assert set(colours) <= {"inherit", "none", "currentColor"}
    (caption,) = table.findall("caption")
    found = {"": [text(caption)]}
    for row in table.findall("tbody/tr"):
        name, value = row
        found.setdefault(text(name), []).extend(map(line, value))
    return found


def line(element: ElementTree.Element) -> str:
    width = re.search(r"width:([\d.]+em)", element.get("style", ""))
    return width[1] if width else text(element)


def text(element: ElementTree.Element) -> str:
    return "".join(element.itertext())
