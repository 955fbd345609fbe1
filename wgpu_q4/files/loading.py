"""`load_file`: the matrices of a safetensors file that `save_file` wrote, mapped and checked."""

from __future__ import annotations

import hashlib
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from wgpu_q4.errors import FormatError
from wgpu_q4.files.header import Header, read_header
from wgpu_q4.files.metadata import Digests, read_entries
from wgpu_q4.files.regular import StrPath, checked_path, map_file, shown
from wgpu_q4.weight import Q4Weight

Verify: TypeAlias = Literal["quick"] | bool

QUICK_BYTES = 16 << 20
"""The largest file that ``verify="quick"`` checks whole: it takes some hundredths of a second."""

_READ_BYTES = 64 << 20
"""The largest scales that loading reads: it takes some hundredths of a second."""

_DTYPES: dict[str, np.dtype[Any]] = {
    "U8": np.dtype(np.uint8),
    "F16": np.dtype("<f2"),
    "F32": np.dtype("<f4"),
}


def load_file(path: StrPath, *, verify: Verify = "quick") -> dict[str, Q4Weight]:
    """Read the matrices of a file that `save_file` wrote.

    The file is mapped, not read: loading checks the header and the scales, and the packed bytes
    come from the disk when they are first used.  Scales of more than 64 MiB are not read either:
    all are checked before the matrix goes to a device, and those of some rows before these are
    looked up on the host.  Do not change the file in place while a weight lives; replacing it, as
    `save_file` does, is safe.

    Args:
        path: a safetensors file.
        verify: which bytes are compared with the SHA-256 that `save_file` noted.  ``"quick"``:
            every byte of a file of up to 16 MiB, and of a larger one the scales, if they are read
            in any case.  True: every byte, which reads the whole file.  False: none.  A file that
            was saved before digests were noted has none; only True refuses it.

    Returns:
        The matrices by name, in the order in which they were saved.  Names that share a matrix
        hold the same object.

    Raises:
        TypeError: not a path.
        ValueError: ``verify`` is none of these.
        FormatError: not a whole safetensors file, not written by `save_file`, written by a newer
            version, a matrix that q4gsw does not allow, or bytes that are not those saved.
        OSError: the file cannot be opened, `FileNotFoundError` if it does not exist.
    """
    source = checked_path(path)
    if not (isinstance(verify, bool) or verify == "quick"):
        raise ValueError(f'verify must be True, False or "quick", not {verify!r}')
    content = map_file(source)
    where = shown(source)
    try:
        header, data = read_header(content)
    except FormatError as error:
        gguf = content[:4].tobytes() == b"GGUF"
        hint = "it is a GGUF file: use from_gguf" if gguf else "truncated or foreign?"
        raise FormatError(f"{where} is not a whole safetensors file ({error}); {hint}") from error
    entries = read_entries(header.metadata, header.tensors, where)
    if verify is True and entries.digests is None:
        raise FormatError(
            f"{where} has no SHA-256 to verify: it was saved before they were noted. Load it "
            f'with verify="quick", and save it again'
        )
    stored: dict[str, Q4Weight] = {}
    for name, group_size in entries.group_sizes.items():
        weight = _read_weight(name, group_size, header, data, where)
        if verify and entries.digests is not None:
            whole = verify is True or len(content) <= QUICK_BYTES
            if whole or weight.unchecked_scales.nbytes <= _READ_BYTES:
                _check_digests(weight, entries.digests[name], whole, f"{where}: matrix {name!r}")
        stored[name] = weight
    return {name: stored[original] for name, original in entries.names.items()}


def _read_weight(
    name: str, group_size: int, header: Header, data: NDArray[np.uint8], path: str
) -> Q4Weight:
    packed = _read_tensor(f"{name}.packed", ("U8",), header, data, path)
    scales = _read_tensor(f"{name}.scales", ("F16", "F32"), header, data, path)
    try:
        # Other writers may put scales at an odd offset: those few bytes are copied then.
        aligned = np.require(scales, np.dtype(scales.dtype.name), "A")
        weight = Q4Weight(packed, aligned, read_scales=scales.nbytes <= _READ_BYTES)
    except FormatError as error:
        raise FormatError(f"{path}: matrix {name!r}: {error}") from error
    if weight.group_size != group_size:
        raise FormatError(
            f"{path}: matrix {name!r} has group_size {group_size} in its metadata, but its tensors "
            f"{list(packed.shape)} and {list(scales.shape)} make groups of {weight.group_size}"
        )
    return weight


def _read_tensor(
    name: str, dtypes: tuple[str, ...], header: Header, data: NDArray[np.uint8], path: str
) -> NDArray[Any]:
    """Return a matrix of the file, a view of ``data``."""
    tensor = header.tensors.get(name)
    if tensor is None:
        raise FormatError(f"{path}: tensor {name!r}, which its metadata asks for, is missing")
    dtype, shape = tensor.dtype, tensor.shape
    if dtype not in dtypes:
        raise FormatError(f"{path}: tensor {name!r} must be {' or '.join(dtypes)}, not {dtype}")
    if len(shape) != 2 or 0 in shape:
        raise FormatError(
            f"{path}: tensor {name!r} must have two dimensions, none of them 0, not shape "
            f"{list(shape)}"
        )
    return data[tensor.start : tensor.stop].view(_DTYPES[dtype]).reshape(shape)


def _check_digests(weight: Q4Weight, expected: Digests, whole: bool, where: str) -> None:
    """Raise unless the scales, and with ``whole`` the packed bytes, are those that were saved."""
    scales = np.ascontiguousarray(weight.scales, weight.scales.dtype.newbyteorder("<"))
    damaged = "scales" if hashlib.sha256(scales.data).hexdigest() != expected.scales else ""
    if whole and weight.sha256 != expected.packed:
        damaged = "packed bytes"
    if damaged:
        raise FormatError(
            f"{where}: its {damaged} are not those that were saved (their SHA-256 differs): the "
            f"file was damaged. Fetch it or save it again; verify=False reads it as it is"
        )
