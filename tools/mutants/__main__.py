"""``python -m tools.mutants``: make every mutant, run what it reaches, and report the survivors."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence

from tools.mutants import embedding
from tools.mutants.mutant import Mutant
from tools.mutants.suites import LINEAR, REDUCE, TRANSPOSED_PRODUCT, judge_all
from tools.mutants.table import ON_EMBEDDING, ON_LINEAR, ON_REDUCE, ON_TRANSPOSED
from tools.mutants.verdict import Verdict


def verdicts(text: str) -> Iterator[Verdict]:
    """Yield the verdict of each mutant whose description contains ``text``."""

    def named(mutants: Sequence[Mutant]) -> list[Mutant]:
        return [mutant for mutant in mutants if text in str(mutant)]

    if linear := named(ON_LINEAR):
        yield from judge_all(LINEAR, linear, teams=2)
    if reduce := named(ON_REDUCE):
        yield from judge_all(REDUCE, reduce)
    if transposed := named(ON_TRANSPOSED):
        yield from judge_all(TRANSPOSED_PRODUCT, transposed)
    yield from map(embedding.judge, named(ON_EMBEDDING))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status: 1 if a mutant survived, or none has that text."""
    parser = argparse.ArgumentParser(prog="python -m tools.mutants", description=__doc__)
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="mutants that have TEXT in their name"
    )
    options = parser.parse_args(arguments)
    found = []
    for verdict in verdicts(options.only):
        print(verdict, flush=True)
        found.append(verdict)
    survivors = [verdict for verdict in found if verdict.problems]
    print(f"{len(found)} mutants, {len(survivors)} survived")
    for verdict in survivors:
        print(verdict)
    return int(bool(survivors) or not found)


if __name__ == "__main__":
    sys.exit(main())
