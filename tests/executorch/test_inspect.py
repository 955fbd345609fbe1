"""`inspect_pte` and ``wgpu-q4 inspect``: on a real file, and on ones made to break it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from executorch.backends.vulkan.serialization.vulkan_graph_schema import (
    Bool,
    ValueList,
    VkDataType,
    VkMemoryLayout,
    VkStorageType,
    VkTensor,
)
from executorch.backends.vulkan.serialization.vulkan_graph_serialize import (
    extract_vk_flatbuffer,
    flatbuffer_to_vk_graph,
)
from executorch.exir._serialize._named_data_store import NamedDataStore
from executorch.exir._serialize._program import deserialize_pte_binary

from tests.command_help import keys_of_json
from tests.tied_models import PACKED_BYTES, VOCAB, OnlyLogits, export, lower, quantized_shared
from wgpu_q4.cli import main
from wgpu_q4.errors import FormatError
from wgpu_q4.executorch import inspect_pte, share_tied_weights
from wgpu_q4.pte.graph import _DTYPES, _STORAGES, Tensor, read_graph


@pytest.fixture(scope="module")
def tied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tied model with its scales in both orders, as a file."""
    program = export(quantized_shared(OnlyLogits()))
    path = tmp_path_factory.mktemp("pte") / "tied.pte"
    path.write_bytes(lower(share_tied_weights(program, scales_once=False)[0]))
    return path


def test_blobs_are_those_that_executorch_reads(tied: Path) -> None:
    named: Any = deserialize_pte_binary(tied.read_bytes()).named_data
    theirs = {
        key: bytes(named.buffers[entry.buffer_index]) for key, entry in named.pte_data.items()
    }
    report = inspect_pte(tied)
    assert report.nbytes == tied.stat().st_size
    assert {blob.keys[0]: blob.nbytes for blob in report.blobs} == {
        key: len(data) for key, data in theirs.items()
    }
    for blob in report.blobs:
        assert blob.sha256 == hashlib.sha256(theirs[blob.keys[0]]).hexdigest()


def test_the_graph_is_the_one_that_executorch_reads(tied: Path) -> None:
    """The numbers of the fields, and of the dtypes, are those of ExecuTorch's schema."""
    program = deserialize_pte_binary(tied.read_bytes()).program
    (delegate,) = program.execution_plan[0].delegates
    data = bytes(program.backend_delegate_data[delegate.processed.index].data)
    theirs = flatbuffer_to_vk_graph(extract_vk_flatbuffer(data))
    ours = read_graph(memoryview(data))
    assert [(c.op, list(c.args)) for c in ours.calls] == [(c.name, c.args) for c in theirs.chain]
    tensors = {
        number: value.value
        for number, value in enumerate(theirs.values)
        if isinstance(value.value, VkTensor)
    }
    assert ours.tensors == {
        number: Tensor(
            key=theirs.constants[t.constant_id].named_key if t.constant_id >= 0 else "",
            dtype=VkDataType(t.datatype).name.lower(),
            shape=tuple(t.dims),
            memory=t.mem_obj_id,
            storage=_STORAGES[t.storage_type],
            packed=-1 - t.memory_layout if t.memory_layout < 3 else -1,
        )
        for number, t in tensors.items()
    }
    assert {number for number, t in tensors.items() if t.constant_id >= 0} == set(ours.constants)
    assert (ours.inputs, ours.outputs) == (tuple(theirs.input_ids), tuple(theirs.output_ids))
    assert ours.flags == {
        number: value.value.bool_val
        for number, value in enumerate(theirs.values)
        if isinstance(value.value, Bool)
    }
    assert ours.lists == {
        number: tuple(value.value.items)
        for number, value in enumerate(theirs.values)
        if isinstance(value.value, ValueList)
    }
    layouts = [VkMemoryLayout(number).name.split("_")[1] for number in range(3)]
    assert layouts == ["WIDTH", "HEIGHT", "CHANNELS"]
    for kind in VkStorageType:
        name = kind.name.lower().replace("_", "").removesuffix("storage")
        assert _STORAGES[kind.value] == name
    dtypes = [(kind.value, kind.name.lower()) for kind in VkDataType if kind.name != "UNSET"]
    assert list(enumerate(_DTYPES)) == dtypes


def test_what_is_shared_and_what_that_saves(tied: Path) -> None:
    report = inspect_pte(tied)
    packed, *scales = report.blobs
    assert packed.nbytes == PACKED_BYTES == packed.bytes_saved == report.bytes_saved
    assert [(user.op, user.dtype, user.shape) for user in packed.users] == [
        ("et_vk.embedding_q4gsw.default", "uint8", (VOCAB, 128)),
        ("et_vk.linear_q4gsw.default", "uint8", (VOCAB, 128)),
    ]
    assert {(blob.users[0].op, blob.users[0].shape) for blob in scales} == {
        ("et_vk.embedding_q4gsw.default", (VOCAB, 8)),
        ("et_vk.linear_q4gsw.default", (8, VOCAB)),
    }
    (delegate,) = report.delegates
    assert delegate.backend == "VulkanBackend"
    assert delegate.ops["et_vk.embedding_q4gsw.default"] == 1
    assert report.methods == ("forward",)


