"""A kernel of a user's own, written as one who knows wgpu writes it."""

from __future__ import annotations

from typing import Any

from wgpu_q4 import DeviceArray

STEP = """
@group(0) @binding(0) var<storage, read_write> values: array<u32>;
@group(1) @binding(0) var<storage, read> added: array<u32>;

@compute @workgroup_size(64)
fn twice_and_more(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x < arrayLength(&values) {
        values[id.x] = values[id.x] * 2u + added[id.x % arrayLength(&added)];
    }
}

@group(0) @binding(0) var<storage, read_write> negated: array<u32>;

@compute @workgroup_size(64)
fn negate(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x < arrayLength(&negated) {
        negated[id.x] = ~negated[id.x];
    }
}
"""


class UserKernels:
    """``values = 2 · values + added`` with two bind groups, and ``values = ~values`` with one."""

    def __init__(self, device: Any, values: DeviceArray, added: DeviceArray) -> None:
        module = device.create_shader_module(code=STEP)
        self.double, self.negate = (
            device.create_compute_pipeline(
                layout="auto", compute={"module": module, "entry_point": name}
            )
            for name in ("twice_and_more", "negate")
        )
        self.groups = [
            device.create_bind_group(
                layout=self.double.get_bind_group_layout(number),
                entries=[{"binding": 0, "resource": array.binding}],
            )
            for number, array in enumerate((values, added))
        ]
        self.negate_group = device.create_bind_group(
            layout=self.negate.get_bind_group_layout(0),
            entries=[{"binding": 0, "resource": values.binding}],
        )
        self.workgroups = -(-values.size // 64)
