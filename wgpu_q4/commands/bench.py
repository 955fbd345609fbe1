"""Measure this adapter's kernels and calls beside its copy bandwidth; or a model.

The copy runs before and after everything else; if its time has changed, so has the clock of the
device, and the figures are not comparable.

Examples:
  wgpu-q4 bench
  wgpu-q4 bench --shape gemma-3-270m --rows 1 8 --json > bench.json
  wgpu-q4 bench --model model.gguf --prompt 512 --tokens 128

--json prints:
  wgpu_q4, adapter, implementation   what was measured
  left_out                           jobs that do not go here: what, why
and of a matrix:
  shape                    V, K and G
  clock                    its kind, and why no better one
  copy_bytes_per_second    the bandwidth that "limit" is counted by
  drift                    time of the copy and others at the end, over that at the beginning
  results                  for each job: who, op, size, shape, detail, clock, seconds, quartiles,
                           samples, moved_bytes, flops, limit_seconds, share_of_limit
or of a model:
  model, shape, bytes      its name, its configuration, the bytes held on the device by kind
  prompt, tokens           ids of the prompt, and ids generated
  tokens_per_second        prefill, decode
  step                     seconds of one step: host, embedding, layers, head; and their clock
  others                   of other libraries: name, prefill, decode
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from wgpu_q4 import __version__
from wgpu_q4.bench.calls import Calls
from wgpu_q4.bench.ceilings import CeilingJobs
from wgpu_q4.bench.jobs import Jobs, random_weight
from wgpu_q4.bench.result import Result
from wgpu_q4.bench.shapes import SHAPE_HELP, default_shape, matrix_shape, positive, seconds
from wgpu_q4.bench.table import HEADER, line
from wgpu_q4.bench.timing import DeviceTimer, Effort
from wgpu_q4.commands.answer import Answer, add_adapter_options
from wgpu_q4.commands.bench_model import add_model_arguments, measure_model
from wgpu_q4.commands.progress import Progress, progress
from wgpu_q4.device import SoftwareAdapterWarning, context_for, request_device
from wgpu_q4.kernels import DEFAULT_LAYOUT, MatrixShape

Job = tuple[str, Callable[[], Result]]
"""What is said while a job runs, and the job."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_adapter_options(parser)
    add, numbers = parser.add_argument, dict[str, Any](type=positive, nargs="+")
    add("--shape", type=matrix_shape, help=SHAPE_HELP)
    add("--ids", **numbers, default=[1024, 16384], metavar="N", help="ids to look up")
    add("--rows", **numbers, default=[1, 16, 128], metavar="M", help="rows of x")
    add("--seconds", type=seconds, default=0.3, help="of samples for each job, at most")
    add_model_arguments(parser)


def run(options: argparse.Namespace) -> Answer:
    """Measure; print each figure as it is found."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SoftwareAdapterWarning)  # the first line says it
        context = context_for(request_device(options.adapter, options.implementation))
    about = {
        "wgpu_q4": __version__,
        "adapter": context.adapter_summary,
        "implementation": context.implementation_summary,
    }
    if options.model is not None:
        return Answer(about | measure_model(options, context))
    timer = DeviceTimer(context, Effort(seconds=options.seconds))
    shape = options.shape or default_shape(context.is_software)
    jobs = list(_jobs(timer, shape, sorted(options.ids), sorted(options.rows)))
    with progress(len(jobs) + 2, options.json) as shown:
        shown.say(f"{context.adapter_summary}, {context.implementation_summary}")
        return Answer(about | _measure(timer, shape, jobs, shown))


def _jobs(timer: DeviceTimer, shape: MatrixShape, ids: list[int], rows: list[int]) -> Iterator[Job]:
    """Yield the kernels, then the calls."""
    weight = random_weight(shape)
    jobs, calls = Jobs(timer, weight), Calls(timer.context, weight, timer.effort)
    for count in ids:
        yield f"embedding of {count} ids", partial(jobs.embedding, count)
    for count in rows:
        for accuracy in jobs.accuracies(count, DEFAULT_LAYOUT):
            job = partial(jobs.linear, count, DEFAULT_LAYOUT, accuracy)
            yield f"linear, M={count}, {accuracy}", job
    for count in [1, *ids]:
        yield f"embedding() of {count} ids", partial(calls.embedding, count)
    for count in rows:
        for accuracy in jobs.accuracies(count, DEFAULT_LAYOUT):
            yield f"linear(), M={count}, {accuracy}", partial(calls.linear, count, accuracy)
    yield "argmax(), M=1", partial(calls.argmax, 1)


def _measure(
    timer: DeviceTimer, shape: MatrixShape, jobs: list[Job], shown: Progress
) -> dict[str, Any]:
    """Return the figures as a JSON object; print them too."""
    context, say = timer.context, shown.say
    say(
        f"V = {shape.vocab}, K = {shape.embed_dim}, G = {shape.group_size}; limit: the bytes that "
        f"a job must move, over the bandwidth of the copy"
    )
    if timer.why:
        say(f"wall clock over many dispatches, because {timer.why}")
    say(f"\n{HEADER}")
    shown.begin("copy, read, arithmetic")
    ceilings = CeilingJobs(timer, context.is_software)
    before = ceilings.measure()
    results: list[Result] = []
    for measured in (*before, *(shown.attempt(title, job) for title, job in jobs)):
        if measured is not None:
            results.append(measured)
            say(line(measured, before.copy_bandwidth))
    shown.begin("copy, read, arithmetic again")
    drift = ceilings.measure().over(before)
    ratios = ", ".join(f"{name} {ratio:.3f}" for name, ratio in drift.items())
    say(f"\ntime after everything else over time before: {ratios}")
    return {
        "shape": {"V": shape.vocab, "K": shape.embed_dim, "G": shape.group_size},
        "clock": {"kind": timer.clock, "why": timer.why},
        "copy_bytes_per_second": before.copy_bandwidth,
        "drift": drift,
        "results": [result.as_json(before.copy_bandwidth) for result in results],
        "left_out": shown.left_out,
    }
