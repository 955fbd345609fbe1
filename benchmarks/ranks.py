"""One matrix over several GPUs: by ranks of torch.distributed, and by devices of one process.

    python -m benchmarks.ranks --ranks 1 2 4 --json FILE

measures calls on Llama 3.2 1B's matrix (128256 × 2048, G = 32, random nibbles), whole calls with
tensors in and out, the median of many: an embedding, logits, argmax, and a token (the argmax of one
row and the embedding of its id, which is the matrix's part of a step of decoding).  Each rank uses
the adapter in the place that ``--adapters`` gives it (`wgpu_q4.request_device`), by default its own
number.  ``--torch cuda`` keeps the tensors on CUDA devices, where torch's NCCL exchanges them; on
the CPU it is gloo.  Runs with torch, numpy and wgpu.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

import wgpu_q4
from wgpu_q4 import Q4Weight
from wgpu_q4.device.adapter import adapter_summary, list_adapters
from wgpu_q4.nn.ranks.group import Ranks
from wgpu_q4.nn.ranks.modules import RankEmbedding, RankLinear
from wgpu_q4.nn.ranks.rows import RankRows

GROUP = 32
Calls = dict[str, Callable[[], Any]]


def main() -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--adapters", type=int, nargs="+", help="a place for each rank")
    parser.add_argument("--shape", type=int, nargs=2, default=[128256, 2048], metavar=("V", "K"))
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 16], help="rows of x")
    parser.add_argument("--ids", type=int, nargs="+", default=[1, 512])
    parser.add_argument("--seconds", type=float, default=1.0, help="for each call")
    cuda = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--torch", choices=["cpu", "cuda"], default=cuda, help="where tensors are")
    parser.add_argument("--json", type=Path, help="a file; else standard output")
    options = parser.parse_args()
    adapters = options.adapters or list(range(len(list_adapters())))
    results = []
    for count in options.ranks:
        if count > len(adapters):
            print(f"{count} ranks: left out, there are {len(adapters)} adapters", file=sys.stderr)
            continue
        for measure in (_of_ranks, _of_devices):
            found = measure(options, adapters[:count])
            results.append(found)
            print(_line(found), file=sys.stderr)
    about = {
        "command": "python -m benchmarks.ranks " + " ".join(sys.argv[1:]),
        "shape": options.shape,
        "group_size": GROUP,
        "torch": torch.__version__,
        "wgpu_q4": wgpu_q4.__version__,
        "cpus": os.cpu_count(),
        "system": platform.platform(),
    }
    text = json.dumps({**about, "results": results}, indent=1) + "\n"
    if options.json:
        options.json.write_text(text)
    else:
        print(text, end="")
    return 0


def _of_ranks(options: argparse.Namespace, adapters: Sequence[int]) -> dict[str, Any]:
    """Measure in a process for each adapter; the figures are the first rank's."""
    with tempfile.TemporaryDirectory() as folder:
        start: Any = mp.start_processes  # type: ignore[attr-defined]
        start(_rank, (options, adapters, folder), len(adapters), start_method="spawn")
        found: dict[str, Any] = json.loads((Path(folder) / "found.json").read_text())
        return found


def _rank(rank: int, options: argparse.Namespace, adapters: Sequence[int], folder: str) -> None:
    place = torch.device("cpu")
    if options.torch == "cuda":
        place = torch.device("cuda", rank % torch.cuda.device_count())
        torch.cuda.set_device(place)
    store = f"file://{folder}/store"
    # The backends by name: torch alone would choose that of CUDA, also for tensors on the CPU.
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, store, rank=rank, world_size=len(adapters))
    group = dist.group.WORLD
    device = wgpu_q4.request_device(adapters[rank])
    rows = RankRows(Ranks(group), _weight(*options.shape), device)
    embedding = RankEmbedding(rows, None, torch.float32)
    head = RankLinear(rows, None, "exact", torch.float32)
    calls = _calls(options, place, embedding, head, head.argmax)
    with torch.no_grad():
        times = {name: _time(call, options.seconds, group) for name, call in calls.items()}
    if rank == 0:
        found = _found("ranks", adapters, options, times)
        found["engine"] = dist.get_backend_config(group)
        found["bytes_of_a_rank"] = rows.nbytes
        (Path(folder) / "found.json").write_text(json.dumps(found))
    dist.barrier()
    dist.destroy_process_group()


