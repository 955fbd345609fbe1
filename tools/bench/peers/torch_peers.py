"""torch on the same packed bytes, and on matrices that are not quantized.

torch runs on CUDA where it sees a GPU, else on the processor.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import cycle
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tools.bench.peers.base import Peer, Task, UnavailableError
from wgpu_q4 import Q4Weight
from wgpu_q4.bench.timing import Clock, Effort, Timing, time_calls

_WARM_UP_SECONDS = 0.2
_ROWS_AT_A_TIME = 8192


def unpacked_rows(packed: Tensor, scales: Tensor, ids: Tensor) -> Tensor:
    """Return rows ``[N, K]`` float32 of packed ``[V, K/2]``, linear convention."""
    picked = packed[ids]
    values = torch.stack([picked & 15, picked >> 4], dim=-1).view(ids.shape[0], -1).float() - 8
    grouped = values.view(ids.shape[0], scales.shape[1], -1)
    return (grouped * scales[ids].float().unsqueeze(-1)).view(ids.shape[0], -1)


class Eager(Peer):
    """The lookup by torch's own ops, one after the other."""

    who = "torch"

    def __init__(self, weight: Q4Weight, effort: Effort) -> None:
        self._effort = effort
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._shape = weight.shape
        self._packed = torch.from_numpy(np.array(weight.packed_as("linear"))).to(self._device)
        self._scales = torch.from_numpy(np.array(weight.scales)).to(self._device)

    def _gather(self) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        return unpacked_rows

    def embedding(self, ids: NDArray[np.int64]) -> Task:
        gather = self._gather()
        vocab, embed_dim = self._shape
        # The same number of ids, others each time, as in this package's own measurement.
        turns = [torch.from_numpy((ids + 97 * turn) % vocab).to(self._device) for turn in range(8)]
        scales = self._scales.shape[1] * self._scales.element_size()

        def run(chosen: Tensor) -> Tensor:
            with torch.no_grad():
                return gather(self._packed, self._scales, chosen)

        return Task(
            answer=lambda: run(turns[0]).cpu().numpy(),
            measure=lambda: _time([lambda c=c: run(c) for c in turns], self._effort),  # type: ignore[misc]
            clock=_clock(self._device),
            moved=_on_gpu(self._device, len(ids) * (8 + embed_dim // 2 + scales + 4 * embed_dim)),
            tolerance=1e-6,
            detail={"dtype": "float32", "device": self._device.type},
        )

    def close(self) -> None:
        del self._packed, self._scales
        _release()


class Compiled(Eager):
    """The lookup through torch.compile."""

    who = "torch.compile"

    def _gather(self) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        torch._dynamo.reset()  # it compiles a function for a few shapes only, then gives up
        compiled = torch.compile(unpacked_rows, dynamic=False)

        def gather(packed: Tensor, scales: Tensor, ids: Tensor) -> Tensor:
            try:
                return compiled(packed, scales, ids)
            except Exception as error:  # its own types differ from release to release
                text = str(error).strip() or type(error).__name__
                raise UnavailableError(f"torch.compile fails: {text.splitlines()[0]}") from error

        return gather


class Unquantized(Peer):
    """The product with a matrix that is not quantized."""

    who = "torch"
    dtype: torch.dtype

    def __init__(self, weight: Q4Weight, effort: Effort) -> None:
        self._effort = effort
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if self._device.type == "cpu" and self.dtype == torch.float16:
            raise UnavailableError("half precision on the processor is no way to run a model")
        vocab, embed_dim = weight.shape
        packed = torch.from_numpy(np.array(weight.packed_as("linear"))).to(self._device)
        scales = torch.from_numpy(np.array(weight.scales)).to(self._device)
        try:
            self._matrix = torch.empty(vocab, embed_dim, dtype=self.dtype, device=self._device)
        except RuntimeError as error:
            raise UnavailableError(f"the matrix does not fit: {error}") from error
        for start in range(0, vocab, _ROWS_AT_A_TIME):
            ids = torch.arange(start, min(start + _ROWS_AT_A_TIME, vocab), device=self._device)
            self._matrix[ids] = unpacked_rows(packed, scales, ids).to(self.dtype)

    def linear(self, x: NDArray[np.float32]) -> Task:
        given = torch.from_numpy(x).to(self._device, self.dtype)
        matrix = self._matrix
        size = matrix.element_size()
        vocab, embed_dim = matrix.shape

        def run() -> Tensor:
            with torch.no_grad():
                return given @ matrix.T

        half = self.dtype == torch.float16
        return Task(
            answer=lambda: run().float().cpu().numpy(),
            measure=lambda: _time([run], self._effort),
            clock=_clock(self._device),
            moved=_on_gpu(self._device, size * (vocab * embed_dim + len(x) * (embed_dim + vocab))),
            tolerance=1e-2 if half else 1e-5,
            detail={
                "dtype": str(self.dtype).removeprefix("torch."),
                "accuracy": "not quantized",
                "device": self._device.type,
            },
        )

    def close(self) -> None:
        del self._matrix
        _release()


class UnquantizedFloat(Unquantized):
    """The product in float32."""

    dtype = torch.float32


class UnquantizedHalf(Unquantized):
    """The product in float16, on matrix units where the GPU has them."""

    dtype = torch.float16


def _on_gpu(device: torch.device, nbytes: int) -> int:
    """Return ``nbytes``, or 0 if the job does not run in the memory of the measured GPU."""
    return nbytes if device.type == "cuda" else 0


def _clock(device: torch.device) -> Clock:
    return "events" if device.type == "cuda" else "calls"


def _time(calls: Sequence[Callable[[], object]], effort: Effort) -> Timing:
    """Return the seconds of calls that take turns; on CUDA there is no pause between them."""
    turns = cycle(calls)
    if not torch.cuda.is_available():
        return time_calls(lambda: next(turns)(), effort)
    cuda: Any = torch.cuda
    end = time.monotonic() + _WARM_UP_SECONDS
    while time.monotonic() < end:
        next(turns)()
        cuda.synchronize()
    marks = [cuda.Event(enable_timing=True) for _ in range(2 * effort.repeats)]
    for start, stop in zip(marks[0::2], marks[1::2], strict=True):
        call = next(turns)
        start.record()
        call()
        stop.record()
    cuda.synchronize()
    seconds = [
        start.elapsed_time(stop) * 1e-3
        for start, stop in zip(marks[0::2], marks[1::2], strict=True)
    ]
    return Timing.of(seconds)


def _release() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
