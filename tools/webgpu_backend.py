"""What ExecuTorch's WebGPU backend does around a shader: bindings, uniform, constant and grid.

It is written down from that backend's host code, so that a shader meant for it can be run and timed
without it.  A folder holds the shaders under the names of the backend's files; it may be a checkout
of ExecuTorch, where they lie further down.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wgpu_q4.device.implementation import implementation_of
from wgpu_q4.device.pipelines import Step, encode
from wgpu_q4.errors import DeviceLimitError

EMBEDDING_FILE = "embedding_q4gsw.wgsl"
LINEAR_FILE = "q4gsw_linear_coop4_bicol.wgsl"

_SIZE = re.compile(r"override wg_size\s*(?::\s*u32\s*)?=\s*(\d+)u?;")


class WebGPUHost:
    """The host's part for the shaders of one folder, on one device."""

    def __init__(self, device: Any, folder: Path) -> None:
        """Remember both; a shader is compiled when it is needed.

        Args:
            device: a device of wgpu or wgpudawn, with any limits and no feature.
            folder: holds `EMBEDDING_FILE` and `LINEAR_FILE`, at any depth.

        Raises:
            FileNotFoundError: one of them is not there, or is there several times.
        """
        self.device = device
        self.folder = folder
        self._files = {name: _find(folder, name) for name in (EMBEDDING_FILE, LINEAR_FILE)}
        self._pipelines: dict[tuple[str, int], tuple[Any, Any]] = {}

    def embedding(
        self,
        out: Any,
        ids: Any,
        weight: Any,
        scales: Any,
        *,
        count: int,
        embed_dim: int,
        group_size: int,
        is_linear: bool,
    ) -> Step:
        """Prepare ``et_vk.embedding_q4gsw`` of ``count`` ids on buffers of the device.

        Args:
            out: float32, at least ``[count, K]``.
            ids: int32, at least ``[count]``.
            weight: uint8 ``[V, K/2]``.
            scales: float32 ``[V, K/G]``.
            is_linear: the weight's nibbles are in the linear convention.

        Raises:
            DeviceLimitError: the backend refuses so many ids.
        """
        size = min(self._size(EMBEDDING_FILE), self._limit("invocations-per-workgroup"))
        blocks = count * (embed_dim // 32)
        workgroups = -(-blocks // size)
        if workgroups > self._limit("workgroups-per-dimension"):
            raise DeviceLimitError(f"{workgroups} workgroups exceed the device's limit")
        row = (embed_dim, embed_dim // 32, count, group_size, embed_dim // group_size)
        uniform = self._uniform((*row, embed_dim // 2, blocks, int(is_linear)))
        buffers = (out, ids, weight, scales, uniform)
        return self._step(EMBEDDING_FILE, buffers, size, workgroups)

    def linear(
        self,
        out: Any,
        x: Any,
        weight: Any,
        scales: Any,
        bias: Any | None,
        *,
        vocab: int,
        embed_dim: int,
        group_size: int,
        padded_vocab: int,
    ) -> Step:
        """Prepare ``et_vk.linear_q4gsw`` of one row of x on buffers of the device.

        Args:
            out: float32, at least ``[V]``.
            x: float32, at least ``[K]``; K and G are multiples of 8.
            weight: uint8 ``[V, K/2]`` in the linear convention.
            scales: float32 ``[K/G, padded V]``.
            bias: float32 ``[V]``, or None.
        """
        size = min(self._size(LINEAR_FILE), self._limit("invocations-per-workgroup"))
        size = 1 << (size.bit_length() - 1)
        workgroups = min(-(-vocab // 2), self._limit("workgroups-per-dimension"))
        words = (1, vocab, embed_dim, embed_dim // 2, group_size, padded_vocab)
        uniform = self._uniform((*words, int(bias is not None), 0))
        if bias is None:
            bias = self.buffer(np.zeros(1, np.float32))
        buffers = (out, x, weight, scales, bias, uniform)
        return self._step(LINEAR_FILE, buffers, size, workgroups)

    def buffer(self, data: NDArray[Any]) -> Any:
        """Return a new storage buffer with this content; its size is a multiple of 4."""
        return self._filled(data, "STORAGE")

    def run(self, step: Step, out: Any, dtype: str = "float32") -> NDArray[Any]:
        """Run a dispatch and return the whole content of ``out``, flat."""
        encoder = self.device.create_command_encoder()
        encode(encoder, [step])
        self.device.queue.submit([encoder.finish()])
        return np.frombuffer(self.device.queue.read_buffer(out), dtype)

    @cached_property
    def _usages(self) -> Any:
        return implementation_of(self.device).BufferUsage

    def _filled(self, data: NDArray[Any], usage: str) -> Any:
        flags = getattr(self._usages, usage) | self._usages.COPY_SRC | self._usages.COPY_DST
        contiguous = np.ascontiguousarray(data)
        buffer = self.device.create_buffer(size=-(-data.nbytes // 4) * 4, usage=flags)
        self.device.queue.write_buffer(buffer, 0, contiguous)
        return buffer

    def _uniform(self, words: Sequence[int]) -> Any:
        return self._filled(np.array(words, np.uint32), "UNIFORM")

    def _limit(self, name: str) -> int:
        return int(self.device.limits[f"max-compute-{name}"])

    def _size(self, file: str) -> int:
        """The size of a workgroup that the backend reads from the text."""
        found = _SIZE.search(self._files[file].read_text(encoding="utf-8"))
        if found is None:
            raise ValueError(f"{self._files[file]} has no 'override wg_size: u32 = …'")
        return int(found[1])

    def _step(self, file: str, buffers: Sequence[Any], size: int, workgroups: int) -> Step:
        pipeline, layout = self._pipeline(file, len(buffers), size)
        group = self.device.create_bind_group(
            layout=layout,
            entries=[
                {
                    "binding": number,
                    "resource": {"buffer": buffer, "offset": 0, "size": buffer.size},
                }
                for number, buffer in enumerate(buffers)
            ],
        )
        return Step(pipeline, group, (workgroups, 1, 1))

    def _pipeline(self, file: str, bindings: int, size: int) -> tuple[Any, Any]:
        """The pipeline and its layout: result first, uniform last, all else read only."""
        if (file, size) in self._pipelines:
            return self._pipelines[file, size]
        kinds = ["storage", *["read-only-storage"] * (bindings - 2), "uniform"]
        stage = implementation_of(self.device).ShaderStage.COMPUTE
        layout = self.device.create_bind_group_layout(
            entries=[
                {"binding": number, "visibility": stage, "buffer": {"type": kind}}
                for number, kind in enumerate(kinds)
            ]
        )
        pipeline = self.device.create_compute_pipeline(
            layout=self.device.create_pipeline_layout(bind_group_layouts=[layout]),
            compute={
                "module": self.device.create_shader_module(
                    label=file, code=self._files[file].read_text(encoding="utf-8")
                ),
                "entry_point": "main",
                "constants": {"wg_size": size},
            },
        )
        self._pipelines[file, size] = pipeline, layout
        return pipeline, layout


def _find(folder: Path, name: str) -> Path:
    found = sorted(folder.rglob(name))
    if len(found) != 1:
        places = ", ".join(map(str, found)) or "nowhere"
        raise FileNotFoundError(f"{name} must be in {folder} once; it is {places}")
    return found[0]