def _of_devices(options: argparse.Namespace, adapters: Sequence[int]) -> dict[str, Any]:
    """Measure in this process, with a device of each adapter."""
    weight = _weight(*options.shape)
    devices: Any = [wgpu_q4.request_device(adapter) for adapter in adapters]
    device = devices if len(devices) > 1 else devices[0]

    def embedding(ids: torch.Tensor) -> torch.Tensor:
        return wgpu_q4.embedding(ids, weight, device=device)

    def head(x: torch.Tensor) -> torch.Tensor:
        return wgpu_q4.linear(x, weight, device=device)

    def argmax(x: torch.Tensor) -> torch.Tensor:
        return wgpu_q4.argmax(x, weight, device=device)

    calls = _calls(options, torch.device(options.torch), embedding, head, argmax)
    times = {name: _time(call, options.seconds, None) for name, call in calls.items()}
    return _found("devices", adapters, options, times)


def _weight(vocab: int, embed_dim: int) -> Q4Weight:
    """Random nibbles, and scales of about the size that a real matrix has."""
    rng = np.random.default_rng(0)
    packed = rng.integers(0, 256, (vocab, embed_dim // 2), np.uint8)
    return Q4Weight(packed, rng.uniform(0.001, 0.01, (vocab, embed_dim // GROUP)).astype("float16"))


def _calls(
    options: argparse.Namespace,
    place: torch.device,
    embedding: Callable[[torch.Tensor], torch.Tensor],
    head: Callable[[torch.Tensor], torch.Tensor],
    argmax: Callable[[torch.Tensor], torch.Tensor],
) -> Calls:
    vocab, embed_dim = options.shape
    draws = torch.Generator().manual_seed(0)
    calls: Calls = {}
    for size in options.ids:
        ids = torch.randint(vocab, (size,), generator=draws).to(place)
        calls[f"embedding, {size} ids"] = partial(embedding, ids)
    for size in options.rows:
        x = torch.randn(size, embed_dim, generator=draws).to(place)
        calls[f"logits, {size} rows"] = partial(head, x)
        calls[f"argmax, {size} rows"] = partial(argmax, x)
    one = torch.randn(1, embed_dim, generator=draws).to(place)
    calls["token"] = lambda: embedding(argmax(one))
    return calls


def _time(call: Callable[[], Any], seconds: float, group: Any) -> list[float]:
    """Return the times of a call, in seconds; all ranks make as many."""
    call()
    start = time.perf_counter()
    call()
    repeats = torch.tensor(max(5, int(seconds / (time.perf_counter() - start))))
    if group is not None:
        dist.broadcast(repeats, 0)  # on the CPU: torch has gloo beside NCCL
    times = []
    for _ in range(int(repeats)):
        start = time.perf_counter()
        call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return times


def _found(
    kind: str, adapters: Sequence[int], options: argparse.Namespace, times: dict[str, list[float]]
) -> dict[str, Any]:
    there = list_adapters()
    quartiles = {
        name: [round(1e6 * float(q), 1) for q in np.quantile(each, [0.25, 0.5, 0.75])]
        for name, each in times.items()
    }
    return {
        "by": kind,
        "count": len(adapters),
        "adapters": [adapter_summary(there[place]) for place in adapters],
        "tensors": options.torch,
        "microseconds (quartiles)": quartiles,
        "calls": {name: len(each) for name, each in times.items()},
    }


def _line(found: dict[str, Any]) -> str:
    times = "; ".join(f"{n} {q[1]:,.0f} µs" for n, q in found["microseconds (quartiles)"].items())
    return f"{found['count']} {found['by']}: {times}"


if __name__ == "__main__":
    sys.exit(main())
