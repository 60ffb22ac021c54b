"""Read and write the bytes of an ONNX file without the onnx package, which loading does not need.

The format is that of protocol buffers: https://protobuf.dev/programming-guides/encoding
The numbers of the fields are those of onnx.proto: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
"""

from __future__ import annotations

from collections.abc import Iterator

#: Types of fields: a number of variable length, bytes with their length, and bytes of fixed length.
VARINT, BYTES = 0, 2
FIXED = {1: 8, 5: 4}
#: A field: its number, and its value, a number or the bytes of a message, text or list.
Field = tuple[int, "int | memoryview"]


def fields(message: memoryview) -> Iterator[Field]:
    """Yield the fields of a message in order.

    Args:
        message: Bytes of the message.

    Raises:
        ValueError: If the bytes are no message.

    Example:
        >>> [(number, value) for number, value in fields(memoryview(bytes([8, 150, 1])))]
        [(1, 150)]
    """
    for number, wire, first, last in spans(message, 0, len(message)):
        yield number, varint(message, first, last)[0] if wire == VARINT else message[first:last]


def spans(data: memoryview, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield number, type, start and end of the content of each field of a message in a file.

    Args:
        data: The file.
        start: Where the message begins.
        end: Where it ends.

    Raises:
        ValueError: If the bytes are no message.
    """
    while start < end:
        key, first = varint(data, start, end)
        wire = key & 7
        if wire == VARINT:
            last = varint(data, first, end)[1]
        elif wire == BYTES:
            length, first = varint(data, first, end)
            last = first + length
        elif wire in FIXED:
            last = first + FIXED[wire]
        else:
            raise ValueError(f"a field has the unknown type {wire}")
        if last > end:
            raise ValueError("it is truncated")
        yield key >> 3, wire, first, last
        start = last


def varints(data: memoryview, start: int, end: int) -> Iterator[int]:
    """Yield numbers of variable length that follow each other."""
    while start < end:
        value, start = varint(data, start, end)
        yield value


def parts(message: memoryview, wanted: int) -> Iterator[memoryview]:
    """Yield the messages or texts of one field."""
    for number, value in fields(message):
        if number == wanted and isinstance(value, memoryview):
            yield value


def text(message: memoryview, wanted: int) -> str:
    """Return a text of a message; empty if it is not there."""
    return "".join(bytes(part).decode("utf-8", errors="replace") for part in parts(message, wanted))


def numbers(message: memoryview, wanted: int) -> list[int]:
    """Return the signed whole numbers of a field, one by one or packed."""
    found: list[int] = []
    for number, value in fields(message):
        if number != wanted:
            continue
        if isinstance(value, int):
            found.append(_signed(value))
            continue
        found += map(_signed, varints(value, 0, len(value)))
    return found


def varint(data: memoryview, start: int, end: int) -> tuple[int, int]:
    """Return a number of variable length, and where it ends.

    Raises:
        ValueError: If it does not end.
    """
    value = shift = 0
    for place in range(start, min(start + 10, end)):
        value |= (data[place] & 127) << shift
        shift += 7
        if data[place] < 128:
            return value & (1 << 64) - 1, place + 1
    raise ValueError("it is truncated, or a number has too many bytes")


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def encoded(number: int, value: int | str | bytes) -> bytes:
    r"""Return a field of a message as bytes.

    Args:
        number: Number of the field.
        value: A whole number from 0, a text, or the bytes of a message or of a list.

    Example:
        >>> encoded(1, 150), encoded(2, "ab")
        (b'\x08\x96\x01', b'\x12\x02ab')
        >>> list(fields(memoryview(encoded(1, 150))))
        [(1, 150)]
    """
    if isinstance(value, int):
        return _varint(number << 3 | VARINT) + _varint(value)
    content = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | BYTES) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])
