"""The comment that a piece opens with, held to the code below it.

WGSL has no modules: pieces are concatenated, and a piece may use whatever the others declare.  Its
header says what it takes from them (``Needs:``) and what it gives to them (``Defines:``), in the
order of the code.
"""

from __future__ import annotations

import re
from functools import cache

import pytest

from tools.codegen.shaders import WEBGPU_SHADERS, executorch_shaders
from wgpu_q4.kernels import Shader, all_shaders, piece_names, read_piece
from wgpu_q4.kernels.text import code_of, header_of, overrides_of, paragraph_of

DECLARATION = re.compile(
    r"^(?:@group\(0\) @binding\(\d+\) )?(?:fn|struct|alias|const|override|var(?:<[^>]*>)?) (\w+)",
    re.MULTILINE,
)
LABELS = ("Grid", "Assumes", "In range", "Needs", "Defines")


def shaders() -> tuple[Shader, ...]:
    return (*all_shaders(), *executorch_shaders(), *WEBGPU_SHADERS)


def declared(code: str) -> list[str]:
    """The names that a piece declares at module scope, in order."""
    return DECLARATION.findall(code)


@cache
def used(code: str) -> list[str]:
    """The names that a piece uses and does not declare, in the order of their first use."""
    inner = re.sub(r"^(const|override) \w+", "", code, flags=re.MULTILINE)
    own = {*declared(code), *re.findall(r"\b(?:let|var|const) (\w+)", inner)}
    own |= set(re.findall(r"\b(\w+):", code))  # parameters and fields
    found = re.findall(r"(?<![.\w])([A-Za-z_]\w*)", code)
    return list(dict.fromkeys(name for name in found if name not in own))


@cache
def taken_and_given() -> tuple[dict[str, set[str]], dict[str, set[str]]]:
    """What each piece uses of others, and what others use of it, in any shader."""
    codes = {piece: code_of(read_piece(piece)) for piece in piece_names()}
    uses = {piece: set(used(code)) for piece, code in codes.items()}
    declares = {piece: set(declared(code)) for piece, code in codes.items()}
    taken: dict[str, set[str]] = {piece: set() for piece in codes}
    given: dict[str, set[str]] = {piece: set() for piece in codes}
    for shader in shaders():
        for piece in shader.pieces:
            for other in shader.pieces:
                common = uses[piece] & declares[other]
                if piece != other:
                    taken[piece] |= common
                    given[other] |= common
    return taken, given


def stated(header: str, label: str) -> list[str]:
    """The names that a header lists."""
    text = paragraph_of(header, label)
    assert not text or text.endswith("."), f"{label}: {text}"
    return text.removesuffix(".").split(", ") if text else []


def disagreements(piece: str, text: str) -> list[str]:
    """What the header of a piece says wrongly, as lines to correct it by."""
    code, header = code_of(text), header_of(text)
    taken, given = taken_and_given()
    right = {
        "Needs": [name for name in used(code) if name in taken[piece]],
        "Defines": [n for n in declared(code) if n in given[piece] or n == "main"],
    }
    return [
        f"{piece}.wgsl must say '{label}: {', '.join(names)}.', not {stated(header, label)}"
        for label, names in right.items()
        if stated(header, label) != names
    ]


def test_every_header_says_what_its_piece_needs_and_defines() -> None:
    wrong = [line for piece in piece_names() for line in disagreements(piece, read_piece(piece))]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("load_scale(row, k8", "load_other(row, k8"),  # listed, and no longer called
        (
            "load_bias(output)",
            "load_bias(output) + load_scales(output, 0u).x",
        ),  # called, not listed
        ("// Needs: embed_dim, vocab", "// Needs: vocab"),
        ("// Needs: embed_dim, vocab", "// Needs: vocab, embed_dim"),
        ("// Defines: main.", "// Defines: TEAM, main."),
        ("// Defines: main.", "//"),
    ],
)
def test_a_header_that_says_something_else_is_found(
    old: str, new: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    piece = "linear/gemv/gemv_rows"
    text = read_piece(piece)
    assert disagreements(piece, text) == []
    assert text.count(old) == 1
    changed = text.replace(old, new)
    taken, given = taken_and_given()
    taken = {**taken, piece: taken[piece] | ({"load_scales"} & set(used(code_of(changed))))}
    monkeypatch.setattr(f"{__name__}.taken_and_given", lambda: (taken, given))
    assert len(disagreements(piece, changed)) == 1


def test_what_a_piece_needs_every_shader_with_it_defines_once() -> None:
    for shader in shaders():
        names = [name for piece in shader.pieces for name in declared(code_of(read_piece(piece)))]
        assert len(set(names)) == len(names), f"{shader.name} declares a name twice"
        for piece in shader.pieces:
            missing = set(stated(header_of(read_piece(piece)), "Needs")) - set(names)
            assert not missing, f"{shader.name} lacks {missing} for {piece}"


def test_no_shader_has_a_piece_that_nothing_in_it_uses() -> None:
    for shader in shaders():
        codes = {piece: code_of(read_piece(piece)) for piece in shader.pieces}
        for piece, code in codes.items():
            others = {name for other in codes if other != piece for name in used(codes[other])}
            is_directive = "enable " in code
            assert "main" in declared(code) or is_directive or others & set(declared(code)), (
                f"{shader.name} has {piece} for nothing"
            )


def test_a_body_says_how_its_grid_covers_the_output() -> None:
    bodies = [piece for piece in piece_names() if "@compute" in read_piece(piece)]
    assert len(bodies) > 15
    for piece in bodies:
        header = header_of(read_piece(piece))
        assert paragraph_of(header, "Grid"), f"{piece}.wgsl has no 'Grid:'"
        assert re.search(r"invocation|workgroup", header.split("Grid:")[0]), piece


def test_labels_stand_in_one_order() -> None:
    for piece in piece_names():
        header = header_of(read_piece(piece))
        found = re.findall(r"^([A-Z][a-z]*(?: [a-z]+)?):", header, re.MULTILINE)
        assert set(found) <= set(LABELS), f"{piece}: {found}"
        assert found == sorted(found, key=LABELS.index), f"{piece}: {found}"


def test_constants_and_bindings_say_what_they_are() -> None:
    for piece in piece_names():
        text = read_piece(piece)
        for override in overrides_of(text):
            assert override.meaning, f"{piece}: {override.name} has no comment"
        for line in re.findall(r"^@group.*$", text, re.MULTILINE):
            assert re.search(r";  // \S", line), f"{piece}: no comment beside {line}"
