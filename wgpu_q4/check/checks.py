"""All checks, in order, and how one of them is run."""

from __future__ import annotations

import time

from wgpu_q4.check.finding import Check, Finding, NotHereError, Status
from wgpu_q4.check.lookup import lookups
from wgpu_q4.check.products import products
from wgpu_q4.device import Context
from wgpu_q4.errors import DeviceLimitError


def all_checks(only: str = "") -> list[Check]:
    """Return every check with ``only`` in its title; the list is the same in every process."""
    return [check for check in (*lookups(), *products()) if only in check.title]


def examine(check: Check, context: Context) -> Finding:
    """Run a check.  No exception leaves this function, whatever the driver does."""
    start = time.perf_counter()
    try:
        outcome = check.run(context)
    except (NotHereError, DeviceLimitError) as error:
        return Finding(check.op, check.title, "not here", str(error))
    except Exception as error:  # of any type: wgpu and Dawn have their own
        return Finding(check.op, check.title, "failed", f"{type(error).__name__}: {error}")
    seconds = round(time.perf_counter() - start, 6)
    status: Status = "agrees"
    if outcome.allowed:
        status = "allowed"
    if outcome.wrong:
        status = "differs"
    detail = outcome.wrong or ", ".join(outcome.allowed)
    return Finding(check.op, check.title, status, detail, outcome.share, seconds)
