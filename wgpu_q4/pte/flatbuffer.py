"""Read a flatbuffer: tables, vectors and strings, every bound checked.

A table begins with the distance to its vtable, which holds the position of each field by the
field's number, or 0 where the field has its default.  Strings, vectors and further tables lie
elsewhere; a field holds the distance to them.
"""

from __future__ import annotations

import struct
from typing import Literal

from wgpu_q4.errors import FormatError

Kind = Literal["b", "B", "h", "H", "i", "I", "q", "Q"]
"""A number, as the module `struct` calls it."""


class Buffer:
    """The bytes of one flatbuffer.

    Args:
        data: the whole flatbuffer.
        identifier: the file identifier that bytes 4 to 8 must begin with.

    Raises:
        FormatError: here and in every method: an offset points outside, or the identifier differs.
    """

    def __init__(self, data: memoryview, identifier: bytes) -> None:
        self._data = data
        # A table may be referred to more than once, so a small file could stand for a huge tree.
        self._items_left = len(data)
        found = self.raw(4, len(identifier)).tobytes()
        if found != identifier:
            raise FormatError(f"it begins with {found!r}, not with {identifier!r}")

    @property
    def root(self) -> Table:
        """Return the table that contains all others."""
        return Table(self, self.number("I", 0))

    def raw(self, start: int, size: int) -> memoryview:
        """Return ``size`` bytes from ``start`` on."""
        if start < 0 or size < 0 or start + size > len(self._data):
            raise FormatError(f"bytes {start} to {start + size} of {len(self._data)} are read")
        return self._data[start : start + size]

    def number(self, kind: Kind, at: int) -> int:
        """Return the number at byte ``at``."""
        value: int = struct.unpack(f"<{kind}", self.raw(at, struct.calcsize(f"<{kind}")))[0]
        return value

    def vector(self, at: int, item_size: int) -> tuple[int, int]:
        """Return where the items of the vector at ``at`` begin, and their number."""
        count = self.number("I", at)
        self.raw(at + 4, count * item_size)
        self._items_left -= count
        if self._items_left < 0:
            raise FormatError("it refers to the same bytes again and again")
        return at + 4, count


class Table:
    """One table; fields are named by their numbers in the schema."""

    def __init__(self, buffer: Buffer, at: int) -> None:
        self._buffer = buffer
        self._at = at
        self._vtable = at - buffer.number("i", at)
        self._vtable_size = buffer.number("H", self._vtable)

    def number(self, field: int, kind: Kind, default: int = 0) -> int:
        """Return a number."""
        at = self._field(field)
        return default if at is None else self._buffer.number(kind, at)

    def numbers(self, field: int, kind: Kind) -> tuple[int, ...]:
        """Return a vector of numbers."""
        size = struct.calcsize(f"<{kind}")
        start, count = self._vector(field, size)
        return struct.unpack(f"<{count}{kind}", self._buffer.raw(start, count * size))

    def raw(self, field: int) -> memoryview:
        """Return a vector of bytes."""
        return self._buffer.raw(*self._vector(field, 1))

    def text(self, field: int) -> str:
        """Return a string."""
        try:
            return self.raw(field).tobytes().decode()
        except UnicodeDecodeError as error:
            raise FormatError(f"a string is not UTF-8: {error}") from error

    def table(self, field: int) -> Table | None:
        """Return a table, or None where it is absent."""
        at = self._target(field)
        return None if at is None else Table(self._buffer, at)

    def tables(self, field: int) -> list[Table]:
        """Return a vector of tables."""
        start, count = self._vector(field, 4)
        places = range(start, start + 4 * count, 4)
        return [Table(self._buffer, at + self._buffer.number("I", at)) for at in places]

    def _field(self, field: int) -> int | None:
        entry = 4 + 2 * field
        if entry + 2 > self._vtable_size:
            return None
        offset = self._buffer.number("H", self._vtable + entry)
        return self._at + offset if offset else None

    def _target(self, field: int) -> int | None:
        at = self._field(field)
        return None if at is None else at + self._buffer.number("I", at)

    def _vector(self, field: int, item_size: int) -> tuple[int, int]:
        at = self._target(field)
        return (0, 0) if at is None else self._buffer.vector(at, item_size)
