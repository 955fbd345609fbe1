"""Matrices in files: stored once, mapped, whole or absent; hostile files are part of the tests."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import stat
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import safetensors.numpy
from gguf import GGMLQuantizationType as Kind
from numpy.typing import NDArray

from wgpu_q4 import format as q4gsw
from wgpu_q4.errors import FormatError
from wgpu_q4.files import UnknownTensorError, from_gguf, load_file, save_file
from wgpu_q4.files import safetensors as ours
from wgpu_q4.weight import Q4Weight

EMBED, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def random_floats(vocab: int = 13, embed_dim: int = 96, seed: int = 0) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((vocab, embed_dim)).astype(np.float32)


def assert_equal(result: Q4Weight, expected: Q4Weight) -> None:
    assert result.group_size == expected.group_size
    np.testing.assert_array_equal(result.packed_as("linear"), expected.packed_as("linear"))
    np.testing.assert_array_equal(result.scales, expected.scales, strict=True)


def tensors_of(path: Path) -> dict[str, NDArray[Any]]:
    """What any safetensors reader sees."""
    return safetensors.numpy.load_file(path)


def names_in(directory: Path) -> list[str]:
    return sorted(os.listdir(directory))


def run_python(code: str, *args: object, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "if True:\n" + code, *map(str, args)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=120, **options
    )


# Saving and loading


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


def test_metadata_is_as_documented(tmp_path: Path) -> None:
    weight = Q4Weight.quantize(random_floats(), 24)
    save_file({EMBED: weight, HEAD: weight}, tmp_path / "w")
    with safetensors.safe_open(tmp_path / "w", framework="numpy") as file:
        metadata = file.metadata()
    assert metadata.keys() == {"wgpu_q4"}
    assert json.loads(metadata["wgpu_q4"]) == {
        "version": 1,
        "weights": {EMBED: {"group_size": 24}, HEAD: {"alias_of": EMBED}},
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


# Whole or absent


@pytest.fixture
def old_file(tmp_path: Path) -> Iterator[Path]:
    """A saved file; afterwards it must be whole, and nothing may lie beside it."""
    path = tmp_path / "weights.safetensors"
    weight = Q4Weight.quantize(random_floats())
    save_file({"old": weight}, path)
    content = path.read_bytes()
    yield path
    assert path.read_bytes() == content
    assert_equal(load_file(path)["old"], weight)
    assert names_in(tmp_path) == [path.name]


@pytest.mark.parametrize("step", ["write_tensors", "os.fsync", "os.chmod", "os.replace"])
@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "disk full"), KeyboardInterrupt()])
def test_a_save_that_fails_leaves_the_old_file(
    old_file: Path, step: str, failure: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise failure

    monkeypatch.setattr(f"wgpu_q4.files.safetensors.{step}", fail)
    with pytest.raises(type(failure)):
        save_file({"new": Q4Weight.quantize(random_floats(seed=1))}, old_file)
    monkeypatch.undo()


def test_a_save_that_fails_halfway_through_its_bytes_leaves_the_old_file(old_file: Path) -> None:
    code = """
        import resource, sys
        import numpy as np
        from wgpu_q4.files import save_file
        from wgpu_q4.weight import Q4Weight
        weight = Q4Weight(np.zeros((1024, 4096), np.uint8), np.ones((1024, 8), np.float32))
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
        try:
            save_file({"new": weight}, sys.argv[1])
        except OSError as error:
            print(error)
    """
    done = run_python(code, old_file)
    assert done.returncode == 0, done.stderr
    assert "weights.safetensors was not written" in done.stdout
    assert "File too large" in done.stdout


def test_a_save_that_is_killed_leaves_the_old_file(old_file: Path) -> None:
    code = """
        import os, signal, sys
        import numpy as np
        from wgpu_q4.files import safetensors as ours
        from wgpu_q4.weight import Q4Weight
        write = ours.write_tensors
        def write_half_and_die(tensors, path, metadata):
            write(tensors, path, metadata)
            os.truncate(path, os.path.getsize(path) // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        ours.write_tensors = write_half_and_die
        weight = Q4Weight(np.zeros((64, 64), np.uint8), np.ones((64, 1), np.float32))
        ours.save_file({"new": weight}, sys.argv[1])
    """
    assert run_python(code, old_file).returncode == -signal.SIGKILL
    # Nobody is left to remove the half file; it has a name of its own and is hidden.
    left = [name for name in names_in(old_file.parent) if name != old_file.name]
    assert len(left) == 1
    assert left[0].startswith(".wgpu-q4-")
    (old_file.parent / left[0]).unlink()


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_a_new_file_has_the_permissions_that_the_umask_allows(
    tmp_path: Path, umask: int, mode: int
) -> None:
    before = os.umask(umask)
    try:
        save_file({"w": Q4Weight.quantize(random_floats())}, tmp_path / "w")
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(tmp_path / "w").st_mode) == mode


def test_a_replaced_file_keeps_its_permissions_and_a_link_its_target(tmp_path: Path) -> None:
    weight = Q4Weight.quantize(random_floats())
    (tmp_path / "elsewhere").mkdir()
    target, link = tmp_path / "elsewhere" / "w", tmp_path / "link"
    target.write_bytes(b"old")
    target.chmod(0o600)
    link.symlink_to(target)
    save_file({"w": weight}, link)
    assert link.is_symlink()
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert_equal(load_file(link)["w"], weight)


# Bad arguments


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([("w", 1)], "weights must be a dict {name: Q4Weight}, not list"),
        (Q4Weight.quantize(random_floats()), "must be a dict {name: Q4Weight}, not Q4Weight"),
        (None, "not NoneType"),
        ({1: Q4Weight.quantize(random_floats())}, r"every name must be a str, not int \(1\)"),
        ({"w": random_floats()}, r"weights\['w'\] must be a Q4Weight, not ndarray"),
        ({"w": None}, r"weights\['w'\] must be a Q4Weight, not NoneType"),
    ],
)
def test_only_named_weights_are_saved(tmp_path: Path, weights: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        save_file(weights, tmp_path / "w")
    assert names_in(tmp_path) == []


def test_nothing_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="weights is empty: give at least one"):
        save_file({}, tmp_path / "w")


def test_a_name_is_unicode(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"'a\\ud800' is not valid Unicode"):
        save_file({"a\ud800": Q4Weight.quantize(random_floats())}, tmp_path / "w")
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("path", [None, 3, b"bytes", ["w"]])
def test_a_path_is_a_path(path: Any) -> None:
    message = f"path must be a str or a pathlib.Path, not {type(path).__name__}"
    with pytest.raises(TypeError, match=message):
        save_file({"w": Q4Weight.quantize(random_floats())}, path)
    with pytest.raises(TypeError, match=message):
        load_file(path)


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no such directory: '.*/missing'"):
        save_file({"w": Q4Weight.quantize(random_floats())}, tmp_path / "missing" / "w")


def test_what_is_not_a_file_is_not_replaced(tmp_path: Path) -> None:
    weights = {"w": Q4Weight.quantize(random_floats())}
    with pytest.raises(IsADirectoryError, match="path is a directory"):
        save_file(weights, tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileExistsError, match="not a regular file"):
        save_file(weights, tmp_path / "pipe")
    assert names_in(tmp_path) == ["pipe"]


def test_a_missing_file_is_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="missing"):
        load_file(tmp_path / "missing")
    with pytest.raises(IsADirectoryError):
        load_file(tmp_path)


# Hostile safetensors files.  `build` lays one out byte by byte: the library refuses to write them.

PACKED, SCALES = q4gsw.quantize(random_floats(5, 48), 16)
METADATA = {"version": 1, "weights": {"w": {"group_size": 16}, "tied": {"alias_of": "w"}}}
Tensors = dict[str, tuple[str, list[int], bytes]]
TENSORS: Tensors = {
    "w.packed": ("U8", [5, 24], PACKED.tobytes()),
    "w.scales": ("F16", [5, 3], SCALES.tobytes()),
}


def build(tensors: Tensors, metadata: object) -> bytes:
    """A safetensors file with its tensors in the order given, and any JSON as our metadata."""
    text = metadata if isinstance(metadata, str) else json.dumps(metadata)
    header: dict[str, Any] = {"__metadata__": {"wgpu_q4": text}}
    data = b""
    for name, (dtype, shape, octets) in tensors.items():
        offsets = [len(data), len(data) + len(octets)]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
        data += octets
    encoded = json.dumps(header).encode()
    return struct.pack("<Q", len(encoded)) + encoded + data


def refuse(path: Path, content: bytes, message: str) -> None:
    path.write_bytes(content)
    with pytest.raises(FormatError, match=message) as caught:
        load_file(path)
    assert str(path) in str(caught.value)


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


def test_a_file_that_shrinks_between_check_and_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = build(TENSORS, METADATA)

    def accept_and_truncate(path: str, framework: str) -> Any:
        opened = safetensors.safe_open(path, framework)
        os.truncate(path, len(content) - 10)
        return opened

    monkeypatch.setattr(ours, "safe_open", accept_and_truncate)
    refuse(tmp_path / "w", content, "tensor 'w.scales' is cut short")


# GGUF

TOKENS = "token_embd.weight"


def write_gguf(
    path: Path,
    tensors: dict[str, tuple[NDArray[Any], Kind | None]],
    endianness: gguf.GGUFEndian = gguf.GGUFEndian.LITTLE,
) -> None:
    writer = gguf.GGUFWriter(path, "llama", endianess=endianness)
    writer.add_array("tokenizer.ggml.scores", [0.5] * 40)
    for name, (data, kind) in tensors.items():
        writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture
def small_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wgpu_q4.format.parallel.RANGE_BYTES", 1024)


@pytest.mark.parametrize("scales_dtype", ["float16", "float32"])
@pytest.mark.parametrize(("vocab", "embed_dim"), [(1, 32), (13, 96), (257, 64), (8, 576)])
@pytest.mark.usefixtures("small_ranges")
def test_q4_0_is_lossless(tmp_path: Path, vocab: int, embed_dim: int, scales_dtype: Any) -> None:
    blocks = gguf.quantize(random_floats(vocab, embed_dim), Kind.Q4_0)
    write_gguf(tmp_path / "m.gguf", {"other": (blocks, Kind.Q4_0), TOKENS: (blocks, Kind.Q4_0)})
    weight = from_gguf(tmp_path / "m.gguf", TOKENS, scales_dtype=scales_dtype)
    assert weight.shape == (vocab, embed_dim)
    assert weight.group_size == 32
    assert weight.convention == "linear"
    assert weight.scales.dtype == scales_dtype
    assert vocab == 1 or (weight.scales < 0).any(), "Q4_0 has negative scales"
    expected = gguf.dequantize(blocks, Kind.Q4_0)
    np.testing.assert_array_equal(weight.dequantize(), expected, strict=True)


def test_every_q4_0_block_is_lossless(tmp_path: Path) -> None:
    # Not only those a quantizer makes: any nibbles, any finite scale.
    rng = np.random.default_rng(4)
    blocks = rng.integers(0, 256, (64, 3, 18), np.uint8)
    scales = rng.integers(0, 1 << 16, (64, 3), np.uint16)
    scales[(scales & 0x7C00) == 0x7C00] &= 0x83FF  # infinities and NaN become subnormal
    blocks[..., :2] = scales[..., None].view(np.uint8)
    data = blocks.reshape(64, 54)
    write_gguf(tmp_path / "m.gguf", {TOKENS: (data, Kind.Q4_0)})
    weight = from_gguf(str(tmp_path / "m.gguf"), TOKENS)
    np.testing.assert_array_equal(weight.scales.view(np.uint16), scales)
    np.testing.assert_array_equal(weight.dequantize(), gguf.dequantize(data, Kind.Q4_0))


@pytest.mark.parametrize("kind", [Kind.Q8_0, Kind.Q5_1, Kind.BF16, Kind.F16, Kind.F32])
@pytest.mark.parametrize("group_size", [8, 32, 96])
@pytest.mark.usefixtures("small_ranges")
def test_other_types_are_dequantized_and_quantized(
    tmp_path: Path, kind: Kind, group_size: int
) -> None:
    data = gguf.quantize(random_floats(61, 96), kind)
    write_gguf(tmp_path / "m.gguf", {TOKENS: (data, kind)})
    weight = from_gguf(tmp_path / "m.gguf", TOKENS, group_size, "float32")
    expected = Q4Weight.quantize(gguf.dequantize(data, kind), group_size, "float32")
    assert_equal(weight, expected)


def test_doubles_are_quantized(tmp_path: Path) -> None:
    data = random_floats().astype(np.float64)
    write_gguf(tmp_path / "m.gguf", {TOKENS: (data, None)})
    assert_equal(from_gguf(tmp_path / "m.gguf", TOKENS, 24), Q4Weight.quantize(data, 24))


@pytest.mark.usefixtures("small_ranges")
def test_super_blocks_are_dequantized_row_by_row(tmp_path: Path) -> None:
    # Q6_K, common for embeddings: 256 values in 208 bytes of parts and a half scale.
    rng = np.random.default_rng(5)
    blocks = rng.integers(0, 256, (21, 2, 210), np.uint8)
    blocks[..., 208:] = np.full((21, 2, 1), 0.01, np.float16).view(np.uint8)
    data = blocks.reshape(21, 420)
    write_gguf(tmp_path / "m.gguf", {TOKENS: (data, Kind.Q6_K)})
    weight = from_gguf(tmp_path / "m.gguf", TOKENS, 64)
    assert weight.shape == (21, 512)
    assert_equal(weight, Q4Weight.quantize(gguf.dequantize(data, Kind.Q6_K), 64))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.gguf"
    floats = random_floats()
    with np.errstate(over="ignore"):
        infinite_q4_0 = gguf.quantize(floats * np.float32(1e9), Kind.Q4_0)
        infinite_q8_0 = gguf.quantize(floats * np.float32(1e30), Kind.Q8_0)
    tensors: dict[str, tuple[NDArray[Any], Kind | None]] = {
        TOKENS: (gguf.quantize(floats, Kind.Q4_0), Kind.Q4_0),
        "output_norm.weight": (floats[0], None),
        "cube": (floats.reshape(13, 12, 8), None),
        "integers": (np.ones((4, 32), np.int8), None),
        "narrow": (random_floats(4, 12), None),
        "large": (floats * np.float32(1e9), None),
        "nan": (np.where(np.eye(13, 96), np.float32("nan"), floats), None),
        "infinite Q4_0": (infinite_q4_0, Kind.Q4_0),
        "infinite Q8_0": (infinite_q8_0, Kind.Q8_0),
    }
    write_gguf(path, tensors)
    return path


def test_an_unknown_tensor_names_the_nearest(model: Path) -> None:
    for error in (UnknownTensorError, KeyError):
        with pytest.raises(error) as caught:
            from_gguf(model, "token_emb.weight")
    message = str(caught.value)
    assert message.startswith(f"{model} has no tensor 'token_emb.weight'. Did you mean 'token_embd")
    assert "It has 9: 'token_embd.weight', 'output_norm.weight'" in message
    with pytest.raises(UnknownTensorError, match=r"no tensor '§'\. It has 9"):
        from_gguf(model, "§")


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        ("output_norm.weight", r"must have shape \[V, K\] with V ≥ 1, not \[96\]"),
        ("cube", r"must have shape \[V, K\] with V ≥ 1, not \[13, 12, 8\]"),
        ("integers", "I8 tensor 'integers': the gguf library cannot dequantize this type"),
        ("narrow", "K = 12 values; q4gsw needs a positive multiple of 8"),
        ("nan", r"weight\[0, 0\] is nan"),
        ("infinite Q4_0", r"scales\[0, 0\] is -?inf; every scale must be finite"),
        ("infinite Q8_0", r"counting rows from 0: weight\[0, 0\] is -?(inf|nan)"),
        ("large", "beyond float16 .* use scales_dtype='float32'"),
    ],
)
def test_tensors_that_cannot_be_q4gsw(model: Path, tensor: str, message: str) -> None:
    with pytest.raises(FormatError, match=message) as caught:
        from_gguf(model, tensor)
    assert str(caught.value).startswith(f"{model}: ")
    assert repr(tensor) in str(caught.value)


def test_arguments_that_do_not_fit(model: Path) -> None:
    with pytest.raises(FormatError, match="groups have 32 values, so group_size must be 32, not 8"):
        from_gguf(model, TOKENS, group_size=8)
    with pytest.raises(FormatError, match="group_size = 40 does not fit rows of K = 96"):
        from_gguf(model, "large", group_size=40)
    with pytest.raises(TypeError, match="group_size must be an int, not str"):
        from_gguf(model, "large", group_size="32")  # type: ignore[arg-type]
    with pytest.raises(FormatError, match="scales_dtype must be one of float32, float16, not"):
        from_gguf(model, TOKENS, scales_dtype="float64")
    with pytest.raises(TypeError, match=r"path must be a str or a pathlib\.Path, not int"):
        from_gguf(3, TOKENS)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="tensor must be the name of a tensor, not int"):
        from_gguf(model, 0)  # type: ignore[arg-type]


def test_gguf_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="missing"):
        from_gguf(tmp_path / "missing", TOKENS)
    with pytest.raises(IsADirectoryError):
        from_gguf(tmp_path, TOKENS)


def test_without_the_gguf_library(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(ImportError, match=r"pip install 'wgpu_q4\[hf\]'"):
        from_gguf(model, TOKENS)


def test_a_truncated_gguf_is_refused_at_every_length(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    write_gguf(path, {TOKENS: (gguf.quantize(random_floats(), Kind.Q4_0), Kind.Q4_0)})
    size = gguf.GGUFReader(path).tensors[-1].data_offset + 13 * 3 * 18
    content = path.read_bytes()
    for length in (*range(0, size, 11), size - 1):
        path.write_bytes(content[:length])
        with pytest.raises(FormatError, match="is not a whole GGUF file, version 2 or 3"):
            from_gguf(path, TOKENS)
    path.write_bytes(content[:size])
    assert from_gguf(path, TOKENS).shape == (13, 96)


def test_foreign_gguf(tmp_path: Path) -> None:
    path = tmp_path / "m"
    save_file({"w": Q4Weight.quantize(random_floats())}, path)
    with pytest.raises(FormatError, match="GGUF magic invalid"):
        from_gguf(path, "w")
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 99, 0, 0))
    with pytest.raises(FormatError, match="version 99"):
        from_gguf(path, "w")


def test_a_big_endian_gguf_is_not_misread(tmp_path: Path) -> None:
    data = random_floats().astype(">f4")
    write_gguf(tmp_path / "m.gguf", {TOKENS: (data, Kind.F32)}, gguf.GGUFEndian.BIG)
    with pytest.raises(FormatError, match="big-endian GGUF file; convert it"):
        from_gguf(tmp_path / "m.gguf", TOKENS)


def test_a_gguf_that_claims_an_endless_array_ends(tmp_path: Path) -> None:
    # The library itself would collect empty values until memory runs out.
    path = tmp_path / "m.gguf"
    array = struct.pack("<Q1sIIQ", 1, b"a", 9, 0, 1 << 60)
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + array)
    code = """
        import sys
        from wgpu_q4.errors import FormatError
        from wgpu_q4.files import from_gguf
        try:
            from_gguf(sys.argv[1], "w")
        except FormatError as error:
            print(error)
    """

    def limit_memory() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (1 << 31, 1 << 31))

    done = run_python(code, path, preexec_fn=limit_memory)
    assert "the file ends before byte" in done.stdout, done.stderr[-500:]
