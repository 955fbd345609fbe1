"""What each rank of a process group does in the tests of `wgpu_q4.nn.ranks`.

`run_ranks` starts the processes from a server that has imported torch and transformers, and used
neither; a check that fails on one rank ends them all.
"""

from __future__ import annotations

import copy
import os
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from accelerate import init_empty_weights
from numpy.typing import NDArray
from torch import Tensor

from tests import rich_tables
from tests.tiny_models import (
    HIDDEN,
    IDS,
    VOCAB,
    bert,
    build,
    double,
    gemma3,
    llama,
    random_weight,
    run,
    sum_bound,
    values_of,
    with_dequantized_matrix,
)
from wgpu_q4 import Q4Weight
from wgpu_q4.errors import FormatError, RankError
from wgpu_q4.nn import tie
from wgpu_q4.nn.ranks.modules import RankEmbedding, RankLinear
from wgpu_q4.nn.ranks.tying import RankTieReport
from wgpu_q4.ops.shares import share_out

SERVER = [__name__, "wgpu", "transformers.models.llama.modeling_llama"]


def run_ranks(count: int, path: Path, *checks: Callable[[], None]) -> None:
    """Run ``checks`` one after another on each of ``count`` ranks of a gloo group."""
    mp.get_context("forkserver").set_forkserver_preload(SERVER)
    arguments = count, str(path / "store"), checks
    start: Any = mp.start_processes  # type: ignore[attr-defined]
    start(_rank, arguments, count, start_method="forkserver")


def _rank(rank: int, count: int, store: str, checks: tuple[Callable[[], None], ...]) -> None:
    os.environ.update(LP_NUM_THREADS="1")
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # software adapters
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=count)
    for check in checks:
        torch.manual_seed(0)
        check()
    dist.barrier()
    dist.destroy_process_group()


def world() -> dist.ProcessGroup:
    group = dist.group.WORLD
    assert group is not None
    return group


def tied(
    family: Callable[..., Any] = llama, weight: Q4Weight | None = None, **options: Any
) -> tuple[Any, RankTieReport]:
    """A model of a family, tied over all ranks, and the report."""
    model = build(family, **options)
    size = 8 if weight is None else None
    return model, tie(model, size, weight=weight, process_group=world())


def bits(tensor: Tensor) -> NDArray[Any]:
    words: NDArray[Any] = tensor.detach().contiguous().view(torch.uint8).numpy()
    return words


def signed_weight(vocab: int) -> Q4Weight:
    """With scales of both signs and some zeros: −0 is among the values."""
    weight = random_weight(vocab)
    signs = np.random.default_rng(5).integers(-1, 2, weight.scales.shape).astype(np.float16)
    return Q4Weight(weight.packed, weight.scales * signs)


