"""`save_file`: matrices in a safetensors file, equal ones stored once.

A matrix called ``name`` is two tensors, which any safetensors reader can open:

* ``<name>.packed``  U8 ``[V, K/2]``, linear convention
* ``<name>.scales``  F16 or F32 ``[V, K/G]``

`wgpu_q4.files.metadata` says how the names are listed.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wgpu_q4.errors import FormatError
from wgpu_q4.files.header import Tensor, write_header
from wgpu_q4.files.metadata import METADATA_KEY, Digests, Entries, write_entries
from wgpu_q4.files.regular import StrPath, checked_path
from wgpu_q4.files.replacing import replacing
from wgpu_q4.weight import Q4Weight

_SAFETENSORS = {"uint8": "U8", "float16": "F16", "float32": "F32"}


def save_file(weights: Mapping[str, Q4Weight], path: StrPath) -> None:
    """Write matrices to a safetensors file; names that hold the same matrix share one copy.

    Two weights are the same if they are one object or if their values, scales and scales dtype are
    equal, whatever their nibble order.  The file appears whole or not at all, and is on the disk
    when the call returns; a process that is killed leaves nothing beside ``path`` that the next
    save does not remove.  A symbolic link is followed; a file that is replaced keeps its
    permissions.  The SHA-256 of each matrix is saved with it.

    Args:
        weights: the matrices by name, at least one.
        path: the file to write, in a directory that exists.

    Raises:
        TypeError: not a mapping of ``str`` to `Q4Weight`, or not a path.
        FormatError: nothing to save, a name that is not valid Unicode, or a path that no file has.
        OSError: the file cannot be written, `FileNotFoundError` if its directory does not exist.
            ``errno`` says why: ``ENOSPC`` for a full disk.
    """
    target = checked_path(path)
    _check_weights(weights)
    names = _stored_names(weights)
    stored = {name: weights[name] for name, first in names.items() if name == first}
    arrays: dict[str, NDArray[Any]] = {}
    for name, weight in stored.items():
        arrays[f"{name}.packed"] = np.ascontiguousarray(weight.packed_as("linear"))
        arrays[f"{name}.scales"] = _little_endian(weight.scales)
    digests = {
        name: Digests(weight.sha256, hashlib.sha256(arrays[f"{name}.scales"].data).hexdigest())
        for name, weight in stored.items()
    }
    group_sizes = {name: weight.group_size for name, weight in stored.items()}
    entry = write_entries(Entries(names, group_sizes, digests))
    # Wider dtypes come first, so that every tensor is aligned to its own dtype.
    order = sorted(arrays, key=lambda name: -arrays[name].itemsize)
    tensors: dict[str, Tensor] = {}
    end = 0
    for name in order:
        array, start = arrays[name], end
        end += array.nbytes
        tensors[name] = Tensor(_SAFETENSORS[array.dtype.name], array.shape, start, end)
    try:
        with replacing(target) as file:
            file.write(write_header(tensors, {METADATA_KEY: entry}))
            for name in order:
                file.write(arrays[name].data)
    except OSError as error:
        if error.filename is None and error.errno is not None:  # a write knows no path
            raise OSError(error.errno, error.strerror, target) from error
        raise


def _little_endian(scales: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(scales, scales.dtype.newbyteorder("<"))


def _check_weights(weights: Mapping[str, Q4Weight]) -> None:
    if not isinstance(weights, Mapping):
        raise TypeError(f"weights must be a dict {{name: Q4Weight}}, not {type(weights).__name__}")
    if not weights:
        raise FormatError("weights is empty: give at least one {name: Q4Weight}")
    for name, weight in weights.items():
        if not isinstance(name, str):
            raise TypeError(f"every name must be a str, not {type(name).__name__} ({name!r})")
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise FormatError(f"name {name!r} is not valid Unicode: {error.reason}") from error
        if not isinstance(weight, Q4Weight):
            raise TypeError(
                f"weights[{name!r}] must be a Q4Weight, not {type(weight).__name__}: "
                f"make one with Q4Weight.quantize"
            )


def _stored_names(weights: Mapping[str, Q4Weight]) -> dict[str, str]:
    """For each name, the first name that holds the same matrix."""
    first_name: dict[int, str] = {}
    stored_name = {name: first_name.setdefault(id(w), name) for name, w in weights.items()}
    alike: defaultdict[tuple[object, ...], list[str]] = defaultdict(list)
    for name in first_name.values():
        weight = weights[name]
        alike[weight.shape, weight.group_size, weight.scales.dtype].append(name)
    canonical: dict[str, str] = {}
    for names in alike.values():
        # Only matrices that could be equal are hashed, each once; equal hashes are then compared.
        seen: dict[tuple[str, bytes], str] = {}
        for name in names:
            weight = weights[name]
            canonical[name] = name
            if len(names) > 1:
                digest = hashlib.sha256(np.ascontiguousarray(weight.scales).data).digest()
                candidate = seen.setdefault((weight.sha256, digest), name)
                if weight.same_matrix(weights[candidate]):
                    canonical[name] = candidate
    return {name: canonical[first] for name, first in stored_name.items()}
