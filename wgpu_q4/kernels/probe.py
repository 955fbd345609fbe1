"""The shader that finds out what a device's built-in half-precision functions do."""

from __future__ import annotations

from wgpu_q4.kernels.wgsl import Shader

PROBE_HALVES = Shader(
    "probe_halves", ("probe/halves",), "what the device's half-precision functions do"
)
