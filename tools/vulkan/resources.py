"""The resources that a kernel binds, from the host's side.

Every resource starts with known contents, even one that the kernel only writes: the values that the
kernel left alone then differ from those that it wrote.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

from numpy.typing import NDArray

_TEXEL_DTYPES = ("float32", "float16", "int32", "uint32")


@dataclass(frozen=True)
class StorageBuffer:
    """A storage buffer: ``layout(set = 0, binding = …) buffer``."""

    data: NDArray[Any]


@dataclass(frozen=True)
class UniformBuffer:
    """A uniform buffer: ``layout(set = 0, binding = …) uniform Name { … }``."""

    data: NDArray[Any]


class _Image:
    def __init__(self, texels: NDArray[Any]) -> None:
        if texels.ndim not in (3, 4) or texels.shape[-1] != 4 or not texels.size:
            raise ValueError(
                f"texels must be [height, width, 4] or [depth, height, width, 4] and not empty, "
                f"not {list(texels.shape)}"
            )
        if texels.dtype.name not in _TEXEL_DTYPES:
            raise TypeError(f"texels must be {', '.join(_TEXEL_DTYPES)}, not {texels.dtype}")
        self.data = texels

    @property
    def dimensions(self) -> int:
        """Return 2 or 3."""
        return self.data.ndim - 1

    @property
    def extent(self) -> tuple[int, int, int]:
        """Return width, height and depth in texels."""
        depth = self.data.shape[0] if self.dimensions == 3 else 1
        return self.data.shape[-2], self.data.shape[-3], depth


class SampledImage(_Image):
    """A texture behind a sampler: ``sampler2D``, ``isampler3D`` and so on, read by texelFetch.

    Args:
        texels: ``[height, width, 4]`` or ``[depth, height, width, 4]`` of float32, float16, int32
            or uint32, which decide the format: rgba of that width.
    """


class StorageImage(_Image):
    """A storage image: ``image2D``, ``iimage3D`` and so on, written by imageStore.

    Args:
        texels: as for `SampledImage`.
    """


Resource: TypeAlias = StorageBuffer | UniformBuffer | SampledImage | StorageImage
