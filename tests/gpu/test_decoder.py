"""The decoder against float64 numpy, its errors, and what it creates on the device."""

from __future__ import annotations

import copy
import gc
import pickle
import threading
import time
import weakref
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.decoder_oracle import EVERYTHING, PLAIN, bound, logits_of, random_weights
from wgpu_q4 import DeviceError, DeviceLimitError, FormatError, Q4Weight
from wgpu_q4.decoder import Config, Decoder, Draw, Greedy, Sampling, Weights
from wgpu_q4.device import Context, context_for
from wgpu_q4.device.upload import upload
from wgpu_q4.kernels import HalfSupport, optional_shaders, plan_linear
from wgpu_q4.kernels.decoder import WeightType, plan_choose_best
from wgpu_q4.kernels.dispatch import MatrixShape

SMOLLM2 = replace(
    PLAIN,
    hidden=576,
    heads=9,
    kv_heads=3,
    head_dim=64,
    intermediate=1536,
    query_factor=0.125,
)
"""Heads and columns of SmolLM2-135M: 18 and 48 chunks for teams of 32 and 48."""

MANY_ROWS = replace(PLAIN, layers=1, windows=(0,), rope_of_layer=(0,), vocab=8200)
"""So many that a GPU's lanes have eight at once."""

IDS = [5, 17, 3, 99, 0, 41, 64, 8, 23, 100, 77]


def decoder_of(weights: Weights, device: Any = None, **options: Any) -> Decoder:
    return Decoder(weights, device=device, **{"cache": "float32", "capacity": 64, **options})


def check(decoder: Decoder, weights: Weights, ids: list[int] = IDS, new: int = 8) -> None:
    made = list(decoder.generate(ids, new, end_of_text=()))
    after_steps = decoder.logits()
    exact = logits_of(weights, [*ids, *made])
    assert made == exact[len(ids) - 1 : -1].argmax(-1).tolist()
    assert np.abs(after_steps - exact[-2]).max() < bound(exact)
    decoder.prefill(ids)
    assert np.abs(decoder.logits() - exact[len(ids) - 1]).max() < bound(exact)


