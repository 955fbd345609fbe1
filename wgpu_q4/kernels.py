"""The table of kernels: which WGSL pieces make which variant, and what they bind.

The pieces are the files in ``wgsl/``; ``wgsl/README.md`` says which function each defines.  A
variant is a body and one piece for each thing that varies, concatenated.  Nothing is substituted
in the text: shapes and tile sizes are pipeline constants (``override``).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import product
from pathlib import Path
from typing import Any, Literal, get_args

from wgpu_q4.format import ScalesDtype

Layout = Literal["rows", "rows_embedding", "blocks_buffer", "blocks_texture2d"]
"""How a device holds the packed weight: rows in either nibble order, or 8×4 blocks."""

Storage = Literal["buffer", "texture3d"]
"""Where ids and results of an embedding are."""

OutputDtype = Literal["float32", "float16"]

Accuracy = Literal["exact", "fast", "int8"]
"""What a matrix product may round besides its sum: nothing, activations to 16 bits, or to 8."""

Halves = Literal["native", "integer"]
"""How half-precision numbers are converted: by the built-in functions, where a probe has shown
that they do it right, or by integer arithmetic."""


@dataclass(frozen=True)
class Binding:
    """One binding of group 0, as a WebGPU bind group layout entry describes it.

    Attributes:
        number: its ``@binding``.
        name: the WGSL variable's name.
        kind: the entry of the layout that ``description`` belongs to.
    """

    number: int
    name: str
    kind: Literal["buffer", "texture", "storage_texture"]
    description: tuple[tuple[str, str], ...]

    def layout_entry(self, visibility: int) -> dict[str, Any]:
        """The entry for ``create_bind_group_layout``."""
        return {
            "binding": self.number,
            "visibility": visibility,
            self.kind: dict(self.description),
        }


_DECLARATION = re.compile(
    r"^@group\(0\) @binding\((\d+)\) var(?:<(storage, read_write|storage, read|uniform)>)? "
    r"(\w+): ([^;]+);",
    re.MULTILINE,
)

_BUFFER_TYPES = {
    "storage, read_write": "storage",
    "storage, read": "read-only-storage",
    "uniform": "uniform",
}


def parse_bindings(source: str) -> tuple[Binding, ...]:
    """Return the bindings that a piece of WGSL declares, in the order of the text.

    Raises:
        ValueError: a declaration has a form that no piece uses yet.
    """
    found = tuple(_parsed(match) for match in _DECLARATION.finditer(source))
    if len(found) != len(re.findall(r"@binding\(", source)):
        raise ValueError("a binding must be declared on one line, as '@group(0) @binding(N) var…'")
    return found


def _parsed(match: re.Match[str]) -> Binding:
    number, space, name, declared = int(match[1]), match[2], match[3], match[4]
    if space is not None:
        return Binding(number, name, "buffer", (("type", _BUFFER_TYPES[space]),))
    description: tuple[tuple[str, str], ...]
    texture = re.fullmatch(r"texture_(\dd)<i32>", declared)
    if texture is not None:
        description = (("sample_type", "sint"), ("view_dimension", texture[1]))
        return Binding(number, name, "texture", description)
    stored = re.fullmatch(r"texture_storage_(\dd)<(\w+), write>", declared)
    if stored is None:
        raise ValueError(f"{name}: no kernel binds a {declared}")
    description = (
        ("access", "write-only"),
        ("format", stored[2]),
        ("view_dimension", stored[1]),
    )
    return Binding(number, name, "storage_texture", description)


@dataclass(frozen=True)
class Variant:
    """A kernel: its name and its pieces, which decide source and bindings."""

    name: str
    pieces: tuple[str, ...]

    @property
    def source(self) -> str:
        """The complete WGSL module."""
        return "\n".join(f"// ---- {piece}.wgsl\n\n{_read(piece)}" for piece in self.pieces)

    @cached_property
    def bindings(self) -> tuple[Binding, ...]:
        """The bindings of all pieces, by number."""
        declared = (binding for piece in self.pieces for binding in piece_bindings(piece))
        return tuple(sorted(declared, key=lambda binding: binding.number))


SOURCE_VARIABLE = "WGPU_Q4_WGSL"


def source_folder() -> Path:
    """The folder of the WGSL pieces: inside an installed package, beside it in a checkout.

    ``WGPU_Q4_WGSL`` names another one, for trying changed kernels.
    """
    if SOURCE_VARIABLE in os.environ:
        return Path(os.environ[SOURCE_VARIABLE])
    package = Path(__file__).resolve().parent
    installed = package / "wgsl"
    return installed if installed.is_dir() else package.parent / "wgsl"


def piece_names() -> tuple[str, ...]:
    """Return the names of all pieces, sorted: paths below ``wgsl/`` without a suffix."""
    root = source_folder()
    return tuple(
        sorted(p.relative_to(root).with_suffix("").as_posix() for p in root.rglob("*.wgsl"))
    )


def piece_bindings(piece: str) -> tuple[Binding, ...]:
    """Return the bindings that the piece of that name declares."""
    return parse_bindings(_read(piece))


@cache
def _read(piece: str) -> str:
    return (source_folder() / f"{piece}.wgsl").read_text(encoding="utf-8")


def _weight_pieces(layout: Layout) -> tuple[str, ...]:
    nibbles = ("weight/nibbles_embedding",) if layout == "rows_embedding" else ()
    return (*nibbles, f"weight/{layout}")


def _scales_pieces(dtype: ScalesDtype, halves: Halves) -> tuple[str, ...]:
    return (f"half/{halves}", "scales/f16") if dtype == "float16" else ("scales/f32",)


def _suffix(pieces: tuple[str, ...]) -> str:
    return "_integer_halves" if "half/integer" in pieces else ""


@cache
def embedding(
    layout: Layout,
    scales: ScalesDtype,
    output: OutputDtype = "float32",
    storage: Storage = "buffer",
    halves: Halves = "native",
) -> Variant:
    """Rows of the matrix by id; ids and result both in buffers or both in 3-D textures."""
    half = "half" if output == "float16" else "float"
    result, grid = f"embedding/output_{storage}_{half}", "embedding/grid_quads"
    if (storage, output) == ("buffer", "float16"):
        result, grid = "embedding/output_buffer_half_wide", "embedding/grid_octets"
    pieces = (
        *_scales_pieces(scales, halves),
        *((f"half/{halves}",) if output == "float16" else ()),
        "shape/overrides",
        *_weight_pieces(layout),
        f"embedding/place_{storage}",
        f"embedding/indices_{storage}",
        result,
        "embedding/embedding_q4gsw",
        "embedding/grid_flat",
        grid,
    )
    return Variant(
        f"embedding_q4gsw_{layout}_{scales}_scales_{storage}_{half}{_suffix(pieces)}",
        tuple(dict.fromkeys(pieces)),
    )


@cache
def pack_blocks(target: Layout) -> Variant:
    """Rows, linear convention, to blocks in a buffer or a texture."""
    return Variant(
        f"pack_q4_linear_weight_{target}",
        (
            "shape/overrides",
            "weight/rows",
            f"pack/target_{target.removeprefix('blocks_')}",
            "pack/pack_q4_linear_weight",
            "pack/grid_flat",
        ),
    )


LinearKernel = Literal[
    "gemv",
    "gemv_wide",
    "gemv_wide_subnormal",
    "gemv_int16",
    "gemv_int8",
    "gemm",
    "gemm_int8",
    "gemm_matrix",
]
"""``gemv`` and ``gemm`` are there for every layout and shape, in float32.  The others need K and G
to be multiples of 32, the wide ones rows as well; ``gemv_wide_subnormal`` needs a device that keeps
half-precision subnormals.  ``int16`` and ``int8`` round x to integers of so many bits.
``gemm_matrix`` rounds x and the weight to half precision, for matrix units, which few devices have;
it reads rows and blocks in buffers."""

MatrixTile = Literal["32x128", "32x64", "16x64"]
"""What a subgroup of ``gemm_matrix`` computes: rows of x × outputs."""

INTEGER_BITS: dict[LinearKernel, int] = {"gemv_int16": 16, "gemv_int8": 8, "gemm_int8": 8}
"""The kernels that round x, and to how many bits."""

ROUNDING: frozenset[LinearKernel] = frozenset({*INTEGER_BITS, "gemm_matrix"})
"""The kernels that round x to anything less than float32."""

Preparation = Literal["transpose_x", "quantize_x", "quantize_columns"]
"""A pass that puts x into the form in which a kernel reads it."""

PROBE_HALVES = Variant("probe_halves", ("probe/halves",))


@cache
def linear(
    kernel: LinearKernel,
    layout: Layout,
    scales: ScalesDtype,
    bias: bool,
    halves: Halves = "native",
    *,
    prepared: bool = False,
) -> Variant:
    """``x · Wᵀ + bias``.

    Args:
        prepared: for the GEMVs on integers, whether x comes from ``quantize_x``; without it every
            workgroup quantizes one row of x for itself.
    """
    is_rows = layout.startswith("rows")
    weight = _weight_pieces(layout)
    bodies: tuple[str, ...]
    if kernel == "gemm":
        stage = f"linear/gemm/stage_{'rows' if is_rows else 'blocks'}"
        bodies = ("linear/common/exact_f32", "linear/common/gemm_tile", "linear/gemm/gemm", stage)
    elif kernel == "gemm_int8":
        stage = f"linear/gemm_integers/stage_{'rows' if is_rows else 'blocks'}"
        bodies = ("linear/common/gemm_tile", "linear/gemm_integers/gemm", stage)
    elif kernel in INTEGER_BITS:
        order = f"linear/common/integers_order_{'rows' if is_rows else 'blocks'}"
        x: tuple[str, ...] = (order, "linear/common/quantize", "linear/gemv_integers/integers_here")
        if prepared:
            x = (order, "linear/gemv_integers/integers_before")
        if is_rows:
            weight = ("weight/rows_wide",)
            bodies = ("linear/gemv/team", *x, "linear/gemv_integers/gemv_rows")
        else:
            bodies = (*x, "linear/gemv_integers/gemv_blocks")
    elif kernel == "gemv":
        bodies = ("linear/common/exact_f32", f"linear/gemv/gemv_{'rows' if is_rows else 'blocks'}")
    else:
        weight = ("weight/rows_wide",)
        nibbles = "subnormal" if kernel == "gemv_wide_subnormal" else "integer"
        bodies = (
            "linear/common/exact_f32",
            f"linear/gemv/nibbles_{nibbles}",
            "linear/gemv/team",
            "linear/gemv/gemv_wide",
        )
    pieces = (
        "shape/overrides",
        *weight,
        *_scales_pieces(scales, halves),
        *(() if is_rows else ("scales/four_rows",)),
        "linear/common/bias_buffer" if bias else "linear/common/bias_none",
        *bodies,
    )
    name = f"linear_q4gsw_{kernel}_{layout}_{scales}_scales{'_bias' if bias else ''}"
    return Variant(f"{name}{'_prepared' if prepared else ''}{_suffix(pieces)}", pieces)


@cache
def preparation(name: Preparation, layout: Layout) -> Variant:
    """The pass of that name; the order of integers follows the weight's layout."""
    if name == "transpose_x":
        return Variant(name, ("shape/overrides", "linear/gemm/transpose_x"))
    order = "rows" if layout.startswith("rows") else "blocks"
    pieces = (
        "shape/overrides",
        f"linear/common/integers_order_{order}",
        "linear/common/quantize",
        "linear/gemv_integers/quantize_x"
        if name == "quantize_x"
        else "linear/gemm_integers/quantize_columns",
    )
    return Variant(f"{name}_for_{order}", pieces)


