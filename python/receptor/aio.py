"""A node inside this process, for asyncio.

::

    import receptor

    async with receptor.aio.Node("web-1", peers=["tcp://hub:2222"]) as node:
        await node.wait_route("db-1", timeout_s=10)
        reader, writer = await node.open_connection("db-1", "echo")
        writer.write(b"hello")
        print(await reader.read(100))

Everything of :class:`receptor.Node` is here under the same name, to be awaited. All tasks share one session, over
which their requests are under way together; the loop's thread never waits for the node. Cancelling a task cancels what
it asked for in the node too, and closes what arrives all the same. A node belongs to the event loop it was started in.
"""

import asyncio
import os
import socket
import warnings
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterable, Mapping
from types import TracebackType
from typing import Any, Self, TypeAlias, TypeVar

from . import _library, _ops, _process, _sockets
from ._aio_session import AsyncSession, Opening, Pollable, within
from ._channel import Channel
from ._payload import AsyncPayload, Buffer, Payload, checked, chunks
from ._session import Descriptor, Op, Reply, Session
from .errors import ClosedError, ConfigError, MeshTimeout, ReceptorError, StreamResetError, UnitNotFound
from .types import (
    Address,
    BackendID,
    BoundListener,
    Event,
    EventKind,
    Hop,
    LinkListener,
    LogLevel,
    LogRecord,
    Peer,
    PingResult,
    Route,
    Status,
    StreamState,
    StreamStatus,
    UnitStatus,
    WorkCommand,
    WorkResult,
)

__all__ = [
    "DatagramSocket",
    "EventStream",
    "Listener",
    "MeshReader",
    "MeshSocket",
    "MeshWriter",
    "Node",
    "Output",
    "Server",
    "Unit",
    "Work",
]

_ACCEPT_BYTES = 64 << 10
_READ_BYTES = 64 << 10
_CLEANUP_S = 5.0  # What a cancelled submit may take to take its unit back.
_LIMIT_BYTES = 64 << 10  # Of a reader's buffer, as asyncio has it.
T = TypeVar("T")