def rows_are_those_of_one_process() -> None:
    for vocab in (VOCAB, 96, 11):  # prime; of 8; too few strips for three ranks
        weight = signed_weight(vocab)
        values = values_of(weight)
        assert (np.signbit(values) & (values == 0)).any()
        model, report = tied(weight=weight, vocab_size=vocab)
        ids = torch.tensor([[0, vocab - 1, 7, 8, 3], [9, 10, 7, 0, 1]])
        embedding = model.get_input_embeddings()
        for dtype in (torch.float32, torch.float16, torch.bfloat16, torch.float64):
            # The products are exact in float64; each dtype rounds float32.
            want = torch.from_numpy(values[ids.numpy()]).float().to(dtype)
            assert np.array_equal(bits(embedding.to(dtype)(ids)), bits(want)), (vocab, dtype)
        assert embedding(ids[:0]).shape == (0, 5, HIDDEN)
        own = share_out(vocab, dist.get_world_size())[dist.get_rank()]
        assert report.rows == own
        assert report.bytes_after == len(own) * (HIDDEN // 2 + HIDDEN // 8 * 2)
        assert (report.weight is None) == (len(own) == 0)
        if report.weight is not None:
            assert report.weight.packed.tobytes() == weight.packed[own].tobytes()
            assert report.weight.scales.tobytes() == weight.scales[own].tobytes()
    assert share_out(11, 3)[2] == range(11, 11)


def logits_are_within_the_bound() -> None:
    x = torch.randn(3, 2, HIDDEN)
    for family, vocab in ((bert, VOCAB), (llama, 11)):  # the one has a bias, the other empty ranks
        weight = random_weight(vocab)
        model, _ = tied(family, weight, vocab_size=vocab)
        head = model.get_output_embeddings()
        bias = 0.0 if head.bias is None else double(head.bias)
        for dtype in (torch.float32, torch.bfloat16, torch.float64):
            given = x.to(dtype)
            logits = head(given)
            assert (logits.dtype, logits.shape) == (dtype, (3, 2, vocab))
            exact = double(given) @ values_of(weight).T + bias
            bound = sum_bound(double(given), values_of(weight), bias)
            if dtype == torch.bfloat16:
                bound = bound + np.abs(exact) * 2.0**-8
            assert (np.abs(double(logits) - exact) <= bound).all()
        every: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(every, bits(logits).tobytes())
        assert len(set(every)) == 1, "the ranks have other logits"


def gradients_pass_the_head() -> None:
    for vocab in (VOCAB, 11):
        weight = random_weight(vocab)
        model, _ = tied(weight=weight, vocab_size=vocab)
        x = torch.randn(2, 3, HIDDEN, requires_grad=True)
        g = torch.randn(2, 3, vocab)
        model.lm_head(x).backward(g)
        assert x.grad is not None
        want, bound = double(g) @ values_of(weight), sum_bound(double(g), values_of(weight).T)
        assert (np.abs(double(x.grad) - want) <= bound).all()
    # dL/dx = g · W is linear in g, whose own gradient is v · Wᵀ.
    x, g = (torch.randn(size, requires_grad=True) for size in (HIDDEN, 11))
    (of_x,) = torch.autograd.grad(model.lm_head(x), x, g, create_graph=True)
    v = torch.randn(HIDDEN)
    (of_g,) = torch.autograd.grad(of_x, g, v)
    bound = sum_bound(double(v)[None], values_of(weight))[0]
    assert (np.abs(double(of_g) - values_of(weight) @ double(v)) <= bound).all()


def a_model_writes_the_same_text() -> None:
    for family in (llama, gemma3):
        model = build(family)
        report = tie(one := copy.deepcopy(model), 8)
        twin = with_dequantized_matrix(model, report.weight)
        tie(model, 8, process_group=world())
        options: Any = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False}
        options["attention_mask"] = torch.ones_like(IDS)
        want = twin.generate(IDS, **options)
        assert torch.equal(model.generate(IDS, **options), want)
        assert torch.equal(run(model).hidden, run(twin).hidden), "the embedding is not exact"
        text = IDS
        with torch.no_grad():
            for _ in range(6):  # the loop of a user who wants no logits
                hidden = model.model(input_ids=text).last_hidden_state[:, -1]
                text = torch.cat([text, model.lm_head.argmax(hidden)[:, None]], 1)
        assert torch.equal(text, want)
        assert model.num_parameters() == one.num_parameters()
        assert model.resize_token_embeddings(VOCAB) is model.get_input_embeddings()


