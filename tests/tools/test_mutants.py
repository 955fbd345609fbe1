"""A few mutants, and that the tool which judges them can fail.  ``make mutants`` runs them all."""

from __future__ import annotations

import ast
from dataclasses import replace

from tests.devices import ROOT
from tests.exact import Product
from tools.mutants import embedding
from tools.mutants.mutant import Mutant
from tools.mutants.suites import LINEAR, REDUCE, TRANSPOSED_PRODUCT, judge_all
from tools.mutants.table import ON_EMBEDDING, ON_LINEAR, ON_REDUCE, ON_TRANSPOSED
from tools.mutants.verdict import Verdict


def problems(verdicts: list[Verdict]) -> list[str]:
    return [str(verdict) for verdict in verdicts if verdict.problems or verdict.not_run]


def test_mutants_of_linear_are_caught() -> None:
    verdicts = list(judge_all(LINEAR, ON_LINEAR[3::14]))
    assert len(verdicts) >= 4
    assert problems(verdicts) == []


def test_mutants_of_reductions_are_caught_by_every_backend() -> None:
    verdicts = list(judge_all(REDUCE, ON_REDUCE[:1]))
    assert problems(verdicts) == []
    assert verdicts[0].red.keys() == set(REDUCE.backends)


def test_mutants_of_the_transposed_product_are_caught() -> None:
    verdicts = list(judge_all(TRANSPOSED_PRODUCT, ON_TRANSPOSED[::3]))
    assert problems(verdicts) == []


def test_mutants_of_the_embedding_are_caught_by_every_backend() -> None:
    """Three at once, which reach different cases."""
    chosen = (ON_EMBEDDING[0], ON_EMBEDDING[2], ON_EMBEDDING[4])
    assert len({mutant.piece for mutant in chosen}) == 3
    assert embedding.red(*chosen) == {
        backend: frozenset().union(*(embedding.expected(one, backend) for one in chosen))
        for backend in embedding.BACKENDS
    }


def test_the_judge_can_fail() -> None:
    cases = (Product("gemv_int8", "rows", 1), Product("gemv_wide", "rows", 3))
    # The default of an override that each plan sets: nothing changes.
    harmless = Mutant("linear/gemv/gemv_wide", "SLICE: u32 = 64u", "SLICE: u32 = 32u")
    # The first 32 columns are not staged: an earlier kernel left what stands in their place.
    undefined = Mutant("linear/gemv_integers/integers_here", "= $lane; $i", "= $lane + 1u; $i")
    broken = Mutant("linear/gemv/gemv_wide", "SLICE: u32 = 64u", "SLICE: u32 = 64.5")
    elsewhere = Mutant("linear/gemm/gemm", "DEPTH = 16u", "DEPTH = 32u")
    mutants = (harmless, undefined, broken, elsewhere)
    survived, depends, failed, unreached = judge_all(replace(LINEAR, cases=cases), mutants)
    assert survived.problems == (f"stayed green on wgpu/lavapipe: {cases[1]}",)
    assert "depends on what workgroup memory held before" in depends.problems[-1]
    assert failed.problems[0].startswith("wgpu/lavapipe: ")
    assert "no case that runs here has its piece" in str(unreached)


def test_the_tests_that_mutants_name_exist() -> None:
    for named in (LINEAR.test, REDUCE.test, TRANSPOSED_PRODUCT.test, embedding.TEST):
        file, _, function = named.partition("::")
        body = ast.parse((ROOT / file).read_text(encoding="utf-8")).body
        assert function in {node.name for node in body if isinstance(node, ast.FunctionDef)}, named
