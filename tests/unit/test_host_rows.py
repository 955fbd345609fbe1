"""Rows looked up on the host: the device's bits, no device, and no byte of other rows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from tests.cases import (
    LONG,
    ODD,
    PRIME,
    TINY,
    WIDE,
    Shape,
    assert_same_bits,
    random_weight,
    random_x,
    some_ids,
)
from wgpu_q4 import DeviceError, FormatError, Q4Weight, argmax, embedding, linear, reference, top_k
from wgpu_q4.arrays import FloatDtype
from wgpu_q4.files import load_file, loading, save_file
from wgpu_q4.format import Convention, ScalesDtype
from wgpu_q4.ops import kernel_for, linear_transposed


@pytest.mark.parametrize("shape", [TINY, ODD, PRIME, WIDE, LONG], ids=str)
@pytest.mark.parametrize("scales", get_args(ScalesDtype))
@pytest.mark.parametrize("convention", get_args(Convention))
@pytest.mark.parametrize("dtype", get_args(FloatDtype))
def test_rows_are_exact(
    shape: Shape, scales: ScalesDtype, convention: Convention, dtype: FloatDtype
) -> None:
    weight, ids = random_weight(shape, scales, convention), some_ids(shape)
    found = embedding(ids, weight, dtype, "host")
    assert_same_bits(found, reference.embedding(ids, weight, dtype))


def test_numbers_at_the_edges_of_both_dtypes() -> None:
    scales = np.array([1e-45, -1e-40, 1.2e-38, 6e-8, 2e-5, 8190, -1e4, 4.2e37], np.float32)
    weight = Q4Weight(np.tile(np.arange(256, dtype=np.uint8), (8, 1)), scales[:, None])
    for dtype in ("float32", "float16"):
        found = embedding(np.arange(8), weight, dtype, "host")
        assert_same_bits(found, reference.embedding(np.arange(8), weight, dtype))
    assert np.isinf(found).any()


def test_more_ids_than_are_done_at_a_time() -> None:
    weight, ids = random_weight(LONG, "float16"), some_ids(LONG, (5000,))
    assert_same_bits(embedding(ids, weight, device="host"), reference.embedding(ids, weight))


def test_shapes_and_refusals_are_those_of_a_device() -> None:
    weight = random_weight(ODD, "float16")
    assert embedding(5, weight, device="host").shape == (24,)
    assert embedding([], weight, device="host").shape == (0, 24)
    with pytest.raises(IndexError, match=r"indices\[1\] is 13, outside the vocabulary of 13"):
        embedding([0, 13], weight, device="host")
    with pytest.raises(TypeError, match="integer dtype"):
        embedding([0.5], weight, device="host")


def test_what_multiplies_needs_a_device() -> None:
    weight, x = random_weight(ODD, "float16"), random_x(1, 24)
    for refused in (
        lambda: linear(x, weight, device="host"),
        lambda: argmax(x, weight, device="host"),
        lambda: top_k(x, weight, 1, device="host"),
        lambda: linear_transposed(random_x(1, 13), weight, "host"),
        lambda: kernel_for(weight, device="host"),
    ):
        with pytest.raises(DeviceError, match=r'device="host" looks rows up .* only embedding'):
            refused()


def test_no_implementation_of_webgpu_is_loaded() -> None:
    code = (
        "import sys; sys.modules['wgpu'] = sys.modules['wgpudawn'] = None\n"
        "import numpy as np, wgpu_q4\n"
        "weight = wgpu_q4.quantize(np.eye(32, dtype=np.float32))\n"
        "assert wgpu_q4.embedding([3], weight, device='host')[0].argmax() == 3\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# Scales that were not read when the file was loaded


@pytest.fixture
def unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Q4Weight:
    """A weight whose row 7 has a scale that is NaN, in a file whose scales count as large."""
    weight = random_weight(ODD, "float32")
    save_file({"w": weight}, tmp_path / "w")
    content = (tmp_path / "w").read_bytes()
    row = weight.scales[7].tobytes()
    assert content.count(row) == 1
    wrong = row[:4] + np.float32(np.nan).tobytes() + row[8:]
    (tmp_path / "w").write_bytes(content.replace(row, wrong))
    with pytest.raises(FormatError, match=r"scales\[7, 1\] is nan"):
        load_file(tmp_path / "w", verify=False)
    monkeypatch.setattr(loading, "_READ_BYTES", weight.scales.nbytes - 1)
    return load_file(tmp_path / "w", verify=False)["w"]


def test_the_scales_of_rows_are_checked_before_they_are_used(unread: Q4Weight) -> None:
    right = random_weight(ODD, "float32")
    others = np.array([6, 8, 0, 12, 6])
    assert_same_bits(embedding(others, unread, device="host"), reference.embedding(others, right))
    with pytest.raises(FormatError, match=r"scales\[7, 1\] is nan"):
        embedding([6, 7], unread, device="host")


def test_all_scales_are_checked_before_they_are_handed_out(unread: Q4Weight) -> None:
    assert "13×24" in repr(unread)
    assert "13 × 24" in unread._repr_html_()
    for use in (lambda: unread.scales, unread.dequantize, lambda: Q4Weight.__reduce__(unread)):
        with pytest.raises(FormatError, match=r"scales\[7, 1\] is nan"):
            use()


def test_quick_leaves_large_scales_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weight = random_weight(ODD, "float16")
    save_file({"w": weight}, tmp_path / "w")
    content = bytearray((tmp_path / "w").read_bytes())
    at = content.index(weight.scales.tobytes())
    content[at] ^= 1  # still finite
    (tmp_path / "w").write_bytes(content)
    monkeypatch.setattr(loading, "QUICK_BYTES", 0)
    with pytest.raises(FormatError, match="its scales are not those that were saved"):
        load_file(tmp_path / "w")
    monkeypatch.setattr(loading, "_READ_BYTES", 0)
    assert list(load_file(tmp_path / "w")) == ["w"]
    with pytest.raises(FormatError, match="its scales are not those that were saved"):
        load_file(tmp_path / "w", verify=True)
