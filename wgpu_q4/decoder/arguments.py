"""The arguments of a decoder, checked before anything is computed."""

from __future__ import annotations

from collections.abc import Collection
from operator import index

from wgpu_q4.decoder.choose import Chooser
from wgpu_q4.decoder.weights import Weights
from wgpu_q4.ops.arguments import check_indices


def whole(name: str, value: object, least: int, most: int | None = None, why: str = "") -> int:
    """Return ``value``, an integer of any kind in ``least`` … ``most``.

    Args:
        name: of the argument.
        value: what was given.
        least, most: the range; None for no end.
        why: the reason for ``most``, after a comma.

    Raises:
        TypeError: no integer.
        ValueError: out of range.
    """
    try:
        number = index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{name} must be an integer, not {value!r}") from None
    if number < least or (most is not None and number > most):
        allowed = f"at least {least}" if most is None else f"in {least}..{most}"
        raise ValueError(f"{name} must be {allowed}{why}, not {number}")
    return number


def end_ids(given: Collection[int] | int, vocab: int) -> frozenset[int]:
    """Return the ids that end a text: one, or several in a list, a set, an array or a tensor.

    Raises:
        TypeError: something else.
        IndexError: an id outside the vocabulary.
    """
    listed = list(given) if isinstance(given, (set, frozenset)) else given
    return frozenset(check_indices(listed, vocab, "end_of_text").reshape(-1).tolist())


def check_weights(weights: object) -> None:
    """Raise `TypeError` unless ``weights`` are `Weights`."""
    if not isinstance(weights, Weights):
        raise TypeError(
            f"weights must be Weights, not {type(weights).__name__}: Decoder.from_hf(model) and "
            f"Decoder.from_gguf(path) read them"
        )


def check_chooser(chooser: object) -> None:
    """Raise `TypeError` unless ``chooser`` has the methods of a `Chooser`."""
    if isinstance(chooser, type) or not isinstance(chooser, Chooser):
        name = chooser.__name__ if isinstance(chooser, type) else type(chooser).__name__
        raise TypeError(
            f"chooser must have the methods of a Chooser, as Greedy() and Draw(Sampling(…)) do, "
            f"not be {name!r}"
        )
