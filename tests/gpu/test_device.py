"""Which adapter and device are used, and what is kept there: each weight once, and not for ever."""

from __future__ import annotations

import ast
import copy
import gc
import pickle
import random
import subprocess
import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from html import escape
from inspect import currentframe
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, get_args

import numpy as np
import pytest
import wgpu
from numpy.typing import NDArray

from tests.cases import LONG, PRIME, WIDE, Shape, anew, assert_same_bits, random_weight, random_x
from tests.devices import WEBGPU_DEFAULTS, default_device, drivers, run_python
from wgpu_q4 import (
    DeviceError,
    DeviceLimitError,
    Q4Weight,
    SoftwareAdapterWarning,
    embedding,
    linear,
    reference,
    request_device,
)
from wgpu_q4.device import (
    Context,
    adapter,
    adapter_summary,
    context,
    context_for,
    default_context,
    list_adapters,
)
from wgpu_q4.device.adapter import choose_adapter
from wgpu_q4.device.implementation import load_implementation
from wgpu_q4.kernels import PROBE_HALVES, Dispatch, HalfSupport, Layout, Shader

# Large enough that a second copy of it cannot hide among the scratch buffers of a small call.
BIG = Shape(1000, 512, 32)
IDS = np.array([[999, 0, 5], [5, 123, 998]])


