"""Ids on a device that are outside of the vocabulary, on two drivers, without bounds checks."""

from __future__ import annotations

from tests.devices import run_on_swiftshader
from tests.unknown_ids import check_all
from wgpu_q4 import request_device


def test_unknown_ids_read_row_0_and_give_zeros() -> None:
    check_all(request_device(implementation="wgpu"))


def test_unknown_ids_on_the_second_driver() -> None:
    assert run_on_swiftshader("tests.unknown_ids", "wgpu").split() == ["right"]
