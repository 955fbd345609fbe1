"""Mutants of the transposed product, whose case is a product of integers."""

from tools.mutants.cases import Transposed
from tools.mutants.mutant import Mutant

_BODY, _ADD = "linear/transposed/transposed", "linear/transposed/add_sections"


def in_parts(case: Transposed) -> bool:
    return case.in_parts


MUTANTS = (
    Mutant(_BODY, "$k8 * 8u / group_size()", "$k8 / group_size()", "read"),
    Mutant(_BODY, "$row < $end; $row += LANES", "$row + 1u < $end; $row += LANES"),
    Mutant(_BODY, "fma($b, $high, (*$sums).right1)", "fma($b, low, (*$sums).right1)"),
    Mutant(_BODY, "$first + 4u * WORDS", "$first", "read"),
    Mutant(_BODY, "$flat % $tiles_m * 4u", "$flat % $tiles_m * 0u"),
    Mutant(_BODY, "$first_m + 2u < sizes.x", "false", "unwritten"),
    Mutant(_BODY, "sizes.x - 1u) * Y_ROW", "sizes.x - 1u) * VOCAB", "read", in_parts),
    Mutant(_BODY, "sizes.z + $section", "0u + $section", "unwritten", in_parts),
    Mutant(_ADD, "var section = 0u", "var section = 1u"),
)
