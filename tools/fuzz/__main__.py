"""Feed changed files to every reader, for a given time.

A reader must return, or raise a typed error whose text can be printed.  Anything else stops the
run, and the input that did it is written to the corpus as ``crash-…``: commit it with the fix.
`tools.fuzz.readers` says what an input is.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile

import atheris

with atheris.instrument_imports(include=["wgpu_q4.files", "wgpu_q4.pte"]):
    from tools.fuzz.readers import CORPUS, read


def main() -> None:
    """Parse the arguments and run until the time is over."""
    parser = argparse.ArgumentParser(prog="python -m tools.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="how long (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as found:  # new inputs go here, not to the committed corpus
        path = os.path.join(found, "file")
        new = os.path.join(found, "corpus")
        os.mkdir(new)
        limits = [f"-max_total_time={options.seconds}", f"-seed={options.seed}"]
        limits += ["-max_len=4096", "-timeout=20", "-rss_limit_mb=2048", "-print_final_stats=1"]
        atheris.Setup(
            [sys.argv[0], *limits, f"-artifact_prefix={CORPUS}/", new, str(CORPUS)],
            lambda data: read(data, path),
        )
        atheris.Fuzz()


if __name__ == "__main__":
    main()
