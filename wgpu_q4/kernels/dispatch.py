"""A dispatch: which shader, with which constants, on which grid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from wgpu_q4.errors import DeviceLimitError
from wgpu_q4.format import ScalesDtype
from wgpu_q4.kernels.wgsl import Shader


@dataclass(frozen=True)
class MatrixShape:
    """V, K and G of a matrix, and the dtype of its scales."""

    vocab: int
    embed_dim: int
    group_size: int
    scales: ScalesDtype

    @property
    def constants(self) -> dict[str, int]:
        """The pipeline constants of ``shape/overrides.wgsl``."""
        return {
            "VOCAB": self.vocab,
            "EMBED_DIM": self.embed_dim,
            "GROUP_SIZE": self.group_size,
        }


@dataclass(frozen=True)
class Dispatch:
    """One dispatch.

    Attributes:
        shader: what runs.
        constants: its pipeline constants.
        workgroups: the grid.
        needs: for a shader that runs without bounds checks, the bytes that each binding must have
            at least, by the binding's name; None for a shader that keeps its checks.
    """

    shader: Shader
    constants: Mapping[str, int]
    workgroups: tuple[int, int, int]
    needs: Mapping[str, int] | None = None
    key: tuple[object, ...] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        checks = "checked" if self.needs is None else "unchecked"
        object.__setattr__(self, "key", (self.shader.name, checks, *sorted(self.constants.items())))


def fold(workgroups: int, limits: Mapping[str, int]) -> tuple[int, int, int]:
    """Return a grid (x, y, 1) of at least ``workgroups``, each dimension within the device's limit.

    Raises:
        DeviceLimitError: more than the limit squared.
    """
    limit = limits["max-compute-workgroups-per-dimension"]
    y = -(-workgroups // limit)
    if y > limit:
        raise DeviceLimitError(f"{workgroups} workgroups exceed {limit} × {limit}")
    return -(-workgroups // y), y, 1
