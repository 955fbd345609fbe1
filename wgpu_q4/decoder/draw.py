"""The choice of the next id by chance, as a `Sampling` says."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wgpu_q4.arrays import ArrayLike
from wgpu_q4.decoder.choose import Logits, advance
from wgpu_q4.decoder.sampler import Sampler
from wgpu_q4.device.context import context_for
from wgpu_q4.device.pipelines import Step
from wgpu_q4.kernels.decoder.sampling import Sampling

if TYPE_CHECKING:
    from wgpu_q4.device import Context


class Draw:
    """A chooser that draws ids on the device; give it to one `Decoder`.

    The random number of an id depends on the seed and on the id's position: the same sequence gets
    the same ids, in one part or in several (``keep=``).  The ids of the prompt, and those drawn,
    count as there before for a repetition penalty.

    Args:
        sampling: how ids are drawn.

    Raises:
        TypeError: no `Sampling`.
    """

    def __init__(self, sampling: Sampling) -> None:
        if not isinstance(sampling, Sampling):
            raise TypeError(f"sampling must be a Sampling, not {type(sampling).__name__}")
        self.sampling = sampling
        self._sampler: Sampler | None = None
        self._mask: ArrayLike | None = None
        self._context: Context | None = None

    def steps(self, context: Context, logits: Logits) -> list[Step]:
        """See `wgpu_q4.decoder.choose.Chooser`.

        Raises:
            RuntimeError: another decoder has this chooser.
        """
        if self._sampler is not None:
            raise RuntimeError("a Draw serves one Decoder: make another one for this decoder")
        self._context = context
        self._sampler = Sampler(context, logits.vocab, self.sampling)
        self._sampler.allow(self._mask)
        return [*self._sampler.steps(logits.logits, logits.choice), advance(context, logits)]

    def begin(self, position: int, history: Callable[[], NDArray[np.uint32]]) -> None:
        """See `wgpu_q4.decoder.choose.Chooser`."""
        if self._sampler is not None:
            self._sampler.restart(history() if self.sampling.penalizes else (), position)

    def allow(self, mask: ArrayLike | None) -> None:
        """Let the steps that are submitted from now on draw the ids of a mask, and no others.

        `Decoder.generate` submits ahead of what it yields, unless it is called with
        ``ahead=False``: then a mask holds for the id that comes next.

        Args:
            mask: as in `wgpu_q4.decoder.sampler.Sampler.allow`.

        Raises:
            ValueError: another shape or dtype.
            DeviceError: the device is lost.
        """
        if self._sampler is not None and self._context is not None:
            context = context_for(self._context.device)
            with context.lock, context.guard, context.guard.busy:
                self._sampler.allow(mask)
        self._mask = mask
