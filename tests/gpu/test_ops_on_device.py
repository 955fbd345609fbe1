"""The ops on device arrays: what they compute, where they write, and what they refuse."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.cases import (
    LONG,
    ODD,
    WIDE,
    Shape,
    anew,
    assert_same_bits,
    limited_context,
    random_weight,
    random_x,
    some_ids,
)
from tests.recorder import Recorder
from tests.reductions import best
from wgpu_q4 import (
    DeviceArray,
    DeviceError,
    DeviceLimitError,
    Q4Weight,
    TopK,
    argmax,
    embedding,
    forced,
    linear,
    reference,
    to_device,
    top_k,
)
from wgpu_q4.device import Context, context_for
from wgpu_q4.device.roundtrip import ENVIRONMENT_VARIABLE
from wgpu_q4.ops import linear_transposed

DTYPES = ("float32", "float16")


@pytest.fixture(scope="module", params=["native", "public"])
def device(request: pytest.FixtureRequest, here: Any) -> Any:
    """A device that is used in each way there is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(ENVIRONMENT_VARIABLE, request.param)
        made = here.request_device_sync(required_limits=dict(here.limits))
        assert context_for(made).round_trip.name == request.param
    return made


@pytest.fixture(scope="module")
def small() -> Context:
    """A device that binds 64 KiB at a time."""
    return limited_context({"max-storage-buffer-binding-size": 64 << 10})


def assert_close(found: DeviceArray, exact: NDArray[Any], bound: NDArray[Any]) -> None:
    """``found`` is within float32's bound of ``exact``, or is that rounded to float16."""
    values = found.numpy().astype(np.float64)
    if found.dtype == np.float16:  # half of the last place, of a normal or a subnormal number
        bound = bound + np.maximum(np.abs(values), 2**-14) * 2**-11
    assert found.shape == exact.shape
    assert np.all(np.abs(values - exact) <= bound)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("ids_dtype", [np.int32, np.uint32])
def test_embedding(device: Any, ids_dtype: Any, dtype: Any) -> None:
    weight, ids = random_weight(ODD, "float16"), some_ids(ODD).astype(ids_dtype)
    found = embedding(to_device(ids, device), weight, dtype)
    assert isinstance(found, DeviceArray)
    assert_same_bits(found.numpy(), reference.embedding(ids, weight, dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [1, 3, 60])
@pytest.mark.parametrize("shape", [ODD, WIDE], ids=str)
def test_linear(device: Any, shape: Shape, rows: int, dtype: Any) -> None:
    """Without a bias, and with one on either side, of either dtype."""
    weight, x = random_weight(shape, "float16"), random_x(rows, shape.embed_dim).astype(dtype)
    bias = random_x(shape.vocab)
    on_device = to_device(x.reshape(rows, 1, -1), device)
    biases = [None, bias, to_device(bias, device), to_device(bias.astype(np.float16), device)]
    for given in biases:
        added = None if given is None else np.asarray(given, np.float32)
        found = linear(on_device, weight, given)
        assert found.dtype == dtype
        exact = reference.linear(x.astype(np.float32), weight, added)
        bound = reference.linear_bound(x.astype(np.float32), weight, added)
        assert_close(found.reshape(rows, -1), exact, bound)
        assert found.shape == (rows, 1, shape.vocab)


def test_x_and_bias_of_half_precision(device: Any) -> None:
    """Both are converted in one submission, and x has many more numbers than the bias."""
    shape = Shape(65, 128, 32)
    weight, x, bias = random_weight(shape, "float16"), random_x(3, 128), random_x(65)
    x, bias = x.astype(np.float16), bias.astype(np.float16)
    found = linear(to_device(x, device), weight, to_device(bias, device))
    floats = x.astype(np.float32), weight, bias.astype(np.float32)
    assert_close(found, reference.linear(*floats), reference.linear_bound(*floats))


@pytest.mark.parametrize("accuracy", ["fast", "int8"])
def test_linear_that_rounds_x(device: Any, accuracy: Any) -> None:
    weight, x = random_weight(LONG, "float16"), random_x(2, LONG.embed_dim)
    found = linear(to_device(x, device), weight, accuracy=accuracy)
    assert_same_bits(found.numpy(), linear(x, weight, device=device, accuracy=accuracy))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [ODD, LONG], ids=str)
