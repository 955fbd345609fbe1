"""A run as text, as JSON and as one HTML file that needs nothing else."""

from __future__ import annotations

import html
import json
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from tools.parity.excuses import EXCUSES
from tools.parity.harness import Cell, Column, Result

_MARKS = {"exact": "0", "excused": "0*", "not applicable": "-", "error": "ERR", "not run": "?"}


def mark(cell: Cell) -> str:
    """What stands in a cell: the largest error in ulp, or why there is none."""
    if cell.status != "differs":
        return _MARKS[cell.status]
    # Zero ulp off and yet other bits: the sign of a zero.
    return "±0" if not cell.ulp else str(cell.ulp) if cell.ulp < 10_000 else f"{cell.ulp:.0e}"


def verdict(result: Result) -> str:
    """One line on the whole run."""
    counts = Counter(cell.status for column in result.columns for cell in column.cells)
    wrong = counts["differs"] + counts["error"]
    broken = [column.name for column in result.columns if column.problem]
    parts = [
        f"{len(result.cases)} cases × {len(result.columns)} backends",
        f"{counts['exact']} exact",
    ]
    if counts["excused"]:
        parts.append(f"{counts['excused']} with a known difference")
    if counts["not applicable"]:
        parts.append(f"{counts['not applicable']} not applicable")
    parts.append(f"{wrong} wrong")
    if counts["not run"]:
        parts.append(f"{counts['not run']} not run")
    if broken:
        parts.append(f"absent or broken: {', '.join(broken)}")
    return ("FAILED: " if result.failed else "passed: ") + ", ".join(parts)


def text(result: Result, everything: bool = False) -> str:
    """A table for the terminal: the cases that are not simply exact, and totals.

    Args:
        result: the run.
        everything: one line for each case, also for those that every backend has right.
    """
    lines = []
    for number, column in enumerate(result.columns, 1):
        lines.append(f"{number:>2} {column.name:<22} {column.summary or column.problem}")
    header = " ".join(f"{number:>6}" for number in range(1, len(result.columns) + 1))
    width = max([len(case.name) for case in result.cases] + [len("every other case")])
    lines += ["", f"{'largest error in ulp':<{width}} {header}"]
    hidden = 0
    for case, cells in _rows(result):
        if not everything and all(cell.status in ("exact", "not applicable") for cell in cells):
            hidden += 1
            continue
        lines.append(f"{case.name:<{width}} " + " ".join(f"{mark(cell):>6}" for cell in cells))
    if hidden:
        zeros = " ".join(f"{'0' if column.count('exact') else '-':>6}" for column in result.columns)
        lines.append(f"{f'{hidden} further cases':<{width}} {zeros}")
    needed = {name for column in result.columns for cell in column.cells for name in cell.excuses}
    for excuse in EXCUSES:
        if excuse.name in needed:
            lines += ["", f"* {excuse.name}: {excuse.cause}"]
    for column in result.columns:
        if column.problem:
            lines += ["", f"{column.name}: {column.problem}"]
        shown = 0
        for case, cell in zip(result.cases, column.cells, strict=True):
            if cell.status in ("differs", "error"):
                shown += 1
                if shown <= 5:
                    lines += ["", f"{column.name}, {case.name}: {_detail(cell)}"]
        if shown > 5:
            lines += ["", f"{column.name}: {shown - 5} more are wrong"]
    if result.left_out:
        lines.append("")
    lines += [f"not run: {name}: {reason}" for name, reason in result.left_out.items()]
    return "\n".join([*lines, "", verdict(result)])


def to_json(result: Result) -> str:
    """Everything, for other programs."""
    document: dict[str, Any] = {
        "passed": not result.failed,
        "verdict": verdict(result),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": result.versions,
        "cases": [{"name": case.name, **case.to_json()} for case in result.cases],
        "backends": [
            {
                "name": column.name,
                "summary": column.summary,
                "versions": column.versions,
                "problem": column.problem,
                "cells": [vars(cell) for cell in column.cells],
            }
            for column in result.columns
        ],
        "left_out": result.left_out,
        "excuses": {excuse.name: excuse.cause for excuse in EXCUSES},
    }
    return json.dumps(document, indent=1)


