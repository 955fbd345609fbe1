"""Lines: times over the rows of x, the number of ids, and the size of the matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tools.bench.document import Document
from tools.bench.plots.style import (
    COLOURS,
    LIMIT,
    MARKERS,
    caption,
    in_words,
    label,
    results_of,
    sizes_of,
)
from wgpu_q4.bench.accounting import embedding_bytes, linear_bytes, linear_flops
from wgpu_q4.bench.result import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BESIDE: Any = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5), "fontsize": 8}
"""Where a legend stands that finds no room among the lines."""


def over_rows(document: Document, figure: Figure) -> bool:
    """Draw the time of the product over the rows of x; return False without data."""
    shape = document.shape
    results = results_of(document, "linear")
    sizes = sizes_of(results)
    if len(sizes) < 2:
        return False
    figure.set_size_inches(9.5, 4.8)
    axes = figure.subplots()
    _lines(axes, results)
    arithmetic = document.ceilings["arithmetic_flops_per_second"]
    moved = [linear_bytes(shape, m, "rows") / document.copy_bandwidth for m in sizes]
    computed = [linear_flops(shape, m) / arithmetic for m in sizes]
    _limits(axes, sizes, moved, "limit: bytes ÷ copy bandwidth")
    axes.plot(sizes, computed, color=LIMIT, linestyle=":", label="limit: float32 multiply-adds")
    _log(axes, sizes, "rows of x")
    axes.legend(**_BESIDE)
    caption(document, figure, "linear: time over the rows of x")
    return True


def over_ids(document: Document, figure: Figure) -> bool:
    """Draw the time of the lookup over the number of ids; return False without data."""
    results = results_of(document, "embedding")
    sizes = sizes_of(results)
    if len(sizes) < 2:
        return False
    figure.set_size_inches(9.5, 4.8)
    axes = figure.subplots()
    _lines(axes, results)
    shape = document.shape
    moved = [embedding_bytes(shape, n, "rows", "float32") / document.copy_bandwidth for n in sizes]
    _limits(axes, sizes, moved, "limit: bytes (rows, float32) ÷ copy bandwidth")
    _log(axes, sizes, "ids")
    axes.legend(**_BESIDE)
    caption(document, figure, "embedding: time over the number of ids")
    return True


def over_shapes(document: Document, figure: Figure) -> bool:
    """Draw times over V and over K; return False without data."""
    base = document.shape
    results = [
        r for r in document.results if r.shape is not None and r.op in ("embedding", "linear")
    ]
    others = {r.shape for r in results if r.shape != base and r.who == "wgpu_q4"}
    if len(others) < 2:
        return False
    narrow = {r.shape.embed_dim for r in results if r.shape is not None}
    figure.set_size_inches(9, 4.6)
    panels = figure.subplots(1, 2)
    for axes, name in zip(panels, ("vocab", "embed_dim"), strict=True):
        other = "embed_dim" if name == "vocab" else "vocab"
        fixed = getattr(base, other)
        if name == "embed_dim":
            widths = {
                s.embed_dim: s.vocab
                for s in others
                if s is not None and s.embed_dim != base.embed_dim
            }
            if len(narrow) < 2 or not widths:
                axes.set_axis_off()
                continue
            fixed = min(widths.values())
        for at, (op, size) in enumerate((("embedding", None), ("linear", 1), ("linear", 128))):
            points = _points(results, op, size, name, other, fixed)
            if not points:
                continue
            where = sorted(points)
            text = f"{op}, {in_words(op, points[where[0]].size)}"
            axes.plot(
                where,
                [points[x].timing.median for x in where],
                color=COLOURS[at],
                marker=MARKERS[at],
                label=text,
            )
            _limits(
                axes,
                where,
                [points[x].moved / document.copy_bandwidth for x in where],
                "limit: bytes ÷ copy bandwidth" if at == 0 else None,
            )
        _log(axes, [], "V" if name == "vocab" else "K")
        axes.set_title(f"{'K' if name == 'vocab' else 'V'} = {fixed}")
        axes.legend(fontsize=7)
    caption(document, figure, "time over the size of the matrix (rows layout)")
    return True


def _points(
    results: Sequence[Result], op: str, size: int | None, name: str, other: str, fixed: int
) -> dict[int, Result]:
    """Return the results of one job by V or by K, on the exact kernels and rows."""
    mine = [
        r
        for r in results
        if r.who == "wgpu_q4"
        and r.op == op
        and getattr(r.shape, other) == fixed
        and r.detail.get("layout") == "rows"
        and r.detail.get("dtype", "float32") == "float32"
        and r.detail.get("accuracy", "exact") == "exact"
    ]
    if size is None:
        size = max((r.size for r in mine if r.size <= 16384), default=0)
    return {getattr(r.shape, name): r for r in mine if r.size == size}


def _lines(axes: Axes, results: Sequence[Result]) -> None:
    """Draw a line for each way to do a job: full for this package, broken for others."""
    series: dict[tuple[str, ...], list[Result]] = {}
    for result in results:
        series.setdefault((result.who, label(result), result.clock), []).append(result)
    for at, ((who, name, clock), of_it) in enumerate(series.items()):
        ordered = sorted(of_it, key=lambda r: r.size)
        axes.plot(
            [r.size for r in ordered],
            [r.timing.median for r in ordered],
            color=COLOURS[at % len(COLOURS)],
            marker=MARKERS[(at + at // len(COLOURS)) % len(MARKERS)],
            linestyle="-" if who == "wgpu_q4" else "--",
            label=f"{name} (whole call)" if clock == "calls" else name,
        )


def _limits(axes: Axes, sizes: Sequence[int], times: Sequence[float], name: str | None) -> None:
    axes.plot(sizes, times, color=LIMIT, linestyle="-.", linewidth=1, label=name or "_")


def _log(axes: Axes, sizes: Sequence[int], what: str) -> None:
    from matplotlib.ticker import FuncFormatter, NullFormatter

    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    if sizes:
        axes.set_xticks(sizes)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
    axes.grid(True, which="major")
    axes.tick_params(which="both", length=0)
    if len(sizes) > 6 or max(sizes, default=0) >= 10000:
        axes.tick_params(axis="x", labelrotation=30)
    axes.set_xlabel(what)


def _short(seconds: float) -> str:
    """Return a power of ten of seconds in words."""
    for factor, unit in ((1e-6, "µs"), (1e-3, "ms"), (1.0, "s")):
        if seconds < 999 * factor:
            return f"{seconds / factor:g} {unit}"
    return f"{seconds:g} s"
