"""Write a web page that runs a file's matrices on its visitor's GPU.

The folder holds static files: the page, the safetensors files, the kernels with their plans, and
cases with float64 results that the page compares with what the visitor's browser computes.

Examples:
  wgpu-q4 web tied.safetensors --out page
  wgpu-q4 web tied.safetensors --out page --tokenizer SmolLM2-135M/tokenizer.json

--json prints:
  out, bytes    the folder, and its size
  files         the names of its files
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Mapping
from dataclasses import astuple
from pathlib import Path
from typing import Any

from wgpu_q4.commands.answer import Answer
from wgpu_q4.commands.web_cases import corner_cases, corner_matrices, matrix_cases
from wgpu_q4.commands.web_programs import Modules, programs
from wgpu_q4.device.parts import shape_of
from wgpu_q4.errors import FormatError
from wgpu_q4.files import load_file, save_file
from wgpu_q4.weight import Q4Weight

_KERNELS, _CASES, _TOKENIZER = "kernels.json", "cases.json", "tokenizer.json"
_CORNERS = "parity.safetensors"
_PAGE_SUFFIXES = {".html", ".css", ".js"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "files", type=Path, nargs="+", metavar="FILE.safetensors", help="of save_file"
    )
    folder = "a folder that is new, empty, or was written by this command"
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help=folder)
    words = "a tokenizer.json of Hugging Face, for words beside ids"
    parser.add_argument("--tokenizer", type=Path, metavar="TOKENIZER.json", help=words)


def run(options: argparse.Namespace) -> Answer:
    """Write the folder, and say how to look at it."""
    write(options.files, options.out, options.tokenizer)
    written = sorted(options.out.iterdir())
    size = sum(path.stat().st_size for path in written)
    text = (
        f"{options.out} has {size:,} bytes. Any web server will do; this one is Python's:\n"
        f"    python -m http.server --directory {options.out} 8000\n"
        f"and then open http://localhost:8000/ in Chrome, Edge or another browser with WebGPU."
    )
    names = [path.name for path in written]
    return Answer({"out": str(options.out), "bytes": size, "files": names}, text)


def page_folder() -> Path:
    """Return the folder of the page: of an installed package, or ``examples/web`` of a checkout."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "web"
    return installed if installed.is_dir() else package.parent / "examples" / "web"


def write(files: list[Path], out: Path, tokenizer: Path | None = None) -> None:
    """Write the folder of a page.

    Args:
        files: safetensors files that `save_file` wrote.
        out: a folder that does not exist, is empty, or was written by an earlier call.
        tokenizer: a ``tokenizer.json`` of Hugging Face.

    Raises:
        FormatError: a file holds no q4gsw matrices, or ``tokenizer`` no vocabulary; two files have
            the same name.
        OSError: a file cannot be read or written; `FileExistsError` if ``out`` holds other files.
    """
    names = [file.name for file in files]
    for name in names:
        if names.count(name) > 1 or name == _CORNERS:
            raise FormatError(f"the files need names of their own, and {name} is taken: rename one")
    matrices = {**{file.name: load_file(file) for file in files}, _CORNERS: corner_matrices()}
    if tokenizer is not None:
        check_tokenizer(tokenizer)
    if out.exists() and any(out.iterdir()) and not (out / _KERNELS).is_file():
        raise FileExistsError(
            f"{out} holds files that this command did not write: name a folder that is new or empty"
        )
    modules: Modules = {}
    planned = [{"file": name, "matrices": _planned(of, modules)} for name, of in matrices.items()]
    about = {"corners": _CORNERS, "tokenizer": tokenizer is not None}
    kernels = {**about, "files": planned, "modules": modules}
    cases = [
        {"file": file, **case}
        for file, named in matrices.items()
        for name, weight in _stored(named).items()
        for case in (corner_cases if file == _CORNERS else matrix_cases)(name, weight)
    ]

    out.mkdir(parents=True, exist_ok=True)
    page = [path for path in page_folder().iterdir() if path.suffix in _PAGE_SUFFIXES]
    copies = {path.name: path for path in [*page, *files]}
    if tokenizer is not None:
        copies[_TOKENIZER] = tokenizer
    for name, path in copies.items():
        if path.resolve() != (out / name).resolve():
            shutil.copyfile(path, out / name)
    save_file(matrices[_CORNERS], out / _CORNERS)
    for name, content in ((_KERNELS, kernels), (_CASES, cases)):
        (out / name).write_text(json.dumps(content, separators=(",", ":")), encoding="utf-8")


def check_tokenizer(path: Path) -> None:
    """Raise unless a file is a ``tokenizer.json`` with a vocabulary.

    Raises:
        FormatError: it has no vocabulary.
        OSError: it cannot be read.
    """
    try:
        json.loads(path.read_text(encoding="utf-8"))["model"]["vocab"]
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(
            f"{path} has no vocabulary: it must be a tokenizer.json of Hugging Face, whose "
            f"model.vocab maps tokens to ids"
        ) from error


def _stored(matrices: Mapping[str, Q4Weight]) -> dict[str, Q4Weight]:
    """Return each matrix once, under the first of its names."""
    first = {id(weight): name for name, weight in reversed(list(matrices.items()))}
    return {name: weight for name, weight in matrices.items() if first[id(weight)] == name}


def _planned(matrices: Mapping[str, Q4Weight], modules: Modules) -> list[dict[str, Any]]:
    return [
        {
            "names": [name, *(n for n, same in matrices.items() if same is weight and n != name)],
            "shape": astuple(shape_of(weight)),
            "programs": programs(shape_of(weight), modules),
        }
        for name, weight in _stored(matrices).items()
    ]
