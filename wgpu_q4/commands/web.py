"""Write a web page that runs a model, or a file's matrices, on its visitor's GPU.

The folder holds static files: the page, the safetensors files, the kernels with their plans, and
cases with float64 results that the page compares with what the visitor's browser computes.  Of a
model, a .gguf or a folder of Hugging Face's, it holds the layers, the program of the decoder and
the tokenizer besides: the visitor talks to it.

Examples:
  wgpu-q4 web SmolLM2-135M-Instruct.Q4_1.gguf --out page --serve 8000
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
from contextlib import suppress
from dataclasses import astuple
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from os import PathLike
from pathlib import Path
from typing import Any

from wgpu_q4.commands import web_decoder
from wgpu_q4.commands.answer import Answer, UsageError
from wgpu_q4.commands.web_cases import corner_cases, corner_matrices, matrix_cases
from wgpu_q4.commands.web_programs import Modules, programs
from wgpu_q4.decoder.tokenizer import tokenizer_of
from wgpu_q4.decoder.weights import Body
from wgpu_q4.device.parts import shape_of
from wgpu_q4.errors import FormatError
from wgpu_q4.files import load_file, save_file
from wgpu_q4.weight import Q4Weight

_KERNELS, _CASES, _TOKENIZER = "kernels.json", "cases.json", "tokenizer.json"
_DECODER, _LAYERS = "decoder.json", "layers.safetensors"
_CORNERS = "parity.safetensors"
_PAGE_SUFFIXES = {".html", ".css", ".js"}
_CONTEXT = 1024


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    files = "of save_file; or one model, a .gguf or a folder of Hugging Face's"
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help=files)
    folder = "a folder that is new, empty, or was written by this command"
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help=folder)
    words = "a tokenizer.json of Hugging Face, for words beside ids; a model brings its own"
    parser.add_argument("--tokenizer", type=Path, metavar="TOKENIZER.json", help=words)
    positions = f"positions of the model's cache on the page ({_CONTEXT})"
    parser.add_argument("--context", type=int, metavar="N", help=positions)
    layers = "layers of a folder's model (float16); a .gguf says it by its types"
    parser.add_argument("--body", choices=("float16", "q4gsw"), help=layers)
    port = "then offer the page at http://localhost:PORT/, to this machine alone, until Control-C"
    parser.add_argument("--serve", type=int, metavar="PORT", help=port)


def run(options: argparse.Namespace) -> Answer:
    """Write the folder, and say how to look at it, or serve it."""
    if options.serve is not None and options.json:
        raise UsageError("--serve goes on until Control-C, and --json is printed at the end")
    _check_options(options)
    body: Body = options.body or "float16"
    context = _CONTEXT if options.context is None else options.context
    write(options.files, options.out, options.tokenizer, context, body)
    written = sorted(options.out.iterdir())
    size = sum(path.stat().st_size for path in written)
    names = [path.name for path in written]
    document = {"out": str(options.out), "bytes": size, "files": names}
    if options.serve is not None:
        serve(options.out, options.serve)
        return Answer(document)
    text = (
        f"{options.out} has {size:,} bytes. Any web server will do; this one is Python's:\n"
        f"    python -m http.server --directory {options.out} 8000\n"
        f"and then open http://localhost:8000/ in Chrome, Edge or another browser with WebGPU."
    )
    return Answer(document, text)


def _check_options(options: argparse.Namespace) -> None:
    """Raise `UsageError` for an option that would be without effect."""
    models = [file for file in options.files if web_decoder.is_model(file)]
    for name in ("context", "body"):
        if getattr(options, name) is not None and not models:
            raise UsageError(f"--{name} is for a model, a .gguf or a folder, and no file is one")
    if options.body is not None and not models[0].is_dir():
        raise UsageError("--body is for the model of a folder: a GGUF file says it by its types")
    if options.tokenizer is not None and models:
        raise UsageError("--tokenizer is for matrices by themselves: a model brings its own")


class _Handler(SimpleHTTPRequestHandler):
    def guess_type(self, path: str | PathLike[str]) -> str:
        """Return the type of a file; Windows may have one for modules with which none runs."""
        return "text/javascript" if str(path).endswith(".js") else super().guess_type(path)

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


def serve(folder: Path, port: int) -> None:
    """Offer a folder to the browsers of this machine until Control-C.

    Raises:
        UsageError: the port is taken, or there is none of this number.
    """
    handler = partial(_Handler, directory=str(folder))
    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), handler)
    except (OSError, OverflowError) as error:
        raise UsageError(f"--serve {port}: {error}. Take another port") from error
    with server, suppress(KeyboardInterrupt):
        address = f"http://localhost:{server.server_port}/"
        print(f"{address} is the page, for a browser with WebGPU; Control-C ends it.", flush=True)
        server.serve_forever()


def page_folder() -> Path:
    """Return the folder of the page: of an installed package, or ``examples/web`` of a checkout."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "web"
    return installed if installed.is_dir() else package.parent / "examples" / "web"


