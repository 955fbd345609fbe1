"""`Q4Weight` in safetensors files: equal matrices stored once, read by mapping the file.

A matrix called ``name`` is two tensors, which any safetensors reader can open:

* ``<name>.packed``  U8 ``[V, K/2]``, linear convention
* ``<name>.scales``  F16 or F32 ``[V, K/G]``

The header's ``__metadata__`` has one entry, ``"wgpu_q4"``, a JSON text that lists every name in the
order in which they were saved, either stored or as another name of a stored one::

    {"version": 1, "weights": {"embed_tokens": {"group_size": 32},
                               "lm_head": {"alias_of": "embed_tokens"}}}

Other tensors may lie in the same file; they are left alone.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import stat
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from math import prod
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file as write_tensors

from wgpu_q4.errors import FormatError
from wgpu_q4.weight import Q4Weight

StrPath: TypeAlias = "str | os.PathLike[str]"

METADATA_KEY = "wgpu_q4"
VERSION = 1

_DTYPES: dict[str, np.dtype[Any]] = {
    "U8": np.dtype(np.uint8),
    "F16": np.dtype("<f2"),
    "F32": np.dtype("<f4"),
}


def save_file(weights: Mapping[str, Q4Weight], path: StrPath) -> None:
    """Write matrices to a safetensors file; names that hold the same matrix share one copy.

    Two weights are the same if they are one object or if their values, scales and scales dtype are
    equal, whatever their nibble order.  The file appears whole or not at all: it is written beside
    ``path`` and takes its place at the end.  A symbolic link is followed; a file that is replaced
    keeps its permissions.

    Args:
        weights: the matrices by name, at least one.
        path: the file to write, in a directory that exists.

    Raises:
        TypeError: not a mapping of ``str`` to `Q4Weight`, or not a path.
        FormatError: nothing to save, or a name that is not valid Unicode.
        OSError: the file cannot be written, `FileNotFoundError` if its directory does not exist.
    """
    target = os.path.realpath(_checked_path(path))
    _check_weights(weights)
    stored_name = _stored_names(weights)
    entries: dict[str, dict[str, int | str]] = {}
    tensors: dict[str, NDArray[Any]] = {}
    for name, weight in weights.items():
        if stored_name[name] != name:
            entries[name] = {"alias_of": stored_name[name]}
            continue
        entries[name] = {"group_size": weight.group_size}
        # safetensors writes from the array's address and ignores its strides.  It puts wider
        # dtypes first, so that every tensor is aligned to its own dtype.
        tensors[f"{name}.packed"] = np.ascontiguousarray(weight.packed_as("linear"))
        tensors[f"{name}.scales"] = np.ascontiguousarray(weight.scales)
    metadata = {METADATA_KEY: json.dumps({"version": VERSION, "weights": entries})}
    with _replacing(target) as temporary:
        try:
            write_tensors(tensors, temporary, metadata=metadata)
        except SafetensorError as error:
            raise OSError(f"{target} was not written: {error}") from error


def load_file(path: StrPath) -> dict[str, Q4Weight]:
    """Read the matrices of a file that `save_file` wrote.

    The file is mapped, not read: loading checks the header and the scales, and the packed bytes
    come from the disk when they are first used.  Do not change the file in place while a weight
    lives; replacing it, as `save_file` does, is safe.

    Args:
        path: a safetensors file.

    Returns:
        The matrices by name, in the order in which they were saved.  Names that share a matrix
        hold the same object.

    Raises:
        TypeError: not a path.
        FormatError: not a whole safetensors file, not written by `save_file`, written by a newer
            version, or a matrix that q4gsw does not allow.
        OSError: the file cannot be opened, `FileNotFoundError` if it does not exist.
    """
    source = _checked_path(path)
    kind = os.stat(source).st_mode
    if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):  # a pipe would be waited on for ever
        raise FormatError(f"{source} is not a regular file, and only those can be mapped")
    header, data = _map_tensors(source)
    entries = _read_entries(header.get("__metadata__") or {}, header.keys(), source)
    stored = {
        name: _read_weight(name, entry["group_size"], header, data, source)
        for name, entry in entries.items()
        if "group_size" in entry
    }
    weights: dict[str, Q4Weight] = {}
    for name, entry in entries.items():
        # An alias names a stored matrix, never another alias: chains and cycles end here.
        original = name if name in stored else entry["alias_of"]
        if original not in stored:
            raise FormatError(
                f"{source}: {name!r} is an alias of {original!r}, which is not a matrix stored in "
                f"this file. Stored: {_some(stored)}"
            )
        weights[name] = stored[original]
    return weights


def _checked_path(path: object) -> str:
    text = os.fspath(path) if isinstance(path, (str, os.PathLike)) else path
    if not isinstance(text, str):
        raise TypeError(f"path must be a str or a pathlib.Path, not {type(path).__name__}")
    return text


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


@contextmanager
def _replacing(target: str) -> Iterator[str]:
    """A path beside ``target`` whose file replaces it at the end, or goes if anything fails."""
    directory = os.path.dirname(target)
    if not os.path.isdir(directory):
        raise FileNotFoundError(errno.ENOENT, "no such directory", directory)
    replaced = os.stat(target) if os.path.exists(target) else None
    if replaced is not None and not stat.S_ISREG(replaced.st_mode):
        if stat.S_ISDIR(replaced.st_mode):
            raise IsADirectoryError(errno.EISDIR, "path is a directory, not a file", target)
        raise FileExistsError(errno.EEXIST, "path exists and is not a regular file", target)
    temporary = os.path.join(directory, f".wgpu-q4-{secrets.token_hex(8)}.tmp")
    try:
        # Created here to learn what the umask allows: safetensors leaves its files at 0600.
        descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        mode = stat.S_IMODE((replaced or os.fstat(descriptor)).st_mode)
        os.close(descriptor)
        yield temporary
        with open(temporary, "rb+") as written:
            os.fsync(written.fileno())
        os.chmod(temporary, mode)
        os.replace(temporary, target)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    with suppress(OSError):  # the new name reaches the disk too, where directories can be synced
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _map_tensors(path: str) -> tuple[dict[str, Any], NDArray[np.uint8]]:
    """The header of a safetensors file and its data, mapped read-only.

    The library validates (lengths, offsets, overlaps, JSON); its own numpy arrays would be copies.
    """
    with open(path, "rb") as file:  # an OSError about the file itself is raised here, as it is
        start = file.read(4)
    try:
        with safe_open(path, framework="numpy"):
            pass
    except SafetensorError as error:
        hint = "it is a GGUF file: use from_gguf" if start == b"GGUF" else "truncated or foreign?"
        raise FormatError(f"{path} is not a whole safetensors file ({error}); {hint}") from error
    content = np.asarray(np.memmap(path, np.uint8, "r"))
    data_start = 8 + int.from_bytes(content[:8].tobytes(), "little")
    return json.loads(content[8:data_start].tobytes()), content[data_start:]


def _read_entries(
    metadata: Mapping[str, str], tensor_names: Iterable[str], path: str
) -> dict[str, dict[str, Any]]:
    """What our metadata says of each name: ``{"group_size": int}`` or ``{"alias_of": str}``."""
    if METADATA_KEY not in metadata:
        found = _some(name for name in tensor_names if name != "__metadata__")
        raise FormatError(
            f"{path} is a safetensors file without q4gsw matrices: its metadata has no "
            f"{METADATA_KEY!r} entry, which save_file writes. Its tensors: {found}. To use a float "
            f"tensor, read it with the safetensors library and pass it to Q4Weight.quantize"
        )
    try:
        content = json.loads(metadata[METADATA_KEY])
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: its {METADATA_KEY!r} metadata is not JSON: {error}") from error
    version = content.get("version") if isinstance(content, dict) else None
    if type(version) is not int or version < 1:
        raise FormatError(
            f"{path}: its {METADATA_KEY!r} metadata must be an object with a 'version' of 1 or "
            f"more, not {_short(content)}"
        )
    if version > VERSION:
        raise FormatError(
            f"{path} has version {version} of the format; this wgpu_q4 reads up to {VERSION}: "
            f"upgrade wgpu_q4"
        )
    entries = content.get("weights")
    if not isinstance(entries, dict) or not entries:
        raise FormatError(
            f"{path}: 'weights' in its {METADATA_KEY!r} metadata must be an object that lists at "
            f"least one name, not {_short(entries)}"
        )
    for name, entry in entries.items():
        value = next(iter(entry.values())) if isinstance(entry, dict) and len(entry) == 1 else None
        expected = {int: {"group_size"}, str: {"alias_of"}}.get(type(value))
        if value is None or entry.keys() != expected:
            raise FormatError(
                f"{path}: the metadata of {name!r} must be {{'group_size': int}} or "
                f"{{'alias_of': str}}, not {_short(entry)}"
            )
    return entries


def _read_weight(
    name: str, group_size: int, header: Mapping[str, Any], data: NDArray[np.uint8], path: str
) -> Q4Weight:
    packed = _read_tensor(f"{name}.packed", ("U8",), header, data, path)
    scales = _read_tensor(f"{name}.scales", ("F16", "F32"), header, data, path)
    try:
        # Other writers may put scales at an odd offset: those few bytes are copied then.
        weight = Q4Weight(packed, np.require(scales, requirements="A"))
    except FormatError as error:
        raise FormatError(f"{path}: matrix {name!r}: {error}") from error
    if weight.group_size != group_size:
        raise FormatError(
            f"{path}: matrix {name!r} has group_size {group_size} in its metadata, but its tensors "
            f"{list(packed.shape)} and {list(scales.shape)} make groups of {weight.group_size}"
        )
    return weight


def _read_tensor(
    name: str,
    dtypes: tuple[str, ...],
    header: Mapping[str, Any],
    data: NDArray[np.uint8],
    path: str,
) -> NDArray[Any]:
    """A matrix of the file, as a view of ``data``."""
    if name not in header:
        raise FormatError(f"{path}: tensor {name!r}, which its metadata asks for, is missing")
    tensor = header[name]
    dtype, shape, (start, stop) = tensor["dtype"], tensor["shape"], tensor["data_offsets"]
    if dtype not in dtypes:
        raise FormatError(f"{path}: tensor {name!r} must be {' or '.join(dtypes)}, not {dtype}")
    if len(shape) != 2 or 0 in shape:
        raise FormatError(
            f"{path}: tensor {name!r} must have two dimensions, none of them 0, not shape {shape}"
        )
    octets = data[start:stop]
    if octets.size != prod(shape) * _DTYPES[dtype].itemsize:
        raise FormatError(f"{path}: tensor {name!r} is cut short; the file changed while read?")
    return octets.view(_DTYPES[dtype]).reshape(shape)


def _some(names: Iterable[str]) -> str:
    """The first few of ``names``, for a message."""
    listed = list(names)
    rest = f" and {len(listed) - 5} more" if len(listed) > 5 else ""
    return ", ".join(repr(name) for name in listed[:5]) + rest or "none"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
