"""ExecuTorch's shaders: what the builder makes of them, and that they are what wgsl/ gives."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from tools.codegen import FOLDER, build, generate, naga, registered
from tools.codegen.fold import fold, merged_order
from tools.codegen.glsl import blocks
from tools.codegen.interface import FAMILIES, interface
from tools.codegen.shaders import executorch_shaders
from tools.parity import contract
from tools.vulkan import Device, SampledImage, StorageBuffer
from wgpu_q4 import kernels, reference
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

every_kernel = pytest.mark.parametrize("name", UPSTREAM)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("spv")
    built = build(FOLDER, folder)
    assert all(path.read_bytes()[:4] == b"\x03\x02\x23\x07" for path in built.values())
    return folder


@pytest.fixture(scope="module")
def disassembled(out: Path) -> dict[str, str]:
    return {
        name: run("spirv-dis", "--no-color", "--raw-id", out / f"{name}.spv") for name in UPSTREAM
    }


@pytest.fixture(scope="module")
def generated() -> dict[str, str]:
    return generate()


def run(*command: str | Path, **environment: str) -> str:
    """Standard output of a command that must succeed."""
    done = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# What ExecuTorch's builder makes of the files


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
    assert registered(out) == UPSTREAM


def test_builder_returns_each_kernels_file(tmp_path: Path) -> None:
    only = tmp_path / "in"
    only.mkdir()
    for suffix in ("glsl", "yaml"):
        shutil.copy(FOLDER / f"pack_q4_linear_weight.{suffix}", only)
    built = build(only, tmp_path / "out")
    assert built.keys() == {"pack_q4_linear_weight_buffer", "pack_q4_linear_weight_texture2d"}
    assert all(path == tmp_path / "out" / f"{name}.spv" for name, path in built.items())
    assert all(path.is_file() for path in built.values())


@every_kernel
def test_spirv_is_valid(out: Path, name: str) -> None:
    run("spirv-val", "--target-env", "vulkan1.1", out / f"{name}.spv")


def test_builder_asks_for_no_extension(out: Path) -> None:
    """The six flags and the subgroup size that follow a kernel's tile size."""
    source = (out / "spv.cpp").read_text(encoding="utf-8")
    flags = re.findall(r"\{1, 1, 1\},\s*((?:(?:true|false),\s*){6}\d+)", source)
    assert len(flags) == len(UPSTREAM)
    assert {re.sub(r"\s", "", found) for found in flags} == {"false," * 6 + "0"}


@every_kernel
def test_spirv_needs_no_narrow_types(disassembled: Mapping[str, str], name: str) -> None:
    text = disassembled[name]
    assert set(re.findall(r"OpCapability (\w+)", text)) == {"Shader"}
    assert "OpExtension" not in text
    assert set(re.findall(r"OpType(?:Int|Float) (\d+)", text)) == {"32"}


@every_kernel
def test_local_size_is_the_only_specialization(disassembled: Mapping[str, str], name: str) -> None:
    assert re.findall(r"SpecId (\d+)", disassembled[name]) == ["0", "1", "2"]


@every_kernel
def test_push_constants_lie_where_the_host_puts_them(
    disassembled: Mapping[str, str], name: str
) -> None:
    text = disassembled[name]
    (block,) = re.findall(r"OpTypePointer PushConstant (%\d+)", text)[:1]
    offsets = re.findall(rf"OpMemberDecorate {block} (\d) Offset (\d+)", text)
    second = "4" if name.startswith("embedding") else "16"
    assert offsets == [("0", "0"), ("1", second)]


@every_kernel
def test_bindings_are_numbered_in_order(disassembled: Mapping[str, str], name: str) -> None:
    text = disassembled[name]
    numbers = sorted(int(number) for number in re.findall(r" Binding (\d+)", text))
    assert numbers == list(range(len(UPSTREAM[name])))
    assert set(re.findall(r" DescriptorSet (\d+)", text)) == {"0"}


@every_kernel
def test_buffers_move_sixteen_bytes(disassembled: Mapping[str, str], name: str) -> None:
    """Weights in rows, blocks, and results: arrays of 16-byte elements."""
    text = disassembled[name]
    strides = {}
    for number in (0, 2):
        found = re.search(rf"OpDecorate (%\d+) Binding {number}\n", text)
        if found is None or "OpTypeImage" in _pointee(text, found[1]):
            continue
        array = re.search(r"OpTypeStruct (%\d+)", _pointee(text, found[1]))
        assert array is not None
        (strides[number],) = re.findall(rf"OpDecorate {array[1]} ArrayStride (\d+)", text)
    if name.startswith("pack"):
        assert strides in ({0: "16"}, {})
    else:
        expected = {0: "16"} if "_texture3d" not in name else {}
        assert strides == expected | ({2: "16"} if UPSTREAM[name][2] == BUFFER else {})