class Node:
    """A node of the mesh, running from ``async with`` (or ``await Node(...)``) until its end (or :meth:`close`).

    The arguments are those of :class:`receptor.Node`, and so are the errors, raised when it starts.
    """

    def __init__(
        self,
        id: str | None = None,
        *,
        peers: Iterable[str | Peer] = (),
        listeners: Iterable[str | LinkListener] = (),
        config: str | os.PathLike[str] | None = None,
        data_dir: str | os.PathLike[str] | None = None,
        work_commands: Iterable[WorkCommand] = (),
        environ: Mapping[str, str] | None = None,
        max_idle_s: float | None = None,
        log_level: LogLevel | None = None,
        timeout_s: float | None = 30.0,
    ) -> None:
        self._pid = os.getpid()
        self._id = id or ""
        self._version = ""
        self._mode = ""
        self._environ = os.environ if environ is None else environ
        self._log_level = log_level
        self._session: AsyncSession | None = None
        self._closed = False
        self._tasks: set[asyncio.Task[Any]] = set()  # Any: their results are not used
        self.timeout_s = timeout_s
        commands = list(work_commands)

        def op() -> Op[dict[str, Any]]:
            return _ops.open_node(
                id,
                peers=peers,
                listeners=listeners,
                config=config,
                data_dir=data_dir,
                work_commands=commands,
                environ=self._environ,
                max_idle_s=max_idle_s,
                log_level=log_level,
                timeout_s=timeout_s,
            )

        self._op = op
        self._looks_for_daemon = bool(commands) or config is not None

    async def start(self) -> Self:
        """Start it; ``async with`` and ``await`` do that. Without effect on one that runs."""
        self._check(started=False)
        if self._session is not None:
            return self
        op = await asyncio.to_thread(self._op) if self._looks_for_daemon else self._op()
        session = AsyncSession(_library.open_session(self._environ))
        try:
            opened = op.decode((await session.call(op)).result())
            self._id = str(opened.get("node", self._id))
            self._version = str(opened.get("version", ""))
            self._mode = session.session.hello.mode if session.session.hello else ""
            if self._log_level is not None:
                session.on_event = _log_forwarder(self._id)
                (await session.call(_ops.events(("log",), self.timeout_s))).result()
        except BaseException:
            session.close()
            raise
        self._session = session
        _process.track_node(self)
        return self

    # What it is.

    @property
    def id(self) -> str:
        """Its name in the mesh."""
        return self._id

    @property
    def version(self) -> str:
        """Version of the node's code, once started."""
        return self._version

    @property
    def mode(self) -> str:
        """Where the node runs, once started: "in-process"."""
        return self._mode

    @property
    def closed(self) -> bool:
        """It was closed by :meth:`close`."""
        return self._closed

    @property
    def work(self) -> "Work":
        """Units of work: submit them, look at them, end them."""
        return Work(self)

    # The mesh.

    async def status(self) -> Status:
        """What the node knows of itself and of the mesh now."""
        return await self._run(_ops.status(self.timeout_s))

    async def ping(self, node: str, *, hops: int = 30, timeout_s: float | None = 10.0) -> PingResult:
        """Measure the way to ``node`` and back. Raises Unreachable or MeshTimeout.

        hops: how many nodes the probe may pass, 1 to 255.
        """
        return await self._run(_ops.ping(node, hops, timeout_s))

    async def traceroute(self, node: str, *, timeout_s: float | None = 10.0) -> AsyncIterator[Hop]:
        """The nodes on the way to ``node``, for ``async for``; a last hop with an error did not get there.

        timeout_s: seconds to wait for each hop.
        """
        hops = await self._run(_ops.traceroute(node, timeout_s))
        for hop in hops:
            yield hop

    async def wait_route(self, node: str, *, timeout_s: float | None = None) -> Route:
        """Wait until ``node`` is reachable. Raises MeshTimeout."""
        return await self._run(_ops.wait_route(node, timeout_s))

    async def add_peer(
        self,
        address: str | Peer,
        *,
        cost: float = 1.0,
        redial: bool = True,
        allowed_peers: Iterable[str] | None = None,
    ) -> BackendID:
        """Dial one more neighbour from now on, and return what :meth:`remove` takes. Does not wait for the link."""
        if isinstance(address, str):
            address = Peer(address, cost, redial, None if allowed_peers is None else list(allowed_peers))
        return await self._run(_ops.add_peer(address, self.timeout_s))

    async def add_listener(
        self,
        address: str | LinkListener = "tcp://127.0.0.1:0",
        *,
        cost: float = 1.0,
        node_cost: Mapping[str, float] | None = None,
        allowed_peers: Iterable[str] | None = None,
    ) -> BoundListener:
        """Let neighbours dial in at ``address``; port 0 takes a free one. Raises AddressInUse."""
        if isinstance(address, str):
            allowed = None if allowed_peers is None else list(allowed_peers)
            address = LinkListener(address, cost, dict(node_cost or {}), allowed)
        return await self._run(_ops.add_listener(address, self.timeout_s))

    async def remove(self, backend: BackendID | BoundListener) -> None:
        """End a dialer or a listener and the links it made."""
        await self._run(_ops.remove(backend, self.timeout_s))

    # Streams, datagrams, events.

    async def open_socket(self, node: str, service: str, *, timeout_s: float | None = 30.0) -> "MeshSocket":
        """Open a stream to ``service`` on ``node`` as a non-blocking socket, for ``loop.sock_recv``, trio or ssl.

        Raises Unreachable or MeshTimeout.
        """
        descriptor, (stream, local) = await self._run_descriptor(_ops.connect(node, service, timeout_s))
        return MeshSocket(descriptor, stream, Address(node, service), local, self)

    async def open_connection(
        self, node: str, service: str, *, timeout_s: float | None = 30.0, limit: int = _LIMIT_BYTES
    ) -> tuple["MeshReader", "MeshWriter"]:
        """Open a stream to ``service`` on ``node`` as a pair of asyncio streams.

        ``writer.get_extra_info`` knows "mesh_peer" and "mesh_local" (addresses) and "mesh_socket". Raises Unreachable
        or MeshTimeout.
        """
        sock = await self.open_socket(node, service, timeout_s=timeout_s)
        return await sock.streams(limit=limit)

    def listen(
        self,
        service: str = "",
        *,
        advertise: bool = True,
        tags: Mapping[str, str] | None = None,
        backlog: int = 64,
    ) -> Opening["Listener"]:
        """Take streams that others open to ``service`` here; an empty name takes a free one. Raises AddressInUse.

        To be awaited, or entered with ``async with``.
        advertise: tell the mesh of the service, with ``tags``. It can be reached in any case.
        backlog: how many streams may wait to be accepted; more are refused.
        """
        return Opening(self._listen(_ops.listen(service, advertise, tags, backlog, self.timeout_s)))

    async def start_server(
        self,
        handler: "Handler",
        service: str = "",
        *,
        advertise: bool = True,
        tags: Mapping[str, str] | None = None,
        backlog: int = 64,
        limit: int = _LIMIT_BYTES,
    ) -> "Server":
        """Serve ``service``: ``handler(reader, writer)`` runs in a task of its own for each stream.

        As ``asyncio.start_server``, but the writer is closed when the handler ends. Raises AddressInUse.
        """
        listener = await self._listen(_ops.listen(service, advertise, tags, backlog, self.timeout_s))
        return Server(listener, handler, limit)

    def datagram(
        self, service: str | None = None, *, advertise: bool = False, tags: Mapping[str, str] | None = None
    ) -> Opening["DatagramSocket"]:
        """A socket for datagrams at ``service`` here; None takes a free name. Raises AddressInUse.

        To be awaited, or entered with ``async with``.
        """
        return Opening(self._datagram(_ops.datagram(service, advertise, tags, self.timeout_s)))

    def events(self, *kinds: EventKind) -> "EventStream":
        """What happens, for ``async for``; no kinds means all but log records.

        Events come from the first ``async for`` on, or from the entry of ``async with node.events() as events``. The
        node never waits for a slow reader: what it could not keep is counted by an EventsLost in its place.
        """
        return EventStream(self, _ops.events(kinds, self.timeout_s))

    # The end.

    async def close(self, timeout_s: float = 5.0) -> None:
        """Stop the node: its streams end, units of work go on. Waits until it has stopped, for at most ``timeout_s``.

        Whoever waits for an answer gets ClosedError. Safe to call twice, and without effect in a forked child.
        """
        if self._closed or os.getpid() != self._pid:
            return
        self._closed = True
        if self._session is None:
            return
        try:
            await self._session.call(_ops.close(timeout_s))
        except (ClosedError, MeshTimeout):
            pass  # It ended by itself, or it ends with its session, now.
        finally:
            self._session.close()
            await self._end_tasks()

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __await__(self) -> Generator[Any, Any, Self]:  # Any: what coroutines say to their loop
        return self.start().__await__()

    def __del__(self) -> None:
        session = getattr(self, "_session", None)
        if session is None or self._closed or os.getpid() != self._pid:
            return
        warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=1)
        if session.loop.is_closed():
            session.close()
        else:
            session.loop.call_soon_threadsafe(session.close)

    def __repr__(self) -> str:
        return f"<{type(self).__module__}.{type(self).__qualname__} {self._id!r}{' closed' if self._closed else ''}>"

    # Sessions and tasks.

    def _check(self, *, started: bool = True) -> None:
        _process.check(self._pid)
        if self._closed:
            raise ClosedError(f"node {self._id!r} is closed")
        if started and self._session is None:
            raise ClosedError(f'node {self._id!r} is not started: use "async with", or await it')

    def _open_session(self) -> AsyncSession:
        self._check()
        assert self._session is not None
        return self._session

    async def _run(self, op: Op[T]) -> T:
        return op.decode((await self._open_session().call(op)).result())

    async def _run_descriptor(self, op: Op[T]) -> tuple[Descriptor, T]:
        reply = await self._open_session().call(op)
        return reply.descriptor(), op.decode(reply.ok)

    async def _listen(self, op: Op[str]) -> "Listener":
        descriptor, name = await self._run_descriptor(op)
        return Listener(descriptor, name, self)

    async def _datagram(self, op: Op[str]) -> "DatagramSocket":
        descriptor, name = await self._run_descriptor(op)
        return DatagramSocket(descriptor, name, self)

    def _spawn(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:  # Any: as above
        """Run a task that ends with the node at the latest."""
        task = self._open_session().loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _end_tasks(self) -> None:
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _close_at_exit(self, timeout_s: float) -> None:
        if self._closed or self._session is None:
            return
        self._closed = True
        sock = self._session.sock
        if sock.fileno() >= 0:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, fileno=sock.detach()) as blocking:
                Channel(blocking, self._session.session).call(_ops.close(timeout_s))

    def _abandon_after_fork(self) -> None:
        if self._session is not None:
            self._session.abandon_after_fork()


