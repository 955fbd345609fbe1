"""GGUF: Q4_0 without loss, other types through the quantizer, and what is refused."""

from __future__ import annotations

import resource
import struct
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind
from numpy.typing import NDArray

from tests.weight_files import TOKENS, assert_equal, random_floats, run_python, write_gguf
from wgpu_q4.errors import FormatError
from wgpu_q4.files import save_file
from wgpu_q4.foreign import UnknownTensorError, from_gguf
from wgpu_q4.weight import Q4Weight


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
    with pytest.raises(FileNotFoundError):  # which no library would mend
        from_gguf(model.with_name("missing.gguf"), TOKENS)


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
        from wgpu_q4 import from_gguf
        try:
            from_gguf(sys.argv[1], "w")
        except FormatError as error:
            print(error)
    """

    def limit_memory() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (1 << 31, 1 << 31))

    done = run_python(code, path, preexec_fn=limit_memory)
    assert "the file ends before byte" in done.stdout, done.stderr[-500:]
