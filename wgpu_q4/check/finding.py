"""What a check found."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from wgpu_q4.device import Context

Status = Literal["agrees", "allowed", "differs", "failed", "not here"]
"""``"allowed"``: with a difference that a specification allows; ``"failed"``: with an error;
``"not here"``: this device lacks what the check needs."""


class NotHereError(Exception):
    """This device lacks what a check needs; the message says what."""


@dataclass(frozen=True)
class Outcome:
    """How a result compares with the right one.

    Attributes:
        wrong: what is wrong and by how much, or an empty string.
        allowed: the known differences that the result has, by name.
        share: for a sum, the largest error as a share of its bound; more than 1 is wrong.
    """

    wrong: str = ""
    allowed: tuple[str, ...] = ()
    share: float | None = None


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        op: what is computed, as in `Finding`.
        title: one line that no other check has.
        run: computes on a device and compares; raises `NotHereError` if the device does not have
            the kernel, `DeviceLimitError` if it is too small.
    """

    op: str
    title: str
    run: Callable[[Context], Outcome]


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        op: what was computed: ``"pack"``, or the name of an op such as ``"embedding"``.
        title: one line that no other check has.
        status: see `Status`.
        detail: what is wrong, the known differences, or why the check does not apply.
        share: see `Outcome`.
        seconds: taken by the check, with the compilation of the kernel.
    """

    op: str
    title: str
    status: Status
    detail: str = ""
    share: float | None = None
    seconds: float = 0.0

    @property
    def is_bad(self) -> bool:
        """Return True if something is wrong here."""
        return self.status in ("differs", "failed")

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object; a share that is no finite number, which JSON lacks, is null."""
        share = self.share if self.share is not None and math.isfinite(self.share) else None
        return {**asdict(self), "share": share}
