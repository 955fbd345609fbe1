"""Recordings of the ops: what they compute, how often, and what they make and hold."""

from __future__ import annotations

import asyncio
import gc
import weakref
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.cases import LONG, ODD, WIDE, Shape, anew, assert_same_bits, random_weight, random_x
from tests.recorder import Recorder
from tests.reductions import best
from wgpu_q4 import (
    DeviceArray,
    DeviceError,
    Q4Weight,
    Recording,
    argmax,
    embedding,
    linear,
    recording,
    reference,
    to_device,
    top_k,
)
from wgpu_q4.device import context_for
from wgpu_q4.ops import linear_transposed

STARTS = np.array([5, 77, 130], np.int32)


@pytest.fixture(scope="module")
def wandering() -> Q4Weight:
    """A weight whose rows are most like others, so that ids which feed back wander."""
    rng = np.random.default_rng(11)
    rows = rng.standard_normal((LONG.vocab, LONG.embed_dim)).astype(np.float32)
    following = np.roll(np.arange(LONG.vocab), 37)
    matrix = rows + 1.5 * rows[following]
    return Q4Weight.quantize(matrix / np.linalg.norm(matrix, axis=1, keepdims=True), 32)


def feeding_back(weight: Q4Weight, ids: DeviceArray, *, submit: bool = True) -> Recording:
    """One step, whose ids are those that the next one reads."""
    with recording(ids.device, submit=submit) as step:
        argmax(embedding(ids, weight), weight, bias=following_bias(weight), out=ids)
    return step


def following_bias(weight: Q4Weight) -> NDArray[np.float32]:
    """So that an id does not simply follow itself: it costs more than any product is worth."""
    return np.linspace(0, 3, weight.shape[0], dtype=np.float32) % 0.7


def followed(weight: Q4Weight, ids: NDArray[np.int32], times: int) -> NDArray[np.int32]:
    """The ids after so many steps, in float64."""
    matrix, bias = weight.dequantize().astype(np.float64), following_bias(weight)
    for _ in range(times):
        ids = (matrix[ids] @ matrix.T + bias).argmax(-1).astype(np.int32)
    return ids


def test_a_hundred_steps_that_feed_each_other(each_way: Any, wandering: Q4Weight) -> None:
    ids = to_device(STARTS, each_way)
    step = feeding_back(wandering, ids, submit=False)
    for times in (1, 2, 97):
        before = ids.numpy()
        step.replay(times)
        assert_same_bits(ids.numpy(), followed(wandering, before, times))
    assert_same_bits(ids.numpy(), followed(wandering, STARTS, 100))


def test_a_hundred_steps_in_one_recording(each_way: Any, wandering: Q4Weight) -> None:
    """Each step has sizes, rows and logits of its own, or shares them with steps of its kind."""
    ids = to_device(STARTS, each_way)
    with recording(each_way) as recorded:
        for _ in range(100):
            argmax(embedding(ids, wandering), wandering, bias=following_bias(wandering), out=ids)
    assert_same_bits(ids.numpy(), followed(wandering, STARTS, 100))
    recorded.replay()
    assert_same_bits(ids.numpy(), followed(wandering, STARTS, 200))


