"""`make architectures`: run the sweep, and write the table of the docs."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections import Counter
from pathlib import Path

import transformers
from tqdm import tqdm

from tools.architectures.check import FAILS, check
from tools.architectures.listing import architectures
from tools.architectures.table import page

PAGE = Path(__file__).resolve().parents[2] / "docs" / "architectures.md"


def main() -> int:
    """Return 1 if an architecture fails, 0 if all work or are refused."""
    parser = argparse.ArgumentParser(prog="make architectures", description=main.__doc__)
    parser.add_argument("--only", metavar="WORD", help="names that hold WORD; writes no table")
    only = parser.parse_args().only
    warnings.filterwarnings("ignore")  # of small sizes, which are what is asked for
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    chosen = [each for each in architectures() if only is None or only in each.name]
    outcomes = [check(each) for each in tqdm(chosen, unit="model")]
    for each in outcomes:
        if only or each.status == FAILS:
            print(f"{each.architecture.name}: {each.status} {each.why}".rstrip())
    print(
        ", ".join(
            f"{count} {status}" for status, count in Counter(o.status for o in outcomes).items()
        )
    )
    if only is None:
        PAGE.write_text(page(outcomes))
    return int(any(each.status == FAILS for each in outcomes))


if __name__ == "__main__":
    sys.exit(main())
