"""Ties a small model of an architecture, and compares it with torch on the dequantized matrix."""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from tools.architectures.compare import compare, generates_the_same
from tools.architectures.inputs import NotCalled, find_inputs
from tools.architectures.listing import Architecture
from tools.architectures.small import NotSmall, small_model
from wgpu_q4.nn import tie

WORKS, REFUSED, NOT_TIED, NOT_TRIED, FAILS = "works", "refused", "not tied", "not tried", "fails"


@dataclass(frozen=True)
class Outcome:
    """What became of an architecture.

    Attributes:
        status: `WORKS`; `REFUSED` if `tie` refused and had changed nothing; `NOT_TIED` if no
            embedding shares its matrix with a head; `NOT_TRIED` if no small model was built, or
            none of the inputs fits it; `FAILS` for all else.
        why: the reason, empty if it works.
        generates: True if it wrote the same tokens too.
    """

    architecture: Architecture
    status: str
    why: str = ""
    generates: bool = False


def check(architecture: Architecture) -> Outcome:
    """Build, tie, run and compare one architecture."""
    try:
        model = small_model(architecture.type)
        width = tied_width(model)
        if width is None:
            return Outcome(architecture, NOT_TIED)
        inputs = find_inputs(model)
    except (NotSmall, ImportError) as error:
        return Outcome(architecture, NOT_TRIED, _line(error))
    except NotCalled as error:
        return Outcome(architecture, NOT_TRIED, f"needs other inputs: {error}")
    except Exception as error:  # whatever a config says to sizes that do not fit each other
        return Outcome(architecture, NOT_TRIED, f"not built small: {_line(error)}")

    tied = copy.deepcopy(model)
    before = snapshot(tied)
    try:
        report = tie(tied, next(size for size in (32, 16, 8) if width % size == 0))
    except Exception as error:
        unchanged = snapshot(tied) == before and isinstance(error, TypeError | ValueError)
        return Outcome(architecture, REFUSED if unchanged else FAILS, _line(error))
    try:
        tied.tie_weights()
        why = compare(model, tied, report, inputs)
        generates = not why and generates_the_same(model, tied, inputs)
    except Exception as error:
        return Outcome(architecture, FAILS, _line(error))
    return Outcome(architecture, FAILS if why else WORKS, why, generates)


def tied_width(model: nn.Module) -> int | None:
    """Return K of the matrix that an embedding and a linear layer share, None if there is none."""
    others = [each.weight for each in model.modules() if _is_embedding(each)]
    heads = [each.weight for each in model.modules() if isinstance(each, nn.Linear)]
    shared = {id(each) for each in others} & {id(each) for each in heads}
    return next((each.shape[1] for each in heads if id(each) in shared), None)


def _is_embedding(module: Any) -> bool:
    """Return True for an embedding, also one that is none of torch's."""
    return isinstance(module, nn.Embedding) or (
        "Embedding" in type(module).__name__ and isinstance(getattr(module, "weight", 0), Tensor)
    )


def snapshot(model: nn.Module) -> Any:
    """Return what must stay as it was when `tie` refuses: modules, tensors and attributes."""
    modules = [(name, id(module)) for name, module in model.named_modules(remove_duplicate=False)]
    named = [*model.named_parameters(remove_duplicate=False), *model.named_buffers()]
    tensors = [(name, id(tensor), tensor._version) for name, tensor in named]
    ties = [str(getattr(each, "all_tied_weights_keys", "")) for each in model.modules()]
    return modules, tensors, [sorted(vars(each)) for each in model.modules()], ties


def _line(error: BaseException) -> str:
    """Return what an error says in one line, without the validator that raised it."""
    text = re.sub(r".* for validator '\w+': \w+: ", "", " ".join(str(error).split()))
    kind = "" if isinstance(error, ValueError | ImportError) else f"{type(error).__name__}: "
    return f"{kind}{text}"
