"""Boxes, arrows and cells on an empty page, and how a figure is written."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tools.bench.plots.style import COLOURS, INK, LINES, PAPER, SETTINGS, for_the_dark

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, PURPLE, GREEN, ROSE, OCHRE, TEAL, GREY = COLOURS
_TINT = 0.22
"""How much of its colour a box has: ink stays legible on it, on white and on black."""


def written(picture: Callable[[Figure], None]) -> str:
    """Return a figure as SVG.

    Args:
        picture: draws it.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context(SETTINGS):
        figure = Figure(facecolor=PAPER)
        FigureCanvasSVG(figure)
        picture(figure)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return for_the_dark(text.getvalue())


def page(figure: Figure, width: float, height: float, scale: float = 0.5) -> Axes:
    """Return axes without frame, in which a unit is ``scale`` inches.

    Args:
        figure: it gets its size.
        width, height: in units; y grows downwards, and (0, 0) is the upper left corner.
        scale: inches.
    """
    figure.set_size_inches(width * scale, height * scale)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    axes.set_axis_off()
    return axes


def box(
    axes: Axes,
    x: float,
    y: float,
    width: float,
    height: float,
    text: str = "",
    colour: str = GREY,
    **font: Any,
) -> None:
    """Draw a tinted box with text in its middle."""
    from matplotlib.patches import Rectangle

    axes.add_patch(Rectangle((x, y), width, height, facecolor=colour, alpha=_TINT, linewidth=0))
    axes.add_patch(
        Rectangle((x, y), width, height, facecolor="none", edgecolor=colour, linewidth=1)
    )
    say(axes, x + width / 2, y + height / 2, text, ha="center", **font)


def say(axes: Axes, x: float, y: float, text: str, **font: Any) -> None:
    """Write text beside or around a point; left-aligned and in the middle of its height."""
    axes.text(x, y, text, **{"va": "center", "color": INK, "fontsize": 9, **font})


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], **style: Any) -> None:
    """Draw an arrow from one point to another."""
    axes.annotate(
        "",
        xy=end,
        xytext=start,
        arrowprops={"arrowstyle": "-|>", "color": GREY, "linewidth": 1, **style},
    )


def rule(axes: Axes, x: float, y: float, width: float) -> None:
    """Draw a thin horizontal line."""
    axes.plot([x, x + width], [y, y], color=LINES, linewidth=1)
