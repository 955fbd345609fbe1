"""What the steps of an op are made with: scratch buffers, and where bind groups are kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wgpu_q4.device.context import Context
    from wgpu_q4.device.parts import DevicePart
    from wgpu_q4.device.pipelines import BindGroups, Step
    from wgpu_q4.device.scratch import Scratch
    from wgpu_q4.kernels import Dispatch


class Workspace:
    """Scratch buffers and bind groups of calls from the host; hold the context's lock.

    Attributes:
        context: that of the device.
        scratch: the buffers for what lies between input and result.
    """

    def __init__(self, context: Context, scratch: Scratch | None = None) -> None:
        self.context = context
        self.scratch = context.scratch if scratch is None else scratch

    def step(
        self, dispatch: Dispatch, resources: Mapping[str, Any], part: DevicePart | None
    ) -> Step:
        """Return the step that runs ``dispatch``; see `wgpu_q4.device.pipelines.Pipelines.step`.

        Args:
            dispatch: the planned dispatch.
            resources: what it binds, by name.
            part: the part of a weight with which the bind group is kept; None to keep it nowhere.
        """
        kept = None if part is None else self.bind_groups_of(part)
        return self.context.pipelines.step(dispatch, resources, kept)

    def bind_groups_of(self, part: DevicePart) -> BindGroups | None:
        """Return where bind groups that read ``part`` are kept; None if they are not."""
        return part.bind_groups
