"""This package in Pyodide, in a headless Chromium: Python, numpy and the kernels on its WebGPU."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from playwright.sync_api import Browser, Page, expect

import wgpu_q4
from tools.pyodide.page import ROOT, write
from tools.pyodide.parts import LATEST

VOCAB, EMBED_DIM, GROUP_SIZE = 3001, 96, 32  # more than one range of rows to quantize
IDS = [[0, 7], [3000, 3]]

START = f"""
import base64, json
import numpy as np
import wgpu_q4

def show(**arrays):
    print(json.dumps({{
        name: [array.dtype.str, array.shape, base64.b64encode(array.tobytes()).decode()]
        for name, array in arrays.items()
    }}))

rng = np.random.default_rng(5)
matrix = rng.standard_normal(({VOCAB}, {EMBED_DIM}), np.float32)
x = rng.standard_normal((3, {EMBED_DIM}), np.float32)
weight = wgpu_q4.quantize(matrix, {GROUP_SIZE})
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("pyodide") / "page"
    write(made)
    write(made, local=True)  # over what is there
    return made


@pytest.fixture(scope="module")
def started(page: Page) -> Page:
    """The page, with a weight in its Python."""
    run(page, START)
    return page


def run(page: Page, program: str) -> list[str]:
    """Return the lines that a program prints on the page."""
    page.fill("#code", program)
    page.click("#run")
    expect(page.locator("#status")).not_to_have_text("Running…")
    assert page.inner_text("#status") == "Done.", page.inner_text("#output")
    return page.locator("#output").inner_text().splitlines()


def arrays(page: Page, program: str) -> dict[str, NDArray[Any]]:
    """Return the arrays that a program shows."""
    (line,) = run(page, program)
    return {
        name: np.frombuffer(base64.b64decode(text), dtype).reshape(shape)
        for name, (dtype, shape, text) in json.loads(line).items()
    }


def matrix() -> NDArray[np.float32]:
    return np.random.default_rng(5).standard_normal((VOCAB, EMBED_DIM), np.float32)


@pytest.fixture(scope="module")
def stored(started: Page) -> dict[str, NDArray[Any]]:
    """The bytes that Python in the browser made of the matrix, and x."""
    return arrays(started, "show(packed=weight.packed, scales=weight.scales, x=x)")


@pytest.fixture(scope="module")
def exact(stored: dict[str, NDArray[Any]]) -> NDArray[np.float64]:
    """The matrix that the bytes stand for: the low nibble of a byte comes first."""
    packed = stored["packed"]
    nibbles = np.stack([packed & 15, packed >> 4], axis=-1).reshape(VOCAB, -1)
    return (nibbles - 8.0) * np.repeat(stored["scales"].astype(np.float64), GROUP_SIZE, axis=1)


@pytest.fixture(scope="module")
def logits(exact: NDArray[np.float64], stored: dict[str, NDArray[Any]]) -> NDArray[np.float64]:
    return stored["x"].astype(np.float64) @ exact.T


@pytest.fixture(scope="module")
def bound(exact: NDArray[np.float64], stored: dict[str, NDArray[Any]]) -> NDArray[np.float64]:
    """What float32 sums of products of float32 may be off."""
    return (EMBED_DIM + 2) * 2.0**-24 * (abs(stored["x"].astype(np.float64)) @ abs(exact).T)


def test_the_example_of_the_page_runs(page: Page) -> None:
    page.click("#run")
    expect(page.locator("#status")).to_have_text("Done.")
    lines = page.locator("#output").inner_text().splitlines()
    assert "google swiftshader (WebGPU of the browser, CPU)" in lines
    assert "8,388,608 bytes of float32 became 1,179,648" in lines
    assert "embedding (3, 256) linear (3, 8192)" in lines
    assert lines[-1] == "nearest rows [   3 1415 8191]"


def test_a_matrix_is_quantized_to_the_same_bytes(stored: dict[str, NDArray[Any]]) -> None:
    here = wgpu_q4.quantize(matrix(), GROUP_SIZE)
    np.testing.assert_array_equal(stored["packed"], here.packed)
    np.testing.assert_array_equal(stored["scales"], here.scales)


def test_rows_have_the_bits_of_rounded_float64(started: Page, exact: NDArray[np.float64]) -> None:
    found = arrays(
        started,
        f"show(single=wgpu_q4.embedding({IDS}, weight),"
        f" half=wgpu_q4.embedding({IDS}, weight, dtype='float16'))",
    )
    np.testing.assert_array_equal(found["single"], exact[IDS].astype(np.float32))
    np.testing.assert_array_equal(found["half"], exact[IDS].astype(np.float16))


