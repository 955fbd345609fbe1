"""The peers of the benchmark compute what the reference does, or are left out by name."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.__main__ import main
from tools.bench.peers import PEERS, UnavailableError, base, make, onnxruntime_peers
from tools.bench.suite import measure_peer
from wgpu_q4 import Q4Weight, reference
from wgpu_q4.bench import jobs
from wgpu_q4.bench.timing import Effort, Timing
from wgpu_q4.kernels import MatrixShape

SMALL = MatrixShape(vocab=13, embed_dim=64, group_size=32, scales="float16")
QUICKLY = ("--seconds", "0.001", "--repeats", "2")
EFFORT = Effort(repeats=2, seconds=1e-3)
TINY = ("--shape", "72x64x32", "--ids", "3", "8", "--rows", "1", "20", *QUICKLY)

Captured = pytest.CaptureFixture[str]


@pytest.mark.parametrize("name", PEERS)
def test_a_peer_computes_what_the_reference_does(name: str) -> None:
    """Or is absent by name: WebGPU finds no GPU on the software drivers, floats no half units."""
    weight = jobs.random_weight(MatrixShape(101, 96, 32, "float16"))
    given: dict[str, Any] = {
        "embedding": np.array([100, 0, 3, 3, 57]),
        "linear": np.random.default_rng(1).standard_normal((3, 96)).astype(np.float32),
    }
    if name in ("torch-float16", "onnxruntime-webgpu"):
        with pytest.raises(UnavailableError, match=r"processor|finds no GPU here"):
            make(name, weight, EFFORT)
        return
    peer = make(name, weight, EFFORT)
    for op in PEERS[name][2]:
        task = getattr(peer, op)(given[op])
        found = task.answer()
        exact = (
            reference.embedding(given[op], weight)
            if op == "embedding"
            else reference.linear(given[op], weight)
        )
        assert found.shape == exact.shape
        assert np.abs(found - exact).max() <= task.tolerance * np.sqrt(np.mean(exact**2))
        result = measure_peer(peer, op, given[op], weight)
        assert (result.op, result.size) == (op, len(given[op]))
        assert result.timing.median > 0
    peer.close()


def test_what_computes_something_else_is_no_peer() -> None:
    weight = jobs.random_weight(SMALL)
    ids = np.arange(13)
    right = reference.embedding(ids, weight)

    def task(answer: NDArray[Any]) -> base.Task:
        return base.Task(lambda: answer, lambda: Timing.of([1.0]), "calls", 0, 1e-6)

    base.check(task(right), "embedding", ids, weight)
    nibble = right.copy()
    nibble[12, 5] += weight.scales[12, 0]
    for wrong, why in (
        (nibble, "its result is wrong"),
        (right * np.nan, "its result is wrong"),
        (right[1:], "its result has shape"),
    ):
        with pytest.raises(UnavailableError, match=why):
            base.check(task(wrong), "embedding", ids, weight)
    x = np.eye(3, 64, dtype=np.float32)
    logits = reference.linear(x, weight)
    base.check(task(logits), "linear", x, weight)
    with pytest.raises(UnavailableError, match="its result is wrong"):
        base.check(task(logits[:, ::-1]), "linear", x, weight)


def test_an_absent_peer_is_named(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    monkeypatch.setitem(sys.modules, "tools.bench.peers.torch_peers", None)
    arguments = ["--shape", "16x32x32", "--ids", "2", "--rows", "1", *QUICKLY]
    assert main([*arguments, "--peers", "torch", "torch-float32"]) == 0
    said = capsys.readouterr().out
    assert "left out: torch embedding: not installed" in said
    assert "left out: torch-float32 linear: not installed" in said


def test_a_peer_that_fails_is_left_out(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    def refuse(*_: object) -> Any:
        raise UnavailableError("no such operator")

    monkeypatch.setattr(onnxruntime_peers.Processor, "session", refuse)
    arguments = ["--shape", "16x32x32", "--ids", "2", "4", "--rows", "1", *QUICKLY]
    assert main([*arguments, "--peers", "onnxruntime"]) == 0
    said = capsys.readouterr().out
    assert said.count("left out: onnxruntime embedding: no such operator") == 1


def test_a_peer_that_raises_ends_no_run() -> None:
    class Broken(base.Peer):
        who = "broken"

        def embedding(self, ids: NDArray[np.int64]) -> base.Task:
            raise RuntimeError("out of memory\n(and a long trace)")

    weight = jobs.random_weight(SMALL)
    with pytest.raises(UnavailableError, match=r"^it fails at embedding, 1: out of memory$"):
        measure_peer(Broken(), "embedding", np.array([0]), weight)
    with pytest.raises(UnavailableError, match="broken has no product here"):
        measure_peer(Broken(), "linear", np.ones((1, 64), np.float32), weight)


def test_groups_that_onnx_runtime_lacks() -> None:
    weight = Q4Weight(np.zeros((3, 12), np.uint8), np.ones((3, 1), np.float32))
    peer = make("onnxruntime", weight, EFFORT)
    with pytest.raises(UnavailableError, match="groups of 16, 32, 64"):
        peer.embedding(np.array([0]))
    with pytest.raises(UnavailableError, match="groups of 16, 32, 64"):
        peer.linear(np.ones((1, 24), np.float32))
