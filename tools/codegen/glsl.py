"""naga's GLSL as named blocks, with the names and the comments of its WGSL.

naga drops comments, and the names of ``let`` where they hold the result of a call; it numbers names
that occur again in another function.  This module removes functions that ``main`` does not reach,
brings names and comments back, and writes a temporary that is used once, at once, where it is used.
It does not change what is computed.
"""

from __future__ import annotations

import re
import string
from collections.abc import Mapping
from dataclasses import dataclass

_FUNCTION = re.compile(
    r"^(?P<head>\w+(?:\[\d+\])? (?P<name>\w+)\([^\n]*\)) \{\n(?P<body>.*?)^\}\n", re.M | re.S
)
_CONSTANT = re.compile(r"^const \w+ (?P<name>\w+) = .*;$", re.M)
_TEMPORARY = re.compile(r"^( +)(\w+) (_e\d+)((?:\[\d+\])?) = (.*);$")
_WGSL_FUNCTION = re.compile(
    r"(?P<comment>(?:^// [^\n]*\n)*)(?:^@[^\n]*\n)*^fn (?P<name>\w+)\((?P<rest>.*?)^\}", re.M | re.S
)
ASCII = str.maketrans(
    {"·": "*", "−": "-", "…": "...", "×": "x", "≥": ">=", "ᵀ": "^T", "⌈": "ceil(", "⌉": ")"}
)
"""The spelling of comments in files that ExecuTorch reads."""

_NAME = f"{string.ascii_letters}{string.digits}_."
# Words that WGSL allows and GLSL reserves (glslc refuses what is missing here): naga ends them
# with an underscore.
_RESERVED = frozenset({"active", "filter", "half", "input", "output", "packed", "sample", "shared"})


@dataclass(frozen=True)
class WgslFunction:
    """The comment above a WGSL function, and its text without comments."""

    comment: str
    body: str


def wgsl_functions(source: str) -> dict[str, WgslFunction]:
    """Return the functions of a WGSL module by name."""
    return {
        found["name"]: WgslFunction(
            found["comment"].translate(ASCII), re.sub(r"//[^\n]*", "", found["rest"])
        )
        for found in _WGSL_FUNCTION.finditer(source)
    }


def blocks(translated: str, wgsl: str, bindings: Mapping[int, str]) -> dict[str, str]:
    """Return the constants and functions of a translated module that ``main`` reaches, in order.

    Args:
        translated: the GLSL that naga wrote.
        wgsl: the module that naga read.
        bindings: the name for each WGSL binding number.
    """
    for number, name in bindings.items():
        translated = translated.replace(f"_group_0_binding_{number}_cs", name)
    sources = wgsl_functions(wgsl)
    found = {match["name"]: match[0] + "\n" for match in _CONSTANT.finditer(translated)}
    functions = {match["name"]: match for match in _FUNCTION.finditer(translated)}
    if "main" not in functions or functions.keys() != sources.keys():
        raise RuntimeError(f"functions of the translation: {sorted(functions)}: {sorted(sources)}")
    globals_ = {*functions, *found, *bindings.values()}
    words = set(re.findall(r"\w+", wgsl))
    for name, match in functions.items():
        source = sources[name]
        taken = globals_ | _RESERVED | set(re.findall(r"\w+", match[0]))
        body = _restore_names(match["body"], source.body, set(functions), taken)
        body = _inline_temporaries(body)
        text = f"{match['head']} {{\n{body}}}\n".replace("    return;\n}\n", "}\n")
        found[name] = source.comment + _unnumber(text, words, globals_).replace("    ", "  ")
    reached = _reached(found)
    return {name: text for name, text in found.items() if name in reached}


def _restore_names(body: str, source: str, functions: set[str], taken: set[str]) -> str:
    """Name the temporaries that stand for ``let name = call(…);``, unless the name is taken.

    naga writes calls that give a value in the order of the source; calls in the arguments of a call
    come before it.
    """
    called = re.compile(r"\b(\w+)\(")

    def calls(statement: str) -> list[str]:
        return [name for name in called.findall(statement) if name in functions]

    temporaries = [
        (found[3], found[5].partition("(")[0])
        for found in map(_TEMPORARY.match, body.splitlines())
        if found and found[5].partition("(")[0] in functions
    ]
    seen = 0
    for statement in re.split(r"[;{}]", source.partition("{")[2]):
        inside = calls(statement)
        let = re.fullmatch(r"\s*let (\w+) = (\w+)(\(.*\))\s*", statement, re.S)
        effect = re.match(r"\s*(\w+)\(", statement)
        if effect and effect[1] in functions:
            inside = inside[1:]  # called for its effect: no value
        seen += len(inside)
        if let and let[2] in functions and _is_one_group(let[3]):
            temporary, callee = temporaries[seen - 1]
            if callee != let[2]:
                raise RuntimeError(f"{let[1]} is {let[2]}(), but {temporary} is {callee}()")
            if let[1] not in taken:
                body = re.sub(rf"\b{temporary}\b", let[1], body)
    if seen != len(temporaries):
        raise RuntimeError(f"{seen} calls in the source, {len(temporaries)} temporaries:\n{body}")
    return body


def _is_one_group(text: str) -> bool:
    """Return True if the text is empty, or one pair of brackets with everything in it."""
    depth = 0
    for index, character in enumerate(text):
        depth += (character in "([") - (character in ")]")
        if depth == 0:
            return index == len(text) - 1
    return not text


def _inline_temporaries(body: str) -> str:
    """Write a temporary where it is used, if it is used once and in the next statement.

    Only temporaries lie between the two, and they only read memory that no kernel writes.
    """
    lines = body.splitlines()
    for index in range(len(lines) - 1, -1, -1):
        found = _TEMPORARY.match(lines[index])
        if not found or found[4] or not _is_one_group(found[5].lstrip(_NAME)):
            continue
        temporary, value = found[3], found[5]
        use = index + 1
        while use < len(lines) - 1 and _TEMPORARY.match(lines[use]):
            if temporary in re.findall(r"\w+", lines[use]):
                break
            use += 1
        uses = [re.findall(r"\w+", line).count(temporary) for line in lines]
        if uses[use] == 1 and sum(uses) == 2:
            before, _, after = re.split(rf"\b({temporary})\b", lines[use])
            lines[use] = before + value + after
            del lines[index]
    return "".join(f"{line}\n" for line in lines)


def _unnumber(text: str, words: set[str], taken: set[str]) -> str:
    """Take naga's numbers off the names of one function where the names stay distinct."""
    present = set(re.findall(r"\b[A-Za-z_]\w*\b", text))
    renamed: dict[str, str] = {}
    for name in sorted(present):
        base = re.sub(r"_\d*$", "", name)
        if base == name or name in words or base not in words or base in taken:
            continue
        plain = f"{base}_" if base in _RESERVED else base
        if plain != name and plain not in present and plain not in renamed.values():
            renamed[name] = plain
    for name, plain in renamed.items():
        text = re.sub(rf"\b{name}\b", plain, text)
    return text


def _reached(found: Mapping[str, str]) -> set[str]:
    """Return the names that ``main`` uses, directly or not."""
    reached: set[str] = set()
    waiting = ["main"]
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            code = re.sub(r"//.*", "", found[name])
            waiting.extend(word for word in re.findall(r"\w+", code) if word in found)
    return reached
