"""The two tables of docs/performance.md, from committed figures.

``python -m benchmarks.speed_table`` writes them, and draws the plots of those figures.  A test
holds the page against them.
"""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks import whole_models
from tools.bench.document import Document
from tools.bench.plots import draw
from wgpu_q4.bench.result import Result
from wgpu_q4.bench.table import duration

ROOT = Path(__file__).resolve().parent.parent
FIGURES = ROOT / "benchmarks" / "results" / "nvidia-h200.json"
DAWN = FIGURES.with_name("nvidia-h200-dawn.json")
PAGE = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- speed: python -m benchmarks.speed_table -->\n", "<!-- end of speed -->\n"
BEGIN_MODELS, END_MODELS = (
    BEGIN.replace("speed:", "whole models:"),
    "<!-- end of whole models -->\n",
)

JOBS: tuple[tuple[str, int, dict[str, str]], ...] = (
    ("embedding", 16384, {"layout": "rows", "dtype": "float32"}),
    ("embedding", 16384, {"layout": "rows", "dtype": "float16"}),
    *(
        ("linear", rows, {"layout": "rows", "accuracy": accuracy})
        for rows in (1, 128)
        for accuracy in ("exact", "fast", "int8")
    ),
    *(("linear()", 1, {"accuracy": accuracy}) for accuracy in ("exact", "fast", "int8")),
    ("linear()", 1, {"accuracy": "exact", "reduce": "argmax"}),
)
"""What the table shows, as far as it was measured: op, size, what the detail must say."""


def section(document: Document, through_dawn: Document) -> str:
    """The sentence before the table, the table, and its last rows, in Markdown.

    Args:
        document: the figures.
        through_dawn: those of the same card through Dawn, whose matrix units make the last rows.
    """
    shape, adapter = document.shape, document.adapter
    lines = [
        f"One {adapter['name']}, Llama 3.2 1B's matrix ({shape.vocab} × {shape.embed_dim}, "
        f"G = {shape.group_size}), time on the GPU,",
        f"weights not in cache; a copy moves {document.copy_bandwidth / 1e12:.2f} TB/s in the same "
        f"run. `make bench` measures yours.",
        "",
        "| | wgpu_q4 | of the copy's bandwidth | others, same run |",
        "| --- | --- | --- | --- |",
    ]
    shown: set[tuple[str, int]] = set()
    for op, size, wanted in JOBS:
        ours = [r for r in document.results if _is_ours(r, document, op, size, wanted)]
        if len(ours) != 1:
            continue
        (result,) = ours
        share = result.moved / document.copy_bandwidth / result.timing.median
        bound = f"{share:.0%}".replace("%", " %") if result.moved and size in (1, 16384) else ""
        others = "" if (op, size) in shown else ", ".join(map(_other, _others(document, op, size)))
        shown.add((op, size))
        cells = [_name(op, size, wanted), duration(result.timing.median), bound, others]
        lines.append(" ".join(f"| {cell}".rstrip() for cell in cells) + " |")
    for rows in (32, 128, 512):
        (result,) = (
            r
            for r in through_dawn.results
            if _is_ours(r, through_dawn, "linear", rows, {"layout": "rows", "accuracy": "fast"})
        )
        assert result.detail["kernel"] == "gemm_matrix"
        rate = result.flops / result.timing.median / 1e12
        name = f"linear, {rows} rows, fast, on matrix units (Dawn): {rate:.0f} TFLOP/s"
        lines.append(f"| {name} | {duration(result.timing.median)} | | |")
    return "\n".join(lines) + "\n"


def _name(op: str, size: int, wanted: dict[str, str]) -> str:
    if op == "embedding":
        return f"embedding, {size:,} ids, {wanted['dtype']}"
    name = f"{op.removesuffix('()')}, {size} row{'s' if size > 1 else ''}, {wanted['accuracy']}"
    if "reduce" in wanted:
        name += f", {wanted['reduce']} on the device"
    return f"{name}: whole call, numpy to numpy" if op.endswith("()") else name


def _is_ours(
    result: Result, document: Document, op: str, size: int, wanted: dict[str, str]
) -> bool:
    return (
        (result.who, result.op, result.size) == ("wgpu_q4", op, size)
        and result.shape == document.shape
        and wanted.items() <= dict(result.detail).items()
        and wanted.get("reduce") == result.detail.get("reduce")
    )


def _others(document: Document, op: str, size: int) -> list[Result]:
    """Peers timed alike, on the device or as whole calls, fastest first."""
    found = [
        r
        for r in document.results
        if (r.op, r.size, r.shape) == (op.removesuffix("()"), size, document.shape)
        and r.who != "wgpu_q4"
        and (r.clock == "calls") == op.endswith("()")
    ]
    return sorted(found, key=lambda r: r.timing.median)


def _other(result: Result) -> str:
    detail = result.detail
    remarks = [detail["device"]] if detail["device"] == "cpu" else []
    if result.op == "linear":
        precise = detail["accuracy"] in ("exact", "not quantized")
        remarks.append(detail["dtype"] if precise else detail["accuracy"])
        remarks += [detail["accuracy"]] if detail["accuracy"] == "not quantized" else []
    remark = f" ({', '.join(remarks)})" if remarks else ""
    return f"{duration(result.timing.median)} {result.who}{remark}"


def rewritten(page: str, document: Document, through_dawn: Document) -> str:
    """Return ``page`` with the sections between their marks made anew."""
    page = _replaced(page, BEGIN, END, section(document, through_dawn))
    return _replaced(page, BEGIN_MODELS, END_MODELS, whole_models.table())


def _replaced(page: str, begin: str, end: str, text: str) -> str:
    before, _, rest = page.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}{text}{end}{after}"


def main() -> int:
    """Entry point; returns the exit status."""
    document = Document.read(FIGURES)
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(rewritten(text, document, Document.read(DAWN)), encoding="utf-8")
    print(f"wrote {PAGE}")
    for path in draw(document, FIGURES.parent, FIGURES.stem):
        print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
