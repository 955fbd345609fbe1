"""SmolLM2 with both ends on the device and its layers in torch: one matrix, read twice.

`wgpu_q4.nn.tie` quantizes the matrix that the model looks tokens up in and scores tokens with, and
puts it into one buffer on the device, from which both uses read; the layers between stay in torch.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demo_terminal import progress, streamer, verdict

from wgpu_q4 import device_info, kernel_for

if TYPE_CHECKING:
    from torch import Tensor

    from wgpu_q4 import Q4Weight
    from wgpu_q4.nn import TieReport

LOADING = {
    "libraries": 5,
    "tokenizer": 8,
    "configuration": 5,
    "weights": 15,
    "4-bit matrix": 1,
    "kernels": 3,
}
"""The steps of loading, with their share of its time (transformers reads the file in each)."""


def answer(arguments: argparse.Namespace, model_file: Path) -> int:
    """Answer, report and, if asked to, compare; return the exit status."""
    with progress(LOADING) as begin:
        begin("libraries")
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

        from wgpu_q4.nn import tie

        info = device_info(arguments.adapter)  # a wrong name fails here, not after loading
        source: dict[str, Any] = {
            "pretrained_model_name_or_path": str(model_file.parent),
            "gguf_file": model_file.name,
        }
        begin("tokenizer")
        tokenizer: Any = AutoTokenizer.from_pretrained(**source)
        begin("configuration")
        config = AutoConfig.from_pretrained(**source)
        begin("weights")
        model: Any = AutoModelForCausalLM.from_pretrained(
            **source, config=config, dtype=torch.float32
        )
        model.eval()
        begin("4-bit matrix")
        report = tie(
            model, arguments.group_size, device=arguments.adapter, accuracy=arguments.accuracy
        )
        begin("kernels")
        prompt = tokenizer.apply_chat_template(
            [{"role": "user", "content": arguments.prompt}],
            add_generation_prompt=True,
            return_tensors="pt",
        )["input_ids"]
        generate(model, prompt, 2)  # uploads and compiles, which is not to be timed

    print(f"> {arguments.prompt}\n")
    watch = Stopwatch(model)
    generated = generate(model, prompt, arguments.max_new_tokens, streamer(tokenizer))
    watch.stop()

    software = "software: runs on the processor" if info.software else "a GPU"
    kernel = kernel_for(report.weight, device=arguments.adapter, accuracy=arguments.accuracy)
    held = sum(resident.nbytes for resident in report.weight.residents)
    tokens = len(generated)
    print(f"\nadapter         {info.adapter}; {software}")
    print(f"tied matrix     {held:,} bytes on the device, read by {' and '.join(report.replaced)}")
    print(f"head            accuracy {arguments.accuracy}, kernel {kernel}")
    print(
        f"saved           {report.bytes_saved:,} bytes against {report.bytes_before:,} of float32, "
        f"{report.bytes_after:,} against two 4-bit copies"
    )
    print(
        f"speed           {tokens / watch.total:.1f} tokens/s: {tokens} tokens in "
        f"{watch.total:.2f} s, with the prompt of {prompt.shape[1]}"
    )
    print(f"time            {watch.split()}")
    print(
        f"both ends       {both_ends(arguments.adapter, report.weight, arguments.accuracy, watch)}"
    )
    return 0 if not arguments.compare or compare(model, report, prompt, generated) else 1


def generate(model: Any, prompt: Tensor, max_new_tokens: int, stream: Any = None) -> Tensor:
    """Greedy decoding with a key-value cache.

    Args:
        model: a causal LM.
        prompt: ids ``[1, T]``.
        max_new_tokens: stop after so many, or at the model's end-of-text token.
        stream: gets each id by ``put`` as soon as it is known.

    Returns:
        The new ids ``[N]``, an end-of-text token included.
    """
    import torch

    ends = model.generation_config.eos_token_id
    ends = {ends} if isinstance(ends, int) else set(ends or ())
    ids, cache, generated = prompt, None, []
    with torch.inference_mode():
        for _ in range(max_new_tokens):
            output = model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
            cache = output.past_key_values
            ids = output.logits[:, -1].argmax(dim=-1, keepdim=True)
            generated.append(ids[0])
            if stream is not None:
                stream.put(ids[0])
            if int(ids) in ends:
                break
    if stream is not None:
        stream.end()
    return torch.cat(generated)


def compare(model: Any, report: TieReport, prompt: Tensor, generated: Tensor) -> bool:
    """Whether plain torch, with the dequantized matrix in both places, agrees; says how closely.

    Both models read the prompt and the generated tokens, so that a difference cannot grow from one
    token to the next.  The hidden states must be the same bits: rows of the embedding are exact,
    and the layers are the same code.  A logit is then a float32 sum of K products in some order,
    which differs from the exact sum by at most ``n·u / (1 − n·u) · Σ|x·w|``, with ``u = 2⁻²⁴`` and
    n = K + 1 roundings (the one more is for the scale); two such sums differ by at most twice that.
    """
    import torch
    from torch import nn

    head: Any = model.get_output_embeddings()
    rounded, head.accuracy = head.accuracy, "exact"
    if rounded != "exact":  # the rest is about the kernels, and compares the exact one
        exact = generate(model, prompt, len(generated))
        unchanged = int((exact[: len(generated)] == generated[: len(exact)]).sum())
        print(
            f"\ntext, {rounded:<9} {'unchanged' if torch.equal(exact, generated) else 'changed'} "
            f"against exact: {unchanged} of {len(generated)} tokens"
        )
        generated = exact
    sequence = torch.cat([prompt, generated[None, :-1]], dim=1)
    ours = read(model, sequence, len(generated))

    vocab, embed_dim = report.weight.shape
    matrix = torch.from_numpy(report.weight.dequantize())
    embedding = nn.Embedding(vocab, embed_dim, device="meta")
    plain = nn.Linear(embed_dim, vocab, bias=False, device="meta")
    embedding.weight = plain.weight = nn.Parameter(matrix, requires_grad=False)
    model.set_input_embeddings(embedding)
    model.set_output_embeddings(plain)
    theirs = read(model, sequence, len(generated))
    text = generate(model, prompt, len(generated))

    same_text = torch.equal(text, generated)
    agreeing = int((text[: len(generated)] == generated[: len(text)]).sum())
    same_hidden = torch.equal(ours.hidden, theirs.hidden)
    top = torch.cat([theirs.logits.topk(5).indices, ours.logits.topk(5).indices], dim=-1)
    difference = (ours.logits.gather(-1, top) - theirs.logits.gather(-1, top)).abs()
    roundings = (embed_dim + 1) * 2.0**-24
    magnitudes = (theirs.hidden.abs() @ matrix.abs().T).gather(-1, top)
    tolerance = 2 * roundings / (1 - roundings) * magnitudes
    close = bool((difference <= tolerance).all())

    print("\ncompare with plain torch on the same 4-bit numbers, as a float32 matrix used twice")
    print(f"text            {verdict(same_text)}: {agreeing} of {len(generated)} tokens")
    print(f"hidden states   {verdict(same_hidden)}: bit for bit, {len(generated)} positions")
    print(
        f"top-5 logits    {verdict(close)}: at most {float(difference.max()):.1e} apart; "
        f"two float32 sums of {embed_dim} products may be "
        f"{float(tolerance.min()):.1e} to {float(tolerance.max()):.1e}"
    )
    return same_text and same_hidden and close


@dataclass
class Read:
    """The head's input and output at the positions that predict the generated tokens."""

    hidden: Tensor
    logits: Tensor


