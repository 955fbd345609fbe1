"""The texts of many kernels as one template in the language of ``gen_vulkan_spv.py``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from tools.codegen.interface import Value

Cases = Sequence[tuple[Mapping[str, Value], str]]
"""Template parameters of a kernel, and its text ("" where it has none)."""


def fold(cases: Cases, parameters: Sequence[str]) -> str:
    """Return one text with ``$if`` lines that expands to each case's text.

    Of the ways to decide between the texts, the one with the fewest lines is taken; among equals,
    the parameter that comes first.
    """
    texts = {text for _, text in cases}
    if len(texts) == 1:
        return texts.pop()
    best: str | None = None
    for parameter in parameters:
        values = list(dict.fromkeys(case[parameter] for case, _ in cases))
        if len(values) < 2:
            continue
        rest = [other for other in parameters if other != parameter]
        branches = [
            (value, fold([c for c in cases if c[0][parameter] == value], rest)) for value in values
        ]
        text = _branch(parameter, branches)
        if best is None or len(text.splitlines()) < len(best.splitlines()):
            best = text
    if best is None:
        raise ValueError(f"one set of parameters, {dict(cases[0][0])}, has several texts")
    return best


def _branch(parameter: str, branches: Sequence[tuple[Value, str]]) -> str:
    """Return ``$if … $else …`` over two values; a branch without text has no line."""
    (first, first_text), (_, second_text) = sorted(
        branches, key=lambda branch: (not branch[1], branch[0] is False)
    )
    lines = [f"$if {_condition(parameter, first)}:", *_indented(first_text)]
    if second_text:
        lines += ["$else:", *_indented(second_text)]
    return "".join(f"{line}\n" for line in lines)


def _condition(parameter: str, value: Value) -> str:
    if isinstance(value, bool):
        return parameter if value else f"not {parameter}"
    return f'{parameter} == "{value}"'


def _indented(text: str) -> list[str]:
    return [f"  {line}" if line else "" for line in text.splitlines()]


def merged_order(sequences: Iterable[Sequence[str]]) -> list[str]:
    """Return the names of all sequences; each name stands before its successors in any sequence.

    Raises:
        ValueError: two sequences contradict each other.
    """
    waiting = [list(sequence) for sequence in sequences]
    order: list[str] = []
    while any(waiting):
        heads = [sequence[0] for sequence in waiting if sequence]
        later = {name for sequence in waiting for name in sequence[1:]}
        free = [name for name in heads if name not in later]
        if not free:
            raise ValueError(f"no order suits all kernels: {heads}")
        order.append(free[0])
        waiting = [[n for n in sequence if n != free[0]] for sequence in waiting]
    return order