def to_html(result: Result) -> str:
    """A page with the matrix, the backends, and what did not run and why."""
    escape = html.escape
    numbers = "".join(
        f"<th scope=col><div>{escape(column.name)}</div></th>" for column in result.columns
    )
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>wgpu_q4: parity</title>
<style>{_STYLE}</style>
<h1>wgpu_q4: parity</h1>
<p class="verdict {"bad" if result.failed else "good"}">{escape(verdict(result))}</p>
<p>Every number is the largest error of a result in units in the last place, against a float64
reference rounded to the result's type. 0 is bit for bit the same. Hover over a cell for
details.</p>
<h2>Backends</h2>
<table>
<thead><tr><th>name<th>what ran<th>versions<th>exact<th>known difference<th>wrong
<th>not applicable<th>seconds</tr></thead>
<tbody>
{"".join(_html_backend(column) for column in result.columns)}
</tbody>
</table>
<h2>Cases by backends</h2>
<table class="matrix">
<thead><tr><th scope=col>case</th>{numbers}</tr></thead>
<tbody>
{"".join(_html_rows(result))}
</tbody>
</table>
{_html_excuses(result)}
{_html_left_out(result)}
<h2>Machine</h2>
<p>{escape(", ".join(f"{name} {value}" for name, value in result.versions.items()))};
{datetime.now(UTC):%Y-%m-%d %H:%M} UTC</p>
</html>
"""


_STYLE = """
:root { color-scheme: light dark; --line: #8884; --good: #2a8f4e; --mild: #b8860b; --bad: #d0342c; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.verdict { font-weight: 600; padding: .6rem .9rem; border-left: .4rem solid; }
.good { border-color: var(--good); } .verdict.bad { border-color: var(--bad); }
table { border-collapse: collapse; font-size: .86rem; }
th, td { padding: .18rem .55rem; border-bottom: 1px solid var(--line); text-align: left; }
.matrix td { text-align: center; font-variant-numeric: tabular-nums; min-width: 2.4rem; }
.matrix thead th { vertical-align: bottom; position: sticky; top: 0; background: Canvas; }
.matrix thead div { writing-mode: vertical-rl; transform: rotate(180deg); }
.matrix tbody th { font-weight: 400; font-family: ui-monospace, monospace; }
.matrix .group th { font: 600 .9rem system-ui, sans-serif; padding-top: 1rem; border: 0; }
td.exact { background: color-mix(in srgb, var(--good) 22%, transparent); }
td.excused { background: color-mix(in srgb, var(--mild) 30%, transparent); }
td.differs, td.error { background: var(--bad); color: #fff; font-weight: 600; }
td.na, td.missing { color: #8889; }
dt { font-weight: 600; } dd { margin: 0 0 .6rem 1rem; }
"""

_CLASSES = {"not applicable": "na", "not run": "missing"}
_GROUPS = {
    "upstream": "ExecuTorch's own 34 cases",
    "corners": "Corners that they miss",
    "random": "Random cases",
}


def _rows(result: Result) -> Iterator[tuple[Any, list[Cell]]]:
    for row, case in enumerate(result.cases):
        yield case, [column.cells[row] for column in result.columns]


def _detail(cell: Cell) -> str:
    if cell.status == "differs":
        return f"{cell.differing} of {cell.values} values differ; {cell.remark}"
    parts = [*cell.excuses, cell.remark]
    if cell.status in ("exact", "excused"):
        parts.append(f"{cell.values} values, {cell.seconds:.3f} s")
    return "; ".join(filter(None, parts)) or cell.status


def _html_rows(result: Result) -> Iterator[str]:
    group = None
    for case, cells in _rows(result):
        if case.group != group:
            group = case.group
            title = html.escape(_GROUPS.get(group, group))
            yield f"<tr class=group><th colspan={len(cells) + 1}>{title}</th></tr>\n"
        note = html.escape(case.note, quote=True)
        shown = "".join(
            f'<td class="{_CLASSES.get(cell.status, cell.status)}" '
            f'title="{html.escape(_detail(cell), quote=True)}">{mark(cell)}</td>'
            for cell in cells
        )
        yield f'<tr><th scope=row title="{note}">{html.escape(case.name)}</th>{shown}</tr>\n'


def _html_backend(column: Column) -> str:
    versions = ", ".join(f"{name} {value}" for name, value in column.versions.items())
    problem = f" <strong>{html.escape(column.problem)}</strong>" if column.problem else ""
    seconds = sum(cell.seconds for cell in column.cells)
    return (
        f"<tr><th scope=row>{html.escape(column.name)}</th>"
        f"<td>{html.escape(column.summary)}{problem}</td><td>{html.escape(versions)}</td>"
        f"<td>{column.count('exact')}</td><td>{column.count('excused')}</td>"
        f"<td>{column.count('differs') + column.count('error') + column.count('not run')}</td>"
        f"<td>{column.count('not applicable')}</td><td>{seconds:.1f}</td></tr>\n"
    )


def _html_excuses(result: Result) -> str:
    needed = {name for column in result.columns for cell in column.cells for name in cell.excuses}
    if not needed:
        return ""
    items = "".join(
        f"<dt>{html.escape(excuse.name)}</dt><dd>{html.escape(excuse.cause)}</dd>\n"
        for excuse in EXCUSES
        if excuse.name in needed
    )
    return f"<h2>Known differences (0*)</h2>\n<dl>{items}</dl>"


def _html_left_out(result: Result) -> str:
    if not result.left_out:
        return ""
    items = "".join(
        f"<dt>{html.escape(name)}</dt><dd>{html.escape(reason)}</dd>\n"
        for name, reason in result.left_out.items()
    )
    return f"<h2>What did not run</h2>\n<dl>{items}</dl>"