def the_best_of_all_ranks_are_those_of_one_process() -> None:
    """Rows that repeat give equal logits in several ranks; zeros of both signs are equal."""
    for vocab in (VOCAB, 11):
        few = random_weight(5)
        repeated = np.arange(vocab) % 5
        weight = Q4Weight(few.packed[repeated], few.scales[repeated])
        model, _ = tied(weight=weight, vocab_size=vocab)
        x = torch.randn(4, HIDDEN)
        x[1], x[2, 0] = 0, torch.nan
        logits = double(x) @ values_of(weight).T
        for k in (1, 7, vocab):
            best = model.lm_head.top_k(x[None], k)
            order = np.argsort(-logits, axis=1, kind="stable")[:, :k]  # NaN is last and ties stay
            assert np.array_equal(best.ids[0].numpy(), order)
            want = np.take_along_axis(logits, order, 1)
            slack = np.take_along_axis(sum_bound(double(x), values_of(weight)), order, 1)
            difference = np.abs(double(best.values)[0] - want)
            assert (np.isnan(want) | (difference <= slack)).all()
        assert model.lm_head.argmax(x).tolist() == [*logits[:2].argmax(1), 0, logits[3].argmax()]
        halves = model.lm_head.top_k(x.half(), 2)
        assert (halves.values.dtype, halves.ids.dtype) == (torch.float16, torch.int64)
        with pytest.raises(ValueError, match=f"k must be in 1..{vocab}"):
            model.lm_head.top_k(x, vocab + 1)


def a_model_without_values_is_tied() -> None:
    """No rank needs the float matrix; the modules stand on no torch device."""
    weight = random_weight()
    with init_empty_weights():
        model = build(llama)
    tie(model, weight=weight, process_group=world())
    rows = model.get_input_embeddings()(IDS)
    assert np.array_equal(rows.numpy(), values_of(weight)[IDS.numpy()].astype(np.float32))


