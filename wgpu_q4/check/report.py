"""All findings on one adapter, as text and as JSON."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from wgpu_q4 import __version__, rich
from wgpu_q4.check.excuses import INFINITE_TEXEL, SUBNORMALS_FLUSHED
from wgpu_q4.check.finding import Finding, Status

_SHOWN = 20
"""Bad findings that the text lists in full."""

_WORDS: dict[Status, str] = {
    "agrees": "agree",
    "allowed": "agree but for a known difference",
    "differs": "DIFFER",
    "failed": "FAILED",
    "not here": "not here",
}


@dataclass
class Report:
    """What was found on one adapter.

    Attributes:
        adapter: device, driver and API, in one line.
        implementation: the WebGPU module and its version.
        findings: one for each check, in order.
    """

    adapter: str = ""
    implementation: str = ""
    findings: list[Finding] = field(default_factory=list)

    @property
    def bad(self) -> list[Finding]:
        """Return the findings that something is wrong."""
        return [finding for finding in self.findings if finding.is_bad]

    @property
    def agrees(self) -> bool:
        """Return True if nothing is wrong."""
        return not self.bad

    @property
    def verdict(self) -> str:
        """Return one sentence on the whole."""
        statuses = [finding.status for finding in self.findings]
        run = len(statuses) - statuses.count("not here")
        if self.bad:
            return f"something is wrong: {len(self.bad)} of {run} checks"
        but = ", but for known differences" if "allowed" in statuses else ""
        return f"everything agrees with the float64 reference{but} ({run} checks)"

    def to_json(self) -> dict[str, Any]:
        """Return everything as a JSON object."""
        return {
            "agrees": self.agrees,
            "verdict": self.verdict,
            "wgpu_q4": __version__,
            "python": platform.python_version(),
            "system": platform.platform(),
            "adapter": self.adapter,
            "implementation": self.implementation,
            "findings": [finding.to_json() for finding in self.findings],
        }

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield f"{self.adapter}, {self.implementation}"
        yield f"wgpu_q4 {__version__}, Python {platform.python_version()}, {platform.platform()}\n"
        for op, counts in self._counts():
            yield f"{op:17} {counts}"
        for note in self._notes():
            yield f"\n{note}"
        bad = self.bad
        for finding in bad[:_SHOWN]:
            yield f"\n{finding.status.upper()}  {finding.title}\n  {finding.detail}"
        if len(bad) > _SHOWN:
            yield f"\nand {len(bad) - _SHOWN} more, which --json lists"
        yield f"\n{self.verdict}"
        if bad:
            yield (
                "Please report it, with the output of these two commands:\n"
                "  wgpu-q4 check --json\n"
                "  wgpu-q4 info --all"
            )

    def _counts(self) -> Iterator[tuple[str, str]]:
        """Yield each op, and how often its checks have which outcome."""
        for op in dict.fromkeys(finding.op for finding in self.findings):
            counts = Counter(item.status for item in self.findings if item.op == op)
            parts = [f"{counts[key]} {word}" for key, word in _WORDS.items() if counts[key]]
            yield op, ", ".join(parts)

    def _notes(self) -> Iterator[str]:
        """Yield what could not be checked here and why, and the known differences."""
        missing = Counter(item.detail for item in self.findings if item.status == "not here")
        for reason, count in missing.items():
            yield f"{count} not here: {reason}"
        known = " ".join(item.detail for item in self.findings if item.status == "allowed")
        for excuse in (SUBNORMALS_FLUSHED, INFINITE_TEXEL):
            if excuse.name in known:
                yield f"known difference: {excuse.name}: {excuse.cause}"

    def _repr_html_(self) -> str:
        rows: list[rich.Row] = [
            ("adapter", [self.adapter, self.implementation]),
            *self._counts(),
            ("notes", [*self._notes()]),
            *((item.status.upper(), [item.title, item.detail]) for item in self.bad[:_SHOWN]),
        ]
        return rich.table(self.verdict, rows)
