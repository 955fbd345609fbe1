"""Run the checks in a worker; if one of them ends the worker, the rest in another."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from wgpu_q4.check.checks import all_checks
from wgpu_q4.check.finding import Check, Finding
from wgpu_q4.check.process import ProcessError, answers
from wgpu_q4.check.report import Report
from wgpu_q4.errors import DeviceError

_SECONDS_FOR_A_CHECK = 120
_MOST_CRASHES = 5


def run(
    only: str = "",
    adapter: str | None = None,
    implementation: str | None = None,
    begin: Callable[[str], None] = lambda title: None,
) -> Report:
    """Run checks on one adapter.

    Args:
        only: run the checks with this text in their title.
        adapter: part of the adapter's name.
        implementation: ``"wgpu"`` or ``"wgpudawn"``.
        begin: called with the title of each check before it is run.

    Raises:
        DeviceError: no adapter (of that name), or the driver crashes before any check.
    """
    checks, report, crashes = all_checks(only), Report(), 0
    while len(report.findings) < len(checks):
        request = {
            "adapter": adapter,
            "implementation": implementation,
            "only": only,
            "first": len(report.findings),
        }
        try:
            _fill(report, checks, request, begin)
        except ProcessError as error:
            crashes += 1
            if not report.adapter:
                raise DeviceError(f"the driver does not start: {error}") from error
            if len(report.findings) < len(checks):
                due = checks[len(report.findings)]
                report.findings.append(Finding(due.op, due.title, "failed", str(error)))
        if crashes == _MOST_CRASHES:
            why = f"not run: the driver has crashed {crashes} times"
            rest = checks[len(report.findings) :]
            report.findings += [Finding(check.op, check.title, "failed", why) for check in rest]
    return report


def _fill(
    report: Report,
    checks: Sequence[Check],
    request: Mapping[str, object],
    begin: Callable[[str], None],
) -> None:
    """Add what one worker finds, until it has run the last check."""
    for answer in answers("wgpu_q4.check.worker", request, seconds=_SECONDS_FOR_A_CHECK):
        if "absent" in answer:
            raise DeviceError(answer["absent"])
        if "op" in answer:
            report.findings.append(Finding(**answer))
        else:
            report.adapter, report.implementation = answer["adapter"], answer["implementation"]
        if len(report.findings) < len(checks):
            begin(checks[len(report.findings)].title)
