"""ONNX Runtime's ``GatherBlockQuantized`` and ``MatMulNBits``, whole calls, numpy to numpy.

On the processor, and through WebGPU (Dawn) where one of its two packages is installed:
``onnxruntime-webgpu``, a build of its own that takes the place of ``onnxruntime``, or
``onnxruntime-ep-webgpu``, which adds to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from tools.bench.peers.base import Peer, Task, UnavailableError
from tools.bench.peers.onnx_graphs import embedding_graph, linear_graph
from wgpu_q4 import Q4Weight
from wgpu_q4.bench.timing import Effort, time_calls
from wgpu_q4.errors import FormatError

_PLUGIN = "wgpu_q4 webgpu"
_PROVIDER = "WebGpuExecutionProvider"


class Processor(Peer):
    """ONNX Runtime on the processor, with sums in float32."""

    who = "ONNX Runtime"
    accuracy = "exact"
    accuracy_level = 1
    device = "cpu"
    tolerance = 1e-5

    def __init__(self, weight: Q4Weight, effort: Effort) -> None:
        self._weight = _with_float_scales(weight)
        self._effort = effort
        self._linear: Any = None

    def session(self, model: bytes) -> Any:
        """Return a session for a model, on this peer's device and no other.

        Raises:
            UnavailableError: the session cannot be made.
        """
        return _session(model, onnxruntime.SessionOptions(), ["CPUExecutionProvider"])

    def embedding(self, ids: NDArray[np.int64]) -> Task:
        try:
            session = self.session(embedding_graph(self._weight))
        except FormatError as error:
            raise UnavailableError(str(error)) from error
        return self._task(session, {"indices": ids}, 1e-6, {"dtype": "float32"})

    def linear(self, x: NDArray[np.float32]) -> Task:
        if self._linear is None:
            try:
                model = linear_graph(self._weight, accuracy_level=self.accuracy_level)
            except FormatError as error:
                raise UnavailableError(str(error)) from error
            self._linear = self.session(model)
        detail = {"dtype": "float32", "accuracy": self.accuracy}
        return self._task(self._linear, {"A": x}, self.tolerance, detail)

    def _task(
        self,
        session: Any,
        given: Mapping[str, NDArray[Any]],
        tolerance: float,
        detail: Mapping[str, str],
    ) -> Task:
        def run() -> NDArray[Any]:
            (out,) = session.run(None, given)
            return np.asarray(out)

        return Task(
            answer=run,
            measure=lambda: time_calls(run, self._effort),
            clock="calls",
            moved=0,
            tolerance=tolerance,
            detail={**detail, "device": self.device},
        )

    def close(self) -> None:
        self._linear = None  # its threads go with it


class ProcessorInt8(Processor):
    """ONNX Runtime on the processor, with activations in int8, as its exporters choose."""

    accuracy = "int8"
    accuracy_level = 4
    tolerance = 5e-2


class WebGpu(Processor):
    """ONNX Runtime through WebGPU, on the adapter that it chooses itself."""

    who = "ONNX Runtime WebGPU"
    device = "webgpu"
    tolerance = 1e-4

    def __init__(self, weight: Q4Weight, effort: Effort) -> None:
        super().__init__(weight, effort)
        self._devices = _webgpu_devices()

    def session(self, model: bytes) -> Any:
        options = onnxruntime.SessionOptions()
        # An operator that WebGPU lacks would else run on the processor under WebGPU's name.
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        options.log_severity_level = 4
        if self._devices:
            options.add_provider_for_devices(self._devices[:1], {})
            return _session(model, options, None)
        return _session(model, options, [_PROVIDER])


def _webgpu_devices() -> list[Any]:
    """Return the plugin's devices; there are none where WebGPU is built in."""
    if _PROVIDER in onnxruntime.get_available_providers():
        return []
    if find_spec("onnxruntime_ep_webgpu") is None:
        raise UnavailableError(
            "not installed (neither onnxruntime-ep-webgpu nor onnxruntime-webgpu)"
        )
    import onnxruntime_ep_webgpu as plugin

    def devices() -> list[Any]:
        found = onnxruntime.get_ep_devices()
        return [device for device in found if device.ep_name == plugin.get_ep_name()]

    try:
        _register(plugin.get_library_path())
    except Exception as error:  # its exceptions have no common type
        raise UnavailableError(f"its library does not load: {_first_line(error)}") from error
    if not devices():
        raise UnavailableError("onnxruntime-ep-webgpu finds no GPU here")
    return devices()


@cache
def _register(library: str) -> None:
    """Load the plugin; a second time is an error."""
    onnxruntime.register_execution_provider_library(_PLUGIN, library)


def _session(model: bytes, options: Any, providers: list[str] | None) -> Any:
    kwargs = {} if providers is None else {"providers": providers}
    try:
        session = onnxruntime.InferenceSession(model, options, enable_fallback=0, **kwargs)
    except Exception as error:  # its exceptions have no common type
        raise UnavailableError(_first_line(error)) from error
    wanted = _PROVIDER if providers is None else providers[0]
    if session.get_providers()[0] != wanted:
        raise UnavailableError(f"it would run on {session.get_providers()[0]} instead")
    return session


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__


def _with_float_scales(weight: Q4Weight) -> Q4Weight:
    """Return the weight with float32 scales: the operators compute in the dtype of the scales."""
    scales = weight.scales.astype(np.float32)
    return Q4Weight(weight.packed, scales, weight.convention)