def _pointee(text: str, variable: str) -> str:
    """What a variable's pointer points to, samplers and all, as a declaration."""
    (pointer,) = re.findall(rf"{variable} = OpVariable (%\d+)", text)
    (kind,) = re.findall(rf"{pointer} = OpTypePointer \w+ (%\d+)", text)
    (declaration,) = re.findall(rf"^ *{kind} = (.*)$", text, re.MULTILINE)
    if declaration.startswith("OpTypeSampledImage"):
        return "OpTypeImage"
    return str(declaration)


def test_lower_precision_changes_nothing(out: Path, tmp_path: Path) -> None:
    """An ExecuTorch built for medium precision: words that hold two halves keep all their bits."""
    medium = build(FOLDER, tmp_path, "--auto-use-mediump")
    assert medium.keys() == UPSTREAM.keys()
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


# Ids that no row has

OUTSIDE = (50, 51, -1, -(2**31), 2**31 - 1, 1 << 20)


@pytest.fixture(scope="module")
def lavapipe() -> Iterator[Device]:
    with Device("lavapipe", validation=True) as device:
        yield device


@pytest.mark.parametrize("name", [name for name in UPSTREAM if name.startswith("embedding")])
def test_ids_outside_the_vocabulary_give_zeros(out: Path, lavapipe: Device, name: str) -> None:
    """Positive zeros, whatever stands in row 0, which is read instead; the others are as ever."""
    case = next(case for case in cases_of_all_kernels() if case.kernel == name)
    ids = np.array([49, *OUTSIDE, 1], np.int32)
    dispatch = contract.dispatch(case, (out / f"{name}.spv").read_bytes())
    result, indices, weight, scales, sizes = dispatch.resources
    indices = (
        SampledImage(pack_width(ids.reshape(1, 1, -1)))
        if case.storage == "texture3d"
        else StorageBuffer(ids)
    )
    scales = StorageBuffer(scales.data.copy())
    scales.data[0] = np.inf
    dispatch = replace(dispatch, resources=[result, indices, weight, scales, sizes])
    found = contract.result(case, lavapipe.run(dispatch).results[0])
    rows = np.where(np.isin(ids, OUTSIDE), 0, ids)
    expected = reference.embedding(rows, case.matrix(), case.output)
    expected[1:-1] = 0
    np.testing.assert_array_equal(found.view(np.uint8), expected.view(np.uint8))


def cases_of_all_kernels() -> list[Case]:
    """50 rows: two less than whole blocks; two groups in a row."""
    return [
        Case("ids", 50, 64, 32, (8,), output, storage, weight, scales)
        for weight, scales, storage, output in all_kernels()
    ]


# The files are what wgsl/ gives


def test_files_are_up_to_date(generated: Mapping[str, str]) -> None:
    for name, text in generated.items():
        assert (FOLDER / name).read_bytes().decode() == text, f"run python -m tools.codegen: {name}"
    shaders = {path.name for path in FOLDER.iterdir()} - {"README.md"}
    assert shaders == generated.keys()


