"""The composed shaders that matter, as they are in ``tests/goldens/``: a change to one shows."""

from __future__ import annotations

import difflib
from pathlib import Path

import pytest

from tools import goldens
from wgpu_q4.kernels import LINEAR_KERNELS


def drift(folder: Path) -> list[str]:
    """How the files differ from what the pieces make, as a diff."""
    kept = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.wgsl")}
    made = goldens.goldens()
    lines: list[str] = []
    for name in sorted({*kept, *made}):
        old, new = kept.get(name, "").splitlines(), made.get(name, "").splitlines()
        lines += difflib.unified_diff(old, new, f"kept/{name}", f"made/{name}", lineterm="", n=1)
    return lines


def test_the_composed_shaders_are_those_that_are_kept() -> None:
    lines = drift(goldens.FOLDER)
    assert not lines, "\n".join([*lines[:60], f"If that is meant: {goldens.COMMAND}"])


def test_there_is_a_golden_of_every_kernel() -> None:
    names = goldens.goldens()
    for kernel in LINEAR_KERNELS:
        assert any(name.startswith(f"linear_q4gsw_{kernel}_rows_float16") for name in names), kernel
    for start in (
        "decoder_attention",
        "decoder_gemv",
        "embedding_q4gsw_rows",
        "embedding_q4gsw_blocks",
        "pack",
        "argmax",
        "top_k",
    ):
        assert any(name.startswith(start) for name in names), start


def test_a_drift_is_found_and_the_command_corrects_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(goldens, "FOLDER", tmp_path / "goldens")
    goldens.main()
    assert drift(goldens.FOLDER) == []
    first, second, *_ = sorted(goldens.FOLDER.glob("*.wgsl"))
    first.write_text(first.read_text(encoding="utf-8") + "// more\n", encoding="utf-8")
    second.unlink()
    (goldens.FOLDER / "gone.wgsl").write_text("// a shader that is no more\n", encoding="utf-8")
    lines = drift(goldens.FOLDER)
    assert "-// more" in lines
    assert "-// a shader that is no more" in lines
    assert f"+++ made/{second.name}" in lines
    goldens.main()
    assert drift(goldens.FOLDER) == []
    assert "files in" in capsys.readouterr().out
