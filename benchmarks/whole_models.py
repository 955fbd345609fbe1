"""Tokens a second of whole models on an H200, from committed figures: the rows of a table.

``results/calls/`` holds what `benchmarks.decoder` measured, and in ``nvidia-h200-others.json`` what
other programs reached.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_CALLS = Path(__file__).resolve().parent / "results" / "calls"

MODELS = {"smollm2-135m": "SmolLM2-135M", "llama-3.2-1b": "Llama 3.2 1B"}
"""Names of the models, by those in the files."""

PROMPT = 512
"""Ids of the prompt whose speed is shown."""


@dataclass(frozen=True)
class Row:
    """One program at one kind of work.

    Attributes:
        work: ``"decode"``, one token at a time, or ``"prompt"``, `PROMPT` ids at once.
        text: what a table says.
        label: what a plot says.
        rates: tokens a second, by the model's key in `MODELS`.
        is_ours: of this package.
    """

    work: str
    text: str
    label: str
    rates: Mapping[str, float]
    is_ours: bool = True


def rows() -> list[Row]:
    """Return the rows: for each kind of work first ours, then those of others."""
    own, dawn = (
        {model: _read(f"{adapter}-decoder-{model}.json") for model in MODELS}
        for adapter in ("nvidia-h200", "nvidia-h200-dawn")
    )
    matrix_units = "the same, `--accuracy fast`, on matrix units (Dawn)"
    ours = [
        Row("decode", "tokens a second", "wgpu_q4", _each(own, _decode)),
        Row("prompt", f"a prompt of {PROMPT}, exact", "wgpu_q4, exact", _each(own, _prompt)),
        Row("prompt", matrix_units, "wgpu_q4, fast (Dawn)", _each(dawn, _prompt)),
    ]
    others = [
        Row(other["work"], other["program"], other["program"], other["tokens a second"], False)
        for other in _read("nvidia-h200-others.json")["figures"]
    ]
    return sorted([*ours, *others], key=lambda row: row.work)


def table() -> str:
    """Return the rows in Markdown, three digits of thousands."""
    lines = [f"| | {' | '.join(MODELS.values())} |", "| --- | ---: | ---: |"]
    for row in rows():
        cells = [f"{_rounded(row.rates[model]):,}" for model in MODELS]
        lines.append(f"| {row.text} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _read(name: str) -> Any:
    return json.loads((_CALLS / name).read_text(encoding="utf-8"))


def _each(documents: Mapping[str, Any], rate: Any) -> dict[str, float]:
    return {model: rate(document) for model, document in documents.items()}


def _decode(document: Any) -> float:
    """Return the rate with a short context, at the best number of steps in a submission."""
    shortest = min(entry["context"] for entry in document["decode"])
    return max(
        float(entry["tokens a second"])
        for entry in document["decode"]
        if entry["context"] == shortest
    )


def _prompt(document: Any) -> float:
    (rate,) = (
        float(entry["tokens a second"]) for entry in document["prefill"] if entry["ids"] == PROMPT
    )
    return rate


def _rounded(rate: float) -> int:
    return round(rate) if rate < 10_000 else round(rate / 100) * 100
