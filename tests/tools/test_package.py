"""What a user installs: the wheel and the source distribution, and what importing it costs.

The wheel goes into an environment that holds the declared dependencies and nothing else, made from
the packages of the running environment, so that no network is needed.
"""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from dataclasses import dataclass
from email.message import Message
from email.parser import BytesParser
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
DEPENDENCIES = {"wgpu": "<0.33,>=0.32", "numpy": "", "safetensors": ""}
WGSL = {path.relative_to(ROOT).as_posix() for path in (ROOT / "wgsl").rglob("*.wgsl")}


@dataclass
class Built:
    """The two files that are published."""

    wheel: Path
    sdist: Path

    def wheel_names(self) -> set[str]:
        with zipfile.ZipFile(self.wheel) as archive:
            return set(archive.namelist())

    def dist_info(self, name: str) -> bytes:
        with zipfile.ZipFile(self.wheel) as archive:
            (path,) = (n for n in archive.namelist() if n.endswith(f".dist-info/{name}"))
            return archive.read(path)

    def metadata(self) -> Message:
        return BytesParser().parsebytes(self.dist_info("METADATA"))

    def sdist_names(self) -> set[str]:
        with tarfile.open(self.sdist) as archive:
            return {name.partition("/")[2] for name in archive.getnames()}


def run(*command: str | Path, cwd: Path) -> str:
    """Standard output of a command that must succeed; what it printed is in the failure.

    It runs outside the checkout and without ``PYTHONPATH``, so it can only find what is installed.
    """
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{command} exited {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Both distributions; the wheel is built from the unpacked source distribution."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    (sdist,) = folder.glob("*.tar.gz")
    return Built(wheel, sdist)


@pytest.fixture(scope="module")
def bare_python(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with the wheel and its declared dependencies only."""
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


def runtime_requirements(metadata: Message) -> list[Requirement]:
    """The requirements that no extra asks for."""
    requirements = map(Requirement, metadata.get_all("Requires-Dist", []))
    return [r for r in requirements if "extra" not in str(r.marker)]


def closure(requirements: list[Requirement]) -> set[str]:
    """The names of the distributions that pip would install for these requirements."""
    found: set[str] = set()
    waiting = list(requirements)
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if name not in found and applies:
            found.add(name)
            waiting.extend(map(Requirement, importlib.metadata.requires(name) or []))
    return found


def link_distribution(name: str, site: Path) -> None:
    """Make an installed distribution visible in another environment's ``site-packages``."""
    distribution = importlib.metadata.distribution(name)
    files = distribution.files or []
    tops = {file.parts[0] for file in files} - {"..", "__pycache__"}
    assert tops, f"{name} records no files"
    for top in tops:
        (site / top).symlink_to(Path(str(distribution.locate_file(top))))


def test_wheel_carries_kernels_and_types(built: Built) -> None:
    assert len(WGSL) > 10
    names = built.wheel_names()
    shaders = {path.relative_to(ROOT).as_posix() for path in (ROOT / "wgpu_q4").rglob("*.wgsl")}
    kernels = {f"wgpu_q4/{piece}" for piece in WGSL}
    assert {name for name in names if name.endswith(".wgsl")} == kernels | shaders
    assert "wgpu_q4/py.typed" in names
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_wheel_holds_the_package_only(built: Built) -> None:
    tops = {name.partition("/")[0] for name in built.wheel_names()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"wgpu_q4"}


def test_sdist_is_enough_to_build_and_test(built: Built) -> None:
    names = built.sdist_names()
    assert names >= WGSL
    assert names >= {
        *("pyproject.toml", "Makefile", "LICENSE", "README.md", "CHANGELOG.md", "CITATION.cff"),
        *(f"requirements/{path.name}" for path in (ROOT / "requirements").iterdir()),
        *("wgpu_q4/__init__.py", "wgpu_q4/py.typed", "tests/tools/test_package.py"),
        *(f"scripts/{path.name}" for path in (ROOT / "scripts").iterdir()),
    }
    assert not any(name.startswith((".venv", ".cache", "dist")) for name in names)


def test_three_runtime_dependencies(built: Built) -> None:
    requirements = runtime_requirements(built.metadata())
    assert {r.name: str(r.specifier) for r in requirements} == DEPENDENCIES


def test_metadata(built: Built) -> None:
    metadata = built.metadata()
    assert metadata["License-Expression"] == "BSD-3-Clause"
    extras = metadata.get_all("Provides-Extra", [])
    assert set(extras) == {"torch", "hf", "executorch", "notebook"}
    assert b"wgpu-q4 = wgpu_q4.cli:main" in built.dist_info("entry_points.txt")


def test_wheel_works_with_its_three_dependencies(bare_python: Path) -> None:
    script = """
import importlib.util
import numpy as np
import wgpu_q4

for absent in ("torch", "transformers", "gguf"):
    assert importlib.util.find_spec(absent) is None, absent
matrix = np.random.default_rng(0).standard_normal((50, 64), np.float32)
weight = wgpu_q4.quantize(matrix, group_size=32)
ids = np.array([[0, 49, 7], [7, 1, 2]])
np.testing.assert_array_equal(wgpu_q4.embedding(ids, weight), weight.dequantize()[ids])
print(wgpu_q4.__file__)
"""
    home = bare_python.parent.parent
    imported_from = Path(run(bare_python, "-c", script, cwd=home).splitlines()[-1])
    assert imported_from.is_relative_to(home)


def test_console_script(bare_python: Path) -> None:
    shown = run(bare_python.with_name("wgpu-q4"), "info", cwd=bare_python.parent.parent)
    assert "wgpu" in shown


def test_it_measures_where_nothing_else_is_installed(bare_python: Path, tmp_path: Path) -> None:
    size = ("--shape", "16x32x32", "--ids", "2", "--rows", "1", "--seconds", "0.001")
    shown = run(bare_python.with_name("wgpu-q4"), "bench", *size, cwd=tmp_path)
    assert "embedding, ids=2, 16×32, rows, float32" in shown
    for name in ("torch", "onnxruntime"):
        assert f"left out: {name} embedding: not installed" in shown


def test_import_is_light() -> None:
    """Importing the package, and making a weight, loads no framework and no GPU library."""
    script = """
import sys
import wgpu_q4
heavy = {"torch", "wgpu", "wgpudawn", "transformers", "gguf", "executorch", "matplotlib"}
print(sorted(heavy & sys.modules.keys()))
wgpu_q4.Q4Weight
print(sorted(heavy & sys.modules.keys()))
"""
    assert run(sys.executable, "-c", script, cwd=ROOT).split("\n") == ["[]", "[]", ""]


def test_public_names_resolve() -> None:
    import wgpu_q4

    for name in wgpu_q4.__all__:
        assert getattr(wgpu_q4, name) is not None
    assert set(wgpu_q4.__all__) <= set(dir(wgpu_q4))
    with pytest.raises(AttributeError, match="no_such_name"):
        wgpu_q4.no_such_name  # noqa: B018