def test_argmax_and_top_k(device: Any, shape: Shape, dtype: Any) -> None:
    """They agree with the logits that `linear` gives on the same device."""
    weight, x = random_weight(shape, "float16"), random_x(2, 3, shape.embed_dim).astype(dtype)
    logits = linear(x.astype(np.float32), weight, device=device)
    on_device = to_device(x, device)
    ids = argmax(on_device, weight)
    assert_same_bits(ids.numpy(), logits.argmax(-1).astype(np.int32))
    found = top_k(on_device, weight, 7)
    order = best(logits.reshape(6, -1), 7).reshape(2, 3, 7)
    assert_same_bits(found.ids.numpy(), order.astype(np.int32))
    values = np.take_along_axis(logits, order, -1).astype(dtype)
    assert_same_bits(found.values.numpy(), values)


def test_argmax_of_several_dispatches(device: Any) -> None:
    """V takes two slices, so that candidates are reduced to ids."""
    weight, x = random_weight(Shape(2050, 32, 32), "float16"), random_x(5, 32)
    logits = linear(x, weight, device=device)
    found = argmax(to_device(x, device), weight)
    assert_same_bits(found.numpy(), logits.argmax(-1).astype(np.int32))


@pytest.mark.parametrize("dtype", DTYPES)
def test_linear_transposed(device: Any, dtype: Any) -> None:
    weight, y = random_weight(ODD, "float16"), random_x(2, 3, ODD.vocab).astype(dtype)
    found = linear_transposed(to_device(y, device), weight)
    assert found.shape == (2, 3, ODD.embed_dim)
    floats = y.astype(np.float32).reshape(6, -1)
    exact = reference.linear_transposed(floats, weight)
    bound = reference.linear_transposed_bound(floats, weight)
    assert_close(found.reshape(6, -1), exact, bound)


def test_nothing_in_nothing_out(device: Any) -> None:
    weight = random_weight(ODD, "float16")
    ids, x = np.zeros((0, 3), np.int32), np.zeros((2, 0, 24), np.float16)
    rows = embedding(to_device(ids, device), weight, "float16")
    assert_same_bits(rows.numpy(), np.zeros((0, 3, 24), np.float16))
    given = to_device(x, device)
    assert linear(given, weight).shape == (2, 0, 13)
    assert argmax(given, weight).shape == (2, 0)
    assert top_k(given, weight, 2).values.shape == (2, 0, 2)


def test_a_weight_in_parts(small: Context) -> None:
    """Each of its two parts writes its columns of the logits, and the rows of its ids."""
    shape = Shape(1400, 96, 32)
    weight, device = random_weight(shape, "float16"), small.device
    assert len(small.weight(weight).parts) == 2
    ids, x, y = some_ids(shape, (30,)), random_x(9, 96), random_x(2, 1400)
    for dtype in DTYPES:
        rows = embedding(to_device(ids, device), weight, dtype)
        assert_same_bits(rows.numpy(), reference.embedding(ids, weight, dtype))
    bias = random_x(1400)
    for given in (x, x.astype(np.float16)):
        floats = given.astype(np.float32)
        found = linear(to_device(given, device), weight, to_device(bias, device))
        bound = reference.linear_bound(floats, weight, bias)
        assert_close(found, reference.linear(floats, weight, bias), bound)
    logits = linear(x, weight, bias, device)
    assert_same_bits(
        argmax(to_device(x, device), weight, bias).numpy(), logits.argmax(-1).astype(np.int32)
    )
    kept = top_k(to_device(x, device), weight, 70, bias)
    assert_same_bits(kept.ids.numpy(), best(logits, 70).astype(np.int32))
    sums = linear_transposed(to_device(y, device), weight)
    bound = reference.linear_transposed_bound(y, weight)
    assert_close(sums, reference.linear_transposed(y, weight), bound)