@pytest.mark.parametrize("layout", ["rows", "blocks_buffer", "blocks_texture2d"])
def test_logits_are_within_the_bound_of_float32(
    started: Page, logits: NDArray[np.float64], bound: NDArray[np.float64], layout: str
) -> None:
    program = f"with wgpu_q4.forced(layout={layout!r}): show(y=wgpu_q4.linear(x, weight))"
    assert (abs(arrays(started, program)["y"] - logits) <= bound).all()


def test_the_best_ids_are_those_of_numpy(
    started: Page, logits: NDArray[np.float64], bound: NDArray[np.float64]
) -> None:
    found = arrays(
        started,
        "best = wgpu_q4.top_k(x, weight, 40)\n"
        "show(first=wgpu_q4.argmax(x, weight), values=best.values, ids=best.ids)",
    )
    ids = np.argsort(-logits, axis=1)[:, :40]
    np.testing.assert_array_equal(found["first"], ids[:, 0])
    np.testing.assert_array_equal(found["ids"], ids)
    taken = np.take_along_axis(logits, ids, 1), np.take_along_axis(bound, ids, 1)
    assert (abs(found["values"] - taken[0]) <= taken[1]).all()


def test_recorded_steps_are_replayed(started: Page, exact: NDArray[np.float64]) -> None:
    found = arrays(
        started,
        "ids = wgpu_q4.to_device([3, 5])\n"
        "with wgpu_q4.recording() as step:\n"
        "    best = wgpu_q4.top_k(wgpu_q4.embedding(ids, weight), weight, 2)\n"
        "ids.write([8, 9])\n"
        "step.replay(3)\n"
        "show(ids=best.ids.numpy())",
    )
    expected = np.argsort(-(exact[[8, 9]] @ exact.T), axis=1)[:, :2]
    np.testing.assert_array_equal(found["ids"], expected)


def test_a_file_is_that_of_any_other_python(started: Page, tmp_path: Path) -> None:
    found = arrays(
        started,
        "wgpu_q4.save_file({'embed': weight, 'head': weight}, '/tmp/tied.safetensors')\n"
        "loaded = wgpu_q4.load_file('/tmp/tied.safetensors', verify=True)\n"
        "assert loaded['embed'] is loaded['head']\n"
        "show(rows=wgpu_q4.embedding([7], loaded['head']) - wgpu_q4.embedding([7], weight),"
        " file=np.fromfile('/tmp/tied.safetensors', np.uint8))",
    )
    assert not found["rows"].any()
    here = wgpu_q4.quantize(matrix(), GROUP_SIZE)
    wgpu_q4.save_file({"embed": here, "head": here}, tmp_path / "tied.safetensors")
    assert found["file"].tobytes() == (tmp_path / "tied.safetensors").read_bytes()


REFUSED = """
import asyncio, js
from pyodide.ffi import create_once_callable

wgpu_q4.embedding([1], weight)  # all that a second call needs is there

async def refused(prepare=lambda: None):
    said = asyncio.get_running_loop().create_future()
    def handle(*_):
        prepare()
        try:
            said.set_result(repr(wgpu_q4.embedding([1], weight)))
        except wgpu_q4.DeviceError as error:
            said.set_result(str(error))
    js.setTimeout(create_once_callable(handle), 0)
    return await said
"""


def test_an_event_handler_is_told_how_to_call(started: Page) -> None:
    (said,) = run(started, f"{REFUSED}\nprint(await refused())")
    assert said.startswith("Python cannot wait for the GPU in this call")
    assert "pyodide.runPythonAsync(code)" in said


def test_a_browser_that_cannot_suspend_python_is_named(started: Page) -> None:
    (said,) = run(
        started,
        f"{REFUSED}\n"
        "suspending = js.WebAssembly.Suspending\n"
        "print(await refused(lambda: delattr(js.WebAssembly, 'Suspending')))\n"
        "js.WebAssembly.Suspending = suspending",
    )
    assert said.startswith("this browser cannot suspend Python")
    assert "Firefox from 153" in said


def test_tasks_call_one_after_the_other(started: Page) -> None:
    lines = run(
        started,
        "import asyncio\n"
        "async def task(lock=None):\n"
        "    async with lock or asyncio.Lock():\n"
        "        return wgpu_q4.embedding([1], weight).shape\n"
        "shared = asyncio.Lock()\n"
        "print(await asyncio.gather(task(shared), task(shared)))\n"
        "first, second = await asyncio.gather(task(), task(), return_exceptions=True)\n"
        "print(first, type(second).__name__, second)",
    )
    assert lines[0] == "[(1, 96), (1, 96)]"
    assert lines[1].startswith("(1, 96) DeviceError this thread is already in a call")
    assert "another task" in lines[1]


