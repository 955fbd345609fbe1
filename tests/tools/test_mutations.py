"""A wrong character in a WGSL piece turns cases red on every backend that the piece reaches.

The pieces are copied and one is changed; ExecuTorch's shaders are generated anew from the copy, and
the parity harness runs wgpu with naga and with Tint, and the generated shaders on raw Vulkan.  If a
backend stayed green, it would not be running what is in the pieces, or no case would look.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tools.parity import Case, harness
from wgpu_q4 import kernels

ROOT = Path(__file__).resolve().parents[2]
BACKENDS = [name for name in harness.REQUIRED if name not in ("numpy", "executorch")]

# V and K such that a block's place is within the matrix even where its row and column are swapped.
FLAT = Case("mutations", 64, 32, 16, (5,), weight="flat", scales="float16")
BUFFER = Case("mutations", 64, 32, 16, (5,), weight="linear_buffer", scales="float32")
TEXTURE = Case("mutations", 64, 32, 16, (5,), weight="linear_texture2d", scales="float32")
PACKED = Case("mutations", 64, 32, 16, weight="linear_buffer", op="pack")
CASES = [FLAT, BUFFER, TEXTURE, PACKED]


@dataclass(frozen=True)
class Mutation:
    """``old`` becomes ``new`` in a piece, where it stands once."""

    piece: str
    old: str
    new: str


@dataclass(frozen=True)
class Round:
    """Mutations that reach different cases, made together to save time.

    Attributes:
        mutations: what is changed.
        red: the cases that must turn red, and no others.
        also: those that turn red as well where this package packs the blocks itself, with wgpu.
    """

    mutations: tuple[Mutation, ...]
    red: tuple[Case, ...]
    also: tuple[Case, ...] = ()


ROUNDS = {
    "offset, shift, n8 and k4 swapped": Round(
        (
            Mutation("weight/nibbles_embedding", "- 8.0", "- 7.0"),
            Mutation("weight/blocks_buffer", ">> (row & 4u)", ">> (row & 5u)"),
            Mutation("weight/blocks_texture2d", "vec2<u32>(k4, n8)", "vec2<u32>(n8, k4)"),
        ),
        (FLAT, BUFFER, TEXTURE),
    ),
    "shift, offset, mask": Round(
        (
            Mutation("weight/nibbles_embedding", "12u, 8u)", "12u, 9u)"),
            Mutation("weight/blocks_buffer", "- 8.0", "- 7.0"),
            Mutation("weight/blocks_texture2d", "vec4<u32>(15u)", "vec4<u32>(14u)"),
        ),
        (FLAT, BUFFER, TEXTURE),
    ),
    "half of a word, row to pack": Round(
        (
            Mutation("scales/f16", "* 16u", "* 15u"),
            Mutation("pack/pack_q4_linear_weight", "8u * n8 + 4u", "8u * n8 + 5u"),
        ),
        (FLAT, PACKED),
        (BUFFER, TEXTURE),
    ),
    "sum for product": Round(
        (Mutation("embedding/embedding_q4gsw", "weight * scale", "weight + scale"),),
        (FLAT, BUFFER, TEXTURE),
    ),
}


def red(result: harness.Result) -> dict[str, set[str]]:
    """Backend → the names of the cases that came out wrong, and did come out."""
    assert [column.name for column in result.columns] == BACKENDS
    for column in result.columns:
        assert not column.problem, f"{column.name}: {column.problem}"
        for case, cell in zip(result.cases, column.cells, strict=True):
            assert cell.status in ("exact", "differs"), f"{column.name}, {case.name}: {cell}"
    return {
        column.name: {
            case.name
            for case, cell in zip(result.cases, column.cells, strict=True)
            if cell.status == "differs"
        }
        for column in result.columns
    }


def generate(pieces: Path, out: Path) -> None:
    """The shaders of ``pieces``, of which the builder is to make only those with float results in
    buffers."""
    done = subprocess.run(
        [sys.executable, "-m", "tools.codegen", "--out", str(out)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    for file in out.glob("*.yaml"):
        text = file.read_text(encoding="utf-8")
        for value in ("texture3d", "half"):
            text = text.replace(f"      - VALUE: {value}\n", "")
        file.write_text(text, encoding="utf-8")


def run_with(pieces: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, set[str]]:
    monkeypatch.setenv(kernels.SOURCE_VARIABLE, str(pieces))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    generate(pieces, scratch / "glsl")
    return red(harness.run(CASES, BACKENDS, glsl=scratch / "glsl"))


def test_unchanged_pieces_are_green(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "wgsl"
    shutil.copytree(kernels.source_folder(), copy)
    assert run_with(copy, tmp_path, monkeypatch) == {name: set() for name in BACKENDS}


@pytest.mark.parametrize("name", ROUNDS)
def test_wrong_characters_are_red_everywhere(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "wgsl"
    shutil.copytree(kernels.source_folder(), copy)
    for mutation in ROUNDS[name].mutations:
        file = copy / f"{mutation.piece}.wgsl"
        text = file.read_text(encoding="utf-8")
        assert text.count(mutation.old) == 1, f"{mutation.piece} has changed: choose another place"
        file.write_text(text.replace(mutation.old, mutation.new), encoding="utf-8")
    expected = {case.name for case in ROUNDS[name].red}
    on_wgpu = expected | {case.name for case in ROUNDS[name].also}
    assert run_with(copy, tmp_path, monkeypatch) == {
        backend: on_wgpu if backend.startswith("wgpu") else expected for backend in BACKENDS
    }