def test_ops_of_different_sizes_in_one_recording(each_way: Any) -> None:
    """What they share of scratch buffers is written anew; what the host writes is kept apart."""
    weights = [random_weight(shape, "float16") for shape in (ODD, WIDE, Shape(2050, 32, 32))]
    given = [
        [(random_x(rows, weight.shape[1]) * rows).astype(dtype) for rows in (1, 5, 40)]
        for weight, dtype in zip(weights, (np.float32, np.float16, np.float32), strict=True)
    ]
    biases = [[random_x(weight.shape[0]) + i for i in range(3)] for weight in weights]
    found: list[list[Any]] = [[], [], []]
    with recording(each_way) as recorded:
        for number, weight in enumerate(weights):
            for x, bias in zip(given[number], biases[number], strict=True):
                on_device = to_device(x, each_way)
                logits = linear(on_device, weight, bias)
                kept = top_k(on_device, weight, 3, bias)
                ids = argmax(on_device, weight, bias)
                found[number].append((logits, kept, ids, embedding(ids, weight)))
                if weight is weights[0]:
                    found[number].append(linear_transposed(logits, weight))
    for _ in range(2):
        for number, weight in enumerate(weights):
            results = [one for one in found[number] if isinstance(one, tuple)]
            for x, bias, (logits, kept, ids, rows) in zip(
                given[number], biases[number], results, strict=True
            ):
                expected = linear(x, weight, bias, each_way)
                assert_same_bits(logits.numpy(), expected)
                exact = linear(x.astype(np.float32), weight, bias, each_way)
                order = best(exact, 3)
                assert_same_bits(kept.ids.numpy(), order.astype(np.int32))
                assert_same_bits(ids.numpy(), order[:, 0].astype(np.int32))
                assert_same_bits(rows.numpy(), reference.embedding(order[:, 0], weight))
        sums = [one for one in found[0] if isinstance(one, DeviceArray)]
        for result, (logits, *_) in zip(sums, found[0][::2], strict=True):
            expected = linear_transposed(logits.numpy(), weights[0], each_way)
            assert_same_bits(result.numpy(), expected)
        for array in (one[0] for one in found[0][::2]):
            array.write(np.zeros(array.shape, np.float32))
        recorded.replay()


def test_into_an_encoder_of_the_caller(each_way: Any, wandering: Q4Weight) -> None:
    ids = to_device(STARTS, each_way)
    step = feeding_back(wandering, ids, submit=False)
    encoder = each_way.create_command_encoder()
    step.encode(encoder)
    compute_pass = encoder.begin_compute_pass()
    step.encode(compute_pass)
    step.encode(compute_pass)
    compute_pass.end()
    assert_same_bits(ids.numpy(), STARTS)
    each_way.queue.submit([encoder.finish()])
    assert_same_bits(ids.numpy(), followed(wandering, STARTS, 3))


def test_calls_of_the_host_between_replays_change_nothing(
    each_way: Any, wandering: Q4Weight
) -> None:
    """They share the weight and its pipelines, and no scratch buffer; within a block they run."""
    ids, x = to_device(STARTS, each_way), random_x(60, LONG.embed_dim)
    step = feeding_back(wandering, ids, submit=False)
    for times in range(1, 4):
        step.replay()
        linear(x[: 20 * times], wandering, device=each_way)
        argmax(x[:times], wandering, random_x(LONG.vocab), each_way)
        rows = embedding(to_device([times], each_way), wandering)
        assert_same_bits(rows.numpy(), reference.embedding(np.array([times]), wandering))
        assert_same_bits(ids.numpy(), followed(wandering, STARTS, times))
    with recording(each_way):
        rows_of_host = embedding(STARTS, wandering, device=each_way)
        assert_same_bits(rows_of_host, reference.embedding(STARTS, wandering))


# What is made, and what is held


def test_a_replay_makes_nothing(each_way: Any, wandering: Q4Weight) -> None:
    """No buffer, no bind group, no pipeline, whatever other calls make in between."""
    ids = to_device(STARTS, each_way)
    step = feeding_back(wandering, ids)
    context = context_for(each_way)
    pipelines = context.pipelines
    ids.numpy()

    def made() -> tuple[int, ...]:
        counts = context.buffers_created, pipelines.bind_groups_created
        return (*counts, pipelines.pipelines_created)

    before, recorder = made(), Recorder(each_way)
    for _ in range(20):
        step.replay()
        step.replay(30)
        ids.numpy()
    step.encode(each_way.create_command_encoder())
    assert {name for name, _ in recorder.calls} <= {"create_command_encoder"}
    assert made() == before


