"""Which of the products (`tests.exact`) that have a piece a mutant of it reaches."""

from __future__ import annotations

from tests.exact import SLICES, STRIPS, TILES, Product


def in_parts(product: Product) -> bool:
    return product.in_parts


def several_rows(product: Product) -> bool:
    return product.rows > 1


def more_than_two_rows(product: Product) -> bool:
    return product.rows > 2


def eight_rows(product: Product) -> bool:
    """A kernel that takes 8 rows of x at a time."""
    return product.rows > 7


def two_turns_of_rows(product: Product) -> bool:
    """More rows of x than the 8 that a kernel takes at a time."""
    return product.rows > 8


def several_chunks(product: Product) -> bool:
    """More than 32 columns."""
    return product.shape.embed_dim > 32


def of_16_bits(product: Product) -> bool:
    return product.kernel == "gemv_int16"


def of_8_bits(product: Product) -> bool:
    return product.kernel != "gemv_int16"


def far_half_of_a_tile(product: Product) -> bool:
    """Rows of x in the second half of a tile of 128, or of a tile of 64 that is full."""
    return product.rows > 64


def nibbles_of_rows(product: Product) -> bool:
    """Kernels that unpack words of rows by arithmetic on floats."""
    return product.layout == "rows" and product.kernel in ("gemv", "gemv_wide", "gemm")


def plain_rows(product: Product) -> bool:
    """The GEMV for any K and G, on rows."""
    return (product.kernel, product.layout) == ("gemv", "rows")


def in_registers(product: Product) -> bool:
    return product.kernel == "gemv_registers"


def in_slices(product: Product) -> bool:
    return product.shape == SLICES


def in_tiles(product: Product) -> bool:
    return product.shape == TILES


def in_strips(product: Product) -> bool:
    return product.shape == STRIPS
