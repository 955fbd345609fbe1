"""The backends by name: each computes a case.

A name is ``kind`` or ``kind/driver``: ``numpy``, ``executorch``, ``wgpu/lavapipe``,
``wgpudawn/swiftshader``, ``vulkan/lavapipe``, ``glsl-dir/nvidia``, ``chromium/swiftshader``,
``drop-in-wgpu/lavapipe``, ``drop-in-wgpudawn/swiftshader``.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from wgpu_q4.check.cases import Case
from wgpu_q4.check.lookup import LAYOUTS, compute
from wgpu_q4.errors import DeviceLimitError


class NotApplicableError(Exception):
    """The backend has no such operation; the message says why."""


class Backend(Protocol):
    """Something that computes cases, in the process that made it."""

    @property
    def summary(self) -> str:
        """Return one line: what runs, on which adapter."""
        ...

    @property
    def versions(self) -> dict[str, str]:
        """Return the versions of packages and drivers by name."""
        ...

    def run(self, case: Case) -> tuple[NDArray[Any], str]:
        """Return the result, in the form of `oracle.expected`, and a remark or an empty string.

        Raises:
            NotApplicableError: the backend has no such operation.
        """
        ...

    def close(self) -> None:
        """Release the device."""
        ...


def make(name: str, kernels: Mapping[str, str]) -> Backend:
    """Return a new backend.

    Args:
        name: as in the description of this module.
        kernels: paths of SPIR-V files by kernel name, for raw Vulkan.
    """
    kind, _, driver = name.partition("/")
    if kind == "numpy":
        return NumpyBackend()
    if kind == "executorch":
        return ExecutorchBackend()
    if kind in ("wgpu", "wgpudawn"):
        return WebGPUBackend(kind)
    if kind.startswith("drop-in-"):
        return DropInBackend(kind.removeprefix("drop-in-"))
    if kind in ("vulkan", "glsl-dir"):
        return VulkanBackend(driver, kernels, foreign=kind == "glsl-dir")
    if kind == "chromium":
        from tools.parity.chromium import ChromiumBackend

        return ChromiumBackend(driver)
    raise ValueError(f"no backend is called {name!r}")


def refuse_unknown_ids(case: Case) -> None:
    """Raise `NotApplicableError` for ids outside the vocabulary, which the backend refuses."""
    if case.id_kind == "outside":
        raise NotApplicableError("an id outside the vocabulary is an error here")


class NumpyBackend:
    """`Q4Weight.dequantize` and indexing: the package's own code for the host, not the oracle."""

    summary = "numpy on the host"

    def __init__(self) -> None:
        self.versions = {"numpy": np.__version__, "python": platform.python_version()}

    def run(self, case: Case) -> tuple[NDArray[Any], str]:
        from wgpu_q4.format import rows_to_blocks

        refuse_unknown_ids(case)
        weight = case.matrix()
        if case.op == "pack":
            return rows_to_blocks(weight.packed_as("linear")), ""
        rows, places = _used_rows(case)
        part = type(weight)(weight.packed[rows], weight.scales[rows], weight.convention)
        with np.errstate(over="ignore"):
            return part.dequantize()[places].astype(case.output), ""

    def close(self) -> None:
        pass


class ExecutorchBackend:
    """The operator that ExecuTorch's exporter puts into a graph, as PyTorch runs it."""

    summary = "torch.ops.et_vk of the executorch wheel, eager"

    def __init__(self) -> None:
        import executorch.backends.vulkan.custom_ops_lib  # noqa: F401  (registers the operators)
        import torch

        torch.set_num_threads(1)
        self.versions = {name: version(name) for name in ("executorch", "torch")}

    def run(self, case: Case) -> tuple[NDArray[Any], str]:
        import torch

        if case.op == "pack":
            raise NotApplicableError("packing is no operator, only a shader")
        refuse_unknown_ids(case)
        weight = case.matrix()
        rows, places = _used_rows(case)
        linear = case.weight != "flat"
        packed = weight.packed_as("linear" if linear else "embedding")[rows]
        found = torch.ops.et_vk.embedding_q4gsw(
            torch.from_numpy(packed.copy()),
            torch.from_numpy(weight.scales[rows].copy()),
            case.group_size,
            torch.from_numpy(places.astype(np.int64)),
            linear,
        )
        half = case.output == "float16"
        return np.asarray((found.half() if half else found).numpy()), ""

    def close(self) -> None:
        pass


