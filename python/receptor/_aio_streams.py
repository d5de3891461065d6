"""What an asyncio node hands out: streams, listeners, servers, datagram sockets, events."""

import asyncio
import functools
import inspect
import socket
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, SupportsIndex, TypeAlias

from . import _ops, _process, _sockets
from ._aio_session import Pollable, within
from ._closing import AsyncClosable
from ._payload import Buffer
from ._proxies import AnyProxy
from ._session import Descriptor, Op, Reply, Session
from .errors import ClosedError, MeshTimeout, ProtocolError, ReceptorError, StreamResetError
from .types import Address, DatagramStatus, Event, StreamStatus

if TYPE_CHECKING:
    from .aio import Node

_ACCEPT_BYTES = 64 << 10
_READ_BYTES = 64 << 10
_CALLS_AT_ONCE = 16  # Of one datagram socket, before the other tasks of the loop have their turn.
LIMIT_BYTES = 64 << 10  # Of a reader's buffer, as asyncio has it.


class MeshSocket(_sockets.StreamSocket):
    """A mesh stream as a non-blocking socket, for everything that takes one.

    Beyond a socket: ``peer``, ``local``, :meth:`status`, :meth:`abort`, :meth:`streams`. Where the stream was broken
    off, the streams raise StreamResetError. The socket itself gives ConnectionResetError if the node is in this
    process; else, and after ``shutdown(SHUT_WR)``, it gives an end of file, and :meth:`status` tells.
    """

    def __init__(self, descriptor: Descriptor, stream: int, peer: Address, local: Address, node: "Node") -> None:
        super().__init__(descriptor, stream, peer, local)
        self.setblocking(False)
        self._node = node

    async def status(self) -> StreamStatus:
        """How the stream stands."""
        return await self._node._run(_ops.stream_status(self.stream, self._node.timeout_s))

    async def abort(self, error_code: int = 0) -> None:
        """Break the stream off in both directions and close the socket.

        error_code: a number of the caller's own for the reason, which the far side's StreamResetError carries.
        """
        try:
            await self._node._run(_ops.stream_abort(self.stream, error_code, self._node.timeout_s))
        finally:
            if self.fileno() >= 0:
                (self if self._transport is None else self._transport).close()

    async def streams(self, *, limit: int = LIMIT_BYTES) -> tuple["MeshReader", "MeshWriter"]:
        """Hand the socket over to a pair of asyncio streams, which close it. Raises RuntimeError if it was before."""
        if self._handed_over:
            raise RuntimeError(f"{self!r} has its pair of streams already")
        self._handed_over = True
        try:
            return await self._streams(limit)
        except BaseException:
            self.close()
            raise

    async def _streams(self, limit: int) -> tuple["MeshReader", "MeshWriter"]:
        loop = asyncio.get_running_loop()
        reader = MeshReader(limit=limit, loop=loop)
        protocol = StreamProtocol(reader, self)
        transport, _ = await loop.create_unix_connection(lambda: protocol, sock=self)
        self._transport = transport
        writer = MeshWriter(transport, protocol, reader, self)
        protocol.writer = weakref.ref(writer)
        return reader, writer

    async def _reset(self) -> StreamResetError | None:
        """What to raise at an end of file; None if it is one in good order."""
        try:
            return self._broken(await self.status())
        except ReceptorError as error:
            return self._lost(error)

    _handed_over = False
    _transport: asyncio.BaseTransport | None = None
    _accepted = False  # By a listener here: this side is the server of a TLS handshake.


