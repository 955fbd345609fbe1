"""Files that are not ours, or that somebody changed, are refused by their path and cause."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from tests.weight_files import (
    METADATA,
    PACKED,
    SCALES,
    TENSORS,
    Tensors,
    assert_equal,
    build,
    refuse,
)
from wgpu_q4.files import load_file
from wgpu_q4.weight import Q4Weight


def test_a_file_that_another_program_wrote_loads_whatever_its_order(tmp_path: Path) -> None:
    # Other tensors in it, scales at an odd offset, and before the packed bytes or behind them.
    one_byte: Tensors = {"unrelated": ("U8", [1], b"x")}
    for order in (TENSORS, dict(reversed(TENSORS.items()))):
        for tensors in (one_byte | order, order | one_byte):
            (tmp_path / "w").write_bytes(build(tensors, METADATA))
            loaded = load_file(tmp_path / "w")
            assert list(loaded) == ["w", "tied"]
            assert loaded["tied"] is loaded["w"]
            assert loaded["w"].scales.flags.aligned
            assert_equal(loaded["w"], Q4Weight(PACKED, SCALES))


def test_an_alias_may_come_before_its_matrix(tmp_path: Path) -> None:
    weights = {"tied": {"alias_of": "w"}, "w": {"group_size": 16}}
    (tmp_path / "w").write_bytes(build(TENSORS, {"version": 1, "weights": weights}))
    loaded = load_file(tmp_path / "w")
    assert list(loaded) == ["tied", "w"]
    assert loaded["tied"] is loaded["w"]


def test_a_truncated_file_is_refused_at_every_length(tmp_path: Path) -> None:
    content = build(TENSORS, METADATA)
    for length in (*range(0, 16), *range(16, len(content), 7), len(content) - 1):
        refuse(tmp_path / "w", content[:length], "is not a whole safetensors file")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not a tensor in sight" * 10, "is not a whole safetensors file .* truncated or foreign"),
        (struct.pack("<Q", 1 << 62) + build(TENSORS, METADATA)[8:], "header too large"),
        (struct.pack("<Q", 1 << 20) + build(TENSORS, METADATA)[8:], "invalid header length"),
        (struct.pack("<Q", 4) + b"[[[[", "invalid JSON in header"),
        (struct.pack("<Q", 1 << 16) + b"[" * (1 << 16), "invalid JSON in header"),
        (build(TENSORS, METADATA) + b"more", "not fully covered"),
        (b"GGUF" + bytes(60), "it is a GGUF file: use from_gguf"),
    ],
    ids=["text", "huge header", "long header", "bad JSON", "deep JSON", "more bytes", "GGUF"],
)
def test_foreign_bytes(tmp_path: Path, content: bytes, message: str) -> None:
    refuse(tmp_path / "w", content, message)


def test_an_ordinary_safetensors_file_is_told_apart(tmp_path: Path) -> None:
    message = r"without q4gsw matrices.*Its tensors: '[a-h]', .* and 3 more\. .*Q4Weight\.quantize"
    for metadata in (None, {"format": "pt"}):
        tensors = {name: np.ones(2, np.float32) for name in "abcdefgh"}
        safetensors.numpy.save_file(tensors, tmp_path / "w", metadata)
        refuse(tmp_path / "w", (tmp_path / "w").read_bytes(), message)
    safetensors.numpy.save_file({}, tmp_path / "w")
    refuse(tmp_path / "w", (tmp_path / "w").read_bytes(), "Its tensors: none")


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ("{", "metadata is not JSON"),
        ("[" * 100_000, "metadata is not JSON"),
        ("9" * 10_000, "metadata is not JSON"),
        ([], r"must be an object with a 'version' of 1 or more, not \[\]"),
        ({}, "must be an object with a 'version'"),
        ({"version": "1"}, "must be an object with a 'version'"),
        ({"version": True}, "must be an object with a 'version'"),
        ({"version": 0}, "must be an object with a 'version'"),
        ({**METADATA, "version": 2}, "version 2 .* reads up to 1: upgrade wgpu_q4"),
        ({"version": 1}, "'weights' .* at least one name, not None"),
        ({"version": 1, "weights": {}}, "'weights' .* at least one name, not {}"),
        ({"version": 1, "weights": ["w"]}, r"'weights' .* not \['w'\]"),
    ],
)
def test_metadata_that_is_not_ours(tmp_path: Path, metadata: object, message: str) -> None:
    refuse(tmp_path / "w", build(TENSORS, metadata), message)


@pytest.mark.parametrize(
    "entry",
    [
        None,
        16,
        [],
        {},
        {"group_size": "16"},
        {"group_size": True},
        {"group_size": 16.0},
        {"alias_of": 3},
        {"alias_of": None},
        {"group_size": 16, "alias_of": "w"},
        {"alias_of": "w", "group_size": 16},
        {"size": 16},
        {"name": "x" * 1000},
    ],
)
def test_an_entry_is_a_group_size_or_an_alias(tmp_path: Path, entry: object) -> None:
    metadata = {"version": 1, "weights": {"w": entry}}
    message = "metadata of 'w' must be {'group_size': int} or {'alias_of': str}, not .{1,80}$"
    refuse(tmp_path / "w", build(TENSORS, metadata), message)


@pytest.mark.parametrize(
    ("aliases", "message"),
    [
        ({"a": "missing"}, "'a' is an alias of 'missing', which is not .* Stored: 'w'"),
        ({"a": "a"}, "'a' is an alias of 'a'"),
        ({"a": "b", "b": "a"}, "'a' is an alias of 'b'"),
        ({"a": "b", "b": "w"}, "'a' is an alias of 'b'"),
        ({"a": "w.packed"}, "'a' is an alias of 'w.packed'"),
        ({"a": "__metadata__"}, "'a' is an alias of '__metadata__'"),
    ],
)
def test_an_alias_names_a_stored_matrix(
    tmp_path: Path, aliases: dict[str, str], message: str
) -> None:
    weights: dict[str, object] = {"w": {"group_size": 16}}
    weights |= {name: {"alias_of": original} for name, original in aliases.items()}
    refuse(tmp_path / "w", build(TENSORS, {"version": 1, "weights": weights}), message)


def test_a_file_of_aliases_alone(tmp_path: Path) -> None:
    metadata = {"version": 1, "weights": {"a": {"alias_of": "w"}}}
    refuse(tmp_path / "w", build(TENSORS, metadata), "Stored: none")


BAD_SCALES = SCALES.copy()
BAD_SCALES[4, 1] = np.nan


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"w.packed": None}, "tensor 'w.packed', which its metadata asks for, is missing"),
        ({"w.scales": None}, "tensor 'w.scales', which its metadata asks for, is missing"),
        ({"w.packed": ("I8", [5, 24], bytes(120))}, "'w.packed' must be U8, not I8"),
        ({"w.scales": ("BF16", [5, 3], bytes(30))}, "'w.scales' must be F16 or F32, not BF16"),
        ({"w.scales": ("F64", [5, 3], bytes(120))}, "'w.scales' must be F16 or F32, not F64"),
        ({"w.scales": ("F8_E4M3", [5, 3], bytes(15))}, "must be F16 or F32, not F8_E4M3"),
        ({"w.packed": ("U8", [120], bytes(120))}, r"two dimensions, .* not shape \[120\]"),
        ({"w.packed": ("U8", [5, 4, 6], bytes(120))}, r"two dimensions, .* \[5, 4, 6\]"),
        ({"w.packed": ("U8", [], bytes(1))}, r"two dimensions, .* not shape \[\]"),
        ({"w.packed": ("U8", [0, 24], b"")}, r"none of them 0, not shape \[0, 24\]"),
        ({"w.scales": ("F16", [5, 0], b"")}, r"none of them 0, not shape \[5, 0\]"),
        ({"w.scales": ("F16", [3, 5], bytes(30))}, r"'w': scales must have shape .* not \[3, 5\]"),
        ({"w.packed": ("U8", [5, 22], bytes(110))}, "'w': scales has 3 groups a row, which does"),
        ({"w.packed": ("U8", [5, 6], bytes(30))}, "'w': rows have K = 12 values"),
        ({"w.scales": ("F16", [5, 12], bytes(120))}, "'w': group_size = 4 does not fit"),
        ({"w.packed": ("U8", [5, 12], bytes(60))}, r"group_size 16 .* make groups of 8"),
        ({"w.scales": ("F16", [5, 3], BAD_SCALES.tobytes())}, r"'w': scales\[4, 1\] is nan"),
    ],
)
def test_tensors_that_are_not_a_matrix(
    tmp_path: Path, tensors: dict[str, Any], message: str
) -> None:
    changed = {name: tensor for name, tensor in (TENSORS | tensors).items() if tensor is not None}
    refuse(tmp_path / "w", build(changed, METADATA), message)
