"""Mutants of argmax and top-k, whose cases are rows of floats (`tools.mutants.cases`)."""

from tools.mutants.cases import Reduction
from tools.mutants.mutant import Mutant

_ORDER, _RANK = "reduce/order", "reduce/rank"
_ARGMAX, _TOP_K = "reduce/argmax", "reduce/top_k"


def zeros(case: Reduction) -> bool:
    return case.floats == "both zeros"


def nan(case: Reduction) -> bool:
    return case.floats == "bits of NaN"


def has_equals(case: Reduction) -> bool:
    """Some of the largest are equal, so their order is that of their ids."""
    return case.floats != "normal"


def is_long(case: Reduction) -> bool:
    """The largest may lie in any lane."""
    return case.floats in ("infinity twice", "normal")


def has_late_slices(case: Reduction) -> bool:
    """The largest of a row lies beyond the second slice."""
    return case.floats == "normal"


def is_out_of_order(case: Reduction) -> bool:
    """The entries must be sorted."""
    return case.floats != "all equal"


def in_parts(case: Reduction) -> bool:
    return case.parts > 1


def rows_differ(case: Reduction) -> bool:
    """The rows have different results."""
    same = {"all equal"} if case.reduce == "top_k" else {"all equal", "infinity twice"}
    return case.floats not in same


MUTANTS = (
    Mutant(_ORDER, "$bits > 0x80000000u", "$bits >= 0x80000000u", reaches=zeros),
    Mutant(_ORDER, "$magnitude > 0x7f800000u", "$magnitude > 0x7fffffffu", reaches=nan),
    Mutant(_ORDER, "$magnitude > 0x7f800000u", "$magnitude >= 0x7f800000u", reaches=nan),
    Mutant(_RANK, "$a.y < $b.y", "$a.y > $b.y", reaches=has_equals),
    Mutant(_ARGMAX, "LANES / 2u", "LANES / 4u", "read", is_long),
    Mutant(_ARGMAX, "$flat % $parts *", "$flat % $parts % 2u *", "read", has_late_slices),
    Mutant(_TOP_K, "$size <= SLICE", "$size < SLICE", reaches=is_out_of_order),
    Mutant(_TOP_K, "($at & $size) == 0u", "($at & $size) <= SLICE", reaches=is_out_of_order),
    Mutant("reduce/of_logits", "$row * COLUMNS", "0u * COLUMNS", "read", rows_differ),
    Mutant("reduce/of_logits", "sizes.y + $column", "0u + $column", reaches=in_parts),
    Mutant("reduce/of_logits", "+ sizes.z +", "+ 0u +", "unwritten", in_parts),
    Mutant("reduce/of_candidates", "$row * COLUMNS", "0u * COLUMNS", "read", rows_differ),
    Mutant("reduce/to_entries", "= $entry;", "= $entry.yx;"),
    Mutant("reduce/to_ids", "= $entry.y;", "= $entry.x;"),
    Mutant("reduce/to_values_and_ids", "= $entry.x;", "= $entry.y;"),
    Mutant("reduce/to_values_and_ids", "= $entry.y;", "= $entry.x;"),
)