class MeshReader(asyncio.StreamReader):
    """A ``StreamReader`` whose end of file is one in good order; a stream that was broken off raises StreamResetError.

    What arrived before the reset can be read first.
    """

    _broken: StreamResetError | None = None
    _held = 0  # Bytes in asyncio's buffer; more than there are after a line that was too long.
    _ended = False
    _reading = False
    _waiting: "asyncio.Future[bytes] | None" = None  # A read that gets what arrives whole, not by way of the buffer,
    _wanted = 0  # if it is no more than this.
    _behind: list[Callable[[], None]] | None = None  # What came before that read has gone on.

    def feed_data(self, data: Iterable[SupportsIndex]) -> None:
        """As ``StreamReader.feed_data``."""
        if self._behind is not None:
            self._behind.append(lambda: self._keep(data))
        elif self._waiting is None:
            self._keep(data)
        elif isinstance(data, bytes) and len(data) <= self._wanted:
            self._go_on(data)
        else:
            self._keep(data)
            self._go_on()

    def feed_eof(self) -> None:
        """As ``StreamReader.feed_eof``."""
        if self._behind is not None:
            self._behind.append(self.feed_eof)
            return
        self._ended = True
        super().feed_eof()
        self._go_on()

    def set_exception(self, exc: BaseException) -> None:
        """As asyncio has it, but for resets, which wait until the buffer is empty."""
        if isinstance(exc, StreamResetError):
            self._broken = exc
            self.feed_eof()
            return
        super().set_exception(exc)  # type: ignore[arg-type]  # typeshed says Exception
        if self._behind is None:
            self._go_on()

    def exception(self) -> Exception | None:
        """What the writer's ``drain`` raises."""
        return self._broken or super().exception()

    async def read(self, n: int = -1) -> bytes:
        """As ``StreamReader.read``."""
        if n <= 0:
            return await super().read(n)  # All there is, in reads of a size.
        self._begin("read")
        try:
            if not self._held and not self._ended and super().exception() is None and (data := await self._next(n)):
                return data
            data = await super().read(n)
        finally:
            self._reading = False
        self._held = self._held - n if len(data) == n else 0
        if not data:
            self._raise_reset()
        return data

    async def readexactly(self, n: int) -> bytes:
        """As ``StreamReader.readexactly``."""
        self._begin("readexactly")
        try:
            data = await super().readexactly(n)
        except asyncio.IncompleteReadError:
            self._held = 0
            self._raise_reset()
            raise
        finally:
            self._reading = False
        self._held -= n
        return data

    async def readuntil(self, separator: Any = b"\n") -> bytes:  # Any: bytes, and a tuple of them from 3.13 on
        """As ``StreamReader.readuntil``."""
        self._begin("readuntil")
        try:
            data: bytes = await super().readuntil(separator)
        except asyncio.IncompleteReadError:
            self._held = 0
            self._raise_reset()
            raise
        finally:
            self._reading = False
        self._held -= len(data)
        return data

    def _keep(self, data: Iterable[SupportsIndex]) -> None:
        super().feed_data(data)
        self._held += len(data)  # type: ignore[arg-type]  # typeshed says Iterable

    def _begin(self, name: str) -> None:
        if self._reading:
            raise RuntimeError(f"{name}() called while another coroutine is already waiting for incoming data")
        self._reading = True

    async def _next(self, wanted: int) -> bytes:
        """What arrives next, if it is no more than ``wanted``; else nothing, and it is in the buffer."""
        waiting: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting, self._wanted = waiting, wanted
        try:
            return await waiting
        except BaseException:
            if waiting.done() and not waiting.cancelled() and (lost := waiting.result()):
                self._keep(lost)  # For the next read: this one is cancelled.
            raise
        finally:
            self._waiting = None
            behind, self._behind = self._behind, None
            for arrival in behind or ():
                arrival()

    def _go_on(self, data: bytes = b"") -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(data)
            self._behind = []

    def _raise_reset(self) -> None:
        if self._broken is not None:
            raise self._broken


class MeshWriter(asyncio.StreamWriter):
    """A ``StreamWriter`` that knows its mesh stream: see :meth:`get_extra_info`."""

    def __init__(
        self, transport: asyncio.WriteTransport, protocol: "StreamProtocol", reader: MeshReader, sock: MeshSocket
    ) -> None:
        super().__init__(transport, protocol, reader, asyncio.get_running_loop())
        self._extra = {"mesh_peer": sock.peer, "mesh_local": sock.local, "mesh_socket": sock}
        self._ends = f"{sock.local} to {sock.peer}"
        self._finished = False

    def __repr__(self) -> str:
        return f"<{type(self).__qualname__} {self._ends}{' closing' if self.is_closing() else ''}>"

    def write(self, data: Buffer) -> None:
        """As ``StreamWriter.write``."""
        # What does not fit into the socket is cut off, which copies bytes (Python 3.11), and then kept.
        super().write(memoryview(data) if isinstance(data, bytes) else data)

    def write_eof(self) -> None:
        """As ``StreamWriter.write_eof``."""
        super().write_eof()
        self._finished = True

    @property
    def finished(self) -> bool:
        """The program has said that there is no more to write: it has ended its half, or closed the stream."""
        return self._finished or self.is_closing()

    def get_extra_info(self, name: str, default: Any = None) -> Any:  # Any: as asyncio has it
        """As ``StreamWriter.get_extra_info``; "mesh_peer", "mesh_local": Address; "mesh_socket": MeshSocket."""
        return self._extra[name] if name in self._extra else super().get_extra_info(name, default)


