"""The figures as pictures: SVG, the same bytes from the same figures, for light and dark pages."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tools.bench.accounting import embedding_bytes, linear_bytes, linear_flops
from tools.bench.document import Document
from tools.bench.result import Result
from tools.bench.table import duration

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_INK, _PAPER, _LINES = "#1f2328", "#ffffff", "#d1d9e0"
_IN_THE_DARK = {_INK: "#e6edf3", _PAPER: "#0d1117", _LINES: "#3d444d"}
_COLOURS = ("#2878d0", "#c9612a", "#8957e5", "#2a9249", "#b3456f", "#9e7203", "#1b8a92", "#6e7781")
_LIMIT = "#cf3a46"
_MARKERS = "osD^vPX*"
_LONGEST_BAR = 12
"""A bar longer than so many times the shortest is cut off; its time stands beside it."""

_BESIDE: Any = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5), "fontsize": 8}
"""A legend with no room among the lines."""

_SETTINGS: Any = {
    "svg.hashsalt": "wgpu_q4",
    "svg.fonttype": "none",
    "font.size": 9,
    "text.color": _INK,
    "axes.edgecolor": _LINES,
    "axes.labelcolor": _INK,
    "axes.titlecolor": _INK,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": _PAPER,
    "grid.color": _LINES,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "lines.linewidth": 1.4,
    "lines.markersize": 4,
}


def draw(document: Document, folder: Path, stem: str) -> list[Path]:
    """Draw every picture that the figures are enough for; returns the files.

    Args:
        folder: made if it is not there.
        stem: the files are called ``stem-peers.svg`` and so on.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    pictures: dict[str, Callable[[Document, Figure], bool]] = {
        "peers": _peers,
        "rows": _over_rows,
        "ids": _over_ids,
        "bandwidth": _bandwidth,
        "shapes": _over_shapes,
    }
    written = []
    folder.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(_SETTINGS):
        for name, picture in pictures.items():
            figure = Figure(layout="constrained")
            FigureCanvasSVG(figure)
            if not picture(document, figure):
                continue
            text = io.StringIO()
            figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
            path = folder / f"{stem}-{name}.svg"
            path.write_text(_for_the_dark(text.getvalue()), encoding="utf-8")
            written.append(path)
    return written


def _for_the_dark(svg: str) -> str:
    """The same picture with ink and paper exchanged where the reader's page is dark."""
    rules = [
        f'[style*="{what}: {light}"]{{{what}:{dark} !important}}'
        for light, dark in _IN_THE_DARK.items()
        for what in ("fill", "stroke")
    ]
    style = f"<style>@media (prefers-color-scheme: dark){{{''.join(rules)}}}</style>"
    return svg.replace("</defs>", f"</defs>{style}", 1)


def _caption(document: Document, figure: Figure, title: str) -> None:
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
    """What tells a result from others of the same op and size."""
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


def _of(document: Document, op: str) -> list[Result]:
    """The results of an op on the matrix of the run."""
    return [r for r in document.results if r.op == op and r.shape == document.shape]


def _count(op: str, size: int) -> str:
    """The size of a job in words."""
    one, many = ("id", "ids") if op == "embedding" else ("row", "rows")
    return f"{size:,} {one if size == 1 else many}"


def _sizes(results: Iterable[Result]) -> list[int]:
    return sorted({result.size for result in results})


# Bars, beside peers


