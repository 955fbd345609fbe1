"""The raw-Vulkan runner: a small kernel for each kind of descriptor, on both software drivers.

The validation layer is on everywhere; it makes `Device.run` and `Device.close` raise.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import vulkan as vk
from numpy.typing import NDArray

from tools.vulkan import (
    Device,
    Dispatch,
    Instance,
    SampledImage,
    StorageBuffer,
    StorageImage,
    UniformBuffer,
    ValidationError,
    find_driver,
    list_drivers,
    upstream_local_size,
)
from wgpu_q4.errors import DeviceError, DeviceLimitError

DRIVERS = ("lavapipe", "swiftshader")

HEADER = """
#version 450
layout(std430) buffer;
layout(local_size_x_id = 0, local_size_y_id = 1, local_size_z_id = 2) in;
"""

# Everything that ExecuTorch binds, at once: each input has a digit of its own in the result.
ALL_KINDS = (
    HEADER
    + """
layout(set = 0, binding = 0) writeonly buffer Out { int t_out[]; };
layout(set = 0, binding = 1) readonly buffer In { int t_in[]; };
layout(set = 0, binding = 2) uniform isampler2D t_plane;
layout(set = 0, binding = 3) uniform isampler3D t_volume;
layout(set = 0, binding = 4) uniform Sizes { ivec4 out_sizes; };
layout(push_constant) uniform Push { int first; int second; };
layout(constant_id = 3) const int extra = 0;

void main() {
    ivec3 at = ivec3(gl_GlobalInvocationID);
    if (any(greaterThanEqual(at, out_sizes.xyz))) {
        return;
    }
    int flat_at = (at.z * out_sizes.y + at.y) * out_sizes.x + at.x;
    t_out[flat_at] = t_in[flat_at]
        + 100 * texelFetch(t_plane, at.xy, 0).z
        + 10000 * texelFetch(t_volume, at, 0).y
        + first * 1000000 + second * 10000000 + extra * 100000000;
}
"""
)

WORKGROUP = (
    HEADER
    + """
layout(set = 0, binding = 0) writeonly buffer Out { uvec4 t_out[]; };

void main() {
    uvec3 grid = gl_NumWorkGroups * gl_WorkGroupSize;
    uint at = (gl_GlobalInvocationID.z * grid.y + gl_GlobalInvocationID.y) * grid.x
        + gl_GlobalInvocationID.x;
    if (at < t_out.length()) {
        t_out[at] = uvec4(gl_WorkGroupSize, gl_NumWorkGroups.x);
    }
}
"""
)


def images(texel: str, scalar: str) -> str:
    return (
        HEADER
        + f"""
layout(set = 0, binding = 0, {texel}) uniform writeonly {scalar}image3D t_volume;
layout(set = 0, binding = 1, {texel}) uniform writeonly {scalar}image2D t_plane;