class StreamProtocol(asyncio.StreamReaderProtocol):
    """Asks, where a socket ends, whether the stream ended in good order, before the reader hears of it.

    ended: done when the socket is closed here, or about to be.
    """

    def __init__(self, reader: MeshReader, sock: MeshSocket) -> None:
        # Who has a callback for connections is a server, and takes its side of ``StreamWriter.start_tls``.
        super().__init__(reader, self._keep if sock._accepted else None, loop=asyncio.get_running_loop())
        self._reader = reader
        self._sock = sock
        self._kept: asyncio.StreamWriter | None = None
        self._asking = False  # Whether the end of file was one in good order.
        self._lost = False  # The connection, while that was asked.
        self.writer: weakref.ref[MeshWriter] | None = None
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        sock._node._protocols.add(self)
        self.ended.add_done_callback(lambda _: sock._node._protocols.discard(self))

    def _keep(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._kept = writer  # One that nobody has closes the socket.

    @property
    def closing(self) -> bool:
        """The program has closed the stream, and the socket will be once all is written."""
        writer = self.writer() if self.writer is not None else None
        transport = self._sock._transport
        return not self.ended.done() and (
            writer.is_closing() if writer is not None else transport is not None and transport.is_closing()
        )

    def eof_received(self) -> bool:
        self._asking = True
        self._ask(self._at_end())
        transport = self._sock._transport
        return transport is None or transport.get_protocol() is self  # The other half stays open, but under TLS.

    def connection_lost(self, exc: Exception | None) -> None:
        self._kept = None
        if not self.ended.done():
            self.ended.set_result(None)
        if isinstance(exc, (BrokenPipeError, ConnectionResetError)):
            self._ask(self._at_loss(exc))
        elif exc is None and self._asking:
            self._lost = True  # Which says nothing of the end of file: TLS closes behind every one.
        else:
            super().connection_lost(exc)

    def _ask(self, coroutine: Coroutine[Any, Any, None]) -> None:  # Any: what coroutines say to their loop
        try:
            self._sock._node._spawn(coroutine)
        except ReceptorError as error:
            coroutine.close()
            self._asking = False
            self._reader.set_exception(StreamResetError(f"stream to {self._sock.peer}: {error}"))
            super().connection_lost(None)

    async def _at_end(self) -> None:
        error = await self._reset()
        if error is not None:
            self._reader.set_exception(error)
        else:
            self._reader.feed_eof()
        self._asking = False
        if self._lost:
            super().connection_lost(error)

    async def _at_loss(self, exc: Exception) -> None:
        super().connection_lost(await self._reset() or exc)

    async def _reset(self) -> StreamResetError | None:
        try:
            return await self._sock._reset()
        except asyncio.CancelledError:  # The node closes.
            return self._sock._lost(self._sock._node._host.closed())


class _Service(Pollable):
    """What has a service name here and a socket of its own."""

    _kind = ""

    def __init__(self, descriptor: Descriptor, service: str, node: "Node") -> None:
        super().__init__(_sockets.socket_of(descriptor, socket.SOCK_SEQPACKET))
        self._node = node
        self.service = service

    @property
    def address(self) -> Address:
        """Where others reach it."""
        return Address(self._node.id, self.service)

    def __del__(self) -> None:
        if self.fileno() >= 0:
            _sockets.left_open(self, self._sock.close)

    def __repr__(self) -> str:
        return _sockets.described(self, self.address, closed=self.fileno() < 0)

    async def _closed_error(self) -> ClosedError:
        return await self._node._loss(f"{self._kind} {self.service!r}", self.fileno() < 0)


class Listener(_Service):
    """Streams that others open to a service here.

    ::

        async with node.listen("echo") as listener:
            async for sock in listener:
                group.create_task(serve(sock))
    """

    _kind = "listener"

    def __init__(self, descriptor: Descriptor, service: str, node: "Node") -> None:
        super().__init__(descriptor, service, node)
        self._arrivals = _sockets.Arrivals()

    def close(self) -> None:
        """Stop listening; tasks that wait get ClosedError, iterations end, streams that wait are reset.

        Safe to call twice.
        """
        super().close()
        self._arrivals.close()

    async def accept(self, *, timeout_s: float | None = None) -> MeshSocket:
        """The next stream. Raises MeshTimeout, or ClosedError once the listener is closed."""
        _process.check(self._pid)
        try:
            return await within(timeout_s, f"accept on {self.service!r}", self._accept())
        except MeshTimeout:
            raise
        except OSError as error:
            raise await self._closed_error() from error

    async def _accept(self) -> MeshSocket:
        stream, peer, descriptor = await self._arrived()
        try:
            await self._send(_sockets.confirmation(stream))
        except BaseException:
            descriptor.close()
            raise
        sock = MeshSocket(descriptor, stream, peer, self.address, self._node)
        sock._accepted = True
        return sock

    async def _arrived(self) -> tuple[int, Address, Descriptor]:
        while True:
            try:
                data, descriptors = await self.receive(_ACCEPT_BYTES)
            except ProtocolError:
                self._arrivals.lose()
                raise
            if not data:
                raise await self._closed_error()
            arrived = self._arrivals.take(data, descriptors)
            if arrived is None:
                continue
            stream, peer, descriptor = arrived
            if descriptor is not None:
                return stream, peer, descriptor
            await self._send(_sockets.refusal(stream))

    async def __aiter__(self) -> AsyncIterator[MeshSocket]:
        """Streams as they come, until the listener or the node is closed; ClosedError if the node ends by itself."""
        while True:
            try:
                sock = await self.accept()
            except ClosedError:
                if self.fileno() < 0 or self._node.closed:
                    return
                raise
            yield sock


Handler: TypeAlias = Callable[[MeshReader, MeshWriter], Awaitable[None]]


class Server:
    """A service whose streams are handled each in a task; see :meth:`Node.start_server`.

    Leaving ``async with server`` stops listening, cancels the handlers and waits for them. A stream whose handler had
    not said that it was done, by ``writer.close()`` or ``writer.write_eof()``, is reset.
    """

    def __init__(self, listener: Listener, handler: Handler, limit: int) -> None:
        self._listener = listener
        self._handler = handler
        self._limit = limit
        self._node = listener._node
        self._handlers: set[asyncio.Task[None]] = set()
        self._lost: ClosedError | None = None  # With its node, which ended by itself.
        self._accepting = self._node._spawn(self._accept())

    @property
    def address(self) -> Address:
        """Where others reach it."""
        return self._listener.address

    def close(self) -> None:
        """Stop listening; streams that are being handled go on. Safe to call twice."""
        self._listener.close()

    def __repr__(self) -> str:
        return _sockets.described(self, self.address, closed=self._listener.fileno() < 0)

    async def wait_closed(self) -> None:
        """Wait until it has stopped listening and all handlers have ended."""
        await asyncio.wait([self._accepting])
        while self._handlers:
            await asyncio.wait(list(self._handlers))

    async def serve_forever(self) -> None:
        """Wait until it is closed; cancelling this closes it. Raises ClosedError if the node ends by itself."""
        try:
            await asyncio.shield(self._accepting)
        finally:
            self.close()
        if self._lost is not None:
            raise self._lost

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        for task in self._handlers:
            task.cancel()
        await self.wait_closed()

    async def _accept(self) -> None:
        try:
            while True:
                try:
                    sock = await self._listener.accept()
                except ClosedError as error:
                    if self._listener.fileno() >= 0 and not self._node.closed:
                        self._lost = error
                    return
                except ProtocolError as error:  # One stream was lost, at the limit on open files.
                    self._report(f"service {self._listener.service!r}", error)
                    continue
                task = self._node._spawn(self._handle(sock))
                self._handlers.add(task)
                task.add_done_callback(functools.partial(self._handled, sock))
        finally:
            self._listener.close()

    def _handled(self, sock: MeshSocket, task: asyncio.Task[None]) -> None:
        self._handlers.discard(task)
        if sock._transport is not None:
            return
        try:  # It was cancelled before it began.
            ending = self._node._spawn(self._break_off(sock))
        except ClosedError:
            sock.close()
        else:
            self._handlers.add(ending)
            ending.add_done_callback(self._handlers.discard)

    def _report(self, what: str, error: Exception) -> None:
        loop = asyncio.get_running_loop()
        loop.call_exception_handler({"message": f"{what} failed", "exception": error})

    async def _handle(self, sock: MeshSocket) -> None:
        loop = asyncio.get_running_loop()
        writer: MeshWriter | None = None
        try:
            reader, writer = await sock._streams(self._limit)
            handling = self._handler(reader, writer)
            if not inspect.isawaitable(handling):
                raise TypeError(f"{self._handler!r} returned {handling!r}: want async def handler(reader, writer)")
            await handling
        except GeneratorExit:  # Its loop has ended.
            raise
        except asyncio.CancelledError:
            if writer is None or not writer.finished:
                await self._break_off(sock)
            raise
        except BaseException as error:
            if isinstance(error, Exception):
                self._tell(error)
            await self._break_off(sock)
            if not isinstance(error, Exception):
                raise
        finally:
            if writer is not None and not loop.is_closed():  # It is where a program has ended without closing its node.
                writer.close()

    def _tell(self, error: Exception) -> None:
        if not (self._node.closed and isinstance(error, (OSError, ClosedError))):  # What ended with it is no news.
            self._report(f"handler of service {self._listener.service!r}", error)

    async def _break_off(self, sock: MeshSocket) -> None:
        """Reset a stream: what its handler did not finish has no end of file."""
        try:
            with suppress(ReceptorError):  # It ended before.
                await sock.abort()
        finally:
            if isinstance(sock._transport, asyncio.WriteTransport):
                sock._transport.abort()


class DatagramSocket(_Service):
    """Datagrams between services. They may get lost, doubled and reordered, as everywhere.

    ::

        async with node.datagram() as sock:
            await sock.send_to(b"hi", ("db-1", "logs"))
            data, sender = await sock.recv_from(timeout_s=5)
    """

    _kind = "datagram socket"

    def __init__(self, descriptor: Descriptor, service: str, number: int, node: "Node") -> None:
        super().__init__(descriptor, service, node)
        self._number = number
        self._calls = 0

    async def status(self) -> DatagramStatus:
        """How many datagrams it has carried, and how many came in vain while nobody read."""
        return await self._node._run(_ops.datagram_status(self._number, self._node.timeout_s))

    async def send_to(self, data: Buffer, address: tuple[str, str], *, timeout_s: float | None = None) -> None:
        """Send one datagram to ``address``, (node, service). Waits while the node's queue is full.

        data: up to 65,499 bytes; more is refused by the node, if not at once.
        Raises PayloadTooLarge or MeshTimeout. What became of it later is told, where it is, by :meth:`recv_from`.
        """
        message = _sockets.pack_datagram(data, address)
        await self._turn()
        try:
            _process.check(self._pid)
            self._sock.send(message)
        except BlockingIOError:
            await self._send_later(message, len(data), timeout_s)
        except OSError as error:
            raise _sockets.send_error(error, len(data)) or await self._closed_error() from error

    async def _turn(self) -> None:
        """Let other tasks have theirs now and then: a call that need not wait does not go through the loop."""
        self._calls += 1
        if self._calls % _CALLS_AT_ONCE == 0:
            await asyncio.sleep(0)

    async def _send_later(self, message: bytes, size: int, timeout_s: float | None) -> None:
        try:
            await within(timeout_s, "send_to", self._send(message))
        except MeshTimeout:
            raise
        except OSError as error:
            raise _sockets.send_error(error, size) or await self._closed_error() from error

    async def recv_from(self, *, timeout_s: float | None = None) -> tuple[bytes, Address]:
        """The next datagram and its sender.

        Raises Unreachable for a notice that a datagram sent earlier did not arrive, PayloadTooLarge for one that the
        node refused, MeshTimeout, or ClosedError. The socket goes on working after the first three.
        """
        await self._turn()
        try:
            _process.check(self._pid)
            message = self._sock.recv(_sockets.DATAGRAM_READ_BYTES)
        except BlockingIOError:
            message = await self._recv_later(timeout_s)
        except OSError as error:
            raise await self._closed_error() from error
        if not message:
            raise await self._closed_error()
        return _sockets.unpack_datagram(message)

    async def _recv_later(self, timeout_s: float | None) -> bytes:
        try:
            message, _ = await within(timeout_s, "recv_from", self.receive(_sockets.DATAGRAM_READ_BYTES))
            return message
        except MeshTimeout:
            raise
        except OSError as error:
            raise await self._closed_error() from error


class Proxy(AnyProxy["Node"]):
    __doc__ = AnyProxy.__doc__

    async def close(self) -> None:
        """End it and its connections. Safe to call twice."""
        if not self._done and not self._node.closed:
            with self._ending():
                await self._node._run(_ops.remove_proxy(self._number, self._node.timeout_s))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class EventStream(_process.Local, AsyncClosable):
    """Events of a node, as they happen, for one task; see :meth:`Node.events`.

    ::

        async with node.events("peer") as events:
            async for event in events:
                print(event)
    """

    def __init__(self, node: "Node", op: Op[None]) -> None:
        self._node = node
        self._op = op
        self._session = Session()
        self._events: list[Event] = []
        self._poll: Pollable | None = None
        self._subscribing = asyncio.Lock()
        self._done = False

    async def get(self, *, timeout_s: float | None = None) -> Event:
        """The next event. Raises MeshTimeout, or ClosedError once the stream or the node is closed."""
        _process.check(self._node._pid)
        if self._poll is None or self._subscribing.locked():
            await self._subscribe()
        while not self._events:
            self._take(await within(timeout_s, "events", self._receive()))
        return self._events.pop(0)

    def close(self) -> None:
        """End it; a task that waits in it gets ClosedError. Safe to call twice."""
        self._done = True
        if self._poll is not None:
            self._poll.close()
        self._session.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        try:
            return await self.get()
        except ClosedError:
            if self._done or self._node.closed:
                raise StopAsyncIteration from None
            raise

    async def __aenter__(self) -> Self:
        await self._subscribe()
        return self

    def __del__(self) -> None:
        if self._poll is not None:
            self._poll.close()

    def __repr__(self) -> str:
        return _sockets.described(self, f"of {self._node.id!r}", closed=self._done)

    def _closed(self) -> ClosedError:
        return _ops.closed(f"event stream of node {self._node.id!r}", None)

    async def _subscribe(self) -> None:
        async with self._subscribing:
            if self._done:
                raise self._closed()
            if self._poll is not None:
                return
            descriptor, _ = await self._node._run_descriptor(_ops.new_session(self._node.timeout_s))
            poll = Pollable(_sockets.socket_of(descriptor, socket.SOCK_STREAM))
            self._session = Session(self._node._host)  # Each begins anew.
            try:
                request_id, frame = self._session.request(self._op.name, self._op.keys)
                await poll._send(frame)
                self._poll = poll
                await within(self._op.timeout_s, self._op.name, self._reply(request_id))
            except BaseException as error:
                poll.close()
                self._poll = None
                if type(error) in (BrokenPipeError, ConnectionResetError):
                    raise self._node._host.gone() from error
                raise

    async def _reply(self, request_id: int) -> None:
        while True:
            for reply in self._take(await self._receive()):
                if reply.id == request_id:
                    reply.result()
                    return

    async def _receive(self) -> list[Reply | Event]:
        assert self._poll is not None
        try:
            data, descriptors = await self._poll.receive(_READ_BYTES)
        except OSError:
            data, descriptors = b"", []
        if not data:
            raise self._closed() if self._done else self._session.eof()
        return self._session.receive(data, descriptors)

    def _take(self, items: list[Reply | Event]) -> list[Reply]:
        self._events += [item for item in items if not isinstance(item, Reply)]
        return [item for item in items if isinstance(item, Reply)]