@pytest.fixture(autouse=True)
def no_choice_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests choose for themselves."""
    monkeypatch.delenv("WGPU_Q4_ADAPTER", raising=False)
    monkeypatch.delenv("WGPU_Q4_IMPLEMENTATION", raising=False)


@pytest.fixture(scope="module")
def here() -> Any:
    """The best adapter of this machine."""
    return list_adapters("wgpu")[0]


@pytest.fixture
def device(here: Any) -> Any:
    """A device of its own for each test, with all limits of the adapter."""
    return here.request_device_sync(required_limits=dict(here.limits))


class Recorder:
    """Everything that a device creates from now on, seen from outside this package."""

    def __init__(self, device: Any) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.buffers: list[Any] = []
        """Weak references."""
        for name in dir(type(device)):
            if name.startswith("create_"):
                setattr(device, name, self._recording(name, getattr(device, name)))

    def _recording(self, name: str, create: Callable[..., Any]) -> Callable[..., Any]:
        def recorded(**arguments: Any) -> Any:
            made = create(**arguments)
            # Only words and numbers: what it binds or holds could then never be let go.
            told = {k: v for k, v in arguments.items() if isinstance(v, (str, int))}
            constants = arguments.get("compute", {}).get("constants", {})
            self.calls.append((name, {**told, "constants": constants}))
            if name == "create_buffer":
                self.buffers.append(weakref.ref(made))
            return made

        return recorded

    def named(self, name: str) -> list[dict[str, Any]]:
        """The arguments of each call of this method."""
        return [arguments for called, arguments in self.calls if called == name]

    def sizes(self) -> list[int]:
        """Bytes of each buffer."""
        return [arguments["size"] for arguments in self.named("create_buffer")]

    def alive(self) -> list[int]:
        """Bytes of each buffer that something still holds."""
        gc.collect()
        return [buffer().size for buffer in self.buffers if buffer() is not None]


def check_ops(weight: Q4Weight, device: Any, layout: Layout | None = None) -> None:
    """Both ops, few rows and many, against the oracle."""
    ids = np.array([weight.shape[0] - 1, 0, weight.shape[0] // 2])
    assert_same_bits(
        embedding(ids, weight, device=device, layout=layout), reference.embedding(ids, weight)
    )
    for rows in (2, 60):
        check_linear(linear, random_x(rows, weight.shape[1]), weight, device, layout)


def check_linear(
    op: Callable[..., Any],
    x: NDArray[np.float32],
    weight: Q4Weight,
    device: Any,
    layout: Layout | None = None,
) -> None:
    error = np.abs(op(x, weight, device=device, layout=layout) - reference.linear(x, weight))
    assert np.all(error <= reference.linear_bound(x, weight))


# Choosing an adapter


def fake_adapter(device: str, kind: str = "CPU", backend: str = "Vulkan") -> Any:
    info = {
        "device": device,
        "description": "a driver",
        "adapter_type": kind,
        "backend_type": backend,
    }

    def refuse(**_: Any) -> None:
        raise RuntimeError("not today")

    return SimpleNamespace(
        info=info, limits={"max-buffer-size": 7}, features=set(), request_device_sync=refuse
    )


def fake_implementation(*adapters: Any) -> ModuleType:
    """A WebGPU module that finds these adapters."""
    module = ModuleType("fakegpu")
    vars(module)["gpu"] = SimpleNamespace(enumerate_adapters_sync=lambda: list(adapters))
    return module


RANKED = [
    fake_adapter("a", "DiscreteGPU", "Vulkan"),
    fake_adapter("b", "DiscreteGPU", "OpenGL"),
    fake_adapter("c", "IntegratedGPU", "Metal"),
    fake_adapter("d", "IntegratedGPU", "D3D12"),
    fake_adapter("e", "VirtualGPU", "Vulkan"),
    fake_adapter("f", "Unknown", "Vulkan"),
    fake_adapter("g", "CPU", "Vulkan"),
    fake_adapter("h", "CPU", "OpenGL"),
]


def test_adapters_are_listed_best_first() -> None:
    for seed in range(5):
        shuffled = random.Random(seed).sample(RANKED, len(RANKED))
        found = list_adapters(fake_implementation(*shuffled))
        assert [item.info["device"] for item in found] == list("abcdefgh")


def test_the_best_adapter_is_used_unless_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    module = fake_implementation(
        fake_adapter("Slow CPU"),
        fake_adapter("Radeon 8", "IntegratedGPU"),
        fake_adapter("Radeon 9", "DiscreteGPU"),
    )

    def chosen(name: str | None = None) -> str:
        return str(choose_adapter(name, module).info["device"])

    assert chosen() == "Radeon 9"
    assert chosen("radeon") == "Radeon 9"  # the best of that name
    assert chosen("RADEON 8") == "Radeon 8"
    assert chosen("slow") == "Slow CPU"
    assert chosen("IntegratedGPU") == "Radeon 8"  # any part of the line that is shown
    monkeypatch.setenv("WGPU_Q4_ADAPTER", "radeon 8")
    assert chosen() == "Radeon 8"
    assert chosen("slow") == "Slow CPU"  # the argument counts more
    monkeypatch.setenv("WGPU_Q4_ADAPTER", "")
    assert chosen() == "Radeon 9"


def test_an_unknown_name_lists_the_adapters_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    module = fake_implementation(*RANKED)
    with pytest.raises(DeviceError, match="no adapter is called 'Voodoo'") as raised:
        choose_adapter("Voodoo", module)
    assert all(adapter_summary(item) in str(raised.value) for item in RANKED)
    monkeypatch.setenv("WGPU_Q4_ADAPTER", "Voodoo 2")
    with pytest.raises(DeviceError, match="no adapter is called 'Voodoo 2'"):
        request_device(implementation=module)


def test_a_refused_device_is_a_device_error() -> None:
    with pytest.raises(DeviceError, match=r"^a \(Vulkan, .*\) refuses a device: not today"):
        request_device(implementation=fake_implementation(RANKED[0]))


def test_a_device_gets_what_its_adapter_has(here: Any) -> None:
    made = request_device()
    for name in WEBGPU_DEFAULTS:
        assert made.limits[name] == here.limits[name]
    useful = {"timestamp-query", "shader-f16", "subgroup", "subgroups", "mappable-primary-buffers"}
    assert made.features & useful == here.features & useful


def test_an_adapter_is_chosen_by_argument_and_by_variable(
    here: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = adapter_summary(here)
    assert adapter_summary(request_device(name.upper()).adapter) == name
    monkeypatch.setenv("WGPU_Q4_ADAPTER", name[:-3])
    assert adapter_summary(request_device().adapter) == name
    monkeypatch.setenv("WGPU_Q4_ADAPTER", "Voodoo")
    with pytest.raises(DeviceError, match="no adapter is called 'Voodoo'"):
        request_device()


def test_an_op_takes_the_name_of_an_adapter(here: Any) -> None:
    name = adapter_summary(here)
    weight = anew(random_weight(PRIME, "float16"))
    check_ops(weight, name)
    assert default_context(name) is context_for(name)  # kept for the next call
    assert [resident.describe().startswith(name) for resident in weight.residents] == [True]
    with pytest.raises(DeviceError, match=f"no adapter is called 'Voodoo'.*{name[:8]}"):
        embedding(np.array([0]), weight, device="Voodoo")
    with pytest.raises(DeviceError, match=f"no adapter is called 'Voodoo'.*{name[:8]}"):
        linear(random_x(1, 72), weight, device="Voodoo")


NO_ADAPTER = """
import numpy as np, wgpu_q4
weight = wgpu_q4.quantize(np.ones((2, 8), np.float32), group_size=8)
for call in (
    lambda: wgpu_q4.embedding(np.array([0]), weight),
    lambda: wgpu_q4.linear(np.ones(8, np.float32), weight),
    lambda: wgpu_q4.request_device(),
):
    try:
        call()
    except wgpu_q4.DeviceError as error:
        print(error)
