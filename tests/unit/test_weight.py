"""`Q4Weight`: it wraps without copying, knows its own identity, and refuses what is not q4gsw."""

from __future__ import annotations

import copy
import gc
import hashlib
import subprocess
import sys
import weakref
from typing import Any

import numpy as np
import pytest

from tests import rich_tables
from wgpu_q4 import format as q4gsw
from wgpu_q4.errors import FormatError
from wgpu_q4.format import Convention, ScalesDtype
from wgpu_q4.weight import Q4Weight

# One row of 16 values 0..15, two groups of 8, packed by hand.
LINEAR = np.array([[0x10, 0x32, 0x54, 0x76, 0x98, 0xBA, 0xDC, 0xFE]], np.uint8)
EMBEDDING = np.array([[0x01, 0x23, 0x45, 0x67, 0x89, 0xAB, 0xCD, 0xEF]], np.uint8)
SCALES = np.array([[0.5, -2]], np.float16)
VALUES = [-4, -3.5, -3, -2.5, -2, -1.5, -1, -0.5, 0, -2, -4, -6, -8, -10, -12, -14]


def random_floats(vocab: int = 13, embed_dim: int = 96) -> Any:
    rng = np.random.default_rng(0)
    return rng.standard_normal((vocab, embed_dim)).astype(np.float32)


# Wrapping


@pytest.mark.parametrize(
    ("packed", "convention"), [(LINEAR, "linear"), (EMBEDDING, "embedding")], ids=str
)
def test_a_matrix_packed_by_hand(packed: Any, convention: Convention) -> None:
    weight = Q4Weight(packed, SCALES, convention)
    assert weight.shape == (1, 16)
    assert weight.group_size == 8
    assert weight.nbytes == 8 + 4
    assert weight.convention == convention
    np.testing.assert_array_equal(weight.dequantize(), np.array([VALUES], np.float32), strict=True)
    np.testing.assert_array_equal(weight.packed_as("linear"), LINEAR, strict=True)
    np.testing.assert_array_equal(weight.packed_as("embedding"), EMBEDDING, strict=True)
    assert weight.packed_as(convention) is weight.packed
    assert weight.sha256 == hashlib.sha256(bytes.fromhex("1032547698badcfe")).hexdigest()


def test_wrapping_copies_nothing_and_locks_its_view_only() -> None:
    packed, scales = LINEAR.copy(), SCALES.copy()
    weight = Q4Weight(packed, scales)
    assert np.shares_memory(weight.packed, packed)
    assert np.shares_memory(weight.scales, scales)
    with pytest.raises(ValueError, match="read-only"):
        weight.packed[0, 0] = 1
    with pytest.raises(ValueError, match="read-only"):
        weight.scales[0, 0] = 1
    assert packed.flags.writeable
    assert scales.flags.writeable


def test_digest_does_not_depend_on_strides_scales_or_order() -> None:
    packed, scales = q4gsw.quantize(random_floats(), 24)
    expected = hashlib.sha256(packed.tobytes()).hexdigest()
    spread = np.repeat(packed, 2, axis=1)[:, ::2]
    assert not spread.flags.c_contiguous
    swapped = q4gsw.repack(packed, "linear", "embedding")
    assert Q4Weight(packed, scales).sha256 == expected
    assert Q4Weight(spread, scales * 2).sha256 == expected
    assert Q4Weight(swapped, scales.astype(np.float32), "embedding").sha256 == expected
    assert Q4Weight(swapped, scales, "linear").sha256 != expected


# Quantizing


@pytest.mark.parametrize("scales_dtype", ["float16", "float32"])
def test_quantize_is_the_formats(scales_dtype: ScalesDtype) -> None:
    floats = random_floats()
    weight = Q4Weight.quantize(floats, 24, scales_dtype)
    packed, scales = q4gsw.quantize(floats, 24, scales_dtype)
    assert weight.shape == (13, 96)
    assert weight.group_size == 24
    assert weight.convention == "linear"
    np.testing.assert_array_equal(weight.packed, packed, strict=True)
    np.testing.assert_array_equal(weight.scales, scales, strict=True)


def test_quantize_defaults_to_groups_of_32_and_half_scales() -> None:
    weight = Q4Weight.quantize(random_floats())
    assert weight.group_size == 32
    assert weight.scales.dtype == np.float16


# Identity


def test_same_matrix() -> None:
    packed, scales = q4gsw.quantize(random_floats(), 24)
    weight = Q4Weight(packed, scales)
    assert weight.same_matrix(weight)
    assert weight.same_matrix(Q4Weight(packed.copy(), scales.copy()))
    swapped = q4gsw.repack(packed, "linear", "embedding")
    assert weight.same_matrix(Q4Weight(swapped, scales, "embedding"))