def read(model: Any, sequence: Tensor, positions: int) -> Read:
    """One pass over ``sequence`` ``[1, T]``, without a cache."""
    import torch

    inputs: list[Tensor] = []
    hook = model.get_output_embeddings().register_forward_pre_hook(
        lambda _, arguments: inputs.append(arguments[0])
    )
    with torch.inference_mode():
        logits = model(input_ids=sequence, use_cache=False, logits_to_keep=positions).logits
    hook.remove()
    return Read(inputs[0][0], logits[0])


def both_ends(device: Any, weight: Q4Weight, accuracy: Any, watch: Stopwatch) -> str:
    """How much of the embedding's and the head's time the kernels take, and how much the host.

    The kernels are timed by themselves, on as many ids and rows as there were in each call; what is
    left of a call is Python, the driver, and the way of the results.
    """
    from wgpu_q4.bench.jobs import Jobs
    from wgpu_q4.bench.timing import DeviceTimer, Effort
    from wgpu_q4.device import context_for

    timer = DeviceTimer(context_for(device), Effort(repeats=16, seconds=0.2))
    if timer.clock != "timestamps":
        return f"wall clock only: {timer.why}"
    jobs = Jobs(timer, weight)
    kernels = 0.0
    for ids, calls in watch.calls["embedding"].items():
        kernels += calls * jobs.embedding(ids).timing.median
    for rows, calls in watch.calls["head"].items():
        kernels += calls * jobs.linear(rows, accuracy=accuracy, cached=True).timing.median
    ends = watch.seconds["embedding"] + watch.seconds["head"]
    kernels = min(kernels, ends)  # two measurements; the second one may have been disturbed
    host = ends - kernels
    return f"kernels {kernels:.2f} s, host {host:.2f} s ({host / watch.total:.0%} of all)"


class Stopwatch:
    """Seconds spent in a model, and in its embedding and head, since it was made.

    Attributes:
        seconds: by part.
        calls: of the two ends, by the number of ids or rows.
        total: from the beginning to `stop`.
    """

    def __init__(self, model: Any) -> None:
        self.calls: dict[str, Counter[int]] = {"embedding": Counter(), "head": Counter()}
        self.seconds = {"model": 0.0, "embedding": 0.0, "head": 0.0}
        self._hooks: list[Any] = []
        self._watch("model", model)
        self._watch("embedding", model.get_input_embeddings())
        self._watch("head", model.get_output_embeddings())
        self._start = time.perf_counter()
        self.total = 0.0

    def _watch(self, name: str, module: Any) -> None:
        def before(_: object, arguments: tuple[Any, ...]) -> None:
            if name in self.calls:
                given = arguments[0]
                rows = given.numel() if name == "embedding" else given[..., 0].numel()
                self.calls[name][rows] += 1
            self.seconds[name] -= time.perf_counter()

        def after(*_: object) -> None:
            self.seconds[name] += time.perf_counter()

        self._hooks += [
            module.register_forward_pre_hook(before),
            module.register_forward_hook(after),
        ]

    def stop(self) -> None:
        self.total = time.perf_counter() - self._start
        for hook in self._hooks:
            hook.remove()

    def split(self) -> str:
        """The share of each part: both ends on the device, results back in torch, and the body."""
        embedding, head = self.seconds["embedding"], self.seconds["head"]
        parts = {
            "embedding": embedding,
            "body": self.seconds["model"] - embedding - head,
            "head": head,
        }
        return ", ".join(
            f"{name} {part:.2f} s ({part / self.seconds['model']:.0%})"
            for name, part in parts.items()
        )
