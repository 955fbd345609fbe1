"""The device layer's part for browsers by itself, without numpy: it prints what it finds.

numpy for the newest Pyodide is on its CDN alone, so the package cannot be imported as a whole.
"""

from __future__ import annotations

import importlib
import sys
from array import array
from types import ModuleType

import wgpu_q4

DOUBLE = """
override FACTOR: u32;
@group(0) @binding(0) var<storage, read_write> t_out: array<u32>;
@group(0) @binding(1) var<storage, read> t_in: array<u32>;

@compute @workgroup_size(4)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    t_out[id.x] = FACTOR * t_in[id.x];
}
"""


def main() -> None:
    room = ModuleType("wgpu_q4.device")  # without its __init__, which imports numpy
    room.__path__ = [f"{wgpu_q4.__path__[0]}/device"]
    sys.modules["wgpu_q4.device"] = room
    webgpu = importlib.import_module("wgpu_q4.device.browser")
    (adapter,) = webgpu.gpu.enumerate_adapters_sync()
    device = adapter.request_device_sync(
        label="test", required_features=[], required_limits=adapter.limits
    )
    print(device.limits == adapter.limits, len(device.limits) > 25)
    pipeline = device.create_compute_pipeline(
        layout="auto",
        compute={
            "module": device.create_shader_module(code=DOUBLE),
            "entry_point": "main",
            "constants": {"FACTOR": 3},
        },
    )
    usages = webgpu.BufferUsage
    source, result = (
        device.create_buffer(size=16, usage=usages.STORAGE | usage)
        for usage in (usages.COPY_DST, usages.COPY_SRC)
    )
    end = device.create_buffer(size=16, usage=usages.COPY_DST | usages.MAP_READ)
    device.queue.write_buffer(source, 0, array("I", [1, 2, 3, 4]))
    group = device.create_bind_group(
        layout=pipeline.get_bind_group_layout(0),
        entries=[
            {"binding": number, "resource": {"buffer": buffer, "offset": 0, "size": 16}}
            for number, buffer in enumerate((result, source))
        ],
    )
    encoder = device.create_command_encoder()
    compute_pass = encoder.begin_compute_pass()
    compute_pass.set_pipeline(pipeline)
    compute_pass.set_bind_group(0, group)
    compute_pass.dispatch_workgroups(1)
    compute_pass.end()
    encoder.copy_buffer_to_buffer(result, 0, end, 0, 16)
    device.queue.submit([encoder.finish()])
    end.map_sync(webgpu.MapMode.READ)
    print(list(end.read_mapped().cast("I")))
    end.unmap()
    try:
        device.create_buffer(size=16, usage=usages.MAP_READ | usages.STORAGE)
    except webgpu.GPUError as error:
        print(error)


main()