def _peers(document: Document, figure: Figure) -> bool:
    """Times at a few sizes, on the device and of whole calls."""
    lookups = _sizes(_of(document, "embedding"))
    products = _sizes(_of(document, "linear"))
    wanted = [("embedding", 16384 if 16384 in lookups else size) for size in lookups[-1:]]
    wanted += [("linear", size) for size in (1, 128) if size in products]
    panels = []
    for op, size in wanted:
        every = [r for r in _of(document, op) if r.size == size]
        calls = [r for r in _of(document, f"{op}()") if r.size == size]
        panels.append(
            (
                f"{op}, {_count(op, size)}",
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
    _caption(document, figure, "Time, beside what others take (shorter is better)")
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
    colours = [_COLOURS[0] if r.who == "wgpu_q4" else _COLOURS[-1] for r in ordered]
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
        axes.axvline(limit * scale, color=_LIMIT, linestyle="--", linewidth=1)
        axes.set_xlabel(
            f"{unit}; broken line: limit, bytes ÷ copy bandwidth, rows, float32: {duration(limit)}",
            labelpad=1,
            fontsize=7,
        )


# Lines, over sizes


def _over_rows(document: Document, figure: Figure) -> bool:
    """Time of the product over the rows of x."""
    shape = document.shape
    results = _of(document, "linear")
    sizes = _sizes(results)
    if len(sizes) < 2:
        return False
    figure.set_size_inches(9.5, 4.8)
    axes = figure.subplots()
    _lines(axes, results)
    arithmetic = document.ceilings["arithmetic_flops_per_second"]
    moved = [linear_bytes(shape, m, "rows") / document.copy_bandwidth for m in sizes]
    computed = [linear_flops(shape, m) / arithmetic for m in sizes]
    _limits(axes, sizes, moved, "limit: bytes ÷ copy bandwidth")
    axes.plot(sizes, computed, color=_LIMIT, linestyle=":", label="limit: float32 multiply-adds")
    _log(axes, sizes, "rows of x")
    axes.legend(**_BESIDE)
    _caption(document, figure, "linear: time over the rows of x")
    return True


def _over_ids(document: Document, figure: Figure) -> bool:
    """Time of the lookup over the number of ids."""
    results = _of(document, "embedding")
    sizes = _sizes(results)
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
    _caption(document, figure, "embedding: time over the number of ids")
    return True


def _over_shapes(document: Document, figure: Figure) -> bool:
    """Time over V and over K."""
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
            text = f"{op}, {_count(op, points[where[0]].size)}"
            axes.plot(
                where,
                [points[x].timing.median for x in where],
                color=_COLOURS[at],
                marker=_MARKERS[at],
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
    _caption(document, figure, "time over the size of the matrix (rows layout)")
    return True


def _points(
    results: Sequence[Result], op: str, size: int | None, name: str, other: str, fixed: int
) -> dict[int, Result]:
    """Results of one job by V or by K, the exact kernels' on rows."""
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
    """A line for each way to do a job: this package's in full, others' broken."""
    series: dict[tuple[str, ...], list[Result]] = {}
    for result in results:
        series.setdefault((result.who, label(result), result.clock), []).append(result)
    for at, ((who, name, clock), of_it) in enumerate(series.items()):
        ordered = sorted(of_it, key=lambda r: r.size)
        axes.plot(
            [r.size for r in ordered],
            [r.timing.median for r in ordered],
            color=_COLOURS[at % len(_COLOURS)],
            marker=_MARKERS[(at + at // len(_COLOURS)) % len(_MARKERS)],
            linestyle="-" if who == "wgpu_q4" else "--",
            label=f"{name} (whole call)" if clock == "calls" else name,
        )


def _limits(axes: Axes, sizes: Sequence[int], times: Sequence[float], name: str | None) -> None:
    axes.plot(sizes, times, color=_LIMIT, linestyle="-.", linewidth=1, label=name or "_")


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
    """A power of ten of seconds."""
    for factor, unit in ((1e-6, "µs"), (1e-3, "ms"), (1.0, "s")):
        if seconds < 999 * factor:
            return f"{seconds / factor:g} {unit}"
    return f"{seconds:g} s"


# Shares of the limit


def _bandwidth(document: Document, figure: Figure) -> bool:
    """What share of the copy's bandwidth each job that memory bounds reaches."""
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
    axes.barh(places, shares, color=_COLOURS[0], height=0.7)
    axes.set_yticks(places, [_job(r) for r in results])
    axes.invert_yaxis()
    axes.axvline(1, color=_LIMIT, linestyle="--", linewidth=1)
    axes.tick_params(length=0)
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    for at, share in enumerate(shares):
        axes.text(share + 0.01, at, f"{share:.0%}", va="center", fontsize=8)
    _caption(document, figure, "Bytes per second, as a share of what a copy reaches")
    return True


def _job(result: Result) -> str:
    if result.op == "embedding":
        return f"{result.size:,} ids, {label(result).removeprefix('wgpu_q4, ')}"
    if result.op == "linear":
        return f"linear, 1 row, {label(result).removeprefix('wgpu_q4, ')}"
    return result.op
