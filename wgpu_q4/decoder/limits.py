"""What a device can hold, asked before anything of a decoder is put there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wgpu_q4.errors import DeviceLimitError

if TYPE_CHECKING:
    from wgpu_q4.device import Context


def check_binding(context: Context, name: str, nbytes: int) -> None:
    """Raise unless one binding of the device holds ``nbytes``.

    Raises:
        DeviceLimitError: it does not.
    """
    if nbytes > context.largest_binding:
        raise DeviceLimitError(
            f"{name} takes {nbytes:,} bytes in one binding; {context.adapter_summary} allows "
            f"{context.largest_binding:,}. A device made with wgpu_q4.request_device() has all "
            f"that its adapter offers; a smaller capacity, or cache='float16', takes less for the "
            f"cache, and fewer prompt_rows less for prompts"
        )
