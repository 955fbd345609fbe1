"""Devices that a test has for itself, and what is dispatched on the device that all share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from wgpu_q4.device import Context
    from wgpu_q4.kernels import Dispatch


@pytest.fixture(scope="session")
def here() -> Any:
    """The best adapter of this machine, through wgpu."""
    from wgpu_q4.device import list_adapters

    return list_adapters("wgpu")[0]


@pytest.fixture
def own_device(here: Any) -> Any:
    """A device of its own for each test, with all limits of the adapter."""
    return here.request_device_sync(required_limits=dict(here.limits))


@pytest.fixture(params=["native", "public"])
def each_way(request: pytest.FixtureRequest, here: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A device of its own for each test, used in each way there is."""
    from wgpu_q4.device import context_for
    from wgpu_q4.device.roundtrip import ENVIRONMENT_VARIABLE

    monkeypatch.setenv(ENVIRONMENT_VARIABLE, request.param)
    device = here.request_device_sync(required_limits=dict(here.limits))
    assert context_for(device).round_trip.name == request.param
    return device


@pytest.fixture
def grids(context: Context, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, int]]:
    """The grid of each step that is made on the default device from now on."""
    # A device's first call also runs the probes.  They run here, so that a test sees the same
    # grids whichever test comes first.
    _ = context.half_support, context.maps_results, context.round_trip
    seen: list[tuple[int, int, int]] = []
    step = context.pipelines.step

    def spy(dispatch: Dispatch, *rest: Any) -> Any:
        seen.append(dispatch.workgroups)
        return step(dispatch, *rest)

    monkeypatch.setattr(context.pipelines, "step", spy)
    return seen
