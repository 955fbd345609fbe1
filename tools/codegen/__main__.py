"""``python -m tools.codegen [--check] [--out FOLDER]``."""

from __future__ import annotations

import argparse
import difflib
import sys
from pathlib import Path

from tools.codegen import GENERATED, ROOT


def main() -> int:
    """Write the shaders, or compare; return the exit status, 1 where they differ."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.codegen", description="Generate ExecuTorch's shaders from wgsl/."
    )
    parser.add_argument("--check", action="store_true", help="compare, and write nothing")
    parser.add_argument(
        "--out",
        type=Path,
        default=ROOT,
        metavar="FOLDER",
        help=f"where {' and '.join(GENERATED)} are (this checkout)",
    )
    chosen = parser.parse_args()
    status = 0
    for name, generate in GENERATED.items():
        try:
            files = generate()
        except (FileNotFoundError, RuntimeError) as error:
            print(f"tools.codegen: {error}", file=sys.stderr)
            return 1
        if chosen.check:
            status |= _check(chosen.out / name, files)
        else:
            _write(chosen.out / name, files)
    return status


def _write(folder: Path, files: dict[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8", newline="\n")


def _check(folder: Path, files: dict[str, str]) -> int:
    """Print how the folder differs from the files; return the exit status."""
    present = {
        path.name: path.read_bytes().decode()
        for path in sorted(folder.glob("*"))
        if path.suffix in (".glsl", ".yaml", ".wgsl")
    }
    for name in sorted(files.keys() | present.keys()):
        sys.stdout.writelines(
            difflib.unified_diff(
                present.get(name, "").splitlines(keepends=True),
                files.get(name, "").splitlines(keepends=True),
                f"{folder.name}/{name}",
                f"generated/{name}",
            )
        )
    if present == files:
        return 0
    print(
        f"tools.codegen: {folder} is not what wgsl/ gives: run python -m tools.codegen",
        file=sys.stderr,
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
