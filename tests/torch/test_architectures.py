"""`tie` on small models of many architectures; `make architectures` takes all of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import transformers
from torch import nn

from tests.tiny_models import random_weight
from tools.architectures import check as sweep
from tools.architectures.check import FAILS, NOT_TIED, NOT_TRIED, REFUSED, WORKS, check
from tools.architectures.listing import KINDS, WRAPPERS, Architecture, architectures, sample
from wgpu_q4.nn import QuantizedLinear, tie

PAGE = Path(__file__).resolve().parents[2] / "docs" / "architectures.md"
LISTED = architectures()
ROWS = dict(re.findall(r"^\| (\w+) \| ([\w ]+) \|", PAGE.read_text(), re.MULTILINE))

pytestmark = pytest.mark.filterwarnings("ignore")  # transformers, of sizes and tokens


@pytest.fixture(autouse=True)
def quiet() -> None:
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("architecture", sample(LISTED, 4), ids=lambda each: each.name)
def test_some_of_each_kind(architecture: Architecture) -> None:
    outcome = check(architecture)
    assert outcome.status != FAILS, outcome.why
    assert f"| {architecture.name} | {architecture.kind} |" in section(outcome.status)


def section(status: str) -> str:
    """Return the part of the page with what became of architectures."""
    title = {
        WORKS: "Works",
        REFUSED: "Refused, and nothing changed",
        NOT_TIED: "Not tied by transformers in a small model",
        NOT_TRIED: "Not tried",
    }[status]
    (found,) = re.findall(rf"^## {title}\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.M | re.S)
    return str(found)


def test_the_page_has_each_architecture_of_the_installed_transformers() -> None:
    assert f"transformers {transformers.__version__}: {len(LISTED)} architectures." in (
        PAGE.read_text()
    ), "make architectures writes the page anew"
    assert {name: kind for name, kind in ROWS.items() if name in {a.name for a in LISTED}} == {
        each.name: each.kind for each in LISTED
    }
    assert "## Fails" not in PAGE.read_text()
    assert section(WORKS).count("\n| ") > 300


def test_the_list_has_each_kind() -> None:
    assert {each.kind for each in LISTED} == set(KINDS.values())
    assert len(LISTED) > 300
    assert {each.name for each in LISTED} > {"MambaForCausalLM", "WhisperForConditionalGeneration"}
    assert {each.name for each in LISTED} > {"MobileBertForMaskedLM", *WRAPPERS}


class TestTheSweepWouldNotice:
    llama = Architecture("LlamaForCausalLM", "causal")

    def test_another_matrix(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def swap(model: Any, group_size: int) -> Any:
            report = tie(model, group_size)
            model.lm_head = QuantizedLinear(random_weight(160, 64))
            return report

        monkeypatch.setattr(sweep, "tie", swap)
        outcome = check(self.llama)
        assert (outcome.status, outcome.why) == (FAILS, "lm_head: a product is off its bound")

    def test_a_refusal_that_comes_too_late(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def late(model: Any, group_size: int) -> Any:
            model.lm_head = nn.Linear(64, 160)
            raise ValueError("too late")

        monkeypatch.setattr(sweep, "tie", late)
        assert (check(self.llama).status, check(self.llama).why) == (FAILS, "too late")

    def test_a_refusal(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(model: Any, group_size: int) -> Any:
            raise ValueError("no")

        monkeypatch.setattr(sweep, "tie", refuse)
        assert check(self.llama).status == REFUSED
