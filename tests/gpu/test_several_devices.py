"""``device=[…]``: the rows of a weight on several devices, and what one device gives."""

from __future__ import annotations

import gc
import threading
from typing import Any
from weakref import ref

import numpy as np
import pytest

import wgpu_q4
from tests.cases import (
    LONG,
    PRIME,
    TINY,
    Shape,
    anew,
    assert_same_bits,
    random_weight,
    random_x,
    some_ids,
)
from tests.devices import default_device, run_python, swiftshader
from tests.reductions import best
from wgpu_q4 import DeviceError, reference
from wgpu_q4.device import context_for
from wgpu_q4.ops import linear_transposed
from wgpu_q4.ops.several import shares_of


@pytest.fixture(scope="module")
def devices() -> list[Any]:
    return [default_device("wgpu") for _ in range(3)]


@pytest.mark.parametrize(
    ("shape", "count"),
    # Of the first two, some devices hold nothing.
    [(TINY, 2), (Shape(11, 24, 8), 3), (PRIME, 1), (PRIME, 3), (LONG, 2)],
    ids=str,
)
def test_several_devices_give_what_one_gives(shape: Shape, count: int, devices: list[Any]) -> None:
    weight, one = (anew(random_weight(shape, "float16")) for _ in range(2))
    several, ids = devices[:count], some_ids(shape)
    for dtype in ("float32", "float16"):
        rows = wgpu_q4.embedding(ids, weight, dtype, several)
        assert_same_bits(rows, wgpu_q4.embedding(ids, one, dtype))
    x, bias = random_x(2, shape.embed_dim), random_x(shape.vocab)
    logits = wgpu_q4.linear(x, weight, bias, several)
    # Not the bits: a driver may compile a kernel for another V to sum in another order.
    error = np.abs(logits - reference.linear(x, weight, bias))
    assert (error <= reference.linear_bound(x, weight, bias)).all()
    assert_same_bits(wgpu_q4.argmax(x, weight, bias, several), best(logits, 1)[:, 0])
    k = min(shape.vocab, 100)  # more than some device holds
    found = wgpu_q4.top_k(x, weight, k, bias, several)
    assert_same_bits(found.ids, best(logits, k))
    assert_same_bits(found.values, np.take_along_axis(logits, found.ids, 1))
    y = random_x(2, shape.vocab)
    error = np.abs(linear_transposed(y, weight, several) - reference.linear_transposed(y, weight))
    assert (error <= reference.linear_transposed_bound(y, weight)).all()


def test_each_device_holds_its_rows_only(devices: list[Any]) -> None:
    weight = anew(random_weight(LONG, "float32"))  # 131 rows: 48, 48 and 35
    wgpu_q4.embedding([0, 130, 50], weight, device=devices)
    sizes = sorted(resident.nbytes for resident in weight.residents)
    row = weight.nbytes // 131
    assert sizes == [35 * row, 48 * row, 48 * row]
    html = weight._repr_html_()
    assert html.count("read by embedding") == 3
    assert f"{35 * row:,} bytes" in html
    assert f"{48 * row:,} bytes" in html
    residents = [ref(resident) for resident in weight.residents]
    del weight
    gc.collect()
    assert [resident() for resident in residents] == [None] * 3


def test_two_adapters_of_one_process() -> None:
    """Mesa's driver and SwiftShader, which is tested in a process that loads both."""
    held = run_python("-m", "tests.two_adapters", VK_ADD_DRIVER_FILES=str(swiftshader().resolve()))
    first, second = held.splitlines()
    row = 72 // 2 + 72 // 24 * 2
    padding = 2  # of 121 · 3 scales to a word
    assert [int(line.split()[0]) for line in (first, second)] == [136 * row, 121 * row + padding]
    assert "llvmpipe" in first
    assert "SwiftShader" in second


def test_choices_reach_every_device(devices: list[Any]) -> None:
    weight = anew(random_weight(PRIME, "float16"))
    x = random_x(1, PRIME.embed_dim)
    with wgpu_q4.forced(layout="blocks_buffer"):
        wgpu_q4.linear(x, weight, device=devices)
        wgpu_q4.embedding([0, 100, 256], weight, device=devices)
    assert len(weight.residents) == 3
    assert all("blocks_buffer," in resident.describe() for resident in weight.residents)


def test_many_threads_and_orders(devices: list[Any]) -> None:
    weight, x = random_weight(PRIME, "float16"), random_x(1, PRIME.embed_dim)
    expected, bound = reference.linear(x, weight), reference.linear_bound(x, weight)
    wrong: list[Any] = []

    def call(order: list[Any]) -> None:
        for _ in range(20):
            if (np.abs(wgpu_q4.linear(x, weight, device=order) - expected) > bound).any():
                wrong.append(order)

    orders = [devices, devices[::-1], devices[:2], [devices[1], devices[2], devices[0]]]
    threads = [threading.Thread(target=call, args=(order,)) for order in orders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_calls_while_the_interpreter_ends() -> None:
    """It starts no more threads, for the functions that `atexit` runs and for daemon threads."""
    program = """
import atexit, threading, time
import wgpu_q4
threading.excepthook = lambda failed: print(failed.exc_value)
weight = wgpu_q4.quantize([[float(row)] * 8 for row in range(16)], 8)
devices = [wgpu_q4.request_device(), wgpu_q4.request_device()]
atexit.register(lambda: print(wgpu_q4.argmax([1.0] * 8, weight, device=devices)))

def work():
    while True:
        wgpu_q4.embedding([0, 15], weight, device=devices)

threading.Thread(target=work, daemon=True).start()
time.sleep(0.1)
"""
    assert run_python("-c", program) == "15\n"


class TestRefused:
    WEIGHT = random_weight(PRIME, "float16")
    X = random_x(1, PRIME.embed_dim)

    def test_one_device_twice(self, devices: list[Any]) -> None:
        with pytest.raises(ValueError, match="twice: each device holds one share"):
            wgpu_q4.linear(self.X, self.WEIGHT, device=[devices[0], devices[1], devices[0]])

    def test_no_device(self) -> None:
        with pytest.raises(ValueError, match="device must name 1 to 64 devices, not 0"):
            wgpu_q4.embedding([1], self.WEIGHT, device=[])

    def test_an_adapter_that_is_not_there(self, devices: list[Any]) -> None:
        with pytest.raises(DeviceError, match="no adapter is called 'nothing'"):
            wgpu_q4.argmax(self.X, self.WEIGHT, device=[devices[0], "nothing"])

    def test_a_lost_device(self, devices: list[Any]) -> None:
        lost = default_device("wgpu")
        context_for(lost)
        lost.destroy()
        for several in ([devices[0], lost], [lost, devices[0]]):
            with pytest.raises(DeviceError, match="is lost"):
                wgpu_q4.linear(self.X, self.WEIGHT, device=several)
        rows = wgpu_q4.embedding([0, 256], self.WEIGHT, device=devices)
        assert_same_bits(rows, reference.embedding(np.array([0, 256]), self.WEIGHT))


def test_nothing_is_copied_on_the_host(devices: list[Any]) -> None:
    weight = anew(random_weight(PRIME, "float16"))
    for share in shares_of(weight, devices):
        assert np.shares_memory(share.weight.packed, weight.packed)
        assert np.shares_memory(share.weight.scales, weight.scales)
