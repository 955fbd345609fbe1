"""The bytes of tied matrices, the ways of a kernel to its backends, and what an export holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tools.docs.figures.drawing import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    TEAL,
    arrow,
    box,
    page,
    say,
)
from wgpu_q4.bench.shapes import SHAPES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NAMES = {
    "smollm2-135m": "SmolLM2 135M",
    "gemma-3-270m": "Gemma 3 270M",
    "llama-3.2-1b": "Llama 3.2 1B",
}


def tied_bytes(figure: Figure) -> None:
    """Draw the bytes of three models' tied matrices: float16, 4 bits twice, 4 bits once."""
    figure.set_size_inches(8.6, 3.3)
    axes = figure.add_axes((0.135, 0.1, 0.78, 0.76))
    ways = ("float16", "4 bits, a copy for each end", "4 bits, once: wgpu_q4")
    for at, (model, name) in enumerate(_NAMES.items()):
        vocab, embed_dim, group_size = SHAPES[model]
        values = vocab * embed_dim
        once = values // 2 + values // group_size * 2
        for way, (size, colour) in enumerate(
            zip((2 * values, 2 * once, once), (GREY, ORANGE, BLUE), strict=True)
        ):
            y = at + (way - 1) * 0.27
            axes.barh(y, size / 1e6, 0.25, color=colour, label=ways[way] if at == 0 else "_")
            axes.text(size / 1e6 + 5, y, f"{size / 1e6:.0f} MB", va="center", fontsize=8)
        axes.text(-8, at, name, ha="right", va="center", fontsize=9)
    axes.set_ylim(2.55, -0.5)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_xlim(0, 580)
    axes.tick_params(length=0)
    axes.set_title("The tied matrix on a device, scales included (G = 32)")
    axes.legend(loc="upper right")


def export(figure: Figure) -> None:
    """Draw an exported program with the matrix stored twice, and with it stored once."""
    axes = page(figure, 18.6, 7.4)
    for x, title, is_shared in ((0.4, "untied: ExecuTorch's own", False), (9.8, "shared", True)):
        say(axes, x, 0.6, title, fontsize=10, weight="bold")
        nodes = (("ids", GREY), ("embedding", BLUE), ("layers", GREY), ("linear (head)", BLUE))
        for at, (text, colour) in enumerate(nodes):
            box(axes, x, 1.3 + at * 1.45, 3.0, 0.95, text, colour)
            if at:
                arrow(axes, (x + 1.5, 0.8 + at * 1.45), (x + 1.5, 1.25 + at * 1.45))
        if is_shared:
            box(axes, x + 4.6, 3.45, 3.6, 1.6, "matrix and scales,\n4 bits, once", GREEN)
            arrow(axes, (x + 4.55, 4.0), (x + 3.05, 3.25))
            arrow(axes, (x + 4.55, 4.5), (x + 3.05, 6.1))
        else:
            for y, order in ((2.3, "embedding"), (5.2, "linear")):
                box(
                    axes,
                    x + 4.6,
                    y,
                    3.6,
                    1.6,
                    f"matrix and scales\nin the {order}'s\norder",
                    ORANGE,
                )
                arrow(axes, (x + 4.55, y + 0.8), (x + 3.05, y + 0.9))


def backends(figure: Figure) -> None:
    """Draw how a kernel gets from ``wgsl/`` to where it runs."""
    axes = page(figure, 19.6, 9.4)
    box(axes, 0.3, 3.6, 3.0, 1.5, "wgsl/\npieces of plain\nWGSL", BLUE)
    box(axes, 4.7, 3.6, 3.3, 1.5, "wgpu_q4/kernels/\ncompose and plan", BLUE)
    arrow(axes, (3.35, 4.35), (4.65, 4.35))
    middle = (
        (0.5, "naga", TEAL),
        (2.0, "Tint", TEAL),
        (3.5, "wgpu-q4 web", TEAL),
        (5.0, "wgpu-q4 kernel", TEAL),
        (6.5, "make glsl: naga, to GLSL", PURPLE),
        (8.0, "make glsl: other host pieces", PURPLE),
    )
    ends = (
        ("wgpu-native: Vulkan, Metal, DX12", GREEN),
        ("Dawn, with matrix units", GREEN),
        ("a browser: a page of static files", GREEN),
        ("your own WebGPU code", GREEN),
        ("vulkan_glsl/: ExecuTorch's Vulkan", ORANGE),
        ("webgpu_wgsl/: ExecuTorch's WebGPU", ORANGE),
    )
    for (y, text, colour), (end, end_colour) in zip(middle, ends, strict=True):
        box(axes, 8.9, y, 4.3, 1.0, text, colour, fontsize=8.5)
        box(axes, 14.1, y, 5.2, 1.0, end, end_colour, fontsize=8.5)
        arrow(axes, (8.05, 4.35), (8.85, y + 0.5))
        arrow(axes, (13.25, y + 0.5), (14.05, y + 0.5))
    say(axes, 0.3, 0.5, "one source", fontsize=10, weight="bold")
    say(axes, 0.3, 1.1, "Each kernel is written once.", fontsize=8)