def write(
    files: list[Path],
    out: Path,
    tokenizer: Path | None = None,
    context: int = _CONTEXT,
    body: Body = "float16",
) -> None:
    """Write the folder of a page.

    Args:
        files: safetensors files that `save_file` wrote, and at most one model: a GGUF file, or a
            folder of Hugging Face's.
        out: a folder that does not exist, is empty, or was written by an earlier call.
        tokenizer: a ``tokenizer.json`` of Hugging Face; a model brings its own.
        context: positions of the model's cache.
        body: the type of the layers of a folder's model.

    Raises:
        FormatError: a file holds no q4gsw matrices, or ``tokenizer`` no vocabulary; two files have
            the same name; or a model is one that the decoder or the page does not run.
        UsageError: there are two models, or ``context`` is more than the model was made for.
        ImportError: a library that reads the model is not installed.
        OSError: a file cannot be read or written; `FileExistsError` if ``out`` holds other files.
    """
    models = [file for file in files if web_decoder.is_model(file)]
    files = [file for file in files if file not in models]
    if len(models) > 1:
        raise UsageError(f"a page has one model, not {len(models)}: write a folder for each")
    names = [file.name for file in files] + [_of_model(model) for model in models]
    for name in names:
        if names.count(name) > 1 or name in (_CORNERS, _LAYERS):
            raise FormatError(f"the files need names of their own, and {name} is taken: rename one")
    matrices = {file.name: load_file(file) for file in files}
    if tokenizer is not None:
        check_tokenizer(tokenizer)
    if out.exists() and any(out.iterdir()) and not (out / _KERNELS).is_file():
        raise FileExistsError(
            f"{out} holds files that this command did not write: name a folder that is new or empty"
        )
    made: dict[str, dict[str, Q4Weight]] = {}
    texts: dict[str, Any] = {}
    layers = web_decoder.TensorFile(_existing(out))
    for model in models:
        weights = web_decoder.weights_of(model, body)
        words, chat = tokenizer_of(model)
        made[_of_model(model)] = web_decoder.matrices_of(weights)
        program = web_decoder.write_up(weights, layers, context)
        about = {"file": _of_model(model), "layers": _LAYERS, "bytes": layers.nbytes, "chat": chat}
        texts = {_DECODER: {**about, **program}, _TOKENIZER: json.loads(words)}
        tokenizer = None
    made[_CORNERS] = corner_matrices()
    matrices = {**matrices, **made}
    modules: Modules = {}
    planned = [{"file": name, "matrices": _planned(of, modules)} for name, of in matrices.items()]
    about = {
        "corners": _CORNERS,
        "tokenizer": tokenizer is not None or bool(models),
        "decoder": layers.nbytes,
    }
    texts[_KERNELS] = {**about, "files": planned, "modules": modules}
    texts[_CASES] = [
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
    for name, of in made.items():
        save_file(of, out / name)
    if models:
        layers.save(out / _LAYERS)
    for name, content in texts.items():
        text = json.dumps(content, separators=(",", ":"), ensure_ascii=False)
        (out / name).write_text(text, encoding="utf-8")


def _of_model(model: Path) -> str:
    """Return the name of the file of a model's embedding and head."""
    return f"{model.resolve().name if model.is_dir() else model.stem}.safetensors"


def _existing(folder: Path) -> Path:
    """Return a folder if it exists, or the nearest one above it that does."""
    return next(path for path in (folder, *folder.resolve().parents) if path.is_dir())


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
