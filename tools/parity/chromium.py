"""The WGSL kernels in a headless Chromium: a browser's own WebGPU, page and GPU process and all.

The worker serves a page to the browser it starts; the page asks for a job, runs it and sends back
the bytes.  No browser driver is needed.
"""

from __future__ import annotations

import json
import os
import queue
import re
import shutil
import subprocess
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tools.parity.cases import Case
from wgpu_q4.device.textures import pack_width
from wgpu_q4.errors import DeviceError, DeviceLimitError
from wgpu_q4.format import rows_to_blocks
from wgpu_q4.kernels import (
    Binding,
    Dispatch,
    HalfSupport,
    Layout,
    MatrixShape,
    plan_embedding,
    plan_pack,
)

_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_START_SECONDS = 60
_JOB_SECONDS = 300
_ROW_ALIGNMENT = 256
_PAGE = b"<!doctype html><title>wgpu_q4</title><script src=/chromium.js></script>"


def find_browser() -> str | None:
    """The path of an installed Chromium or Chrome; ``WGPU_Q4_CHROMIUM`` names another."""
    named = os.environ.get("WGPU_Q4_CHROMIUM")
    candidates = (named,) if named else _BROWSERS
    return next(filter(None, map(shutil.which, candidates)), None)


class Browser:
    """A running browser whose page computes; `close` ends it.

    Attributes:
        hello: what the page said of its adapter and itself.
        version: of the browser.
    """

    def __init__(self, adapter: str) -> None:
        """Start it.

        Args:
            adapter: ``"swiftshader"``, or ``"default"`` for the machine's GPU.

        Raises:
            DeviceError: no browser, or none with WebGPU.
        """
        program = find_browser()
        if program is None:
            raise DeviceError(
                "no Chromium is installed: on Debian, apt-get install chromium; or point "
                "WGPU_Q4_CHROMIUM at one"
            )
        self._answers: queue.Queue[tuple[str, bytes]] = queue.Queue()
        self._jobs: queue.Queue[dict[str, Any]] = queue.Queue()
        self._data: dict[int, bytes] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self._profile = tempfile.TemporaryDirectory(
            prefix="wgpu_q4_chromium_", ignore_cleanup_errors=True
        )
        port = self._server.server_address[1]
        command = [
            program,
            "--headless=new",
            "--enable-unsafe-webgpu",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            f"--user-data-dir={self._profile.name}",
        ]
        if adapter != "default":
            command.append(f"--use-webgpu-adapter={adapter}")
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            # Chromium refuses its sandbox to the administrator, who is who runs containers.
            command.append("--no-sandbox")
        self._process = subprocess.Popen(
            [*command, f"http://127.0.0.1:{port}/"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            kind, body = self._answer(_START_SECONDS)
            if kind != "hello":
                raise DeviceError(body.decode("utf-8", "replace"))
        except BaseException:
            self.close()
            raise
        self.hello: dict[str, Any] = json.loads(body)
        # The page is told a version with zeros in it.
        said = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=60)
        found = re.search(r"\d+(?:\.\d+)+", said.stdout)
        self.version = found.group() if found else "of unknown version"

    def run(self, job: dict[str, Any], data: dict[int, bytes]) -> bytes:
        """Run a job on the page; see ``chromium.js``.

        Raises:
            DeviceError: the page had an error, or the browser is gone.
        """
        self._data = data
        self._jobs.put(job)
        kind, body = self._answer(_JOB_SECONDS)
        if kind != "result":
            raise DeviceError(body.decode("utf-8", "replace"))
        return body

    def close(self) -> None:
        """End the browser and the server."""
        self._jobs.put({"stop": True})
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._server.shutdown()
        self._server.server_close()
        self._profile.cleanup()

    def _answer(self, seconds: float) -> tuple[str, bytes]:
        try:
            return self._answers.get(timeout=seconds)
        except queue.Empty:
            raise DeviceError(f"the browser said nothing for {seconds} s") from None

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        browser = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/":
                    self._send("text/html", _PAGE)
                elif self.path == "/chromium.js":
                    script = Path(__file__).with_suffix(".js").read_bytes()
                    self._send("text/javascript", script)
                elif self.path == "/job":
                    self._send("application/json", json.dumps(browser._jobs.get()).encode())
                elif self.path.startswith("/data/"):
                    binding = int(self.path.removeprefix("/data/"))
                    self._send("application/octet-stream", browser._data[binding])
                else:
                    self.send_error(404)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self._send("text/plain", b"")
                browser._answers.put((self.path.removeprefix("/"), body))

            def _send(self, kind: str, body: bytes) -> None:
                self.send_response(200)
                self.send_header("Content-Type", f"{kind}; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *values: object) -> None:
                pass

        return Handler


class ChromiumBackend:
    """The kernels that wgpu runs, from the same table and plan."""

    def __init__(self, adapter: str) -> None:
        self._browser = Browser(adapter)
        hello = self._browser.hello
        adapter_text = " ".join(
            filter(None, (hello["vendor"], hello["architecture"], hello["description"]))
        )
        self.summary = f"Chromium {self._browser.version}: {adapter_text}"
        self.versions = {"chromium": self._browser.version}
        self._limits = {"max-compute-workgroups-per-dimension": 65535}
        self._texture_side = int(hello["limits"]["maxTextureDimension2D"])

    def run(self, case: Case) -> tuple[NDArray[Any], str]:
        from tools.parity.backends import LAYOUTS

        layout, remark = LAYOUTS[case.weight], ""
        if layout == "blocks_texture2d" and -(-case.vocab // 8) > self._texture_side:
            layout, remark = "blocks_buffer", "blocks in a buffer: they exceed a texture here"
        run = self._pack if case.op == "pack" else self._embedding
        return run(case, layout), remark

    def close(self) -> None:
        self._browser.close()

    def _embedding(self, case: Case, layout: Layout) -> NDArray[Any]:
        weight, ids = case.matrix(), case.ids()
        shape = (1,) * (3 - ids.ndim) + ids.shape
        others, height, width = shape
        plan = plan_embedding(
            _matrix_shape(case),
            ids.size,
            layout,
            case.output,
            case.storage,
            self._limits,
            # Browsers differ; the conversions by integers are right in all of them.
            HalfSupport(),
        )
        packed: NDArray[Any]
        if layout == "rows_embedding":
            packed = weight.packed_as("embedding")
        else:
            packed = rows_to_blocks(weight.packed_as("linear"))
        result: tuple[int, ...]
        inputs: dict[str, NDArray[Any]] = {"t_weight": packed, "t_scales": weight.scales}
        if case.storage == "buffer":
            inputs["t_indices"] = ids
            inputs["out_sizes"] = np.array([case.embed_dim, ids.size, 1, 1], np.int32)
            result = (ids.size, case.embed_dim)
        else:
            inputs["t_indices"] = pack_width(ids.reshape(shape))
            inputs["out_sizes"] = np.array([case.embed_dim, width, height, others], np.int32)
            result = (others * height, width, case.embed_dim // 4, 4)
        found = self._run(plan, inputs, result, case.output)
        return found.reshape(*ids.shape, case.embed_dim)

    def _pack(self, case: Case, layout: Layout) -> NDArray[Any]:
        plan = plan_pack(_matrix_shape(case), layout, self._limits)
        strips, quads = -(-case.vocab // 8), case.embed_dim // 4
        rows = {"t_weight": case.matrix().packed_as("linear")}
        return self._run(plan, rows, (strips, quads, 4), "uint32")

    def _run(
        self, plan: Dispatch, inputs: dict[str, NDArray[Any]], shape: tuple[int, ...], dtype: str
    ) -> NDArray[Any]:
        """The contents of binding 0, of ``shape``; for a texture the last dimension is texels'."""
        resources, data = [], {}
        out = np.empty(shape, dtype)
        pitch = 0
        for binding in plan.shader.bindings:
            array = inputs.get(binding.name, out)
            resource = _resource(binding, array)
            resource["hasData"] = binding.name in inputs
            if binding.name in inputs:
                raw = np.ascontiguousarray(array).tobytes()
                data[binding.number] = raw + bytes(-len(raw) % 4)
            resources.append(resource)
        nbytes = out.nbytes + -out.nbytes % 4
        if resources[0]["kind"] != "buffer":
            row_bytes = out.shape[-2] * 4 * out.itemsize
            pitch = -(-row_bytes // _ROW_ALIGNMENT) * _ROW_ALIGNMENT
            nbytes = pitch * out.nbytes // row_bytes
        job = {
            "code": plan.shader.source,
            "constants": dict(plan.constants),
            "workgroups": plan.workgroups,
            "layout": [_layout_entry(binding) for binding in plan.shader.bindings],
            "resources": resources,
            "result": {"nbytes": nbytes, "pitch": pitch},
        }
        limit = int(self._browser.hello["limits"]["maxStorageBufferBindingSize"])
        largest = max(len(raw) for raw in data.values())
        if largest > limit:
            raise DeviceLimitError(f"a binding of {largest:,} bytes exceeds {limit:,}")
        found = np.frombuffer(self._browser.run(job, data), np.uint8)
        if pitch:
            found = np.ascontiguousarray(found.reshape(-1, pitch)[:, :row_bytes])
        out.reshape(-1).view(np.uint8)[:] = found.reshape(-1)[: out.nbytes]
        return out


def _matrix_shape(case: Case) -> MatrixShape:
    return MatrixShape(case.vocab, case.embed_dim, case.group_size, case.scales)


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _layout_entry(binding: Binding) -> dict[str, Any]:
    description = {_camel(name): value for name, value in binding.description}
    return {"binding": binding.number, _camel(binding.kind): description}


def _resource(binding: Binding, array: NDArray[Any]) -> dict[str, Any]:
    description = dict(binding.description)
    if binding.kind == "buffer":
        return {
            "binding": binding.number,
            "kind": "buffer",
            "uniform": description["type"] == "uniform",
            "nbytes": array.nbytes + -array.nbytes % 4,
        }
    dimension = description["view_dimension"]
    depth = array.shape[0] if dimension == "3d" else 1
    return {
        "binding": binding.number,
        "kind": "texture",
        "dimension": dimension,
        "format": description.get("format", "rgba32sint"),
        "size": [array.shape[-2], array.shape[-3], depth],
        "rowBytes": array.shape[-2] * 4 * array.itemsize,
    }
