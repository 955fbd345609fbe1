"""Headers that lie about sizes, and large ones, whose cost follows the size of the file."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import pytest
from gguf import GGMLQuantizationType as Kind

from tests.weight_files import (
    METADATA,
    TENSORS,
    TOKENS,
    build,
    random_floats,
    refuse,
    run_python,
    write_gguf,
)
from wgpu_q4.errors import FormatError
from wgpu_q4.files import load_file
from wgpu_q4.foreign import UnknownTensorError, from_gguf


def lay_out(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def tensor(start: Any, stop: Any, shape: Any = (4,), dtype: Any = "U8") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


@pytest.mark.parametrize(
    "offsets",
    [
        (0, 1 << 64),
        (1 << 64, (1 << 64) + 4),
        ((1 << 64) - 4, 0),
        (0, (1 << 64) + 4),
        (-4, 0),
        (4, 0),
        (0, 4.0),
        (0, True),
        (0, "4"),
        (0, None),
        (0, 5),
        (1, 5),
    ],
)
def test_offsets_that_leave_the_file(tmp_path: Path, offsets: tuple[Any, Any]) -> None:
    refuse(tmp_path / "w", lay_out({"a": tensor(*offsets)}, bytes(4)), "is not a whole safetensors")


@pytest.mark.parametrize(
    "header",
    [
        b"\xff\xfe",
        b"[]",
        b"3",
        b'{"__metadata__": {"a": 3}}',
        b'{"__metadata__": []}',
        b'{"a": {"dtype": "U8", "shape": [4]}}',
        b'{"a": 3}',
        json.dumps({"a": tensor(0, 4) | {"more": 1}}).encode(),
        json.dumps({"a": tensor(0, 4, dtype=3)}).encode(),
        json.dumps({"a": tensor(0, 4, shape=[-1, -4])}).encode(),
        json.dumps({"a": tensor(0, 4, shape=[1 << 63, 0])}).encode(),
        json.dumps({"a": tensor(0, 4, shape=[1] * 65)}).encode(),
        json.dumps({"a": tensor(0, 4, shape=[1 << 32, 1 << 32])}).encode(),
        json.dumps({"a\ud800": tensor(0, 4)}).encode(),
        json.dumps({"a": tensor(0, 2, [2]), "b": tensor(1, 4, [3])}).encode(),
        json.dumps({"a": tensor(0, 1, [1]), "b": tensor(2, 4, [2])}).encode(),
        b'{"a": %b, "a": %b}' % ((json.dumps(tensor(0, 4)).encode(),) * 2),
    ],
)
def test_headers_that_break_a_rule(tmp_path: Path, header: bytes) -> None:
    refuse(tmp_path / "w", lay_out(header, bytes(4)), "is not a whole safetensors file")


def test_a_name_that_is_twice_in_our_metadata(tmp_path: Path) -> None:
    entry = '{"version": 1, "weights": {"w": {"group_size": 16}, "w": {"group_size": 16}}}'
    refuse(tmp_path / "w", build(TENSORS, entry), "metadata is not JSON: a name is there twice")


def test_tensors_of_dtypes_to_come_are_left_alone(tmp_path: Path) -> None:
    content = build({**TENSORS, "new": ("F3_E1M1", [8], bytes(3))}, METADATA)
    (tmp_path / "w").write_bytes(content)
    assert list(load_file(tmp_path / "w")) == ["w", "tied"]


# GGUF

NAME = TOKENS.encode()


def lay_out_gguf(
    shape: tuple[int, ...] = (32, 1), kind: int = 2, offset: int = 0, metadata: bytes = b""
) -> bytes:
    """A GGUF file with one tensor, with one entry of metadata at most, and 64 bytes of data."""
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, bool(metadata)) + metadata
    head += struct.pack("<Q", len(NAME)) + NAME
    head += struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
    head += struct.pack("<IQ", kind, offset)
    return head + bytes(-len(head) % 32 + 64)


def entry(key: bytes, kind: int, value: bytes) -> bytes:
    return struct.pack("<Q", len(key)) + key + struct.pack("<I", kind) + value


ALIGNMENT = b"general.alignment"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lay_out_gguf(offset=(1 << 64) - 32), "the file ends before byte"),
        (lay_out_gguf(offset=1 << 63), "the file ends before byte"),
        (lay_out_gguf(offset=33), "is at offset 33, no multiple of 32"),
        (lay_out_gguf((32, 1 << 62)), "the file ends before byte"),
        (lay_out_gguf((1 << 40, 1 << 40)), "the file ends before byte"),
        (lay_out_gguf((40, 1)), "rows of 40 values are no whole blocks of 32"),
        (lay_out_gguf(kind=4_000_000), "has type 4000000, which this release"),
        (lay_out_gguf((32,) * 9), r"must have shape \[V, K\]"),
        (lay_out_gguf(metadata=entry(ALIGNMENT, 4, struct.pack("<I", 24))), "a power of two, not"),
        (lay_out_gguf(metadata=entry(ALIGNMENT, 4, struct.pack("<I", 0))), "a power of two, not 0"),
        (lay_out_gguf(metadata=entry(ALIGNMENT, 10, bytes(8))), "must be a uint32, not of type 10"),
        (lay_out_gguf(metadata=entry(b"a", 99, bytes(8))), "metadata of type 99, 0 arrays deep"),
        (
            lay_out_gguf(metadata=entry(b"a", 9, struct.pack("<IQ", 9, 1) * 50)),
            "metadata of type 9, 8 arrays deep",
        ),
        (
            lay_out_gguf(metadata=entry(b"a", 9, struct.pack("<IQQ", 8, 2, (1 << 64) - 8))),
            "the file ends before byte",
        ),
        (lay_out_gguf(metadata=entry(b"a", 8, struct.pack("<Q", (1 << 64) - 1))), "the file ends"),
    ],
)
def test_hostile_gguf_headers(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=message) as caught:
        from_gguf(path, TOKENS)
    assert str(path) in str(caught.value)


def test_every_type_of_metadata_is_stepped_over(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_array("words", ["a", "bc", "é"])
    writer.add_array("numbers", [1, 2, 3])
    writer.add_array("flags", [True, False])
    writer.add_bool("flag", True)
    writer.add_float64("double", 0.5)
    writer.add_int8("byte", -3)
    writer.add_uint16("short", 3)
    writer.add_string("text", "x" * 100)
    writer.add_custom_alignment(64)
    for name in ("other", TOKENS):
        writer.add_tensor(name, gguf.quantize(random_floats(), Kind.Q4_0), raw_dtype=Kind.Q4_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    expected = gguf.dequantize(gguf.quantize(random_floats(), Kind.Q4_0), Kind.Q4_0)
    assert (from_gguf(path, TOKENS).dequantize() == expected).all()


def test_nearest_names_are_found_among_many(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    data = gguf.quantize(random_floats(1, 32), Kind.Q4_0)
    names = [f"blk.{i}.{part}.weight" for i in range(200) for part in ("attn_q", "ffn_up")]
    write_gguf(path, dict.fromkeys([*names, TOKENS], (data, Kind.Q4_0)))
    for wrong, near in [("token_emb.weight", TOKENS), ("lk.77.attn_q.weight", names[2 * 77])]:
        with pytest.raises(UnknownTensorError, match=f"Did you mean '{near}'"):
            from_gguf(path, wrong)


def many_tensors() -> bytes:
    return lay_out({f"t{i}": tensor(0, 0, [0]) for i in range(100_000)})


def long_array() -> bytes:
    array = struct.pack("<IQ", 0, 3_000_000) + bytes(3_000_000)
    return lay_out_gguf(metadata=entry(b"a", 9, array))


def many_names() -> bytes:
    parts = [b"GGUF" + struct.pack("<IQQ", 3, 100_000, 0)]
    for i in range(100_000):
        name = f"blk.{i}.attn_q.weight".encode()
        parts += [struct.pack("<Q", len(name)), name, struct.pack("<IQQIQ", 2, 32, 1, 2, 0)]
    return b"".join(parts)


READ_LARGE = """
    import json, sys
    from wgpu_q4 import from_gguf, load_file
    import gguf
    path, reader = sys.argv[1:]
    def peak():
        with open("/proc/self/status") as status:
            return next(int(l.split()[1]) for l in status if l.startswith("VmHWM")) * 1024
    def read():
        try:
            load_file(path) if reader == "load_file" else from_gguf(path, "blk.77.atn_q.weight")
        except (ValueError, KeyError) as error:
            return str(error)
    before = peak()
    said = read()
    grown, calls = peak() - before, 0
    def count(frame, event, _):
        global calls
        calls += event in ("call", "c_call")
    sys.setprofile(count)
    read()
    sys.setprofile(None)
    print(json.dumps([said, grown, calls]))
"""


@pytest.mark.parametrize(
    ("content", "reader", "message"),
    [
        (many_tensors, "load_file", "without q4gsw matrices"),
        (long_array, "from_gguf", "It has 1: "),
        (many_names, "from_gguf", "Did you mean 'blk.77.attn_q.weight'"),
    ],
)
def test_large_headers_cost_what_their_size_explains(
    tmp_path: Path, content: Callable[[], bytes], reader: str, message: str
) -> None:
    path = tmp_path / "w"
    size = path.write_bytes(content())
    done = run_python(READ_LARGE, path, reader)
    assert done.returncode == 0, done.stderr
    error, grown, calls = json.loads(done.stdout)
    assert message in error
    assert grown < 16 * size, "bytes of memory for a byte of the file"
    assert calls < size, "function calls, which unlike time do not depend on the machine"
