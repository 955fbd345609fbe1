"""The rows of a matrix that one rank holds, and what the ranks compute together.

All ranks call a method alike: with the same ids, or with the same x.
"""

from __future__ import annotations

import zlib
from itertools import count
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wgpu_q4 import ops
from wgpu_q4.errors import RankError
from wgpu_q4.format import repack
from wgpu_q4.kernels import Accuracy
from wgpu_q4.nn.ranks.group import Ranks
from wgpu_q4.ops.arguments import check_indices
from wgpu_q4.ops.shares import best_of_all, share_out
from wgpu_q4.ops.top_k import TopK, check_k
from wgpu_q4.weight import Q4Weight

_numbers = count()
_live: WeakValueDictionary[str, RankRows] = WeakValueDictionary()


class RankRows:
    """The rows of a matrix ``[V, K]`` that this rank holds.

    Attributes:
        ranks: the process group.
        shape: ``(V, K)`` of the whole matrix.
        every: the rows of each rank.
        own: the rows of this one; there may be none.
        place: int64 ``[first own row, end, V]``.
        weight: the own rows; None if there are none.
        packed, scales: tensors on the memory of ``weight``; of no rows, empty ones.
        device: where they are read, as in `wgpu_q4.embedding`.
        key: the text that stands for this object in a graph.
    """

    def __init__(self, ranks: Ranks, weight: Q4Weight, device: Any) -> None:
        self.ranks, self.shape, self.device = ranks, weight.shape, device
        self.every = share_out(weight.shape[0], ranks.count)
        self.own = self.every[ranks.rank]
        self.place = torch.tensor([self.own.start, self.own.stop, weight.shape[0]])
        own = slice(self.own.start, self.own.stop)
        packed = repack(weight.packed[own], weight.convention, "linear")
        self.put(packed, weight.unchecked_scales[own])
        self.key = f"<rows {next(_numbers)}>"
        _live[self.key] = self

    def put(self, packed: NDArray[np.uint8], scales: NDArray[Any]) -> None:
        """Hold a copy of these rows, in the linear convention, from now on.

        Raises:
            FormatError: what `Q4Weight` refuses.
        """
        packed, scales = packed.copy(), scales.copy()
        self.weight = Q4Weight(packed, scales) if self.own else None
        self.packed, self.scales = torch.from_numpy(packed), torch.from_numpy(scales)

    @property
    def nbytes(self) -> int:
        """Bytes of the packed values and the scales of this rank."""
        return self.packed.nbytes + self.scales.nbytes

    def look_up(self, ids: Tensor, dtype: torch.dtype) -> Tensor:
        """Return the rows ``ids.shape + (K,)``, the same bits as one process.

        Args:
            ids: any integer dtype and shape.
            dtype: of the result, float16, bfloat16 or float32.
        """
        embed_dim = self.shape[1]
        width = embed_dim * dtype.itemsize // 4  # in words: K is a multiple of 8
        words = torch.zeros(ids.numel() * width + 2, dtype=torch.int32)
        mark = 0

        def fill(mine: Tensor) -> None:
            nonlocal mark
            given = check_indices(ids, self.shape[0]).reshape(-1)
            mark = zlib.crc32(given.tobytes()) & 0xFFFF  # of all ranks they fit into 31 bits
            mine[-1] = mark
            is_own = (given >= self.own.start) & (given < self.own.stop)
            if self.weight is not None and is_own.any():
                output = "float16" if dtype == torch.float16 else "float32"
                found: Tensor = ops.embedding(
                    torch.from_numpy(given[is_own] - self.own.start),
                    *(self.weight, output, self.device),
                )
                rows = found.to(dtype).view(torch.int32)
                mine[:-1].view(-1, width)[torch.from_numpy(is_own)] = rows

        # Words are added, not floats, so that −0 stays: all ranks but one add 0.
        total = self.ranks.add(words, fill, ids.device)
        if total[-1].item() != mark * self.ranks.count:
            raise RankError(
                f"the ranks look up different ids; those of rank {self.ranks.rank} are of shape "
                f"{list(ids.shape)}. All ranks must read the same text"
            )
        return total[:-1].view(dtype).view(*ids.shape, embed_dim)

    def multiply(self, x: Tensor, bias: Tensor | None, accuracy: Accuracy) -> Tensor:
        """Return the logits ``x.shape[:-1] + (V,)`` of all ranks, in the dtype of ``x``."""
        rows, largest = x.shape[:-1].numel(), len(self.every[0])
        nbytes = rows * largest * x.element_size()
        padded = nbytes + -nbytes % 8

        def fill(mine: Tensor) -> None:
            if self.weight is None:
                return
            added = self._of_bias(bias)
            logits = ops.linear(x.cpu(), self.weight, added, self.device, accuracy=accuracy)
            place = mine[:nbytes].view(x.dtype).view(rows, largest)
            place[:, : len(self.own)] = logits.reshape(rows, -1)

        every = self.ranks.gather(padded, fill, x.device)
        result = x.new_empty((rows, self.shape[0]))
        for held, of_rank in zip(self.every, every, strict=True):
            part = of_rank[:nbytes].view(x.dtype).view(rows, largest)
            result[:, held.start : held.stop] = part[:, : len(held)]
        return result.view(*x.shape[:-1], self.shape[0])

    def multiply_transposed(self, y: Tensor) -> Tensor:
        """Return ``y @ W``: ``[…, V]`` to ``[…, K]``, summed in float32, in the dtype of ``y``."""
        rows, embed_dim = y.shape[:-1].numel(), self.shape[1]

        def fill(mine: Tensor) -> None:
            if self.weight is not None:
                own = y[..., self.own.start : self.own.stop].cpu().float()
                product = ops.linear_transposed(own, self.weight, self.device)
                mine.copy_(product.reshape(-1))

        total = self.ranks.add(torch.zeros(rows * embed_dim + 1), fill, y.device)
        return total.to(y.dtype).view(*y.shape[:-1], embed_dim)

    def best(self, x: Tensor, k: int, bias: Tensor | None, accuracy: Accuracy) -> TopK[Tensor]:
        """Return the ``k`` largest logits of each row, of all ranks, and their ids."""
        vocab = self.shape[0]
        kept = check_k(k, vocab)
        rows, each = x.shape[:-1].numel(), min(kept, len(self.every[0]))
        candidates = rows * each

        def fill(mine: Tensor) -> None:
            values, ids = mine.view(torch.int32).view(2, rows, each).numpy()
            ids.fill(-1)
            if self.weight is None:
                return
            own = min(kept, len(self.own))
            added = self._of_bias(bias)
            # float32: what one process compares, whatever the dtype of x.
            given = x.cpu().float(), self.weight, own, added
            found = ops.top_k(*given, self.device, accuracy=accuracy)
            values[:, :own] = found.values.numpy().reshape(rows, own).view(np.int32)
            ids[:, :own] = found.ids.numpy().reshape(rows, own) + self.own.start

        every = self.ranks.gather(candidates * 8, fill, x.device).cpu().contiguous()
        words = every.numpy().view(np.int32).reshape(-1, 2, rows, each)
        by_row: NDArray[np.int32] = words.transpose(1, 2, 0, 3).reshape(2, rows, -1)
        values, ids = best_of_all(by_row[0].view(np.float32), by_row[1], kept)
        shape = *x.shape[:-1], kept
        return TopK(
            torch.from_numpy(values).to(x.device, x.dtype).view(shape),
            torch.from_numpy(ids).to(x.device).view(shape),
        )

    def _of_bias(self, bias: Tensor | None) -> Tensor | None:
        return None if bias is None else bias[self.own.start : self.own.stop].cpu()


def rows_of(key: str) -> RankRows:
    """Return the rows that a key stands for.

    Raises:
        RankError: they are gone, or of another process.
    """
    rows = _live.get(key)
    if rows is None:
        raise RankError("a graph reads the rows of a model that is gone, or of another process")
    return rows
