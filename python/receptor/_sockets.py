"""What the sockets of both shells share: construction from a received descriptor, forks, and what goes over
them: the messages of listeners, and datagrams.
"""

import errno
import functools
import json
import os
import socket
import struct
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from . import _process
from ._address import Address
from ._session import Descriptor
from .errors import (
    ConfigError,
    PayloadTooLarge,
    ProtocolError,
    ReceptorError,
    StreamResetError,
    Unreachable,
    UnreachableReason,
    from_wire,
)

if TYPE_CHECKING:
    from .types import StreamStatus

DATAGRAM_READ_BYTES: Final = 3 + 2 * 255 + (64 << 10)
_VERSION: Final = 1
_DATA, _NOTICE, _REFUSED = 0, 1, 2
_INT_BYTES: Final = struct.calcsize("i")  # Of a socket option.

# The texts of notices, which cross the mesh, and what they mean.
_PROBLEMS = {
    "service unknown": UnreachableReason.SERVICE_UNKNOWN,
    "message expired": UnreachableReason.EXPIRED,
    "blocked by firewall": UnreachableReason.FIREWALL,
}

# A block of a stream is 256 KiB. Until a program has freed something larger, the C library (glibc's malloc) gives the
# memory of such blocks back to the system whenever they are freed, and each next one costs page faults again.
bytes(2 << 20)


def socket_of(descriptor: Descriptor, kind: socket.SocketKind) -> socket.socket:
    """Make a plain socket of a received descriptor, that blocks whatever the program's default timeout is."""
    sock = socket.socket(socket.AF_UNIX, kind, fileno=descriptor.detach())
    sock.settimeout(None)
    return sock


def wake(sock: socket.socket) -> None:
    """Make a read in another thread end, as closing the socket would not. Safe at any time."""
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # Closed already, by us or by the node.


class StreamSocket(_process.Local, socket.socket):
    """A mesh stream as a socket: what takes a connected socket takes it, or its ``dup()`` if it wants no other class.

    peer, local: the two ends. stream: the node's number for it.
    """

    def __init__(self, descriptor: Descriptor, stream: int, peer: Address, local: Address) -> None:
        super().__init__(socket.AF_UNIX, socket.SOCK_STREAM, 0, descriptor.detach())
        self.stream = stream
        self.peer = peer
        self.local = local
        self._pid = os.getpid()
        self._tcp_options: dict[int, bytes] = {}
        self.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _process.track(self)

    _elsewhere = "another process takes its dup(), a plain socket"

    def dup(self) -> socket.socket:  # type: ignore[override]  # a plain socket: only one object speaks for the stream
        """A plain socket on a copy of the descriptor, for another process or a library that wants one."""
        sock = socket.socket(self.family, self.type, self.proto, os.dup(self.fileno()))
        sock.settimeout(self.gettimeout())
        return sock

    def setsockopt(self, level: int, optname: int, value: Any, *size: int) -> None:  # Any: it has overloads
        """As ``socket.setsockopt``. Options of TCP, such as TCP_NODELAY, are taken: a stream needs none of them."""
        if level != socket.IPPROTO_TCP:
            super().setsockopt(level, optname, value, *size)
        elif isinstance(value, int):
            self._tcp_options[optname] = value.to_bytes(_INT_BYTES, sys.byteorder, signed=True)
        else:
            self._tcp_options[optname] = bytes(value or size[0])

    def getsockopt(self, level: int, optname: int, *size: int) -> Any:  # Any: it has overloads
        """As ``socket.getsockopt``. Options of TCP are what they were set to; data is never held back (TCP_NODELAY)."""
        if level != socket.IPPROTO_TCP or optname not in self._tcp_options:
            return super().getsockopt(level, optname, *size)
        value = self._tcp_options[optname]
        return value[: size[0]] if any(size) else int.from_bytes(value[:_INT_BYTES], sys.byteorder, signed=True)

    def _broken(self, status: "StreamStatus") -> StreamResetError | None:
        """What to raise where it ends; None if it ended in good order."""
        from .types import StreamState

        if status.state is not StreamState.RESET:
            return None
        return status.error if isinstance(status.error, StreamResetError) else self._lost(status.error)

    def _lost(self, why: ReceptorError | None) -> StreamResetError:
        error = StreamResetError(f"stream to {self.peer}: {why or 'broken off'}", node=self.peer.node)
        error.__cause__ = why
        return error

    def _abandon_after_fork(self) -> None:
        self.close()

    def _check_process(self, error: OSError) -> None:
        if error.errno == errno.EBADF:
            _process.check(self._pid)

    def __repr__(self) -> str:
        state = "closed" if self.fileno() < 0 else f"fd={self.fileno()}"
        return f"<{type(self).__qualname__} {self.local} to {self.peer} {state}>"


def described(thing: object, what: object, *, closed: bool = False) -> str:
    """The ``repr`` of something that can be closed."""
    return f"<{type(thing).__module__}.{type(thing).__qualname__} {what}{' closed' if closed else ''}>"