@cache
def linear_matrix(
    tile: MatrixTile,
    layout: Layout,
    scales: ScalesDtype,
    bias: bool,
    halves: Halves = "native",
) -> Variant:
    """``x · Wᵀ + bias`` on matrix units, which takes x as `halve_x` makes it."""
    rows = layout == "rows"
    pieces = (
        "linear/matrix_units/extensions",
        "shape/overrides",
        "weight/rows_wide" if rows else f"weight/{layout}",
        *_scales_pieces(scales, halves),
        "linear/common/bias_buffer" if bias else "linear/common/bias_none",
        f"linear/matrix_units/tile_{tile}",
        "linear/matrix_units/gemm",
        f"linear/matrix_units/stage_{'rows' if rows else 'blocks'}",
    )
    name = f"linear_q4gsw_gemm_matrix_{layout}_{scales}_scales{'_bias' if bias else ''}_{tile}"
    return Variant(f"{name}{_suffix(pieces)}", pieces)


@cache
def halve_x(halves: Halves = "native") -> Variant:
    """x in half precision, in tiles, each row with its own power of two."""
    pieces = ("shape/overrides", f"half/{halves}", "linear/matrix_units/halve_x")
    return Variant(f"halve_x{_suffix(pieces)}", pieces)


Reduce = Literal["argmax", "top_k"]
"""What is kept of a row of logits."""