@pytest.mark.parametrize(
    "support",
    [None, HalfSupport(subnormals=True), HalfSupport()],
    ids=["halves as they are", "halves rounded by integers", "halves by integers"],
)
@pytest.mark.parametrize("config", [PLAIN, EVERYTHING], ids=["plain", "everything"])
@pytest.mark.parametrize("body", ["float16", "q4gsw", "affine4", "affine8"])
def test_every_form_of_the_kernels(
    config: Config,
    body: Any,
    support: HalfSupport | None,
    context: Context,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if support is not None:
        monkeypatch.setattr(context, "half_support", support)
    weights = random_weights(config, body, "float32" if support is None else "float16")
    check(decoder_of(weights), weights)


@pytest.mark.parametrize(
    "config",
    [PLAIN, EVERYTHING, SMOLLM2, MANY_ROWS],
    ids=["plain", "everything", "576", "many rows"],
)
def test_teams_of_a_gpu(config: Config, context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU shares the work of a product otherwise, and reads whole tiles of values.

    Sums are exchanged between lanes where a team is whole subgroups.
    """
    monkeypatch.setattr(context, "is_software", False)
    for subgroup in (context.subgroup_size, 0):
        monkeypatch.setattr(context, "subgroup_size", subgroup)
        weights = random_weights(config, "q4gsw")
        check(decoder_of(weights), weights)


SLICED = replace(
    PLAIN, layers=1, windows=(0,), rope_of_layer=(0,), hidden=416, intermediate=480, qkv_bias=True
)
"""Three slices of columns, the last of 128 and those before it of 144."""


@pytest.mark.parametrize("body", get_args(WeightType))
@pytest.mark.parametrize("length", [11, 40, 70])
def test_columns_of_a_tile_shared_by_several_workgroups(
    length: int, body: Any, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In passes of 32, 64 and 128 rows, as on a GPU that tiles alone would leave idle.

    32 rows of x and a q4gsw weight have a kernel without tiles.
    """
    monkeypatch.setattr(context, "is_software", False)
    weights = random_weights(SLICED, body)
    decoder = decoder_of(weights, capacity=80)
    ids = np.random.default_rng(length).integers(0, PLAIN.vocab, length).tolist()
    check(decoder, weights, ids, 2)
    (passed,) = decoder._engine._passes.values()
    products = [passed._plan(one, False) for one in decoder._engine.model.layers[0].matrices]
    assert [one.slices for one in products] == (
        [1] * 4 if (length, body) == (11, "q4gsw") else [3, 1, 3, 3]
    )


def test_products_of_one_shape_are_planned_once(monkeypatch: pytest.MonkeyPatch) -> None:
    planned = []

    def spy(shape: MatrixShape, *rest: Any, **named: Any) -> Any:
        planned.append(shape)
        return plan_linear(shape, *rest, **named)

    monkeypatch.setattr("wgpu_q4.decoder.prompt.plan_linear", spy)
    config = replace(PLAIN, layers=9, windows=(0,) * 9, rope_of_layer=(0,) * 9)
    decoder_of(random_weights(config, "q4gsw")).prefill(IDS)
    assert len(planned) == len(set(planned)) == 4


def test_subgroups_are_probed(context: Context, webgpu_device: Any) -> None:
    """Mesa's have 8 lanes where vectors have 256 bits."""
    assert context.subgroup_size in (4, 8, 16)
    assert context_for(webgpu_device).subgroup_size == 0


def test_every_shader_for_optional_features_compiles(device: Any) -> None:
    shaders = optional_shaders()
    assert {feature for shader in shaders for feature in shader.features} == {"f16", "subgroups"}
    for shader in shaders:
        device.create_shader_module(code=shader.source)


def test_several_chunks_for_each_lane() -> None:
    weights = random_weights(SMOLLM2)
    check(decoder_of(weights), weights)


def chosen_of(entries: NDArray[np.uint32], context: Context) -> tuple[list[int], list[int]]:
    """The ids and the state behind a greedy step at position 3 with 4 rows."""
    with context.lock, context.guard, context.guard.busy:
        state = upload(context, "state", np.array([3, 4], np.uint32))
        sequence = upload(context, "ids", np.zeros(10, np.uint32))
        given = {"t_in": upload(context, "entries", entries), "t_ids": sequence, "t_state": state}
        step = context.pipelines.step(plan_choose_best(len(entries), 9), given)
        found, after = np.empty(10, np.uint32), np.empty(2, np.uint32)
        context.run([step], sequence, found)
        context.run([], state, after)
    return found.tolist(), after.tolist()


@pytest.mark.parametrize("count", [1, 16, 255, 257, 4008])
def test_the_best_of_what_the_head_left(count: int, context: Context) -> None:
    """Eight entries are looked at a time, in each of which it may be; the last may be fewer."""
    rng = np.random.default_rng(count)
    ids = np.sort(rng.choice(1 << 20, count, replace=False)).astype(np.uint32)
    for place in {*range(3, count, 256), count - 1}:
        logits = rng.standard_normal(count).astype(np.float32)
        logits[place] = 9
        entries = np.stack([logits.view(np.uint32), ids], axis=-1)
        expected = [0] * 7 + [int(ids[place])] + [0] * 2
        assert chosen_of(entries, context) == (expected, [7, 1])


def test_the_first_of_equals(context: Context) -> None:
    logits = np.random.default_rng(0).choice([-3.0, 2.5], 4008).astype(np.float32)
    logits[:300] = -3
    ids = np.arange(4008, dtype=np.uint32) * 7
    found, _ = chosen_of(np.stack([logits.view(np.uint32), ids], axis=-1), context)
    assert found[7] == ids[logits.argmax()] > 0


def test_equal_logits_give_the_first_id() -> None:
    weights = random_weights(PLAIN, "q4gsw")
    best = int(logits_of(weights, IDS)[-1].argmax())
    packed, scales = weights.embedding.packed.copy(), weights.embedding.scales.copy()
    unused = sorted(set(range(PLAIN.vocab)) - set(IDS) - {best})
    first = unused[0]
    for id_ in (first, unused[-1]):  # in other workgroups and in the same
        packed[id_], scales[id_] = packed[best], scales[best]
    same = replace(weights, embedding=Q4Weight(packed, scales))
    assert list(decoder_of(same).generate(IDS, 1)) == [min(first, best)]


def test_a_head_of_its_own() -> None:
    weights = random_weights(PLAIN, tied=False)
    check(decoder_of(weights), weights)


@pytest.mark.parametrize("config", [PLAIN, EVERYTHING], ids=["plain", "everything"])
def test_positions_shared_by_several_workgroups(config: Config) -> None:
    """From position 512 on; with more slices than there are positions for, some are empty."""
    ids = np.random.default_rng(0).integers(3, config.vocab, 508).tolist()
    weights = random_weights(config)
    made = {}
    for slices in (1, 3, 16):
        decoder = decoder_of(weights, capacity=600, slices=slices)
        check(decoder, weights, ids, 12)
        made[slices] = decoder.nbytes
    assert made[16]["work"] > made[3]["work"] > made[1]["work"]


def created(context: Context) -> tuple[int, int, int]:
    """How many objects of each kind were made on a device so far."""
    pipelines = context.pipelines
    return context.buffers_created, pipelines.pipelines_created, pipelines.bind_groups_created


@pytest.mark.parametrize("chooser", [Greedy(), Draw(Sampling(top_p=0.9))], ids=["greedy", "drawn"])
def test_nothing_is_created_after_the_first_step(chooser: Any, context: Context) -> None:
    decoder = decoder_of(random_weights(EVERYTHING), capacity=100, chooser=chooser)
    steps = decoder.generate(IDS, 80, end_of_text=())
    next(steps)
    before, held = created(context), context.nbytes
    assert len(list(steps)) == 79
    for _ in range(100):
        assert len(list(decoder.generate(IDS, 2, end_of_text=()))) == 2
    assert (created(context), context.nbytes) == (before, held)


def test_a_decoder_that_goes_leaves_nothing(context: Context) -> None:
    weights = random_weights(PLAIN)
    decoder = decoder_of(weights)
    list(decoder.generate(IDS, 3))
    buffers = [
        *decoder._engine.memory.keys,
        decoder._engine.model.layers[0].qkv.bindings["t_weight"],
    ]
    references = [weakref.ref(buffer) for buffer in buffers]
    del decoder, buffers
    gc.collect()
    assert [reference() for reference in references] == [None] * len(references)


def test_a_device_with_default_limits(webgpu_device: Any) -> None:
    weights = random_weights(EVERYTHING)
    check(decoder_of(weights, webgpu_device), weights)
    weights = random_weights(PLAIN, "q4gsw")
    decoder = decoder_of(weights, webgpu_device, cache="float16")
    decoder.prefill(IDS)
    exact = logits_of(weights, IDS)
    error = np.abs(decoder.logits() - exact[-1]).max()
    made = list(decoder.generate(IDS, 20, end_of_text=()))
    error = max(error, np.abs(decoder.logits() - logits_of(weights, [*IDS, *made])[-2]).max())
    assert bound(exact) < error < 2**-5  # keys and values are rounded to float16


@pytest.mark.parametrize("accuracy", ["fast", "int8"])
def test_accuracy_of_prompts(
    accuracy: Any, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """x is rounded to 2⁻¹⁴ or 2⁻⁷ of its largest in 32 columns, or not at all."""
    monkeypatch.setattr(context, "is_software", False)  # it would choose the exact kernel
    weights = random_weights(PLAIN, "q4gsw")
    decoder = decoder_of(weights, accuracy=accuracy)
    decoder.prefill(4 * IDS)  # a pass of 128 rows
    exact = logits_of(weights, 4 * IDS)
    error = np.abs(decoder.logits() - exact[-1]).max()
    if accuracy == "int8":
        assert "linear_q4gsw_gemm_int8_rows_float16_scales" in context.pipelines.kernels
        assert error > bound(exact)
    assert error < (0.2 if accuracy == "int8" else 2e-3) * np.abs(exact).max()


def test_each_way_to_use_a_device(each_way: Any) -> None:
    weights = random_weights(PLAIN)
    check(decoder_of(weights, each_way), weights)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"ids": []}, ValueError, "at least one id"),
        ({"ids": [[1, 2]]}, ValueError, r"shape \[n\], not \[1, 2\]"),
        ({"ids": [1.5]}, TypeError, "integer dtype"),
        ({"ids": [1, 101]}, IndexError, r"ids\[1\] is 101, outside the vocabulary of 101"),
        ({"ids": [-1]}, IndexError, "must be in 0..100"),
        ({"ids": [1] * 65}, ValueError, "need 65 positions; the cache holds 64"),
        ({"max_new_tokens": 55}, ValueError, "11 ids and 55 new ones need 65 positions"),
        ({"max_new_tokens": 0}, ValueError, "max_new_tokens must be at least 1"),
        ({"steps": 0}, ValueError, r"steps must be in 1\.\.64"),
        ({"steps": 65}, ValueError, r"steps must be in 1\.\.64"),
        ({"keep": 12}, ValueError, r"keep must be in 0\.\.11"),
        ({"keep": -1}, ValueError, r"keep must be in 0\.\.11"),
        ({"keep": None}, TypeError, "keep must be an integer, not None"),
        ({"max_new_tokens": 2.5}, TypeError, "max_new_tokens must be an integer, not 2.5"),
        ({"steps": 1.5}, TypeError, "steps must be an integer, not 1.5"),
        ({"end_of_text": "</s>"}, TypeError, "end_of_text must be a numpy array"),
        ({"end_of_text": [2, 101]}, IndexError, r"end_of_text\[1\] is 101, outside"),
    ],
    ids=str,
)
def test_arguments(arguments: dict[str, Any], error: type[Exception], words: str) -> None:
    """A call that is refused changes nothing."""
    decoder = decoder_of(random_weights(PLAIN))
    decoder.prefill(IDS)
    before = decoder.logits()
    with pytest.raises(error, match=words):
        decoder.generate(**{"ids": IDS, **arguments})
    assert decoder.length == len(IDS)
    assert np.array_equal(decoder.logits(), before)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"capacity": 0}, ValueError, r"capacity must be in 1\.\.4096"),
        ({"capacity": 4097}, ValueError, r"capacity must be in 1\.\.4096"),
        ({"cache": "int8"}, ValueError, "cache must be one of float16, float32"),
        ({"accuracy": "low"}, ValueError, "accuracy must be one of exact, fast, int8"),
        ({"most_steps": 0}, ValueError, "most_steps must be at least 1"),
        ({"slices": 0}, ValueError, r"slices must be in 1\.\.64"),
        ({"slices": 65}, ValueError, r"slices must be in 1\.\.64"),
        ({"prompt_rows": 0}, ValueError, "prompt_rows must be at least 1"),
        ({"capacity": 64.5}, TypeError, "capacity must be an integer, not 64.5"),
        ({"most_steps": 2.5}, TypeError, "most_steps must be an integer"),
        ({"chooser": Sampling()}, TypeError, "a Chooser.* do, not be 'Sampling'"),
        ({"chooser": Greedy}, TypeError, "a Chooser.* do, not be 'Greedy'"),
    ],
    ids=str,
)
def test_options(options: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        decoder_of(random_weights(PLAIN), **options)


def test_a_cache_larger_than_a_binding_is_refused_before_the_weights_are_uploaded(
    webgpu_device: Any,
) -> None:
    config = replace(PLAIN, positions=1 << 21)
    before = created(context_for(webgpu_device))
    with pytest.raises(DeviceLimitError, match="the cache of a layer's keys"):
        decoder_of(random_weights(config), webgpu_device, capacity=1 << 21)
    assert created(context_for(webgpu_device)) == before


PARTS = replace(EVERYTHING, vocab=3000)


@pytest.mark.parametrize("tied", [True, False])
def test_a_matrix_larger_than_a_binding_lies_in_parts(tied: bool, here: Any) -> None:
    """Ids of every part are looked up, and come out of every part."""
    limits = {**here.limits, "max-storage-buffer-binding-size": 1 << 15}
    device = here.request_device_sync(required_limits=limits)
    weights = random_weights(PARTS, tied=tied)
    decoder = decoder_of(weights, device)
    resident = context_for(device).weight(weights.embedding)
    assert len(resident.parts) == 3
    first_rows, rng = [part.first_row for part in resident.parts], np.random.default_rng(2)
    read, written = set[int](), set[int]()
    for length in (40, 1, 1, 2, 2, 3, 3, 7, 7):
        ids = rng.integers(0, PARTS.vocab, length).tolist()
        check(decoder, weights, ids, 3)
        read |= set(np.searchsorted(first_rows, ids, "right").tolist())
        (made,) = decoder.generate(ids, 1, end_of_text=())
        written.add(int(np.searchsorted(first_rows, made, "right")))
    assert read == written == {1, 2, 3}
    held = weights.embedding.nbytes + (0 if weights.head is None else weights.head.nbytes)
    assert decoder.nbytes["embedding and head"] == held


def test_a_matrix_of_a_layer_larger_than_a_binding_is_refused(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = {**context.limits, "max-storage-buffer-binding-size": 40_000}
    monkeypatch.setattr(context, "limits", limits)
    with pytest.raises(DeviceLimitError, match="layer 0: gate and up takes 49,152 bytes"):
        decoder_of(random_weights(replace(PLAIN, hidden=128)))


@pytest.mark.parametrize(
    ("part", "values", "words"),
    [
        ("output", np.zeros((64, 96), np.float16), r"must have shape \(64, 64\)"),
        ("unit_gain", np.ones(32, np.float32), r"must have shape \(64,\)"),
        ("qkv_bias", np.zeros(128, np.float32), "must have shape None"),
    ],
)
def test_weights_of_another_shape_than_the_model(part: str, values: Any, words: str) -> None:
    weights = random_weights(PLAIN)
    layers = [weights.layer(0), replace(weights.layer(1), **{part: values})]
    with pytest.raises(FormatError, match=f"{part} of layer 1 {words}"):
        decoder_of(replace(weights, layer=layers.__getitem__))


def test_a_full_cache_makes_as_many_ids_as_there_is_room_for() -> None:
    decoder = decoder_of(random_weights(PLAIN), capacity=16)
    assert len(list(decoder.generate(IDS, end_of_text=()))) == 16 - len(IDS) + 1
    assert decoder.length == 16
    assert len(list(decoder.generate(list(range(16)), end_of_text=()))) == 1


@pytest.mark.parametrize(
    "given", [int, list, set, frozenset, np.array, np.uint16], ids=lambda kind: kind.__name__
)
def test_ids_that_end_a_text_come_in_any_kind(given: Any) -> None:
    decoder = decoder_of(random_weights(PLAIN))
    made = list(decoder.generate(IDS, 20, end_of_text=()))
    end = made[5] if given in (int, np.uint16) else [made[5]]
    assert list(decoder.generate(IDS, 20, end_of_text=given(end))) == made[: made.index(made[5])]


def test_what_is_no_model() -> None:
    with pytest.raises(TypeError, match=r"must be Weights, not dict: Decoder\.from_hf"):
        Decoder({})  # type: ignore[arg-type]


def test_python_does_not_copy_it() -> None:
    """The copy would have the cache in common, and a length of its own."""
    decoder = decoder_of(random_weights(PLAIN))
    for copied in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="cannot be pickled or copied"):
            copied(decoder)


def test_there_are_no_logits_before_a_sequence() -> None:
    with pytest.raises(RuntimeError, match="call prefill first"):
        decoder_of(random_weights(PLAIN)).logits()


def test_an_iterator_ends_when_the_decoder_begins_something_else() -> None:
    decoder = decoder_of(random_weights(PLAIN))
    old = decoder.generate(IDS, 8, end_of_text=())
    whole = list(old)
    old = decoder.generate(IDS, 8, end_of_text=())
    first = next(old)
    new = decoder.generate(IDS, 8, end_of_text=())
    with pytest.raises(RuntimeError, match="has begun another sequence"):
        next(old)
    assert list(new) == whole
    assert first == whole[0]


def test_two_threads_that_begin_at_once(context: Context) -> None:
    """The later one has the decoder; the other is told, instead of reading a mixed sequence."""
    weights = random_weights(PLAIN)
    decoder, found, prompts = decoder_of(weights), list[Any](), (IDS, IDS[::-1])

    def begin(ids: list[int]) -> None:
        found.append(decoder.generate(ids, 8, end_of_text=()))

    threads = [threading.Thread(target=begin, args=(ids,)) for ids in prompts]
    with context.lock:
        for thread in threads:
            thread.start()
        time.sleep(0.3)  # both wait for the device
    for thread in threads:
        thread.join()
    made: list[list[int]] = []
    refused: list[str] = []
    for steps in found:
        try:
            made.append(list(steps))
        except RuntimeError as error:
            refused.append(str(error))
    alone = [list(decoder_of(weights).generate(ids, 8, end_of_text=())) for ids in prompts]
    assert len(refused) == 1
    assert "begun another sequence" in refused[0]
    assert made[0] in alone


def test_an_iterator_that_is_left_early_does_no_harm() -> None:
    decoder = decoder_of(random_weights(PLAIN))
    whole = list(decoder.generate(IDS, 30, end_of_text=(), steps=8))
    for taken in (1, 2, 9):
        steps = decoder.generate(IDS, 30, end_of_text=(), steps=8)
        assert [next(steps) for _ in range(taken)] == whole[:taken]
        del steps
        assert decoder.length == len(IDS) + taken
        assert list(decoder.generate(IDS, 30, end_of_text=(), steps=3)) == whole


def test_two_decoders_on_a_device_take_turns() -> None:
    weights = random_weights(PLAIN)
    one, other = decoder_of(weights), decoder_of(random_weights(EVERYTHING))
    alone = list(one.generate(IDS, 8)), list(other.generate(IDS, 8))
    pairs = zip(one.generate(IDS, 8), other.generate(IDS, 8), strict=True)
    assert tuple(map(list, zip(*pairs, strict=True))) == alone


def test_a_lost_device(own_device: Any) -> None:
    decoder = decoder_of(random_weights(PLAIN), own_device)
    steps = decoder.generate(IDS, 8)
    next(steps)
    own_device.destroy()
    with pytest.raises(DeviceError, match="is lost"):
        list(steps)
    with pytest.raises(DeviceError, match="is lost"):
        decoder.prefill(IDS)


def test_the_first_submissions_are_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first ids do not wait until many steps are encoded, and no more steps are made."""
    weights = random_weights(PLAIN)
    decoder = decoder_of(weights)
    batches: list[int] = []
    start_steps = decoder._engine.start_steps

    def counted(first: int, count: int) -> Any:
        batches.append(count)
        return start_steps(first, count)

    monkeypatch.setattr(decoder._engine, "start_steps", counted)
    made = list(decoder.generate([1, 2, 3], 40, end_of_text=(), steps=16))
    assert batches == [4, 8, 16, 11]
    assert made == list(decoder.generate([1, 2, 3], 40, end_of_text=(), steps=1))