def test_errors_that_the_browser_reports_later_are_raised(started: Page) -> None:
    lines = run(
        started,
        "array = wgpu_q4.DeviceArray.empty(4)\n"
        "array.device.queue.write_buffer(array.buffer, 0, bytes(32))\n"
        "for _ in range(2):\n"
        "    try:\n"
        "        print(array.numpy())\n"
        "    except wgpu_q4.DeviceError as error:\n"
        "        print(str(error).split('\\n')[0])\n"
        "try:\n"
        "    array.device.create_shader_module(code='fn broken(')\n"
        "except RuntimeError as error:\n"
        "    print(type(error).__name__, error)",
    )
    assert "does not fit in [Buffer" in lines[0]
    assert lines[1] == "[0. 0. 0. 0.]"
    assert lines[2].startswith("GPUError Error while parsing WGSL")


@pytest.mark.parametrize("destroy", ["destroy", "handle.destroy"])
def test_a_lost_device_is_named(started: Page, destroy: str) -> None:
    (said,) = run(
        started,
        "device = wgpu_q4.request_device()\n"
        "wgpu_q4.embedding([1], weight, device=device)\n"
        f"device.{destroy}()\n"
        "try:\n"
        "    print(wgpu_q4.embedding([1], weight, device=device))\n"
        "except wgpu_q4.DeviceError as error:\n"
        "    print(error)",
    )
    assert said.startswith("the device google swiftshader (WebGPU of the browser, CPU) is lost")


COUNT_FREED = """globalThis.freed = [];
const destroy = GPUBuffer.prototype.destroy;
GPUBuffer.prototype.destroy = function () { freed.push(this.size); destroy.call(this); };
"""


def test_memory_goes_with_the_last_object_that_uses_it(started: Page) -> None:
    lines = run(
        started,
        f"import gc, js\njs.eval({COUNT_FREED!r})\n"
        "ids = wgpu_q4.to_device([1] * 1001)\n"
        "with wgpu_q4.recording() as step:\n"
        "    rows = wgpu_q4.embedding(ids, weight)\n"
        "del ids\n"
        "print(gc.collect() >= 0, 4004 in js.freed)\n"
        "del step, rows\n"
        "print(gc.collect() >= 0, 4004 in js.freed)",
    )
    assert lines == ["True False", "True True"]


def test_a_wrong_program_is_shown(page: Page) -> None:
    page.fill("#code", "1 / 0")
    page.click("#run")
    expect(page.locator("#status")).to_have_text("The program raised an error: see below.")
    assert "ZeroDivisionError" in page.inner_text("#output")


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("delete WebAssembly.Suspending", "cannot suspend Python while the GPU works (JSPI)"),
        ("delete Navigator.prototype.gpu", "has no WebGPU here"),
    ],
)
def test_the_page_says_what_a_browser_lacks(
    chromium: Browser, address: str, missing: str, said: str
) -> None:
    opened = chromium.new_page()
    opened.add_init_script(missing)
    opened.goto(address)
    expect(opened.locator("#status")).to_contain_text(said)
    assert opened.is_disabled("#run")
    opened.close()


def test_the_newest_pyodide_runs_a_kernel(chromium: Browser, address: str, folder: Path) -> None:
    (folder / "latest").symlink_to(LATEST)
    program = (ROOT / "tests" / "device_in_pyodide.py").read_text()
    opened = chromium.new_page()
    opened.goto(f"{address}page.json")
    limits, doubled, refused, *_ = opened.evaluate(LOAD_LATEST, program)
    assert (limits, doubled) == ("True True", "[3, 6, 9, 12]")
    assert "MapRead" in refused
    opened.close()


LOAD_LATEST = """async (program) => {
    const { loadPyodide } = await import("/latest/pyodide.mjs");
    const pyodide = await loadPyodide();
    const { wheel } = await (await fetch("/page.json")).json();
    pyodide.unpackArchive(await (await fetch(wheel)).arrayBuffer(), "wheel");
    const lines = [];
    pyodide.setStdout({ batched: (line) => lines.push(line) });
    await pyodide.runPythonAsync(program);
    return lines;
}"""


def test_a_link_loads_no_script_from_elsewhere(chromium: Browser, address: str) -> None:
    opened = chromium.new_page()
    opened.goto(f"{address}?pyodide=https://example.org/pyodide/")
    expect(opened.locator("#status")).to_contain_text("must be a folder of this site")
    opened.close()


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("")
    with pytest.raises(FileExistsError, match="did not write"):
        write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
