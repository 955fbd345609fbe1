"""What the tests of files share: matrices, and how to look at what was written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from tests.devices import HANGS
from wgpu_q4.weight import Q4Weight


def random_floats(vocab: int = 13, embed_dim: int = 96, seed: int = 0) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((vocab, embed_dim)).astype(np.float32)


def assert_equal(result: Q4Weight, expected: Q4Weight) -> None:
    assert result.group_size == expected.group_size
    np.testing.assert_array_equal(result.packed_as("linear"), expected.packed_as("linear"))
    np.testing.assert_array_equal(result.scales, expected.scales, strict=True)


def tensors_of(path: Path) -> dict[str, NDArray[Any]]:
    """What any safetensors reader sees."""
    return safetensors.numpy.load_file(path)


def names_in(directory: Path) -> list[str]:
    return sorted(os.listdir(directory))


def run_python(code: str, *args: object, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "if True:\n" + code, *map(str, args)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=HANGS, **options
    )
