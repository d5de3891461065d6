"""What a blocking node hands out: streams, listeners, datagram sockets, events."""

from __future__ import annotations

import os
import select
import socket
import threading
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Self

from . import _ops, _process, _sockets
from ._address import Address
from ._channel import Channel, Deadline, next_on
from ._closing import Closable
from ._proxies import AnyProxy
from ._session import Descriptor
from .errors import ClosedError, ConfigError, MeshTimeout, ReceptorError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

    from .node import Node
    from .types import DatagramStatus, Event, StreamStatus

_ACCEPT_BYTES = 64 << 10


class MeshSocket(_sockets.StreamSocket):
    """A mesh stream as a blocking socket.

    Beyond a socket: ``peer``, ``local``, :meth:`status`, :meth:`abort`, and the promise that whatever reads, such as
    ``recv`` and ``makefile``, gives an end of file only where the far side ended the stream in good order; where it was
    broken off it raises StreamResetError. ``shutdown(SHUT_WR)`` ends this side's half.
    """

    def __init__(self, descriptor: Descriptor, stream: int, peer: Address, local: Address, node: Node) -> None:
        super().__init__(descriptor, stream, peer, local)
        self._node = node
        self._ended_well = False

    def status(self) -> StreamStatus:
        """How the stream stands."""
        return self._node._run(_ops.stream_status(self.stream, self._node.timeout_s))

    def abort(self, error_code: int = 0) -> None:
        """Break the stream off in both directions and close the socket.

        error_code: a number of the caller's own for the reason, which the far side's StreamResetError carries.
        """
        try:
            self._node._run(_ops.stream_abort(self.stream, error_code, self._node.timeout_s))
        finally:
            self.close()

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        """As ``socket.recv``. Raises StreamResetError where the stream was broken off."""
        try:
            data = super().recv(bufsize, flags)
        except OSError as error:
            self._explain(error)
            raise
        if not data and bufsize:
            self._at_end()
        return data

    def recv_into(self, buffer: WriteableBuffer, nbytes: int = 0, flags: int = 0) -> int:
        """As ``socket.recv_into``. Raises StreamResetError where the stream was broken off."""
        try:
            count = super().recv_into(buffer, nbytes, flags)
        except OSError as error:
            self._explain(error)
            raise
        if not count and (nbytes or memoryview(buffer).nbytes):
            self._at_end()
        return count

    def recvfrom(self, bufsize: int, flags: int = 0, /) -> tuple[bytes, None]:
        """As ``socket.recvfrom``. Raises StreamResetError where the stream was broken off."""
        return self.recv(bufsize, flags), None

    def recvfrom_into(self, buffer: WriteableBuffer, nbytes: int = 0, flags: int = 0) -> tuple[int, None]:
        """As ``socket.recvfrom_into``. Raises StreamResetError where the stream was broken off."""
        return self.recv_into(buffer, nbytes, flags), None

    def recvmsg(
        self, bufsize: int, ancbufsize: int = 0, flags: int = 0, /
    ) -> tuple[bytes, list[tuple[int, int, bytes]], int, None]:
        """As ``socket.recvmsg``. Raises StreamResetError where the stream was broken off."""
        try:
            data, ancillary, told, _ = super().recvmsg(bufsize, ancbufsize, flags)
        except OSError as error:
            self._explain(error)
            raise
        if not data and bufsize:
            self._at_end()
        return data, ancillary, told, None

    def recvmsg_into(
        self, buffers: Iterable[WriteableBuffer], ancbufsize: int = 0, flags: int = 0, /
    ) -> tuple[int, list[tuple[int, int, bytes]], int, None]:
        """As ``socket.recvmsg_into``. Raises StreamResetError where the stream was broken off."""
        buffers = list(buffers)
        try:
            count, ancillary, told, _ = super().recvmsg_into(buffers, ancbufsize, flags)
        except OSError as error:
            self._explain(error)
            raise
        if not count and any(memoryview(buffer).nbytes for buffer in buffers):
            self._at_end()
        return count, ancillary, told, None

    def send(self, data: ReadableBuffer, flags: int = 0, /) -> int:
        """As ``socket.send``. Raises StreamResetError where the stream was broken off."""
        try:
            return super().send(data, flags)
        except OSError as error:
            self._explain(error)
            raise

    def sendall(self, data: ReadableBuffer, flags: int = 0, /) -> None:
        """As ``socket.sendall``. Raises StreamResetError where the stream was broken off."""
        try:
            super().sendall(data, flags)
        except OSError as error:
            self._explain(error)
            raise

    def sendmsg(
        self,
        buffers: Iterable[ReadableBuffer],
        ancdata: Iterable[tuple[int, int, ReadableBuffer]] = (),
        flags: int = 0,
        address: tuple[Any, ...] | str | ReadableBuffer | None = None,
        /,
    ) -> int:
        """As ``socket.sendmsg``. Raises StreamResetError where the stream was broken off.

        ancdata: none: a stream carries bytes, no descriptors.
        """
        if ancdata := list(ancdata):
            raise ConfigError(f"stream to {self.peer}: a mesh stream carries bytes, no descriptors or other ancdata")
        try:
            return super().sendmsg(buffers, ancdata, flags, address)
        except OSError as error:
            self._explain(error)
            raise

    def _at_end(self) -> None:
        if self._ended_well:
            return
        try:
            error = self._broken(self.status())
        except ClosedError as closed:
            error = self._lost(closed)
        if error is not None:
            raise error
        self._ended_well = True

    def _explain(self, error: OSError) -> None:
        """Raise what ``error`` means for the stream; return if it means no more than it says."""
        self._check_process(error)
        if isinstance(error, (BrokenPipeError, ConnectionResetError)):
            try:
                reset = self._broken(self.status())
            except ReceptorError as why:
                reset = self._lost(why)
            if reset is not None:
                raise reset from error


