"""docs/architectures.md: what the sweep found, as a page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import transformers

from tools.architectures.check import FAILS, NOT_TIED, NOT_TRIED, REFUSED, WORKS, Outcome

_INTRODUCTION = """\
# Architectures that `tie` was tried on

`make architectures` writes this page. It takes every class of the installed transformers that
scores the words of a vocabulary and ties parameters, by transformers' own tables. It builds a
small model of each from its default config, with random weights, and calls `wgpu_q4.nn.tie`. The
oracle is the same float model with the dequantized matrix:

- rows of the embedding are the same to the last bit;
- products of the head are within the error bound of float32 sums, for the same inputs;
- every output is within 1e-5 of its largest value, and quantizing changed an output by ten times
  more;
- greedy `generate` writes the same four tokens ("tokens"), where the float model writes any from
  these inputs.

Multimodal models get words alone if they take them. `tie` either leaves a model that works, or
refuses before it changes anything; the sweep compares modules, tensors and ties with those before.
"""

_SECTIONS = {
    FAILS: "Fails",
    REFUSED: "Refused, and nothing changed",
    NOT_TIED: "Not tied by transformers in a small model",
    NOT_TRIED: "Not tried",
}
_LONGEST = 200


def page(outcomes: Sequence[Outcome]) -> str:
    """Return the page for the installed transformers."""
    counts = Counter(each.status for each in outcomes)
    parts = [_INTRODUCTION, _summary(outcomes, counts)]
    for status, title in _SECTIONS.items():
        if counts[status]:
            parts.append(f"## {title}\n\n{_reasons(outcomes, status)}")
    works = [each for each in outcomes if each.status == WORKS]
    rows = [
        f"| {each.architecture.name} | {each.architecture.kind} | "
        f"{'outputs, tokens' if each.generates else 'outputs'} |"
        for each in works
    ]
    table = "\n".join(["| architecture | kind | compared |", "| --- | --- | --- |", *rows])
    parts.append(f"## Works\n\n{table}\n")
    return "\n".join(parts)


def _summary(outcomes: Sequence[Outcome], counts: Counter[str]) -> str:
    kinds = list(dict.fromkeys(each.architecture.kind for each in outcomes))
    statuses = [WORKS, *(status for status in _SECTIONS if counts[status])]
    of_kind = Counter((each.architecture.kind, each.status) for each in outcomes)
    lines = [
        f"transformers {transformers.__version__}: {len(outcomes)} architectures.",
        "",
        f"| kind | {' | '.join(statuses)} |",
        f"| --- |{' ---: |' * len(statuses)}",
        *(
            f"| {kind} | {' | '.join(str(of_kind[kind, status]) for status in statuses)} |"
            for kind in sorted(kinds)
        ),
        f"| all | {' | '.join(str(counts[status]) for status in statuses)} |",
    ]
    return "\n".join(lines) + "\n"


def _reasons(outcomes: Sequence[Outcome], status: str) -> str:
    rows = [
        f"| {each.architecture.name} | {each.architecture.kind} | {_short(each.why)} |"
        for each in outcomes
        if each.status == status
    ]
    return "\n".join(["| architecture | kind | why |", "| --- | --- | --- |", *rows]) + "\n"


def _short(why: str) -> str:
    text = why.replace("|", "\\|").replace("<", "&lt;")
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST].rsplit(' ', 1)[0]} …"
