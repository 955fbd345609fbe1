"""What all tests share: tiers by folder, devices and models, and random cases that repeat.

A test that names a backend or a model fails where it is missing: a skipped test proves nothing.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings
from hypothesis.configuration import set_hypothesis_home_dir

if TYPE_CHECKING:
    from wgpu_q4.device import Context

HERE = Path(__file__).resolve().parent

TIERS = ("tools", "gpu", "executorch", "torch", "unit")
"""The folders of tests, each a marker; the slow ones first, so that two processes end together."""

# The same random cases in every run, with no deadline: a busy machine changes no outcome.
settings.register_profile("same", derandomize=True, database=None, deadline=None, max_examples=50)
settings.load_profile("same")
set_hypothesis_home_dir(HERE.parent / ".cache" / "hypothesis")  # it keeps a folder in any case


def pytest_configure(config: pytest.Config) -> None:
    """Take away what a user's shell may choose, and share the cores among the processes."""
    for variable in ("WGPU_Q4_ADAPTER", "WGPU_Q4_IMPLEMENTATION", "WGPU_Q4_SHADER_CHECKS"):
        os.environ.pop(variable, None)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if processes > 1:
        # Mesa's driver and torch would start a thread for each core in each process; torch's wait
        # for each other in a loop, which takes minutes where there are more of them than cores.
        share = str(max(1, (os.cpu_count() or 1) // processes))
        for variable in ("LP_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            os.environ.setdefault(variable, share)


def tier(item: pytest.Item) -> str:
    """Return the folder of ``tests/`` that a test stands in."""
    return item.path.relative_to(HERE).parts[0]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test with its tier, so that ``pytest -m gpu`` selects a folder, and order them."""
    for item in items:
        item.add_marker(tier(item))
    items.sort(key=lambda item: TIERS.index(tier(item)))


@pytest.fixture(scope="session")
def context() -> Context:
    """The context of the best adapter, which a call without ``device=`` uses."""
    from wgpu_q4.device.context import default_context

    return default_context()


@pytest.fixture(scope="session")
def device(context: Context) -> Any:
    """The device of that context; its pipelines are compiled once for all tests."""
    return context.device


@pytest.fixture(scope="session")
def webgpu_device() -> Any:
    """A device with WebGPU's default limits and no feature."""
    from tests.devices import default_device

    return default_device("wgpu")


@pytest.fixture(scope="session")
def swiftshader() -> Path:
    """The manifest of SwiftShader, the second Vulkan driver."""
    from tests.devices import swiftshader

    return swiftshader()


@pytest.fixture(params=[1 << 20, 64], ids=["one range", "many ranges"])
def ranges(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Split small matrices over threads as large ones are split, and do not."""
    monkeypatch.setattr("wgpu_q4.format.parallel.RANGE_BYTES", request.param)
