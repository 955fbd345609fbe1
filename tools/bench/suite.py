"""The jobs that are measured, in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, get_args

import numpy as np

from tools.bench.peers import PEERS, Peer, UnavailableError, check, make
from tools.bench.transfers import Transfers
from wgpu_q4 import Q4Weight
from wgpu_q4.bench import accounting
from wgpu_q4.bench.calls import Calls
from wgpu_q4.bench.jobs import Jobs, random_weight
from wgpu_q4.bench.result import Result
from wgpu_q4.bench.timing import DeviceTimer, Effort
from wgpu_q4.kernels import DEFAULT_LAYOUT, Accuracy, Layout, MatrixShape, OutputDtype

LAYOUTS: tuple[Layout, ...] = ("rows", "blocks_buffer")
NARROW_VOCAB = 32768
"""V where K varies: with 8192 columns the matrix is as large as the first default matrix."""

MANY_IDS = 16384
"""The most ids that are looked up where V and K vary."""

ACCURACIES: tuple[Accuracy, ...] = get_args(Accuracy)
OUTPUTS: tuple[OutputDtype, ...] = ("float32", "float16")


@dataclass(frozen=True)
class Selection:
    """What to measure.

    Attributes:
        shape: the shape of the matrix.
        ids: numbers of ids to look up.
        rows: numbers of rows of x to multiply.
        layouts: of the weight on the device.
        accuracies: of products.
        vocabs: further V to measure at the same K.
        embed_dims: further K to measure at a V that keeps the matrix small.
        peers: names of peers.
    """

    shape: MatrixShape
    ids: tuple[int, ...]
    rows: tuple[int, ...]
    layouts: tuple[Layout, ...] = LAYOUTS
    accuracies: tuple[Accuracy, ...] = ACCURACIES
    vocabs: tuple[int, ...] = ()
    embed_dims: tuple[int, ...] = ()
    peers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Step:
    """One job that is still to do.

    Attributes:
        title: what the progress shows while the job runs.
        run: measures the job; raises ValueError, DeviceError or UnavailableError if it cannot.
        series: a name that jobs share if they differ in size alone.
        cost: the time of the jobs of a series is in proportion to this.
    """

    title: str
    run: Callable[[], Result]
    series: str
    cost: float


def steps(timer: DeviceTimer, selection: Selection) -> list[Step]:
    """Return all jobs of a selection; peers come last, because their threads would disturb."""
    weight = random_weight(selection.shape)
    jobs = Jobs(timer, weight)
    return [
        *_kernels(jobs, selection),
        *_sweeps(timer, selection),
        *_calls(Calls(timer.context, weight, timer.effort), jobs, selection),
        *_peers(weight, selection, timer.effort),
    ]


def _kernels(jobs: Jobs, selection: Selection) -> Iterator[Step]:
    shape, effort = selection.shape, jobs.timer.effort
    for layout in selection.layouts:
        for output in OUTPUTS:
            for ids in sorted(selection.ids):
                yield Step(
                    f"embedding of {ids} ids, {layout}, {output}",
                    partial(jobs.embedding, ids, layout, output),
                    f"embedding {layout} {output}",
                    ids,
                )
    for layout in selection.layouts:
        for accuracy in selection.accuracies:
            for rows in sorted(selection.rows):
                if accuracy in jobs.accuracies(rows, layout):  # else another's kernel is used
                    yield Step(
                        f"linear, M={rows}, {layout}, {accuracy}",
                        partial(jobs.linear, rows, layout, accuracy),
                        f"linear {layout} {accuracy}",
                        rows,
                    )
    transfers = Transfers(jobs)
    if any(layout.startswith("blocks") for layout in selection.layouts):
        yield Step("rows to blocks", partial(transfers.pack, "blocks_buffer"), "pack", 1)
    yield Step("upload", partial(transfers.upload, effort), "upload", 1)
    for nbytes in (4, 4 * shape.vocab, 64 * 4 * shape.vocab):
        yield Step(
            f"readback of {nbytes:,} bytes",
            partial(transfers.readback, nbytes, effort),
            "readback",
            nbytes,
        )


def _sweeps(timer: DeviceTimer, selection: Selection) -> Iterator[Step]:
    """Yield the main jobs over other V and K, to see how their times grow."""
    base = selection.shape
    narrow = replace(base, vocab=min(base.vocab, NARROW_VOCAB))
    shapes = [replace(base, vocab=vocab) for vocab in selection.vocabs]
    shapes += [replace(narrow, embed_dim=embed_dim) for embed_dim in selection.embed_dims]
    ids = max(n for n in (*selection.ids, 1) if n <= MANY_IDS)
    for shape in dict.fromkeys(shapes):
        made = _Made(timer, shape)
        size = f"{shape.vocab}×{shape.embed_dim}"
        yield Step(
            f"embedding of {ids} ids of {size}",
            partial(made.embedding, ids),
            "embedding over shapes",
            shape.embed_dim * ids,
        )
        for rows in (1, 128):
            yield Step(
                f"linear, M={rows}, of {size}",
                partial(made.linear, rows, last=rows == 128),
                f"linear over shapes {rows}",
                shape.vocab * shape.embed_dim * rows,
            )


class _Made:
    """The jobs on one more matrix, which is made for the first job and freed after the last."""

    def __init__(self, timer: DeviceTimer, shape: MatrixShape) -> None:
        self._timer = timer
        self._shape = shape
        self._jobs: Jobs | None = None

    def _made(self) -> Jobs:
        if self._jobs is None:
            self._jobs = Jobs(self._timer, random_weight(self._shape))
        return self._jobs

    def embedding(self, ids: int) -> Result:
        return self._made().embedding(ids, "rows", "float32")

    def linear(self, rows: int, last: bool) -> Result:
        try:
            return self._made().linear(rows, "rows")
        finally:
            if last:
                self._jobs = None


def _calls(calls: Calls, jobs: Jobs, selection: Selection) -> Iterator[Step]:
    for ids in sorted({1, *selection.ids}):
        yield Step(f"embedding() of {ids} ids", partial(calls.embedding, ids), "embedding()", ids)
    for accuracy in selection.accuracies:
        for rows in sorted({1, *(rows for rows in selection.rows if rows <= 128)}):
            if accuracy in jobs.accuracies(rows, DEFAULT_LAYOUT):
                yield Step(
                    f"linear(), M={rows}, {accuracy}",
                    partial(calls.linear, rows, accuracy),
                    f"linear() {accuracy}",
                    rows,
                )
        if accuracy in jobs.accuracies(1, DEFAULT_LAYOUT):
            yield Step(
                f"linear() with argmax, M=1, {accuracy}",
                partial(calls.argmax, 1, accuracy),
                f"linear() with argmax {accuracy}",
                1,
            )


def _peers(weight: Q4Weight, selection: Selection, effort: Effort) -> Iterator[Step]:
    random = np.random.default_rng(1)
    vocab, embed_dim = weight.shape
    for name in selection.peers:
        made: dict[str, Peer] = {}
        *_, ops = PEERS[name]
        jobs = [
            (op, size)
            for op in ops
            for size in sorted(getattr(selection, _SIZES[op]))
            if size >= _COMPILED_FROM or name != "torch.compile"
        ]
        for number, (op, size) in enumerate(jobs):

            def run(
                name: str = name,
                made: dict[str, Peer] = made,
                op: str = op,
                size: int = size,
                last: bool = number == len(jobs) - 1,
            ) -> Result:
                given: Any = (
                    random.integers(0, vocab, size)
                    if op == "embedding"
                    else random.standard_normal((size, embed_dim), dtype=np.float32)
                )
                try:
                    if name not in made:
                        made[name] = make(name, weight, effort)
                    return measure_peer(made[name], op, given, weight)
                finally:
                    if last and name in made:
                        made.pop(name).close()

            yield Step(f"{name}: {op}, {size}", run, f"{name} {op}", size)


_COMPILED_FROM = 1024
"""Ids from which torch.compile is measured.  It compiles for seconds for each number of ids; with
fewer ids the time is that of starting a kernel."""

_SIZES = {"embedding": "ids", "linear": "rows"}


def measure_peer(peer: Peer, op: str, given: Any, weight: Q4Weight) -> Result:
    """Return the result of one job of a peer; the peer's answer is checked first.

    Raises:
        UnavailableError: the peer has no such job, fails, or computes something else.
    """
    try:
        task = getattr(peer, op)(given)
        check(task, op, given, weight)
        timing = task.measure()
    except UnavailableError:
        raise
    except Exception as error:  # of any type: it is somebody else's code
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise UnavailableError(f"it fails at {op}, {len(given)}: {lines[0][:200]}") from error
    vocab, embed_dim = weight.shape
    shape = MatrixShape(
        vocab,
        embed_dim,
        weight.group_size,
        "float16" if weight.scales.dtype == np.float16 else "float32",
    )
    flops = accounting.linear_flops(shape, len(given)) if op == "linear" else 0
    return Result(
        peer.who,
        op,
        len(given),
        timing,
        task.clock,
        shape,
        task.detail,
        task.moved,
        flops,
    )


__all__ = ["LAYOUTS", "OUTPUTS", "Selection", "Step", "UnavailableError", "measure_peer", "steps"]
