"""ExecuTorch's shaders: what ExecuTorch's builder makes of the generated files."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tools.codegen import FOLDER, build, naga, registered
from tools.codegen.glsl import blocks
from tools.codegen.interface import FAMILIES, interface
from tools.codegen.shaders import executorch_shaders
from tools.parity import contract
from tools.vulkan import Device, SampledImage, StorageBuffer
from wgpu_q4 import reference
from wgpu_q4.check.cases import Case
from wgpu_q4.check.lists import all_kernels
from wgpu_q4.device.textures import pack_width

ROOT = Path(__file__).resolve().parents[2]

BUFFER, IMAGE, SAMPLER, UBO = (
    "STORAGE_BUFFER",
    "STORAGE_IMAGE",
    "COMBINED_IMAGE_SAMPLER",
    "UNIFORM_BUFFER",
)
# ExecuTorch's own files make these kernels with these descriptors; written down from its builder's
# output, in the order result, ids, weight, scales, sizes.
IN_BUFFERS = (BUFFER, BUFFER, BUFFER, BUFFER, UBO)
IN_TEXTURES = (IMAGE, SAMPLER, BUFFER, BUFFER, UBO)
BLOCKS_IN_BUFFERS = (BUFFER, BUFFER, SAMPLER, BUFFER, UBO)
BLOCKS_IN_TEXTURES = (IMAGE, SAMPLER, SAMPLER, BUFFER, UBO)
UPSTREAM = {
    "embedding_q4gsw_buffer_half": IN_BUFFERS,
    "embedding_q4gsw_buffer_float": IN_BUFFERS,
    "embedding_q4gsw_texture3d_half": IN_TEXTURES,
    "embedding_q4gsw_texture3d_float": IN_TEXTURES,
    "embedding_q4gsw_float_scales_buffer_half": IN_BUFFERS,
    "embedding_q4gsw_float_scales_buffer_float": IN_BUFFERS,
    "embedding_q4gsw_float_scales_texture3d_half": IN_TEXTURES,
    "embedding_q4gsw_float_scales_texture3d_float": IN_TEXTURES,
    "embedding_q4gsw_linear_weight_buffer_buffer_half": IN_BUFFERS,
    "embedding_q4gsw_linear_weight_buffer_buffer_float": IN_BUFFERS,
    "embedding_q4gsw_linear_weight_buffer_texture3d_half": IN_TEXTURES,
    "embedding_q4gsw_linear_weight_buffer_texture3d_float": IN_TEXTURES,
    "embedding_q4gsw_linear_weight_texture2d_buffer_half": BLOCKS_IN_BUFFERS,
    "embedding_q4gsw_linear_weight_texture2d_buffer_float": BLOCKS_IN_BUFFERS,
    "embedding_q4gsw_linear_weight_texture2d_texture3d_half": BLOCKS_IN_TEXTURES,
    "embedding_q4gsw_linear_weight_texture2d_texture3d_float": BLOCKS_IN_TEXTURES,
    "embedding_q4gsw_float_scales_linear_weight_buffer_buffer_half": IN_BUFFERS,
    "embedding_q4gsw_float_scales_linear_weight_buffer_buffer_float": IN_BUFFERS,
    "embedding_q4gsw_float_scales_linear_weight_buffer_texture3d_half": IN_TEXTURES,
    "embedding_q4gsw_float_scales_linear_weight_buffer_texture3d_float": IN_TEXTURES,
    "embedding_q4gsw_float_scales_linear_weight_texture2d_buffer_half": BLOCKS_IN_BUFFERS,
    "embedding_q4gsw_float_scales_linear_weight_texture2d_buffer_float": BLOCKS_IN_BUFFERS,
    "embedding_q4gsw_float_scales_linear_weight_texture2d_texture3d_half": BLOCKS_IN_TEXTURES,
    "embedding_q4gsw_float_scales_linear_weight_texture2d_texture3d_float": BLOCKS_IN_TEXTURES,
    "pack_q4_linear_weight_buffer": (BUFFER, BUFFER),
    "pack_q4_linear_weight_texture2d": (IMAGE, BUFFER),
}
# These ExecuTorch does not have: the same op on the blocks that its weight-only linear op packs.
ADDED = {
    "embedding_q4gsw__w_4x8_nc_buffer_buffer_half": IN_BUFFERS,
    "embedding_q4gsw__w_4x8_nc_buffer_buffer_float": IN_BUFFERS,
    "embedding_q4gsw__w_4x8_nc_buffer_texture3d_half": IN_TEXTURES,
    "embedding_q4gsw__w_4x8_nc_buffer_texture3d_float": IN_TEXTURES,
    "embedding_q4gsw_float_scales__w_4x8_nc_buffer_buffer_half": IN_BUFFERS,
    "embedding_q4gsw_float_scales__w_4x8_nc_buffer_buffer_float": IN_BUFFERS,
    "embedding_q4gsw_float_scales__w_4x8_nc_buffer_texture3d_half": IN_TEXTURES,
    "embedding_q4gsw_float_scales__w_4x8_nc_buffer_texture3d_float": IN_TEXTURES,
}
KERNELS = UPSTREAM | ADDED


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("spv")
    built = build(FOLDER, folder)
    assert all(path.read_bytes()[:4] == b"\x03\x02\x23\x07" for path in built.values())
    return folder


@pytest.fixture(scope="module")
def disassembled(out: Path) -> dict[str, str]:
    return {
        name: run("spirv-dis", "--no-color", "--raw-id", out / f"{name}.spv") for name in KERNELS
    }


def run(*command: str | Path) -> str:
    """Return the standard output of a command that must succeed."""
    done = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_upstreams_list_is_complete() -> None:
    scales = ("", "_float_scales")
    weights = ("", "_linear_weight_buffer", "_linear_weight_texture2d")
    storages = ("_buffer", "_texture3d")
    composed = {
        f"embedding_q4gsw{s}{w}{g}{t}"
        for s, w, g, t in product(scales, weights, storages, ("_half", "_float"))
    }
    assert {name for name in UPSTREAM if name.startswith("embedding")} == composed
    assert len(composed) == 24


def test_builder_registers_upstreams_names_and_descriptors(out: Path) -> None:
    assert registered(out) == KERNELS
    assert not UPSTREAM.keys() & ADDED.keys()


def test_builder_returns_each_kernels_file(tmp_path: Path) -> None:
    only = tmp_path / "in"
    only.mkdir()
    for suffix in ("glsl", "yaml"):
        shutil.copy(FOLDER / f"pack_q4_linear_weight.{suffix}", only)
    built = build(only, tmp_path / "out")
    assert built.keys() == {"pack_q4_linear_weight_buffer", "pack_q4_linear_weight_texture2d"}
    assert all(path == tmp_path / "out" / f"{name}.spv" for name, path in built.items())
    assert all(path.is_file() for path in built.values())


def test_spirv_is_valid(out: Path) -> None:
    for name in KERNELS:
        run("spirv-val", "--target-env", "vulkan1.1", out / f"{name}.spv")


def test_builder_asks_for_no_extension(out: Path) -> None:
    """The six flags and the subgroup size that follow a kernel's tile size."""
    source = (out / "spv.cpp").read_text(encoding="utf-8")
    flags = re.findall(r"\{1, 1, 1\},\s*((?:(?:true|false),\s*){6}\d+)", source)
    assert len(flags) == len(KERNELS)
    assert {re.sub(r"\s", "", found) for found in flags} == {"false," * 6 + "0"}


