"""Weights saved as safetensors: each matrix once, aligned, as documented; loading maps the file."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from numpy.typing import NDArray

from tests.weight_files import assert_equal, random_floats, run_python, tensors_of
from wgpu_q4 import format as q4gsw
from wgpu_q4.files import load_file, save_file
from wgpu_q4.weight import Q4Weight

EMBED, HEAD = "model.embed_tokens.weight", "lm_head.weight"


@pytest.mark.parametrize("as_path", [str, Path])
def test_a_tied_matrix_is_stored_once_and_comes_back_as_one_object(
    tmp_path: Path, as_path: Callable[[Path], Any]
) -> None:
    weight = Q4Weight.quantize(random_floats(), 24)
    path = as_path(tmp_path / "tied.safetensors")
    save_file({EMBED: weight, HEAD: weight}, path)

    tensors = tensors_of(tmp_path / "tied.safetensors")
    assert tensors.keys() == {f"{EMBED}.packed", f"{EMBED}.scales"}
    np.testing.assert_array_equal(tensors[f"{EMBED}.packed"], weight.packed, strict=True)
    np.testing.assert_array_equal(tensors[f"{EMBED}.scales"], weight.scales, strict=True)

    loaded = load_file(path)
    assert list(loaded) == [EMBED, HEAD]
    assert loaded[EMBED] is loaded[HEAD]
    assert loaded[EMBED].convention == "linear"
    assert_equal(loaded[EMBED], weight)


@pytest.mark.parametrize("scales_dtype", [np.float16, np.float32])
@pytest.mark.parametrize(
    ("vocab", "embed_dim", "group_size"),
    [(1, 8, 8), (1, 24, 24), (13, 24, 8), (8, 32, 32), (257, 40, 8), (3, 2048, 64)],
)
def test_shapes_and_dtypes_come_back(
    tmp_path: Path, vocab: int, embed_dim: int, group_size: int, scales_dtype: Any
) -> None:
    weight = Q4Weight.quantize(random_floats(vocab, embed_dim), group_size, scales_dtype)
    save_file({"w": weight}, tmp_path / "w")
    loaded = load_file(tmp_path / "w")["w"]
    assert_equal(loaded, weight)
    np.testing.assert_array_equal(loaded.dequantize(), weight.dequantize(), strict=True)


def test_equal_matrices_are_found_whatever_their_object_order_or_strides(tmp_path: Path) -> None:
    packed, scales = q4gsw.quantize(random_floats(), 24)
    swapped = q4gsw.repack(packed, "linear", "embedding")
    spread = np.repeat(packed, 2, axis=1)[:, ::2]
    weights = {
        "first": Q4Weight(swapped, scales, "embedding"),
        "copy": Q4Weight(packed.copy(), scales.copy()),
        "strided": Q4Weight(spread, np.asfortranarray(scales)),
        "other scales": Q4Weight(packed, scales * 2),
        "other dtype": Q4Weight(packed, scales.astype(np.float32)),
        "other values": Q4Weight(swapped, scales),
        "other scales again": Q4Weight(packed, scales * 2),
    }
    save_file(weights, tmp_path / "w")
    loaded = load_file(tmp_path / "w")
    assert list(loaded) == list(weights)
    same = {name: next(n for n in loaded if loaded[n] is loaded[name]) for name in loaded}
    assert same == {
        "first": "first",
        "copy": "first",
        "strided": "first",
        "other scales": "other scales",
        "other dtype": "other dtype",
        "other values": "other values",
        "other scales again": "other scales",
    }
    for name, weight in weights.items():
        assert_equal(loaded[name], weight)
    assert len(tensors_of(tmp_path / "w")) == 2 * 4


def test_strided_arrays_are_written_as_they_read(tmp_path: Path) -> None:
    # The safetensors library itself would write the memory behind such a view.
    packed, scales = q4gsw.quantize(random_floats(26, 96), 24)
    weight = Q4Weight(packed[::-2], scales[::-2])
    save_file({"w": weight}, tmp_path / "w")
    assert_equal(load_file(tmp_path / "w")["w"], weight)


def test_finding_equal_matrices_takes_one_comparison_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0
    compare = Q4Weight.same_matrix

    def counted(self: Q4Weight, other: Q4Weight) -> bool:
        nonlocal calls
        calls += 1
        return compare(self, other)

    monkeypatch.setattr(Q4Weight, "same_matrix", counted)
    packed = np.zeros((1, 4), np.uint8)
    scales = np.arange(300, dtype=np.float32).reshape(300, 1, 1) % 200
    save_file({f"w{i}": Q4Weight(packed, scales[i]) for i in range(300)}, tmp_path / "w")
    assert calls <= 300
    assert len(tensors_of(tmp_path / "w")) == 2 * 200


def test_names_may_look_like_ours(tmp_path: Path) -> None:
    names = ["a", "a.packed", "a.scales", "__metadata__", 'quo"te', "é 🙂\n", ""]
    weights = {name: Q4Weight.quantize(random_floats(seed=i)) for i, name in enumerate(names)}
    save_file(weights, tmp_path / "w")
    loaded = load_file(tmp_path / "w")
    assert list(loaded) == names
    for name, weight in weights.items():
        assert_equal(loaded[name], weight)


def sha256(array: NDArray[Any]) -> str:
    return hashlib.sha256(array.tobytes()).hexdigest()


def test_metadata_is_as_documented(tmp_path: Path) -> None:
    weight = Q4Weight.quantize(random_floats(), 24)
    save_file({EMBED: weight, HEAD: weight}, tmp_path / "w")
    with safetensors.safe_open(tmp_path / "w", framework="numpy") as file:
        metadata = file.metadata()
    assert metadata.keys() == {"wgpu_q4"}
    assert json.loads(metadata["wgpu_q4"]) == {
        "version": 1,
        "weights": {EMBED: {"group_size": 24}, HEAD: {"alias_of": EMBED}},
        "sha256": {EMBED: {"packed": sha256(weight.packed), "scales": sha256(weight.scales)}},
    }


def test_tensors_are_aligned_to_their_dtype(tmp_path: Path) -> None:
    # Odd numbers of bytes and of halves, which would misalign whatever came behind them.
    weights = {
        "z": Q4Weight.quantize(random_floats(3, 8), 8, "float16"),
        "a": Q4Weight.quantize(random_floats(5, 8), 8, "float32"),
        "m": Q4Weight.quantize(random_floats(7, 24), 24, "float16"),
    }
    save_file(weights, tmp_path / "w")
    loaded = load_file(tmp_path / "w")
    mapped = {id(base_of(weight.scales)) for weight in loaded.values()}
    assert len(mapped) == 1, "scales were copied for want of alignment"
    assert all(weight.scales.flags.aligned for weight in loaded.values())


def base_of(array: NDArray[Any]) -> Any:
    base: Any = array
    while getattr(base, "base", None) is not None:
        base = base.base
    return base


# Loading maps


def test_what_is_loaded_is_read_only(tmp_path: Path) -> None:
    save_file({"w": Q4Weight.quantize(random_floats())}, tmp_path / "w")
    weight = load_file(tmp_path / "w")["w"]
    for array in (weight.packed, weight.scales):
        with pytest.raises(ValueError, match="read-only"):
            array[0, 0] = 1
        with pytest.raises(ValueError, match="WRITEABLE"):
            array.flags.writeable = True


READ_AND_MEASURE = """
    import sys
    import numpy, safetensors.numpy, wgpu_q4.files
    def anonymous_bytes():
        with open("/proc/self/status") as status:
            return next(int(l.split()[1]) for l in status if l.startswith("RssAnon")) * 1024
    before = anonymous_bytes()
    if sys.argv[1] == "ours":
        packed = wgpu_q4.files.load_file(sys.argv[2])["w"].packed
    else:
        packed = safetensors.numpy.load_file(sys.argv[2])["w.packed"]
    assert packed.any()
    packed.max(axis=1)  # every page is read
    print(anonymous_bytes() - before)
"""


def test_a_large_file_is_never_copied_to_host_memory(tmp_path: Path) -> None:
    packed = np.full((1 << 15, 1 << 11), 0x5A, np.uint8)
    save_file({"w": Q4Weight(packed, np.ones((1 << 15, 16), np.float16))}, tmp_path / "w")
    size = os.path.getsize(tmp_path / "w")
    assert size > 64 << 20

    def growth(reader: str) -> int:
        done = run_python(READ_AND_MEASURE, reader, tmp_path / "w")
        assert done.returncode == 0, done.stderr
        return int(done.stdout)

    assert growth("ours") < size / 10
    assert growth("the library's") > size * 0.9, "the measure must see a copy where there is one"


def test_a_loaded_weight_outlives_its_file_and_can_be_saved_over_it(tmp_path: Path) -> None:
    path = tmp_path / "w"
    weight = Q4Weight.quantize(random_floats())
    save_file({"w": weight}, path)
    loaded = load_file(path)
    save_file({"again": loaded["w"]}, path)
    assert_equal(load_file(path)["again"], weight)
    path.unlink()
    assert_equal(loaded["w"], weight)
