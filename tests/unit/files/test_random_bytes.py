"""Readers on random damage (Hypothesis): the matrix that was saved, or a typed error."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind
from hypothesis import example, given
from hypothesis import strategies as st

from tests.weight_files import TOKENS, assert_equal, random_floats, write_gguf
from wgpu_q4.errors import FormatError
from wgpu_q4.files import load_file, save_file
from wgpu_q4.foreign import UnknownTensorError, from_gguf
from wgpu_q4.pte import inspect_pte
from wgpu_q4.weight import Q4Weight

Damage = Callable[[bytes], bytes]


@st.composite
def damages(draw: st.DrawFn) -> Damage:
    """Draw up to four changes to bytes: other bytes in place of some, a piece lost or doubled."""
    changes = draw(
        st.lists(
            st.tuples(
                st.sampled_from(["overwrite", "cut", "double", "end"]),
                st.floats(0, 1, exclude_max=True),  # where, as a part of the whole
                st.binary(min_size=1, max_size=9),
            ),
            min_size=1,
            max_size=4,
        )
    )

    def damage(content: bytes) -> bytes:
        for kind, part, octets in changes:
            at = int(part * len(content))
            behind = at + len(octets)
            match kind:
                case "overwrite":
                    content = content[:at] + octets + content[behind:]
                case "cut":
                    content = content[:at] + content[behind:]
                case "double":
                    content = content[:behind] + content[at:]
                case _:
                    content = content[:at]
        return content

    return damage


WEIGHT = Q4Weight.quantize(random_floats(3, 64))


def file_of(write: Callable[[Path], Any]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "w")
        return (Path(folder) / "w").read_bytes()


BLOCKS = gguf.quantize(random_floats(3, 64), Kind.Q4_0)
SAVED = file_of(lambda path: save_file({"w": WEIGHT, "tied": WEIGHT}, path))
GGUF = file_of(lambda path: write_gguf(path, {TOKENS: (BLOCKS, Kind.Q4_0)}))


def read(reader: Callable[[Path], Any], content: bytes) -> Any:
    """Return what a reader makes of bytes, None if it refuses them by a typed error."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "w"
        path.write_bytes(content)
        try:
            return reader(path)
        except (FormatError, UnknownTensorError) as error:
            message = str(error)
    assert str(path) in message
    message.encode()  # it can be printed
    return None


@given(damages())
def test_a_damaged_safetensors_file(damage: Damage) -> None:
    loaded = read(lambda path: load_file(path, verify=True), damage(SAVED))
    for weight in (loaded or {}).values():  # what was changed is a name, or a space
        assert_equal(weight, WEIGHT)


@given(damages())
def test_a_damaged_file_that_is_not_verified(damage: Damage) -> None:
    for weight in (read(lambda path: load_file(path, verify=False), damage(SAVED)) or {}).values():
        assert np.isfinite(weight.dequantize()).all()


@given(damages())
def test_a_damaged_gguf(damage: Damage) -> None:
    weight = read(lambda path: from_gguf(path, TOKENS), damage(GGUF))
    assert weight is None or weight.dequantize().size


@given(st.binary(max_size=200))
@example(b"")
@pytest.mark.parametrize(
    ("start", "reader"),
    [
        (SAVED[:9], load_file),
        (b"", load_file),
        (GGUF[:24], lambda path: from_gguf(path, TOKENS)),
        (b"", lambda path: from_gguf(path, TOKENS)),
        (b"\x20\0\0\0ET12eh00", inspect_pte),
        (b"\x20\0\0\0ET12", inspect_pte),
        (b"", inspect_pte),
    ],
    ids=["safetensors", "load_file", "GGUF", "from_gguf", "pte header", "pte", "inspect_pte"],
)
def test_random_bytes_are_no_file(
    start: bytes, reader: Callable[[Path], Any], content: bytes
) -> None:
    read(reader, start + content)
