"""Payloads of work units: whatever a caller has, as chunks of bounded size."""

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from typing import TYPE_CHECKING, Protocol, TypeAlias, TypeVar

from .errors import ConfigError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

CHUNK_BYTES = 256 << 10

Buffer: TypeAlias = bytes | bytearray | memoryview
T = TypeVar("T")


class Readable(Protocol):
    """A file open for reading bytes."""

    def read(self, size: int, /) -> bytes: ...


Payload: TypeAlias = Buffer | str | Readable | Iterable[Buffer]
AsyncPayload: TypeAlias = Payload | AsyncIterable[Buffer]


def chunks(payload: Payload) -> Iterator[memoryview]:
    """Cut ``payload`` into chunks of at most ``CHUNK_BYTES``, reading files and iterables only as far as asked.

    >>> [bytes(chunk) for chunk in chunks(["no str", b"bytes"])]
    Traceback (most recent call last):
    receptor.errors.ConfigError: payload: want bytes in the iterable, got str
    """
    for piece in _pieces(payload):
        view = flat(piece)
        for start in range(0, len(view), CHUNK_BYTES):
            yield view[start : start + CHUNK_BYTES]


def flat(data: "ReadableBuffer") -> memoryview:
    """The bytes of ``data`` in their order.

    >>> bytes(flat(memoryview(b"abcdef")[::2]))
    b'ace'
    """
    view = memoryview(data)
    return view.cast("B") if view.c_contiguous and view.nbytes else memoryview(view.tobytes())


def _pieces(payload: Payload) -> Iterator[Buffer]:
    if isinstance(payload, str):
        yield payload.encode()
    elif isinstance(payload, (bytes, bytearray, memoryview)):
        yield payload
    elif callable(read := getattr(payload, "read", None)):
        while piece := some(read(CHUNK_BYTES)):
            yield checked(piece, 'from the file; open it in mode "rb"')
    elif isinstance(payload, Iterable):
        for piece in payload:
            yield checked(piece, "in the iterable")
    else:
        raise no_payload(payload)


def no_payload(given: object) -> ConfigError:
    """The error for what is of no kind that a payload can be."""
    return ConfigError(f"payload: want bytes, str, a file or an iterable of bytes, got {type(given).__name__}")


def check(payload: object) -> None:
    """Raise ConfigError for what is of no kind that a payload can be, without reading from it."""
    if not isinstance(payload, (str, Iterable, AsyncIterable)) and not callable(getattr(payload, "read", None)):
        raise no_payload(payload)


def some(piece: T | None) -> T:
    """What was read from a file, and not None, which a non-blocking one gives where it is not at its end."""
    if piece is None:
        raise ConfigError("payload: the file has nothing to read now and is not at its end: make it blocking")
    return piece


def checked(piece: object, where: str) -> Buffer:
    """``piece`` if it is bytes."""
    if isinstance(piece, (bytes, bytearray, memoryview)):
        return piece
    raise ConfigError(f"payload: want bytes {where}, got {type(piece).__name__}")


async def async_chunks(payload: AsyncPayload) -> AsyncIterator[Buffer]:
    """Like ``chunks``, also of asynchronous iterables. Files and iterables are read in a thread."""
    if isinstance(payload, (str, bytes, bytearray, memoryview)):
        for chunk in chunks(payload):
            yield chunk
    elif isinstance(payload, AsyncIterable):
        async for piece in payload:
            for chunk in chunks(checked(piece, "in the iterable")):
                yield chunk
    else:
        async for chunk_read in _from_thread(payload):
            yield chunk_read


async def _from_thread(payload: Payload) -> AsyncIterator[Buffer]:
    from ._aio_session import in_thread

    pieces = chunks(payload)
    while (chunk := await in_thread(next, pieces, None)) is not None:
        yield chunk