def test_spirv_needs_no_narrow_types(disassembled: Mapping[str, str]) -> None:
    for name, text in disassembled.items():
        assert set(re.findall(r"OpCapability (\w+)", text)) == {"Shader"}, name
        assert "OpExtension" not in text, name
        assert set(re.findall(r"OpType(?:Int|Float) (\d+)", text)) == {"32"}, name


def test_local_size_is_the_only_specialization(disassembled: Mapping[str, str]) -> None:
    for name, text in disassembled.items():
        assert re.findall(r"SpecId (\d+)", text) == ["0", "1", "2"], name


def test_push_constants_lie_where_the_host_puts_them(disassembled: Mapping[str, str]) -> None:
    for name, text in disassembled.items():
        (block,) = re.findall(r"OpTypePointer PushConstant (%\d+)", text)[:1]
        offsets = re.findall(rf"OpMemberDecorate {block} (\d) Offset (\d+)", text)
        second = "4" if name.startswith("embedding") else "16"
        assert offsets == [("0", "0"), ("1", second)], name


def test_bindings_are_numbered_in_order(disassembled: Mapping[str, str]) -> None:
    for name, text in disassembled.items():
        numbers = sorted(int(number) for number in re.findall(r" Binding (\d+)", text))
        assert numbers == list(range(len(KERNELS[name]))), name
        assert set(re.findall(r" DescriptorSet (\d+)", text)) == {"0"}, name


def test_buffers_move_sixteen_bytes(disassembled: Mapping[str, str]) -> None:
    """Weights in rows, blocks, and results: arrays of 16-byte elements."""
    for name, text in disassembled.items():
        # An image has no stride.
        wide = (0,) if name.startswith("pack") else (0, 2)
        expected = {number: "16" for number in wide if KERNELS[name][number] == BUFFER}
        assert {n: _stride(text, n) for n in wide if _stride(text, n)} == expected, name