def left_open(thing: object, close: Callable[[], object]) -> None:
    """For a ``__del__``: close ``thing``, and tell that nobody did and the line where it was forgotten."""
    text = f"unclosed {thing!r}"
    close()
    warnings.warn(text, ResourceWarning, source=thing, stacklevel=3)  # Last: it may be an error.


class Arrivals:
    """What a listener's messages say: a descriptor first, then whose it is. Not for several threads at once.

    Every stream is to be answered with its :func:`confirmation`: the node resets those that nobody has accepted when
    the listener is closed.
    """

    def __init__(self) -> None:
        self._descriptor: Descriptor | None = None
        self._lost = False

    def lose(self) -> None:
        """Note that the message that came last, if one did, could not be received."""
        self._lost = True

    def take(self, message: bytes, descriptors: Sequence[Descriptor]) -> tuple[int, Address, Descriptor | None] | None:
        """Take a message; a stream's ID, who opened it, and its descriptor, None if it was lost, once all is known."""
        if descriptors:
            if len(descriptors) != 1 or (self._descriptor is not None and not self._lost):
                raise ProtocolError("listener sent more descriptors than streams")
            self.close()
            self._descriptor = descriptors[0]
            return None
        descriptor, self._descriptor = self._descriptor, None
        lost, self._lost = self._lost, False
        if descriptor is None and not lost:
            raise ProtocolError("listener told of a stream whose descriptor did not come")
        return (*_accepted(message), descriptor)

    def close(self) -> None:
        """Drop what was received in part."""
        if self._descriptor is not None:
            self._descriptor.close()


def confirmation(stream: int) -> bytes:
    """What tells the node that a stream was accepted."""
    return b"+%d" % stream


def refusal(stream: int) -> bytes:
    """What tells the node that nobody will accept a stream."""
    return b"-%d" % stream


def _accepted(message: bytes) -> tuple[int, Address]:
    try:
        value = json.loads(message)
        stream, peer = int(value["stream"]), Address.from_json(value["peer"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ProtocolError(f"listener sent something else than an accepted stream: {error}") from error
    return stream, peer


def pack_datagram(payload: bytes | bytearray | memoryview, address: tuple[str, str]) -> bytes:
    """Lay a datagram out for sending."""
    try:
        if isinstance(address, str):  # Its parts are its characters.
            raise TypeError
        header = _header(*address)
    except (TypeError, AttributeError, UnicodeEncodeError):
        raise ConfigError(f"address {address!r}: want a node and a service, such as {('db-1', 'logs')}") from None
    try:
        return b"".join((header, payload))
    except TypeError:
        raise ConfigError(f"data: want bytes, got {type(payload).__name__}") from None


@functools.lru_cache(256)
def _header(node_id: str, name: str) -> bytes:
    node, service = node_id.encode(), name.encode()
    if not 1 <= len(node) <= 255:
        raise ConfigError(f"node ID of {len(node)} bytes: datagram sockets reach IDs of 1 to 255")
    if len(service) > 255:
        raise ConfigError(f"service name of {len(service)} bytes: allowed are 255")
    return bytes((_VERSION, _DATA, len(node))) + node + bytes((len(service),)) + service


@functools.lru_cache(256)
def _address(encoded: bytes) -> Address:
    """What a header has behind version and kind."""
    end = 1 + encoded[0]
    return Address(encoded[1:end].decode(), encoded[end + 1 :].decode())


def unpack_datagram(message: bytes) -> tuple[bytes, Address]:
    """Take a received message apart. Notices and refusals raise what they say."""
    try:
        version, kind, length = message[0], message[1], message[2]
        start = 4 + length + message[3 + length]
        address = _address(message[2:start])
    except (IndexError, UnicodeDecodeError):
        raise ProtocolError("datagram without a whole header") from None
    payload = message[start:]
    if version != _VERSION or len(message) < start:
        raise ProtocolError(f"datagram of version {version}, this package knows {_VERSION}")
    if kind == _DATA:
        return payload, address
    if kind == _NOTICE:
        raise _notice(payload.decode("utf-8", "replace"), address)
    raise _refusal(payload, address)


def send_error(error: OSError, size: int) -> ReceptorError | None:
    """What a failed send of a datagram of ``size`` bytes means, None if only the OSError says it."""
    if error.errno == errno.EMSGSIZE:
        return PayloadTooLarge(f"datagram of {size} bytes does not fit into one message")
    return None


def _notice(problem: str, address: Address) -> Unreachable:
    reason = _PROBLEMS.get(problem, UnreachableReason.REFUSED)
    return Unreachable(f"datagram to {address}: {problem}", code=reason, node=address.node, service=address.service)


def _refusal(payload: bytes, address: Address) -> ReceptorError:
    try:
        err = json.loads(payload)
    except ValueError:
        err = None
    if not isinstance(err, dict):
        raise ProtocolError("datagram refused with something that is not a JSON object")
    if address.node:
        err |= {"msg": f"datagram to {address}: {err.get('msg')}", "node": address.node, "service": address.service}
    return from_wire(err)
