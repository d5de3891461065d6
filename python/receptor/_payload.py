"""Payloads of work units: whatever a caller has, as chunks of bounded size."""

from collections.abc import AsyncIterable, Iterable, Iterator
from typing import Protocol, TypeAlias

from .errors import ConfigError

CHUNK_BYTES = 256 << 10

Buffer: TypeAlias = bytes | bytearray | memoryview


class Readable(Protocol):
    """A file open for reading bytes."""

    def read(self, size: int, /) -> bytes: ...


Payload: TypeAlias = Buffer | str | Readable | Iterable[bytes]
AsyncPayload: TypeAlias = Payload | AsyncIterable[bytes]


def chunks(payload: Payload) -> Iterator[memoryview]:
    """Cut ``payload`` into chunks of at most ``CHUNK_BYTES``, reading files and iterables only as far as asked.

    >>> [bytes(chunk) for chunk in chunks(["no str", b"bytes"])]
    Traceback (most recent call last):
    receptor.errors.ConfigError: payload: want bytes in the iterable, got str
    """
    for piece in _pieces(payload):
        view = memoryview(piece).cast("B")
        for start in range(0, len(view), CHUNK_BYTES):
            yield view[start : start + CHUNK_BYTES]


def _pieces(payload: Payload) -> Iterator[Buffer]:
    if isinstance(payload, str):
        yield payload.encode()
    elif isinstance(payload, (bytes, bytearray, memoryview)):
        yield payload
    elif callable(read := getattr(payload, "read", None)):
        while piece := read(CHUNK_BYTES):
            yield checked(piece, 'from the file; open it in mode "rb"')
    elif isinstance(payload, Iterable):
        for piece in payload:
            yield checked(piece, "in the iterable")
    else:
        raise ConfigError(f"payload: want bytes, str, a file or an iterable of bytes, got {type(payload).__name__}")


def checked(piece: object, where: str) -> Buffer:
    """``piece`` if it is bytes."""
    if isinstance(piece, (bytes, bytearray, memoryview)):
        return piece
    raise ConfigError(f"payload: want bytes {where}, got {type(piece).__name__}")
