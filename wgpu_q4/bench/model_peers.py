"""Others that run a whole model, where they are installed: llama.cpp and torch."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from wgpu_q4.bench.timing import Effort, time_calls
from wgpu_q4.errors import DeviceError

_MOST_SECONDS = 600.0
"""For a measurement: a slow library is measured fewer times."""


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


class NotMeasured(RuntimeError):
    """A library is not there, or doesn't read the model; the message says which, and the remedy."""


def llama_cpp(task: Task) -> PeerRates:
    """Measure llama.cpp, on the device that it chooses: by llama-bench, or in the package cyllama.

    Raises:
        NotMeasured: it is not installed, or reads no such model.
        DeviceError: it failed.
    """
    if task.model.is_dir():
        raise NotMeasured("llama.cpp reads GGUF files, and this is a folder")
    program = shutil.which("llama-bench")
    if program is not None:
        return _llama_bench(program, task)
    if find_spec("cyllama") is not None:
        return _cyllama(task)
    raise NotMeasured(
        "llama.cpp is not installed: put its llama-bench on the PATH, or pip install cyllama "
        "(for the processor) or cyllama-vulkan"
    )


def _llama_bench(program: str, task: Task) -> PeerRates:
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


def _cyllama(task: Task) -> PeerRates:
    """Measure llama.cpp in this process, with the calls that llama-bench makes."""
    llama: Any = import_module("cyllama.llama.llama_cpp")
    llama.disable_logging()
    llama.ggml_backend_load_all()
    options, sizes = llama.LlamaModelParams(), llama.LlamaContextParams()
    options.n_gpu_layers = 999
    sizes.n_ctx = sizes.n_batch = max(task.prompt, task.count)
    # One thread for each core, of which most processors run two.
    sizes.n_threads = sizes.n_threads_batch = max(1, (os.cpu_count() or 1) // 2)
    try:
        model = llama.LlamaModel(str(task.model), options, verbose=False)
        context = llama.LlamaContext(model, sizes, verbose=False)
    except (ValueError, RuntimeError) as error:
        raise DeviceError(f"cyllama failed: {error}") from error

    def decode(batches: int, length: int) -> None:
        context.kv_cache_clear()
        for number in range(batches):
            context.decode(llama.llama_batch_get_one([7] * length, number * length))
            context.synchronize()

    effort = Effort(task.repeats, _MOST_SECONDS)
    prefill = time_calls(lambda: decode(1, task.prompt), effort).median
    decoding = time_calls(lambda: decode(task.count, 1), effort).median
    where = ", ".join(device["description"] for device in llama.ggml_backend_dev_info())
    name = f"llama.cpp in cyllama {version('cyllama')}, threads: {sizes.n_threads}, {where}"
    return PeerRates(name, task.prompt / prefill, task.count / decoding)


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

    effort = Effort(task.repeats, _MOST_SECONDS)
    with torch.inference_mode():
        prefill = time_calls(lambda: generate(prompt, 1), effort).median
        decode = time_calls(lambda: generate(prompt[:, :1], task.count), effort).median
    where = torch.cuda.get_device_name() if on_gpu else f"{torch.get_num_threads()} threads"
    name = (
        f"transformers {version('transformers')}, torch {version('torch')}, eager, "
        f"{str(dtype).removeprefix('torch.')}, {where}"
    )
    return PeerRates(name, task.prompt / prefill, task.count / decode)


PEERS: dict[str, Callable[[Task], PeerRates]] = {"llama.cpp": llama_cpp, "torch": torch_eager}
