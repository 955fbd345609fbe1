"""``wgpu-q4 web``: what it writes, and what it refuses before it writes."""

from __future__ import annotations

import json
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.request import urlopen

import numpy as np
import pytest

import wgpu_q4
from wgpu_q4.cli import main
from wgpu_q4.commands.answer import UsageError
from wgpu_q4.commands.web import page_folder, write
from wgpu_q4.errors import FormatError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file with a tied matrix and one of its own."""
    rng = np.random.default_rng(0)
    tied = wgpu_q4.quantize(rng.standard_normal((40, 32), np.float32))
    other = wgpu_q4.quantize(rng.standard_normal((5, 64), np.float32), scales_dtype="float32")
    path = tmp_path / "tied.safetensors"
    wgpu_q4.save_file({"embed_tokens": tied, "other": other, "lm_head": tied}, path)
    return path


def test_a_folder_is_the_page_the_file_and_two_texts(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "page"
    assert main(["web", str(file), "--out", str(out)]) == 0
    assert f"python -m http.server --directory {out} 8000" in capsys.readouterr().out
    page = {path.name for path in page_folder().iterdir()}
    texts = {"kernels.json", "cases.json"}
    written = {path.name for path in out.iterdir()}
    assert written == {*page, *texts, "tied.safetensors", "parity.safetensors"}
    assert (out / "tied.safetensors").read_bytes() == file.read_bytes()
    kernels = json.loads((out / "kernels.json").read_text())
    entry, corners = kernels["files"]
    assert corners["file"] == kernels["corners"] == "parity.safetensors"
    tied, other = entry["matrices"]
    assert (tied["shape"], other["shape"][3]) == ([40, 32, 32, "float16"], "float32")
    assert (tied["names"], other["names"]) == (["embed_tokens", "lm_head"], ["other"])
    # Top-k keeps no more than there are: 5 pairs of 4 + 4 bytes.
    nearest = other["programs"]["nearest"]
    assert nearest["buffers"][nearest["result"]] == 40
    assert [step["module"] for step in nearest["steps"]][-1] == "top_k_of_logits"


def test_programs_name_what_there_is(file: Path, tmp_path: Path) -> None:
    write([file], tmp_path / "page")
    kernels = json.loads((tmp_path / "page" / "kernels.json").read_text())
    for matrix in [matrix for file in kernels["files"] for matrix in file["matrices"]]:
        for name, program in matrix["programs"].items():
            known = {"weight", "scales", *program["buffers"]}
            assert program["result"] in known, name
            for step in program["steps"]:
                declared = kernels["modules"][step["module"]]["bindings"]
                assert step["bindings"].keys() == declared.keys()
                for binding, bound in step["bindings"].items():
                    is_uniform = declared[binding] == "uniform"
                    assert len(bound) == 4 if is_uniform else bound in known


def test_a_folder_is_written_again_and_that_of_others_is_left_alone(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "page"
    write([file], out)
    (out / "page.js").write_text("old")
    write([file], out)
    assert "export" in (out / "runner.js").read_text()
    assert (out / "page.js").read_text() == (page_folder() / "page.js").read_text()
    assert main(["web", str(file), "--out", str(tmp_path)]) == 2
    assert "name a folder that is new or empty" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"page", "tied.safetensors"}


def test_what_is_refused_writes_nothing(file: Path, tmp_path: Path) -> None:
    out, text = tmp_path / "page", tmp_path / "tokenizer.json"
    text.write_text("{}")
    twin = tmp_path / "folder" / file.name
    twin.parent.mkdir()
    twin.write_bytes(file.read_bytes())
    corners = file.with_name("parity.safetensors")
    corners.write_bytes(file.read_bytes())
    with pytest.raises(FormatError, match=r"tied.safetensors is taken: rename one"):
        write([file, twin], out)
    with pytest.raises(FormatError, match=r"parity.safetensors is taken: rename one"):
        write([corners], out)
    with pytest.raises(FormatError, match="not a whole safetensors file"):
        write([text], out)
    with pytest.raises(FormatError, match=r"has no vocabulary: it must be a tokenizer.json"):
        write([file], out, text)
    with pytest.raises(UsageError, match="a page has one model, not 2"):
        write([tmp_path, tmp_path / "other.gguf"], out)
    assert not out.exists()


def test_a_port_that_cannot_be_had_is_named(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler) as taken:
        for port in (taken.server_port, 65536):
            out = str(tmp_path / str(port))
            assert main(["web", str(file), "--out", out, "--serve", str(port)]) == 2
            assert capsys.readouterr().err.startswith(f"wgpu-q4: --serve {port}: ")


def test_serve_offers_the_page_until_control_c(
    file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    found: list[tuple[str, bytes]] = []

    def ask_once(server: ThreadingHTTPServer) -> None:
        asked = Thread(target=server.handle_request)
        asked.start()
        with urlopen(f"http://localhost:{server.server_port}/runner.js") as answer:
            found.append((answer.headers["content-type"], answer.read()))
        asked.join()
        raise KeyboardInterrupt

    monkeypatch.setattr(ThreadingHTTPServer, "serve_forever", ask_once)
    arguments = ["web", str(file), "--out", str(tmp_path / "page"), "--serve", "0"]
    assert main(arguments) == 0
    assert found == [("text/javascript", (page_folder() / "runner.js").read_bytes())]
    assert "http://localhost:" in capsys.readouterr().out
    assert main([*arguments, "--json"]) == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["FILE", "--context", "64"], "--context is for a model"),
        (["FILE", "--body", "q4gsw"], "--body is for a model"),
        (["a.gguf", "--body", "q4gsw"], "--body is for the model of a folder"),
        (["a.gguf", "--tokenizer", "FILE"], "a model brings its own"),
    ],
)
def test_an_option_without_effect_is_refused(
    file: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    given = [str(file) if argument == "FILE" else argument for argument in arguments]
    assert main(["web", *given, "--out", str(file.parent / "page")]) == 2
    assert said in capsys.readouterr().err