Entries = Literal["logits", "candidates"]
"""What a reduction reads: floats, or what an earlier reduction left."""


@cache
def reduction(reduce: Reduce, entries: Entries) -> Variant:
    """The best entries of each slice of each row."""
    pieces = (f"reduce/of_{entries}", "reduce/rank", f"reduce/{reduce}")
    return Variant(f"{reduce}_of_{entries}", pieces)


def all_variants() -> Iterator[Variant]:
    """Every variant that this package can run on any device."""
    layouts: tuple[Layout, ...] = get_args(Layout)
    dtypes: tuple[ScalesDtype, ...] = get_args(ScalesDtype)
    outputs: tuple[OutputDtype, ...] = get_args(OutputDtype)
    storages: tuple[Storage, ...] = get_args(Storage)
    for layout, scales, output, storage in product(layouts, dtypes, outputs, storages):
        for halves in _halves("float16" in (scales, output)):
            yield embedding(layout, scales, output, storage, halves)
    yield pack_blocks("blocks_buffer")
    yield pack_blocks("blocks_texture2d")
    yield PROBE_HALVES
    yield preparation("transpose_x", "rows")
    for order in ("rows", "blocks_buffer"):
        yield preparation("quantize_x", order)
        yield preparation("quantize_columns", order)
    for reduce, entries in product(get_args(Reduce), get_args(Entries)):
        yield reduction(reduce, entries)
    for layout, scales, bias in product(layouts, dtypes, (False, True)):
        names = (name for name in linear_kernels(layout) if name != "gemm_matrix")
        for name, halves in product(names, _halves(scales == "float16")):
            yield linear(name, layout, scales, bias, halves)
            if name in ("gemv_int16", "gemv_int8"):
                yield linear(name, layout, scales, bias, halves, prepared=True)


