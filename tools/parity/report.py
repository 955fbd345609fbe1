"""A run as text, as JSON, and as one HTML file (`report.html.jinja`)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2

from tools.parity.excuses import EXCUSES
from tools.parity.result import Cell, Result
from wgpu_q4.check.cases import Case
from wgpu_q4.check.excuses import Excuse

_MARKS = {"exact": "0", "excused": "0*", "not applicable": "-", "error": "ERR", "not run": "?"}


def mark(cell: Cell) -> str:
    """Return the text of a cell: the largest error in ulp, or a sign for its status."""
    if cell.status != "differs":
        return _MARKS[cell.status]
    # Zero ulp off and yet other bits: the sign of a zero.
    return "±0" if not cell.ulp else str(cell.ulp) if cell.ulp < 10_000 else f"{cell.ulp:.0e}"


def verdict(result: Result) -> str:
    """Return one line on the whole run."""
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
    """Return a table for the terminal: the cases that are not simply exact, and totals.

    Args:
        result: the run.
        everything: print a line for each case, also where every backend is exact.
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
    for excuse in _needed_excuses(result):
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
    """Return everything, for other programs."""
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
    """Return a page that needs nothing else: the matrix, the backends, and what did not run."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.jinja").render(
        result=result,
        verdict=verdict(result),
        rows=[{"case": case, "cells": cells} for case, cells in _rows(result)],
        groups=_GROUPS,
        excuses=_needed_excuses(result),
        mark=mark,
        detail=_detail,
        time=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    )


_GROUPS = {
    "upstream": "ExecuTorch's own 34 cases",
    "corners": "Corners that they miss",
    "random": "Random cases",
}


def _rows(result: Result) -> Iterator[tuple[Case, list[Cell]]]:
    for row, case in enumerate(result.cases):
        yield case, [column.cells[row] for column in result.columns]


def _needed_excuses(result: Result) -> list[Excuse]:
    needed = {name for column in result.columns for cell in column.cells for name in cell.excuses}
    return [excuse for excuse in EXCUSES if excuse.name in needed]


def _detail(cell: Cell) -> str:
    if cell.status == "differs":
        return f"{cell.differing} of {cell.values} values differ; {cell.remark}"
    parts = [*cell.excuses, cell.remark]
    if cell.status in ("exact", "excused"):
        parts.append(f"{cell.values} values, {cell.seconds:.3f} s")
    return "; ".join(filter(None, parts)) or cell.status