def _log_forwarder(node_id: str) -> Callable[[Event], None]:
    from ._logs import emit

    def forward(event: Event) -> None:
        if isinstance(event, LogRecord):
            emit(event, node_id)

    return forward


class MeshSocket(_sockets.StreamSocket):
    """A mesh stream as a non-blocking socket, for everything that takes one.

    Beyond a socket: ``peer``, ``local``, :meth:`status`, :meth:`abort`, :meth:`streams`. An end of file read from the
    socket itself may be a reset, which :meth:`status` tells; the streams raise it.
    """

    def __init__(self, descriptor: Descriptor, stream: int, peer: Address, local: Address, node: Node) -> None:
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
            if self.fileno() >= 0 and not _in_transport(self):
                self.close()

    async def streams(self, *, limit: int = _LIMIT_BYTES) -> tuple["MeshReader", "MeshWriter"]:
        """Hand the socket over to a pair of asyncio streams, which close it."""
        loop = asyncio.get_running_loop()
        reader = MeshReader(limit=limit, loop=loop)
        protocol = _Protocol(reader, self)
        try:
            transport, _ = await loop.create_unix_connection(lambda: protocol, sock=self)
        except BaseException:
            self.close()
            raise
        self._transport = transport
        return reader, MeshWriter(transport, protocol, reader, self)

    async def _reset(self) -> StreamResetError | None:
        """What to raise at an end of file; None if it is one in good order."""
        try:
            status = await self.status()
        except ReceptorError as error:
            reset = StreamResetError(f"stream to {self.peer}: {error}", node=self.peer.node)
            reset.__cause__ = error
            return reset
        if status.state is not StreamState.RESET:
            return None
        if isinstance(status.error, StreamResetError):
            return status.error
        return StreamResetError(f"stream to {self.peer} was reset", node=self.peer.node)

    _transport: asyncio.BaseTransport | None = None