def matrix_variants() -> Iterator[Variant]:
    """Those for devices with matrix units, and the one that prepares x for them."""
    yield from map(halve_x, _halves(True))
    tiles: tuple[MatrixTile, ...] = get_args(MatrixTile)
    layouts: tuple[Layout, ...] = ("rows", "blocks_buffer")
    dtypes: tuple[ScalesDtype, ...] = get_args(ScalesDtype)
    for tile, layout, scales, bias in product(tiles, layouts, dtypes, (False, True)):
        for halves in _halves(scales == "float16"):
            yield linear_matrix(tile, layout, scales, bias, halves)


def linear_kernels(layout: Layout) -> tuple[LinearKernel, ...]:
    """The kernels that there are for a weight held so."""
    every: tuple[LinearKernel, ...] = get_args(LinearKernel)
    if layout == "rows":
        return every
    if layout == "rows_embedding":
        return "gemv", "gemm", "gemm_int8"
    if layout == "blocks_buffer":
        return tuple(name for name in every if not name.startswith("gemv_wide"))
    return tuple(name for name in every if not name.startswith(("gemv_wide", "gemm_matrix")))


def _halves(used: bool) -> tuple[Halves, ...]:
    """The ways to convert halves in a variant that has some, else one way, which is not used."""
    ways: tuple[Halves, ...] = get_args(Halves)
    return ways if used else ways[:1]


