"""Whole models beside other programs, from committed figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.whole_models import MODELS, Row, rows
from tools.docs.figures.drawing import BLUE, GREY

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def whole_models(figure: Figure) -> None:
    """Draw tokens a second of decoding and of a prompt, for two models."""
    figure.set_size_inches(9.2, 4.6)
    panels = figure.subplots(2, len(MODELS))
    figure.subplots_adjust(0.17, 0.04, 0.97, 0.86, wspace=0.75, hspace=0.55)
    for across, (model, name) in enumerate(MODELS.items()):
        for down, work in enumerate(("decode", "prompt")):
            shown = [row for row in rows() if row.work == work]
            _bars(panels[down, across], shown, model)
            panels[down, across].set_title(
                f"{name}: {'decode' if work == 'decode' else 'a prompt of 512'}"
            )
    figure.suptitle("Tokens a second on one H200 (longer is better)", x=0.01, ha="left", fontsize=9)


def _bars(axes: Axes, shown: list[Row], model: str) -> None:
    rates = [row.rates[model] for row in shown]
    colours = [BLUE if row.is_ours else GREY for row in shown]
    axes.barh(range(len(shown)), rates, color=colours, height=0.7)
    axes.set_yticks(range(len(shown)), [row.label for row in shown])
    axes.invert_yaxis()
    axes.set_xlim(0, max(rates) * 1.3)
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[["left", "bottom"]].set_visible(False)
    for at, rate in enumerate(rates):
        axes.text(rate + max(rates) * 0.015, at, f"{rate:,.0f}", va="center", fontsize=8)