def test_check_tells_drift_and_writing_mends_it(tmp_path: Path) -> None:
    folder = tmp_path / "vulkan_glsl"
    shutil.copytree(FOLDER, folder)
    command = [sys.executable, "-m", "tools.codegen", "--out", str(folder)]
    file = folder / "embedding_q4gsw.glsl"
    original = file.read_bytes()
    assert original.count(b"vec4(8.0)") > 1
    file.write_bytes(original.replace(b"vec4(8.0)", b"vec4(7.0)", 1))
    done = subprocess.run([*command, "--check"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1
    changed = [line for line in done.stdout.splitlines() if re.match(r"[-+] ", line)]
    assert [line.lstrip("-+ ") for line in changed] == [
        "return (vec4(values) - vec4(7.0));",
        "return (vec4(values) - vec4(8.0));",
    ]
    assert "run python -m tools.codegen" in done.stderr
    run(*command)
    assert file.read_bytes() == original
    assert run(*command, "--check") == ""


def test_line_ends_count(tmp_path: Path) -> None:
    """Byte for byte."""
    folder = tmp_path / "vulkan_glsl"
    shutil.copytree(FOLDER, folder)
    file = folder / "pack_q4_linear_weight.yaml"
    file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    command = [sys.executable, "-m", "tools.codegen", "--check", "--out", str(folder)]
    assert subprocess.run(command, capture_output=True, cwd=ROOT).returncode == 1


@pytest.mark.parametrize(
    ("piece", "old", "new"),
    [
        ("weight/nibbles_embedding", "- 8.0", "- 7.0"),
        ("embedding/embedding_q4gsw", "weight * scale", "weight + scale"),
        ("pack/pack_q4_linear_weight", "8u * n8 + 4u", "8u * n8 + 5u"),
    ],
)
def test_one_token_of_wgsl_changes_the_glsl(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    generated: Mapping[str, str],
    piece: str,
    old: str,
    new: str,
) -> None:
    copy = tmp_path / "wgsl"
    shutil.copytree(kernels.source_folder(), copy)
    file = copy / f"{piece}.wgsl"
    text = file.read_text(encoding="utf-8")
    assert text.count(old) == 1
    file.write_text(text.replace(old, new), encoding="utf-8")
    out = tmp_path / "out"
    run(sys.executable, "-m", "tools.codegen", "--out", out, WGPU_Q4_WGSL=str(copy))
    changed = {name for name, text in generated.items() if (out / name).read_text() != text}
    family = "pack_q4_linear_weight" if piece.startswith("pack") else "embedding_q4gsw"
    assert changed == {f"{family}.glsl"}


def test_header_says_what_it_is(generated: Mapping[str, str]) -> None:
    for name, text in generated.items():
        assert "Generated by `python -m tools.codegen`" in text.partition("\n\n")[0], name
        assert text.isascii()
        if name.endswith(".glsl"):
            listed = set(re.findall(r"^ \*   wgsl/(\S+)\.wgsl$", text, re.MULTILINE))
            (family,) = (f for f in FAMILIES if f"{f.name}.glsl" == name)
            assert listed == {p for kernel in family.kernels for p in kernel.shader.pieces}


# From naga's text to the template


def test_families_are_the_tables_variants() -> None:
    named = {kernel.shader.name for family in FAMILIES for kernel in family.kernels}
    assert named == {shader.name for shader in executorch_shaders()} == UPSTREAM.keys()


def test_template_expands_to_each_kernels_own_functions(out: Path) -> None:
    """Folding loses nothing and mixes nothing up."""
    variants = list(executorch_shaders())
    translated = naga.translate([variant.source for variant in variants])
    for variant, text in zip(variants, translated, strict=True):
        own = blocks(text, variant.source, interface(variant).names)
        expanded = (out / f"{variant.name}.glsl").read_text(encoding="utf-8")
        functions = expanded.partition("in;\n")[2]
        assert functions.split() == " ".join(own.values()).split(), variant.name


def test_fold_decides_by_as_little_as_it_can() -> None:
    def cases(text: Mapping[tuple[str, bool], str]) -> list[tuple[dict[str, str | bool], str]]:
        return [({"A": a, "B": b}, line) for (a, b), line in text.items()]

    everywhere = dict.fromkeys(product("xy", (False, True)), "same\n")
    assert fold(cases(everywhere), ["A", "B"]) == "same\n"
    by_second = {(a, b): f"{b}\n" for a, b in product("xy", (False, True))}
    assert fold(cases(by_second), ["A", "B"]) == "$if B:\n  True\n$else:\n  False\n"
    corner = everywhere | {("y", True): ""}
    assert fold(cases(corner), ["A", "B"]) == (
        '$if A == "x":\n  same\n$else:\n  $if not B:\n    same\n'
    )
    with pytest.raises(ValueError, match="several texts"):
        fold([({"A": "x"}, "1"), ({"A": "x"}, "2")], ["A"])


def test_merged_order_keeps_every_order() -> None:
    assert merged_order([["a", "c"], ["a", "b", "c"], ["d"]]) == ["a", "b", "c", "d"]
    with pytest.raises(ValueError, match="no order"):
        merged_order([["a", "b"], ["b", "a"]])


WGSL = """\
@group(0) @binding(0) var<storage, read_write> t_out: array<u32>;

// Not part of the result.
fn unused() -> u32 {
    return 1u;
}

// Twice.
fn doubled(half: u32, k4: u32) -> u32 {
    return half * 2u + k4;
}

@compute @workgroup_size(1)
fn main() {
    // Not doubled(here); a comment.
    let once = doubled(3u, 4u);
    let twice = doubled(once, doubled(once, 1u));
    if twice > 2u {
        let doubled = doubled(twice, 2u);
        t_out[doubled] = doubled;
    }
    t_out[0] = twice + twice;
}
"""


def test_translation_keeps_names_and_comments() -> None:
    (translated,) = naga.translate([WGSL])
    found = blocks(translated, WGSL, {0: "t_out"})
    assert found == {
        "doubled": "// Twice.\nuint doubled(uint half_, uint k4) {\n"
        "  return ((half_ * 2u) + k4);\n}\n",
        "main": "void main() {\n"
        "  uint once = doubled(3u, 4u);\n"
        "  uint twice = doubled(once, doubled(once, 1u));\n"
        "  if ((twice > 2u)) {\n"
        "    uint _e9 = doubled(twice, 2u);\n"
        "    t_out[_e9] = _e9;\n"
        "  }\n"
        "  t_out[0] = (twice + twice);\n"
        "}\n",
    }


def test_naga_shows_where_it_stops() -> None:
    with pytest.raises(RuntimeError, match=r"nothing_like_it"):
        naga.translate(["@compute @workgroup_size(1) fn main() { nothing_like_it(); }"])


def test_naga_must_be_there_in_its_version(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WGPU_Q4_NAGA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="make naga"):
        naga.translate([])
    (tmp_path / "package.json").write_text('{"version": "0.0.0"}')
    with pytest.raises(RuntimeError, match=r"naga-wasm 0\.0\.0, not 30\.1\.0"):
        naga.translate([])
