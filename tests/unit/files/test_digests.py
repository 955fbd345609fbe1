"""Damaged bytes are noticed: each matrix is saved with its SHA-256."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.weight_files import METADATA, TENSORS, assert_equal, build, random_floats, refuse
from wgpu_q4.errors import FormatError
from wgpu_q4.files import load_file, loading, save_file
from wgpu_q4.weight import Q4Weight

DAMAGED_SCALES = "matrix 'w': its scales are not those that were saved"
DAMAGED_PACKED = "matrix 'w': its packed bytes are not those that were saved"


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A file of 8 × 3 float32 scales (96 bytes), then 8 × 48 packed bytes."""
    path = tmp_path / "w"
    save_file({"w": Q4Weight.quantize(random_floats(8, 96), 32, "float32")}, path)
    return path


def flip(path: Path, byte: int, bit: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[byte] ^= 1 << bit
    path.write_bytes(content)


def test_every_flipped_bit_of_the_data_is_noticed(saved: Path) -> None:
    content = saved.read_bytes()
    data = 96 + 8 * 48
    for byte in range(-data, 0):
        flip(saved, byte, byte % 8)
        with pytest.raises(FormatError, match=r"must be finite|are not those that were saved"):
            load_file(saved)
        saved.write_bytes(content)
    assert list(load_file(saved, verify=True)) == ["w"]


def test_a_flip_is_named_with_what_to_do(saved: Path) -> None:
    flip(saved, -1)
    with pytest.raises(
        FormatError, match=DAMAGED_PACKED + ".* Fetch it or save it again"
    ) as caught:
        load_file(saved)
    assert str(saved) in str(caught.value)


@pytest.mark.parametrize(
    ("byte", "quick", "full"),
    [(-1, None, DAMAGED_PACKED), (-8 * 48 - 96, DAMAGED_SCALES, DAMAGED_SCALES)],
    ids=["packed", "scales"],
)
def test_quick_checks_the_scales_of_a_large_file(
    saved: Path, monkeypatch: pytest.MonkeyPatch, byte: int, quick: str | None, full: str
) -> None:
    monkeypatch.setattr(loading, "QUICK_BYTES", saved.stat().st_size - 1)
    flip(saved, byte)
    assert list(load_file(saved, verify=False)) == ["w"]
    with pytest.raises(FormatError, match=full):
        load_file(saved, verify=True)
    if quick is None:
        assert list(load_file(saved)) == ["w"]
    else:
        with pytest.raises(FormatError, match=quick):
            load_file(saved)


def test_a_file_saved_before_there_were_digests_still_loads(tmp_path: Path) -> None:
    path = tmp_path / "w"
    path.write_bytes(build(TENSORS, METADATA))
    for verify in (False, "quick"):
        assert list(load_file(path, verify=verify)) == ["w", "tied"]
    with pytest.raises(FormatError, match=r'has no SHA-256 to verify.* verify="quick"'):
        load_file(path, verify=True)


def test_a_verified_matrix_comes_back_whatever_its_order(tmp_path: Path) -> None:
    weight = Q4Weight.quantize(random_floats(), 24)
    swapped = Q4Weight(weight.packed_as("embedding"), np.asfortranarray(weight.scales), "embedding")
    save_file({"a": swapped, "b": weight}, tmp_path / "w")
    assert_equal(load_file(tmp_path / "w", verify=True)["b"], weight)


@pytest.mark.parametrize(
    "digests",
    [
        None,
        [],
        {},
        {"w": None},
        {"w": {"packed": "0" * 64}},
        {"w": {"packed": "0" * 64, "scales": "0" * 63}},
        {"w": {"packed": "G" * 64, "scales": "0" * 64}},
        {"w": {"packed": 0, "scales": 0}},
        {"tied": {"packed": "0" * 64, "scales": "0" * 64}},
    ],
)
def test_digests_that_are_none(tmp_path: Path, digests: Any) -> None:
    message = "the SHA-256 of 'w' must be {'packed': 64 hex digits, 'scales': 64 hex digits}, not"
    refuse(tmp_path / "w", build(TENSORS, METADATA | {"sha256": digests}), message)


@pytest.mark.parametrize("verify", ["full", None, 1, 0, "True"])
def test_verify_is_one_of_three(saved: Path, verify: Any) -> None:
    with pytest.raises(ValueError, match='verify must be True, False or "quick", not'):
        load_file(saved, verify=verify)


def test_older_releases_read_what_is_saved(saved: Path) -> None:
    # They look at the version and at 'weights', where an entry has exactly these forms.
    text = saved.read_bytes()
    start = text.index(b'{"__metadata__"')
    header = json.loads(text[start : 8 + int.from_bytes(text[:8], "little")])
    ours = json.loads(header["__metadata__"]["wgpu_q4"])
    assert ours["version"] == 1
    assert ours["weights"] == {"w": {"group_size": 32}}
