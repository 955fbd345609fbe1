"""Colours and words that all pictures share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from tools.bench.document import Document
from wgpu_q4.bench.result import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, PAPER, LINES = "#1f2328", "#ffffff", "#d1d9e0"
IN_THE_DARK = {INK: "#e6edf3", PAPER: "#0d1117", LINES: "#3d444d"}
COLOURS = ("#2878d0", "#c9612a", "#8957e5", "#2a9249", "#b3456f", "#9e7203", "#1b8a92", "#6e7781")
LIMIT = "#cf3a46"
MARKERS = "osD^vPX*"

SETTINGS: Any = {
    "svg.hashsalt": "wgpu_q4",
    "svg.fonttype": "none",
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": LINES,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": PAPER,
    "grid.color": LINES,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "lines.linewidth": 1.4,
    "lines.markersize": 4,
}


def for_the_dark(svg: str) -> str:
    """Return the picture with ink and paper exchanged where the reader's page is dark."""
    rules = [
        f'[style*="{what}: {light}"]{{{what}:{dark} !important}}'
        for light, dark in IN_THE_DARK.items()
        for what in ("fill", "stroke")
    ]
    style = f"<style>@media (prefers-color-scheme: dark){{{''.join(rules)}}}</style>"
    return svg.replace("</defs>", f"</defs>{style}", 1)


def caption(document: Document, figure: Figure, title: str) -> None:
    """Write a title above the picture, with the adapter and the matrix."""
    shape = document.shape
    adapter, versions = document.adapter, document.versions
    figure.suptitle(
        f"{title}\n{adapter['name']}, {adapter['driver']}; wgpu_q4 {versions['wgpu_q4']}; "
        f"V = {shape.vocab}, K = {shape.embed_dim}, G = {shape.group_size}",
        x=0.01,
        ha="left",
        fontsize=9,
    )


def label(result: Result) -> str:
    """Return the words that tell a result from others of the same op and size."""
    detail = result.detail
    parts = [result.who]
    if result.who == "wgpu_q4":
        parts += [detail.get("layout", "").replace("blocks_buffer", "blocks")]
        parts += [detail.get("accuracy", "")]
    else:
        parts += [detail.get("device", "").replace("webgpu", ""), detail.get("accuracy", "")]
    parts.append(detail.get("reduce", ""))
    if detail.get("dtype") == "float16":
        parts.append("f16")
    return ", ".join(part for part in parts if part)


def results_of(document: Document, op: str) -> list[Result]:
    """Return the results of an op on the matrix of the run."""
    return [r for r in document.results if r.op == op and r.shape == document.shape]


def in_words(op: str, size: int) -> str:
    """Return the size of a job in words."""
    one, many = ("id", "ids") if op == "embedding" else ("row", "rows")
    return f"{size:,} {one if size == 1 else many}"


def sizes_of(results: Iterable[Result]) -> list[int]:
    """Return the different sizes of results, in order."""
    return sorted({result.size for result in results})
