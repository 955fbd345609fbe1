"""A matrix over the ranks of a process group, held against one process, numpy and torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

from tests.tiny_models import build, llama
from tests.torch import rank_processes as ranks
from wgpu_q4.errors import RankError
from wgpu_q4.nn import tie


def test_two_ranks(tmp_path: Path) -> None:
    ranks.run_ranks(
        *(2, tmp_path),
        ranks.rows_are_those_of_one_process,
        ranks.a_model_writes_the_same_text,
        ranks.the_best_of_all_ranks_are_those_of_one_process,
        ranks.a_state_dict_holds_the_rows_of_its_rank,
        ranks.what_one_rank_refuses_all_refuse,
        ranks.a_compiled_model_computes_the_same,
    )


def test_three_ranks(tmp_path: Path) -> None:
    ranks.run_ranks(
        *(3, tmp_path),
        ranks.rows_are_those_of_one_process,
        ranks.a_model_writes_the_same_text,
        ranks.logits_are_within_the_bound,
        ranks.a_call_that_fails_on_one_rank_fails_on_all,
        ranks.a_group_of_some_ranks_ties,
    )


def test_four_ranks(tmp_path: Path) -> None:
    ranks.run_ranks(
        *(4, tmp_path),
        ranks.rows_are_those_of_one_process,
        ranks.a_model_writes_the_same_text,
        ranks.gradients_pass_the_head,
        ranks.a_model_without_values_is_tied,
    )


@pytest.mark.parametrize("group", [None, dist.group.WORLD, object()], ids=["None", "WORLD", "else"])
def test_a_group_needs_an_initialized_torch_distributed(group: Any) -> None:
    model = build(llama)
    with pytest.raises(RankError, match=r"init_process_group first"):
        tie(model, 8, process_group=group)
    assert type(model.lm_head).__name__ == "Linear"
