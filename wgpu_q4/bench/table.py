"""A result as one line of text."""

from __future__ import annotations

from wgpu_q4.bench.result import Result

HEADER = (
    f"{'job':66} {'median':>11} {'quartiles':>22} {'GB/s':>7} {'of limit':>8} {'GFLOP/s':>8}  clock"
)


def line(result: Result, copy_bandwidth: float) -> str:
    """Return one line; the limit is the bytes moved over the bandwidth of the copy."""
    timing = result.timing
    rate = result.moved / timing.median
    columns = [
        f"{result.name:66}",
        f"{duration(timing.median):>11}",
        f"{duration(timing.low) + ' to ' + duration(timing.high):>22}",
        f"{_three_digits(rate / 1e9):>7}" if result.moved else " " * 7,
        f"{rate / copy_bandwidth:8.0%}" if result.moved else " " * 8,
        f"{_three_digits(result.flops / timing.median / 1e9):>8}" if result.flops else " " * 8,
        f" {result.clock}",
    ]
    return " ".join(columns).rstrip()


def duration(seconds: float) -> str:
    """Return seconds with three digits, in the unit that suits."""
    for factor, unit in ((1e-6, "µs"), (1e-3, "ms")):
        if seconds < 1000 * factor:
            return f"{_three_digits(seconds / factor)} {unit}"
    return f"{_three_digits(seconds)} s"


def _three_digits(value: float) -> str:
    return f"{value:.2f}" if value < 9.995 else f"{value:.1f}" if value < 99.95 else f"{value:.0f}"
