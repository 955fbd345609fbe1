"""Random inputs (Hypothesis): the same in each run, see ``tests/conftest.py``."""

from __future__ import annotations

from hypothesis import strategies as st

from tests.cases import Shape


@st.composite
def shapes(draw: st.DrawFn, vocab: int = 70, octets: int = 12, octet: int = 8) -> Shape:
    """Draw a matrix: V up to ``vocab``, K up to ``octets`` times ``octet``, any G that divides it.

    Args:
        draw: given by Hypothesis.
        vocab: the largest V.
        octets: the largest number of units in a row.
        octet: the unit of K and of G: a multiple of 8.
    """
    count = draw(st.integers(1, octets))
    divisors = [units for units in range(1, count + 1) if count % units == 0]
    group = draw(st.sampled_from(divisors))
    return Shape(draw(st.integers(1, vocab)), count * octet, group * octet)
