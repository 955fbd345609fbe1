"""An adapter that runs on the processor is announced: once, and on the line that asked for it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from inspect import currentframe
from typing import Any

import numpy as np
import pytest

from tests.cases import PRIME, anew, random_weight, random_x
from tests.fakes import fake_adapter
from wgpu_q4 import SoftwareAdapterWarning, embedding, linear, request_device
from wgpu_q4.device import adapter, adapter_summary, context, default_context


@pytest.fixture
def unwarned(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[warnings.WarningMessage]]:
    """The state of a new process, in which every adapter runs on the processor."""
    monkeypatch.setattr(adapter, "_warned", set())
    monkeypatch.setattr(context, "_default", {})
    monkeypatch.setattr(adapter, "is_software", lambda adapter: True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield caught


def line_here() -> int:
    """The line of the caller."""
    frame = currentframe()
    assert frame is not None
    assert frame.f_back is not None
    return frame.f_back.f_lineno


def test_a_software_adapter_is_announced_once_where_it_was_asked_for(
    unwarned: list[warnings.WarningMessage],
) -> None:
    weight = anew(random_weight(PRIME, "float16"))
    line = line_here() + 1
    embedding(np.array([0]), weight)
    embedding(np.array([0]), weight)
    linear(random_x(1, PRIME.embed_dim), weight)
    request_device()
    found = [item for item in unwarned if issubclass(item.category, SoftwareAdapterWarning)]
    assert len(found) == 1
    assert (found[0].filename, found[0].lineno) == (__file__, line)
    assert adapter_summary(default_context().device.adapter) in str(found[0].message)


def test_the_announcement_names_the_line_of_each_way_in(
    unwarned: list[warnings.WarningMessage],
) -> None:
    line = line_here() + 1
    request_device()
    assert [(item.filename, item.lineno) for item in unwarned] == [(__file__, line)]


def test_nothing_is_announced_of_an_adapter_that_was_named(
    unwarned: list[warnings.WarningMessage], here: Any
) -> None:
    request_device(adapter_summary(here))
    assert unwarned == []


def test_nothing_is_announced_of_a_gpu(
    unwarned: list[warnings.WarningMessage], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter, "is_software", lambda adapter: False)
    request_device()
    assert unwarned == []


@pytest.mark.parametrize(
    ("kind", "software"),
    [("CPU", True), ("IntegratedGPU", False), ("DiscreteGPU", False), ("Unknown", False)],
)
def test_what_runs_on_the_processor(kind: str, software: bool) -> None:
    assert adapter.is_software(fake_adapter("some", kind)) is software
