"""How rows of whole numbers become few bytes: column by column, as differences, in as few bytes as each needs.

A column is a chain of numbers, one for each row. Each is told as its difference from the last one that was known, in
zigzag (0, -1, 1, -2, … become 0, 1, 2, 3, …), plus 1, as a varint: seven bits a byte, lowest first; the high bit says
that more follow. A 0 stands for what is not known. All columns together are compressed by zlib, whose checksum finds
damage.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["Column", "columns_of", "first_column_of", "opened", "packed", "plain", "unpacked"]

#: Numbers below 2**63 in size, and ``None`` for what is not known.
Column = list[int | None]

# A number of 64 bits needs ten bytes; a block that decompresses to more than this was not written here.
_MOST_BYTES = 1 << 27
_BEYOND = 1 << 63


def packed(columns: Sequence[Sequence[int | None]]) -> bytes:
    """Return columns of the same length as bytes."""
    return zlib.compress(plain(columns), 6)


def plain(columns: Sequence[Sequence[int | None]]) -> bytes:
    """Return the same before it is compressed."""
    data = bytearray()
    for column in columns:
        last = 0
        for value in column:
            if value is None:
                data.append(0)
                continue
            step = value - last
            last = value
            number = ((step << 1) if step >= 0 else ((-step << 1) - 1)) + 1
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
    """Return what was compressed.

    Raises:
        ValueError: the bytes are damaged.
    """
    stream = zlib.decompressobj()
    try:
        content = stream.decompress(data, _MOST_BYTES)
    except zlib.error as error:
        raise ValueError(str(error)) from None
    if not stream.eof:
        raise ValueError("it is cut off, or too large")
    return content


def columns_of(content: bytes, columns: int, rows: int) -> list[Column]:
    """Return the columns of what was compressed.

    Raises:
        ValueError: it is damaged, or of other columns.
    """
    numbers = _numbers(content)
    try:
        found = [_column(numbers, rows) for _ in range(columns)]
    except StopIteration:
        raise ValueError("it ends too early") from None
    if next(numbers, None) is not None:
        raise ValueError("it has more than its rows")
    return found


def first_column_of(content: bytes, rows: int) -> Column:
    """Return the first column alone, which is much sooner done.

    Raises:
        ValueError: it is damaged.
    """
    try:
        return _column(_numbers(content), rows)
    except StopIteration:
        raise ValueError("it ends too early") from None


def _column(numbers: Iterator[int], rows: int) -> Column:
    column: Column = []
    last = 0
    for _ in range(rows):
        number = next(numbers)
        if number == 0:
            column.append(None)
            continue
        number -= 1
        last += -(number + 1 >> 1) if number & 1 else number >> 1
        if not -_BEYOND < last < _BEYOND:
            raise ValueError("a number is too large")
        column.append(last)
    return column


def _numbers(content: bytes) -> Iterator[int]:
    number = shift = 0
    for byte in content:
        number |= (byte & 127) << shift
        if byte > 127:
            shift += 7
        else:
            yield number
            number = shift = 0
    if shift:
        raise ValueError("it ends within a number")