class WebGPUBackend:
    """The WGSL kernels: through naga with wgpu, through Tint with wgpudawn."""

    def __init__(self, implementation: str) -> None:
        from wgpu_q4.device import context_for, request_device

        # "(Vulkan": not the OpenGL of the same driver, if it has one.
        self._context = context_for(request_device("(Vulkan", implementation))
        self.summary = f"{implementation}: {self._context.adapter_summary}"
        self.versions = {implementation: version(implementation)}

    def run(self, case: Case) -> tuple[NDArray[Any], str]:
        refuse_unknown_ids(case)
        layout = LAYOUTS[case.weight]
        try:
            return compute(case, layout, self._context), ""
        except DeviceLimitError:
            # ExecuTorch, too, takes a buffer where a texture is too small.
            if layout != "blocks_texture2d":
                raise
            remark = "blocks in a buffer: they exceed a texture here"
            return compute(case, "blocks_buffer", self._context), remark

    def close(self) -> None:
        pass


class DropInBackend:
    """The WGSL for ExecuTorch's WebGPU backend, run as that backend runs it."""

    def __init__(self, implementation: str) -> None:
        from tools.codegen import WEBGPU_FOLDER
        from tools.webgpu_backend import WebGPUHost
        from wgpu_q4.device import context_for, request_device

        device = request_device("(Vulkan", implementation)
        self._host = WebGPUHost(device, WEBGPU_FOLDER)
        self.summary = f"webgpu_wgsl, {implementation}: {context_for(device).adapter_summary}"
        self.versions = {implementation: version(implementation)}

    def run(self, case: Case) -> tuple[NDArray[Any], str]:
        from tools.parity import contract

        if case.op != "embedding" or "float16" in (case.output, case.scales):
            raise NotApplicableError("ExecuTorch's WebGPU backend knows float32 alone")
        if case.storage != "buffer" or case.weight == "linear_texture2d":
            raise NotApplicableError("ExecuTorch's WebGPU backend has no textures")
        return contract.run_on_webgpu(case, self._host), ""

    def close(self) -> None:
        pass


class VulkanBackend:
    """SPIR-V of ExecuTorch's kernels, run on Vulkan as ExecuTorch would, validation on."""

    def __init__(self, driver: str, kernels: Mapping[str, str], foreign: bool) -> None:
        from tools.vulkan import Device

        self._foreign = foreign
        self._device = Device(driver, validation=True)
        self._kernels = {name: Path(path).read_bytes() for name, path in kernels.items()}
        self.summary = self._device.summary
        self.versions = {"vulkan": version("vulkan")}

    def run(self, case: Case) -> tuple[NDArray[Any], str]:
        from tools.parity import contract

        if self._foreign and case.id_kind == "outside":
            raise NotApplicableError("ExecuTorch's contract leaves such ids undefined")
        remark = ""
        try:
            outcome = self._device.run(contract.dispatch(case, self._spirv(case)))
        except DeviceLimitError:
            # As ExecuTorch does: a weight that exceeds a texture goes into a buffer.
            if case.weight != "linear_texture2d":
                raise
            case = replace(case, weight="linear_buffer")
            remark = f"ran {case.kernel}: the blocks exceed a texture here"
            outcome = self._device.run(contract.dispatch(case, self._spirv(case)))
        return contract.result(case, outcome.results[0]), remark

    def close(self) -> None:
        self._device.close()

    def _spirv(self, case: Case) -> bytes:
        spirv = self._kernels.get(case.kernel)
        if spirv is None:
            raise NotApplicableError(f"no kernel {case.kernel} in this folder")
        return spirv


def _used_rows(case: Case) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the rows that the ids name, and the ids renumbered among these rows."""
    ids = case.ids()
    rows, places = np.unique(ids, return_inverse=True)
    return rows, places.reshape(ids.shape)


def package_versions() -> dict[str, str]:
    """Return versions and properties of this machine, for the report."""
    found = {"python": platform.python_version(), "system": platform.platform()}
    found["cores"] = str(os.cpu_count())
    for name in ("wgpu_q4", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found
