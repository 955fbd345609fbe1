"""The rule ``"mse"``: each group gets the scale, of either sign, that leaves the least error.

For given integers ``q`` the best scale of a group ``w`` is ``Σ h·w·q / Σ h·q²``, and it takes
``(Σ h·w·q)² / Σ h·q²`` off the squares ``Σ h·w²``; ``h`` is the importance of a column.  The
integers are those of a trial scale ``m / c``: ``m`` is the value of the group that is largest in
magnitude, and ``c`` runs over `_TRIALS`.  Divided by ``m`` all groups share the trials, so each is
a multiplication by one number.  The best trial's scale is improved twice in the same way.

A group is a column here, ``[G, groups]``: every pass runs along contiguous rows, and a block of
columns stays in the cache.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wgpu_q4.format.parallel import RANGE_BYTES

_SIZES = (*np.linspace(6, 9.5, 15), 10, 10.5, 11, 12)
_TRIALS = tuple(np.float32(sign * size) for size in _SIZES for sign in (1, -1))
"""How many steps the largest value stands for: near 8, and more where to cut it off is better."""

_BLOCK_BYTES = RANGE_BYTES // 2
_FEWEST = 256
"""Groups of a block at the least: shorter rows would cost more in calls than in arithmetic."""

_NO_SQUARES = np.float32(1e-9)
"""Less than ``Σ h·q²`` of any integers but zeros."""

LEAST_IMPORTANCE = 1e-6
"""Of a column, compared with the greatest: columns that do not matter need a scale too."""


def best_scales(
    groups: NDArray[np.float32], importance: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Return the scale of each group.

    Args:
        groups: finite, ``[rows, K/G, G]``.
        importance: positive, ``[K/G, G]``; None if all columns count alike.

    Returns:
        ``[rows, K/G]``, zero for a group of zeros.
    """
    rows, count, size = groups.shape
    flat = groups.reshape(-1, size)
    scales = np.empty(rows * count, np.float32)
    weights = None if importance is None else np.ascontiguousarray(np.tile(importance.T, rows))
    step = min(len(flat), max(_FEWEST, _BLOCK_BYTES // (4 * size)))
    scratch = np.empty((3, size * step), np.float32)  # new memory for each block is slow to get
    for start in range(0, len(flat), step):
        part = slice(start, start + step)
        h = None if weights is None else np.ascontiguousarray(weights[:, part])
        columns = flat[part].T
        x, q, hq = scratch[:, : columns.size].reshape(3, *columns.shape)
        np.copyto(x, columns)
        scales[part] = _of_block(x, h, q, hq)
    return scales.reshape(rows, count)


def _of_block(
    x: NDArray[np.float32],
    h: NDArray[np.float32] | None,
    q: NDArray[np.float32],
    hq: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Return the scales of ``x`` ``[G, n]``, weighted by ``h``; all but ``h`` are overwritten."""
    at = np.abs(x, out=q).argmax(axis=0)[None]
    largest: NDArray[np.float32] = np.take_along_axis(x, at, axis=0)[0]
    np.divide(x, np.where(largest == 0, np.float32(1), largest), out=x)

    def fit(steps: NDArray[np.float32] | np.float32) -> tuple[NDArray[np.float32], ...]:
        """Return ``Σ h·x·q`` and ``Σ h·q²`` of the integers ``q`` nearest to ``x · steps``."""
        np.multiply(x, steps, out=q)
        np.rint(q, out=q)
        np.clip(q, -8, 7, out=q)
        weighted = q if h is None else np.multiply(h, q, out=hq)
        return np.einsum("gn,gn->n", x, weighted), np.einsum("gn,gn->n", q, weighted)

    gain, scale = np.zeros_like(largest), np.zeros_like(largest)
    for steps in _TRIALS:
        products, squares = fit(steps)
        found = products / np.maximum(squares, _NO_SQUARES)
        taken = products * found
        better = taken > gain
        np.copyto(gain, taken, where=better)
        np.copyto(scale, found, where=better)
    for _ in range(2):
        products, squares = fit(np.reciprocal(np.where(scale == 0, np.float32(1), scale)))
        np.divide(products, squares, out=scale, where=squares != 0)
    return scale * largest
