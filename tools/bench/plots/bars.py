"""Bars: times beside those of peers, and shares of the copy's bandwidth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tools.bench.document import Document
from tools.bench.plots.style import COLOURS, LIMIT, caption, in_words, label, results_of, sizes_of
from wgpu_q4.bench.result import Result
from wgpu_q4.bench.table import duration

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LONGEST_BAR = 12
"""A bar longer than this many times the shortest is cut off; its time stands beside it."""


def peers(document: Document, figure: Figure) -> bool:
    """Draw times at a few sizes, on the device and of whole calls; return False without data."""
    lookups = sizes_of(results_of(document, "embedding"))
    products = sizes_of(results_of(document, "linear"))
    wanted = [("embedding", 16384 if 16384 in lookups else size) for size in lookups[-1:]]
    wanted += [("linear", size) for size in (1, 128) if size in products]
    panels = []
    for op, size in wanted:
        every = [r for r in results_of(document, op) if r.size == size]
        calls = [r for r in results_of(document, f"{op}()") if r.size == size]
        panels.append(
            (
                f"{op}, {in_words(op, size)}",
                [r for r in every if r.clock != "calls"],
                calls + [r for r in every if r.clock == "calls"],
            )
        )
    if not panels:
        return False
    tallest = [max(len(device), len(calls), 1) for _, device, calls in panels]
    figure.set_size_inches(10.5, 0.9 + sum(0.8 + 0.2 * n for n in tallest))
    axes = figure.subplots(len(panels), 2, squeeze=False, height_ratios=[n + 2 for n in tallest])
    for row, (title, device, calls) in zip(axes, panels, strict=True):
        _bars(row[0], device, f"{title}: on the device", document.copy_bandwidth)
        _bars(row[1], calls, f"{title}: whole call from Python", 0)
    caption(document, figure, "Time, beside what others take (shorter is better)")
    return True


def _bars(axes: Axes, results: Sequence[Result], title: str, bandwidth: float) -> None:
    axes.set_title(title)
    if not results:
        axes.set_axis_off()
        return
    ordered = sorted(results, key=lambda r: -r.timing.median)
    scale = 1e6 if ordered[-1].timing.median < 1e-3 else 1e3
    times = [r.timing.median * scale for r in ordered]
    end = min(max(times), _LONGEST_BAR * min(times))
    colours = [COLOURS[0] if r.who == "wgpu_q4" else COLOURS[-1] for r in ordered]
    axes.barh(range(len(times)), [min(time, end) for time in times], color=colours, height=0.7)
    axes.set_yticks(range(len(times)), [label(r) for r in ordered])
    axes.set_xlim(0, end * 1.22)
    unit = "µs" if scale == 1e6 else "ms"
    axes.set_xlabel(unit, labelpad=1, fontsize=7)
    axes.tick_params(length=0)
    axes.spines["left"].set_visible(False)
    for at, (time, result) in enumerate(zip(times, ordered, strict=True)):
        cut = " (cut)" if time > end else ""
        axes.text(
            min(time, end) + end * 0.01,
            at,
            duration(result.timing.median) + cut,
            va="center",
            fontsize=8,
        )
    if not bandwidth:
        return
    plain = {"layout": "rows", "dtype": "float32"}
    mine = [
        r for r in ordered if r.who == "wgpu_q4" and {**plain, **r.detail}.items() >= plain.items()
    ]
    if mine:
        limit = mine[0].moved / bandwidth
        axes.axvline(limit * scale, color=LIMIT, linestyle="--", linewidth=1)
        axes.set_xlabel(
            f"{unit}; broken line: limit, bytes ÷ copy bandwidth, rows, float32: {duration(limit)}",
            labelpad=1,
            fontsize=7,
        )


def bandwidth(document: Document, figure: Figure) -> bool:
    """Draw each job that memory bounds, as a share of the copy's bandwidth; False without data."""
    results: list[Any] = [
        r
        for r in document.results
        if r.who == "wgpu_q4"
        and r.moved
        and (r.shape is None or r.shape == document.shape)
        and (r.op != "linear" or r.size == 1)
        and (r.op != "embedding" or r.size >= 1024)
    ]
    if not results:
        return False
    figure.set_size_inches(8, 0.9 + 0.22 * len(results))
    axes = figure.subplots()
    shares = [r.moved / document.copy_bandwidth / r.timing.median for r in results]
    places = range(len(results))
    axes.barh(places, shares, color=COLOURS[0], height=0.7)
    axes.set_yticks(places, [_job(r) for r in results])
    axes.invert_yaxis()
    axes.axvline(1, color=LIMIT, linestyle="--", linewidth=1)
    axes.tick_params(length=0)
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    for at, share in enumerate(shares):
        axes.text(share + 0.01, at, f"{share:.0%}", va="center", fontsize=8)
    caption(document, figure, "Bytes per second, as a share of what a copy reaches")
    return True


def _job(result: Result) -> str:
    if result.op == "embedding":
        return f"{result.size:,} ids, {label(result).removeprefix('wgpu_q4, ')}"
    if result.op == "linear":
        return f"linear, 1 row, {label(result).removeprefix('wgpu_q4, ')}"
    return result.op
