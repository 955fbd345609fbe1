"""``examples/device_arrays.py``: it agrees with numpy, and would tell if it did not."""

from __future__ import annotations

import re

import device_arrays
import pytest


def test_the_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert device_arrays.main(["--steps", "3"]) == 0
    shown = capsys.readouterr().out
    # The lookup, the RMSNorm, the product, and two dispatches or more that keep the best.
    assert re.search(r"^recorded ([5-9]) dispatches on .+", shown)
    assert "3 of 3 replays agree with numpy" in shown


@pytest.mark.parametrize(
    ("right", "wrong"),
    [("* scale * gain[k]", "* scale"), ("inverseSqrt(sums[0]", "inverseSqrt(1.01 * sums[0]")],
)
def test_it_sees_a_wrong_kernel(
    right: str, wrong: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kernel = device_arrays.RMS_NORM
    assert right in kernel
    if wrong == "* scale":  # the binding must stay in use: layouts are made of those that are
        wrong = "* scale + 0.0 * gain[k]"
    monkeypatch.setattr(device_arrays, "RMS_NORM", kernel.replace(right, wrong))
    assert device_arrays.main(["--steps", "1"]) == 1
    assert "0 of 1 replays agree" in capsys.readouterr().out
