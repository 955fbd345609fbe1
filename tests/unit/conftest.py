"""The guard of the unit tier: its tests import no GPU library, no torch and no ExecuTorch."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import pytest

HERE = Path(__file__).resolve().parent

OUTSIDE = frozenset(
    {"executorch", "torch", "torchao", "transformers", "vulkan", "wgpu", "wgpudawn"}
)
"""What no unit test may import, in its own process."""


class Guard(MetaPathFinder):
    """Refuses the packages that are outside the tier."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.partition(".")[0] in OUTSIDE:
            raise ImportError(
                f"tests/unit must not import {fullname}: move the test to tests/gpu, tests/torch "
                f"or tests/executorch"
            )
        return None


def is_alone(config: pytest.Config) -> bool:
    """Tell whether this run has no tests but those of the unit tier."""
    paths = [Path(argument.partition("::")[0]).resolve() for argument in config.args]
    return all(path.is_relative_to(HERE) for path in paths)


def pytest_configure(config: pytest.Config) -> None:
    """Refuse imports, unless the process runs the other tiers too (`tests.tools.test_tiers`)."""
    if is_alone(config):
        sys.meta_path.insert(0, Guard())
