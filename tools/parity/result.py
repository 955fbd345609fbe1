"""What every backend made of every case."""

from __future__ import annotations

from dataclasses import dataclass, field

from wgpu_q4.check.cases import Case


@dataclass
class Cell:
    """What one backend made of one case.

    Attributes:
        status: ``exact``, ``excused`` (every difference is a known one), ``differs``, ``error``,
            ``not applicable`` or ``not run``.
        ulp: the largest error in units in the last place, where there is a result.
        differing: how many of the values differ.
        values: how many there are.
        seconds: taken by the backend, with its preparations.
        excuses: the names of the excuses that were needed.
        remark: the first difference, the text of an error, or why the case does not apply.
    """

    status: str = "not run"
    ulp: int = 0
    differing: int = 0
    values: int = 0
    seconds: float = 0.0
    excuses: list[str] = field(default_factory=list)
    remark: str = ""

    @property
    def failed(self) -> bool:
        """Return True if the run fails by this cell."""
        return self.status in ("differs", "error", "not run")


@dataclass
class Column:
    """One backend, with a cell for each case.

    Attributes:
        name: as given on the command line.
        summary: what ran on which adapter; empty if the backend is absent.
        versions: the versions of the backend's packages.
        problem: why the backend is absent, or what went wrong besides the cases.
        cells: in the order of the cases.
    """

    name: str
    cells: list[Cell]
    summary: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    problem: str = ""

    @property
    def failed(self) -> bool:
        """Return True if the run fails by this backend."""
        return bool(self.problem) or any(cell.failed for cell in self.cells)

    def count(self, status: str) -> int:
        """Return how many cases ended in ``status``."""
        return sum(cell.status == status for cell in self.cells)


@dataclass
class Result:
    """A whole run.

    Attributes:
        cases: the rows.
        columns: the backends.
        left_out: backends that did not run, and why.
        versions: of Python, this package and the system.
    """

    cases: list[Case]
    columns: list[Column]
    left_out: dict[str, str]
    versions: dict[str, str]

    @property
    def failed(self) -> bool:
        """Return True if a backend is absent, wrong or broken, or if nothing was compared."""
        return not self.cases or not self.columns or any(item.failed for item in self.columns)
