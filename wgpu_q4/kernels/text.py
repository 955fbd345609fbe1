"""What the text of a shader says: overrides, workgroup, the comment that a piece opens with.

This reads the WGSL of ``wgsl/``, whose declarations have a few known forms, and no other.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_CONSTANT = re.compile(
    r"^(?P<kind>const|override) (?P<name>\w+)(?:: (?P<type>\w+))?(?: = (?P<value>[^;]+))?;"
    r"(?:[ ]*//[ ]*(?P<meaning>.*))?$",
    re.MULTILINE,
)
_SCALAR_BYTES = {"u32": 4, "i32": 4, "f32": 4, "f16": 2}


def code_of(wgsl: str) -> str:
    """Return WGSL without its comments."""
    return _COMMENT.sub("", wgsl)


def header_of(piece: str) -> str:
    """Return the comment with which the text of a piece opens, without its slashes."""
    lines = []
    for line in piece.splitlines():
        if not line.startswith("//"):
            break
        lines.append(line.removeprefix("//").removeprefix(" "))
    return "\n".join(lines)


def paragraph_of(header: str, label: str) -> str:
    """Return what a header says after ``label:``, up to the next label or empty line, on one line.

    A label is a capitalized phrase at the start of a line, as in ``In range:``.
    """
    pattern = rf"^{label}:(.*?)(?=^[A-Z][a-z]*(?: [a-z]+)?:|^\s*$|\Z)"
    found = re.search(pattern, header, re.MULTILINE | re.DOTALL)
    return "" if found is None else " ".join(found[1].split())


@dataclass(frozen=True)
class Override:
    """A pipeline constant.

    Attributes:
        name: what it is called in WGSL and in ``constants`` of a pipeline.
        type: its WGSL type.
        default: the expression that it has by default; None where it must be set.
        meaning: the comment beside it.
    """

    name: str
    type: str
    default: str | None
    meaning: str


def overrides_of(source: str) -> tuple[Override, ...]:
    """Return the pipeline constants that a shader declares, in the order of the text."""
    return tuple(
        Override(match["name"], match["type"], match["value"], match["meaning"] or "")
        for match in _CONSTANT.finditer(source)
        if match["kind"] == "override"
    )


def values_of(source: str, constants: Mapping[str, int]) -> dict[str, int]:
    """Return the integers that a shader's types may use, with these pipeline constants set."""
    values = dict(constants)
    for match in _CONSTANT.finditer(source):
        if match["value"] is not None and match["name"] not in values:
            try:
                values[match["name"]] = evaluate(match["value"], values)
            except ValueError:  # a float, a vector: no size depends on it
                continue
    return values


def workgroup_size(source: str, constants: Mapping[str, int]) -> int:
    """Return the invocations of a workgroup."""
    (sizes,) = re.findall(r"@workgroup_size\(([^)]*)\)", code_of(source))
    values, result = values_of(source, constants), 1
    for size in sizes.split(","):
        result *= evaluate(size, values)
    return result


def workgroup_bytes(source: str, constants: Mapping[str, int]) -> int:
    """Return the bytes of all ``var<workgroup>``."""
    code, values = code_of(source), values_of(source, constants)
    types = re.findall(r"var<workgroup>\s+\w+\s*:\s*([^;]+);", code)
    for alias, meant in re.findall(r"\balias (\w+) = ([^;]+);", code):
        types = [re.sub(rf"\b{alias}\b", meant, type_) for type_ in types]
    return sum(_bytes_of(type_.strip(), values) for type_ in types)


def _bytes_of(type_: str, values: Mapping[str, int]) -> int:
    if array := re.fullmatch(r"array<(.+),([^,<>]+)>", type_):
        return _bytes_of(array[1].strip(), values) * evaluate(array[2], values)
    if vector := re.fullmatch(r"vec([24])<(\w+)>", type_):
        return int(vector[1]) * _SCALAR_BYTES[vector[2]]
    if atomic := re.fullmatch(r"atomic<(\w+)>", type_):
        return _SCALAR_BYTES[atomic[1]]
    return _SCALAR_BYTES[type_]


_OPERATIONS: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.floordiv,
    ast.Mod: operator.mod,
}


def evaluate(expression: str, values: Mapping[str, int]) -> int:
    """Return the value of an expression of WGSL's integers.

    Raises:
        ValueError: it is no such expression, or uses a name that has no value.
    """
    python = re.sub(r"\b(\d+)[ui]\b", r"\1", expression.strip())
    try:
        return _evaluated(ast.parse(python, mode="eval").body, values)
    except (SyntaxError, KeyError):
        raise ValueError(f"{expression!r} is no expression of known integers") from None


def _evaluated(node: ast.expr, values: Mapping[str, int]) -> int:
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATIONS:
        left, right = _evaluated(node.left, values), _evaluated(node.right, values)
        return _OPERATIONS[type(node.op)](left, right)
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        return node.value
    if isinstance(node, ast.Name):
        return values[node.id]
    raise ValueError(f"{ast.unparse(node)} is no expression of known integers")
