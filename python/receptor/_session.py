"""The session protocol of go/session/README.md, without I/O: bytes and descriptors in, replies and events out.

Both shells, blocking and asyncio, drive a :class:`Session` and own the socket. Descriptors are held as
:class:`Descriptor`, which closes what nobody took: a reply that is dropped, late or left over never leaks one.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from .errors import ClosedError, ConfigError, PayloadTooLarge, ProtocolError, ReceptorError, from_wire

if TYPE_CHECKING:
    from .types import JSON, Event

PROTOCOL = 1
MAX_FRAME_BYTES = 16 << 20
GRACE_S = 1.0  # How long after its own limit a node may still answer, and say more, before we give up on it.
MAX_PENDING_DESCRIPTORS = 64  # Received, their frames not yet complete; the node sends one at a time.

_LENGTH = struct.Struct(">I")
_to_json = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
T = TypeVar("T")


class Descriptor:
    """Owns a file descriptor until :meth:`detach` hands it on; closes it otherwise, at the latest when collected."""

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def detach(self) -> int:
        """Hand the number to a new owner. Once only."""
        fd, self._fd = self._fd, -1
        if fd < 0:
            raise ProtocolError("descriptor was taken twice")
        return fd

    def close(self) -> None:
        """Close it, unless it was handed on. Safe to call twice."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Descriptor {self._fd}>"


class Reply(NamedTuple):
    """The answer to the request ``id``: either ``ok`` or ``error``; ``fd`` where the frame brought one."""

    id: int
    ok: JSON
    error: ReceptorError | None = None
    fd: Descriptor | None = None

    def result(self) -> JSON:
        """The reply's object, or raise its error."""
        if self.error is not None:
            raise self.error
        return self.ok

    def descriptor(self) -> Descriptor:
        """The reply's descriptor, or raise the reply's error."""
        self.result()
        if self.fd is None:
            raise ProtocolError(f"reply {self.id} should have brought a descriptor and did not")
        return self.fd


class Hello(NamedTuple):
    """The greeting: what the node's side is."""

    version: str
    mode: str
    features: frozenset[str]
    node: str = ""  # Of an attached session: the node that runs already.


class Op(NamedTuple, Generic[T]):
    """A request before it is sent, and how its reply is read.

    own_timeout: the node ends the request itself after ``timeout_s``, so a shell only steps in ``grace_s`` later.
    timeout_s: seconds; None waits for ever.
    watched: it takes as long as it takes, and a shell asks the ``probe`` meanwhile: ``timeout_s`` is for each answer.
    undo: makes, of the reply's object, the request that takes back what was done for somebody who has given up; None if
        closing the reply's descriptor does, or nothing needs to.
    exclusive: it takes or frees a name or an address, which only one can have at a time.
    frees: it frees one: it waits for nobody who frees another, and so is made also where its caller is cancelled.
    """

    name: str
    keys: Mapping[str, Any]  # Any: JSON values
    decode: Callable[[JSON], T]
    timeout_s: float | None = None
    own_timeout: bool = False
    watched: bool = False
    undo: Callable[[JSON], Op[Any]] | None = None  # Any: nobody reads its reply
    exclusive: bool = False
    frees: bool = False

    @property
    def grace_s(self) -> float:
        """What a shell waits beyond ``timeout_s``."""
        return GRACE_S if self.own_timeout else 0.0

    @property
    def probe(self) -> Op[JSON]:
        """What a node is asked that is busy with a ``watched`` request; if it answers at all, it is there."""
        return Op("status", {}, lambda ok: ok)


class Whose:
    """The node of a session, as errors name it."""

    id = ""  # Once it is known.

    def __str__(self) -> str:
        return f"node {self.id!r}" if self.id else "the node"

    def closed(self, text: str = "") -> ClosedError:
        """What whoever still uses it is told; text: what there is to say of its end."""
        return ClosedError(f"{self} {text or 'is closed'}", node=self.id or None)

    def gone(self) -> ClosedError:
        """The same, where its sessions have ended without a word."""
        return self.closed()


