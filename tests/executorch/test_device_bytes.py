"""What the runtimes hold on the device for real files, against what their allocators said.

The expected numbers are the sizes of the allocations that ExecuTorch's Vulkan runtime (1.5.0 at
cff6f4dd32, built from source) made for constants of these very programs, and the sums of buffers
that its WebGPU runtime made.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.tied_models import (
    PACKED_BYTES,
    SCALES_BYTES,
    VOCAB,
    Tied,
    export,
    lower,
    quantized_int8_activations,
    quantized_shared,
)
from wgpu_q4.cli import main
from wgpu_q4.executorch import PteReport, inspect_pte, share_tied_weights
from wgpu_q4.pte.device_bytes import DeviceMemory, Target

ONES = 4 * VOCAB


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("device_bytes")


def inspected(path: Path, model: Any, *, shared: bool = True, **options: Any) -> PteReport:
    program = export(model)
    if shared:
        program, _ = share_tied_weights(program, **options)
    path.write_bytes(lower(program))
    return inspect_pte(path)


@pytest.fixture(scope="module")
def weight_only(folder: Path) -> PteReport:
    return inspected(folder / "weight_only.pte", quantized_shared(Tied()))


@pytest.fixture(scope="module")
def int8(folder: Path) -> PteReport:
    return inspected(folder / "int8.pte", quantized_int8_activations(Tied()))


def held(report: PteReport, target: Target) -> DeviceMemory:
    return next(memory for memory in report.device if memory.target == target)


def sizes(report: PteReport, target: Target) -> list[int]:
    return sorted(copy.nbytes for copy in held(report, target).copies)


def test_a_weight_only_head(weight_only: PteReport) -> None:
    rest = [ONES, SCALES_BYTES, SCALES_BYTES]
    assert sizes(weight_only, "vulkan>=1.4") == [*rest, PACKED_BYTES, PACKED_BYTES]
    assert sizes(weight_only, "vulkan<1.4") == sizes(weight_only, "webgpu")
    assert sizes(weight_only, "webgpu") == [*rest, PACKED_BYTES]


def test_a_head_with_8_bit_activations_is_held_once(int8: PteReport, folder: Path) -> None:
    for target in ("vulkan>=1.4", "vulkan<1.4", "webgpu"):
        assert sizes(int8, target) == [ONES, *[SCALES_BYTES] * 3, PACKED_BYTES]
    twice = inspected(folder / "twice.pte", quantized_int8_activations(Tied()), scales_once=False)
    untied = inspected(folder / "untied.pte", quantized_int8_activations(Tied()), shared=False)
    saved = held(untied, "vulkan>=1.4").constants - held(twice, "vulkan>=1.4").constants
    assert saved == PACKED_BYTES


def test_all_of_it(weight_only: PteReport, int8: PteReport) -> None:
    """The allocators said 229,752, 179,156 and 158,004: textures rounded up, and some kilobytes."""
    for report, allocated in ((weight_only, 229_752), (int8, 179_156)):
        assert 0 <= allocated - held(report, "vulkan>=1.4").nbytes < 6_600
    assert 158_004 - held(weight_only, "webgpu").nbytes < 512  # no textures there


def test_the_command_says_it(weight_only: PteReport, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", weight_only.path]) == 0
    shown = capsys.readouterr().out
    assert "bytes on the device" in shown
    (matrix,) = (blob for blob in weight_only.blobs if blob.nbytes == PACKED_BYTES)
    assert (
        f"{matrix.sha256[:12]} held twice: pack_q4_linear_weight, "
        f"pack_q4_linear_weight__w_4x8_nc_buffer"
    ) in shown
    assert f"vulkan>=1.4{held(weight_only, 'vulkan>=1.4').constants:>24,}" in shown


def test_the_report_of_the_pass_says_it() -> None:
    for model, copies in ((quantized_shared, 2), (quantized_int8_activations, 1)):
        _, report = share_tied_weights(export(model(Tied())))
        (shared,) = report.shared
        assert shared.device_bytes("vulkan>=1.4") == copies * PACKED_BYTES
        assert shared.device_bytes("vulkan<1.4") == shared.device_bytes("webgpu") == PACKED_BYTES
        assert (
            f"packed bytes on the device: {copies * PACKED_BYTES:,} (vulkan>=1.4), "
            f"{PACKED_BYTES:,} (vulkan<1.4), {PACKED_BYTES:,} (webgpu)"
        ) in str(report)
