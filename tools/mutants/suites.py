"""Which cases run on which backends, and the judgement of mutants by them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from tests.exact import PRODUCTS
from tools.mutants.cases import REDUCTIONS, TRANSPOSED, Case
from tools.mutants.drivers import Ran, Worker, WorkerError
from tools.mutants.mutant import Mutant, always, write_pieces
from tools.mutants.verdict import Verdict, compared
from wgpu_q4 import kernels


@dataclass(frozen=True)
class Suite:
    """Cases, and where they run.

    Attributes:
        cases: what runs.
        backends: ``implementation/driver`` for each process.
        test: the test that runs the cases on the right kernels.
    """

    cases: Sequence[Case]
    backends: tuple[str, ...]
    test: str


LINEAR = Suite(PRODUCTS, ("wgpu/lavapipe",), "tests/gpu/test_exact_products.py::test_product")
REDUCE = Suite(
    REDUCTIONS,
    ("wgpu/lavapipe", "wgpu/swiftshader", "wgpudawn/swiftshader"),
    "tests/gpu/test_reductions.py::test_top_k_of_floats",
)
TRANSPOSED_PRODUCT = Suite(
    TRANSPOSED,
    ("wgpu/lavapipe", "wgpu/swiftshader"),
    "tests/gpu/test_linear_transposed.py::test_integers_are_summed_exactly",
)


@contextmanager
def pieces_with(*mutants: Mutant) -> Iterator[Path]:
    """Yield a temporary folder of pieces in which the places of the mutants are wrong."""
    with tempfile.TemporaryDirectory(prefix="wgpu_q4_mutant_") as scratch:
        yield write_pieces(kernels.source_folder(), Path(scratch) / "wgsl", mutants)


Right = Mapping[str, Mapping[str, Ran]]
"""By backend and name, what came of the cases on the right kernels."""


class Team:
    """A worker for each backend of a suite."""

    def __init__(self, suite: Suite, workers: Sequence[Worker], right: Right) -> None:
        self.suite = suite
        self._workers, self._right = workers, right

    def judge(self, mutant: Mutant) -> Verdict:
        """Run the cases that have the mutant's piece, and compare which of them turned red."""
        red: dict[str, frozenset[str]] = {}
        problems: list[str] = []
        reached = False
        with pieces_with(mutant) as folder:
            for worker in self._workers:
                cases = self._candidates(mutant, worker.backend)
                expected = frozenset(str(case) for case in cases if mutant.reaches(case))
                reached = reached or bool(expected)
                try:
                    ran = worker.ask(folder, map(str, cases))
                except WorkerError as error:
                    return Verdict(mutant, red, self.suite.test, (str(error),))
                found = red[worker.backend] = frozenset(one.case for one in ran if one.red)
                problems += compared(worker.backend, expected, found)
                problems += [
                    f"{one.case} on {worker.backend} depends on what workgroup memory held before"
                    for one in ran
                    if not one.defined
                ]
        if not reached:
            return Verdict(mutant, red, self.suite.test, (), "no case that runs here has its piece")
        return Verdict(mutant, red, self.suite.test, tuple(problems))

    def _candidates(self, mutant: Mutant, backend: str) -> list[Case]:
        right = self._right[backend]
        return [
            case
            for case in self.suite.cases
            if str(case) in right
            and mutant.piece in right[str(case)].pieces
            and _is_worth(case, mutant)
        ]


def _is_worth(case: Case, mutant: Mutant) -> bool:
    """Leave a case that takes long to the mutants that are made for some of the cases."""
    return not case.takes_long or mutant.reaches is not always


def run_right(suite: Suite, workers: Sequence[Worker], mutants: Sequence[Mutant]) -> Right:
    """Run the cases of a suite, as far as the mutants may need them, on the right kernels.

    Raises:
        WorkerError: a right kernel gives a wrong result, or one that is not defined.
    """
    cases = [
        str(case) for case in suite.cases if any(_is_worth(case, mutant) for mutant in mutants)
    ]
    with pieces_with() as folder, ThreadPoolExecutor(len(workers)) as pool:
        ran = list(pool.map(lambda worker: worker.ask(folder, cases), workers))
    right = {}
    for worker, done in zip(workers, ran, strict=True):
        wrong = [one.case for one in done if one.red or not one.defined]
        if wrong:
            raise WorkerError(f"wrong on {worker.backend} without any mutant: {wrong}")
        right[worker.backend] = {one.case: one for one in done}
    return right


def judge_all(suite: Suite, mutants: Sequence[Mutant], teams: int = 1) -> Iterator[Verdict]:
    """Yield the verdict of each mutant, in order.

    Args:
        suite: whose cases run.
        mutants: what to judge.
        teams: how many mutants to run at a time.

    Raises:
        WorkerError: see `run_right`.
    """
    with ExitStack() as stack, ThreadPoolExecutor(teams) as pool:
        staffs = [
            [stack.enter_context(Worker(backend)) for backend in suite.backends]
            for _ in range(teams)
        ]
        right = run_right(suite, staffs[0], mutants)
        free: SimpleQueue[Team] = SimpleQueue()
        for workers in staffs:
            free.put(Team(suite, workers, right))

        def judge(mutant: Mutant) -> Verdict:
            team = free.get()
            try:
                return team.judge(mutant)
            finally:
                free.put(team)

        yield from pool.map(judge, mutants)
