"""A page in a headless Chromium that runs one dispatch at a time on the browser's own WebGPU.

Playwright drives the Chromium or Chrome that is installed; nothing is downloaded.
"""

from __future__ import annotations

import base64
import os
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from playwright.sync_api import Error, Page, sync_playwright

from wgpu_q4.errors import DeviceError

_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_ORIGIN = "http://localhost/"
"""A page of localhost may use WebGPU.  Nothing is asked of the network: `_PAGE` is the answer."""

_PAGE = "<!doctype html><title>wgpu_q4</title><input type=file id=data multiple>"

_START_MILLISECONDS = 120_000
_FLAGS = (
    "--enable-unsafe-webgpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-quic",
    "--disable-sync",
)


def find_browser() -> str | None:
    """Return the path of an installed Chromium or Chrome; ``WGPU_Q4_CHROMIUM`` names another."""
    named = os.environ.get("WGPU_Q4_CHROMIUM")
    candidates = (named,) if named else _BROWSERS
    return next(filter(None, map(shutil.which, candidates)), None)


class Browser:
    """A running browser with one page; `close` ends it.

    Attributes:
        hello: what the page says of its adapter; see ``browser.js``.
        version: of the browser.
    """

    def __init__(self, adapter: str) -> None:
        """Start the browser.

        Args:
            adapter: ``"swiftshader"``, or ``"default"`` for the machine's GPU.

        Raises:
            DeviceError: there is no browser, or none with WebGPU.
        """
        program = find_browser()
        if program is None:
            raise DeviceError(
                "no Chromium is installed: on Debian, apt-get install chromium; or point "
                "WGPU_Q4_CHROMIUM at one"
            )
        chosen = [] if adapter == "default" else [f"--use-webgpu-adapter={adapter}"]
        # Chromium refuses its sandbox to the administrator, which is who runs containers.
        is_root = hasattr(os, "geteuid") and os.geteuid() == 0
        self._folder = TemporaryDirectory(prefix="wgpu_q4_chromium_")
        self._playwright = sync_playwright().start()
        try:
            self._browser = self._playwright.chromium.launch(
                executable_path=program,
                args=[*_FLAGS, *chosen],
                chromium_sandbox=not is_root,
                timeout=_START_MILLISECONDS,
            )
            self.version = self._browser.version
            self._page = self._browser.new_page()
            self._page.route("**/*", lambda route: route.fulfill(body=_PAGE))
            self._page.goto(_ORIGIN)
            self._page.add_script_tag(content=_script())
            self.hello: dict[str, Any] = self._page.evaluate("openDevice()")
        except Error as error:
            self.close()
            raise DeviceError(f"{program}: {error.message}") from error
        except BaseException:
            self.close()
            raise

    def run(self, job: dict[str, Any], data: dict[int, bytes]) -> bytes:
        """Run a job on the page; see ``browser.js``.

        Args:
            job: what the page is told.
            data: the contents of resources, by binding number.

        Raises:
            DeviceError: the page had an error, or the browser is gone.
        """
        files = []
        for binding, contents in data.items():
            files.append(Path(self._folder.name) / str(binding))
            files[-1].write_bytes(contents)
        try:
            # The browser reads the files itself: a message to it takes no 100 MB.
            self._page.set_input_files("#data", files)
            return base64.b64decode(self._page.evaluate("job => runJob(job)", job))
        except Error as error:
            raise DeviceError(error.message) from error

    def new_page(self, **options: Any) -> Page:
        """Return a page beside the one that runs jobs.

        Args:
            options: of Playwright's ``Browser.new_page``.
        """
        return self._browser.new_page(**options)

    def close(self) -> None:
        """End the browser."""
        self._playwright.stop()
        self._folder.cleanup()


def _script() -> str:
    return Path(__file__).with_suffix(".js").read_text(encoding="utf-8")
