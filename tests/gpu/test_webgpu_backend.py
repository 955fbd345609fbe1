"""The WGSL for ExecuTorch's WebGPU backend, run as that backend runs it, against float64.

Every case runs on Mesa's driver through naga, and in a process for each on SwiftShader through naga
and through Tint.  All devices have WebGPU's default limits and no feature.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from tests.devices import default_device, leave_workgroup_memory_as_it_is, run_on_swiftshader
from tests.webgpu_cases import CASES, LONG, outcome
from tools.codegen import WEBGPU_FOLDER
from tools.webgpu_backend import EMBEDDING_FILE, LINEAR_FILE, WebGPUHost
from wgpu_q4.device.implementation import ENVIRONMENT_VARIABLE
from wgpu_q4.errors import DeviceLimitError


def main() -> None:
    """Run the cases in the process of `on_swiftshader`; print JSON."""
    implementation = os.environ[ENVIRONMENT_VARIABLE]
    if implementation == "wgpudawn":
        leave_workgroup_memory_as_it_is()
    device = default_device(implementation)
    host = WebGPUHost(device, WEBGPU_FOLDER)
    outcomes = {name: outcome(case, host) for name, case in CASES.items() if name not in LONG}
    json.dump({"adapter": device.adapter.info["device"], "outcomes": outcomes}, sys.stdout)


@pytest.fixture(scope="module")
def host() -> WebGPUHost:
    return WebGPUHost(default_device("wgpu"), WEBGPU_FOLDER)


@pytest.mark.parametrize("name", CASES)
def test_on_the_first_driver(host: WebGPUHost, name: str) -> None:
    CASES[name](host)


@pytest.mark.parametrize("implementation", ["wgpu", "wgpudawn"])
def test_on_swiftshader(implementation: str) -> None:
    found = json.loads(run_on_swiftshader("tests.gpu.test_webgpu_backend", implementation))
    assert "SwiftShader" in found["adapter"]
    assert len(found["outcomes"]) == len(CASES) - len(LONG)
    assert {name: why for name, why in found["outcomes"].items() if why} == {}


# What the host's part promises


def test_more_ids_than_a_grid_holds_are_refused(host: WebGPUHost) -> None:
    """By the backend, before anything is bound."""
    largest = 65535 * 128
    for count in (largest + 1, 4 * largest):
        with pytest.raises(DeviceLimitError, match="exceed the device's limit"):
            host.embedding(
                None, None, None, None, count=count, embed_dim=32, group_size=32, is_linear=True
            )


def test_a_folder_has_each_file_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=rf"{EMBEDDING_FILE} .*nowhere"):
        WebGPUHost(None, tmp_path)
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        for name in (EMBEDDING_FILE, LINEAR_FILE):
            (tmp_path / place / name).write_text("")
    WebGPUHost(None, tmp_path / "a")
    with pytest.raises(FileNotFoundError, match="once"):
        WebGPUHost(None, tmp_path)


MISTAKES = (
    (EMBEDDING_FILE, "u32(id) < vocab()", "u32(id) <= vocab()", "outside"),
    (EMBEDDING_FILE, "place7 = next_place(place6", "place7 = next_place(place5", "embedding 1x"),
    (EMBEDDING_FILE, "k4 >= row_quads", "k4 > row_quads", "embedding 257x"),
    (EMBEDDING_FILE, "group_size() % 4u != 0u", "group_size() % 4u > 4u", "embedding 37x"),
    (EMBEDDING_FILE, "* 8u {", "* 9u {", "shrunk"),
    (LINEAR_FILE, "k8 < end)", "k8 <= end)", "linear 257x"),
    (LINEAR_FILE, "let upper = word >> 8u", "let upper = word >> 9u", "column 3"),
    (LINEAR_FILE, "second.y, third.y", "third.y, second.y", "column 1021"),
    (LINEAR_FILE, "tile < tiles", "tile < 1u", "cut grid"),
    (LINEAR_FILE, "params.has_bias == 0u", "params.has_bias != 0u", "linear 1x8g8 bias"),
)
"""File, what stands there, what is put there, the cases that must notice."""


@pytest.mark.parametrize(("file", "old", "new", "reached"), MISTAKES)
def test_a_wrong_shader_is_noticed(
    host: WebGPUHost, tmp_path: Path, file: str, old: str, new: str, reached: str
) -> None:
    for name in (EMBEDDING_FILE, LINEAR_FILE):
        text = (WEBGPU_FOLDER / name).read_text(encoding="utf-8")
        if name == file:
            assert text.count(old) == 1
            text = text.replace(old, new)
        (tmp_path / name).write_text(text, encoding="utf-8")
    wrong = WebGPUHost(host.device, tmp_path)
    outcomes = [outcome(case, wrong) for name, case in CASES.items() if name.startswith(reached)]
    assert outcomes
    assert all(why.startswith("AssertionError") for why in outcomes), outcomes


if __name__ == "__main__":
    main()
