"""List adapters and their limits, and the kernels that run on one of them.

Examples:
  wgpu-q4 info
  wgpu-q4 info --adapter nvidia --all
  wgpu-q4 info --json | jq .limits

--json prints:
  wgpu_q4, python, system   versions
  implementations           for each WebGPU module: name, version, used, adapters; or its problem
  adapter                   the one that is used
  limits, features          what it offers
  features_asked_for        what its device was made with
  used                      the choices of this package there, for one shape of a matrix: layout,
                            parts, kernels by rows of x and accuracy, and how the host calls
"""

from __future__ import annotations

import argparse
import platform
import warnings
from collections.abc import Iterator
from dataclasses import astuple
from importlib.util import find_spec
from itertools import groupby
from typing import Any, get_args

from wgpu_q4 import __version__
from wgpu_q4.commands.answer import Answer, add_adapter_options
from wgpu_q4.device import (
    Context,
    SoftwareAdapterWarning,
    adapter_summary,
    default_context,
    list_adapters,
)
from wgpu_q4.device.adapter import choose_adapter
from wgpu_q4.device.implementation import KNOWN, load_implementation
from wgpu_q4.device.parts import rows_of_a_part
from wgpu_q4.errors import DeviceError
from wgpu_q4.kernels import (
    DEFAULT_LAYOUT,
    MATRIX_UNITS,
    Accuracy,
    Choice,
    MatrixShape,
    choose_linear,
    plan_embedding,
)

_LIMITS = (
    "max-storage-buffer-binding-size",
    "max-buffer-size",
    "max-compute-workgroup-storage-size",
    "max-compute-invocations-per-workgroup",
    "max-compute-workgroups-per-dimension",
    "max-texture-dimension-2d",
    "max-texture-dimension-3d",
)
_MANY_ROWS = 1024
_EXAMPLE = MatrixShape(128256, 2048, 32, "float16")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_adapter_options(parser)
    parser.add_argument("--all", action="store_true", help="list every limit and feature")


def run(options: argparse.Namespace) -> Answer:
    """Return what was found."""
    found = describe(options.adapter, options.implementation)
    return Answer(found, text(found, everything=options.all))


def describe(adapter: str | None = None, implementation: str | None = None) -> dict[str, Any]:
    """Return the implementations, their adapters, and the choices for the adapter that is used.

    Args:
        adapter: part of an adapter's name.
        implementation: a WebGPU module's name.

    Raises:
        DeviceError: no adapter (of that name).
    """
    used = load_implementation(implementation).__name__
    # The context may be an earlier one, for which no adapter is chosen again.
    choose_adapter(adapter, used, announce=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SoftwareAdapterWarning)  # the list of adapters says it
        context = default_context(adapter, used)
    return {
        "wgpu_q4": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "implementations": [_implementation(name, name == used, context) for name in KNOWN],
        "adapter": context.adapter_summary,
        "limits": dict(sorted(context.limits.items())),
        "features": sorted(context.device.adapter.features),
        "features_asked_for": sorted(context.device.features),
        "used": _used(context),
    }


def _implementation(name: str, used: bool, context: Context) -> dict[str, Any]:
    if find_spec(name) is None:
        return {"name": name, "problem": "not installed"}
    try:
        module = load_implementation(name)
        adapters = [adapter_summary(item) for item in list_adapters(module)]
    except DeviceError as error:
        return {"name": name, "problem": str(error)}
    here = context.adapter_summary if used else None
    listed = [{"name": adapter, "used": adapter == here} for adapter in adapters]
    return {"name": name, "version": module.__version__, "used": used, "adapters": listed}


