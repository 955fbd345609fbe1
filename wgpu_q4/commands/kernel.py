"""Print a kernel's complete WGSL, or list the kernels.

A kernel is one WGSL module, ready to be used in other WebGPU code, below a comment with its
bindings, constants and grid.

Examples:
  wgpu-q4 kernel | grep int8
  wgpu-q4 kernel linear_q4gsw_gemv_rows_float16_scales > linear.wgsl

--json prints:
  wgpu_q4      the version
  kernels      that kernel, or all: name, summary, and wgsl, which is null in the list of all
"""

from __future__ import annotations

import argparse
import difflib
import re
import textwrap
from collections.abc import Iterable, Iterator

from wgpu_q4 import __version__
from wgpu_q4.commands.answer import Answer, UsageError
from wgpu_q4.kernels import Shader, all_shaders, read_piece
from wgpu_q4.kernels.examples import examples
from wgpu_q4.kernels.text import (
    code_of,
    header_of,
    overrides_of,
    paragraph_of,
    workgroup_bytes,
    workgroup_size,
)

_WIDTH = 97
_LETTERS = (
    "The weight has V rows of K columns, of which G share a scale; x has M rows, and M' is M",
    "rounded up to a multiple of the rows that a workgroup takes.",
    "",
)
_DECLARED = re.compile(
    r"^@group\(0\) @binding\((?P<number>\d+)\) var(?:<(?P<space>[^>]*)>)? "
    r"(?P<name>\w+): (?P<type>[^;]+);  // (?P<meaning>.*)$",
    re.MULTILINE,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("name", metavar="KERNEL", nargs="?", help="its name; without it, list all")


def run(options: argparse.Namespace) -> Answer:
    """Return the kernel, or the list.

    Raises:
        UsageError: no kernel has that name.
    """
    shaders = {shader.name: shader for shader in all_shaders()}
    name: str | None = options.name
    if name is not None and name not in shaders:
        close = ", ".join(closest(name, list(shaders))) or "none"
        raise UsageError(
            f"there is no kernel {name!r}. Names like it: {close}. 'wgpu-q4 kernel' lists them all."
        )
    shown = list(shaders.values()) if name is None else [shaders[name]]
    wgsl = None if name is None else lifted(shaders[name])
    width = max(map(len, shaders))
    lines = [f"{shader.name:{width}}  {shader.summary}" for shader in shown]
    listed = [{"name": shader.name, "summary": shader.summary, "wgsl": wgsl} for shader in shown]
    return Answer({"wgpu_q4": __version__, "kernels": listed}, wgsl or "\n".join(lines))


def closest(name: str, known: list[str]) -> list[str]:
    """Return up to five of ``known`` that ``name`` may have meant, the closest first."""
    within = [other for other in known if name and name in other]
    return [*within, *difflib.get_close_matches(name, known, n=5, cutoff=0.3)][:5]


def lifted(shader: Shader) -> str:
    """Return the WGSL of a shader below a comment that says all that its host must know."""
    lines = [line for part in _header(shader) for line in _lines(part)]
    return "\n".join([*(f"// {line}".rstrip() for line in lines), "", shader.source])


def _header(shader: Shader) -> Iterator[str | list[str]]:
    """Yield sentences, which are wrapped, and the lines of tables, which are not."""
    source, headers = shader.source, [header_of(read_piece(piece)) for piece in shader.pieces]
    (body,) = (header for header in headers if _has_entry_point(shader, header))
    found = examples()[shader.name]
    dispatch = found.dispatch
    constants = ", ".join(f"{name} = {value}" for name, value in dispatch.constants.items())
    yield shader.name
    yield shader.summary
    yield ""
    yield f"From wgpu_q4 {__version__}. SPDX-License-Identifier: BSD-3-Clause"
    yield ""
    if "shape/overrides" in shader.pieces:
        yield list(_LETTERS)
    yield "Bindings, group 0:"
    declared = sorted(_DECLARED.finditer(source), key=lambda match: int(match["number"]))
    yield _table(
        (m["number"], m["name"], m["space"] or "texture", m["type"], m["meaning"]) for m in declared
    )
    yield ""
    yield "Pipeline constants:"
    yield _table(
        (o.name, o.type + (", to be set" if o.default is None else f" = {o.default}"), o.meaning)
        for o in overrides_of(source)
    )
    yield ""
    size = re.findall(r"@workgroup_size\(([^)]*)\)", code_of(source))[0]
    yield f"Entry point: main, with {size} invocations in a workgroup."
    yield f"Grid: {paragraph_of(body, 'Grid')}"
    if "folded" in body:
        yield "Folded: workgroup (x, y) is number y · (workgroups along x) + x."
    yield from (f"Assumes: {text}" for h in headers if (text := paragraph_of(h, "Assumes")))
    yield f"Needs: {'; '.join(_needed(shader))}."
    yield ""
    yield f"Example, {found.of}:"
    yield f"  constants {constants or 'none'}"
    yield "  workgroups {} × {} × {} of {} invocations, {:,} bytes of workgroup memory".format(
        *dispatch.workgroups,
        workgroup_size(source, dispatch.constants),
        workgroup_bytes(source, dispatch.constants),
    )
    if dispatch.needs is not None:
        needs = ", ".join(f"{name} {nbytes:,}" for name, nbytes in dispatch.needs.items())
        yield f"  no bounds checks are needed if the buffers have at least so many bytes: {needs}"


def _has_entry_point(shader: Shader, header: str) -> bool:
    texts = (read_piece(piece) for piece in shader.pieces)
    return any("@compute" in text and header_of(text) == header for text in texts)


def _needed(shader: Shader) -> Iterator[str]:
    """Yield what a device must have."""
    code = code_of(shader.source)
    features = re.findall(r"^enable (\w+);", code, re.MULTILINE)
    yield from (f"the WGSL extension {feature}" for feature in features)
    if "subgroup" in code and "subgroups" not in features:
        yield "the feature subgroups"
        yield "in browsers and on Dawn the line 'enable subgroups;' on top, which naga refuses"
    if "dot4I8Packed" in code:
        yield "the WGSL language feature packed_4x8_integer_dot_product"
    if "half/native" in shader.pieces:
        yield "half-precision functions that keep subnormals and round to nearest even"
    elif "linear/gemv/nibbles_subnormal" in shader.pieces:
        yield "half-precision functions that keep subnormals"
    if not features:
        yield "WebGPU's default limits"


def _table(rows: Iterable[tuple[str, ...]]) -> list[str]:
    """Return rows with their columns aligned, or one line where there are none."""
    cells = list(rows)
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    padded = [map(str.ljust, row, widths) for row in cells]
    return [f"  {'  '.join(row)}".rstrip() for row in padded] or ["  none"]


def _lines(part: str | list[str]) -> list[str]:
    """Return the lines of a table, or of a sentence: the first at its indent, the others deeper."""
    if isinstance(part, list):
        return part
    indent = " " * (len(part) - len(part.lstrip()) + 2)
    wrapped = textwrap.wrap(part, _WIDTH, subsequent_indent=indent, break_on_hyphens=False)
    return wrapped or [""]