def _in_transport(sock: MeshSocket) -> bool:
    if sock._transport is None:
        return False
    sock._transport.close()
    return True


class MeshReader(asyncio.StreamReader):
    """A ``StreamReader`` whose end of file is one in good order; a stream that was broken off raises StreamResetError.

    What arrived before the reset can be read first.
    """

    _broken: StreamResetError | None = None

    def set_exception(self, exc: BaseException) -> None:
        """As asyncio has it, but for resets, which wait until the buffer is empty."""
        if isinstance(exc, StreamResetError):
            self._broken = exc
            self.feed_eof()
        else:
            super().set_exception(exc)  # type: ignore[arg-type]  # typeshed says Exception

    def exception(self) -> Exception | None:
        """What the writer's ``drain`` raises."""
        return self._broken or super().exception()

    async def read(self, n: int = -1) -> bytes:
        """As ``StreamReader.read``."""
        data = await super().read(n)
        if not data and n != 0:
            self._raise_reset()
        return data

    async def readexactly(self, n: int) -> bytes:
        """As ``StreamReader.readexactly``."""
        try:
            return await super().readexactly(n)
        except asyncio.IncompleteReadError:
            self._raise_reset()
            raise

    async def readuntil(self, separator: Any = b"\n") -> bytes:  # Any: bytes, and a tuple of them from 3.13 on
        """As ``StreamReader.readuntil``."""
        try:
            return await super().readuntil(separator)
        except asyncio.IncompleteReadError:
            self._raise_reset()
            raise

    def _raise_reset(self) -> None:
        if self._broken is not None:
            raise self._broken


class MeshWriter(asyncio.StreamWriter):
    """A ``StreamWriter`` that knows its mesh stream: see :meth:`get_extra_info`."""

    def __init__(
        self, transport: asyncio.WriteTransport, protocol: "_Protocol", reader: MeshReader, sock: MeshSocket
    ) -> None:
        super().__init__(transport, protocol, reader, asyncio.get_running_loop())
        self._extra = {"mesh_peer": sock.peer, "mesh_local": sock.local, "mesh_socket": sock}

    def get_extra_info(self, name: str, default: Any = None) -> Any:  # Any: as asyncio has it
        """As ``StreamWriter.get_extra_info``; "mesh_peer", "mesh_local": Address; "mesh_socket": MeshSocket."""
        return self._extra[name] if name in self._extra else super().get_extra_info(name, default)


