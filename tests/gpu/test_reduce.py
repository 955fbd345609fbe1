"""`linear` with ``reduce``: the same ids that numpy finds in the same device's logits.

The kernels are first run on floats of every kind, chosen to the bit, which no product would give;
then through `linear`, whose own logits they must agree with.  Ids are compared exactly.  A process
for each backend runs the first part on SwiftShader, with kernels as they are and with a wrong
character in them: run by hand, ``python -m tests.gpu.test_reduce``.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import wgpu_q4
from tests.cases import (
    ODD,
    PRIME,
    TINY,
    WIDE,
    Shape,
    assert_same_bits,
    limited_context,
    random_weight,
    random_x,
)
from tests.devices import (
    default_device,
    leave_workgroup_memory_as_it_is,
    run_on_swiftshader,
    run_python,
)
from wgpu_q4 import Q4Weight, TopK, kernels, linear
from wgpu_q4.device import Context, context_for
from wgpu_q4.device.implementation import load_implementation
from wgpu_q4.kernels import LARGEST_TOP_K, Layout, Reduce, plan_reduce
from wgpu_q4.ops.reduce import dispatch_reduce

Floats = NDArray[np.float32]


# What is right


def best(logits: Floats, k: int) -> NDArray[np.int64]:
    """Ids of the ``k`` largest of each row: NaN before all else, equals by id."""
    nan = np.isnan(logits)
    ids = np.broadcast_to(np.arange(logits.shape[-1]), logits.shape)
    order = np.lexsort((ids, -np.where(nan, 0, logits), ~nan), axis=-1)
    return order[..., :k].astype(np.int64)


def test_what_is_right_is_numpys_argmax() -> None:
    for logits in FLOATS.values():
        np.testing.assert_array_equal(best(logits, 1)[..., 0], logits.argmax(-1))


# Floats of every kind


def of_bits(*rows: list[int]) -> Floats:
    return np.array(rows, np.uint32).view(np.float32)


def shuffled(vocab: int, rows: int = 3) -> Floats:
    """Few different values, so that most are there many times, over the whole range."""
    values = np.array([0, -0.0, 1, -1, 1e-45, -1e-45, 3e38, -3e38, 2, -np.inf], np.float32)
    chosen = np.random.default_rng(vocab).integers(0, values.size, (rows, vocab))
    return values[chosen]


def with_at(logits: Floats, value: float, *places: int) -> Floats:
    changed = logits.copy()
    changed[..., list(places)] = value
    return changed


NORMAL = np.random.default_rng(11).standard_normal((3, 5003)).astype(np.float32)
FLOATS: dict[str, Floats] = {
    **{f"shuffled {vocab}": shuffled(vocab) for vocab in (1, 2, 3, 255, 256, 257, 1024, 1025)},
    "normal": NORMAL,
    "negative": -np.abs(NORMAL),
    "all equal": np.full((2, 2053), -7.5, np.float32),
    "all negative infinity": np.full((2, 1025), -np.inf, np.float32),
    "all NaN": np.full((2, 1025), np.nan, np.float32),
    "infinity twice": with_at(NORMAL, np.inf, 1500, 4000),
    "NaN twice": with_at(NORMAL, np.nan, 1500, 4000),
    "NaN beyond infinity": with_at(with_at(NORMAL, np.inf, 3), np.nan, 5002),
    "both zeros": of_bits(
        [0x80000000, 0, 0x80000000], [0, 0x80000000, 0], [0xBF800000, 0x80000000, 0]
    ),
    # NaN of either sign, quiet and signalling, beside infinities and the largest numbers
    "bits of NaN": of_bits(
        [0x7F800000, 0xFF800000, 0x7F7FFFFF, 0xFFC00000, 0x7F800001],
        [0xFFFFFFFF, 0x7FFFFFFF, 0x7F800000, 0x00000000, 0xFF7FFFFF],
        [0xFF800000, 0xFF7FFFFF, 0x80000001, 0x00000001, 0xFF800001],
    ),
    "falling": np.arange(4099, 0, -1, dtype=np.float32)[None],
    "rising": np.arange(4099, dtype=np.float32)[None] - 2000,
}  # fmt: skip


def reduced(context: Context, logits: Floats, reduce: Reduce, kept: int) -> NDArray[np.uint32]:
    """What the kernels leave of ``logits`` ``[rows, V]``: ``[rows, kept, 2]``, bits and ids.

    The logits lie in a buffer with larger ones after them, which nothing may look at.
    """
    rows, vocab = logits.shape
    whole = np.full((2 * rows, vocab), np.inf, np.float32)
    whole[:rows] = logits
    plan = plan_reduce(vocab, rows, reduce, kept, context.limits)
    out = np.empty((rows, kept, 2), np.uint32)
    with context.working():
        source = context.create_buffer("logits", whole.nbytes, "STORAGE", "COPY_DST")
        context.write(source, whole)
        encoder = context.device.create_command_encoder()
        compute_pass = encoder.begin_compute_pass()
        resources = {"t_out": source, "sizes": context.sizes(rows, 0, role="test")}
        target = dispatch_reduce(context, compute_pass, plan, resources, {})
        compute_pass.end()
        context.read(encoder, target, out)
    return out


def check_floats(context: Context, logits: Floats, reduce: Reduce, kept: int) -> None:
    found = reduced(context, logits, reduce, kept)
    expected = best(logits, kept)
    np.testing.assert_array_equal(found[..., 1], expected)
    values = np.take_along_axis(logits, expected, -1)
    np.testing.assert_array_equal(found[..., 0], values.view(np.uint32))  # NaN and −0 to the bit


def kept_of(vocab: int) -> list[int]:
    """Numbers to keep: few, half of a slice, more than that, all."""
    return sorted({min(kept, vocab, LARGEST_TOP_K) for kept in (1, 2, 40, 64, 65, 512, 1024)})


@pytest.mark.parametrize("name", FLOATS)
def test_argmax_of_floats(name: str) -> None:
    check_floats(context_for(), FLOATS[name], "argmax", 1)


@pytest.mark.parametrize("name", FLOATS)
def test_top_k_of_floats(name: str) -> None:
    for kept in kept_of(FLOATS[name].shape[1]):
        check_floats(context_for(), FLOATS[name], "top_k", kept)


def test_more_slices_than_one_workgroup_takes() -> None:
    """1,048,577 floats are 1025 slices, which are two."""
    logits = np.zeros((1, (1 << 20) + 1), np.float32)
    assert len(plan_reduce(logits.shape[1], 1, "argmax", 1, context_for().limits).stages) == 3
    check_floats(context_for(), logits, "argmax", 1)
    logits[0, -1] = 1
    check_floats(context_for(), logits, "argmax", 1)
    check_floats(context_for(), logits, "top_k", 3)


@pytest.mark.parametrize(("reduce", "kept"), [("argmax", 1), ("top_k", 5)])
def test_grids_are_folded(reduce: Reduce, kept: int) -> None:
    """With some workgroups too many, which have nothing to do."""
    context = limited_context({"max-compute-workgroups-per-dimension": 6})
    logits = np.random.default_rng(4).standard_normal((7, 2053)).astype(np.float32)
    plan = plan_reduce(2053, 7, reduce, kept, context.limits)
    assert plan.stages[0].workgroups == (6, 4, 1)  # 7 rows of 3 slices are 21
    check_floats(context, logits, reduce, kept)


# Plans


@pytest.mark.parametrize("vocab", [1, 7, 1024, 1025, 2048, 2049, 128256, 10**7])
@pytest.mark.parametrize("kept", [1, 40, 64, 65, 1023, 1024])
def test_a_plan_ends_with_one_slice(vocab: int, kept: int) -> None:
    kept = min(kept, vocab)
    limits = {"max-compute-workgroups-per-dimension": 65535}
    plan = plan_reduce(vocab, 3, "top_k", kept, limits)
    columns = vocab
    for number, (stage, nbytes) in enumerate(zip(plan.stages, plan.stage_bytes, strict=True)):
        slice_ = stage.constants["SLICE"]
        assert stage.constants["COLUMNS"] == columns
        assert kept <= slice_ <= 2048
        assert slice_ & (slice_ - 1) == 0
        parts = -(-columns // slice_)
        assert np.prod(stage.workgroups) >= 3 * parts
        columns = parts * kept
        assert nbytes == 3 * columns * 8
        assert ("logits" in stage.shader.name) == (number == 0)
    assert columns == kept
    assert len({stage.key for stage in plan.stages}) == len(plan.stages)  # one bind group each


def test_a_plan_for_llama() -> None:
    limits = {"max-compute-workgroups-per-dimension": 65535}
    argmax = plan_reduce(128256, 1, "argmax", 1, limits)
    assert [stage.workgroups[0] for stage in argmax.stages] == [126, 1]
    top_k = plan_reduce(128256, 1, "top_k", 40, limits)
    assert [stage.workgroups[0] for stage in top_k.stages] == [126, 5, 1]
    assert top_k.stage_bytes[-1] == 40 * 8


# Through linear


def check_linear(weight: Q4Weight, x: Any, kept: int, **options: Any) -> None:
    logits = linear(np.asarray(x, np.float32), weight, **options)
    ids = linear(x, weight, reduce="argmax", **options)
    assert (ids.dtype, ids.shape) == (np.int64, x.shape[:-1])
    np.testing.assert_array_equal(ids, logits.argmax(-1))
    top = linear(x, weight, reduce="top_k", k=kept, **options)
    assert isinstance(top, TopK)
    expected = best(logits, kept)
    assert_same_bits(top.ids, expected)
    assert_same_bits(top.values, np.take_along_axis(logits, expected, -1).astype(x.dtype))


@pytest.mark.parametrize("shape", [TINY, ODD, PRIME, WIDE], ids=str)
@pytest.mark.parametrize("rows", [1, 3, 40])
def test_linear(shape: Shape, rows: int) -> None:
    weight, x = random_weight(shape, "float16"), random_x(rows, shape.embed_dim)
    check_linear(weight, x, min(5, shape.vocab))
    check_linear(weight, x, shape.vocab, bias=random_x(shape.vocab))


@pytest.mark.parametrize("leading", [(), (1,), (2, 3), (0,), (2, 0, 3)])
def test_leading_dimensions(leading: tuple[int, ...]) -> None:
    check_linear(random_weight(ODD, "float16"), random_x(*leading, ODD.embed_dim), 4)


def test_float32_logits_decide_for_halves() -> None:
    """Two logits that are one half: the larger has the larger id."""
    packed = np.full((2, 4), 0x99, np.uint8)
    scales = np.array([[1.0], [1 + 2**-12]], np.float32)
    weight, x = Q4Weight(packed, scales), np.ones(8, np.float16)
    assert linear(x, weight)[0] == linear(x, weight)[1]
    assert linear(x, weight, reduce="argmax") == 1
    top = linear(x, weight, reduce="top_k", k=2)
    assert top.values.dtype == np.float16
    np.testing.assert_array_equal(top.ids, [1, 0])


@pytest.mark.parametrize("layout", ["rows", "rows_embedding", "blocks_buffer", "blocks_texture2d"])
def test_every_layout(layout: Layout) -> None:
    check_linear(random_weight(PRIME, "float32"), random_x(3, 72), 7, layout=layout)


def test_not_a_number_from_x_and_from_the_bias() -> None:
    weight, x = random_weight(ODD, "float16"), random_x(2, ODD.embed_dim)
    bias = random_x(ODD.vocab)
    bias[[3, 8]] = np.nan
    check_linear(weight, x, 5, bias=bias)
    bias[3] = np.inf
    check_linear(weight, x, 5, bias=bias)
    bias[8] = -np.inf
    check_linear(weight, x, ODD.vocab, bias=bias)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_torch_in_torch_out(dtype: torch.dtype) -> None:
    weight = random_weight(PRIME, "float16")
    x = torch.from_numpy(random_x(2, 3, PRIME.embed_dim)).to(dtype)
    logits = linear(x.float(), weight)
    ids = linear(x, weight, reduce="argmax")
    assert (ids.dtype, ids.shape) == (torch.int64, (2, 3))
    assert torch.equal(ids, logits.argmax(-1))
    top = linear(x, weight, reduce="top_k", k=4)
    expected = best(logits.numpy(), 4)
    np.testing.assert_array_equal(top.ids.numpy(), expected)
    assert (top.values.dtype, top.ids.dtype) == (dtype, torch.int64)
    assert torch.equal(top.values, torch.gather(logits, -1, top.ids).to(dtype))


@pytest.mark.parametrize("rows", [15, 16, 40])
def test_results_larger_than_a_binding(rows: int) -> None:
    """16 KiB at a time: chunks of the rows, each reduced."""
    limits = {"max-storage-buffer-binding-size": 16384, "max-buffer-size": 32768}
    device = limited_context(limits).device
    check_linear(random_weight(PRIME, "float16"), random_x(rows, 72), 9, device=device)
    # 257 candidates take more than 257 logits.
    check_linear(random_weight(PRIME, "float16"), random_x(rows, 72), 257, device=device)


def test_only_what_is_kept_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    context, seen = context_for(), []
    run = context.run

    def spy(record: Any, out: NDArray[Any]) -> None:
        seen.append(out.nbytes)
        run(record, out)

    monkeypatch.setattr(context, "run", spy)
    weight, x = random_weight(PRIME, "float16"), random_x(3, 72)
    linear(x, weight, reduce="argmax")
    linear(x, weight, reduce="top_k", k=10)
    linear(x, weight)
    assert seen == [3 * 8, 3 * 10 * 8, 3 * 257 * 4]


# Errors, before anything runs


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"reduce": "max"}, ValueError, "reduce must be one of argmax, top_k, not 'max'"),
        ({"reduce": 1}, ValueError, "reduce must be one of argmax, top_k, not 1"),
        ({"k": 3}, ValueError, r"k = 3 is for reduce='top_k', not reduce=None"),
        ({"reduce": "argmax", "k": 1}, ValueError, "k = 1 is for reduce='top_k', not reduce='arg"),
        ({"reduce": "top_k"}, ValueError, "needs k"),
        ({"reduce": "top_k", "k": 0}, ValueError, r"k must be in 1..13 \(the vocabulary\), not 0"),
        ({"reduce": "top_k", "k": -1}, ValueError, "not -1"),
        ({"reduce": "top_k", "k": 14}, ValueError, r"k must be in 1..13 \(the vocab.*, not 14"),
        ({"reduce": "top_k", "k": 2.0}, TypeError, "k must be an integer, not float"),
        ({"reduce": "top_k", "k": "2"}, TypeError, "k must be an integer, not str"),
    ],
)
def test_errors(options: dict[str, Any], error: type[Exception], message: str) -> None:
    weight, x = random_weight(ODD, "float16"), random_x(1, ODD.embed_dim)
    with pytest.raises(error, match=message):
        linear(x, weight, device=object(), **options)  # no such device, and nobody asks


def test_the_largest_k() -> None:
    weight = random_weight(Shape(1500, 8, 8), "float16")
    check_linear(weight, random_x(2, 8), 1024)
    check_linear(weight, random_x(2, 8), int(np.int32(700)))
    with pytest.raises(ValueError, match=r"k must be in 1..1024 \(the most that a workgroup sorts"):
        linear(random_x(1, 8), weight, reduce="top_k", k=1025)


def test_a_numpy_integer_will_do() -> None:
    weight, x = random_weight(ODD, "float16"), random_x(1, ODD.embed_dim)
    assert linear(x, weight, reduce="top_k", k=np.int64(3)).ids.shape == (1, 3)  # type: ignore[arg-type]


def test_the_package_offers_it() -> None:
    assert wgpu_q4.TopK is TopK
    assert TopK._fields == ("values", "ids")


# Other backends, and kernels with a wrong character


@dataclass(frozen=True)
class Mutation:
    """``old`` becomes ``new`` in a piece, where it stands once."""

    piece: str
    old: str
    new: str


RANK, ARGMAX, TOP_K = "reduce/rank", "reduce/argmax", "reduce/top_k"
NAN = "magnitude > 0x7f800000u"
MUTATIONS = {
    "zeros differ": Mutation(RANK, "bits > 0x80000000u", "bits >= 0x80000000u"),
    "NaN is a number": Mutation(RANK, NAN, "magnitude > 0x7fffffffu"),
    "infinity is NaN": Mutation(RANK, NAN, "magnitude >= 0x7f800000u"),
    "the last of equals": Mutation(RANK, "a.y < b.y", "a.y > b.y"),
    "half of the lanes": Mutation(ARGMAX, "LANES / 2u", "LANES / 4u"),
    "two slices": Mutation(ARGMAX, "flat % slices", "flat % slices % 2u"),
    "a round too few": Mutation(TOP_K, "span <= SLICE", "span < SLICE"),
    "one direction": Mutation(TOP_K, "(at & span) == 0u", "(at & span) <= SLICE"),
    "the first row": Mutation("reduce/of_logits", "row * COLUMNS", "0u * COLUMNS"),
    "its candidates": Mutation("reduce/of_candidates", "row * COLUMNS", "0u * COLUMNS"),
}
REDUCES: tuple[tuple[Reduce, int], ...] = ("argmax", 1), ("top_k", 3)
CASES = [
    (name, reduce, kept)
    for name in ("both zeros", "bits of NaN", "all equal", "infinity twice", "normal")
    for reduce, kept in REDUCES
]


def mutated(mutation: Mutation | None, folder: Path) -> Path:
    """A copy of the pieces, with a wrong character in it if there is to be one."""
    copytree(kernels.source_folder(), folder)
    if mutation is not None:
        file = folder / f"{mutation.piece}.wgsl"
        text = file.read_text(encoding="utf-8")
        assert text.count(mutation.old) == 1, f"{mutation.piece} has changed: choose another place"
        file.write_text(text.replace(mutation.old, mutation.new), encoding="utf-8")
    return folder


def is_red(case: Callable[[], None]) -> bool:
    try:
        case()
    except AssertionError:
        return True
    return False


def main() -> None:
    """For each mutation, the cases that come out wrong here; as JSON."""
    if load_implementation().__name__ == "wgpudawn":
        leave_workgroup_memory_as_it_is()
    red: dict[str, list[str]] = {}
    for name, mutation in {"unchanged": None, **MUTATIONS}.items():
        with tempfile.TemporaryDirectory() as folder:
            os.environ.pop(kernels.SOURCE_VARIABLE, None)
            pieces = mutated(mutation, Path(folder) / "wgsl")
            os.environ[kernels.SOURCE_VARIABLE] = str(pieces)
            kernels.read_piece.cache_clear()
            context = context_for(default_device(load_implementation().__name__))
            red[name] = [
                f"{floats}, {reduce}"
                for floats, reduce, kept in CASES
                if is_red(partial(check_floats, context, FLOATS[floats], reduce, kept))
            ]
    report = {
        "implementation": context.implementation.__name__,
        "adapter": context.device.adapter.info["device"],
        "red": red,
    }
    json.dump(report, sys.stdout)


BACKENDS: dict[str, Callable[[], str]] = {
    "wgpu/lavapipe": lambda: run_python("-m", "tests.gpu.test_reduce"),
    "wgpu/swiftshader": lambda: run_on_swiftshader("tests.gpu.test_reduce", "wgpu"),
    "wgpudawn/swiftshader": lambda: run_on_swiftshader("tests.gpu.test_reduce", "wgpudawn"),
}


@pytest.fixture(scope="module")
def outcomes() -> dict[str, Any]:
    with ThreadPoolExecutor() as pool:
        said = pool.map(lambda run: run(), BACKENDS.values())
        return {name: json.loads(text) for name, text in zip(BACKENDS, said, strict=True)}


@pytest.mark.parametrize("backend", BACKENDS)
def test_wrong_characters_are_red_and_right_ones_are_not(
    backend: str, outcomes: dict[str, Any]
) -> None:
    outcome = outcomes[backend]
    implementation, _, driver = backend.partition("/")
    assert outcome["implementation"] == implementation
    assert ("swiftshader" in outcome["adapter"].lower()) == (driver == "swiftshader")
    red = {name: set(cases) for name, cases in outcome["red"].items()}
    assert red.pop("unchanged") == set()
    assert red["zeros differ"] == {"both zeros, argmax", "both zeros, top_k"}
    for name in ("NaN is a number", "infinity is NaN"):
        assert red[name] <= {f"{case}, {op}" for case in ("bits of NaN",) for op, _ in REDUCES}
    assert {name for name in MUTATIONS if not red[name]} == set(), f"nothing noticed on {backend}"


if __name__ == "__main__":
    main()


def test_logits_and_their_reduction_in_turn_make_no_bind_group() -> None:
    """They go to different buffers, and both are remembered."""
    context, weight, x = context_for(), random_weight(PRIME, "float16"), random_x(1, 72)
    linear(x, weight)
    linear(x, weight, reduce="argmax")
    made = context.bind_groups_created
    for _ in range(3):
        linear(x, weight)
        linear(x, weight, reduce="argmax")
    assert context.bind_groups_created == made
