"""What ``wgpu-q4 bench`` counts and shows: tested without a device."""

from __future__ import annotations

import argparse
import re

import pytest

from wgpu_q4.bench import accounting, jobs
from wgpu_q4.bench.result import Result
from wgpu_q4.bench.shapes import SHAPES, default_shape, matrix_shape, positive, seconds
from wgpu_q4.bench.table import duration, line
from wgpu_q4.bench.timing import Effort, Timing, time_calls
from wgpu_q4.kernels import MatrixShape

SMALL = MatrixShape(vocab=13, embed_dim=64, group_size=32, scales="float16")


def test_bytes_and_operations_of_a_small_matrix() -> None:
    assert accounting.packed_bytes(SMALL, "rows") == 13 * 32
    assert accounting.packed_bytes(SMALL, "blocks_buffer") == 16 * 32, "two strips of 8 rows"
    assert accounting.scales_bytes(SMALL) == 13 * 2 * 2
    # An id of 4 bytes, 32 of weight (from blocks those of 8 rows), two half scales, the row.
    assert accounting.embedding_bytes(SMALL, 5, "rows", "float32") == 5 * (4 + 32 + 4 + 256)
    assert accounting.embedding_bytes(SMALL, 5, "rows", "float16") == 5 * (4 + 32 + 4 + 128)
    assert accounting.embedding_bytes(SMALL, 5, "blocks_buffer", "float32") == 5 * (
        4 + 8 * 32 + 4 + 256
    )
    assert accounting.linear_bytes(SMALL, 3, "rows") == 416 + 52 + 4 * 3 * (64 + 13)
    assert accounting.linear_flops(SMALL, 3) == 2 * 3 * 13 * 64
    assert accounting.pack_bytes(SMALL, "blocks_buffer") == 416 + 512


def test_the_weight_takes_the_bytes_that_are_counted() -> None:
    weight = jobs.random_weight(SMALL)
    assert weight.packed.nbytes == accounting.packed_bytes(SMALL, "rows")
    assert weight.scales.nbytes == accounting.scales_bytes(SMALL)


def test_timing_is_median_and_quartiles() -> None:
    assert Timing.of([4.0, 1.0, 3.0, 2.0, 5.0]) == Timing(3.0, 2.0, 4.0, 5)
    assert Timing.of([2.0]) == Timing(2.0, 2.0, 2.0, 1)


def test_effort_bounds_samples_and_takes_one_at_least() -> None:
    effort = Effort(repeats=32, seconds=1.0)
    assert [effort.enough(one) for one in (0.0, 0.01, 0.1, 0.4, 9.0)] == [32, 32, 10, 3, 1]


def test_a_slow_call_is_not_repeated() -> None:
    calls: list[int] = []
    timing = time_calls(lambda: calls.append(0), Effort(repeats=32, seconds=1e-12))
    assert (timing.samples, len(calls)) == (1, 2)


def test_durations_have_three_digits() -> None:
    for taken, text in (
        (9.756e-6, "9.76 µs"),
        (46.08e-6, "46.1 µs"),
        (394e-6, "394 µs"),
        (2.02e-3, "2.02 ms"),
        (3.6512, "3.65 s"),
    ):
        assert duration(taken) == text


def test_a_line_shows_rates_and_the_share_of_the_limit() -> None:
    result = Result(
        "wgpu_q4", "linear", 1, Timing(2e-6, 1e-6, 3e-6, 9), "timestamps", SMALL, {}, 4000, 6000
    )
    shown = re.sub(" +", " ", line(result, copy_bandwidth=4e9))
    assert shown == "linear, M=1, 13×64 2.00 µs 1.00 µs to 3.00 µs 2.00 50% 3.00 timestamps"


def test_a_shape_is_a_model_or_three_numbers() -> None:
    assert matrix_shape("smollm2-135m") == MatrixShape(49152, 576, 32, "float16")
    assert (
        matrix_shape("72x64x32") == matrix_shape("72×64×32") == MatrixShape(72, 64, 32, "float16")
    )
    assert default_shape(software=True).vocab < default_shape(software=False).vocab
    assert {name: matrix_shape(name).vocab for name in SHAPES} == {
        name: vocab for name, (vocab, _, _) in SHAPES.items()
    }
    for wrong in ("llama", "0x32x32", "16x32x24", "16x36x12", "16x32"):
        with pytest.raises(argparse.ArgumentTypeError, match=wrong):
            matrix_shape(wrong)


def test_numbers_that_make_no_sense_are_refused() -> None:
    assert positive("3") == 3
    assert seconds("0.5") == 0.5
    for wrong in ("0", "-3", "many", "1.5"):
        with pytest.raises(argparse.ArgumentTypeError, match=wrong):
            positive(wrong)
    for wrong in ("0", "-1", "nan", "inf", "soon"):
        with pytest.raises(argparse.ArgumentTypeError, match=wrong):
            seconds(wrong)
