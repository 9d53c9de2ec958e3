"""How rows of whole numbers become few bytes: column by column, as differences, in as few bits as each needs.

A column is a chain of numbers, one for each row. Each is told as its difference from the last one that was known, in
zigzag (0, -1, 1, -2, … become 0, 1, 2, 3, …), plus 1; a 0 stands for what is not known. The first of these codes stands
by itself, the others in groups of `GROUP`: the least of the group, and what each is above it in as many bits as the
largest needs. So a column that does not change, or grows evenly, costs two bytes a group. A checksum goes before all.

It is read faster than what is compressed further, and hardly longer.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["GROUP", "Column", "columns_of", "first_column_of", "opened", "packed", "plain", "unpacked"]

#: Numbers below 2**63 in size, and ``None`` for what is not known.
Column = list[int | None]

#: So many codes share a width.
GROUP = 128
# Two of 64 bits differ by 65 bits in zigzag, and 1 more. A block of more rows was not written here.
_MOST_BITS = 66
_MOST_ROWS = 1 << 22
_BEYOND = 1 << 63
_SUM_BYTES = 4


def packed(columns: Sequence[Sequence[int | None]]) -> bytes:
    """Return columns of the same length as bytes."""
    content = plain(columns)
    return zlib.crc32(content).to_bytes(_SUM_BYTES, "little") + content


def plain(columns: Sequence[Sequence[int | None]]) -> bytes:
    """Return the same without a checksum."""
    data = bytearray(_varint(len(columns[0]) if columns else 0))
    for column in columns:
        codes = _codes(column)
        if codes:
            data += _varint(codes[0])
        for begin in range(1, len(codes), GROUP):
            group = codes[begin : begin + GROUP]
            least = min(group)
            width = (max(group) - least).bit_length()
            bits = 0
            for code in reversed(group):
                bits = bits << width | code - least
            data += _varint(least)
            data.append(width)
            data += bits.to_bytes(_bytes_of(len(group), width), "little")
    return bytes(data)


def _codes(column: Sequence[int | None]) -> list[int]:
    codes, last = [], 0
    for value in column:
        if value is None:
            codes.append(0)
            continue
        step = value - last
        last = value
        codes.append(((step << 1) if step >= 0 else ((-step << 1) - 1)) + 1)
    return codes


def _bytes_of(count: int, width: int) -> int:
    return (count * width + 7) // 8


def _varint(number: int) -> bytes:
    """Return a number in seven bits a byte, lowest first; the high bit says that more follow."""
    data = bytearray()
    while number > 127:
        data.append(number & 127 | 128)
        number >>= 7
    data.append(number)
    return bytes(data)


def unpacked(data: bytes, columns: int, rows: int) -> list[Column]:
    """Return the columns again.

    Raises:
        ValueError: the bytes are damaged, or of other columns.
    """
    return columns_of(opened(data), columns, rows)


def opened(data: bytes) -> bytes:
    """Return what stands after the checksum.

    Raises:
        ValueError: the bytes are damaged.
    """
    content = data[_SUM_BYTES:]
    if len(data) < _SUM_BYTES or zlib.crc32(content) != int.from_bytes(data[:_SUM_BYTES], "little"):
        raise ValueError("it is cut off, or was changed")
    return content


def columns_of(content: bytes, columns: int, rows: int) -> list[Column]:
    """Return the columns of what stands after the checksum.

    Raises:
        ValueError: it is damaged, or of other columns.
    """
    reader = _Reader(content, rows)
    found = [reader.column(rows) for _ in range(columns)]
    if not reader.is_at_end():
        raise ValueError("it has more than its rows")
    return found


def first_column_of(content: bytes, rows: int, first: int) -> Column:
    """Return as many of the first numbers of the first column alone, which is much sooner done.

    Raises:
        ValueError: it is damaged.
    """
    return _Reader(content, rows).column(min(rows, first))


class _Reader:
    """Takes one thing after the other off the bytes."""

    def __init__(self, content: bytes, rows: int) -> None:
        self._content, self._at = content, 0
        told = self._varint()
        if told != rows or rows > _MOST_ROWS:
            raise ValueError("it ends too early" if told < rows else "it has more than its rows")

    def is_at_end(self) -> bool:
        return self._at == len(self._content)

    def column(self, rows: int) -> Column:
        column: Column = []
        last = 0
        for code in self._codes(rows):
            if code == 0:
                column.append(None)
                continue
            zigzag = code - 1
            last += -(zigzag + 1 >> 1) if zigzag & 1 else zigzag >> 1
            if not -_BEYOND < last < _BEYOND:
                raise ValueError("a number is too large")
            column.append(last)
        return column

    def _codes(self, rows: int) -> Iterator[int]:
        if rows:
            yield self._varint()
        for begin in range(1, rows, GROUP):
            count, least, width = min(rows - begin, GROUP), self._varint(), self._byte()
            if width > _MOST_BITS:
                raise ValueError("a number is too large")
            end = self._at + _bytes_of(count, width)
            if end > len(self._content):
                raise ValueError("it ends too early")
            bits, mask = int.from_bytes(self._content[self._at : end], "little"), (1 << width) - 1
            self._at = end
            for place in range(count):
                yield least + (bits >> place * width & mask)

    def _byte(self) -> int:
        if self._at >= len(self._content):
            raise ValueError("it ends too early")
        self._at += 1
        return self._content[self._at - 1]

    def _varint(self) -> int:
        number = shift = 0
        while True:
            byte = self._byte()
            number |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        if number.bit_length() > _MOST_BITS:
            raise ValueError("a number is too large")
        return number
