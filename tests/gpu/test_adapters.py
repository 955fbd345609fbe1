"""Which adapter and which WebGPU implementation are used, and when a warning is given."""

from __future__ import annotations

import ast
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wgpu

from tests import rich_tables
from tests.cases import PRIME, anew, random_weight, random_x
from tests.devices import WEBGPU_DEFAULTS, drivers, run_python
from tests.fakes import fake_adapter, fake_implementation
from tests.recorder import check_ops
from wgpu_q4 import DeviceError, device_info, embedding, linear, request_device
from wgpu_q4.device import adapter, adapter_summary, context_for, default_context, list_adapters
from wgpu_q4.device.adapter import choose_adapter
from wgpu_q4.device.implementation import load_implementation

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

    def chosen(name: str | int | None = None) -> str:
        return str(choose_adapter(name, module).info["device"])

    assert chosen() == "Radeon 9"
    assert chosen("radeon") == "Radeon 9"  # the best of that name
    assert chosen("RADEON 8") == "Radeon 8"
    assert chosen("slow") == "Slow CPU"
    assert chosen("IntegratedGPU") == "Radeon 8"  # any part of the line that is shown
    monkeypatch.setenv("WGPU_Q4_ADAPTER", "radeon 8")
    assert chosen() == "Radeon 8"
    assert chosen("slow") == "Slow CPU"  # the argument counts more
    assert [chosen(place) for place in range(3)] == ["Radeon 9", "Radeon 8", "Slow CPU"]
    monkeypatch.setenv("WGPU_Q4_ADAPTER", "")
    assert chosen() == "Radeon 9"


def test_an_unknown_name_lists_the_adapters_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    module = fake_implementation(*RANKED)
    with pytest.raises(DeviceError, match="no adapter is called 'Voodoo'") as raised:
        choose_adapter("Voodoo", module)
    assert all(adapter_summary(item) in str(raised.value) for item in RANKED)
    for place in (-1, len(RANKED)):
        with pytest.raises(DeviceError, match=f"there is no adapter {place}. From 0 on there are"):
            choose_adapter(place, module)
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


def test_a_device_in_words(here: Any, own_device: Any) -> None:
    info = device_info(own_device)
    assert (info.adapter, info.implementation) == (adapter_summary(here), "wgpu")
    assert info.software == (here.info["adapter_type"] == "CPU")
    assert info.largest_binding == own_device.limits["max-storage-buffer-binding-size"]
    assert device_info(info.adapter).adapter == info.adapter
    shown = rich_tables.read(info)
    assert shown["adapter"] == [info.adapter]
    assert shown["largest binding"][0] == f"{info.largest_binding:,} bytes"
    with pytest.raises(DeviceError, match="no adapter is called 'Voodoo'"):
        device_info("Voodoo")


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


IN_THREADS = """
import threading, warnings
import wgpu_q4
from wgpu_q4.device import list_adapters
warnings.simplefilter("ignore")
seen = []

def ask():
    for _ in range(25):
        list_adapters()
        wgpu_q4.request_device()
    seen.append(True)

threads = [threading.Thread(target=ask) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(len(seen))
"""


def test_threads_that_ask_for_adapters_side_by_side() -> None:
    """wgpu-native would abort the process when they let go of OpenGL's."""
    assert run_python("-c", IN_THREADS).split() == ["4"]


def test_adapters_are_asked_for_again_after_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    """The adapter may be gone, and another one there."""
    asked: list[list[Any]] = []
    enumerate_adapters = wgpu.gpu.enumerate_adapters_sync

    def ask() -> list[Any]:
        asked.append(enumerate_adapters())
        return asked[-1]

    def refuse(**_: Any) -> None:
        raise RuntimeError("gone")

    monkeypatch.setattr(adapter, "_kept", {})
    monkeypatch.setattr(wgpu.gpu, "enumerate_adapters_sync", ask)
    first, again = list_adapters("wgpu"), list_adapters("wgpu")
    assert len(asked) == 1
    assert first == again
    for item in asked[0]:
        item.request_device_sync = refuse
    with pytest.raises(DeviceError, match="refuses a device: gone"):
        request_device(implementation="wgpu")
    request_device(implementation="wgpu")
    assert len(asked) == 2