class _Service(_process.Local, Closable):
    """What has a service name here and a socket of its own."""

    _kind = ""

    def __init__(self, descriptor: Descriptor, service: str, node: Node) -> None:
        self._node = node
        self._sock = _sockets.socket_of(descriptor, socket.SOCK_SEQPACKET)
        self._pid = os.getpid()
        self._done = False
        self.service = service
        _process.track(self)

    @property
    def address(self) -> Address:
        """Where others reach it."""
        return Address(self._node.id, self.service)

    def close(self) -> None:
        """Close it; a wait in another thread ends. Safe to call twice."""
        self._done = True
        _sockets.wake(self._sock)
        self._sock.close()

    def __del__(self) -> None:
        if self._sock.fileno() >= 0:
            _sockets.left_open(self, self._sock.close)

    def __repr__(self) -> str:
        return _sockets.described(self, self.address, closed=self._sock.fileno() < 0)

    def _closed_error(self) -> ClosedError:
        return self._node._loss(f"{self._kind} {self.service!r}", self._done)

    def _abandon_after_fork(self) -> None:
        self._sock.close()


class Listener(_Service):
    """Streams that others open to a service here.

    ::

        with node.listen("echo") as listener:
            for sock in listener:
                threading.Thread(target=serve, args=(sock,)).start()
    """

    _kind = "listener"

    def __init__(self, descriptor: Descriptor, service: str, node: Node) -> None:
        self._arrivals = _sockets.Arrivals()
        self._turn = threading.Lock()  # A stream is two messages, which one thread has to take.
        super().__init__(descriptor, service, node)

    def fileno(self) -> int:
        """For ``selectors``: readable when a stream waits to be accepted."""
        return self._sock.fileno()

    def accept(self, *, timeout_s: float | None = None) -> MeshSocket:
        """The next stream. Raises MeshTimeout, or ClosedError once the listener is closed."""
        _process.check(self._pid)
        deadline = Deadline(timeout_s, f"accept on {self.service!r}")
        if not self._turn.acquire(timeout=deadline.left()):
            raise deadline.error()
        try:
            stream, peer, descriptor = self._arrived(deadline)
            self._confirm(stream, descriptor)
        except MeshTimeout:
            raise
        except OSError as error:
            raise self._closed_error() from error
        except BaseException:  # An interrupt, or the limit on open files, in the midst of a stream's two messages.
            self._arrivals.lose()
            raise
        finally:
            self._turn.release()
        return MeshSocket(descriptor, stream, peer, self.address, self._node)

    def _arrived(self, deadline: Deadline) -> tuple[int, Address, Descriptor]:
        while True:
            data, descriptors = next_on(self._sock, _ACCEPT_BYTES, deadline)
            if not data:
                raise self._closed_error()
            arrived = self._arrivals.take(data, descriptors)
            if arrived is None:
                continue
            stream, peer, descriptor = arrived
            if descriptor is not None:
                return stream, peer, descriptor
            self._sock.send(_sockets.refusal(stream))

    def _confirm(self, stream: int, descriptor: Descriptor) -> None:
        try:
            self._sock.send(_sockets.confirmation(stream))
        except BaseException:
            descriptor.close()
            raise

    def __iter__(self) -> Iterator[MeshSocket]:
        """Streams as they come, until the listener or the node is closed; ClosedError if the node ends by itself."""
        while True:
            try:
                sock = self.accept()
            except ClosedError:
                if self._done or self._node.closed:
                    return
                raise
            yield sock

    def close(self) -> None:
        """Stop listening; an ``accept`` in another thread ends, and streams that wait are reset. Safe to call twice."""
        super().close()
        self._arrivals.close()

    def _abandon_after_fork(self) -> None:
        super()._abandon_after_fork()
        self._arrivals.close()