class Session:
    """One end of a session.

    whose: names the node, and says what became of it if the socket ends without a word.

    Not for several threads at once. After a :class:`ProtocolError` it is of no use: close the socket.
    """

    def __init__(self, whose: Whose | None = None) -> None:
        self.whose = whose or Whose()
        self.hello: Hello | None = None
        self.ended: ReceptorError | None = None  # Set by the event "closed": why the node is no more.
        self._buffer = bytearray()
        self._descriptors: deque[Descriptor] = deque()
        self._next_id = 1
        self._waiting: set[int] = set()
        self._abandoned: dict[int, Callable[[JSON], Op[Any]] | None] = {}
        self._releasing: set[int] = set()  # The abandoned that keep a name or an address until they are answered.
        self._amends = bytearray()

    def request(self, op: str, keys: Mapping[str, Any]) -> tuple[int, bytes]:
        """Number a request and return its ID and its bytes."""
        request_id = self._next_id
        frame = encode({"id": request_id, "op": op, **keys})
        self._next_id += 1
        self._waiting.add(request_id)
        return request_id, frame

    @property
    def releasing(self) -> bool:
        """A name or an address of an abandoned request may still be taken; the next replies tell."""
        return bool(self._releasing)

    @property
    def abandoned(self) -> bool:
        """Replies to abandoned requests, or to those that undo them, are still to come."""
        return bool(self._abandoned)

    def abandon(
        self, request_id: int, undo: Callable[[JSON], Op[Any]] | None = None, *, exclusive: bool = False
    ) -> bytes:
        """Give a request up: returns the bytes that tell the node, empty if it has answered already.

        undo: what is asked of the node if it has done the request all the same; see :meth:`amends`.
        exclusive: as the request's op has it; see :attr:`releasing`.
        """
        if request_id not in self._waiting:
            return b""
        self._waiting.remove(request_id)
        self._abandoned[request_id] = undo
        if exclusive:
            self._releasing.add(request_id)
        return encode({"op": "cancel", "target": request_id})

    def take_back(self, undo: Callable[[JSON], Op[Any]], ok: JSON, *, exclusive: bool) -> None:
        """Have undone what was done for somebody who has given up; see :meth:`amends`. ok: of the reply that came."""
        op = undo(ok)
        request_id, frame = self.request(op.name, op.keys)
        self.abandon(request_id, exclusive=exclusive)
        self._amends += frame

    def receive(self, data: bytes, descriptors: Iterable[Descriptor] = ()) -> list[Reply | Event]:
        """Take what one read brought and return what it completed.

        Replies to abandoned requests are dropped, and what was done for them is undone: descriptors are closed here,
        and the rest is in :meth:`amends`.
        """
        self._descriptors.extend(descriptors)
        if len(self._descriptors) > MAX_PENDING_DESCRIPTORS:
            raise ProtocolError(f"more than {MAX_PENDING_DESCRIPTORS} descriptors came without their frames")
        self._buffer += data
        items: list[Reply | Event] = []
        for frame in self._frames():
            item = self._item(frame)
            if item is not None:
                items.append(item)
        return items

    def missing(self) -> int:
        """How many bytes there are still to come of the frame that is being received, as far as can be told."""
        if len(self._buffer) < 4:
            return 4 - len(self._buffer)
        (length,) = _LENGTH.unpack_from(self._buffer)
        return int(length) + 4 - len(self._buffer)

    def amends(self) -> bytes:
        """What is to be sent to undo what was done for those who have given up."""
        frames = bytes(self._amends)
        self._amends.clear()
        return frames

    def eof(self) -> ReceptorError:
        """The socket has ended: what to tell those who still wait."""
        if self.ended is not None:
            return self.ended
        if self._buffer:
            return ProtocolError(f"session ended inside a frame, after {len(self._buffer)} bytes of it")
        return self.whose.gone()

    def close(self) -> None:
        """Drop what was received in part."""
        self._buffer.clear()
        while self._descriptors:
            self._descriptors.popleft().close()

    def _frames(self) -> Iterable[JSON]:
        buffer, position = self._buffer, 0
        try:
            while len(buffer) - position >= 4:
                (length,) = _LENGTH.unpack_from(buffer, position)
                if not 1 <= length <= MAX_FRAME_BYTES:
                    raise ProtocolError(f"frame of {length} bytes; allowed are 1 to {MAX_FRAME_BYTES}")
                end = position + 4 + length
                if len(buffer) < end:
                    break
                text = bytes(buffer[position + 4 : end])
                position = end
                yield _decode(text)
        finally:
            del buffer[:position]

    def _item(self, frame: JSON) -> Reply | Event | None:
        descriptor = self._descriptor() if frame.get("fd") is True else None
        if "id" in frame:
            return self._reply(frame, descriptor)
        if descriptor is not None:
            descriptor.close()
        match frame.get("ev"):
            case "hello":
                self._greet(frame)
                return None
            case "closed":
                err = frame.get("err")
                self.ended = self.whose.closed(f"ended: {err.get('msg')}" if err else "")
                self.ended.__cause__ = from_wire(err) if err else None
                return None
        from .types import event_from_json  # Not before the first event: see node.py.

        return event_from_json(frame)

    def _reply(self, frame: JSON, descriptor: Descriptor | None) -> Reply | None:
        request_id = frame["id"]
        if request_id in self._abandoned:
            undo = self._abandoned.pop(request_id)
            if descriptor is not None:
                descriptor.close()
            if undo is not None and isinstance(frame.get("ok"), dict):
                self.take_back(undo, frame["ok"], exclusive=request_id in self._releasing)
            self._releasing.discard(request_id)
            return None
        if request_id not in self._waiting:
            raise ProtocolError(f"reply to request {request_id!r}, which was not made or is answered already")
        self._waiting.remove(request_id)
        ok, err = frame.get("ok"), frame.get("err")
        if isinstance(err, dict):
            return Reply(request_id, {}, from_wire(err), descriptor)
        if not isinstance(ok, dict):
            raise ProtocolError(f'reply {request_id} has neither "ok" nor "err"')
        return Reply(request_id, ok, None, descriptor)

    def _descriptor(self) -> Descriptor:
        if not self._descriptors:
            raise ProtocolError("a frame announced a descriptor and none came")
        return self._descriptors.popleft()

    def _greet(self, frame: JSON) -> None:
        if frame.get("protocol") != PROTOCOL:
            raise ProtocolError(
                f"the node speaks session protocol {frame.get('protocol')!r}, this package {PROTOCOL}: "
                "install parts of one version"
            )
        self.hello = Hello(
            str(frame.get("version", "")),
            str(frame.get("mode", "")),
            frozenset(frame.get("features") or ()),
            str(frame.get("node", "")),
        )


