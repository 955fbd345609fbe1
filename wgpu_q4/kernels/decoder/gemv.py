"""A product with one row of x, and what is done before and after it in the same dispatch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache

from wgpu_q4.format import ScalesDtype
from wgpu_q4.kernels.decoder.shapes import (
    Activation,
    Epilogue,
    Matrix,
    WeightType,
    float_bits,
    two_halves_pieces,
)
from wgpu_q4.kernels.decoder.teams import SHARED_X, choose_team
from wgpu_q4.kernels.dispatch import Dispatch, fold
from wgpu_q4.kernels.pieces import (
    halves_suffix,
    nibbles_pieces,
    scales_pieces,
    with_directives,
)
from wgpu_q4.kernels.traits import HalfSupport
from wgpu_q4.kernels.wgsl import Shader


@dataclass(frozen=True)
class GemvPlan:
    """What runs for one row of x.

    Attributes:
        dispatch: the product.
        workgroups: those that have work: as many sums of squares, or entries, are left.
    """

    dispatch: Dispatch
    workgroups: int


@dataclass(frozen=True)
class GemvForm:
    """What a GEMV is made of.

    Attributes:
        weight: the type of the weight.
        scales: the dtype of its scales, if it has some.
        epilogue: what is done with the product.
        normed: True if x is normalized on the way.
        bias: True if a bias is added before it is stored.
        activation: of a gated unit.
        capped: True if logits are capped softly.
        subgroups: True if sums are exchanged between the lanes of subgroups.
        alone: True if teams are single invocations.
        shared_x: True if these share what they load of x in subgroups.
    """

    weight: WeightType
    scales: ScalesDtype
    epilogue: Epilogue
    normed: bool = False
    bias: bool = False
    activation: Activation = "silu"
    capped: bool = False
    subgroups: bool = False
    alone: bool = False
    shared_x: bool = False


@cache
def gemv_shader(form: GemvForm, half_support: HalfSupport) -> Shader:
    """Return the GEMV of that form for a device whose half-precision functions do so much."""
    way = half_support.nibbles
    rows = ("weight/rows_wide", *nibbles_pieces(way), "decoder/gemv/dot_nibbles")
    pairs = (*two_halves_pieces(half_support), "decoder/pairs")
    scales = scales_pieces(form.scales, half_support.halves)
    weight: Mapping[WeightType, tuple[str, ...]] = {
        "q4gsw": (*scales, *rows, "decoder/gemv/weight_q4gsw"),
        "affine4": (*pairs, *rows, "decoder/gemv/weight_affine4"),
        "affine8": (*pairs, "decoder/gemv/weight_affine8"),
        "float16": (*two_halves_pieces(half_support), "decoder/gemv/weight_halves"),
    }
    ends: dict[Epilogue, tuple[str, ...]] = {
        "store": (
            *("linear/common/bias_buffer" if form.bias else "linear/common/bias_none",),
            "linear/common/result",
        ),
        "add": (),
        "glu": (f"decoder/{form.activation}",),
        "best": (f"decoder/cap_{'soft' if form.capped else 'none'}",),
    }
    by_subgroup = "_subgroup" if form.subgroups else ""
    x = "_subgroup" if form.shared_x else ""
    pieces = (
        "shape/overrides",
        *weight[form.weight],
        f"decoder/gemv/prologue_norm{by_subgroup}" if form.normed else "decoder/gemv/prologue_none",
        *ends[form.epilogue],
        f"decoder/gemv/epilogue_{form.epilogue}",
        f"decoder/gemv/x_in_chunks{x}",
        "decoder/gemv/gemv",
        # The last, because naga 29 aborts where a constant comes after the size of an array that is
        # computed from others.
        f"decoder/gemv/fold{'_alone' if form.alone else by_subgroup or '_memory'}",
    )
    kind = f"{form.weight}_{form.scales}_scales" if form.weight == "q4gsw" else form.weight
    if form.weight in ("q4gsw", "affine4") and way != "integer":
        kind += f"_{way}"
    words = [
        "_normed" if form.normed else "",
        "_bias" if form.bias else "",
        f"_{form.activation}" if form.epilogue == "glu" else "",
        "_capped" if form.capped else "",
        by_subgroup,
        f"_alone{x}" if form.alone else "",
        halves_suffix(pieces),
    ]
    return Shader(
        f"decoder_gemv_{kind}_{form.epilogue}{''.join(words)}",
        with_directives(pieces),
        f"one row of x{', normalized,' if form.normed else ''} times {_WEIGHTS[form.weight]}: "
        f"{_SAID[form.epilogue]}",
    )


_WEIGHTS: Mapping[WeightType, str] = {
    "q4gsw": "a q4gsw weight",
    "affine4": "a weight in 4 bits with offsets",
    "affine8": "a weight in 8 bits with offsets",
    "float16": "a float16 weight",
}
_SAID: Mapping[Epilogue, str] = {
    "store": "stored",
    "add": "added to the residual stream",
    "glu": "a gated linear unit",
    "best": "logits, and the best of each workgroup",
}


def plan_gemv(
    matrix: Matrix,
    epilogue: Epilogue,
    limits: Mapping[str, int],
    half_support: HalfSupport,
    *,
    squares: int = 0,
    epsilon: float = 0.0,
    bias: bool = False,
    activation: Activation = "silu",
    cap: float | None = None,
    software: bool = False,
    subgroup: int = 0,
    first_row: int = 0,
    first_entry: int = 0,
) -> GemvPlan:
    """Return the dispatch of a product with one row of x in the order of chunks.

    Args:
        matrix: the weight, K and G multiples of 32.
        epilogue: what is done with the product.
        limits: the device's limits.
        half_support: what its half-precision functions do.
        squares: sums of squares that x's producer left; 0 if x is not normalized on the way.
        epsilon: what the norm adds to the mean of the squares.
        bias: True if a bias is added before the product is stored.
        activation: of a gated unit.
        cap: the number c of logits capped as c · tanh(x / c); None for none.
        software: True if the device runs on the processor.
        subgroup: lanes of the device's subgroups, if they are known and in order; else 0.
        first_row, first_entry: of a part of the head: the row of the whole that is the first one
            there, and the entries that parts before it leave.
    """
    team = choose_team(matrix, software, epilogue, subgroup)
    is_alone = team.lanes == 1
    shared_x = is_alone and subgroup >= SHARED_X
    if software:  # where half-precision arithmetic is made of conversions
        half_support = replace(half_support, arithmetic=False)
    by_subgroup = 0 < team.rows <= subgroup and team.lanes % max(subgroup, 1) == 0
    form = GemvForm(
        matrix.type,
        matrix.shape.scales,
        epilogue,
        squares > 0,
        bias,
        activation if epilogue == "glu" else "silu",
        cap is not None,
        by_subgroup,
        is_alone,
        shared_x,
    )
    shape = matrix.shape
    constants = {**shape.constants, **team.constants}
    if by_subgroup:
        constants["SUBGROUP"] = subgroup
    elif not is_alone:
        constants["FOLD"] = team.fold
    if squares:
        constants |= {"SQUARES": squares, "EPSILON": float_bits(epsilon)}
    if cap is not None:
        constants["SOFT_CAP"] = float_bits(cap)
    if first_row:
        constants |= {"FIRST_ROW": first_row, "FIRST_ENTRY": first_entry}
    workgroups = -(-shape.vocab // team.outputs)
    shader = gemv_shader(form, half_support)
    needs = _needs(matrix, epilogue, squares, bias, workgroups)
    if epilogue == "best":
        needs["t_out"] += first_row * 4
        needs["t_out_best"] += first_entry * 8
    return GemvPlan(Dispatch(shader, constants, fold(workgroups, limits), needs), workgroups)


def _needs(
    matrix: Matrix, epilogue: Epilogue, squares: int, bias: bool, workgroups: int
) -> dict[str, int]:
    """Return the bytes that each buffer must hold, by the binding's name."""
    shape = matrix.shape
    scale_bytes = shape.vocab * (shape.embed_dim // shape.group_size)
    scale_bytes *= 2 if shape.scales == "float16" else 4
    outputs = shape.vocab // 2 if epilogue == "glu" else shape.vocab
    needs = {
        "t_x": shape.embed_dim * 4,
        "t_weight": matrix.nbytes,
        "t_out": outputs * 4,
    }
    if matrix.type == "q4gsw":
        needs["t_scales"] = scale_bytes + -scale_bytes % 4
    if matrix.pair_bytes:
        needs["t_pairs"] = matrix.pair_bytes
    if squares:
        needs["t_squares"] = squares * 4
    if bias:
        needs["t_bias"] = shape.vocab * 4
    if epilogue == "add":
        needs |= {
            "t_gain": shape.vocab * 4,
            "t_out_x": shape.vocab * 4,
            "t_out_squares": workgroups * 4,
        }
    if epilogue == "best":
        needs["t_out_best"] = workgroups * 8
    return needs