class DatagramSocket(_Service):
    """Datagrams between services. They may get lost, doubled and reordered, as everywhere.

    ::

        with node.datagram() as sock:
            sock.send_to(b"hi", ("db-1", "logs"))
            data, sender = sock.recv_from(timeout_s=5)
    """

    _kind = "datagram socket"

    def __init__(self, descriptor: Descriptor, service: str, number: int, node: Node) -> None:
        self._number = number
        super().__init__(descriptor, service, node)

    def fileno(self) -> int:
        """For ``selectors``: readable when a datagram or a notice waits."""
        return self._sock.fileno()

    def send_to(
        self, data: bytes | bytearray | memoryview, address: tuple[str, str], *, timeout_s: float | None = None
    ) -> None:
        """Send one datagram to ``address``, (node, service). Waits while the node's queue is full.

        data: up to 65,499 bytes; more is refused by the node, if not at once.
        Raises PayloadTooLarge or MeshTimeout. What became of it later is told, where it is, by :meth:`recv_from`.
        """
        _process.check(self._pid)
        message = _sockets.pack_datagram(data, address)
        try:
            if timeout_s is None:
                self._sock.send(message)
            else:
                self._send_within(message, Deadline(timeout_s, "send_to"))
        except MeshTimeout:
            raise
        except OSError as error:
            raise _sockets.send_error(error, len(data)) or self._closed_error() from error

    def recv_from(self, *, timeout_s: float | None = None) -> tuple[bytes, Address]:
        """The next datagram and its sender.

        Raises Unreachable for a notice that a datagram sent earlier did not arrive, PayloadTooLarge for one that the
        node refused, MeshTimeout, or ClosedError. The socket goes on working after the first three.
        """
        _process.check(self._pid)
        try:
            if timeout_s is None:
                message = self._sock.recv(_sockets.DATAGRAM_READ_BYTES)
            else:
                message = self._recv_within(Deadline(timeout_s, "recv_from"))
        except MeshTimeout:
            raise
        except OSError as error:
            raise self._closed_error() from error
        if not message:
            raise self._closed_error()
        return _sockets.unpack_datagram(message)

    # The socket itself stays without a time-out: threads share it, and a call that need not wait is one system call.

    def _send_within(self, message: bytes, deadline: Deadline) -> None:
        while True:
            try:
                self._sock.send(message, socket.MSG_DONTWAIT)
            except BlockingIOError:
                deadline.wait(self._sock, select.POLLOUT)
            else:
                return

    def _recv_within(self, deadline: Deadline) -> bytes:
        while True:
            try:
                return self._sock.recv(_sockets.DATAGRAM_READ_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                deadline.wait(self._sock, select.POLLIN)

    def status(self) -> DatagramStatus:
        """How many datagrams it has carried, and how many came in vain while nobody read."""
        return self._node._run(_ops.datagram_status(self._number, self._node.timeout_s))


class Proxy(AnyProxy["Node"], Closable):
    __doc__ = AnyProxy.__doc__

    def close(self) -> None:
        """End it and its connections. Safe to call twice."""
        if not self._done and not self._node.closed:
            with self._ending():
                self._node._run(_ops.remove_proxy(self._number, self._node.timeout_s))


class EventStream(_process.Local, Closable):
    """Events of a node, as they happen. Close it, or use it in a ``with`` statement.

    ::

        with node.events("peer") as events:
            for event in events:
                print(event)

    It can wait in a selector, beside sockets.
    """

    def __init__(self, channel: Channel, node: Node) -> None:
        self._channel = channel
        self._turn = threading.Lock()  # An event may be several reads.
        self._node = node
        self._pid = os.getpid()
        self._done = False
        _process.track(self)

    def fileno(self) -> int:
        """For ``selectors``: readable when an event waits, or the end of the node; -1 once closed.

        A large event may be on its way still: ``get(timeout_s=0)`` raises MeshTimeout then, as where nothing waits.
        """
        return self._channel.fileno()

    def get(self, *, timeout_s: float | None = None) -> Event:
        """The next event. Raises MeshTimeout, or ClosedError once the stream or the node is closed."""
        _process.check(self._pid)
        if self._done:
            raise _ops.closed(f"event stream of node {self._node.id!r}", None)
        deadline = Deadline(timeout_s, "events")
        if not self._turn.acquire(timeout=deadline.left()):
            raise deadline.error()
        try:
            return self._channel.next_event(deadline)
        finally:
            self._turn.release()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        try:
            return self.get()
        except ClosedError:
            if self._done or self._node.closed:
                raise StopIteration from None
            raise

    def close(self) -> None:
        """End it; a wait in another thread ends. Safe to call twice."""
        if not self._done:
            self._done = True
            self._channel.wake()
            self._channel.close()

    def __del__(self) -> None:
        if not self._done:
            _sockets.left_open(self, self.close)

    def __repr__(self) -> str:
        return _sockets.described(self, f"of {self._node.id!r}", closed=self._done)

    def _abandon_after_fork(self) -> None:
        self._done = True
        self._channel.close()
