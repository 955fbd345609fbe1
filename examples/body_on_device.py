"""SmolLM2 on the device as a whole, from ids to ids."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
from demo_terminal import progress, streamer, verdict

from wgpu_q4 import DeviceInfo, device_info
from wgpu_q4.bench.model import Generated, StepTimes, generate, step_times
from wgpu_q4.bench.timing import Effort
from wgpu_q4.decoder import Decoder, Draw, Greedy

LAYERS_SAID = {
    "q4gsw": "4 bits",
    "affine4": "4 bits with offsets, the numbers of the file",
    "affine8": "8 bits, the numbers of the file",
    "float16": "float16",
}
LOADING = {"libraries": 5, "tokenizer": 8, "weights": 3, "kernels": 4}
"""The steps of loading, with their share of its time."""

ORDERS = 8
"""How many times farther than torch's float32 the device's may be from float64.

Both round as often, in sums of another order; the largest of many deviations varies by less."""


def answer(arguments: argparse.Namespace, model_file: Path) -> int:
    """Answer, report and, if asked to, compare; return the exit status."""
    with progress(LOADING) as begin:
        begin("libraries")
        from transformers import AutoTokenizer

        info = device_info(arguments.adapter)  # a wrong name fails here, not after loading
        begin("tokenizer")
        tokenizer: Any = AutoTokenizer.from_pretrained(
            str(model_file.parent), gguf_file=model_file.name
        )
        prompt = tokenizer.apply_chat_template(
            [{"role": "user", "content": arguments.prompt}], add_generation_prompt=True
        )["input_ids"]
        begin("weights")
        sampling = arguments.sampling
        decoder = Decoder.from_gguf(
            model_file,
            device=arguments.adapter,
            capacity=arguments.context,
            cache=arguments.cache,
            chooser=Greedy() if sampling is None else Draw(sampling),
        )
        needed = len(prompt) + arguments.max_new_tokens
        if needed > decoder.capacity:
            print(
                f"error: the prompt of {len(prompt)} tokens and {arguments.max_new_tokens} new "
                f"ones need --context {needed}",
                file=sys.stderr,
            )
            return 2
        begin("kernels")
        generate(decoder, prompt, 3, end_of_text=())  # compiles, which is not to be timed

    print(f"> {arguments.prompt}\n")
    stream = streamer(tokenizer)
    made = generate(
        decoder, prompt, arguments.max_new_tokens, say=lambda id_: stream.put(np.array([id_]))
    )
    stream.end()
    report(arguments, info, decoder, made, step_times(decoder, Effort(repeats=8, seconds=0.5)))
    if not arguments.compare:
        return 0
    model = reference(decoder, model_file)
    return 0 if compare(decoder, model, prompt, len(made.ids)) else 1


def report(
    arguments: argparse.Namespace,
    info: DeviceInfo,
    decoder: Decoder,
    made: Generated,
    parts: StepTimes,
) -> None:
    """Say where the answer was made, what is held there, and what took the time."""
    held, config = decoder.nbytes, decoder.config
    software = (
        "software: runs on the processor, where --body torch is about as fast"
        if info.software
        else "a GPU"
    )
    tied, layers, cache, work = held.values()
    floats = 4 * config.vocab * config.hidden
    print(f"\nadapter         {info.adapter}; {software}")
    print(f"tied matrix     {tied:,} bytes on the device, read by embedding and head")
    print(
        f"saved           {floats - tied:,} bytes against {floats:,} of float32, "
        f"{tied:,} against two 4-bit copies"
    )
    types = " and ".join(LAYERS_SAID[type_] for type_ in decoder.layer_types)
    print(f"layers          {layers:,} bytes on the device: {config.layers} layers in {types}")
    print(
        f"cache           {cache:,} bytes for {decoder.capacity} positions in {arguments.cache}; "
        f"{work:,} of work space"
    )
    print(f"next id         {arguments.sampling or 'that of the largest logit'}")
    print(
        f"prefill         {made.prompt / made.prefill:.1f} tokens/s: {made.prompt} tokens in "
        f"{made.prefill:.2f} s"
    )
    if made.steps < 1:
        return
    print(
        f"speed           {made.steps / made.decode:.1f} tokens/s: {made.steps} steps in "
        f"{made.decode:.2f} s; {len(made.ids) / made.seconds:.1f} with the prompt"
    )
    device = parts.embedding + parts.layers + parts.head
    print(
        f"a step          {1e3 * made.decode / made.steps:.2f} ms, of which the host encodes "
        f"for {1e3 * made.host / made.steps:.2f}"
    )
    shares = ", ".join(
        f"{name} {1e3 * seconds:.2f} ms ({seconds / device:.0%})"
        for name, seconds in (
            ("embedding", parts.embedding),
            ("layers", parts.layers),
            ("head", parts.head),
        )
    )
    print(f"on the device   {shares}; {parts.dispatches} dispatches, by {parts.clock}")


def compare(decoder: Decoder, model: Any, prompt: list[int], count: int) -> bool:
    """Return whether torch chooses the same ids on the same numbers; say how closely.

    torch reads the prompt and the ids, so that a difference cannot grow from one id to the next.
    Its logits in float64 are what both approximate: those of the device may be as far from them as
    torch's own in float32, times `ORDERS`.  The cache must be in float32: in float16 a number
    between two others may be rounded to either of them, which no such bound covers.
    """
    import torch

    # The same ids again, now with what ends the text: the logits are those of the last id's step.
    ids = generate(decoder, prompt, max(2, count), end_of_text=()).ids
    ours = {"a step": decoder.logits()}
    decoder.prefill(prompt)
    ours["prefill"] = decoder.logits()

    sequence = torch.tensor([[*prompt, *ids[:-1]]])
    single = read(model, sequence, len(ids))
    theirs = read(model.double(), sequence, len(ids))
    agreeing = int((theirs.argmax(-1) == np.array(ids)).sum())
    rounding = float(np.abs(single - theirs).max())
    apart = {
        name: float(np.abs(logits - theirs[0 if name == "prefill" else -1]).max())
        for name, logits in ours.items()
    }
    same_text = agreeing == len(ids)
    close = max(apart.values()) <= ORDERS * rounding
    print("\ncompare with torch in float64 on the same numbers")
    print(f"text            {verdict(same_text)}: {agreeing} of {len(ids)} tokens")
    print(
        f"logits          {verdict(close)}: at most "
        f"{' and '.join(f'{value:.1e} apart after {name}' for name, value in apart.items())}; "
        f"torch's own float32 is {rounding:.1e} from it, and {ORDERS} times that is allowed"
    )
    return same_text and close


def reference(decoder: Decoder, model_file: Path) -> Any:
    """Return the model in torch, with the numbers that the decoder holds."""
    import torch
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(
        str(model_file.parent), gguf_file=model_file.name, dtype=torch.float32
    )
    model.eval()
    with torch.no_grad():
        matrix = torch.from_numpy(decoder.embedding.dequantize())
        model.get_input_embeddings().weight.copy_(matrix)
        model.get_output_embeddings().weight.copy_(matrix)
    return model


def read(model: Any, sequence: Any, positions: int) -> Any:
    """Return the logits ``[positions, vocab]`` at the end of ``sequence``, float64 on the host."""
    import torch

    with torch.inference_mode():
        logits = model(input_ids=sequence, use_cache=False, logits_to_keep=positions).logits
    return logits[0].double().numpy()