BlockStorage = Literal["buffer", "texture2d"]
"""Where ExecuTorch holds a weight that its linear op packed."""


@cache
def executorch_embedding(
    blocks: BlockStorage | None, scales: ScalesDtype, output: OutputDtype, storage: Storage
) -> Variant:
    """A variant of ``et_vk.embedding_q4gsw``, by ExecuTorch's name for it.

    The host interface is ExecuTorch's.  Halves are converted by integers: nothing can be probed
    there, and the built-in functions differ between devices.

    Args:
        blocks: where the linear op's packed weight is, or None for rows in the embedding
            convention.
    """
    half = "half" if output == "float16" else "float"
    scales_name = "" if scales == "float16" else "_float_scales"
    weight_name = "" if blocks is None else f"_linear_weight_{blocks}"
    weight: tuple[str, ...]
    if blocks is None:
        vocab = "shape/vocab_of_rows"
        weight = ("weight/nibbles_embedding", "weight/rows_embedding_wide")
    else:
        vocab = f"shape/vocab_of_scales_{'f16' if scales == 'float16' else 'f32'}"
        weight = (f"weight/blocks_{blocks}", "weight/run_of_quads")
    result: tuple[str, ...] = (f"embedding/output_{storage}_{half}", "embedding/octet_as_quads")
    if (storage, output) == ("buffer", "float16"):
        result = ("embedding/output_buffer_half_wide",)
    pieces = (
        *(("half/integer",) if "float16" in (scales, output) else ()),
        "shape/executorch",
        vocab,
        *weight,
        *_scales_pieces(scales, "integer"),
        "scales/run",
        f"embedding/indices_{storage}",
        *result,
        "embedding/embedding_q4gsw",
        "embedding/grid_executorch",
    )
    return Variant(
        f"embedding_q4gsw{scales_name}{weight_name}_{storage}_{half}", tuple(dict.fromkeys(pieces))
    )


@cache
def executorch_pack(target: BlockStorage) -> Variant:
    """A variant of ``pack_q4_linear_weight``, by ExecuTorch's name for it."""
    return Variant(
        f"pack_q4_linear_weight_{target}",
        (
            "shape/executorch_pack",
            "weight/rows",
            f"pack/target_{target}",
            "pack/pack_q4_linear_weight",
            "pack/grid_executorch",
        ),
    )


def executorch_variants() -> Iterator[Variant]:
    """Every kernel that is generated for ExecuTorch, in no order that means anything."""
    blocks: tuple[BlockStorage | None, ...] = (None, "buffer", "texture2d")
    dtypes: tuple[ScalesDtype, ...] = get_args(ScalesDtype)
    outputs: tuple[OutputDtype, ...] = get_args(OutputDtype)
    storages: tuple[Storage, ...] = get_args(Storage)
    for block, scales, output, storage in product(blocks, dtypes, outputs, storages):
        yield executorch_embedding(block, scales, output, storage)
    yield executorch_pack("buffer")
    yield executorch_pack("texture2d")
