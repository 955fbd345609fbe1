"""The modules that `wgpu_q4.nn.tie` puts into a rank's model: `RankEmbedding` and `RankLinear`.

``state_dict()`` holds the rows of this rank: ``weight_packed``, ``weight_scales``, and
``weight_rows``, which says where they belong, ``[first row, end, V]``; once, under the first of the
tied modules.  A state dict of the whole matrix, from a model that was tied in one process, loads
too: each rank takes its rows of it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from wgpu_q4 import rich
from wgpu_q4.arrays import to_numpy
from wgpu_q4.errors import FormatError
from wgpu_q4.kernels import Accuracy
from wgpu_q4.nn.naming import dtype_name
from wgpu_q4.nn.ranks import torch_ops  # noqa: F401  registers the ops
from wgpu_q4.nn.ranks.rows import RankRows
from wgpu_q4.ops.top_k import TopK

MATRIX, PLACE = ("weight_packed", "weight_scales"), "weight_rows"
_OPS = torch.ops.wgpu_q4


class RankModule(nn.Module):
    """What both modules are: a place for the rows of this rank in a model and in state dicts.

    Attributes:
        rows: the rows, the same object in all modules that are tied.
        weight_packed: uint8 ``[rows of this rank, K/2]``, in the linear convention.
        weight_scales: ``[rows of this rank, K/G]``.
        weight_rows: int64 ``[first row, end, V]``.
    """

    _like: Tensor

    def __init__(self, rows: RankRows, dtype: torch.dtype) -> None:
        super().__init__()
        # An empty buffer has a dtype, and torch converts it with the rest of the model.
        self.register_buffer("_like", torch.empty(0, dtype=dtype), persistent=False)
        self.rows = rows
        for name, tensor in self._held().items():
            self.register_buffer(name, tensor)

    def __getattr__(self, name: str) -> Any:
        if name == "weight":
            own = self.rows.own
            raise AttributeError(
                f"{type(self).__name__} has no weight: this rank holds rows {own.start} to "
                f"{own.stop} of {self.rows.shape[0]}, in rows.weight"
            )
        return super().__getattr__(name)

    def leave_to_another(self) -> None:
        """Let another one of the tied modules name the rows in state dicts."""
        self._non_persistent_buffers_set.update((*MATRIX, PLACE))

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that the float matrix had, or to which the model was converted."""
        return self._like.dtype

    def _held(self) -> dict[str, Tensor]:
        rows = self.rows
        return dict(zip((*MATRIX, PLACE), (rows.packed, rows.scales, rows.place), strict=True))

    @contextmanager
    def _set_aside(self) -> Iterator[None]:
        """Leave torch the other buffers; afterwards these are those of `rows`."""
        held = self._held()
        for name in held:
            del self._buffers[name]
        try:
            yield
        finally:
            self._buffers.update(self._held())

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> RankModule:
        """Convert what a model's conversions concern: the matrix stays as it is, on the host."""
        with self._set_aside():
            super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Take the rows of this rank, out of its own state or that of the whole matrix."""
        names = [prefix + name for name in (*MATRIX, PLACE)]
        rest = {name: value for name, value in state_dict.items() if name not in names}
        with self._set_aside():
            super()._load_from_state_dict(
                *(rest, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)
            )
            packed, scales, place = (state_dict.get(name) for name in names)
            if packed is None or scales is None:
                if PLACE not in self._non_persistent_buffers_set:
                    missing_keys += [name for name in names[:2] if name not in state_dict]
                return
            try:
                self._take(to_numpy(packed, names[0]), to_numpy(scales, names[1]), place)
            except (FormatError, TypeError) as error:
                error_msgs.append(f"{names[0]} and {MATRIX[1]}: {error}")

    def _take(self, packed: Any, scales: Any, place: Tensor | None) -> None:
        """Hold the rows of a state dict.

        Raises:
            FormatError: they are not those of this rank, or no 4-bit matrix of this shape.
        """
        rows, vocab = self.rows, self.rows.shape[0]
        first, end = rows.own.start, rows.own.stop
        if place is None and len(packed) == len(scales) == vocab:
            packed, scales = packed[first:end], scales[first:end]
        elif place is None or place.tolist() != rows.place.tolist():
            found = f"{len(packed)} rows" if place is None else f"rows {place.tolist()}"
            raise FormatError(
                f"they hold {found}; rank {rows.ranks.rank} of {rows.ranks.count} takes its own "
                f"rows, {[first, end, vocab]}, or the whole matrix, without {PLACE}. A state dict "
                f"of ranks loads into as many ranks, each its own"
            )
        given = [(array.dtype.name, list(array.shape)) for array in (packed, scales)]
        held = [(dtype_name(held.dtype), list(held.shape)) for held in (rows.packed, rows.scales)]
        if given != held:
            raise FormatError(f"they are {given}; this {type(self).__name__} needs {held}")
        rows.put(packed, scales)

    def __deepcopy__(self, memo: dict[int, Any]) -> RankModule:
        memo[id(self.rows)] = self.rows  # a copied model keeps sharing the matrix
        memo.update({id(tensor): tensor for tensor in self._held().values()})
        copied = type(self).__new__(type(self))
        memo[id(self)] = copied
        copied.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return copied

    def _repr_html_(self) -> str:
        weight = self.rows.weight
        return rich.table(repr(self), weight.facts() if weight else [("rows here", "none")])

    def _sizes(self) -> str:
        (vocab, embed_dim), own = self.rows.shape, self.rows.own
        return f"{vocab}, {embed_dim}, rows {own.start} to {own.stop} here"


class RankEmbedding(RankModule):
    """Token embedding of a matrix whose rows the ranks share; all look up the same ids.

    Args:
        rows: those of this rank.
        embed_scale: multiplies every row after rounding, as in `wgpu_q4.nn.QuantizedEmbedding`.
        dtype: of the result.
    """

    embed_scale: Tensor | float | None

    def __init__(
        self, rows: RankRows, embed_scale: Tensor | float | None, dtype: torch.dtype
    ) -> None:
        super().__init__(rows, dtype)
        self.num_embeddings, self.embedding_dim = rows.shape
        if isinstance(embed_scale, Tensor):
            self.register_buffer("embed_scale", embed_scale.detach().clone(), persistent=False)
        else:
            self.embed_scale = embed_scale

    def forward(self, ids: Tensor) -> Tensor:
        """Rows ``ids.shape + (K,)`` in `dtype`: the same bits as one process.

        Raises:
            TypeError: ids that are not integers.
            IndexError: an id outside ``0..V−1``; the message names the first.
            RankError: another rank looks up other ids, or failed.
        """
        held = torch.float32 if self.dtype == torch.float64 else self.dtype
        result: Tensor = _OPS.embedding_of_ranks(ids, self.rows.key, held).to(self.dtype)
        scale = self.embed_scale
        if scale is None:
            return result
        return result * (scale.to(result) if isinstance(scale, Tensor) else scale)

    def extra_repr(self) -> str:
        return f"{self._sizes()}, dtype={dtype_name(self.dtype)}"


class RankLinear(RankModule):
    """Output head of a matrix whose rows the ranks share; all give the same x and get all logits.

    Args:
        rows: those of this rank.
        bias: ``[V]``, whole on each rank, or None.
        accuracy: as in `wgpu_q4.linear`.
        dtype: that of the float matrix; the result has the dtype of x.
    """

    bias: nn.Parameter | None

    def __init__(
        self, rows: RankRows, bias: nn.Parameter | None, accuracy: Accuracy, dtype: torch.dtype
    ) -> None:
        super().__init__(rows, dtype)
        self.accuracy: Accuracy = accuracy
        self.out_features, self.in_features = rows.shape
        if bias is not None:
            bias.requires_grad_(False)
        self.register_parameter("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        """``x @ W.T + bias``: ``[…, K]`` to ``[…, V]``, on every rank.

        Raises:
            TypeError, ValueError, DeviceError: as in `wgpu_q4.linear`.
            RankError: another rank failed.
        """
        bias = None if self.bias is None else _narrowed(self.bias)
        result: Tensor = _OPS.linear_of_ranks(_narrowed(x), bias, self.rows.key, self.accuracy)
        return result.to(x.dtype)

    @torch.no_grad()
    def argmax(self, x: Tensor) -> Tensor:
        """Return the id of the largest logit of each row, as `wgpu_q4.argmax` does.

        Only one candidate a rank is passed around.

        Args:
            x: ``[…, K]``, the same on all ranks.

        Returns:
            int64 ``x.shape[:-1]``.
        """
        return self.top_k(x, 1).ids[..., 0]

    @torch.no_grad()
    def top_k(self, x: Tensor, k: int) -> TopK[Tensor]:
        """Return the ``k`` largest logits of each row and their ids, as `wgpu_q4.top_k` does.

        Only ``k`` candidates a rank are passed around.

        Args:
            x: ``[…, K]``, the same on all ranks.
            k: how many, 1 to the smaller of V and 1024.

        Raises:
            TypeError, ValueError, DeviceError: as in `wgpu_q4.top_k`.
            RankError: another rank failed.
        """
        return self.rows.best(x, k, self.bias, self.accuracy)

    def extra_repr(self) -> str:
        accuracy = "" if self.accuracy == "exact" else f", accuracy={self.accuracy}"
        return f"{self._sizes()}, bias={self.bias is not None}{accuracy}"


def _narrowed(tensor: Tensor) -> Tensor:
    """float64 is computed in float32, as is everything here."""
    return tensor.float() if tensor.dtype == torch.float64 else tensor
