"""The files that ExecuTorch makes of shared programs, by the installed wheel's own partitioner.

`test_inspect` looks further into them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests import rich_tables
from tests.tied_models import (
    PACKED_BYTES,
    SCALES_BYTES,
    VOCAB,
    OnlyLogits,
    Tied,
    export,
    lower,
    quantized_shared,
    weight_of,
)
from wgpu_q4 import ExportError
from wgpu_q4.executorch import inspect_pte, share_tied_weights


def test_upstream_cannot_export_what_this_is_for() -> None:
    """The day this fails, the first half of the pass has become superfluous."""
    with pytest.raises(Exception, match="FusePatternsPass"):
        lower(export(quantized_shared(OnlyLogits())))


@pytest.mark.parametrize(
    ("options", "largest", "scales"),
    [
        ({}, 88_800, [SCALES_BYTES, 4 * VOCAB]),
        ({"scales_once": False}, 101_500, [SCALES_BYTES, SCALES_BYTES]),
        (
            {"scales_dtype": "float16", "force_fp16": True},
            80_200,
            [SCALES_BYTES // 2, 2 * VOCAB],
        ),
    ],
    ids=["default", "scales in both orders", "float16"],
)
def test_the_tied_model_exports_with_one_blob(
    options: Any, largest: int, scales: list[int], tmp_path: Path
) -> None:
    program = export(quantized_shared(OnlyLogits()), dynamic=True)
    path = tmp_path / "tied.pte"
    path.write_bytes(lower(share_tied_weights(program, **options)[0]))
    assert path.stat().st_size < largest
    report = inspect_pte(path)
    (packed,) = [blob for blob in report.blobs if blob.nbytes == PACKED_BYTES]
    assert packed.sha256 == weight_of(OnlyLogits()).sha256
    assert [user.op for user in packed.users] == [
        "et_vk.embedding_q4gsw.default",
        "et_vk.linear_q4gsw.default",
    ]
    assert sorted(blob.nbytes for blob in report.blobs) == sorted([PACKED_BYTES, *scales])
    assert (len(report.delegates), report.operators) == (1, ())  # nothing runs outside


def test_another_backend_gets_a_sentence() -> None:
    """Here without any backend, as with one that leaves these ops alone."""
    from executorch.exir import to_edge_transform_and_lower

    program, _ = share_tied_weights(export(quantized_shared(OnlyLogits())))
    edge = to_edge_transform_and_lower(program)
    with pytest.raises(ExportError, match=r"et_vk\..* is outside of every delegate of the Vulkan"):
        edge.to_executorch()


def test_the_report_is_readable() -> None:
    report = share_tied_weights(export(quantized_shared(Tied())))[1]
    text = str(report)
    assert "512 × 256 in groups of 32, read by embedding, linear" in text
    assert "65,536 bytes packed, once (saves 65,536)" in text
    assert "runs on: vulkan, webgpu" in text
    shown = rich_tables.read(report)
    assert shown["read by"] == ["embedding, linear"]
    assert shown["packed, once"][0] == f"{PACKED_BYTES:,} bytes"
    assert shown["packed on vulkan>=1.4"] == [f"{2 * PACKED_BYTES:,} bytes", "16.00em"]
    assert shown["packed on webgpu"] == [f"{PACKED_BYTES:,} bytes", "8.00em"]
    assert shown["runs on"] == ["vulkan, webgpu"]
    assert json.dumps(report.shared[0].sha256)[1:-1] == weight_of(Tied()).sha256
