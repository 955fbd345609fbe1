"""GGUF models that are split into several files, as the gguf library splits them."""

from __future__ import annotations

import re
from pathlib import Path

import gguf
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.weight_files import TOKENS, assert_equal, random_floats
from wgpu_q4.foreign import UnknownTensorError, from_gguf, load_tied
from wgpu_q4.foreign.shards import first_files, other_shards
from wgpu_q4.weight import Q4Weight


def write_split(folder: Path, tensors: dict[str, NDArray[np.float32]], small: bool) -> list[Path]:
    """Write one tensor a file, with ``small`` after a file that has none."""
    writer = gguf.GGUFWriter(
        folder / "model.gguf", "llama", split_max_tensors=1, small_first_shard=small
    )
    for name, array in tensors.items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return sorted(folder.glob("*.gguf"))


TENSORS = {"blk.0.w": random_floats(3, 32), TOKENS: random_floats(8, 64), "z": random_floats(2, 32)}


@pytest.mark.parametrize("small", [True, False])
def test_a_tensor_is_found_from_any_file(tmp_path: Path, small: bool) -> None:
    files = write_split(tmp_path, TENSORS, small)
    assert len(files) == 3 + small
    for file in files:
        assert_equal(from_gguf(file, TOKENS), Q4Weight.quantize(TENSORS[TOKENS]))
        assert_equal(load_tied(file), Q4Weight.quantize(TENSORS[TOKENS]))
    assert_equal(load_tied(tmp_path), Q4Weight.quantize(TENSORS[TOKENS]))


def test_files_that_are_not_there_are_named(tmp_path: Path) -> None:
    files = write_split(tmp_path, TENSORS, small=True)
    files[2].unlink()
    message = f"has no tensor .* It has 2 in 3 files: .* not there: .*{files[2].name}$"
    with pytest.raises(UnknownTensorError, match=message):
        from_gguf(files[0], TOKENS)
    with pytest.raises(ValueError, match=f"part of a split model, .* {re.escape(str(files[2]))}"):
        load_tied(files[1])


def test_a_renamed_file_says_what_the_others_must_be_called(tmp_path: Path) -> None:
    files = write_split(tmp_path, TENSORS, small=True)
    first = files[0].rename(tmp_path / "first.gguf")
    with pytest.raises(UnknownTensorError, match=r"other 3 \(they must be called …-00001-of-00004"):
        from_gguf(first, TOKENS)


def test_names_of_files() -> None:
    name = "/m/a-00002-of-00003.gguf"
    assert other_shards(name, 3) == ["/m/a-00001-of-00003.gguf", "/m/a-00003-of-00003.gguf"]
    assert other_shards(name, 1) == other_shards(name, 4) == other_shards("/m/a.gguf", 3) == []
    assert first_files(["a-00001-of-00002.gguf", "a-00002-of-00002.gguf", "b.gguf"]) == [
        "a-00001-of-00002.gguf",
        "b.gguf",
    ]
