"""What is published: the wheel, the source distribution, and what importing the package costs."""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
import zipfile
from pathlib import Path

import pytest

from tests.packages import ROOT, Built, run, runtime_requirements

DEPENDENCIES = {"wgpu": "<0.33,>=0.32", "numpy": "", "safetensors": ""}
WGSL = {path.relative_to(ROOT).as_posix() for path in (ROOT / "wgsl").rglob("*.wgsl")}


def test_wheel_carries_kernels_and_types(built: Built) -> None:
    assert len(WGSL) > 10
    names = built.wheel_names()
    shaders = {path.relative_to(ROOT).as_posix() for path in (ROOT / "wgpu_q4").rglob("*.wgsl")}
    generators = {piece for piece in WGSL if piece.startswith("wgsl/executorch/")}
    assert generators
    kernels = {f"wgpu_q4/{piece}" for piece in WGSL - generators}
    assert {name for name in names if name.endswith(".wgsl")} == kernels | shaders
    assert "wgpu_q4/py.typed" in names
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_wheel_holds_the_package_only(built: Built) -> None:
    tops = {name.partition("/")[0] for name in built.wheel_names()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"wgpu_q4"}
    for name in built.wheel_names():
        if name.endswith(".py"):
            with zipfile.ZipFile(built.wheel) as archive:
                assert "tools" not in re.findall(
                    r"^\s*(?:from|import) (\w+)", archive.read(name).decode(), re.MULTILINE
                )


def test_sdist_is_enough_to_build_and_test(built: Built) -> None:
    names = built.sdist_names()
    assert names >= WGSL
    assert names >= {
        *("pyproject.toml", "Makefile", "LICENSE", "README.md", "CHANGELOG.md", "CITATION.cff"),
        *(f"requirements/{path.name}" for path in (ROOT / "requirements").iterdir()),
        *("wgpu_q4/__init__.py", "wgpu_q4/py.typed", "tests/tools/test_package.py"),
        *("tools/parity/__main__.py", "tools/parity/report.html.jinja", "tools/parity/browser.js"),
        *("tools/tsc/package-lock.json", "tools/tsc/tsconfig.json"),
        *("tools/pyodide/package-lock.json", "examples/pyodide/index.html"),
        *("tools/codegen/package-lock.json", "benchmarks/__main__.py", "vulkan_glsl/README.md"),
        *(f"scripts/{path.name}" for path in (ROOT / "scripts").iterdir()),
    }
    assert not any(name.startswith((".venv", ".cache", "dist")) for name in names)


def test_three_runtime_dependencies(built: Built) -> None:
    requirements = runtime_requirements(built.metadata())
    assert {r.name: str(r.specifier) for r in requirements} == DEPENDENCIES
    in_a_browser = {"sys_platform": "emscripten"}
    there = [r.name for r in requirements if not r.marker or r.marker.evaluate(in_a_browser)]
    assert there == ["numpy"]


def test_metadata(built: Built) -> None:
    metadata = built.metadata()
    assert metadata["License-Expression"] == "BSD-3-Clause"
    extras = metadata.get_all("Provides-Extra", [])
    assert set(extras) == {"torch", "hf", "executorch", "notebook", "onnx", "completion"}
    assert b"wgpu-q4 = wgpu_q4.cli:main" in built.dist_info("entry_points.txt")


def test_the_installed_core_is_small(built: Built) -> None:
    """The core is what the ops run on: no front ends for other libraries, no commands."""
    counted: dict[str, int] = {}
    with zipfile.ZipFile(built.wheel) as archive:
        for name in archive.namelist():
            text = archive.read(name).decode() if name.endswith((".py", ".wgsl")) else ""
            room, _, inside = name.removeprefix("wgpu_q4/").partition("/")
            room = room if inside else Path(room).stem
            room = "decoder" if "/decoder/" in name else room  # its kernels are among the others
            count = code_lines(text) if name.endswith(".py") else wgsl_lines(text)
            counted[room] = counted.get(room, 0) + count
    assert min(counted[room] for room in CORE) > 0
    assert sum(counted[room] for room in CORE) <= 9150
    assert sum(counted[room] for room in COMMANDS) <= 2850
    rooms = {room for room, count in counted.items() if count}
    assert rooms == CORE | COMMANDS | FRONT_ENDS, "say which of the three a new room belongs to"


CORE = {
    *("__init__", "arrays", "errors", "forks", "rich", "weight"),
    *("device", "files", "format", "kernels", "ops", "wgsl"),
}
COMMANDS = {"bench", "check", "cli", "commands", "reference"}
FRONT_ENDS = {
    "decoder",
    *("executorch", "foreign", "nn", "onnx", "pte"),
    *("torch_cache", "torch_gradients", "torch_ops"),
}


def wgsl_lines(source: str) -> int:
    """Return the number of lines with code: not blank, no comment."""
    lines = map(str.strip, source.splitlines())
    return sum(not line.startswith("//") for line in lines if line)


def code_lines(source: str) -> int:
    """Return the number of lines with code: not blank, no comment, no docstring."""
    shown = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in shown and token.type != tokenize.ENDMARKER:
            lines |= set(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            lines -= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(lines)


def test_code_lines_are_neither_comments_nor_docstrings() -> None:
    assert wgsl_lines("// Comment\n\nfn f() {\n  // Comment\n  return 1;  // one\n}\n") == 3
    source = '''"""Doc."""\n\n# Comment\nX = (\n    1,\n)\n"""About X,\ntwo lines."""\n'''
    assert code_lines(source) == 3


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