def encode(value: Mapping[str, Any]) -> bytes:
    """Make a frame. Raises ConfigError for what JSON has no word for, and PayloadTooLarge."""
    try:
        body = _to_json(value).encode()
    except (TypeError, ValueError) as error:
        raise ConfigError(_unsayable(value) or str(error)) from None
    if len(body) > MAX_FRAME_BYTES:
        raise PayloadTooLarge(f"request of {len(body)} bytes; a session carries {MAX_FRAME_BYTES}")
    return _LENGTH.pack(len(body)) + body


def _unsayable(value: object, name: str = "") -> str:
    """Which part of a request is none of JSON's values."""
    parts: Iterable[tuple[object, object]] = ()
    if isinstance(value, Mapping):
        parts = value.items()
    elif isinstance(value, (list, tuple)):
        parts = enumerate(value)
    elif not isinstance(value, (str, int, float, type(None))) or (
        isinstance(value, float) and not math.isfinite(value)
    ):
        return f"{name}={value!r}: want a str, a bool or a finite number"
    return next(filter(None, (_unsayable(part, f"{name}.{key}".lstrip(".")) for key, part in parts)), "")


def _decode(body: bytes) -> JSON:
    try:
        value = json.loads(body.decode())
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"frame is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ProtocolError(f"frame is a JSON {type(value).__name__}, not an object")
    return value
