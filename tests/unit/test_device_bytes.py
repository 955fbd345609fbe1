"""Which copies of a program's constants each ExecuTorch runtime holds, on small graphs."""

from __future__ import annotations

import pytest

from wgpu_q4.pte.device_bytes import (
    COPY,
    PACK,
    PACK_LINEAR,
    TARGETS,
    Target,
    device_memory,
    packed_bytes,
)
from wgpu_q4.pte.graph import Call, Graph, Tensor

PREPACK, EMBEDDING, LINEAR, LINEAR_8BIT = (
    f"et_vk.{name}.default"
    for name in ("prepack", "embedding_q4gsw", "linear_q4gsw", "linear_dq8ca_q4gsw")
)
# Numbers of values.
PACKED, COPY_OF_PACKED, BY_ROW, BY_GROUP, SUMS, IDS, ROWS, LOGITS, TRUE, FALSE, NONE = range(11)
VOCAB, EMBED_DIM, GROUP = 12, 64, 32
PACKED_BYTES, SCALES_BYTES = 16 * EMBED_DIM // 2, VOCAB * 2 * 4  # 12 rows are padded to 16


def constant(key: str, dtype: str, *shape: int) -> Tensor:
    return Tensor(key, dtype, shape, -1, "default", -1)


def activation(dtype: str, *shape: int, memory: int = -1, storage: str = "buffer") -> Tensor:
    return Tensor("", dtype, shape, memory, storage, -1)


def graph(*calls: Call, **changed: Tensor) -> Graph:
    tensors = {
        PACKED: constant("packed", "uint8", VOCAB, EMBED_DIM // 2),
        COPY_OF_PACKED: constant("packed", "uint8", VOCAB, EMBED_DIM // 2),
        BY_ROW: constant("rows", "float32", VOCAB, 2),
        BY_GROUP: constant("groups", "float32", 2, VOCAB),
        SUMS: constant("sums", "int32", 2, VOCAB),
        IDS: activation("int32", 1, 7, memory=0),
        ROWS: activation("float32", 7, EMBED_DIM, memory=1),
        LOGITS: activation("float32", 7, VOCAB, memory=2),
    }
    names = {"ids": IDS, "rows": ROWS, "logits": LOGITS}
    tensors |= {names[name]: tensor for name, tensor in changed.items()}
    return Graph(calls, tensors, {}, {TRUE: True, FALSE: False}, (IDS,), (LOGITS,))


def embedding(matrix: int = PACKED, linear: int = TRUE) -> Call:
    return Call(EMBEDDING, (matrix, BY_ROW, NONE, IDS, linear, ROWS))


def linear(matrix: int = PACKED) -> Call:
    return Call(LINEAR, (ROWS, matrix, BY_GROUP, NONE, NONE, LOGITS))


def linear_8bit(matrix: int = PACKED) -> Call:
    return Call(LINEAR_8BIT, (ROWS, NONE, NONE, matrix, SUMS, BY_GROUP, NONE, NONE, LOGITS))


def kernels(target: Target, *calls: Call) -> list[str]:
    """The kernels that made the copies of the packed bytes."""
    memory = device_memory([graph(*calls)], target)
    return [copy.kernel for copy in memory.copies if copy.key == "packed"]


def test_a_weight_only_head_shares_before_1_4() -> None:
    assert kernels("vulkan<1.4", embedding(), linear()) == [PACK]
    assert kernels("vulkan>=1.4", embedding(), linear()) == [PACK, PACK_LINEAR]
    assert kernels("webgpu", embedding(), linear()) == [COPY]


@pytest.mark.parametrize("target", TARGETS)
def test_a_head_with_8_bit_activations_shares_one_value(target: Target) -> None:
    kernel = COPY if target == "webgpu" else PACK
    assert kernels(target, embedding(), linear_8bit()) == [kernel]
    assert kernels(target, embedding(), linear_8bit(COPY_OF_PACKED)) == [kernel, kernel]


def test_two_weight_only_heads_are_packed_twice_from_1_4_on() -> None:
    assert kernels("vulkan>=1.4", linear(), linear()) == [PACK_LINEAR, PACK_LINEAR]
    assert kernels("vulkan<1.4", linear(), linear()) == [PACK]


def test_a_matrix_in_the_embedding_convention_is_copied_as_it_is() -> None:
    for target in TARGETS:
        (copy,) = (
            copy
            for copy in device_memory([graph(embedding(linear=FALSE))], target).copies
            if copy.key == "packed"
        )
        assert (copy.kernel, copy.nbytes) == (COPY, VOCAB * EMBED_DIM // 2)


def test_the_bytes_of_each_copy() -> None:
    memory = device_memory([graph(embedding(), linear_8bit())], "vulkan>=1.4")
    assert [(copy.key, copy.nbytes) for copy in memory.copies] == [
        ("packed", PACKED_BYTES),
        ("rows", SCALES_BYTES),
        ("sums", SCALES_BYTES),
        ("groups", SCALES_BYTES),
    ]
    assert memory.copies[0].ops == (EMBEDDING, LINEAR_8BIT)
    assert memory.constants == PACKED_BYTES + 3 * SCALES_BYTES


def test_a_prepack_is_one_more_copy_in_the_storage_of_its_result() -> None:
    made, reader = 20, Call("aten.gather.default", (20, NONE, LOGITS))
    calls = Call(PREPACK, (BY_GROUP, made)), reader, reader, linear()
    for storage, nbytes in (("buffer", SCALES_BYTES), ("texture3d", SCALES_BYTES)):
        one = graph(*calls)
        one.tensors[made] = activation("float32", 2, VOCAB, storage=storage)
        for target in TARGETS:
            copies = [c for c in device_memory([one], target).copies if c.key == "groups"]
            assert [copy.nbytes for copy in copies] == [nbytes, SCALES_BYTES]


def test_activations_share_memory_and_textures_hold_whole_texels() -> None:
    one = graph(
        embedding(),
        linear(),
        rows=activation("float32", 7, EMBED_DIM, memory=2),
        logits=activation("float32", 7, 10, memory=2, storage="texture3d"),
    )
    vulkan = device_memory([one], "vulkan>=1.4")
    assert vulkan.activations == 7 * 4 + 7 * EMBED_DIM * 4
    assert vulkan.transfers == 7 * 4 + 7 * 12 * 4
    webgpu = device_memory([one], "webgpu")
    assert webgpu.transfers == 7 * 10 * 4  # it writes inputs without a buffer in between
    assert vulkan.nbytes == vulkan.constants + vulkan.activations + vulkan.transfers


def test_delegates_do_not_share() -> None:
    one = graph(embedding(), linear_8bit())
    alone, both = (device_memory([one] * count, "vulkan>=1.4") for count in (1, 2))
    assert both.nbytes == 2 * alone.nbytes


def test_rows_are_padded_to_blocks_of_8() -> None:
    assert packed_bytes((12, 32)) == packed_bytes((16, 32)) == 512


def test_a_matrix_of_another_rank_is_counted_as_it_is() -> None:
    """A damaged file must give a report or a FormatError."""
    one = graph(linear())
    one.tensors[PACKED] = constant("packed", "uint8", 64)
    copies = {copy.key: copy for copy in device_memory([one], "vulkan>=1.4").copies}
    assert (copies["packed"].kernel, copies["packed"].nbytes) == (COPY, 64)
