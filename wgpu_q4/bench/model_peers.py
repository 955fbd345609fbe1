"""Others that run a whole model, where they are installed: llama.cpp and torch."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from wgpu_q4.errors import DeviceError


@dataclass(frozen=True)
class Task:
    """What is measured.

    Attributes:
        model: a GGUF file, or a folder of Hugging Face's.
        prompt: ids of the prompt that prefill is measured on.
        count: ids that are generated behind one.
        repeats: the number of measurements, of which the median counts.
    """

    model: Path
    prompt: int
    count: int
    repeats: int


@dataclass(frozen=True)
class PeerRates:
    """Ids a second of another library.

    Attributes:
        name: of the library, its version, and where it ran.
        prefill, decode: as in `wgpu_q4.bench.model.Rates`.
    """

    name: str
    prefill: float
    decode: float


class NotMeasured(Exception):
    """A library is not there, or doesn't read the model; the message says which, and the remedy."""


def llama_cpp(task: Task) -> PeerRates:
    """Measure llama.cpp by its own ``llama-bench``, on the device that it chooses.

    Raises:
        NotMeasured: it is not installed, or reads no such model.
        DeviceError: it failed.
    """
    if task.model.is_dir():
        raise NotMeasured("llama.cpp reads GGUF files, and this is a folder")
    program = shutil.which("llama-bench")
    if program is None:
        raise NotMeasured("llama.cpp is not installed: put its llama-bench on the PATH")
    numbers = {"-p": task.prompt, "-n": task.count, "-r": task.repeats}
    command = [program, "-m", str(task.model), "-o", "json"]
    for option, number in numbers.items():
        command += [option, str(number)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
        raise DeviceError(f"llama-bench failed with status {done.returncode}: {last}")
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    (prefill,) = (row for row in rows if row["n_prompt"] and not row["n_gen"])
    (decode,) = (row for row in rows if row["n_gen"] and not row["n_prompt"])
    where = decode.get("gpu_info") or decode["cpu_info"]
    backend = decode.get("backends", "backend not named")
    name = f"llama.cpp {decode['build_number']} ({decode['build_commit']}), {backend}, {where}"
    return PeerRates(name, float(prefill["avg_ts"]), float(decode["avg_ts"]))


def torch_eager(task: Task) -> PeerRates:
    """Measure transformers' model in torch: bfloat16 on a GPU, float32 on the processor.

    Raises:
        NotMeasured: torch or transformers is not installed.
    """
    missing = [name for name in ("torch", "transformers") if find_spec(name) is None]
    if missing:
        raise NotMeasured(f"{' and '.join(missing)} not installed: pip install 'wgpu_q4[hf]'")
    import torch
    from transformers import AutoModelForCausalLM

    on_gpu = torch.cuda.is_available()
    device, dtype = ("cuda", torch.bfloat16) if on_gpu else ("cpu", torch.float32)
    source = {"pretrained_model_name_or_path": str(task.model)}
    if task.model.is_file():
        source = {
            "pretrained_model_name_or_path": str(task.model.parent),
            "gguf_file": task.model.name,
        }
    model: Any = AutoModelForCausalLM.from_pretrained(**source, dtype=dtype)
    model = model.eval().to(device)
    ids = np.random.default_rng(3).integers(0, model.config.vocab_size, (1, task.prompt))
    prompt = torch.from_numpy(ids).to(device)

    def generate(given: Any, count: int) -> None:
        cache = None
        for _ in range(count):
            output = model(input_ids=given, past_key_values=cache, use_cache=True, logits_to_keep=1)
            cache = output.past_key_values
            given = output.logits[:, -1].argmax(dim=-1, keepdim=True)
        given.cpu()  # waits

    def seconds(call: Callable[[], None]) -> float:
        call()
        times = []
        for _ in range(task.repeats):
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
        return median(times)

    with torch.inference_mode():
        prefill = seconds(lambda: generate(prompt, 1))
        decode = seconds(lambda: generate(prompt[:, :1], task.count))
    where = torch.cuda.get_device_name() if on_gpu else f"{torch.get_num_threads()} threads"
    name = (
        f"transformers {version('transformers')}, torch {version('torch')}, eager, "
        f"{str(dtype).removeprefix('torch.')}, {where}"
    )
    return PeerRates(name, task.prompt / prefill, task.count / decode)


PEERS: dict[str, Callable[[Task], PeerRates]] = {"llama.cpp": llama_cpp, "torch": torch_eager}
