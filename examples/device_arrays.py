"""One step of a language model without a look at the host: rows, a kernel of your own, logits.

    python examples/device_arrays.py

looks ids up, normalizes the rows with an RMSNorm written in WGSL, multiplies them with the same
4-bit matrix, and keeps the five best logits of each row.  All of it is recorded once and then run
for other ids, in one submission each time: nothing but the ids goes to the device, and nothing but
the five best comes back.  Then numpy computes the same in float64.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from numpy.typing import NDArray

import wgpu_q4

VOCAB, EMBED_DIM, EPSILON, BEST = 8192, 576, 1e-5, 5

RMS_NORM = """
override EMBED_DIM: u32;
override EPSILON: f32;

@group(0) @binding(0) var<storage, read> rows: array<f32>;  // [M][EMBED_DIM]
@group(0) @binding(1) var<storage, read> gain: array<f32>;  // [EMBED_DIM]
@group(0) @binding(2) var<storage, read_write> normed: array<f32>;  // [M][EMBED_DIM]

var<workgroup> sums: array<f32, 64>;

// A workgroup normalizes one row.
@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let first = workgroup.x * EMBED_DIM;
    var sum = 0.0;
    for (var k = lane; k < EMBED_DIM; k += 64u) {
        sum += rows[first + k] * rows[first + k];
    }
    sums[lane] = sum;
    workgroupBarrier();
    for (var half = 32u; half > 0u; half /= 2u) {
        if lane < half {
            sums[lane] += sums[lane + half];
        }
        workgroupBarrier();
    }
    let scale = inverseSqrt(sums[0] / f32(EMBED_DIM) + EPSILON);
    for (var k = lane; k < EMBED_DIM; k += 64u) {
        normed[first + k] = rows[first + k] * scale * gain[k];
    }
}
"""


class RmsNorm:
    """The kernel above, for a device: an ordinary compute pipeline of wgpu."""

    def __init__(self, device: Any, gain: NDArray[np.float32]) -> None:
        self.device = device
        self.gain = wgpu_q4.to_device(gain, device)
        self.pipeline = device.create_compute_pipeline(
            layout="auto",
            compute={
                "module": device.create_shader_module(code=RMS_NORM),
                "entry_point": "main",
                "constants": {"EMBED_DIM": EMBED_DIM, "EPSILON": EPSILON},
            },
        )

    def bind_group(self, *arrays: wgpu_q4.DeviceArray) -> Any:
        """Bind device arrays as any other buffers."""
        return self.device.create_bind_group(
            layout=self.pipeline.get_bind_group_layout(0),
            entries=[{"binding": i, "resource": one.binding} for i, one in enumerate(arrays)],
        )


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns 1 if the device and numpy do not agree."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=20, help="how often to replay the recording")
    steps = parser.parse_args(arguments).steps

    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((VOCAB, EMBED_DIM), np.float32) / np.sqrt(EMBED_DIM)
    weight = wgpu_q4.quantize(matrix)
    gain = rng.uniform(0.5, 1.5, EMBED_DIM).astype(np.float32)

    ids = wgpu_q4.to_device(np.zeros(4, np.int32))
    device = ids.device
    norm = RmsNorm(device, gain)
    normed = wgpu_q4.DeviceArray.empty((4, EMBED_DIM), device=device)
    with wgpu_q4.recording(device, submit=False) as step:
        rows = wgpu_q4.embedding(ids, weight)
        step.dispatch(norm.pipeline, norm.bind_group(rows, norm.gain, normed), 4)
        best = wgpu_q4.top_k(normed, weight, BEST)
    print(f"recorded {len(step)} dispatches on {wgpu_q4.device_info(device).adapter}")

    agree = 0
    floats = weight.dequantize().astype(np.float64)
    for _ in range(steps):
        wanted = rng.integers(0, VOCAB, 4)
        ids.write(wanted)
        step.replay()
        agree += check(best.ids.numpy(), best.values.numpy(), floats, wanted, gain)
    print(f"{agree} of {steps} replays agree with numpy")
    return int(agree != steps)


def check(
    found: NDArray[np.int32],
    values: NDArray[np.float32],
    floats: NDArray[np.float64],
    ids: NDArray[np.int64],
    gain: NDArray[np.float32],
) -> bool:
    """Return True if these are the best logits, computed in float64."""
    rows = floats[ids]
    normed = rows / np.sqrt((rows**2).mean(-1, keepdims=True) + EPSILON) * gain
    logits = normed @ floats.T
    expected = np.argsort(-logits, axis=-1, kind="stable")[:, :BEST]
    exact = np.take_along_axis(logits, found, -1)
    # float32: logits this close to each other may change places.
    error = 1e-5 * np.abs(logits).max()
    same = (found == expected) | (
        np.abs(exact - np.take_along_axis(logits, expected, -1)) <= 2 * error
    )
    return bool(same.all() and (np.abs(values - exact) <= error).all())


if __name__ == "__main__":
    raise SystemExit(main())