def a_state_dict_holds_the_rows_of_its_rank() -> None:
    rank, count = dist.get_rank(), dist.get_world_size()
    model, report = tied()
    state = model.state_dict()
    own = report.rows
    name = "model.embed_tokens"
    assert state[f"{name}.weight_rows"].tolist() == [own.start, own.stop, VOCAB]
    assert state[f"{name}.weight_packed"].shape == (len(own), HIDDEN // 2)
    assert "lm_head.weight_packed" not in state, "the rows are named twice"
    with pytest.raises(RuntimeError, match=rf"Missing .*{name}.weight_packed"):
        model.load_state_dict({key: state[key] for key in state if not key.startswith(name)})
    one = build(llama)
    with torch.no_grad():
        one.get_input_embeddings().weight.mul_(-1.25)
    tie(one, 8)
    other = copy.deepcopy(one)
    tie_again = build(llama)
    tie(tie_again, 8, process_group=world())
    # The whole matrix of one process: each rank takes its rows.
    tie_again.load_state_dict(other.state_dict())
    ids = torch.arange(VOCAB)
    assert torch.equal(tie_again.get_input_embeddings()(ids), one.get_input_embeddings()(ids))
    assert torch.equal(tie_again.half().lm_head.weight_scales, tie_again.lm_head.rows.scales)
    # Its own rows, and those of another rank.
    tie_again.float().load_state_dict(state)
    assert torch.equal(tie_again.get_input_embeddings()(ids), model.get_input_embeddings()(ids))
    every: list[Any] = [None] * count
    dist.all_gather_object(every, state)
    with pytest.raises(RuntimeError, match=rf"rank {rank} of {count} takes its own\s+rows"):
        tie_again.load_state_dict(every[(rank + 1) % count])
    assert torch.equal(tie_again.get_input_embeddings()(ids), model.get_input_embeddings()(ids))
    with pytest.raises(RankError, match="cannot be pickled"):
        torch.save(model, os.devnull)
    with pytest.raises(RankError, match="no rank holds the whole matrix"):
        model.save_pretrained(os.devnull)
    copied = copy.deepcopy(model)
    assert copied.lm_head.weight_packed.data_ptr() == model.lm_head.weight_packed.data_ptr()
    assert torch.equal(copied(IDS).logits, model(IDS).logits)
    with pytest.raises(AttributeError, match=f"this rank holds rows {own.start} to {own.stop}"):
        model.lm_head.weight  # noqa: B018


def what_one_rank_refuses_all_refuse() -> None:
    rank = dist.get_rank()
    last = dist.get_world_size() - 1

    def refused(
        kind: type[Exception], match: str, vocab: int = VOCAB, factor: float = 1.0, **options: Any
    ) -> None:
        model = build(llama, vocab_size=vocab)
        with torch.no_grad():
            model.lm_head.weight.mul_(factor)
        with pytest.raises(kind, match=match):
            tie(model, **{"group_size": 8, "process_group": world(), **options})
        assert type(model.lm_head) is torch.nn.Linear, "changed all the same"

    is_last = rank == last
    sizes = f"ranks 0 and {last} disagree on group_size: 8 and 40"
    refused(RankError, sizes, group_size=40 if is_last else 8)
    refused(RankError, "disagree on the values of the matrix", factor=1.0 - is_last / 8)
    shapes = f"shape [V, K] of the matrix: [{VOCAB}, {HIDDEN}] and [{VOCAB + 1}, {HIDDEN}]"
    refused(RankError, re.escape(shapes), vocab=VOCAB + is_last)
    if is_last:
        refused(FormatError, "group_size = 9", group_size=9)
        refused(ValueError, "accuracy must be one of", accuracy="exactly")
    else:
        refused(RankError, f"rank {last} failed with FormatError: group_size = 9")
        refused(RankError, f"rank {last} failed with ValueError: accuracy must be one of")


def a_call_that_fails_on_one_rank_fails_on_all() -> None:
    last = dist.get_world_size() - 1
    is_last = dist.get_rank() == last
    model, _ = tied()
    embedding, head = model.get_input_embeddings(), model.lm_head
    with pytest.raises(RankError, match="different ids"):
        embedding(torch.tensor([1, 2 + is_last]))
    error: tuple[type[Exception], str] = (IndexError, "outside the vocabulary of 101")
    if not is_last:
        error = RankError, "another rank failed"
    with pytest.raises(error[0], match=error[1]):
        embedding(torch.tensor([1, 101 * is_last]))
    x = torch.randn(2, HIDDEN, requires_grad=True)
    logits = head(x)
    head.rows.device = "no such adapter" if is_last else None
    error = (Exception, "no such adapter") if is_last else (RankError, f"rank {last} failed")
    for call in (head, head.argmax):
        with pytest.raises(error[0], match=error[1]):
            call(x.detach())
    error = (Exception, "no such adapter") if is_last else (RankError, "another rank failed")
    with pytest.raises(error[0], match=error[1]):
        logits.sum().backward()
    head.rows.device = None
    assert torch.equal(head(x), logits), "a later call is right"


def a_compiled_model_computes_the_same() -> None:
    model, _ = tied()
    compiled: Any = torch.compile(model.forward, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        assert torch.equal(compiled(IDS).logits, model(IDS).logits)


def a_group_of_some_ranks_ties() -> None:
    """Others are told so, and wait for nobody."""
    new_group: Any = dist.new_group
    some = new_group([0, 1])
    model = build(llama)
    if dist.get_rank() > 1:
        with pytest.raises(RankError, match=f"rank {dist.get_rank()} is not in the process group"):
            tie(model, 8, process_group=some)
        return
    report = tie(model, 8, process_group=some)
    assert isinstance(model.get_input_embeddings(), RankEmbedding)
    assert isinstance(model.lm_head, RankLinear)
    assert report.ranks == 2
    assert "on 2 ranks" in str(report)
    shown, head = rich_tables.read(report), rich_tables.read(model.lm_head)
    assert shown["rows here"] == [f"{report.rows.start} to {report.rows.stop}"]
    assert shown["now, rows of this rank"][0] == f"{report.bytes_after:,} bytes"
    assert head["shape"] == [f"{len(report.rows)} × {model.config.hidden_size}"]
    whole = Q4Weight.quantize(build(llama).lm_head.weight, 8)
    twin = with_dequantized_matrix(build(llama), whole)
    assert torch.equal(run(model).hidden, run(twin).hidden)