def _stride(text: str, binding: int) -> str:
    """Return the bytes between the elements of a buffer, or an empty string for an image."""
    (variable,) = re.findall(rf"OpDecorate (%\d+) Binding {binding}\n", text)
    array = re.search(r"OpTypeStruct (%\d+)", _pointee(text, variable))
    if array is None:
        return ""
    (stride,) = re.findall(rf"OpDecorate {array[1]} ArrayStride (\d+)", text)
    return str(stride)


def _pointee(text: str, variable: str) -> str:
    """Return the declaration of what a variable's pointer points to."""
    (pointer,) = re.findall(rf"{variable} = OpVariable (%\d+)", text)
    (kind,) = re.findall(rf"{pointer} = OpTypePointer \w+ (%\d+)", text)
    (declaration,) = re.findall(rf"^ *{kind} = (.*)$", text, re.MULTILINE)
    if declaration.startswith("OpTypeSampledImage"):
        return "OpTypeImage"
    return str(declaration)


def test_lower_precision_changes_nothing(out: Path, tmp_path: Path) -> None:
    """An ExecuTorch built for medium precision: words that hold two halves keep all their bits."""
    medium = build(FOLDER, tmp_path, "--auto-use-mediump")
    assert medium.keys() == KERNELS.keys()
    for name, path in medium.items():
        assert path.read_bytes() == (out / f"{name}.spv").read_bytes(), name


def test_refused_shader_is_shown(tmp_path: Path) -> None:
    broken = tmp_path / "in"
    broken.mkdir()
    (broken / "broken.glsl").write_text("#version 450 core\nvoid main() { nonsense(); }\n")
    with pytest.raises(RuntimeError, match="nonsense"):
        build(broken, tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="absent"):
        build(tmp_path / "absent", tmp_path / "out")


def test_missing_compiler_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="apt-get install glslc"):
        build(FOLDER, tmp_path / "out")


def test_families_are_the_tables_variants() -> None:
    named = {kernel.shader.name for family in FAMILIES for kernel in family.kernels}
    assert named == {shader.name for shader in executorch_shaders()} == KERNELS.keys()


def test_template_expands_to_each_kernels_own_functions(out: Path) -> None:
    """Folding loses nothing and mixes nothing up."""
    variants = list(executorch_shaders())
    translated = naga.translate([variant.source for variant in variants])
    for variant, text in zip(variants, translated, strict=True):
        own = blocks(text, variant.source, interface(variant).names)
        expanded = (out / f"{variant.name}.glsl").read_text(encoding="utf-8")
        functions = expanded.partition("in;\n")[2]
        assert functions.split() == " ".join(own.values()).split(), variant.name


# Ids that no row has

OUTSIDE = (50, 51, -1, -(2**31), 2**31 - 1, 1 << 20)


@pytest.fixture(scope="module")
def lavapipe() -> Iterator[Device]:
    with Device("lavapipe", validation=True) as device:
        yield device


def test_ids_outside_the_vocabulary_give_zeros(out: Path, lavapipe: Device) -> None:
    """Positive zeros, whatever stands in row 0, which is read instead; the others are as ever."""
    cases = cases_of_all_kernels()
    assert {case.kernel for case in cases} == {n for n in UPSTREAM if n.startswith("embedding")}
    for case in cases:
        spirv = (out / f"{case.kernel}.spv").read_bytes()
        found, expected = with_ids_outside(case, spirv, lavapipe)
        np.testing.assert_array_equal(found.view(np.uint8), expected.view(np.uint8), case.kernel)


def with_ids_outside(case: Case, spirv: bytes, device: Device) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the result for `OUTSIDE` between two ids that are inside, and the right result."""
    ids = np.array([49, *OUTSIDE, 1], np.int32)
    dispatch = contract.dispatch(case, spirv)
    result, indices, weight, scales, sizes = dispatch.resources
    indices = (
        SampledImage(pack_width(ids.reshape(1, 1, -1)))
        if case.storage == "texture3d"
        else StorageBuffer(ids)
    )
    scales = StorageBuffer(scales.data.copy())
    scales.data[0] = np.inf
    dispatch = replace(dispatch, resources=[result, indices, weight, scales, sizes])
    found = contract.result(case, device.run(dispatch).results[0])
    rows = np.where(np.isin(ids, OUTSIDE), 0, ids)
    expected = reference.embedding(rows, case.matrix(), case.output)
    expected[1:-1] = 0
    return found, expected


def cases_of_all_kernels() -> list[Case]:
    """50 rows: two less than whole blocks; two groups in a row."""
    return [
        Case("ids", 50, 64, 32, (8,), output, storage, weight, scales)
        for weight, scales, storage, output in all_kernels()
    ]
