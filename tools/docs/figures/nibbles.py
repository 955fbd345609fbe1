"""The format, drawn from what the library packs: where a nibble lies is asked of its functions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tools.docs.figures.drawing import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    ROSE,
    arrow,
    box,
    page,
    say,
)
from wgpu_q4 import Q4Weight
from wgpu_q4.format import Convention, repack, rows_to_blocks
from wgpu_q4.format.nibbles import pack_linear

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MONO = {"family": "monospace"}
_CONVENTIONS: tuple[Convention, ...] = ("linear", "embedding")


def row(figure: Figure) -> None:
    """Draw one row of 16 values: floats, nibbles and scales, bytes."""
    values = np.array(
        [
            *(0.42, -0.15, 0.06, -0.60, 0.31, 0.11, -0.27, 0.54),
            *(1.20, -0.80, 0.05, 0.66, -1.50, 0.33, 0.91, -0.20),
        ],
        np.float32,
    )
    weight = Q4Weight.quantize(values[None], group_size=8)
    nibbles = _nibbles(weight.packed)[0]
    colours = (BLUE, ORANGE)
    axes = page(figure, 20.4, 7.6)
    left = 3.0
    for at, value in enumerate(values):
        colour = colours[at // 8]
        x = left + at * 1.07
        box(axes, x, 0.5, 1, 0.9, f"{value:.2f}", colour, fontsize=8)
        arrow(axes, (x + 0.5, 1.45), (x + 0.5, 2.25))
        box(axes, x, 2.3, 1, 0.9, str(nibbles[at]), colour)
    for group in range(2):
        x = left + group * 8 * 1.07
        scale = weight.scales[0, group]
        say(
            axes,
            x + 4.2,
            3.7,
            f"scale[{group}] = {scale:.4f}   value ≈ (u − 8) · scale",
            ha="center",
            color=colours[group],
        )
    for byte, number in enumerate(weight.packed[0]):
        x = left + byte * 2 * 1.07
        for side in (0.5, 1.57):
            arrow(axes, (x + side, 4.15), (x + 1.03, 5.1))
        box(axes, x, 5.15, 2.07, 0.9, f"0x{number:02x}", colours[byte // 4], **_MONO)
        say(axes, x + 1.03, 6.35, f"byte {byte}", ha="center", fontsize=8)
    for y, name in ((0.95, "floats"), (2.75, "nibbles u"), (5.6, "bytes")):
        say(axes, 0.2, y, name, fontsize=10)
    say(
        axes,
        left,
        7.1,
        "V = 1, K = 16, G = 8, linear convention: the first of two neighbours is in the low nibble",
        fontsize=8,
    )


def conventions(figure: Figure) -> None:
    """Draw a byte in each of the two conventions."""
    axes = page(figure, 19.4, 5.9)
    first, second = 5, 12
    for panel, convention in enumerate(_CONVENTIONS):
        x = 0.5 + panel * 9.6
        byte = int(_packed(np.array([first, second], np.uint8), convention)[0])
        say(axes, x, 0.5, f'"{convention}"', fontsize=11, weight="bold")
        say(axes, x + 3.7, 0.5, f"byte 0x{byte:02x}", fontsize=10, **_MONO)
        for bit in range(8):
            shown = byte >> (7 - bit) & 1
            column = _column_of(convention, is_high=bit < 4)
            colour = (BLUE, ORANGE)[column]
            box(axes, x + bit * 1.05, 1.4, 1, 1, str(shown), colour, fontsize=11, **_MONO)
            say(axes, x + bit * 1.05 + 0.5, 1.13, str(7 - bit), ha="center", fontsize=7)
        for half in range(2):
            column = _column_of(convention, is_high=half == 0)
            name = ("2j", "2j + 1")[column]
            text = f"column {name}\nu = {(first, second)[column]}"
            box(axes, x + half * 4.2, 2.85, 4.15, 1.3, text, (BLUE, ORANGE)[column])
            words = ("high nibble: bits 7 to 4", "low nibble: bits 3 to 0")[half]
            say(axes, x + half * 4.2 + 2.07, 4.5, words, ha="center", fontsize=8)
    say(
        axes,
        0.5,
        5.4,
        "Columns 2j and 2j + 1 of a row hold u = 5 (0101) and u = 12 (1100).",
        fontsize=8,
    )


def words(figure: Figure) -> None:
    """Draw the 32-bit word of 8 neighbouring columns."""
    packed = _packed(np.arange(8, dtype=np.uint8), "linear")
    word = int(packed.view("<u4")[0])
    axes = page(figure, 19.4, 7.1)
    left = 2.9
    say(axes, 0.2, 1.2, "columns", fontsize=10)
    say(axes, 0.2, 3.4, "bytes in\nmemory", fontsize=10)
    say(axes, 0.2, 5.7, "a u32 of\nthe shader", fontsize=10)
    palette = (BLUE, ORANGE, GREEN, PURPLE)
    for column in range(8):
        box(axes, left + column * 2.03, 0.75, 1.9, 0.9, f"k = {column}", palette[column // 2])
    for byte in range(4):
        x = left + byte * 4.06
        low, high = packed[byte] & 15, packed[byte] >> 4
        for column in range(2):
            arrow(axes, (x + 0.95 + column * 2.03, 1.7), (x + 1.97, 2.85))
        text = f"byte {byte}: high {high}, low {low}"
        box(axes, x, 2.9, 3.93, 0.95, text, palette[byte])
        place = left + (3 - byte) * 4.06
        arrow(axes, (x + 1.97, 3.9), (place + 1.97, 5.05))
    for place in range(8):
        nibble = word >> (28 - 4 * place) & 15
        x = left + place * 2.03
        box(axes, x, 5.1, 1.9, 0.95, f"k = {nibble}", palette[nibble // 2])
        say(axes, x + 0.95, 6.4, f"{31 - 4 * place} to {28 - 4 * place}", ha="center", fontsize=7)
    say(axes, 0.2, 6.4, "bits", fontsize=8)


def block(figure: Figure) -> None:
    """Draw where a block of 16 bytes holds the values of 8 rows and 4 columns."""
    axes = page(figure, 19.4, 8.0)
    palette = (BLUE, ORANGE, GREEN, ROSE)
    say(axes, 0.9, 0.5, "8 rows × 4 columns of the matrix", fontsize=10)
    say(axes, 9.0, 0.5, "one block: 16 bytes, four components of a vec4<u32>", fontsize=10)
    places = {(r, k): place_in_block(r, k) for r in range(8) for k in range(4)}
    for column in range(4):
        say(axes, 1.75 + column * 1.35, 1.15, f"k = {column}", ha="center", fontsize=8)
        say(axes, 11.75 + column * 1.95, 1.15, f"byte {column}", ha="center", fontsize=8)
    for (r, k), (component, _, _) in places.items():
        y = 1.5 + r * 0.78
        if k == 0:
            say(axes, 0.2, y + 0.36, f"row {r}", fontsize=8)
        text = f"{r},{k}"
        box(axes, 1.1 + k * 1.35, y, 1.3, 0.72, text, palette[component], fontsize=8)
    arrow(axes, (6.75, 4.5), (8.7, 4.5), linewidth=1.5)
    for (r, k), (component, byte, is_high) in places.items():
        y = 1.5 + component * 1.56
        if k == 0:
            say(axes, 9.0, y + 0.72, f"component {component}", fontsize=8)
        x = 10.8 + byte * 1.95 + (0 if is_high else 0.95)
        box(axes, x, y, 0.92, 1.3, f"{r},{k}", palette[component], fontsize=8)
    say(
        axes,
        10.8,
        7.75,
        "left half of a byte: high nibble; right half: low nibble",
        fontsize=8,
        color=GREY,
    )


def place_in_block(row: int, column: int) -> tuple[int, int, bool]:
    """Return where a block holds a value: component, byte, and whether in the high nibble."""
    nibbles = np.zeros((8, 8), np.uint8)
    nibbles[row, column] = 15
    components = rows_to_blocks(_packed(nibbles, "linear"))[0, 0]
    ((component, byte),) = np.argwhere(components.view(np.uint8).reshape(4, 4))
    is_high = components.view(np.uint8).reshape(4, 4)[component, byte] == 0xF0
    return int(component), int(byte), bool(is_high)


def _packed(nibbles: NDArray[np.uint8], convention: Convention) -> NDArray[np.uint8]:
    """Return nibbles ``[…, K]`` as the library packs them: bytes ``[…, K/2]``."""
    packed = np.empty((*nibbles.shape[:-1], nibbles.shape[-1] // 2), np.uint8)
    pack_linear(np.atleast_2d(nibbles), np.atleast_2d(packed))
    return repack(packed, "linear", convention)


def _nibbles(packed: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the nibbles of bytes in the linear convention."""
    return np.stack([packed & 15, packed >> 4], axis=-1).reshape(len(packed), -1)


def _column_of(convention: Convention, is_high: bool) -> int:
    """Return which of two neighbouring columns a half of their byte holds: 0 or 1."""
    byte = int(_packed(np.array([0, 15], np.uint8), convention)[0])
    return int((byte == 0xF0) == is_high)