def resident_bytes() -> int:
    """Bytes of memory of this process that belong to no file."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (line,) = (line for line in status.splitlines() if line.startswith("RssAnon:"))
    return int(line.split()[1]) << 10


@pytest.mark.parametrize("way_to_run", ["replay", "calls"])
def test_memory_stays_flat(each_way: Any, way_to_run: str) -> None:
    """Over 1000 replays, and over 1000 calls that each return an array of 1 MiB."""
    weight, ids = random_weight(LONG, "float16"), to_device(np.arange(128), each_way)
    with recording(each_way, submit=False) as step:
        embedding(ids, weight)
    run = step.replay if way_to_run == "replay" else partial(embedding, ids, weight)

    def rounds(count: int) -> None:
        for _ in range(count):
            run()
        ids.numpy()

    rounds(300)
    gc.collect()
    before = resident_bytes()
    rounds(1000)
    assert resident_bytes() - before < 8 << 20


def test_a_recording_holds_its_arrays_and_nothing_else_does(own_device: Any) -> None:
    weight, recorder = anew(random_weight(LONG, "float16")), Recorder(own_device)
    ids = to_device(STARTS, own_device)
    with recording(own_device) as recorded:
        rows = embedding(ids, weight)
    gone = [weakref.ref(array.buffer) for array in (ids, rows)]
    packed, held = weight.packed.nbytes, rows.numpy()
    del ids, rows, weight
    gc.collect()
    assert all(buffer() is not None for buffer in gone)
    recorded.replay()  # the weight's buffers live in its bind groups
    view = DeviceArray.wrap(gone[1](), (3, LONG.embed_dim))
    assert_same_bits(view.numpy(), held)
    del recorded, view
    assert [buffer() for buffer in gone] == [None, None]
    assert recorder.alive().count(packed) == 0


# What is refused


def test_arrays_that_are_not_computed_yet(each_way: Any) -> None:
    weight, ids = random_weight(ODD, "float16"), to_device([1, 2], each_way)
    with recording(each_way, submit=False) as recorded:
        rows = embedding(ids, weight)
        for use in (rows.numpy, rows.wait, partial(np.asarray, rows)):
            with pytest.raises(DeviceError, match="computed when the block of its recording ends"):
                use()
        assert_same_bits(ids.numpy(), np.array([1, 2], np.int32))
    for use in (rows.numpy, partial(linear, rows, weight)):
        with pytest.raises(DeviceError, match="not computed yet: replay its recording"):
            use()
    with recording(each_way), pytest.raises(DeviceError, match="not computed yet"):
        linear(rows, weight)
    recorded.replay()
    assert_same_bits(rows.numpy(), reference.embedding(np.array([1, 2]), weight))
    assert linear(rows, weight).shape == (2, 13)


def test_arrays_that_are_overwritten_before_they_are_computed(each_way: Any) -> None:
    """By the host, by an op, and by another recording: they hold what was written last."""
    weight, ids = random_weight(ODD, "float16"), to_device([1, 2], each_way)
    expected = reference.embedding(np.array([1, 2]), weight)

    def uncomputed() -> DeviceArray:
        with recording(each_way, submit=False):
            return embedding(ids, weight)

    rows = uncomputed()
    rows.write(expected + 1)
    assert_same_bits(rows.numpy(), expected + 1)
    rows = uncomputed()
    embedding(ids, weight, out=rows)
    assert_same_bits(rows.numpy(), expected)
    rows = uncomputed()
    with recording(each_way, submit=False) as recorded:
        embedding(ids, weight, out=rows)
        logits = linear(rows, weight)
    with pytest.raises(DeviceError, match="not computed yet"):
        rows.numpy()
    recorded.replay()
    assert_same_bits(rows.numpy(), expected)
    assert_same_bits(logits.numpy(), linear(rows, weight).numpy())


def test_what_a_block_starts(each_way: Any) -> None:
    """A task of asyncio belongs to the block that starts it, until the block ends."""
    weight, ids = random_weight(ODD, "float16"), to_device([1, 2], each_way)

    async def look_up() -> DeviceArray:
        return embedding(ids, weight)

    async def main() -> tuple[Recording, DeviceArray, DeviceArray]:
        with recording(each_way) as recorded:
            within = await asyncio.create_task(look_up())
            after = asyncio.create_task(look_up())
        return recorded, within, await after

    recorded, *found = asyncio.run(main())
    assert len(recorded) == 1
    for rows in found:
        assert_same_bits(rows.numpy(), reference.embedding(np.array([1, 2]), weight))


def test_a_block_that_raises(each_way: Any) -> None:
    weight, ids = random_weight(ODD, "float16"), to_device([1, 2], each_way)
    made = []

    def fail() -> None:
        with recording(each_way):
            made.append(embedding(ids, weight))
            argmax(made[0], weight, out=ids)
            linear(ids, weight)

    with pytest.raises(TypeError, match="x must be float32 or float16"):
        fail()
    with pytest.raises(DeviceError, match=r"never computed: .* raised an error"):
        made[0].numpy()
    assert_same_bits(ids.numpy(), np.array([1, 2], np.int32))


def test_arrays_that_were_freed(each_way: Any) -> None:
    weight, ids = random_weight(ODD, "float16"), to_device([1, 2], each_way)
    with recording(each_way) as recorded:
        rows = embedding(ids, weight)
    rows.free()
    encoder = each_way.create_command_encoder()
    for use in (recorded.replay, partial(recorded.encode, encoder)):
        with pytest.raises(DeviceError, match="was freed: make another recording"):
            use()


def test_a_buffer_that_its_owner_destroyed(each_way: Any) -> None:
    weight = random_weight(ODD, "float16")
    buffer = each_way.create_buffer(size=8, usage=context_for(each_way).usage("STORAGE"))
    with recording(each_way) as recorded:
        embedding(DeviceArray.wrap(buffer, 2, "int32"), weight)
    again = DeviceArray.wrap(buffer, 2, "int32")
    buffer.destroy()
    with pytest.raises(DeviceError, match="was freed: make another recording"):
        recorded.replay()
    with pytest.raises(DeviceError, match="was freed"):
        embedding(again, weight)
    rows = embedding(to_device([3], each_way), weight).numpy()
    assert_same_bits(rows, reference.embedding(np.array([3]), weight))


def test_a_buffer_that_its_owner_maps(each_way: Any) -> None:
    weight, usage = random_weight(ODD, "float16"), context_for(each_way).usage("STORAGE")
    buffer = each_way.create_buffer(size=8, usage=usage, mapped_at_creation=True)
    ids = DeviceArray.wrap(buffer, 2, "int32")
    rows = DeviceArray.empty((2, ODD.embed_dim), device=each_way)
    words = r"is mapped: call its unmap\(\) first"
    for use in (partial(embedding, ids, weight), partial(argmax, rows, weight, out=ids)):
        with pytest.raises(DeviceError, match=words):
            use()
    with pytest.raises(DeviceError, match=words), recording(each_way):
        embedding(ids, weight)
    buffer.unmap()
    assert_same_bits(embedding(ids, weight).numpy(), reference.embedding(np.array([0, 0]), weight))


def test_the_buffer_of_an_array_is_destroyed(each_way: Any) -> None:
    """As a result, as the x of an op, and in a recording."""
    weight, ids = random_weight(ODD, "float16"), to_device([1, 2], each_way)
    with recording(each_way) as recorded:
        rows = embedding(ids, weight)
    rows.buffer.destroy()
    for use in (recorded.replay, rows.numpy, partial(argmax, rows, weight)):
        with pytest.raises(DeviceError, match="was freed"):
            use()


def test_arrays_of_another_device(each_way: Any, here: Any) -> None:
    other = here.request_device_sync(required_limits=dict(here.limits))
    ids = to_device([1], other)
    with (
        recording(each_way),
        pytest.raises(DeviceError, match="not on the device of the recording"),
    ):
        embedding(ids, random_weight(ODD, "float16"))


def test_a_lost_device(each_way: Any) -> None:
    weight, ids = random_weight(ODD, "float16"), to_device([1, 2], each_way)
    step = feeding_back(weight, ids)
    each_way.destroy()
    for use in (step.replay, partial(step.replay, 1000), partial(embedding, ids, weight)):
        with pytest.raises(DeviceError, match="is lost"):
            use()
