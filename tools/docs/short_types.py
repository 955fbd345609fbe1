"""Types in signatures as the source writes them: ``NDArray[uint8]``, not what it stands for."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from sphinx import addnodes

_LONG = (
    (re.compile(r"ndarray\[tuple\[Any, \.\.\.\], dtype\[(\w+)\]\]"), r"NDArray[\1]"),
    (re.compile(r"TypeAliasForwardRef\('(\w+)'\)"), r"\1"),
)


def shortened(text: str) -> str:
    """Return a type with the names of its aliases in place of what these stand for."""
    for pattern, name in _LONG:
        text = pattern.sub(name, text)
    return text


def shorten(app: Any, document: nodes.document) -> None:
    """Shorten each type in the signatures of a page; a short one keeps its links."""
    for signature in document.findall(addnodes.desc_signature):
        for kind in (addnodes.desc_returns, addnodes.desc_annotation, addnodes.desc_sig_name):
            for node in list(signature.findall(kind)):
                text = _shown(node)
                if (short := shortened(text)) != text:
                    node.children = [nodes.Text(short)]


def _shown(node: nodes.Element) -> str:
    """Return the text of a node, in which a reference holds a short name beside the whole one."""
    copy = node.deepcopy()
    for name in list(copy.findall(addnodes.pending_xref_condition)):
        if name["condition"] == "*":
            name.parent.remove(name)
    return str(copy.astext()).removeprefix(" -> ")  # docutils has its own arrow for a result


def setup(app: Any) -> dict[str, Any]:
    """Register the step with Sphinx."""
    app.connect("doctree-read", shorten)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
