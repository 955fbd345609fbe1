"""What this package adds to a safetensors header: the names of matrices, and their digests.

The header's metadata has one entry, ``"wgpu_q4"``, a JSON text.  It lists every name in the order
in which the matrices were saved, each either stored or another name of a stored one; and for each
stored matrix the SHA-256 of its packed bytes and of the bytes of its scales::

    {"version": 1,
     "weights": {"embed_tokens": {"group_size": 32}, "lm_head": {"alias_of": "embed_tokens"}},
     "sha256": {"embed_tokens": {"packed": "9f86…", "scales": "60303…"}}}

Files that were saved before there were digests have no ``"sha256"``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from wgpu_q4.errors import FormatError

METADATA_KEY = "wgpu_q4"
VERSION = 1

_HEX = re.compile(r"[0-9a-f]{64}")


class Digests(NamedTuple):
    """The SHA-256, in hexadecimal, of a matrix's packed bytes (linear) and of its scales."""

    packed: str
    scales: str


class Entries(NamedTuple):
    """The names of a file.

    Attributes:
        names: for each name, in order, the name that its matrix is stored under.
        group_sizes: ``G`` of each stored matrix.
        digests: of each stored matrix; None in a file that was saved without.
    """

    names: dict[str, str]
    group_sizes: dict[str, int]
    digests: dict[str, Digests] | None


def write_entries(entries: Entries) -> str:
    """Return the text of our entry."""
    weights = {
        name: {"group_size": entries.group_sizes[name]} if name == stored else {"alias_of": stored}
        for name, stored in entries.names.items()
    }
    content: dict[str, Any] = {"version": VERSION, "weights": weights}
    if entries.digests is not None:
        content["sha256"] = {name: d._asdict() for name, d in entries.digests.items()}
    return json.dumps(content)


def read_entries(metadata: Mapping[str, str], tensor_names: Iterable[str], path: str) -> Entries:
    """Return what our entry says.

    Args:
        metadata: of the file.
        tensor_names: of the file, for the message if no entry is ours.
        path: of the file, for messages.

    Raises:
        FormatError: there is no such entry, a newer version wrote it, or it breaks a rule.
    """
    content = _parse(metadata, tensor_names, path)
    weights = content.get("weights")
    if not isinstance(weights, dict) or not weights:
        raise FormatError(
            f"{path}: 'weights' in its {METADATA_KEY!r} metadata must be an object that lists at "
            f"least one name, not {_short(weights)}"
        )
    names: dict[str, str] = {}
    group_sizes: dict[str, int] = {}
    for name, entry in weights.items():
        match entry:
            case _Alias(stored):
                names[name] = stored
            case {"group_size": int(size)} if len(entry) == 1 and type(size) is int:
                names[name], group_sizes[name] = name, size
            case _:
                raise FormatError(
                    f"{path}: the metadata of {name!r} must be {{'group_size': int}} or "
                    f"{{'alias_of': str}}, not {_short(entry)}"
                )
    for name, stored in names.items():
        # An alias names a stored matrix, never another alias: chains and cycles end here.
        if stored not in group_sizes:
            raise FormatError(
                f"{path}: {name!r} is an alias of {stored!r}, which is not a matrix stored in "
                f"this file. Stored: {_some(group_sizes)}"
            )
    return Entries(names, group_sizes, _digests(content, group_sizes, path))


def _parse(metadata: Mapping[str, str], tensor_names: Iterable[str], path: str) -> dict[str, Any]:
    if METADATA_KEY not in metadata:
        raise FormatError(
            f"{path} is a safetensors file without q4gsw matrices: its metadata has no "
            f"{METADATA_KEY!r} entry, which save_file writes. Its tensors: {_some(tensor_names)}. "
            f"To use a float tensor, read it with the safetensors library and pass it to "
            f"Q4Weight.quantize"
        )
    try:
        content = json.loads(metadata[METADATA_KEY], object_pairs_hook=_compact)
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
    assert isinstance(content, dict)
    return content


class _Alias(NamedTuple):
    """``{"alias_of": name}``, in a fifth of a dict's memory."""

    name: str


def _compact(pairs: list[tuple[str, Any]]) -> dict[str, Any] | _Alias:
    match pairs:
        case [("alias_of", str(stored))]:
            return _Alias(stored)
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError("a name is there twice")
    return content


def _digests(
    content: Mapping[str, Any], stored: Iterable[str], path: str
) -> dict[str, Digests] | None:
    if "sha256" not in content:
        return None
    found = content["sha256"]
    digests: dict[str, Digests] = {}
    for name in stored:
        match found.get(name) if isinstance(found, dict) else None:
            case {"packed": str(packed), "scales": str(scales)} if _HEX.fullmatch(
                packed
            ) and _HEX.fullmatch(scales):
                digests[name] = Digests(packed, scales)
            case other:
                raise FormatError(
                    f"{path}: the SHA-256 of {name!r} must be {{'packed': 64 hex digits, 'scales': "
                    f"64 hex digits}}, not {_short(other)}"
                )
    return digests


def _some(names: Iterable[str]) -> str:
    """Return the first few of ``names``, for a message."""
    listed = list(names)
    rest = f" and {len(listed) - 5} more" if len(listed) > 5 else ""
    return ", ".join(repr(name) for name in listed[:5]) + rest or "none"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
