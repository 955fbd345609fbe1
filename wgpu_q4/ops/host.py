"""Rows by id on the host, from a matrix that may be larger than memory.

Per-layer embeddings take gigabytes, and a token needs one row of each.  The rows are dequantized by
numpy from the bytes of the weight, which a mapped file holds: only the pages of these rows are
read, and no device is needed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from wgpu_q4.files.mapped import will_need
from wgpu_q4.format import dequantize
from wgpu_q4.format.parallel import for_row_ranges
from wgpu_q4.format.shape import check_scales
from wgpu_q4.weight import Q4Weight


def look_up(weight: Q4Weight, ids: NDArray[np.int32], out: NDArray[Any]) -> None:
    """Fill ``out`` ``[n, K]``, float32 or float16, with the rows of ``ids`` ``[n]``.

    Raises:
        FormatError: a scale of these rows is not finite, or too large for float32.
    """
    packed, scales = weight.packed, weight.unchecked_scales
    will_need(packed, ids)
    will_need(scales, ids)

    def fill(start: int, stop: int) -> None:
        some = ids[start:stop]
        own = scales[some]
        check_scales(own, some)
        with np.errstate(over="ignore"):  # of float16, as on a device
            out[start:stop] = dequantize(packed[some], own, weight.convention)

    for_row_ranges(len(ids), out.shape[1] * 4, fill)
