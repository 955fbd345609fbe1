"""A tied model in the checkpoints of safetensors, accelerate and torch."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import accelerate
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    get_model_state_dict,
    get_state_dict,
    set_model_state_dict,
    set_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.optim import SGD

import wgpu_q4
from tests.tiny_models import IDS, build, llama, random_weight
from wgpu_q4.nn import tie


def tied(seed: int) -> Any:
    model = build(llama)
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    tie(model, 8)
    return model


@torch.no_grad()
def logits(model: Any) -> Tensor:
    result: Tensor = model(input_ids=IDS).logits
    return result


def assert_is(model: Any, source: Any) -> None:
    """The head, which a loader may have passed by, computes with the matrix of the embedding."""
    assert torch.equal(logits(model), logits(source))
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert model.lm_head.q4weight.same_matrix(source.lm_head.q4weight)
    assert len(model.lm_head.q4weight.residents) == 1


def safetensors_save_file(source: Any, folder: Path) -> Any:
    save_file(source.state_dict(), folder / "state.safetensors")
    model = tied(2)
    model.load_state_dict(load_file(folder / "state.safetensors"))
    return model


def torch_save(source: Any, folder: Path) -> Any:
    torch.save(source.state_dict(), folder / "state.pt")
    model = tied(2)
    model.load_state_dict(torch.load(folder / "state.pt", weights_only=True, mmap=True))
    return model


def converted(source: Any, folder: Path) -> Any:
    model = tied(2)
    state = {name: tensor.to("cpu", copy=True) for name, tensor in source.state_dict().items()}
    model.load_state_dict(state, assign=True)
    return model


def accelerator(source: Any, folder: Path) -> Any:
    accelerate.Accelerator(cpu=True).save_model(source, folder, max_shard_size="20KB")
    model = tied(2)
    accelerate.load_checkpoint_in_model(model, folder, full_state_dict=True)
    return model


def accelerate_by_device(source: Any, folder: Path) -> Any:
    """It replaces the buffers of the one module that the file names."""
    accelerate.Accelerator(cpu=True).save_model(source, folder)
    return accelerate.load_checkpoint_and_dispatch(tied(2), folder, device_map={"": "cpu"})


def distributed(source: Any, folder: Path) -> Any:
    save(get_model_state_dict(source), checkpoint_id=folder)
    model = tied(2)
    state = get_model_state_dict(model)
    load(state, checkpoint_id=folder)
    set_model_state_dict(model, state)
    return model


def distributed_with_an_optimizer(source: Any, folder: Path) -> Any:
    def states(model: nn.Module) -> tuple[SGD, dict[str, Any]]:
        optimizer = SGD([p for p in model.parameters() if p.requires_grad], 0.1)
        state, optimizer_state = get_state_dict(model, optimizer)
        return optimizer, {"model": state, "optimizer": optimizer_state}

    save(states(source)[1], checkpoint_id=folder)
    optimizer, state = states(model := tied(2))
    load(state, checkpoint_id=folder)
    set_state_dict(
        model,
        optimizer,
        model_state_dict=state["model"],
        optim_state_dict=state["optimizer"],
    )
    return model


def distributed_in_place(source: Any, folder: Path) -> Any:
    """Without ``load_state_dict`` afterwards: the values are written into the model's memory."""
    save({"model": source.state_dict()}, checkpoint_id=folder)
    model = tied(2)
    logits(model)
    load({"model": model.state_dict()}, checkpoint_id=folder)
    return model


@pytest.mark.parametrize(
    "there_and_back",
    [
        safetensors_save_file,
        torch_save,
        converted,
        accelerator,
        accelerate_by_device,
        distributed,
        distributed_with_an_optimizer,
        distributed_in_place,
    ],
    ids=lambda function: function.__name__,
)
@pytest.mark.filterwarnings("ignore:.*torch.distributed is")
def test_saved_and_loaded(there_and_back: Callable[[Any, Path], Any], tmp_path: Path) -> None:
    source = tied(1)
    assert not torch.allclose(logits(source), logits(tied(2)))
    assert_is(there_and_back(source, tmp_path), source)


@pytest.mark.parametrize("offload_buffers", [False, True])
def test_offloaded(tmp_path: Path, offload_buffers: bool) -> None:
    for offload, where in ((accelerate.cpu_offload, ()), (accelerate.disk_offload, (tmp_path,))):
        model = tied(1)
        offload(model, *where, execution_device="cpu", offload_buffers=offload_buffers)
        assert torch.equal(logits(model), logits(tied(1)))


def test_what_is_written_into_a_state_dict_reaches_copies_that_share_its_memory() -> None:
    state = {name: tensor.clone() for name, tensor in tied(1).state_dict().items()}
    want = logits(tied(1))
    gc.collect()  # or the matrix of another model would be found and shared
    model = tied(2)
    twin = copy.deepcopy(model)
    logits(twin)
    for name, tensor in model.state_dict().items():
        tensor.copy_(state[name])
    assert torch.equal(logits(model), want)
    assert torch.equal(twin.model.embed_tokens(IDS), model.model.embed_tokens(IDS))
    assert twin.lm_head.q4weight is model.lm_head.q4weight
    assert model.lm_head.q4weight.same_matrix(tied(1).lm_head.q4weight)


def test_a_mapped_file_is_never_written_to(tmp_path: Path) -> None:
    """Its state dict is a copy, so that loading into it does not end the process."""
    weight = random_weight()
    wgpu_q4.save_file({"weight": weight}, tmp_path / "weight.safetensors")
    model = build(llama)
    tie(model, weight=wgpu_q4.load_file(tmp_path / "weight.safetensors")["weight"])
    state = model.state_dict()
    state["model.embed_tokens.weight_packed"].fill_(0)
    assert model.lm_head.q4weight.same_matrix(weight)
    model.load_state_dict(state)
    assert not model.lm_head.q4weight.packed.any()
