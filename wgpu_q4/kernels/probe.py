"""The shaders that find out what a device does."""

from __future__ import annotations

from wgpu_q4.kernels.wgsl import Shader

PROBE_HALVES = Shader(
    "probe_halves", ("probe/halves",), "what the device's half-precision functions do"
)

PROBE_HALF_ARITHMETIC = Shader(
    "probe_half_arithmetic",
    ("half/enable_f16", "linear/gemv/nibbles_f16", "probe/half_arithmetic"),
    "what half-precision arithmetic makes of nibbles",
)
"""It needs a device with the feature ``shader-f16``."""

PROBE_SUBGROUPS = Shader(
    "probe_subgroups",
    ("probe/subgroups",),
    "how wide a device's subgroups are, and their order",
)
"""It needs a device with the feature ``subgroup`` of wgpu-native."""

PROBED_INVOCATIONS = 256
"""Invocations of `PROBE_SUBGROUPS`."""
