"""What came of a mutant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tools.mutants.mutant import Mutant


@dataclass(frozen=True)
class Verdict:
    """Which cases a mutant turned red, and what is wrong with that.

    Attributes:
        mutant: the mutant.
        red: by backend, the names of the cases that came out wrong.
        test: the test that runs these cases on the right kernels.
        problems: why the mutant does not count as caught; empty if it does.
        not_run: why the mutant could not be run here, or an empty string.
    """

    mutant: Mutant
    red: Mapping[str, frozenset[str]]
    test: str
    problems: tuple[str, ...] = ()
    not_run: str = ""

    def __str__(self) -> str:
        if self.not_run:
            return f"not run   {self.mutant}\n          {self.not_run}"
        if self.problems:
            return "\n          ".join((f"SURVIVED  {self.mutant}", *self.problems))
        by = "; ".join(
            f"{', '.join(sorted(cases))} on {backend}" for backend, cases in self.red.items()
        )
        return f"caught    {self.mutant}\n          {self.test}: {by}"


def compared(backend: str, expected: frozenset[str], red: frozenset[str]) -> tuple[str, ...]:
    """Return what differs between the cases that must turn red on a backend and those that did."""
    missed, others = sorted(expected - red), sorted(red - expected)
    return (
        *([f"stayed green on {backend}: {', '.join(missed)}"] if missed else []),
        *([f"turned red on {backend}, out of its reach: {', '.join(others)}"] if others else []),
    )
