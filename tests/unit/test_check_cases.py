"""The cases of ``wgpu-q4 check`` and ``make parity``, and the oracle: tested without a device."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from wgpu_q4.check import oracle
from wgpu_q4.check.cases import Case
from wgpu_q4.check.excuses import INFINITE_TEXEL, SUBNORMALS_FLUSHED, judge
from wgpu_q4.check.finding import Finding
from wgpu_q4.check.lists import all_kernels, corner_cases, upstream_cases
from wgpu_q4.check.report import Report
from wgpu_q4.format import rows_to_blocks

CORNERS = corner_cases()


def test_upstream_cases_are_those_of_its_test() -> None:
    cases = upstream_cases()
    assert len(cases) == 34
    assert len(set(cases)) == 34
    assert sum(case.large for case in cases) == 5
    assert sum(case.weight != "flat" for case in cases) == 6
    assert sum(case.scales == "float32" for case in cases) == 10
    assert len({case.kernel for case in cases}) == 11
    assert not any("linear_weight_buffer" in case.kernel for case in cases)


def test_the_corners_are_all_there() -> None:
    kernels = {case.kernel for case in CORNERS if case.op == "embedding"}
    assert len(kernels) == len(all_kernels()) == 24
    packers = {case.kernel for case in CORNERS if case.op == "pack"}
    assert packers == {"pack_q4_linear_weight_buffer", "pack_q4_linear_weight_texture2d"}
    assert {len(case.ids_shape) for case in CORNERS} == {0, 1, 2, 3}
    assert any(case.recorded_shape for case in CORNERS)
    assert any(case.group_size == case.embed_dim for case in CORNERS)
    assert {1} < {case.vocab for case in CORNERS}
    assert any(case.vocab % 8 for case in CORNERS)
    assert {"zero", "subnormal", "largest", "ties"} < {case.scale_kind for case in CORNERS}
    assert {"ends", "repeated", "outside"} < {case.id_kind for case in CORNERS}
    assert len({case.name for case in CORNERS}) == len(CORNERS)


def test_extreme_scales_are_extreme() -> None:
    for case in CORNERS:
        scales = case.matrix().scales
        right = oracle.expected(case)
        if case.scale_kind == "subnormal":
            assert (scales > 0).all()
            assert (np.abs(right) < np.finfo(scales.dtype).tiny).all() or right.dtype != case.scales
        if case.scale_kind == "ties":
            # (u − 8) is ±1, ±2, ±4 or −8 in 7 of 16 nibbles; those products are halfway.
            exact = oracle.expected(replace(case, output="float32")).astype(np.float64)
            error = np.abs(exact - right.astype(np.float64))
            assert (2 * error == np.abs(np.spacing(right)).astype(np.float64)).mean() > 0.3
        if case.id_kind == "ends":
            assert set(case.ids().flat) == {0, case.vocab - 1}


def test_a_case_survives_json_with_its_numbers() -> None:
    for case in CORNERS:
        again = Case.from_json(json.loads(json.dumps(case.to_json())))
        assert again == case
        np.testing.assert_array_equal(again.ids(), case.ids())


def test_a_share_that_json_cannot_write_is_null() -> None:
    for share, written in ((0.5, 0.5), (None, None), (np.inf, None), (np.nan, None)):
        report = Report(findings=[Finding("linear", "a product", "differs", "off", share)])
        text = json.dumps(report.to_json(), allow_nan=False)
        assert json.loads(text)["findings"][0]["share"] == written


def test_blocks_are_those_of_the_format() -> None:
    generator = np.random.default_rng(0)
    for vocab, embed_dim in ((8, 8), (21, 96), (1, 32)):
        packed = generator.integers(0, 256, (vocab, embed_dim // 2), np.uint8)
        np.testing.assert_array_equal(oracle.blocks(packed), rows_to_blocks(packed))
    # Row 5, column 6, alone: block (0, 1), component 1, byte 2, high nibble.
    packed = np.zeros((8, 4), np.uint8)
    packed[5, 3] = 0x0B
    assert oracle.blocks(packed).tolist() == [[[0] * 4, [0, 0x00B00000, 0, 0]]]


def test_distance_counts_floats() -> None:
    right = np.array([1.0, -2.0, 0.0, 5.0], np.float32)
    assert oracle.distance(right.copy(), right) == oracle.Distance(0, 0)
    found = right.copy()
    found[1] = np.nextafter(np.float32(-2), np.float32(-3))
    assert oracle.distance(found, right).ulp == 1
    found[2] = -0.0
    signed = oracle.distance(found, right)
    assert (signed.ulp, signed.differing) == (1, 2)
    # Across zero: the smallest positive and the smallest negative float are two apart.
    tiny = np.array([6e-8], np.float16)
    assert oracle.distance(-tiny, tiny).ulp == 2
    assert oracle.distance(np.array([np.nan], np.float32), right[:1]).ulp > 1 << 22
    with pytest.raises(ValueError, match="expected float32"):
        oracle.distance(right.astype(np.float16), right)
    with pytest.raises(ValueError, match=r"\[4\]"):
        oracle.distance(right[:2], right)


def test_flushed_subnormals_are_excused_and_nothing_else_is() -> None:
    case = next(c for c in CORNERS if c.scale_kind == "subnormal" and c.output == c.scales)
    assert (case.output, case.storage) == ("float16", "buffer")
    case = replace(case, output="float32", scales="float32")
    right = oracle.expected(case)
    flushed = np.where(np.abs(right) < np.finfo(np.float32).tiny, 0, right).astype(np.float32)
    judgement = judge(case, flushed, [SUBNORMALS_FLUSHED])
    assert (judgement.status, judgement.excuses) == ("excused", ("subnormals flushed",))
    assert judge(case, flushed, []).status == "differs"
    assert judge(case, right, []).status == "exact"
    doubled = judge(case, 2 * right, [SUBNORMALS_FLUSHED])
    assert doubled.status == "differs"
    assert doubled.distance.differing == np.count_nonzero(right)
    normal = replace(case, scale_kind="random")
    assert judge(normal, 0 * oracle.expected(normal), [SUBNORMALS_FLUSHED]).status == "differs"


def test_only_the_texel_of_an_infinity_is_excused() -> None:
    case = next(c for c in CORNERS if c.scale_kind == "largest" and c.storage == "texture3d")
    right = oracle.expected(case)
    places = np.argwhere(np.isinf(right))
    found = right.copy()
    found[tuple(places[0])] = np.nan
    assert judge(case, found, [INFINITE_TEXEL]).status == "excused"
    assert judge(replace(case, storage="buffer"), found, [INFINITE_TEXEL]).status == "differs"
    whole = ~np.isinf(right).reshape(*right.shape[:-1], -1, 4).any(-1)
    texel = tuple(np.argwhere(whole)[0])
    found = right.copy()
    found.reshape(*right.shape[:-1], -1, 4)[texel] += 1
    assert judge(case, found, [INFINITE_TEXEL]).status == "differs"
