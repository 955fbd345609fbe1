"""The figures of the documentation: SVG, the same bytes each time, for light and dark pages.

* `drawing`   boxes, arrows and cells, and how a figure is written
* `nibbles`   the format: a row, both nibble orders, words and blocks, as the library packs them
* `overview`  the bytes of tied matrices, the ways of a kernel, what an export holds
* `errors`    what 4 bits cost, over the size of the groups
* `calls`     what a call costs, with arrays of the host and of the device
* `models`    whole models beside other programs, from committed figures

``python -m tools.docs.figures`` writes them to ``docs/figures``; a test holds them to that.
"""

from __future__ import annotations

from pathlib import Path

from tools.docs.figures import calls, errors, models, nibbles, overview
from tools.docs.figures.drawing import written

FIGURES = {
    "tied-bytes": overview.tied_bytes,
    "format-row": nibbles.row,
    "format-nibbles": nibbles.conventions,
    "format-rows": nibbles.words,
    "format-block": nibbles.block,
    "backends": overview.backends,
    "export": overview.export,
    "group-sizes": errors.over_group_sizes,
    "device-arrays": calls.device_arrays,
    "whole-models": models.whole_models,
}
"""What draws a figure, by the name of its file."""


def draw(folder: Path) -> list[Path]:
    """Draw every figure; return the files, ``NAME.svg``.

    Args:
        folder: it is made if it is missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for name, picture in FIGURES.items():
        files.append(folder / f"{name}.svg")
        files[-1].write_text(written(picture), encoding="utf-8")
    return files
