"""The WGSL kernels in a headless Chromium: a browser's own WebGPU, page and GPU process and all."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tools.parity.browser import Browser
from wgpu_q4.check.cases import Case
from wgpu_q4.check.lookup import LAYOUTS
from wgpu_q4.device.textures import pack_width
from wgpu_q4.errors import DeviceLimitError
from wgpu_q4.format import rows_to_blocks
from wgpu_q4.kernels import (
    Binding,
    Dispatch,
    HalfSupport,
    Layout,
    MatrixShape,
    plan_embedding,
    plan_pack,
)

_ROW_ALIGNMENT = 256


class ChromiumBackend:
    """The kernels that wgpu runs, from the same shaders and plans."""

    def __init__(self, adapter: str) -> None:
        self._browser = Browser(adapter)
        hello = self._browser.hello
        adapter_text = " ".join(
            filter(None, (hello["vendor"], hello["architecture"], hello["description"]))
        )
        self.summary = f"Chromium {self._browser.version}: {adapter_text}"
        self.versions = {"chromium": self._browser.version}
        self._limits = {"max-compute-workgroups-per-dimension": 65535}
        self._texture_side = int(hello["limits"]["maxTextureDimension2D"])

    def run(self, case: Case) -> tuple[NDArray[Any], str]:
        layout, remark = LAYOUTS[case.weight], ""
        if layout == "blocks_texture2d" and -(-case.vocab // 8) > self._texture_side:
            layout, remark = "blocks_buffer", "blocks in a buffer: they exceed a texture here"
        run = self._pack if case.op == "pack" else self._embedding
        return run(case, layout), remark

    def close(self) -> None:
        self._browser.close()

    def _embedding(self, case: Case, layout: Layout) -> NDArray[Any]:
        weight, ids = case.matrix(), case.ids()
        shape = (1,) * (3 - ids.ndim) + ids.shape
        others, height, width = shape
        plan = plan_embedding(
            _matrix_shape(case),
            ids.size,
            layout,
            case.output,
            case.storage,
            self._limits,
            # Browsers differ; the conversions by integers are right in all of them.
            HalfSupport(),
        )
        packed: NDArray[Any]
        if layout == "rows_embedding":
            packed = weight.packed_as("embedding")
        else:
            packed = rows_to_blocks(weight.packed_as("linear"))
        result: tuple[int, ...]
        inputs: dict[str, NDArray[Any]] = {"t_weight": packed, "t_scales": weight.scales}
        if case.storage == "buffer":
            inputs["t_indices"] = ids
            inputs["out_sizes"] = np.array([case.embed_dim, ids.size, 1, 1], np.int32)
            result = (ids.size, case.embed_dim)
        else:
            inputs["t_indices"] = pack_width(ids.reshape(shape))
            inputs["out_sizes"] = np.array([case.embed_dim, width, height, others], np.int32)
            result = (others * height, width, case.embed_dim // 4, 4)
        found = self._run(plan, inputs, result, case.output)
        return found.reshape(*ids.shape, case.embed_dim)

    def _pack(self, case: Case, layout: Layout) -> NDArray[Any]:
        plan = plan_pack(_matrix_shape(case), layout, self._limits)
        strips, quads = -(-case.vocab // 8), case.embed_dim // 4
        rows = {"t_weight": case.matrix().packed_as("linear")}
        return self._run(plan, rows, (strips, quads, 4), "uint32")

    def _run(
        self, plan: Dispatch, inputs: dict[str, NDArray[Any]], shape: tuple[int, ...], dtype: str
    ) -> NDArray[Any]:
        """Return the contents of binding 0, of ``shape``; a texture's last dimension is 4."""
        resources, data = [], {}
        out = np.empty(shape, dtype)
        pitch = 0
        for binding in plan.shader.bindings:
            array = inputs.get(binding.name, out)
            resource = _resource(binding, array)
            resource["hasData"] = binding.name in inputs
            if binding.name in inputs:
                raw = np.ascontiguousarray(array).tobytes()
                data[binding.number] = raw + bytes(-len(raw) % 4)
            resources.append(resource)
        nbytes = out.nbytes + -out.nbytes % 4
        if resources[0]["kind"] != "buffer":
            row_bytes = out.shape[-2] * 4 * out.itemsize
            pitch = -(-row_bytes // _ROW_ALIGNMENT) * _ROW_ALIGNMENT
            nbytes = pitch * out.nbytes // row_bytes
        job = {
            "code": plan.shader.source,
            "constants": dict(plan.constants),
            "workgroups": plan.workgroups,
            "layout": [_layout_entry(binding) for binding in plan.shader.bindings],
            "resources": resources,
            "result": {"nbytes": nbytes, "pitch": pitch},
        }
        limit = int(self._browser.hello["limits"]["maxStorageBufferBindingSize"])
        largest = max(len(raw) for raw in data.values())
        if largest > limit:
            raise DeviceLimitError(f"a binding of {largest:,} bytes exceeds {limit:,}")
        found = np.frombuffer(self._browser.run(job, data), np.uint8)
        if pitch:
            found = np.ascontiguousarray(found.reshape(-1, pitch)[:, :row_bytes])
        out.reshape(-1).view(np.uint8)[:] = found.reshape(-1)[: out.nbytes]
        return out


def _matrix_shape(case: Case) -> MatrixShape:
    return MatrixShape(case.vocab, case.embed_dim, case.group_size, case.scales)


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _layout_entry(binding: Binding) -> dict[str, Any]:
    description = {_camel(name): value for name, value in binding.description}
    return {"binding": binding.number, _camel(binding.kind): description}


def _resource(binding: Binding, array: NDArray[Any]) -> dict[str, Any]:
    description = dict(binding.description)
    if binding.kind == "buffer":
        return {
            "binding": binding.number,
            "kind": "buffer",
            "uniform": description["type"] == "uniform",
            "nbytes": array.nbytes + -array.nbytes % 4,
        }
    dimension = description["view_dimension"]
    depth = array.shape[0] if dimension == "3d" else 1
    return {
        "binding": binding.number,
        "kind": "texture",
        "dimension": dimension,
        "format": description.get("format", "rgba32sint"),
        "size": [array.shape[-2], array.shape[-3], depth],
        "rowBytes": array.shape[-2] * 4 * array.itemsize,
    }
