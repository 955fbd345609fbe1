"""The WGSL pieces in ``wgsl/``, and the shaders that they make when they are concatenated.

Nothing is substituted in the text: shapes and tile sizes are pipeline constants (``override``).
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal

from wgpu_q4.errors import DeviceError
from wgpu_q4.kernels.text import code_of


@dataclass(frozen=True)
class Binding:
    """One binding of group 0, as a WebGPU bind group layout entry describes it.

    Attributes:
        number: its ``@binding``.
        name: the WGSL variable's name.
        kind: the entry of the layout that ``description`` belongs to.
    """

    number: int
    name: str
    kind: Literal["buffer", "texture", "storage_texture"]
    description: tuple[tuple[str, str], ...]

    def layout_entry(self, visibility: int) -> dict[str, Any]:
        """The entry for ``create_bind_group_layout``."""
        return {
            "binding": self.number,
            "visibility": visibility,
            self.kind: dict(self.description),
        }


_FEATURES = {
    "f16": re.compile(r"^enable f16;", re.MULTILINE),
    "subgroups": re.compile(r"\bsubgroup[A-Z]\w*\(|@builtin\(subgroup_"),
    "matrices": re.compile(r"\bsubgroup_matrix_"),
}
"""Optional features of a device, and the sign in a kernel's text that it needs one."""

_DECLARATION = re.compile(
    r"^@group\(0\) @binding\((\d+)\) var(?:<(storage, read_write|storage, read|uniform)>)? "
    r"(\w+): ([^;]+);",
    re.MULTILINE,
)

_BUFFER_TYPES = {
    "storage, read_write": "storage",
    "storage, read": "read-only-storage",
    "uniform": "uniform",
}


def parse_bindings(source: str) -> tuple[Binding, ...]:
    """Return the bindings that a piece of WGSL declares, in the order of the text.

    Raises:
        ValueError: a declaration has a form that no piece uses yet.
    """
    found = tuple(_parsed(match) for match in _DECLARATION.finditer(source))
    if len(found) != len(re.findall(r"@binding\(", source)):
        raise ValueError("a binding must be declared on one line, as '@group(0) @binding(N) var…'")
    return found


def _parsed(match: re.Match[str]) -> Binding:
    number, space, name, declared = int(match[1]), match[2], match[3], match[4]
    if space is not None:
        return Binding(number, name, "buffer", (("type", _BUFFER_TYPES[space]),))
    description: tuple[tuple[str, str], ...]
    texture = re.fullmatch(r"texture_(\dd)<i32>", declared)
    if texture is not None:
        description = (("sample_type", "sint"), ("view_dimension", texture[1]))
        return Binding(number, name, "texture", description)
    stored = re.fullmatch(r"texture_storage_(\dd)<(\w+), write>", declared)
    if stored is None:
        raise ValueError(f"{name}: no kernel binds a {declared}")
    description = (
        ("access", "write-only"),
        ("format", stored[2]),
        ("view_dimension", stored[1]),
    )
    return Binding(number, name, "storage_texture", description)


@dataclass(frozen=True)
class Shader:
    """A WGSL module with one entry point, ``main``.

    Attributes:
        name: unique among all shaders.
        pieces: the names of its pieces, in the order of the text.
        summary: one line on what it computes.
    """

    name: str
    pieces: tuple[str, ...]
    summary: str = ""

    @property
    def source(self) -> str:
        """The complete WGSL text."""
        return "\n".join(f"// ---- {piece}.wgsl\n\n{read_piece(piece)}" for piece in self.pieces)

    @cached_property
    def features(self) -> frozenset[str]:
        """The optional features of a device that the shader needs: f16, subgroups or matrices."""
        code = code_of(self.source)
        return frozenset(name for name, sign in _FEATURES.items() if sign.search(code))

    @cached_property
    def bindings(self) -> tuple[Binding, ...]:
        """The bindings of all pieces, by number."""
        declared = (binding for piece in self.pieces for binding in piece_bindings(piece))
        return tuple(sorted(declared, key=lambda binding: binding.number))


SOURCE_VARIABLE = "WGPU_Q4_WGSL"


def source_folder() -> Path:
    """The folder of the WGSL pieces: inside an installed package, beside it in a checkout.

    ``WGPU_Q4_WGSL`` names another one, for trying changed kernels.
    """
    named = os.environ.get(SOURCE_VARIABLE)
    if named:
        return Path(named)
    package = Path(__file__).resolve().parent.parent
    installed = package / "wgsl"
    return installed if installed.is_dir() else package.parent / "wgsl"


def piece_names() -> tuple[str, ...]:
    """Return the names of all pieces, sorted: paths below ``wgsl/`` without a suffix."""
    root = source_folder()
    return tuple(
        sorted(p.relative_to(root).with_suffix("").as_posix() for p in root.rglob("*.wgsl"))
    )


def piece_bindings(piece: str) -> tuple[Binding, ...]:
    """Return the bindings that the piece of that name declares.

    Raises:
        DeviceError: the file is missing, or it is not as this package expects it.
    """
    try:
        return parse_bindings(read_piece(piece))
    except ValueError as error:
        raise _damaged(piece, error) from error


@cache
def read_piece(piece: str) -> str:
    """Return the text of the piece of that name.

    Raises:
        DeviceError: the file is missing, or cannot be read.
    """
    try:
        return (source_folder() / f"{piece}.wgsl").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _damaged(piece, error) from error


def _damaged(piece: str, error: Exception) -> DeviceError:
    return DeviceError(
        f"the shader {source_folder() / piece}.wgsl cannot be used ({error}): install wgpu_q4 "
        f"again, or let {SOURCE_VARIABLE} name a folder with all of them"
    )
