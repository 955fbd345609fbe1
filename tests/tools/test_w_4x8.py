"""The embedding of a weight that ExecuTorch's weight-only linear op packed ("w_4x8"), on Vulkan.

The layout is written down here from its definition, a nibble at a time; the shaders are built as
ExecuTorch builds them and dispatched as it dispatches those that it has.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from numpy.typing import NDArray

from tools.codegen import FOLDER, build
from tools.parity import contract
from tools.parity.excuses import LAST_HALF
from tools.vulkan import Device, StorageBuffer
from wgpu_q4.check import oracle
from wgpu_q4.check.cases import Case
from wgpu_q4.check.excuses import judge
from wgpu_q4.format import ScalesDtype
from wgpu_q4.kernels import OutputDtype, Storage

SCALES: tuple[ScalesDtype, ...] = get_args(ScalesDtype)
STORAGES: tuple[Storage, ...] = get_args(Storage)
OUTPUTS: tuple[OutputDtype, ...] = get_args(OutputDtype)

# V: whole blocks; half a block (the packer wants a multiple of 4); a prime; one row.  K/G: an odd
# number of scales a row, groups within a chunk of 32 columns, one group, more than one chunk.
SHAPES = (
    (24, 96, 32, (2, 3, 5)),
    (12, 64, 16, (7,)),
    (37, 160, 160, (3, 6)),
    (1, 32, 32, (2,)),
    (44, 96, 8, (4, 9)),
)


def pack_w_4x8(nibbles: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Return blocks ``[K/4, ceil(V/8), 4]`` of a matrix of nibbles ``[V, K]``.

    Byte j of component c of block (k4, n8) holds column 4·k4 + j: that of row 8·n8 + 2·c in its
    low nibble, that of the next row in its high one.  Rows past the last are nibble 8, a zero.
    """
    vocab, columns = nibbles.shape
    strips = -(-vocab // 8)
    padded = np.full((8 * strips, columns), 8, np.uint32)
    padded[:vocab] = nibbles
    blocks = np.zeros((columns // 4, strips, 4), np.uint32)
    for k4, n8, c, j in product(range(columns // 4), range(strips), range(4), range(4)):
        low, high = padded[8 * n8 + 2 * c, 4 * k4 + j], padded[8 * n8 + 2 * c + 1, 4 * k4 + j]
        blocks[k4, n8, c] |= (low | high << 4) << (8 * j)
    return blocks


def nibbles_of(case: Case) -> NDArray[np.uint8]:
    packed = case.matrix().packed_as("linear")
    return np.stack([packed & 15, packed >> 4], axis=-1).reshape(case.vocab, case.embed_dim)


def kernel_of(case: Case) -> str:
    scales = "" if case.scales == "float16" else "_float_scales"
    half = "half" if case.output == "float16" else "float"
    return f"embedding_q4gsw{scales}__w_4x8_nc_buffer_{case.storage}_{half}"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return build(FOLDER, tmp_path_factory.mktemp("spv"))


@pytest.fixture(scope="module", params=["lavapipe", "swiftshader"])
def device(request: pytest.FixtureRequest) -> Iterator[Device]:
    with Device(request.param, validation=True) as opened:
        yield opened


def run(device: Device, built: dict[str, Path], case: Case) -> NDArray[Any]:
    """What the kernel makes of a case of blocks in a buffer, its weight packed the other way."""
    dispatch = contract.dispatch(case, built[kernel_of(case)].read_bytes())
    result, indices, _, *others = dispatch.resources
    weight = StorageBuffer(pack_w_4x8(nibbles_of(case)))
    dispatch = replace(dispatch, resources=[result, indices, weight, *others])
    return contract.result(case, device.run(dispatch).results[0])


def test_bits_are_those_of_the_reference(device: Device, built: dict[str, Path]) -> None:
    wrong = {}
    for shape, scales, storage, output in product(SHAPES, SCALES, STORAGES, OUTPUTS):
        case = Case("w_4x8", *shape, output, storage, "linear_buffer", scales, seed=5)
        judgement = judge(case, run(device, built, case), [LAST_HALF])
        if judgement.status == "differs":
            wrong[kernel_of(case), shape] = judgement.distance.first
    assert wrong == {}


@pytest.mark.parametrize("storage", STORAGES)
def test_an_id_outside_the_vocabulary_gives_zeros(
    device: Device, built: dict[str, Path], storage: Storage
) -> None:
    """Also one that names a row of padding, which is in the buffer."""
    case = Case("w_4x8", 44, 96, 32, (2, 3, 5), "float32", storage, "linear_buffer", "float32")
    case = replace(case, id_kind="outside")
    assert case.vocab in case.ids()
    found = run(device, built, case)
    np.testing.assert_array_equal(found.view(np.uint32), oracle.expected(case).view(np.uint32))
    assert not found[~np.isin(case.ids(), range(44))].any()


def test_a_shrunk_shape_writes_nothing_else(device: Device, built: dict[str, Path]) -> None:
    case = Case("w_4x8", 24, 96, 32, (2, 5), "float32", "buffer", "linear_buffer", "float32")
    case = replace(case, recorded_shape=(4, 8))
    np.testing.assert_array_equal(run(device, built, case), oracle.expected(case))


def test_the_layout_is_the_one_that_is_described() -> None:
    """One nibble alone: row 5 of a block is component 2's high nibble; byte 3 is column 3."""
    nibbles = np.full((16, 8), 0, np.uint8)
    nibbles[13, 7] = 11
    blocks = pack_w_4x8(nibbles)
    assert blocks.shape == (2, 2, 4)
    assert [tuple(place) for place in np.argwhere(blocks)] == [(1, 1, 2)]
    assert blocks[1, 1, 2] == 0xB0000000
    padded = pack_w_4x8(np.zeros((12, 4), np.uint8))
    assert padded[0, 1].tolist() == [0, 0, 0x88888888, 0x88888888]