def test_rows_that_take_several_bindings(small: Context) -> None:
    """Logits of 128 rows are bound at a time; x and the results begin where they may."""
    weight, device = random_weight(WIDE, "float16"), small.device
    x = random_x(160, WIDE.embed_dim)
    for given in (x, x.astype(np.float16)):
        floats = given.astype(np.float32)
        found = linear(to_device(given, device), weight)
        assert_close(
            found, reference.linear(floats, weight), reference.linear_bound(floats, weight)
        )
    narrow, x = random_weight(Shape(65, 8, 8), "float16"), random_x(300, 8)
    logits = linear(x, narrow, device=device)
    on_device = to_device(x, device)
    assert_same_bits(argmax(on_device, narrow).numpy(), logits.argmax(-1).astype(np.int32))
    assert_same_bits(top_k(on_device, narrow, 3).ids.numpy(), best(logits, 3).astype(np.int32))
    with pytest.raises(DeviceLimitError, match="takes 78,000 bytes in one binding"):
        linear(on_device, narrow)
    with pytest.raises(DeviceLimitError, match="pass 40 rows or fewer"):
        argmax(on_device, random_weight(Shape(400, 8, 8), "float16"))


def test_arrays_of_the_caller(own_device: Any) -> None:
    """In one buffer each, between bytes that nothing changes."""
    weight = random_weight(ODD, "float16")
    ids = some_ids(ODD, (20,)).astype(np.int32)

    def guarded(nbytes: int) -> tuple[Any, NDArray[np.uint8]]:
        usage = context_for(own_device).usage("STORAGE", "COPY_SRC", "COPY_DST")
        poison = np.full(512 + nbytes + -nbytes % 4 + 256, 0xA5, np.uint8)
        buffer = own_device.create_buffer(size=poison.size, usage=usage)
        own_device.queue.write_buffer(buffer, 0, poison)
        return buffer, poison

    def check(buffer: Any, poison: NDArray[np.uint8], inside: NDArray[Any]) -> None:
        poison[512 : 512 + inside.nbytes] = inside.reshape(-1).view(np.uint8)
        found = np.frombuffer(own_device.queue.read_buffer(buffer), np.uint8)
        np.testing.assert_array_equal(found, poison)

    id_buffer, before = guarded(ids.nbytes)
    given = DeviceArray.wrap(id_buffer, 20, "int32", offset=512)
    given.write(ids)
    for dtype in DTYPES:
        rows = reference.embedding(ids, weight, dtype)
        buffer, poison = guarded(rows.nbytes)
        out = DeviceArray.wrap(buffer, rows.shape, dtype, offset=512)
        assert embedding(given, weight, dtype, out=out) is out
        check(buffer, poison, rows)
    check(id_buffer, before, ids)
    x = random_x(5, ODD.embed_dim)
    logits = linear(x, weight, device=own_device)
    buffer, poison = guarded(logits.nbytes)
    linear(to_device(x, own_device), weight, out=DeviceArray.wrap(buffer, (5, 13), offset=512))
    check(buffer, poison, logits)


# Where results are written


def test_out(device: Any) -> None:
    weight, x = random_weight(WIDE, "float16"), random_x(3, WIDE.embed_dim)
    given, logits = to_device(x, device), linear(x, weight, device=device)
    out = DeviceArray.empty((3, WIDE.vocab), device=device)
    assert linear(given, weight, out=out) is out
    assert_same_bits(out.numpy(), logits)
    ids = DeviceArray.empty(3, np.uint32, device)
    assert argmax(given, weight, out=ids) is ids
    assert_same_bits(ids.numpy(), logits.argmax(-1).astype(np.uint32))
    pair = TopK(
        DeviceArray.empty((3, 2), device=device), DeviceArray.empty((3, 2), "int32", device)
    )
    found = top_k(given, weight, 2, out=pair)
    assert (found.values, found.ids) == pair
    assert_same_bits(pair.ids.numpy(), best(logits, 2).astype(np.int32))
    y = to_device(logits, device)
    sums = DeviceArray.empty(x.shape, device=device)
    assert linear_transposed(y, weight, out=sums) is sums
    assert_same_bits(sums.numpy(), linear_transposed(logits, weight, device))