void main() {{
    ivec3 at = ivec3(gl_GlobalInvocationID);
    if (at == ivec3(1, 1, 1)) {{
        return;
    }}
    imageStore(t_volume, at, {scalar}vec4(at, 7));
    if (at.z == 0) {{
        imageStore(t_plane, at.xy, {scalar}vec4(at.yx, 8, 9));
    }}
}}
"""
    )


@pytest.fixture(scope="module")
def compile_glsl(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("spirv")
    built: dict[str, bytes] = {}

    def compile_source(source: str) -> bytes:
        if source not in built:
            target = folder / "kernel.spv"
            command = ["glslc", "--target-env=vulkan1.1", "-fshader-stage=comp"]
            subprocess.run([*command, "-o", str(target), "-"], input=source, text=True, check=True)
            built[source] = target.read_bytes()
        return built[source]

    return compile_source


@pytest.fixture(params=DRIVERS)
def device(request: pytest.FixtureRequest) -> Iterator[Device]:
    with Device(request.param, validation=True) as opened:
        yield opened


def all_kinds(spirv: bytes, **changes: Any) -> Dispatch:
    shape = (2, 3, 5)
    values = np.arange(30, dtype=np.int32).reshape(shape)
    plane = np.zeros((3, 5, 4), np.int32)
    plane[..., 2] = values[1]
    volume = np.zeros((*shape, 4), np.int32)
    volume[..., 1] = values[::-1, ::-1, ::-1]
    fields: dict[str, Any] = {
        "resources": [
            StorageBuffer(np.full(shape, -1, np.int32)),
            StorageBuffer(values),
            SampledImage(plane),
            SampledImage(volume),
            UniformBuffer(np.array([5, 3, 2, 0], np.int32)),
        ],
        "grid": (5, 3, 2),
        "push_constants": np.array([3, 7], np.int32).tobytes(),
        "constants": {3: 2},
    }
    return Dispatch(spirv, **fields | changes)


def test_every_kind_of_descriptor_reaches_its_binding(device: Device, compile_glsl: Any) -> None:
    dispatch = all_kinds(compile_glsl(ALL_KINDS))
    (found,) = device.run(dispatch).results
    values, plane, volume = (dispatch.resources[binding].data for binding in (1, 2, 3))
    expected = values + 100 * plane[None, ..., 2] + 10000 * volume[..., 1]
    np.testing.assert_array_equal(found, expected + 3_000_000 + 70_000_000 + 200_000_000)


@pytest.mark.parametrize(
    ("texel", "scalar", "dtype"),
    [("rgba16f", "", np.float16), ("rgba32f", "", np.float32), ("rgba32i", "i", np.int32)],
)
def test_storage_images_keep_what_is_not_written(
    device: Device, compile_glsl: Any, texel: str, scalar: str, dtype: type
) -> None:
    volume: NDArray[Any] = np.full((2, 3, 4, 4), 99, dtype)
    plane: NDArray[Any] = np.full((3, 4, 4), 99, dtype)
    outcome = device.run(
        Dispatch(
            compile_glsl(images(texel, scalar)),
            [StorageImage(volume), StorageImage(plane)],
            (4, 3, 2),
            local_size=(4, 1, 1),
            results=(0, 1),
        )
    )
    z, y, x = np.mgrid[:2, :3, :4]
    expected: NDArray[Any] = np.stack([x, y, z, np.full_like(x, 7)], -1).astype(dtype)
    expected[1, 1, 1] = 99
    np.testing.assert_array_equal(outcome.results[0], expected)
    expected = np.stack([y[0], x[0], 8 + 0 * x[0], 9 + 0 * x[0]], -1).astype(dtype)
    np.testing.assert_array_equal(outcome.results[1], expected)


LOCAL_SIZES = {
    (1, 1, 1): (64, 1, 1),
    (64, 1, 1): (64, 1, 1),
    (1, 2047, 1): (1, 64, 1),
    (64, 2047, 1): (4, 16, 1),
    (2, 3, 1): (2, 32, 1),
    (2, 1, 32): (2, 1, 32),
    (4, 8, 4): (4, 8, 2),
    (1, 3, 2): (1, 32, 2),
    (2, 3, 2): (2, 4, 2),
}
"""What ExecuTorch takes for a grid."""


def test_local_sizes_are_those_of_upstream(device: Device, compile_glsl: Any) -> None:
    for grid, local in LOCAL_SIZES.items():
        assert upstream_local_size(grid) == local
        groups = [-(-extent // size) for extent, size in zip(grid, local, strict=True)]
        total = int(np.prod(groups) * np.prod(local))
        buffer = StorageBuffer(np.zeros((total, 4), np.uint32))
        (found,) = device.run(Dispatch(compile_glsl(WORKGROUP), [buffer], grid)).results
        np.testing.assert_array_equal(found, np.tile([*local, groups[0]], (total, 1)))


def test_a_smaller_grid_leaves_the_rest(device: Device, compile_glsl: Any) -> None:
    dispatch = all_kinds(compile_glsl(ALL_KINDS), grid=(5, 3, 1), local_size=(5, 1, 1))
    (found,) = device.run(dispatch).results
    assert (found[1] == -1).all()
    assert (found[0] != -1).all()


def test_timestamps(device: Device, compile_glsl: Any) -> None:
    outcome = device.run(all_kinds(compile_glsl(ALL_KINDS), timed_runs=3))
    assert len(outcome.seconds) == 3
    assert all(seconds >= 0 for seconds in outcome.seconds)
    assert sum(outcome.seconds) > 0


def test_a_mistake_is_heard(compile_glsl: Any) -> None:
    """The layer is really on: a kernel that finds too few push constants must not pass."""
    spirv = compile_glsl(ALL_KINDS)
    with Device("lavapipe", validation=True) as opened:
        with pytest.raises(ValidationError, match=r"(?i)push.constant"):
            opened.run(all_kinds(spirv, push_constants=bytes(4)))
        opened.run(all_kinds(spirv))


def test_a_leaked_object_is_heard() -> None:
    opened = Device("lavapipe", validation=True)
    vk.vkCreateFence(opened.handle, vk.VkFenceCreateInfo(), None)
    with pytest.raises(ValidationError, match=r"(?i)fence"):
        opened.close()


def test_each_instance_hears_only_its_own_messages(compile_glsl: Any) -> None:
    with (
        Device("lavapipe", validation=True) as quiet,
        Device("swiftshader", validation=True) as loud,
        Instance(find_driver("lavapipe"), validation=True),
    ):
        with pytest.raises(ValidationError):
            loud.run(all_kinds(compile_glsl(ALL_KINDS), push_constants=bytes(4)))
        quiet.run(all_kinds(compile_glsl(ALL_KINDS)))


def test_the_driver_asked_for_is_the_one_that_runs() -> None:
    before = dict(os.environ)
    with Device("lavapipe") as first, Device("swiftshader") as second:
        assert "llvmpipe" in first.summary
        assert "SwiftShader" in second.summary
        assert (first.kind, second.kind) == ("CPU", "CPU")
        assert Device("swiftshader", name="swiftSHADER").summary == second.summary
    assert dict(os.environ) == before


def test_errors_say_what_there_is(compile_glsl: Any, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"no Vulkan driver is called 'voodoo'.*lavapipe"):
        Device("voodoo")
    with pytest.raises(DeviceError, match=r"no device called 'voodoo', only: llvmpipe"):
        Device("lavapipe", name="voodoo")
    broken = tmp_path / "broken.json"
    broken.write_text("{}")
    with pytest.raises(DeviceError, match="not the manifest"):
        Device(str(broken))
    with Device("lavapipe") as opened:
        with pytest.raises(DeviceLimitError, match="workgroup"):
            opened.run(all_kinds(b"", local_size=(4096, 1, 1)))
        with pytest.raises(DeviceLimitError, match=r"binding 0 .* texels"):
            opened.run(Dispatch(b"", [StorageImage(np.zeros((1, 1 << 15, 4), "f4"))], (1, 1, 1)))
        with pytest.raises(ValueError, match="grid"):
            opened.run(all_kinds(b"", grid=(0, 1, 1)))
    with pytest.raises(ValueError, match="texels"):
        SampledImage(np.zeros((2, 2), np.float32))
    with pytest.raises(TypeError, match="float64"):
        SampledImage(np.zeros((2, 2, 4)))


def test_drivers_are_found_by_manifest(tmp_path: Path) -> None:
    manifest = tmp_path / "data" / "vulkan" / "icd.d" / "acme_icd.x86_64.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text('{"ICD": {"library_path": "libvulkan_acme.so"}}')
    (manifest.parent / "broken.json").write_text("not json")
    environment = {"XDG_DATA_HOME": str(tmp_path / "data"), "XDG_DATA_DIRS": str(tmp_path)}
    found = {driver.name: driver for driver in list_drivers(environment)}
    assert found["acme"].manifest == manifest
    assert "broken" not in found
    alone = list_drivers({"VK_DRIVER_FILES": str(manifest)})
    assert [driver.name for driver in alone] == ["acme"]
    assert alone[0].environment["VK_ICD_FILENAMES"] == str(manifest)
    both = list_drivers({**os.environ, "VK_DRIVER_FILES": str(manifest)})
    assert [driver.name for driver in both] == ["acme", "swiftshader"]
