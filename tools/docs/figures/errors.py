"""What 4 bits cost: the error of a normal matrix over the size of its groups, by both rules."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tools.docs.figures.drawing import BLUE, ORANGE
from wgpu_q4 import Q4Weight

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from wgpu_q4.format import Rule

_SIZES = (8, 16, 32, 64, 128, 256)
_RULES: tuple[tuple[Rule, str], ...] = (("absmax", ORANGE), ("mse", BLUE))


def over_group_sizes(figure: Figure) -> None:
    """Draw the rms error of a normal matrix, in per cent of its rms, and the bits of a value."""
    matrix = np.random.default_rng(0).standard_normal((512, 1024), np.float32)
    squares = np.mean(matrix.astype(np.float64) ** 2)
    figure.set_size_inches(7.6, 3.4)
    axes = figure.add_axes((0.09, 0.2, 0.87, 0.68))
    for rule, colour in _RULES:
        errors = []
        for size in _SIZES:
            weight = Q4Weight.quantize(matrix, size, rule=rule)
            change = weight.dequantize().astype(np.float64) - matrix
            # Rounded: processors add float32 numbers in different orders.
            errors.append(round(100 * float(np.sqrt(np.mean(change**2) / squares)), 2))
        axes.plot(_SIZES, errors, "o-", color=colour, label=f'rule="{rule}"')
        for size, error in zip(_SIZES, errors, strict=True):
            below = rule == "mse"
            axes.annotate(
                f"{error:.1f}",
                (size, error),
                (0, -12 if below else 6),
                textcoords="offset points",
                ha="center",
                fontsize=8,
            )
    axes.set_xscale("log", base=2)
    bits = [f"{size}\n{4 + 16 / size:.4g} bits" for size in _SIZES]
    axes.set_xticks(_SIZES, bits)
    axes.minorticks_off()
    axes.set_ylim(0, 14)
    axes.set_xlabel("group size, and bits of a value with its share of a float16 scale")
    axes.set_title("rms error of a normal matrix, in per cent of its rms")
    axes.grid(True, axis="y")
    axes.tick_params(length=0)
    axes.legend(loc="lower right")
