"""The browser of the parity harness: what it says when it cannot run a job."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tools.parity.browser import Browser, find_browser
from wgpu_q4.errors import DeviceError

DOUBLE = """
@group(0) @binding(0) var<storage, read_write> t_out: array<u32>;
@group(0) @binding(1) var<storage, read> t_in: array<u32>;

@compute @workgroup_size(4)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    t_out[id.x] = 2u * t_in[id.x];
}
"""
JOB = {
    "code": DOUBLE,
    "constants": {},
    "workgroups": [1, 1, 1],
    "layout": [
        {"binding": 0, "buffer": {"type": "storage"}},
        {"binding": 1, "buffer": {"type": "read-only-storage"}},
    ],
    "resources": [
        {"binding": 0, "kind": "buffer", "uniform": False, "nbytes": 16, "hasData": False},
        {"binding": 1, "kind": "buffer", "uniform": False, "nbytes": 16, "hasData": True},
    ],
    "result": {"nbytes": 16, "pitch": 0},
}
NUMBERS = b"".join(number.to_bytes(4, "little") for number in (1, 2, 3, 4))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    opened = Browser("swiftshader")
    yield opened
    opened.close()


# First those without the browser of the others: Playwright runs once in a thread.


def test_a_browser_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WGPU_Q4_CHROMIUM", "/no/such/browser")
    assert find_browser() is None
    with pytest.raises(DeviceError, match="no Chromium is installed: on Debian"):
        Browser("swiftshader")


def test_a_program_that_is_no_browser(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WGPU_Q4_CHROMIUM", "true")
    with pytest.raises(DeviceError, match=r"/true: "):
        Browser("swiftshader")


def test_a_job_runs_on_the_adapter_asked_for(browser: Browser) -> None:
    assert browser.hello["architecture"] == "swiftshader"
    assert int(browser.version.partition(".")[0]) > 100
    found = browser.run(JOB, {1: NUMBERS})
    assert [int.from_bytes(found[at : at + 4], "little") for at in range(0, 16, 4)] == [2, 4, 6, 8]


def test_a_wrong_shader_is_an_error_and_the_next_job_runs(browser: Browser) -> None:
    with pytest.raises(DeviceError, match=r"line 7: unresolved .*nonsense"):
        browser.run({**JOB, "code": DOUBLE.replace("2u", "nonsense")}, {1: NUMBERS})
    assert browser.run(JOB, {1: NUMBERS})[:4] == b"\2\0\0\0"
