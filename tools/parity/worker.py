"""One backend in a process of its own.

The Vulkan loader reads which driver to load from the environment that its process starts with, and
a kernel that crashes a driver takes a process with it, not the whole run.

Reads one JSON object from standard input: ``backend``, ``kernels``, ``cases``.  Writes one JSON
object a line: first ``summary`` and ``versions``, then a result for each case in turn, then
``closed``.
"""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from typing import Any, TextIO

import numpy as np

from tools.parity import oracle
from tools.parity.backends import Backend, NotApplicableError, make
from tools.parity.cases import Case
from tools.parity.excuses import excused


def main() -> int:
    """Serve one request; returns the exit status."""
    # Libraries print to standard output; the answers go where they cannot.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    request = json.load(sys.stdin)
    try:
        backend = make(request["backend"], request["kernels"])
    except Exception as error:
        _say(answers, absent=_text(error))
        return 0
    _say(answers, summary=backend.summary, versions=backend.versions)
    for fields in request["cases"]:
        _say(answers, **_run(request["backend"], backend, Case.from_json(fields)))
    try:
        backend.close()
    except Exception as error:
        _say(answers, closed=_text(error))
    else:
        _say(answers, closed="")
    return 0


def _run(name: str, backend: Backend, case: Case) -> dict[str, Any]:
    right = oracle.expected(case)
    start = time.perf_counter()
    try:
        found, remark = backend.run(case)
    except NotApplicableError as error:
        return {"status": "not applicable", "remark": str(error)}
    except Exception as error:
        return {"status": "error", "remark": _text(error)}
    seconds = time.perf_counter() - start
    try:
        distance = oracle.distance(oracle.without_padding(case, found), right)
    except ValueError as error:
        return {"status": "error", "remark": _text(error)}
    status = "exact"
    excuses: list[str] = []
    if distance.differing:
        found = oracle.without_padding(case, found)
        covered, excuses = excused(name, case, found, right)
        unexcused = oracle.distance(np.where(covered, right, found), right)
        status, distance = ("differs", unexcused) if unexcused.differing else ("excused", distance)
    return {
        "status": status,
        "ulp": distance.ulp,
        "differing": distance.differing,
        "excuses": excuses,
        "values": int(right.size),
        "seconds": round(seconds, 6),
        "remark": "; ".join(filter(None, (remark, distance.first))),
    }


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _say(answers: TextIO, **fields: Any) -> None:
    answers.write(json.dumps(fields) + "\n")
    answers.flush()


if __name__ == "__main__":
    sys.exit(main())