class _Protocol(asyncio.StreamReaderProtocol):
    """Asks, where a socket ends, whether the stream ended in good order, before the reader hears of it."""

    def __init__(self, reader: MeshReader, sock: MeshSocket) -> None:
        super().__init__(reader, loop=asyncio.get_running_loop())
        self._reader = reader
        self._sock = sock

    def eof_received(self) -> bool:
        self._ask(self._at_end())
        return True  # The other half stays open.

    def connection_lost(self, exc: Exception | None) -> None:
        if isinstance(exc, (BrokenPipeError, ConnectionResetError)):
            self._ask(self._at_loss(exc))
        else:
            super().connection_lost(exc)

    def _ask(self, coroutine: Coroutine[Any, Any, None]) -> None:  # Any: what coroutines say to their loop
        try:
            self._sock._node._spawn(coroutine)
        except ReceptorError as error:
            coroutine.close()
            self._reader.set_exception(StreamResetError(f"stream to {self._sock.peer}: {error}"))
            super().connection_lost(None)

    async def _at_end(self) -> None:
        error = await self._reset()
        if error is not None:
            self._reader.set_exception(error)
        else:
            self._reader.feed_eof()

    async def _at_loss(self, exc: Exception) -> None:
        super().connection_lost(await self._reset() or exc)

    async def _reset(self) -> StreamResetError | None:
        try:
            return await self._sock._reset()
        except asyncio.CancelledError:  # The node closes.
            return StreamResetError(f"stream to {self._sock.peer}: the node is closed")


class Listener(Pollable):
    """Streams that others open to a service here.

    ::

        async with node.listen("echo") as listener:
            async for sock in listener:
                group.create_task(serve(sock))
    """

    def __init__(self, descriptor: Descriptor, service: str, node: Node) -> None:
        super().__init__(_sockets.socket_of(descriptor, socket.SOCK_SEQPACKET))
        self._node = node
        self.service = service

    @property
    def address(self) -> Address:
        """Where others reach it."""
        return Address(self._node.id, self.service)

    async def accept(self, *, timeout_s: float | None = None) -> MeshSocket:
        """The next stream. Raises MeshTimeout, or ClosedError once the listener is closed."""
        try:
            data, descriptors = await within(
                timeout_s, f"accept on {self.service!r}", self.receive(_ACCEPT_BYTES)
            )
        except MeshTimeout:
            raise
        except OSError as error:
            raise ClosedError(f"listener {self.service!r} is closed") from error
        if not data:
            raise ClosedError(f"listener {self.service!r} is closed")
        stream, peer, descriptor = _ops.accepted(data, descriptors)
        return MeshSocket(descriptor, stream, peer, self.address, self._node)

    async def __aiter__(self) -> AsyncIterator[MeshSocket]:
        """Streams as they come, until the listener is closed."""
        while True:
            try:
                sock = await self.accept()
            except ClosedError:
                return
            yield sock


Handler: TypeAlias = Callable[[MeshReader, MeshWriter], Awaitable[None]]


class Server:
    """A service whose streams are handled each in a task; see :meth:`Node.start_server`.

    Leaving ``async with server`` stops listening, cancels the handlers and waits for them.
    """

    def __init__(self, listener: Listener, handler: Handler, limit: int) -> None:
        self._listener = listener
        self._handler = handler
        self._limit = limit
        self._node = listener._node
        self._handlers: set[asyncio.Task[None]] = set()
        self._accepting = self._node._spawn(self._accept())

    @property
    def address(self) -> Address:
        """Where others reach it."""
        return self._listener.address

    def close(self) -> None:
        """Stop listening; streams that are being handled go on. Safe to call twice."""
        self._listener.close()

    async def wait_closed(self) -> None:
        """Wait until it has stopped listening and all handlers have ended."""
        await asyncio.wait([self._accepting])
        while self._handlers:
            await asyncio.wait(list(self._handlers))

    async def serve_forever(self) -> None:
        """Wait until it is closed; cancelling this closes it."""
        try:
            await asyncio.shield(self._accepting)
        finally:
            self.close()

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
            async for sock in self._listener:
                task = self._node._spawn(self._handle(sock))
                self._handlers.add(task)
                task.add_done_callback(self._handlers.discard)
        finally:
            self._listener.close()

    async def _handle(self, sock: MeshSocket) -> None:
        reader, writer = await sock.streams(limit=self._limit)
        try:
            await self._handler(reader, writer)
        except Exception as error:
            asyncio.get_running_loop().call_exception_handler(
                {"message": f"handler of service {self._listener.service!r} failed", "exception": error}
            )
            writer.transport.abort()
        finally:
            writer.close()


