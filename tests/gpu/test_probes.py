"""What the package finds out of a device by trying, and what the ops make of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.cases import WIDE, anew, assert_same_bits, random_weight
from tests.recorder import Recorder, check_ops
from wgpu_q4 import embedding, reference, request_device
from wgpu_q4.device import Context, context_for, probes
from wgpu_q4.kernels import PROBE_HALF_ARITHMETIC, PROBE_HALVES, Dispatch, HalfSupport, Shader


class Changed(Shader):
    """A kernel with some of its text replaced."""

    def __init__(self, shader: Shader, changes: dict[str, str]) -> None:
        super().__init__(f"{shader.name} changed", shader.pieces)
        object.__setattr__(self, "_changes", changes)

    @property
    def source(self) -> str:
        text = super().source
        for old, new in vars(self)["_changes"].items():
            assert text.count(old) == 1
            text = text.replace(old, new)
        return text


# What WGSL allows a device to do, and drivers do.
FLUSHES = {
    "unpack2x16float(pair.x)": "select(unpack2x16float(pair.x), vec2<f32>(0.0), "
    "abs(unpack2x16float(pair.x)) < vec2<f32>(6.103515625e-5))"
}
TRUNCATES = {"(pair.zw)": "(pair.zw & vec2<u32>(0xFFFFE000u))"}
OVERFLOWS_TO_THE_LARGEST = {
    "bitcast<vec2<f32>>(pair.zw)": "clamp(bitcast<vec2<f32>>(pair.zw), vec2<f32>(-65504.0), "
    "vec2<f32>(65504.0))"
}


@pytest.mark.parametrize(
    ("changes", "flaws"),
    [
        (FLUSHES, {"subnormals"}),
        (TRUNCATES, {"rounding"}),
        (OVERFLOWS_TO_THE_LARGEST, {"rounding"}),
        (FLUSHES | TRUNCATES, {"subnormals", "rounding"}),
    ],
    ids=["flushes", "truncates", "saturates", "both"],
)
def test_the_probe_sees_flaws_and_the_ops_avoid_them(
    changes: dict[str, str], flaws: set[str], own_device: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = context_for(own_device).half_support
    flawed = Context(own_device)
    flawed.is_software = False  # a processor would not take the kernel that needs subnormals
    own_device._wgpu_q4_context = flawed
    monkeypatch.setattr(probes, "PROBE_HALVES", Changed(PROBE_HALVES, changes))
    found = flawed.half_support
    assert found.subnormals == (sound.subnormals and "subnormals" not in flaws)
    assert found.rounding == (sound.rounding and "rounding" not in flaws)

    recorder = Recorder(own_device)
    weight = anew(random_weight(WIDE, "float16"))
    check_ops(weight, own_device)
    ids = np.arange(20)
    half = embedding(ids, weight, "float16", own_device)
    assert_same_bits(half, reference.embedding(ids, weight, "float16"))
    labels = [call["label"] for call in recorder.named("create_compute_pipeline")]
    assert len(labels) == 5  # embedding twice, GEMV, transpose, GEMM
    assert sum("integer_halves" in label for label in labels) == 4
    gemv = "gemv_wide_subnormal_rows" if found.subnormals else "gemv_wide_rows"
    assert sum(gemv in label for label in labels) == 1


def test_the_probe_runs_once(own_device: Any) -> None:
    kept = context_for(own_device)
    recorder = Recorder(own_device)
    assert isinstance(kept.half_support, HalfSupport)
    made = len(recorder.calls)
    assert len(recorder.named("create_compute_pipeline")) == 1
    assert kept.half_support is kept.half_support
    assert len(recorder.calls) == made


def test_the_probe_is_right_about_every_half(own_device: Any) -> None:
    """It looks at few; here are all that are finite, and as many floats around them."""
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    halves = halves[np.isfinite(halves)]
    exact = halves.astype(np.float32)
    rng = np.random.default_rng(5)
    floats = exact * (1 + rng.uniform(-(2.0**-10), 2.0**-10, exact.size)).astype(np.float32)

    pairs = np.zeros((exact.size // 2, 4), np.uint32)
    pairs[:, 0] = halves.view(np.uint32)
    pairs[:, 2:] = floats.view(np.uint32).reshape(-1, 2)
    kept = context_for(own_device)
    source = kept.create_buffer("pairs", pairs.nbytes, "STORAGE", "COPY_DST")
    target = kept.create_buffer("found", pairs.nbytes, "STORAGE", "COPY_SRC")
    kept.write(source, pairs)
    every = Changed(
        PROBE_HALVES,
        {
            "@builtin(local_invocation_index) lane: u32": "@builtin(global_invocation_id) at: "
            "vec3<u32>",
            "let pair = t_pairs[lane];": "let lane = at.x; let pair = t_pairs[lane];",
        },
    )
    assert len(pairs) % 16 == 0
    dispatch = Dispatch(every, {}, (len(pairs) // 16, 1, 1))
    step = kept.pipelines.step(dispatch, {"t_out": target, "t_pairs": source})
    found = np.empty_like(pairs)
    kept.run([step], target, found)

    unpacked = np.array_equal(found[:, :2].reshape(-1), exact.view(np.uint32))
    with np.errstate(over="ignore"):
        packed = np.array_equal(found[:, 2], floats.astype(np.float16).view(np.uint32))
    assert kept.half_support == HalfSupport(unpacked, packed, kept.half_support.arithmetic)


def test_arithmetic_that_flushes_subnormals_is_not_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """WGSL allows a device to do so."""
    device = request_device(implementation="wgpu")
    assert "shader-f16" in device.features
    assert context_for(device).half_support.arithmetic
    flushes = {"unpack_first(t_words[lane])": "vec4<f32>(0.0)"}
    changed = Changed(PROBE_HALF_ARITHMETIC, flushes)
    monkeypatch.setattr(probes, "PROBE_HALF_ARITHMETIC", changed)
    flawed = Context(device)
    assert not flawed.half_support.arithmetic
    assert flawed.half_support.nibbles == "subnormal"
