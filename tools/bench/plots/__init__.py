"""The figures as pictures: SVG, the same bytes from the same figures, for light and dark pages.

* `style`  colours and words that all pictures share
* `bars`   times beside those of peers, and shares of the copy's bandwidth
* `lines`  times over the rows of x, the number of ids, and the size of the matrix
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tools.bench.document import Document
from tools.bench.plots import bars, lines
from tools.bench.plots.style import SETTINGS, for_the_dark, label

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw", "label"]


def draw(document: Document, folder: Path, stem: str) -> list[Path]:
    """Draw every picture for which there are enough figures; return the files.

    Args:
        document: the figures.
        folder: it is made if it is missing.
        stem: the files are called ``stem-peers.svg`` and so on.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    pictures: dict[str, Callable[[Document, Figure], bool]] = {
        "peers": bars.peers,
        "rows": lines.over_rows,
        "ids": lines.over_ids,
        "bandwidth": bars.bandwidth,
        "shapes": lines.over_shapes,
    }
    written = []
    folder.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(SETTINGS):
        for name, picture in pictures.items():
            figure = Figure(layout="constrained")
            FigureCanvasSVG(figure)
            if not picture(document, figure):
                continue
            text = io.StringIO()
            figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
            path = folder / f"{stem}-{name}.svg"
            path.write_text(for_the_dark(text.getvalue()), encoding="utf-8")
            written.append(path)
    return written