def test_the_two_orders_of_scales_are_two_blobs_for_upstreams_store() -> None:
    """Why `share_tied_weights` takes the embedding's scales from the linear's: nothing else would
    make one blob of them, and equal bytes are what upstream's store makes one blob of."""
    scales = np.arange(16, dtype=np.float32).reshape(8, 2)
    store = NamedDataStore()
    store.add_named_data("rows", scales.tobytes())
    store.add_named_data("again", scales.copy().tobytes())
    assert len(store.buffers) == 1
    store.add_named_data("groups", np.ascontiguousarray(scales.T).tobytes())
    assert len(store.buffers) == 2


def test_command_prints_a_table(tied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(tied)]) == 0
    shown = capsys.readouterr().out
    assert "delegate 0: VulkanBackend" in shown
    assert f"{PACKED_BYTES:,}" in shown
    assert "et_vk.linear_q4gsw.default [0] uint8 [512, 128]" in shown


def test_command_prints_json(tied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "--json", str(tied)]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report.keys() == keys_of_json("inspect")
    assert report["bytes_saved"] == PACKED_BYTES
    assert report["blobs"][0]["users"][1]["op"] == "et_vk.linear_q4gsw.default"
    assert report["nbytes"] == tied.stat().st_size


def test_a_program_without_delegates(tmp_path: Path) -> None:
    from executorch.exir import to_edge

    path = tmp_path / "plain.pte"
    program = torch.export.export(torch.nn.Linear(4, 4), (torch.ones(1, 4),))
    path.write_bytes(to_edge(program).to_executorch().buffer)
    report = inspect_pte(path)
    assert (report.delegates, report.blobs, report.bytes_saved) == ((), (), 0)
    assert report.constant_bytes >= 4 * 4 * 4
    assert any("addmm" in operator for operator in report.operators)


@pytest.mark.parametrize("content", [b"", b"ET12", b"\0" * 4096, b"GGUF" * 64, b"\x20\0\0\0ET12"])
def test_no_program(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "no.pte"
    path.write_bytes(content)
    with pytest.raises(FormatError, match="is no ExecuTorch program"):
        inspect_pte(path)


def test_truncated_anywhere(tied: Path, tmp_path: Path) -> None:
    data = tied.read_bytes()
    path = tmp_path / "cut.pte"
    for length in [*range(40, 2000, 61), *range(2000, len(data), 9973), len(data) - 1]:
        path.write_bytes(data[:length])
        with pytest.raises(FormatError, match=r"cut\.pte"):
            inspect_pte(path)


def test_damaged_tables_give_an_error_or_a_report(tied: Path, tmp_path: Path) -> None:
    """A flipped byte may hit a name, and then nobody can tell; what it must not do is crash."""
    data = tied.read_bytes()
    generator = np.random.default_rng(0)
    path = tmp_path / "bad.pte"
    refused = 0
    for place in generator.integers(0, 2600, 60):
        damaged = bytearray(data)
        damaged[place] ^= int(generator.integers(1, 256))
        path.write_bytes(damaged)
        try:
            inspect_pte(path)
        except FormatError:
            refused += 1
    assert refused > 5


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (16, 1 << 40, "truncated: its program takes"),
        (16, 3, "truncated: its program takes 3 bytes"),
        (24, 1 << 62, "truncated: its data ends"),
        (32, 1 << 62, "truncated: its data ends"),
    ],
)
def test_lying_header(place: int, value: int, message: str, tied: Path, tmp_path: Path) -> None:
    """The extended header: sizes and offsets as 64-bit numbers from byte 16 on."""
    damaged = bytearray(tied.read_bytes())
    damaged[place : place + 8] = value.to_bytes(8, "little")
    path = tmp_path / "lying.pte"
    path.write_bytes(damaged)
    with pytest.raises(FormatError, match=message):
        inspect_pte(path)


def test_a_delegate_that_reads_what_is_not_there(tied: Path, tmp_path: Path) -> None:
    key = inspect_pte(tied).blobs[0].keys[0].encode()
    data = tied.read_bytes()
    at = data.rindex(key)  # in the delegate, which comes after the program's tables
    path = tmp_path / "missing.pte"
    path.write_bytes(data[:at] + b"0" * len(key) + data[at + len(key) :])
    with pytest.raises(FormatError, match="which is not there"):
        inspect_pte(path)


def test_command_reports_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "no.pte"
    assert main(["inspect", str(path)]) == 2
    assert "no.pte" in capsys.readouterr().err
    path.write_bytes(b"nothing")
    assert main(["inspect", str(path)]) == 1
    assert "is no ExecuTorch program" in capsys.readouterr().err