def test_an_out_that_does_not_fit(device: Any, here: Any) -> None:
    weight = random_weight(WIDE, "float16")
    x = to_device(random_x(3, WIDE.embed_dim), device)
    ids = to_device([1, 2], device)
    other = here.request_device_sync(required_limits=dict(here.limits))
    freed = DeviceArray.empty(3, "int32", device)
    freed.free()
    values, kept = (
        DeviceArray.empty((3, 2), device=device),
        DeviceArray.empty((3, 2), "int32", device),
    )
    both = DeviceArray.wrap(values.buffer, (3, 2), "int32")
    empty = DeviceArray.empty
    on_host = cast(Any, np.zeros(3, np.int32))
    cases: list[tuple[Callable[[], object], type[Exception], str]] = [
        (
            lambda: argmax(x, weight, out=empty(4, "int32", device)),
            ValueError,
            r"\[3\], not int32 \[4\]",
        ),
        (lambda: argmax(x, weight, out=empty(3, device=device)), ValueError, "int32 or uint32"),
        (
            lambda: argmax(x, weight, out=empty(3, "int32", other)),
            DeviceError,
            "another device than x",
        ),
        (lambda: argmax(x, weight, out=freed), DeviceError, "was freed"),
        (
            lambda: argmax(x, weight, out=on_host),
            TypeError,
            "DeviceArray, not ndarray",
        ),
        (
            lambda: linear(x, weight, out=empty((3, 101), "float16", device)),
            ValueError,
            "must be float32",
        ),
        (
            lambda: embedding(ids, weight, "float16", out=empty((2, 96), device=device)),
            ValueError,
            "float16",
        ),
        (
            lambda: top_k(x, weight, 2, out=TopK(values, empty((3, 3), "int32", device))),
            ValueError,
            "out.ids",
        ),
        (
            lambda: top_k(x, weight, 2, out=TopK(values, both)),
            ValueError,
            "the buffer of out.values",
        ),
        (
            lambda: top_k(x, weight, 2, out=TopK(kept, kept)),
            ValueError,
            "out.values must be float32",
        ),
        (
            lambda: top_k(x, weight, 2, out=cast(Any, values)),
            TypeError,
            "a TopK of two device arrays, not DeviceArray",
        ),
        (
            lambda: embedding(on_host, weight, out=values),
            TypeError,
            "pass indices as a device",
        ),
        (
            lambda: linear(on_host, weight, out=values),
            TypeError,
            "pass x as a device array",
        ),
    ]
    for call, error, words in cases:
        with pytest.raises(error, match=words):
            call()
    square = random_weight(Shape(24, 24, 24), "float16")
    into_itself = to_device(random_x(3, 24), device)
    with pytest.raises(ValueError, match="out lies in the buffer of x"):
        linear(into_itself, square, out=into_itself)


