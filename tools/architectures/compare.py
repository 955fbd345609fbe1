"""A tied model beside the same float model with the dequantized matrix.

Rows of a 4-bit embedding are exact, so that the bodies of both compute the same.  What is left is
the order of the sums in the head, of which each may be off by the bound of `wgpu_q4.reference`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from wgpu_q4 import reference
from wgpu_q4.nn import QuantizedEmbedding, QuantizedLinear, TieReport

OUTPUTS = 1e-5
"""How far an output may be off, of its largest value: the float32 sums of a model this small stay
under 2⁻²⁴ · 64 each, and a few of them follow the head."""
TOKENS = 4


@torch.no_grad()
def compare(model: Any, tied: Any, report: TieReport, inputs: dict[str, Any]) -> str:
    """Return how two models differ, or an empty string.

    Args:
        model: the float model; gets the dequantized matrix.
        tied: the same model, after `tie`.
    """
    original = [each.clone() for each in _floats(_run(model, inputs))]
    model.get_parameter(f"{report.replaced[0]}.weight").copy_(
        torch.from_numpy(report.weight.dequantize())
    )
    want = list(_floats(_run(model, inputs)))
    with _Calls(tied, report.replaced) as calls:
        got = list(_floats(_run(tied, inputs)))
    for name, given, result in calls.seen:
        if why := _compare_call(model.get_submodule(name), tied.get_submodule(name), given, result):
            return f"{name}: {why}"
    if [each.shape for each in want] != [each.shape for each in got]:
        return "its outputs have other shapes"
    noticed = False
    for index, (a, b, before) in enumerate(zip(want, got, original, strict=True)):
        allowed = OUTPUTS * a.abs().max().item()
        difference = (a - b).abs().max().item()
        if not difference <= allowed:
            return f"output {index} of {list(a.shape)} is off by {difference:.2g} > {allowed:.2g}"
        noticed |= (before - a).abs().max().item() > 10 * allowed
    return "" if noticed else "no output depends on the matrix"


def _compare_call(module: Any, tied: Any, given: Tensor, result: Tensor) -> str:
    """Return how one call of a replaced module differs, or an empty string."""
    want = module(given)
    if isinstance(tied, QuantizedEmbedding):
        return "" if torch.equal(want, result) else "rows are not exact"
    bias = None if tied.bias is None else tied.bias.numpy()
    bound = 2 * reference.linear_bound(given.numpy(), tied.q4weight, bias)
    return "" if ((want - result).abs().numpy() <= bound).all() else "a product is off its bound"


class _Calls:
    """What goes into the replaced modules of a model, and what comes out."""

    def __init__(self, model: nn.Module, names: tuple[str, ...]) -> None:
        self.seen: list[tuple[str, Tensor, Tensor]] = []
        modules = {model.get_submodule(name): name for name in names}
        self._hooks = [
            module.register_forward_hook(
                lambda _, given, result, name=name: self._keep(name, given[0], result)
            )
            for module, name in modules.items()
            if isinstance(module, QuantizedEmbedding | QuantizedLinear)
        ]

    def _keep(self, name: str, given: Tensor, result: Tensor) -> None:
        self.seen.append((name, given.clone(), result.clone()))  # some models change rows in place

    def __enter__(self) -> _Calls:
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()


def _run(model: Any, inputs: dict[str, Any]) -> Any:
    torch.manual_seed(0)  # some draw noise
    return model(**inputs)


def _floats(outputs: Any) -> Iterator[Tensor]:
    """Yield the floating tensors of a model's outputs."""
    if isinstance(outputs, Tensor):
        if outputs.is_floating_point() and outputs.numel():
            yield outputs
    elif isinstance(outputs, dict | tuple | list):
        for each in outputs.values() if isinstance(outputs, dict) else outputs:
            yield from _floats(each)


@torch.no_grad()
def generates_the_same(model: Any, tied: Any, inputs: dict[str, Any]) -> bool:
    """Return True if both write the same tokens, False if the float model writes none.

    Raises:
        AssertionError: they write different ones.
    """
    if not (hasattr(model, "can_generate") and model.can_generate()):
        return False
    given = {k: v for k, v in inputs.items() if not k.startswith("decoder_") and k != "use_cache"}
    options = {"max_new_tokens": TOKENS, "min_new_tokens": TOKENS, "do_sample": False}
    try:
        torch.manual_seed(0)
        want = model.generate(**given, **options)
    except Exception:  # whatever it needs beside the inputs of a forward
        return False
    torch.manual_seed(0)
    got = tied.generate(**given, **options)
    want, got = (getattr(each, "sequences", each) for each in (want, got))
    if not torch.equal(want, got):
        raise AssertionError("it writes other tokens than the float model")
    return True
