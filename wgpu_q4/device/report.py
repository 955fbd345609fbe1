"""What there is to run on, and what this package makes of it: ``wgpu-q4 info``."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from types import ModuleType
from typing import Any, get_args

from wgpu_q4.device.adapter import (
    SoftwareAdapterWarning,
    adapter_summary,
    choose_adapter,
    list_adapters,
)
from wgpu_q4.device.context import Context, default_context
from wgpu_q4.device.implementation import KNOWN, load_implementation
from wgpu_q4.errors import DeviceError
from wgpu_q4.kernels import Accuracy
from wgpu_q4.plan import (
    DEFAULT_LAYOUT,
    MATRIX_UNITS,
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


def print_report(
    adapter: str | None = None, implementation: str | None = None, *, everything: bool = False
) -> None:
    """Print the implementations, their adapters, and the choices for the one that is used.

    Args:
        adapter: part of an adapter's name.
        implementation: a WebGPU module's name.
        everything: also list every limit and feature of the adapter used.

    Raises:
        DeviceError: no adapter (of that name).
    """
    used_module = load_implementation(implementation)
    print("WebGPU implementations")
    for name in KNOWN:
        if find_spec(name) is None:
            print(f"  {name}: not installed")
            continue
        try:
            module = load_implementation(name)
        except DeviceError as error:
            print(f"  {error}")
            continue
        print(f"  {name} {module.__version__}{_marked(module is used_module)}")
        _print_adapters(module, adapter if module is used_module else None, module is used_module)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SoftwareAdapterWarning)  # the list above says it
        context = default_context(adapter, used_module.__name__)
    _print_limits(context, everything)
    _print_choices(context)


def _print_adapters(module: ModuleType, name: str | None, used: bool) -> None:
    try:
        adapters = list_adapters(module)
        chosen = choose_adapter(name, module, announce=False) if used else None
    except DeviceError as error:
        print(f"    {error}")
        if used:
            raise
        return
    chosen_summary = adapter_summary(chosen) if chosen is not None else None
    for item in adapters:
        summary = adapter_summary(item)
        print(f"    {summary}{_marked(summary == chosen_summary)}")
    if not adapters:
        print("    no adapter")


def _print_limits(context: Context, everything: bool) -> None:
    features: set[Any] = context.device.adapter.features
    print(f"\nLimits of {context.adapter_summary}")
    for name in sorted(context.limits) if everything else _LIMITS:
        print(f"  {name:45} {context.limits[name]:>13,}")
    asked = "Features asked for (only the kernel on matrix units needs any)"
    print(f"\n{'Features' if everything else asked}")
    named = sorted(features) if everything else sorted(context.device.features)
    print(f"  {', '.join(named) or 'none beyond the core'}")
    if not everything:
        print("  (--all lists every limit and feature of the adapter)")


def _print_choices(context: Context) -> None:
    support = context.half_support
    embedding = plan_embedding(
        _EXAMPLE, 1, DEFAULT_LAYOUT, "float32", "buffer", context.limits, support
    )
    print(f"\nWhat wgpu_q4 uses here (V = {_EXAMPLE.vocab}, K = {_EXAMPLE.embed_dim}, G = 32)")
    print(f"  weight layout   {DEFAULT_LAYOUT}: one buffer for embedding and linear")
    print(f"  largest weight  {context.largest_binding:,} packed bytes (one binding)")
    print(f"  embedding       {embedding.variant.name}")
    for accuracy in get_args(Accuracy):
        print(f"  linear, {accuracy} (measured on an H200, unless it says otherwise)")
        for first, last, choice in _runs(context, accuracy):
            rows = f"{first} to {last} rows" if last else f"from {first} rows"
            print(f"    {rows:14}{choice.kernel:20} {choice.because}")
    print(
        f"  half precision  {support.halves} conversions; built in, this device "
        f"{'keeps' if support.subnormals else 'flushes'} subnormals and "
        f"{'rounds correctly' if support.rounding else 'does not round correctly'}"
    )
    checks = (
        f"on: {context.checks_because}" if context.checks_because else "off where proven needless"
    )
    print(f"  shader checks   {checks}")
    print(f"  matrix units    {_matrix_units(context)}")
    way = context.round_trip
    print(f"  host            {way.name} calls{f': {way.reason}' if way.reason else ''}")
    print(
        f"  small results   {'written where the host reads' if context.maps_results else 'copied'}"
    )


def _matrix_units(context: Context) -> str:
    if MATRIX_UNITS in context.matrix_units:
        return "used where accuracy is not 'exact'"
    if context.matrix_units:
        return "there, but not for 16 × 16 halves, sums in float32 and subgroups of 32: not used"
    return "none that this WebGPU implementation offers"


def _runs(context: Context, accuracy: Accuracy) -> Iterator[tuple[int, int | None, Choice]]:
    """First and last row of x for which each row of the table is taken; the last run has no end."""
    first, chosen = 1, _choice(context, 1, accuracy)
    for rows in range(2, _MANY_ROWS + 1):
        here = _choice(context, rows, accuracy)
        if here is not chosen:
            yield first, rows - 1, chosen
            first, chosen = rows, here
    yield first, None, chosen


def _choice(context: Context, rows: int, accuracy: Accuracy) -> Choice:
    support, units = context.half_support, context.matrix_units
    software = context.is_software
    return choose_linear(_EXAMPLE, rows, DEFAULT_LAYOUT, support, accuracy, units, software)


def _marked(used: bool) -> str:
    return "  <- used" if used else ""
