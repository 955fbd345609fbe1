"""What tests of the tools share: the package as a user installs it, and a page in a browser."""

from __future__ import annotations

import sys
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.packages import ROOT, Built, closure, link_distribution, run, runtime_requirements
from tools.pages import browser, served


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Build both distributions, the wheel from the unpacked source distribution."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    (sdist,) = folder.glob("*.tar.gz")
    return Built(wheel, sdist)


@pytest.fixture(scope="session")
def bare_python(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the Python of an environment with the wheel and its declared dependencies only.

    The dependencies are those of the running environment, so no network is needed.
    """
    home = tmp_path_factory.mktemp("bare")
    venv.create(home, with_pip=False, symlinks=True)
    python = home / "bin" / "python"
    site = Path(
        run(
            python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=home
        ).strip()
    )
    for name in closure(runtime_requirements(built.metadata())):
        link_distribution(name, site)
    run(
        *(sys.executable, "-m", "pip", "--python", python, "install", "--quiet"),
        *("--no-deps", "--no-index", built.wheel),
        cwd=home,
    )
    return python


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as started:
        yield started


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    """Where the files of a module's ``folder`` are offered."""
    with served(folder) as found:
        yield found


@pytest.fixture(scope="module")
def page(chromium: Browser, address: str) -> Page:
    """The page of a module's ``folder``, once it is ready."""
    opened = chromium.new_page()
    opened.goto(address)
    expect(opened.locator("#status")).to_have_text("Ready.")
    return opened