def _used(context: Context) -> dict[str, Any]:
    """Return what this package uses on a device, on the matrix of Llama 3.2 1B as an example."""
    with context.lock, context.guard, context.guard.busy:  # these run kernels, if nothing did yet
        support, way, maps = context.half_support, context.round_trip, context.maps_results
    embedding = plan_embedding(
        _EXAMPLE, 1, DEFAULT_LAYOUT, "float32", "buffer", context.limits, support
    )
    return {
        "example": dict(zip("VKG", astuple(_EXAMPLE), strict=False)),
        "layout": DEFAULT_LAYOUT,
        "largest_part_bytes": context.largest_binding,
        "parts": -(-_EXAMPLE.vocab // rows_of_a_part(context, _EXAMPLE)),
        "embedding": embedding.shader.name,
        "linear": {accuracy: _choices(context, accuracy) for accuracy in get_args(Accuracy)},
        "half_conversions": {
            "used": support.halves,
            "keeps_subnormals": support.subnormals,
            "rounds_correctly": support.rounding,
        },
        "shader_checks_because": context.pipelines.checks_because,
        "matrix_units": _matrix_units(context),
        "host_calls": {"used": way.name, "because": way.reason},
        "results_written_where_the_host_reads": maps,
    }


def _matrix_units(context: Context) -> str:
    if MATRIX_UNITS in context.matrix_units:
        return "used where accuracy is not 'exact'"
    if context.matrix_units:
        return "there, but not for 16 × 16 halves, sums in float32 and subgroups of 32: not used"
    return "none that this WebGPU implementation offers"


def _choices(context: Context, accuracy: Accuracy) -> list[dict[str, Any]]:
    """Return the kernels of ``linear``: each with its first and last rows of x, None for no end."""
    traits = context.half_support, accuracy, context.matrix_units
    device = *traits, context.is_software, context.subgroup_size

    def chosen_for(rows: int) -> Choice:
        return choose_linear(_EXAMPLE, rows, DEFAULT_LAYOUT, *device)

    found = []
    for choice, rows in groupby(range(1, _MANY_ROWS + 1), chosen_for):
        first, *more = rows
        last = more[-1] if more else first
        found.append(
            {
                "first_rows": first,
                "last_rows": None if last == _MANY_ROWS else last,
                "kernel": choice.kernel.name,
                "because": choice.because,
            }
        )
    return found


def text(found: dict[str, Any], *, everything: bool = False) -> str:
    """Return what `describe` found, for people.

    Args:
        found: the result of `describe`.
        everything: list every limit and feature.
    """
    lines = ["WebGPU implementations"]
    for item in found["implementations"]:
        if "problem" in item:
            lines.append(f"  {item['name']}: {item['problem']}")
            continue
        lines.append(f"  {item['name']} {item['version']}{_mark(item)}")
        lines += [f"    {adapter['name']}{_mark(adapter)}" for adapter in item["adapters"]]
        if not item["adapters"]:
            lines.append("    no adapter")
    lines.append(f"\nLimits of {found['adapter']}")
    limits = found["limits"]
    lines += [f"  {name:45} {limits[name]:>13,}" for name in (limits if everything else _LIMITS)]
    asked = "Features asked for (other kernels are taken where they are missing)"
    features = found["features" if everything else "features_asked_for"]
    lines.append(f"\n{'Features' if everything else asked}")
    lines.append(f"  {', '.join(features) or 'none beyond the core'}")
    if not everything:
        lines.append("  (--all lists every limit and feature of the adapter)")
    return "\n".join([*lines, *_lines(found["used"])])


def _lines(used: dict[str, Any]) -> Iterator[str]:
    """Yield what is used, one thing to a line."""
    halves, checks, host = (
        used["half_conversions"],
        used["shader_checks_because"],
        used["host_calls"],
    )
    keeps = "keeps" if halves["keeps_subnormals"] else "flushes"
    rounds = "rounds correctly" if halves["rounds_correctly"] else "does not round correctly"
    mapped = used["results_written_where_the_host_reads"]
    shape = ", ".join(f"{name} = {size}" for name, size in used["example"].items())
    yield f"\nWhat wgpu_q4 uses here ({shape})"
    yield f"  weight layout   {used['layout']}: one copy for embedding and linear"
    yield (
        f"  parts           {used['parts']}; a part has at most {used['largest_part_bytes']:,} "
        f"packed bytes (one binding)"
    )
    yield f"  embedding       {used['embedding']}"
    for accuracy, choices in used["linear"].items():
        yield f"  linear, {accuracy} (measured on an H200, unless it says otherwise)"
        for choice in choices:
            first, last = choice["first_rows"], choice["last_rows"]
            rows = f"{first} to {last} rows" if last else f"from {first} rows"
            yield f"    {rows:14}{choice['kernel']:20} {choice['because']}"
    yield (
        f"  half precision  {halves['used']} conversions; built in, this device {keeps} subnormals "
        f"and {rounds}"
    )
    yield f"  shader checks   {f'on: {checks}' if checks else 'off where proven needless'}"
    yield f"  matrix units    {used['matrix_units']}"
    yield f"  host            {': '.join(filter(None, (host['used'] + ' calls', host['because'])))}"
    yield f"  small results   {'written where the host reads' if mapped else 'copied'}"


def _mark(item: dict[str, Any]) -> str:
    return "  <- used" if item["used"] else ""
