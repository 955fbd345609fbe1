"""Shaders that run without bounds checks: each says why its indices stay in range, and its loops
end."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.unit.kernels.every_shader import unchecked
from wgpu_q4.kernels import Shader, read_piece
from wgpu_q4.kernels.text import code_of, evaluate, header_of, values_of


def arrays_of(code: str) -> set[str]:
    """The variables of a module that are indexed by address."""
    pattern = r"var<(?:storage|workgroup)[^>]*>\s+(\w+)\s*:\s*array<"
    return set(re.findall(pattern, code))


def indexing(shader: Shader) -> set[str]:
    """The pieces of a shader that index a buffer or workgroup memory."""
    arrays = arrays_of(code_of(shader.source))
    indexed = re.compile(rf"\b(?:{'|'.join(arrays)})\s*\[")
    return {piece for piece in shader.pieces if indexed.search(code_of(read_piece(piece)))}


def test_what_runs_unchecked_says_why_it_stays_in_range() -> None:
    shaders = {plan.shader for plan in unchecked()}
    assert len(shaders) > 20
    pieces = set().union(*map(indexing, shaders))
    assert pieces >= {
        "linear/gemv/team",
        "linear/gemv/gemv_blocks",
        "linear/common/quantize",
        "scales/f16",
    }
    silent = [p for p in sorted(pieces) if "In range:" not in header_of(read_piece(p))]
    assert silent == []


def test_what_runs_unchecked_reads_buffers_only() -> None:
    """A texture has its own bounds, and addresses may not come from data."""
    for shader in {plan.shader for plan in unchecked()}:
        assert {binding.kind for binding in shader.bindings} == {"buffer"}
        code, arrays = code_of(shader.source), arrays_of(code_of(shader.source))
        for index in indices_of(code, arrays):
            inner = re.search(rf"\b(?:{'|'.join(arrays)})\b", index)
            assert inner is None, f"{shader.name} takes an address from data: {index}"


def indices_of(code: str, arrays: set[str]) -> Iterator[str]:
    """What stands between the brackets after an array's name."""
    for match in re.finditer(rf"\b(?:{'|'.join(arrays)})\s*\[", code):
        yield balanced(code, match.end(), "[", "]")


def balanced(code: str, start: int, opening: str, closing: str) -> str:
    """The text from ``start`` to the bracket that closes the one before it."""
    depth = 1
    for end in range(start, len(code)):
        depth += (code[end] == opening) - (code[end] == closing)
        if depth == 0:
            return code[start:end]
    raise AssertionError("a bracket is not closed")


def test_loops_of_what_runs_unchecked_end() -> None:
    """wgpu counts the turns of others: a variable grows by a constant of one or more, below a bound
    that is no data, and nothing else changes it."""
    seen = 0
    for shader, plan in {plan.shader: plan for plan in unchecked()}.items():
        code, values = code_of(shader.source), values_of(shader.source, plan.constants)
        data = re.compile(rf"\b(?:{'|'.join(arrays_of(code))})\b")
        loops = list(loops_of(code))
        assert len(loops) == len(re.findall(r"\b(?:for|while|loop)\b", code))
        for name, bound, step, body in loops:
            assert not data.search(bound), f"{shader.name}: {bound}"
            assert evaluate(step, values) >= 1
            changes = rf"\b{name}\s*(?:[-+*/%&|^]|<<|>>)?=[^=]|\b{name}(?:\+\+|--)|&{name}\b"
            assert not re.search(changes, body), f"{shader.name} changes {name} within its loop"
            seen += 1
    assert seen > 40


def loops_of(code: str) -> Iterator[tuple[str, str, str, str]]:
    """Variable, bound, step and body of each loop of one of the two forms that are allowed."""
    head = r"for \(var (\w+) = [^;]+; \1 < ([^;]+); \1(?:(\+\+)| \+= ([^;{]+))\) \{"
    for match in re.finditer(head, code):
        body = balanced(code, match.end(), "{", "}")
        yield match[1], match[2], "1" if match[3] else match[4], body
    for match in re.finditer(r"while (\w+) < ([^{]+)\{", code):
        body = balanced(code, match.end(), "{", "}")
        last = re.search(rf"\b{match[1]} \+= ([^;]+);\s*$", body)
        assert last is not None, f"{match[0]} does not end by adding to {match[1]}"
        yield match[1], match[2], last[1], body[: last.start()]


@pytest.mark.parametrize(
    ("code", "ends"),
    [
        ("for (var i = 0u; i < N; i++) { f(i); }", True),
        ("for (var i = lane; i < N; i += TEAM) { f(i); }", True),
        ("while k < n && m < n { f(k); k += 2u; }", True),
        ("for (var i = 0u; i != N; i++) { f(i); }", False),
        ("for (var i = N; i > 0u; i--) { f(i); }", False),
        ("loop { f(i); }", False),
    ],
)
def test_loops_of_other_forms_are_not_taken_for_these(code: str, ends: bool) -> None:
    assert len(list(loops_of(code))) == ends