class DatagramSocket(Pollable):
    """Datagrams between services. They may get lost, doubled and reordered, as everywhere.

    ::

        async with node.datagram() as sock:
            await sock.send_to(b"hi", ("db-1", "logs"))
            data, sender = await sock.recv_from(timeout_s=5)
    """

    def __init__(self, descriptor: Descriptor, service: str, node: Node) -> None:
        super().__init__(_sockets.socket_of(descriptor, socket.SOCK_SEQPACKET))
        self._node = node
        self.service = service

    @property
    def address(self) -> Address:
        """Where others reach it."""
        return Address(self._node.id, self.service)

    async def send_to(
        self, data: Buffer, address: tuple[str, str], *, timeout_s: float | None = None
    ) -> None:
        """Send one datagram to ``address``, (node, service). Waits while the node's queue is full.

        Raises PayloadTooLarge or MeshTimeout. That it did not arrive is told, where it is, by :meth:`recv_from`.
        """
        message = b"".join(_sockets.pack_datagram(data, address))
        try:
            await within(timeout_s, "send_to", self._send(message))
        except MeshTimeout:
            raise
        except OSError as error:
            raise _sockets.send_error(error, len(data)) or self._closed_error() from error

    async def recv_from(self, *, timeout_s: float | None = None) -> tuple[bytes, Address]:
        """The next datagram and its sender.

        Raises Unreachable for a notice that a datagram sent earlier did not arrive, PayloadTooLarge for one that the
        node refused, MeshTimeout, or ClosedError. The socket goes on working after the first three.
        """
        try:
            message, _ = await within(timeout_s, "recv_from", self.receive(_sockets.DATAGRAM_READ_BYTES))
        except MeshTimeout:
            raise
        except OSError as error:
            raise self._closed_error() from error
        if not message:
            raise self._closed_error()
        return _sockets.unpack_datagram(message)

    async def _send(self, message: bytes) -> None:
        _process.check(self._pid)
        await asyncio.get_running_loop().sock_sendall(self._sock, message)

    def _closed_error(self) -> ClosedError:
        return ClosedError(f"datagram socket {self.service!r} is closed")


class EventStream:
    """Events of a node, as they happen, for one task; see :meth:`Node.events`.

    ::

        async with node.events("peer") as events:
            async for event in events:
                print(event)
    """

    def __init__(self, node: Node, op: Op[None]) -> None:
        self._node = node
        self._op = op
        self._session = Session()
        self._events: list[Event] = []
        self._poll: Pollable | None = None
        self._done = False

    async def get(self, *, timeout_s: float | None = None) -> Event:
        """The next event. Raises MeshTimeout, or ClosedError once the stream or the node is closed."""
        if self._poll is None:
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
            if self._session.ended is not None and self._session.ended.__cause__ is not None and not self._done:
                raise
            raise StopAsyncIteration from None

    async def __aenter__(self) -> Self:
        await self._subscribe()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if self._poll is not None:
            self._poll.close()

    async def _subscribe(self) -> None:
        if self._done:
            raise ClosedError("the event stream is closed")
        if self._poll is not None:
            return
        op = Op("session.new", {}, lambda _: None, self._node.timeout_s)
        descriptor, _ = await self._node._run_descriptor(op)
        poll = Pollable(_sockets.socket_of(descriptor, socket.SOCK_STREAM))
        try:
            request_id, frame = self._session.request(self._op.name, self._op.keys)
            await poll._loop.sock_sendall(poll._sock, frame)
            self._poll = poll
            await within(self._op.timeout_s, self._op.name, self._reply(request_id))
        except BaseException as error:
            poll.close()
            if type(error) in (BrokenPipeError, ConnectionResetError):
                raise ClosedError("the node is closed") from error
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
            raise ClosedError("the event stream is closed") if self._done else self._session.eof()
        return self._session.receive(data, descriptors)

    def _take(self, items: list[Reply | Event]) -> list[Reply]:
        self._events += [item for item in items if not isinstance(item, Reply)]
        return [item for item in items if isinstance(item, Reply)]


