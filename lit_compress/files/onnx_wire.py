"""Walk through the bytes of an ONNX file without the onnx package, which loading does not need.

The format is that of protocol buffers: https://protobuf.dev/programming-guides/encoding
The numbers of the fields are those of onnx.proto: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
"""

from __future__ import annotations

from collections.abc import Iterator

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
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, position = _varint(message, position)
            yield number, value
            continue
        if kind == 2:
            size, position = _varint(message, position)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"a field has the unknown type {kind}")
        if size > len(message) - position:
            raise ValueError("it is truncated")
        yield number, message[position : position + size]
        position += size


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
        position = 0
        while position < len(value):
            one, position = _varint(value, position)
            found.append(_signed(one))
    return found


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(message):
            raise ValueError("it is truncated")
        byte = message[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value & (1 << 64) - 1, position
    raise ValueError("a number has too many bytes")


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value
