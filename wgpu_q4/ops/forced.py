"""A ``with`` block that overrides the choices of the ops: for experts, tests and measurements.

    with wgpu_q4.forced(layout="blocks_buffer", kernel="gemv"):
        logits = wgpu_q4.linear(x, weight)

Left alone, an op reads the weight in the layout ``"rows"``, runs the kernel that
`wgpu_q4.kernels.TABLE` names for the shape, the rows of x and the device, and passes its arrays
through buffers.  Within the block, in the same thread or asyncio task:

* ``layout`` is how the device holds the packed weight, for every op.  ``"rows"``: the bytes of a
  file, linear convention; ``"rows_embedding"``: the embedding convention; ``"blocks_buffer"`` and
  ``"blocks_texture2d"``: ExecuTorch's blocks of 8 rows and 4 columns, in a buffer or a texture.
  The device holds a copy of the packed bytes for each layout in which an op has read them.
* ``kernel`` is the kernel of `wgpu_q4.linear`, `wgpu_q4.argmax` and `wgpu_q4.top_k`, by its name,
  whatever its accuracy.  A kernel that cannot do the shape, the layout or the device is refused.
* ``storage`` is where the ids and the result of `wgpu_q4.embedding` are: ``"buffer"``, or
  ``"texture3d"``, in which ExecuTorch may hold them.

A choice ends with its block: no later call is changed by it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple, get_args

from wgpu_q4.kernels import DEFAULT_LAYOUT, Layout, LinearKernel, Storage, linear_kernel
from wgpu_q4.ops.arguments import check_option


class Choices(NamedTuple):
    """The choices in force.  The defaults leave the kernel to the op."""

    layout: Layout = DEFAULT_LAYOUT
    kernel: LinearKernel | None = None
    storage: Storage = "buffer"


_NOTHING = Choices()
_choices: ContextVar[Choices] = ContextVar("wgpu_q4.forced", default=_NOTHING)

current_choices = _choices.get
"""Return the choices that are in force in this thread."""


def forced(
    *,
    layout: Layout | None = None,
    kernel: str | None = None,
    storage: Storage | None = None,
) -> AbstractContextManager[None]:
    """Return a context manager in which the ops of this thread follow the choices given.

    Args:
        layout: how the device holds the packed weight.
        kernel: the kernel of a matrix product.
        storage: where the ids and the result of an embedding are.

    None leaves the choice as it is outside.  See `wgpu_q4.ops.forced`.

    Raises:
        ValueError: an option that does not exist.
    """
    named: dict[str, Any] = {}
    if layout is not None:
        named["layout"] = check_option("layout", layout, get_args(Layout))
    if kernel is not None:
        named["kernel"] = linear_kernel(kernel)
    if storage is not None:
        named["storage"] = check_option("storage", storage, get_args(Storage))
    return _forcing(named)


@contextmanager
def _forcing(named: dict[str, Any]) -> Iterator[None]:
    token = _choices.set(_choices.get()._replace(**named))
    try:
        yield
    finally:
        _choices.reset(token)
