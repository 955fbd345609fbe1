"""What a call costs with arrays of the host, with device arrays, and replayed, from figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from tools.docs.figures.drawing import BLUE, GREY

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_CALLS_FOLDER = Path(__file__).resolve().parents[3] / "benchmarks" / "results" / "calls"
_LOOKUP = "embedding of 16,384 ids, float32, "
_STEP = "embedding + linear + argmax, "
_CALLS = {
    "numpy to numpy": "numpy to numpy",
    "to a new device array": "a new device array",
    "out=": "out=",
    "replayed": "replayed",
}
_STEPS = {
    "100 × two calls": "two calls",
    "100 steps recorded": "100 steps in a recording",
    "a step replayed 100 ×": "a step, replayed",
}


def device_arrays(figure: Figure) -> None:
    """Draw the times of a large lookup and of a step of three ops."""
    document = json.loads((_CALLS_FOLDER / "nvidia-h200-resident.json").read_text())
    times = {
        result["what"]: float(result["median"])
        for result in document["results"]
        if result["way"] == "native"
    }
    figure.set_size_inches(9.2, 2.5)
    left, right = figure.subplots(1, 2)
    figure.subplots_adjust(0.16, 0.12, 0.95, 0.76, wspace=0.75)
    _bars(
        left,
        "16,384 ids, float32 (logarithmic)",
        {n: times[_LOOKUP + w] for w, n in _CALLS.items()},
    )
    left.set_xscale("log")
    left.set_xlim(50, 90_000)
    _bars(
        right, "embedding, linear, argmax: a step", {n: times[_STEP + w] for w, n in _STEPS.items()}
    )
    right.set_xlim(0, 420)
    for axes in (left, right):
        axes.set_xticks([])
        axes.minorticks_off()
    name = document["adapter"]["name"]
    figure.suptitle(
        f"Time of a call from Python, {name} (shorter is better)", x=0.01, ha="left", fontsize=9
    )


def _bars(axes: Axes, title: str, times: dict[str, float]) -> None:
    axes.set_title(title)
    colours = [GREY, *[BLUE] * (len(times) - 1)]
    axes.barh(range(len(times)), list(times.values()), color=colours, height=0.7)
    axes.set_yticks(range(len(times)), list(times))
    axes.invert_yaxis()
    axes.tick_params(length=0)
    axes.spines[["left", "bottom"]].set_visible(False)
    for at, time in enumerate(times.values()):
        text = f"{time / 1000:.1f} ms" if time >= 1000 else f"{time:.0f} µs"
        axes.annotate(text, (time, at), (4, 0), textcoords="offset points", va="center", fontsize=8)