"""


def test_no_adapter_at_all_says_what_to_install(tmp_path: Path) -> None:
    said = run_python("-c", NO_ADAPTER, **drivers(tmp_path / "no_driver.json")).splitlines()
    assert len(said) == 3
    for line in said:
        assert line.startswith("wgpu finds no GPU adapter. Install a driver")
        assert "apt-get install mesa-vulkan-drivers" in line


# The WebGPU implementation


def test_unknown_implementations(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DeviceError, match=r"'no_such_gpu' cannot be imported.* wgpu, wgpudawn; "):
        request_device(implementation="no_such_gpu")
    with pytest.raises(DeviceError, match="json is not a WebGPU implementation: it has no 'gpu'"):
        request_device(implementation="json")
    monkeypatch.setenv("WGPU_Q4_IMPLEMENTATION", "no_such_gpu")
    with pytest.raises(DeviceError, match="'no_such_gpu' cannot be imported"):
        request_device()


def test_an_implementation_by_argument_and_by_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_implementation() is wgpu
    assert load_implementation("wgpudawn").__name__ == "wgpudawn"
    assert load_implementation(wgpu) is wgpu
    monkeypatch.setenv("WGPU_Q4_IMPLEMENTATION", "wgpudawn")
    assert load_implementation().__name__ == "wgpudawn"
    assert load_implementation("wgpu") is wgpu


def test_no_module_imports_an_implementation() -> None:
    """The device layer is given one; everything else works on the device."""
    package = Path(adapter.__file__).parent.parent
    files = sorted(package.rglob("*.py"))
    assert len(files) > 15
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            assert not {name.partition(".")[0] for name in names} & {"wgpu", "wgpudawn"}, file


@pytest.mark.parametrize("kind", ["adapter", "number", "object", "torch device"])
def test_what_is_no_device(kind: str, here: Any) -> None:
    import torch

    wrong = {
        "adapter": here,
        "number": 3,
        "object": object(),
        "torch device": torch.device("cpu"),
    }[kind]
    weight = random_weight(PRIME, "float16")
    message = f"device must be a GPUDevice .*, not {type(wrong).__name__}"
    with pytest.raises(TypeError, match=message):
        embedding(np.array([0]), weight, device=wrong)
    with pytest.raises(TypeError, match=message):
        linear(random_x(1, PRIME.embed_dim), weight, device=wrong)


# The warning


@pytest.fixture
def unwarned(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[warnings.WarningMessage]]:
    """The state of a new process, in which every adapter runs on the processor."""
    monkeypatch.setattr(adapter, "_warned", set())
    monkeypatch.setattr(context, "_default", {})
    monkeypatch.setattr(adapter, "is_software", lambda adapter: True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield caught


def line_here() -> int:
    """The line of the caller."""
    frame = currentframe()
    assert frame is not None
    assert frame.f_back is not None
    return frame.f_back.f_lineno


def test_a_software_adapter_is_announced_once_where_it_was_asked_for(
    unwarned: list[warnings.WarningMessage],
) -> None:
    weight = anew(random_weight(PRIME, "float16"))
    line = line_here() + 1
    embedding(np.array([0]), weight)
    embedding(np.array([0]), weight)
    linear(random_x(1, PRIME.embed_dim), weight)
    request_device()
    found = [item for item in unwarned if issubclass(item.category, SoftwareAdapterWarning)]
    assert len(found) == 1
    assert (found[0].filename, found[0].lineno) == (__file__, line)
    assert adapter_summary(default_context().device.adapter) in str(found[0].message)


def test_the_announcement_names_the_line_of_each_way_in(
    unwarned: list[warnings.WarningMessage],
) -> None:
    line = line_here() + 1
    request_device()
    assert [(item.filename, item.lineno) for item in unwarned] == [(__file__, line)]


def test_nothing_is_announced_of_an_adapter_that_was_named(
    unwarned: list[warnings.WarningMessage], here: Any
) -> None:
    request_device(adapter_summary(here))
    assert unwarned == []


def test_nothing_is_announced_of_a_gpu(
    unwarned: list[warnings.WarningMessage], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter, "is_software", lambda adapter: False)
    request_device()
    assert unwarned == []


@pytest.mark.parametrize(
    ("kind", "software"),
    [("CPU", True), ("IntegratedGPU", False), ("DiscreteGPU", False), ("Unknown", False)],
)
def test_what_runs_on_the_processor(kind: str, software: bool) -> None:
    assert adapter.is_software(fake_adapter("some", kind)) is software


# A device of the caller's


def test_a_device_with_the_default_limits_and_no_feature() -> None:
    device = default_device("wgpu")
    assert {name: device.limits[name] for name in WEBGPU_DEFAULTS} == WEBGPU_DEFAULTS
    assert not device.features
    recorder = Recorder(device)
    for shape in (PRIME, WIDE):
        weight = anew(random_weight(shape, "float16"))
        for layout in get_args(Layout):
            check_ops(weight, device, layout)
    # An implementation need not refuse what is beyond the limits of a device but not of its
    # adapter, so the sizes are looked at here.
    assert context_for(device).limits == device.limits
    tiles = {
        constants["TILE_M"]
        for call in recorder.named("create_compute_pipeline")
        if "TILE_M" in (constants := call["constants"])
    }
    assert tiles
    assert all(64 * (tile_m + 64) <= 16384 and tile_m <= 256 for tile_m in tiles)
    assert max(recorder.sizes()) <= 1 << 27


@pytest.mark.parametrize(("workgroup_bytes", "tile"), [(16384, 128), (12287, 64), (8191, 32)])
def test_the_largest_tile_is_left_to_devices_that_have_room_for_it(
    workgroup_bytes: int, tile: int
) -> None:
    """Every device has room for the largest there is, so this one is told that it has less."""
    device = default_device("wgpu")
    kept = context_for(device)
    assert kept.limits["max-compute-workgroup-storage-size"] == 16384
    kept.limits = {**kept.limits, "max-compute-workgroup-storage-size": workgroup_bytes}
    weight, x = random_weight(WIDE, "float16"), random_x(128, WIDE.embed_dim)
    recorder = Recorder(device)
    check_linear(linear, x, weight, device)
    (gemm,) = [
        call["constants"]
        for call in recorder.named("create_compute_pipeline")
        if "TILE_M" in call["constants"]
    ]
    assert gemm["TILE_M"] == tile


def test_a_weight_too_large_for_a_binding() -> None:
    """128 MiB is what every device binds.  The error comes before anything is uploaded."""
    vocab, embed_dim = 66_000, 4096
    weight = Q4Weight(np.zeros((vocab, embed_dim // 2), np.uint8), np.ones((vocab, 1), np.float16))
    device = default_device("wgpu")
    recorder = Recorder(device)
    ops: list[Callable[[], Any]] = [
        lambda: embedding(np.array([0]), weight, device=device),
        lambda: linear(random_x(1, embed_dim), weight, device=device),
    ]
    for op in ops:
        with pytest.raises(DeviceLimitError, match=r"packed weight takes 135,168,000 bytes") as no:
            op()
        assert adapter_summary(device.adapter) in str(no.value)
        assert "allows 134,217,728" in str(no.value)
        assert "request_device()" in str(no.value)
    assert recorder.named("create_buffer") == []
    assert len(weight.residents) == 0


def test_a_weight_too_tall_for_a_texture() -> None:
    """8 rows to a texel, 8192 texels: beyond 65,536 rows it is buffers or nothing."""
    weight = random_weight(Shape(65_544, 8, 8), "float16")
    device = default_device("wgpu")
    ids = np.array([65_543, 0])
    with pytest.raises(DeviceLimitError, match=r"a 2 × 8193 texture .* exceeds 8192 × 8192") as no:
        embedding(ids, weight, device=device, layout="blocks_texture2d")
    assert "layout='blocks_buffer' or 'rows'" in str(no.value)
    for layout in (None, "blocks_buffer"):
        result = embedding(ids, weight, device=device, layout=layout)
        assert_same_bits(result, reference.embedding(ids, weight))


def test_more_ids_than_a_texture_holds() -> None:
    weight = random_weight(Shape(13, 24, 8), "float16")
    device, ids = default_device("wgpu"), np.arange(2049) % 13
    with pytest.raises(DeviceLimitError, match=r"a 6 × 2049 × 1 texture .* exceeds 2048") as no:
        embedding(ids, weight, device=device, storage="texture3d")
    assert "use storage='buffer'" in str(no.value)
    assert_same_bits(embedding(ids, weight, device=device), reference.embedding(ids, weight))


# One copy


def test_one_packed_buffer_and_one_of_scales_serve_both_ops(device: Any) -> None:
    weight = anew(random_weight(BIG, "float16"))
    packed, scales = 1000 * 256, 1000 * 16 * 2
    assert (weight.packed.nbytes, weight.scales.nbytes) == (packed, scales)
    recorder = Recorder(device)
    for dtype in ("float32", "float16"):
        embedding(IDS, weight, dtype, device=device)
    linear(random_x(1, 512), weight, device=device)
    linear(random_x(1, 512), weight, random_x(1000), device=device)

    sizes = recorder.sizes()
    assert (sizes.count(packed), sizes.count(scales)) == (1, 1)
    assert sum(sizes) - packed - scales < packed / 2  # and no other buffer could hold a copy
    assert recorder.named("create_texture") == []
    labels = [call["label"] for call in recorder.named("create_buffer")]
    assert (labels.count("wgpu_q4 packed rows"), labels.count("wgpu_q4 scales")) == (1, 1)

    linear(random_x(40, 512), weight, device=device)  # scratch grows, the weight does not
    sizes = recorder.sizes()
    assert (sizes.count(packed), sizes.count(scales)) == (1, 1)
    (resident,) = weight.residents
    assert resident.nbytes == packed + scales
    assert context_for(device).buffers_created == len(sizes)


def test_the_scales_are_there_once_whatever_the_layouts(device: Any) -> None:
    weight = anew(random_weight(BIG, "float32"))
    recorder = Recorder(device)
    for layout in get_args(Layout):
        embedding(IDS, weight, device=device, layout=layout)
        linear(random_x(1, 512), weight, device=device, layout=layout)
    scales = 1000 * 16 * 4
    assert recorder.sizes().count(scales) == 1
    # Rows in two nibble orders and blocks; the fourth layout is a texture.
    assert recorder.sizes().count(1000 * 256) == 3
    assert len(recorder.named("create_texture")) == 1
    (resident,) = weight.residents
    assert resident.nbytes == 4 * 1000 * 256 + scales


@pytest.mark.parametrize("first", get_args(Layout))
def test_a_call_without_a_layout_uses_the_copy_that_is_there(first: Layout, device: Any) -> None:
    weight = anew(random_weight(BIG, "float16"))
    embedding(IDS, weight, device=device, layout=first)
    recorder = Recorder(device)
    assert_same_bits(embedding(IDS, weight, device=device), reference.embedding(IDS, weight))
    check_linear(linear, random_x(1, 512), weight, device)
    assert weight.packed.nbytes not in recorder.sizes()
    assert recorder.named("create_texture") == []


@pytest.mark.parametrize("layout", ["blocks_buffer", "blocks_texture2d"])
def test_rows_that_were_uploaded_to_be_packed_are_let_go(layout: Layout, device: Any) -> None:
    weight = anew(random_weight(BIG, "float16"))
    recorder = Recorder(device)
    embedding(IDS, weight, device=device, layout=layout)
    packed = weight.packed.nbytes
    assert recorder.sizes().count(packed) == (2 if layout == "blocks_buffer" else 1)
    assert recorder.alive().count(packed) == (1 if layout == "blocks_buffer" else 0)


# A repeated call


REPEATED: dict[str, Callable[[Q4Weight, Any], Any]] = {
    "embedding": lambda weight, device: embedding(IDS, weight, device=device),
    "embedding in half": lambda weight, device: embedding(IDS, weight, "float16", device),
    "blocks": lambda w, device: embedding(IDS, w, device=device, layout="blocks_buffer"),
    "gemv": lambda weight, device: linear(random_x(1, 512), weight, device=device),
    "gemv with bias": lambda w, device: linear(random_x(2, 512), w, random_x(1000), device),
    "gemm": lambda weight, device: linear(random_x(40, 512), weight, device=device),
    "gemm with bias": lambda w, device: linear(random_x(40, 512), w, random_x(1000), device),
    "argmax": lambda w, device: linear(random_x(1, 512), w, device=device, reduce="argmax"),
    "top_k": lambda w, device: linear(random_x(3, 512), w, None, device, reduce="top_k", k=9).ids,
}  # fmt: skip


def test_a_repeated_call_creates_nothing(device: Any) -> None:
    weight = anew(random_weight(BIG, "float16"))
    recorder = Recorder(device)
    kept = context_for(device)
    for name, call in REPEATED.items():
        first = call(weight, device)
        counted = kept.buffers_created, kept.bind_groups_created, kept.pipelines_created
        recorder.calls.clear()
        assert_same_bits(call(weight, device), first)
        made = {called for called, _ in recorder.calls}
        assert made <= {"create_command_encoder"}, name
        assert counted == (kept.buffers_created, kept.bind_groups_created, kept.pipelines_created)


def test_a_smaller_call_creates_nothing(device: Any) -> None:
    """Another number of ids or rows needs no other pipeline, and the larger buffers serve it.

    5 rows and more are taken 8 at a time.
    """
    weight = anew(random_weight(BIG, "float16"))
    embedding(np.arange(100), weight, device=device)
    linear(random_x(17, 512), weight, device=device)
    embedding(np.arange(100), weight, device=device)
    recorder = Recorder(device)
    ids = np.array([7])
    assert_same_bits(embedding(ids, weight, device=device), reference.embedding(ids, weight))
    check_linear(linear, random_x(5, 512), weight, device)
    assert {called for called, _ in recorder.calls} <= {"create_command_encoder"}


def test_a_second_weight_of_the_same_shape_compiles_nothing(device: Any) -> None:
    check_ops(anew(random_weight(BIG, "float16")), device)
    recorder = Recorder(device)
    check_ops(anew(random_weight(BIG, "float16")), device)
    assert recorder.named("create_compute_pipeline") == []
    assert recorder.named("create_shader_module") == []


def test_the_counters_count_what_is_created(device: Any) -> None:
    recorder = Recorder(device)
    check_ops(anew(random_weight(BIG, "float16")), device)
    kept = context_for(device)
    assert kept.buffers_created == len(recorder.named("create_buffer")) > 0
    assert kept.bind_groups_created == len(recorder.named("create_bind_group")) > 0
    assert kept.pipelines_created == len(recorder.named("create_compute_pipeline")) > 0


# How long it lasts


@pytest.mark.parametrize("layout", ["rows", "blocks_buffer"])
def test_a_dropped_weight_leaves_the_device(layout: Layout, device: Any) -> None:
    weight, other = anew(random_weight(BIG, "float16")), anew(random_weight(LONG, "float16"))
    recorder = Recorder(device)
    check_ops(other, device)
    check_ops(weight, device, layout)
    check_ops(weight, device, layout)
    held = {weight.packed.nbytes, weight.scales.nbytes}
    others = {other.packed.nbytes, other.scales.nbytes}
    assert held | others <= set(recorder.alive())
    del weight
    alive = set(recorder.alive())
    assert not alive & held
    assert others <= alive  # what is still in use stays
    check_ops(other, device)


def test_a_dropped_device_takes_everything_with_it(here: Any) -> None:
    weight = anew(random_weight(BIG, "float16"))
    device = here.request_device_sync(required_limits=dict(here.limits))
    recorder = Recorder(device)
    check_ops(weight, device)
    assert len(recorder.alive()) > 2
    gone = [*map(weakref.ref, (device, context_for(device), *weight.residents))]
    del device
    gc.collect()
    assert [item() for item in gone] == [None] * 3
    assert recorder.alive() == []
    assert len(weight.residents) == 0
    assert "none yet" in weight._repr_html_()


def test_two_devices_hold_a_copy_each(device: Any, here: Any) -> None:
    second = here.request_device_sync(required_limits=dict(here.limits))
    weight = anew(random_weight(BIG, "float16"))
    recorders = [Recorder(device), Recorder(second)]
    assert context_for(device) is not context_for(second)
    for one in (device, second):
        check_ops(weight, one)
    for recorder in recorders:
        assert recorder.sizes().count(weight.packed.nbytes) == 1
    assert len(weight.residents) == 2
    del one, second
    assert len(recorders[1].alive()) == 0
    assert weight.packed.nbytes in recorders[0].alive()
    check_ops(weight, device)


def test_one_device_has_one_context(device: Any) -> None:
    assert context_for(device) is context_for(device)
    assert context_for(device).device is device
    assert context_for() is context_for(None) is default_context()


def test_a_copied_weight_is_the_same_copy_on_the_device(device: Any) -> None:
    weight = anew(random_weight(BIG, "float16"))
    recorder = Recorder(device)
    check_ops(weight, device)
    check_ops(copy.deepcopy(weight), device)
    check_ops(copy.copy(weight), device)
    assert recorder.sizes().count(weight.packed.nbytes) == 1


def test_a_pickled_weight_leaves_its_device_behind(device: Any) -> None:
    weight = anew(random_weight(BIG, "float16"))
    check_ops(weight, device)
    again = pickle.loads(pickle.dumps(weight))
    assert len(again.residents) == 0
    assert again.same_matrix(weight)
    recorder = Recorder(device)
    check_ops(again, device)
    assert recorder.sizes().count(weight.packed.nbytes) == 1
    del again
    assert weight.packed.nbytes not in recorder.alive()


# What it says of itself


def test_a_weight_shows_where_it_is_and_what_reads_it(device: Any) -> None:
    weight = anew(random_weight(BIG, "float16"))
    summary = adapter_summary(device.adapter)
    assert summary not in weight._repr_html_()
    embedding(IDS, weight, device=device)
    (resident,) = weight.residents
    assert resident.describe() == f"{summary}: rows, 288,000 bytes, read by embedding"
    linear(random_x(1, 512), weight, device=device, layout="blocks_buffer")
    described = f"{summary}: rows and blocks_buffer, 544,000 bytes, read by embedding, linear"
    assert resident.describe() == described
    shown = weight._repr_html_()
    assert escape(described) in shown
    assert f"{weight.nbytes:,}" in shown
    assert repr(weight) == "Q4Weight(1000×512, group 32, float16 scales, 288,000 bytes)"


# Threads


def test_four_threads_on_one_device(device: Any) -> None:
    """From the first call on: they all find the weight not there yet."""
    weight = anew(random_weight(BIG, "float16"))
    recorder = Recorder(device)
    start = threading.Barrier(4)

    def work(thread: int) -> None:
        rng = np.random.default_rng(thread)
        start.wait()
        for turn in range(6):
            ids = rng.integers(0, 1000, 5 + 40 * thread + turn)
            result = embedding(ids, weight, device=device)
            assert_same_bits(result, reference.embedding(ids, weight))
            x = rng.standard_normal((1 + thread, 512)).astype(np.float32)
            check_linear(linear, x, weight, device)

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(work, thread) for thread in range(4)]:
            done.result(timeout=60)
    assert recorder.sizes().count(weight.packed.nbytes) == 1
    assert len(weight.residents) == 1


def test_threads_share_the_default_device(monkeypatch: pytest.MonkeyPatch, device: Any) -> None:
    asked = []

    def slowly(*arguments: Any) -> Any:
        asked.append(arguments)
        threading.Event().wait(0.05)
        return device

    monkeypatch.setattr(context, "_default", {})
    monkeypatch.setattr(context, "request_device", slowly)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: default_context(), range(4)))
    assert len(set(map(id, found))) == 1
    assert len(asked) == 1


# What a device does with half precision


class Changed(Shader):
    """A kernel with some of its text replaced."""

    def __init__(self, variant: Shader, changes: dict[str, str]) -> None:
        super().__init__(f"{variant.name} changed", variant.pieces)
        object.__setattr__(self, "_changes", changes)

    @property
    def source(self) -> str:
        text = super().source
        for old, new in vars(self)["_changes"].items():
            assert text.count(old) == 1
            text = text.replace(old, new)
        return text


# What WGSL allows a device to do, and drivers do.
FLUSHES = {
    "unpack2x16float(pair.x)": "select(unpack2x16float(pair.x), vec2<f32>(0.0), "
    "abs(unpack2x16float(pair.x)) < vec2<f32>(6.103515625e-5))"
}
TRUNCATES = {"(pair.zw)": "(pair.zw & vec2<u32>(0xFFFFE000u))"}
OVERFLOWS_TO_THE_LARGEST = {
    "bitcast<vec2<f32>>(pair.zw)": "clamp(bitcast<vec2<f32>>(pair.zw), vec2<f32>(-65504.0), "
    "vec2<f32>(65504.0))"
}
KEEPS = HalfSupport(subnormals=True, rounding=True)


@pytest.mark.parametrize(
    ("changes", "flaws"),
    [
        (FLUSHES, {"subnormals"}),
        (TRUNCATES, {"rounding"}),
        (OVERFLOWS_TO_THE_LARGEST, {"rounding"}),
        (FLUSHES | TRUNCATES, {"subnormals", "rounding"}),
    ],
    ids=["flushes", "truncates", "saturates", "both"],
)
def test_the_probe_sees_flaws_and_the_ops_avoid_them(
    changes: dict[str, str], flaws: set[str], device: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = context_for(device).half_support
    flawed = Context(device)
    flawed.is_software = False  # a processor would not take the kernel that needs subnormals
    device._wgpu_q4_context = flawed
    monkeypatch.setattr(context, "PROBE_HALVES", Changed(PROBE_HALVES, changes))
    found = flawed.half_support
    assert found.subnormals == (sound.subnormals and "subnormals" not in flaws)
    assert found.rounding == (sound.rounding and "rounding" not in flaws)

    recorder = Recorder(device)
    weight = anew(random_weight(WIDE, "float16"))
    check_ops(weight, device)
    ids = np.arange(20)
    half = embedding(ids, weight, "float16", device)
    assert_same_bits(half, reference.embedding(ids, weight, "float16"))
    labels = [call["label"] for call in recorder.named("create_compute_pipeline")]
    assert len(labels) == 5  # embedding twice, GEMV, transpose, GEMM
    assert sum("integer_halves" in label for label in labels) == 4
    gemv = "gemv_wide_subnormal_rows" if found.subnormals else "gemv_wide_rows"
    assert sum(gemv in label for label in labels) == 1


def test_the_probe_runs_once(device: Any) -> None:
    kept = context_for(device)
    recorder = Recorder(device)
    assert isinstance(kept.half_support, HalfSupport)
    made = len(recorder.calls)
    assert len(recorder.named("create_compute_pipeline")) == 1
    assert kept.half_support is kept.half_support
    assert len(recorder.calls) == made


def test_the_probe_is_right_about_every_half(device: Any) -> None:
    """It looks at few; here are all that are finite, and as many floats around them."""
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    halves = halves[np.isfinite(halves)]
    exact = halves.astype(np.float32)
    rng = np.random.default_rng(5)
    floats = exact * (1 + rng.uniform(-(2.0**-10), 2.0**-10, exact.size)).astype(np.float32)

    pairs = np.zeros((exact.size // 2, 4), np.uint32)
    pairs[:, 0] = halves.view(np.uint32)
    pairs[:, 2:] = floats.view(np.uint32).reshape(-1, 2)
    kept = context_for(device)
    source = kept.create_buffer("pairs", pairs.nbytes, "STORAGE", "COPY_DST")
    target = kept.create_buffer("found", pairs.nbytes, "STORAGE", "COPY_SRC")
    kept.write(source, pairs)
    every = Changed(
        PROBE_HALVES,
        {
            "@builtin(local_invocation_index) lane: u32": "@builtin(global_invocation_id) at: "
            "vec3<u32>",
            "let pair = t_pairs[lane];": "let lane = at.x; let pair = t_pairs[lane];",
        },
    )
    assert len(pairs) % 16 == 0
    encoder = device.create_command_encoder()
    kept.encode(
        encoder, Dispatch(every, {}, (len(pairs) // 16, 1, 1)), {"t_out": target, "t_pairs": source}
    )
    found = np.empty_like(pairs)
    kept.read(encoder, target, found)

    unpacked = np.array_equal(found[:, :2].reshape(-1), exact.view(np.uint32))
    with np.errstate(over="ignore"):
        packed = np.array_equal(found[:, 2], floats.astype(np.float16).view(np.uint32))
    assert kept.half_support == HalfSupport(subnormals=unpacked, rounding=packed)


FORKED = """
import os, warnings
import numpy as np
import wgpu_q4
warnings.simplefilter("ignore")
weight = wgpu_q4.quantize(np.ones((3, 8), np.float32), 8)
wgpu_q4.embedding(np.array([1]), weight)
child = os.fork()
if child == 0:
    try:
        wgpu_q4.embedding(np.array([1]), weight)
    except wgpu_q4.DeviceError as error:
        os._exit(7 if "spawn" in str(error) else 8)
    os._exit(9)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_forked_process_is_told_so_instead_of_hanging() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORKED], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == ["7"], done.stderr