class Work:
    """Units of work of a node; see :attr:`Node.work`."""

    __slots__ = ("_node",)

    def __init__(self, node: Node) -> None:
        self._node = node

    def submit(
        self,
        node: str,
        worktype: str,
        payload: AsyncPayload = b"",
        *,
        params: Mapping[str, object] | None = None,
        ttl_s: float | None = None,
    ) -> Opening["Unit"]:
        """Start a unit of ``worktype`` on ``node``; to be awaited, or entered with ``async with``.

        node: a node's ID; the own ID or "localhost" runs it here.
        payload: its standard input: bytes, text (sent as UTF-8), a file open in mode "rb", an iterable or an
            asynchronous iterable of bytes, sent as it comes and never held whole in memory. Files and iterables are
            read in a thread.
        params: parameters of the work type; values are sent as text.
        ttl_s: seconds after which a unit that has not started on ``node`` is given up; None means never.

        If this fails or is cancelled, the unit is released: it never runs with half of its payload. Raises
        WorkTypeError, WorkError, Unreachable or MeshTimeout.
        """
        return Opening(self._submit(_ops.submit(node, worktype, params, ttl_s, self._node.timeout_s), payload))

    async def get(self, unit_id: str) -> "Unit":
        """A unit that exists, by its ID. Raises UnitNotFound."""
        unit = Unit(unit_id, self._node)
        await unit.status()
        return unit

    async def list(self) -> dict[str, UnitStatus]:
        """The node's units, those of its own and those it has submitted to other nodes, by ID."""
        return await self._node._run(_ops.unit_list(self._node.timeout_s))

    async def _submit(self, op: Op[str], payload: AsyncPayload) -> "Unit":
        # The request itself is not cancelled: once made, a unit has to be taken back by its ID.
        request = self._node._spawn(self._node._run_descriptor(op))
        try:
            descriptor, unit_id = await asyncio.shield(request)
        except asyncio.CancelledError:
            request.add_done_callback(self._take_back_late)
            raise
        unit = Unit(unit_id, self._node)
        sock = _sockets.socket_of(descriptor, socket.SOCK_STREAM)
        sock.setblocking(False)
        try:
            await self._send(sock, payload, unit_id)
            await self._node._run(_ops.started(unit_id))
        except BaseException:
            await self._take_back(unit, sock)
            raise
        finally:
            sock.close()
        return unit

    async def _send(self, sock: socket.socket, payload: AsyncPayload, unit_id: str) -> None:
        loop = asyncio.get_running_loop()
        text = f"payload of unit {unit_id}"
        try:
            async for chunk in _chunks(payload):
                await within(self._node.timeout_s, text, loop.sock_sendall(sock, chunk))
            sock.shutdown(socket.SHUT_WR)
        except (BrokenPipeError, ConnectionResetError):
            pass  # The node stopped reading; the reply of work.started says why.

    async def _take_back(self, unit: "Unit", sock: socket.socket) -> None:
        """Release ``unit`` before its payload's socket closes, which could pass for its end."""
        if not self._node.closed:
            await asyncio.shield(self._node._spawn(unit._take_back(sock)))

    def _take_back_late(self, request: "asyncio.Task[tuple[Descriptor, str]]") -> None:
        if request.cancelled() or request.exception() is not None or self._node.closed:
            return
        descriptor, unit_id = request.result()
        sock = _sockets.socket_of(descriptor, socket.SOCK_STREAM)
        self._node._spawn(Unit(unit_id, self._node)._take_back(sock))


