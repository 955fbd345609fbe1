"""The outcome of a soak: a table for people, JSON for programs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from tools.soak.stages import Outcome

BEGIN, END = "<!-- begin: make soak -->", "<!-- end: make soak -->"
_MIB = 1 << 20


def as_table(outcomes: Sequence[Outcome], adapter: str) -> str:
    """Return a Markdown table with a row for each stage."""
    lines = [
        f"{date.today():%Y-%m-%d}, on {adapter}:",
        "",
        "| stage | done, results checked | seconds | memory before → after | objects | faults |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for outcome in outcomes:
        done = ", ".join(f"{count:,} {name}" for name, count in sorted(outcome.counts.items()))
        before, after = outcome.before, outcome.after
        if before is None or after is None:
            held = objects = "not counted"
        else:
            held = f"{before.memory / _MIB:.0f} → {after.memory / _MIB:.0f} MiB"
            objects = f"{before.objects:,} → {after.objects:,}"
        lines.append(
            f"| {outcome.name} | {done} | {outcome.seconds:.0f} | {held} | {objects} "
            f"| {len(outcome.faults)} |"
        )
    return "\n".join(lines)


def as_json(outcomes: Sequence[Outcome], adapter: str) -> dict[str, Any]:
    """Return all that was counted."""
    return {
        "adapter": adapter,
        "stages": [
            {
                "name": outcome.name,
                "seconds": round(outcome.seconds, 3),
                "counts": dict(outcome.counts),
                "before": outcome.before and outcome.before.as_dict(),
                "after": outcome.after and outcome.after.as_dict(),
                "faults": outcome.faults,
            }
            for outcome in outcomes
        ],
    }


def write_into(path: Path, table: str) -> None:
    """Replace the text between the two marks of a document by ``table``.

    Raises:
        ValueError: the document has no such marks.
    """
    text = path.read_text()
    if BEGIN not in text or END not in text:
        raise ValueError(f"{path} has no lines {BEGIN} and {END}")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    path.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}")