def test_what_does_not_fit(device: Any, here: Any) -> None:
    weight = random_weight(WIDE, "float16")
    x, ids = to_device(random_x(3, WIDE.embed_dim), device), to_device([1, 2], device)
    other = here.request_device_sync(required_limits=dict(here.limits))
    bias_of_other = to_device(random_x(WIDE.vocab), other)
    freed = to_device([1], device)
    freed.free()

    on_host, best_of_all = cast(Any, np.zeros((3, 3))), cast(Any, "best")

    def in_textures() -> object:
        with forced(storage="texture3d"):
            return embedding(ids, weight)

    cases: list[tuple[Callable[[], object], type[Exception], str]] = [
        (
            lambda: embedding(x, weight),
            TypeError,
            "indices must have an integer dtype, not float32",
        ),
        (lambda: embedding(ids, weight, np.float64), ValueError, "dtype must be one of"),
        (lambda: embedding(ids, on_host), TypeError, "weight must be a Q4Weight"),
        (lambda: embedding(ids, weight, device=other), DeviceError, "indices is on another device"),
        (lambda: embedding(ids, weight, device=[device]), DeviceError, "list of devices is for"),
        (lambda: embedding(freed, weight), DeviceError, "was freed"),
        (in_textures, ValueError, "storage='texture3d' cannot be forced"),
        (lambda: linear(ids, weight), TypeError, "x must be float32 or float16, not int32"),
        (lambda: linear(x, weight, ids), TypeError, "bias must be float32 or float16, not int32"),
        (lambda: linear(x, weight, x), ValueError, r"bias must have shape \[101\], not \[3, 96\]"),
        (lambda: linear(x, weight, bias_of_other), DeviceError, "bias is on another device than x"),
        (lambda: linear(x.reshape(96, 3), weight), ValueError, r"x must have shape \[..., 96\]"),
        (lambda: linear(x, weight, accuracy=best_of_all), ValueError, "accuracy must be one of"),
        (lambda: top_k(x, weight, 0), ValueError, r"k must be in 1\.\.101"),
        (lambda: linear_transposed(x, weight), ValueError, r"y must have shape \[..., 101\]"),
        (lambda: linear_transposed(ids, weight), TypeError, "y must be float32 or float16"),
    ]
    for call, error, words in cases:
        with pytest.raises(error, match=words):
            call()


# What is made, and what is held


CALLS: dict[str, Callable[[Q4Weight, DeviceArray, DeviceArray, DeviceArray], object]] = {
    "embedding": lambda weight, ids, x, out: embedding(ids, weight, out=x),
    "linear": lambda weight, ids, x, out: linear(x, weight, out=out),
    "argmax": lambda weight, ids, x, out: argmax(x, weight, out=ids),
}


def test_with_out_a_repeated_call_makes_nothing(own_device: Any) -> None:
    weight = anew(random_weight(LONG, "float16"))
    ids, x = to_device([5, 7, 9], own_device), DeviceArray.empty((3, 2048), device=own_device)
    out = DeviceArray.empty((3, LONG.vocab), device=own_device)
    for call in CALLS.values():
        call(weight, ids, x, out)
    recorder = Recorder(own_device)
    for _ in range(3):
        for name, call in CALLS.items():
            call(weight, ids, x, out)
            assert {made for made, _ in recorder.calls} <= {"create_command_encoder"}, name


def test_a_call_holds_no_array(own_device: Any) -> None:
    """Neither an input nor an ``out`` outlives its name, whatever bind groups were kept."""
    weight, recorder = anew(random_weight(LONG, "float16")), Recorder(own_device)
    ids, out = to_device([5, 7, 9], own_device), DeviceArray.empty((3, 2048), device=own_device)
    embedding(ids, weight, out=out)
    logits = DeviceArray.empty((3, LONG.vocab), device=own_device)
    linear(out, weight, out=logits)
    gone = [weakref.ref(array.buffer) for array in (ids, out, logits)]
    held = [ids, out, logits]
    del ids, out, logits
    for buffer in gone:
        assert buffer() is not None
        held.pop(0)
        assert buffer() is None
    packed = weight.packed.nbytes
    assert recorder.alive().count(packed) == 1
    del weight
    assert recorder.alive().count(packed) == 0


def test_the_weight_goes_while_an_out_stays(own_device: Any) -> None:
    weight, recorder = anew(random_weight(LONG, "float16")), Recorder(own_device)
    ids, out = to_device([5, 7, 9], own_device), DeviceArray.empty((3, 2048), device=own_device)
    embedding(ids, weight, out=out)
    packed = weight.packed.nbytes
    del weight
    assert recorder.alive().count(packed) == 0
    assert out.numpy().shape == (3, 2048)
