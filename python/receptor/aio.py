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
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterable, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar

from . import _library, _ops, _process
from ._aio_client import Client, connect
from ._aio_session import AsyncSession, Opening
from ._aio_streams import (
    LIMIT_BYTES,
    DatagramSocket,
    EventStream,
    Handler,
    Listener,
    MeshReader,
    MeshSocket,
    MeshWriter,
    Server,
)
from ._aio_work import Output, Work
from ._channel import Channel
from ._session import Descriptor, Op
from ._units import AsyncUnit as Unit
from .errors import ClosedError, MeshTimeout
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
    WorkCommand,
)

__all__ = [
    "Client",
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
    "connect",
]

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
            if self._log_level is not None:
                session.on_event = _log_forwarder(self._id)
                (await session.call(_ops.events(("log",), self.timeout_s))).result()
            opened = op.decode((await session.call(op)).result())
            self._id = str(opened.get("node", self._id))
            self._version = str(opened.get("version", ""))
            self._mode = session.session.hello.mode if session.session.hello else ""
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
    def work(self) -> Work:
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

    async def open_socket(self, node: str, service: str, *, timeout_s: float | None = 30.0) -> MeshSocket:
        """Open a stream to ``service`` on ``node`` as a non-blocking socket, for ``loop.sock_recv``, trio or ssl.

        Raises Unreachable or MeshTimeout.
        """
        descriptor, (stream, local) = await self._run_descriptor(_ops.connect(node, service, timeout_s))
        return MeshSocket(descriptor, stream, Address(node, service), local, self)

    async def open_connection(
        self, node: str, service: str, *, timeout_s: float | None = 30.0, limit: int = LIMIT_BYTES
    ) -> tuple[MeshReader, MeshWriter]:
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
    ) -> Opening[Listener]:
        """Take streams that others open to ``service`` here; an empty name takes a free one. Raises AddressInUse.

        To be awaited, or entered with ``async with``.
        advertise: tell the mesh of the service, with ``tags``. It can be reached in any case.
        backlog: how many streams may wait to be accepted; more are refused.
        """
        return Opening(self._listen(_ops.listen(service, advertise, tags, backlog, self.timeout_s)))

    async def start_server(
        self,
        handler: Handler,
        service: str = "",
        *,
        advertise: bool = True,
        tags: Mapping[str, str] | None = None,
        backlog: int = 64,
        limit: int = LIMIT_BYTES,
    ) -> Server:
        """Serve ``service``: ``handler(reader, writer)`` runs in a task of its own for each stream.

        As ``asyncio.start_server``, but the writer is closed when the handler ends. Raises AddressInUse.
        """
        listener = await self._listen(_ops.listen(service, advertise, tags, backlog, self.timeout_s))
        return Server(listener, handler, limit)

    def datagram(
        self, service: str | None = None, *, advertise: bool = False, tags: Mapping[str, str] | None = None
    ) -> Opening[DatagramSocket]:
        """A socket for datagrams at ``service`` here; None takes a free name. Raises AddressInUse.

        To be awaited, or entered with ``async with``.
        """
        return Opening(self._datagram(_ops.datagram(service, advertise, tags, self.timeout_s)))

    def events(self, *kinds: EventKind) -> EventStream:
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

    async def _listen(self, op: Op[str]) -> Listener:
        descriptor, name = await self._run_descriptor(op)
        return Listener(descriptor, name, self)

    async def _datagram(self, op: Op[str]) -> DatagramSocket:
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