class Unit:
    """A unit of work. ``async with`` releases it at the end, whatever its state; see :meth:`detach`."""

    def __init__(self, unit_id: str, node: Node) -> None:
        self._id = unit_id
        self._node = node
        self._detached = False

    @property
    def id(self) -> str:
        """Its ID on the node that has it; :meth:`Work.get` finds it again."""
        return self._id

    def stdout(self, offset: int = 0, *, timeout_s: float | None = None) -> "Output":
        """Its output from byte ``offset`` on, for ``async for``: each chunk as it arrives, until it is complete.

        timeout_s: seconds to wait for the next chunk. Raises MeshTimeout, or StreamResetError where output was lost.
        """
        return Output(self, offset, timeout_s)

    async def open_stdout(self, offset: int = 0) -> MeshSocket:
        """Its output from byte ``offset`` on as a socket to read from."""
        descriptor, stream = await self._node._run_descriptor(_ops.results(self._id, offset, self._node.timeout_s))
        here = Address(self._node.id, "")
        return MeshSocket(descriptor, stream, Address(self._node.id, f"unit {self._id}"), here, self._node)

    async def status(self) -> UnitStatus:
        """How it stands now."""
        return await self._node._run(_ops.unit_status(self._id, self._node.timeout_s))

    async def wait(self, *, timeout_s: float | None = None, check: bool = True) -> WorkResult:
        """Wait until it is complete. Raises MeshTimeout; the unit goes on.

        check: raise WorkFailed or WorkCancelled if it did not succeed; both have the ``result``.
        """
        result = await self._node._run(_ops.unit_wait(self._id, timeout_s))
        return _ops.check(result) if check else result

    async def cancel(self) -> bool:
        """End it. True if the executing node has confirmed it; else it will be told when it can be reached."""
        return await self._node._run(_ops.cancel(self._id, self._node.timeout_s))

    async def release(self, *, force: bool = False) -> bool:
        """End it and remove all traces. True if the executing node has confirmed it; else it will be told.

        force: remove it here even if the executing node never hears of it.
        """
        self._detached = True
        return await self._node._run(_ops.release(self._id, force, self._node.timeout_s))

    def detach(self) -> Self:
        """Keep it beyond the ``async with`` statement."""
        self._detached = True
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._detached:
            return
        try:
            await self.release()
        except UnitNotFound:
            pass  # Released by somebody else.
        except ReceptorError:
            if error is None:
                raise

    def __repr__(self) -> str:
        return f"<{type(self).__module__}.{type(self).__qualname__} {self._id} on {self._node.id}>"

    async def _take_back(self, payload: socket.socket) -> None:
        with payload:
            try:
                await self._node._run(_ops.release(self._id, True, _CLEANUP_S))
            except ReceptorError:
                pass  # What made us take it back is the error to tell.


class Output:
    """Output of a unit of work, for ``async for`` in one task; ``offset`` counts the bytes taken.

    A cancelled or timed-out wait loses nothing: go on with the same object.
    """

    def __init__(self, unit: Unit, offset: int, timeout_s: float | None) -> None:
        self._unit = unit
        self._timeout_s = timeout_s
        self._sock: MeshSocket | None = None
        self._poll: Pollable | None = None
        self.offset = offset

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        chunk = await self.read()
        if not chunk:
            self.close()
            raise StopAsyncIteration
        return chunk

    async def read(self, size: int = _READ_BYTES) -> bytes:
        """The next at most ``size`` bytes; empty once the unit is complete and all has been read."""
        if self._sock is None or self._poll is None:
            self._sock = await self._unit.open_stdout(self.offset)
            self._poll = Pollable(self._sock)
        try:
            chunk, _ = await within(self._timeout_s, f"output of unit {self._unit.id}", self._poll.receive(size))
        except ConnectionResetError:
            chunk = b""
        if not chunk and (error := await self._sock._reset()) is not None:
            raise error
        self.offset += len(chunk)
        return chunk

    def close(self) -> None:
        """Stop reading. Safe to call twice."""
        if self._poll is not None:
            self._poll.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


async def _chunks(payload: AsyncPayload) -> AsyncIterator[Buffer]:
    if isinstance(payload, (str, bytes, bytearray, memoryview)):
        for chunk in chunks(payload):
            yield chunk
    elif isinstance(payload, AsyncIterable):
        async for piece in payload:
            for chunk in chunks(checked(piece, "in the iterable")):
                yield chunk
    else:
        async for chunk in _from_thread(payload):
            yield chunk


async def _from_thread(payload: Payload) -> AsyncIterator[Buffer]:
    pieces = chunks(payload)
    while (chunk := await asyncio.to_thread(next, pieces, None)) is not None:
        yield chunk