def test_different_matrices() -> None:
    packed, scales = q4gsw.quantize(random_floats(), 24)
    weight = Q4Weight(packed, scales)
    flipped, rescaled = packed.copy(), scales.copy()
    flipped[-1, -1] ^= 0x10
    rescaled[-1, -1] *= 2
    others = {
        "a value": Q4Weight(flipped, scales),
        "a scale": Q4Weight(packed, rescaled),
        "scales dtype": Q4Weight(packed, scales.astype(np.float32)),
        "nibble order": Q4Weight(packed, scales, "embedding"),
        "rows": Q4Weight(packed[:-1], scales[:-1]),
        "group size": Q4Weight(packed, np.repeat(scales, 3, axis=1)),
        # The same bytes in the same order, in rows of another length.
        "shape": Q4Weight(packed.reshape(26, 24), scales.reshape(26, 2)),
    }
    for difference, other in others.items():
        assert not weight.same_matrix(other), difference
        assert not other.same_matrix(weight), difference


def test_a_weight_does_not_keep_its_device_copies_alive() -> None:
    weight, resident = Q4Weight(LINEAR, SCALES), OnDevice("gpu")
    weight.residents.add(resident)
    assert len(weight.residents) == 1
    gone = weakref.ref(resident)
    del resident
    gc.collect()
    assert gone() is None
    assert len(weight.residents) == 0


# How it shows itself


class OnDevice:
    nbytes = 12

    def __init__(self, text: str) -> None:
        self.text = text

    def describe(self) -> str:
        return self.text


def test_repr_is_one_line() -> None:
    weight = Q4Weight.quantize(random_floats(1000, 64), 16)
    assert repr(weight) == "Q4Weight(1000×64, group 16, float16 scales, 40,000 bytes)"


def test_html_says_what_is_held_and_where() -> None:
    weight = Q4Weight.quantize(random_floats(1000, 64), 16)
    html = weight._repr_html_()
    for part in ("1,000 × 64", "16, float16 scales", "32,000 packed + 8,000 scales", "6.4×"):
        assert part in html
    assert "none yet" in html
    resident = OnDevice("<GPU & co>")
    weight.residents.add(resident)
    assert rich_tables.read(weight)["on devices"] == ["<GPU & co>"]


# Imports


def test_neither_torch_nor_gguf_is_imported_for_the_user() -> None:
    code = """if True:
        import sys
        import numpy as np
        from wgpu_q4.weight import Q4Weight
        import wgpu_q4.files
        Q4Weight.quantize(np.ones((2, 32), np.float32)).dequantize()
        print(sorted({"torch", "gguf", "transformers"} & set(sys.modules)))
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# Bad input


@pytest.mark.parametrize("bad", ["bytes", None, {1: 2}])
def test_only_arrays_are_wrapped(bad: Any) -> None:
    kind = type(bad).__name__
    with pytest.raises(TypeError, match=f"packed must be a numpy array, .* not {kind}"):
        Q4Weight(bad, SCALES)
    with pytest.raises(TypeError, match=f"scales must be a numpy array, .* not {kind}"):
        Q4Weight(LINEAR, bad)
    with pytest.raises(TypeError, match=f"weight must be a numpy array, .* not {kind}"):
        Q4Weight.quantize(bad)


@pytest.mark.parametrize(
    ("packed", "scales", "convention", "message"),
    [
        (LINEAR.view(np.int8), SCALES, "linear", "packed must be uint8"),
        (LINEAR[0], SCALES, "linear", r"shape \[V, K/2\]"),
        (LINEAR, SCALES[0], "linear", r"scales must have shape"),
        (LINEAR, SCALES.astype(np.int16), "linear", "float16 or float32, native-endian, not int16"),
        (LINEAR, SCALES * np.float16("nan"), "linear", r"scales\[0, 0\] is nan"),
        (LINEAR, SCALES, "rows", "convention must be 'linear' or 'embedding', not 'rows'"),
    ],
)
def test_arrays_that_are_not_q4gsw(packed: Any, scales: Any, convention: Any, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        Q4Weight(packed, scales, convention)


def test_packed_as_names_the_conventions() -> None:
    with pytest.raises(FormatError, match="'linear' or 'embedding', not 'blocks'"):
        Q4Weight(LINEAR, SCALES).packed_as("blocks")  # type: ignore[arg-type]


def test_a_weight_survives_copy() -> None:
    weight = Q4Weight.quantize(random_floats())
    assert copy.copy(weight).same_matrix(weight)


@pytest.mark.parametrize("name", ["packed", "scales", "convention", "shape", "group_size"])
def test_a_weight_cannot_be_changed(name: str) -> None:
    weight = Q4Weight(np.zeros((3, 4), np.uint8), np.ones((3, 1), np.float16))
    with pytest.raises(AttributeError):
        setattr(weight, name, None)


def test_masked_arrays_are_refused() -> None:
    """Their mask would be dropped, and with it the checks of what is behind it."""
    scales = np.ma.masked_invalid(np.array([[np.nan], [1], [1]], np.float16))
    with pytest.raises(TypeError, match=r"scales is a masked array: fill it.*scales\.filled"):
        Q4Weight(np.zeros((3, 4), np.uint8), scales)
