"""Pages in a headless Chromium: a web server of this machine, and a browser."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from playwright.sync_api import Browser, expect

from tools.parity.browser import Browser as Started

MILLISECONDS = 60_000
"""The longest that a page may take for what a test waits for."""


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Offer the files of a folder, and give their address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://localhost:{server.server_port}/"
        server.shutdown()


@contextmanager
def browser() -> Iterator[Browser]:
    """Start the browser of the parity harness, on SwiftShader; each page in it is a new one."""
    expect.set_options(timeout=MILLISECONDS)
    started = Started("swiftshader")
    yield started._browser
    started.close()
