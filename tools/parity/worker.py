"""One backend in a process of its own.

The Vulkan loader reads which driver to load from the environment that its process starts with, and
a kernel that crashes a driver takes its process with it, not the whole run.

The request has the fields ``backend``, ``kernels`` and ``cases``.  The worker answers with
``absent``, the reason why the backend cannot be made; or with ``summary`` and ``versions``, then
with the fields of a `Cell` for each case in turn, then with ``closed``, what went wrong at the end.
"""

from __future__ import annotations

import sys
import time
import warnings
from typing import Any

from tools.parity.backends import Backend, NotApplicableError, make
from tools.parity.excuses import excuses_of
from wgpu_q4.check.cases import Case
from wgpu_q4.check.excuses import judge
from wgpu_q4.check.process import serve


def main() -> int:
    """Serve one request; return the exit status."""
    warnings.simplefilter("ignore")
    request, say = serve()
    try:
        backend = make(request["backend"], request["kernels"])
    except Exception as error:
        say(absent=_text(error))
        return 0
    say(summary=backend.summary, versions=backend.versions)
    for fields in request["cases"]:
        say(**_run(request["backend"], backend, Case.from_json(fields)))
    try:
        backend.close()
    except Exception as error:
        say(closed=_text(error))
    else:
        say(closed="")
    return 0


def _run(name: str, backend: Backend, case: Case) -> dict[str, Any]:
    """Return the fields of a cell."""
    start = time.perf_counter()
    try:
        found, remark = backend.run(case)
        seconds = time.perf_counter() - start
        judgement = judge(case, found, excuses_of(name))
    except NotApplicableError as error:
        return {"status": "not applicable", "remark": str(error)}
    except Exception as error:
        return {"status": "error", "remark": _text(error)}
    distance = judgement.distance
    return {
        "status": judgement.status,
        "ulp": distance.ulp,
        "differing": distance.differing,
        "excuses": list(judgement.excuses),
        "values": int(found.size),
        "seconds": round(seconds, 6),
        "remark": "; ".join(filter(None, (remark, distance.first))),
    }


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    sys.exit(main())
