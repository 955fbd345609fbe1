"""A lookup on the host in a file of gigabytes reads the pages of its rows and no others."""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import struct
from pathlib import Path

import numpy as np

from tests.cases import Shape, assert_same_bits, random_weight
from wgpu_q4 import Q4Weight, embedding, load_file, reference

VOCAB, EMBED_DIM, GROUP_SIZE = 1 << 21, 4096, 128
ROW, SCALES_ROW = EMBED_DIM // 2, EMBED_DIM // GROUP_SIZE * 2


def resident_pages(path: Path) -> set[int]:
    """The pages of a file that are in memory, whoever reads them."""
    size = path.stat().st_size
    with path.open("r+b") as file, mmap.mmap(file.fileno(), size) as mapping:
        pages = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
        start = ctypes.c_char.from_buffer(mapping)
        mincore = ctypes.CDLL(None, use_errno=True).mincore
        mincore.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p
        failed = mincore(ctypes.addressof(start), size, pages)
        del start  # else the mapping cannot be closed
    assert failed == 0, os.strerror(ctypes.get_errno())
    return set(np.flatnonzero(np.frombuffer(bytes(pages), np.uint8) & 1).tolist())


def sparse_table(path: Path, rows: Q4Weight, ids: list[int]) -> int:
    """Write a file of 4.1 GiB that holds ``rows`` at ``ids`` and holes elsewhere.

    Returns:
        Where its packed bytes begin.
    """
    packed_bytes, scale_bytes = VOCAB * ROW, VOCAB * SCALES_ROW
    metadata = {"version": 1, "weights": {"w": {"group_size": GROUP_SIZE}}}
    packed = {"dtype": "U8", "shape": [VOCAB, ROW], "data_offsets": [0, packed_bytes]}
    ends = [packed_bytes, packed_bytes + scale_bytes]
    scales = {"dtype": "F16", "shape": [VOCAB, SCALES_ROW // 2], "data_offsets": ends}
    header = json.dumps(
        {
            "__metadata__": {"wgpu_q4": json.dumps(metadata)},
            "w.packed": packed,
            "w.scales": scales,
        }
    ).encode()
    header += b" " * (-len(header) % 8)
    start = 8 + len(header)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(start + packed_bytes + scale_bytes)
        for number, row in enumerate(ids):
            os.pwrite(file.fileno(), rows.packed[number].tobytes(), start + row * ROW)
            at = start + packed_bytes + row * SCALES_ROW
            os.pwrite(file.fileno(), rows.scales[number].tobytes(), at)
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return start


def pages_of(starts: list[int], nbytes: int) -> set[int]:
    """The pages on which these ranges of a file lie."""
    page = mmap.PAGESIZE
    return {
        number
        for start in starts
        for number in range(start // page, (start + nbytes - 1) // page + 1)
    }


def test_a_lookup_reads_the_pages_of_its_rows(tmp_path: Path) -> None:
    """16 ids of 2,097,152 read 16 pages and some of 4.1 GiB; loading reads the header."""
    rows = random_weight(Shape(16, EMBED_DIM, GROUP_SIZE), "float16")
    ids = np.random.default_rng(0).choice(VOCAB, 16, replace=False)
    path = tmp_path / "table.safetensors"
    start = sparse_table(path, rows, ids.tolist())
    assert path.stat().st_size > 4 << 30
    assert path.stat().st_blocks * 512 < 1 << 20  # holes take no disk
    weight = load_file(path)["w"]
    loaded = resident_pages(path)
    assert len(loaded) * mmap.PAGESIZE < 64 << 20  # the header, and what the system reads ahead
    order = np.concatenate([ids, ids[:3]])
    found = embedding(order, weight, device="host")
    read = resident_pages(path) - loaded
    places = np.concatenate([np.arange(16), np.arange(3)])
    assert_same_bits(found, reference.embedding(places, rows))
    assert read == (
        pages_of((start + ids * ROW).tolist(), ROW)
        | pages_of((start + VOCAB * ROW + ids * SCALES_ROW).tolist(), SCALES_ROW)
    )
    assert len(read) <= 48
