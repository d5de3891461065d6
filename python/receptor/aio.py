"""A node of this process, for asyncio.

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
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, TypeVar

from . import _modes, _ops, _process, _sockets
from ._aio_client import Client, connect
from ._aio_session import AsyncSession, Opening, check_asyncio, check_loop, in_thread, owned
from ._aio_streams import (
    LIMIT_BYTES,
    DatagramSocket,
    EventStream,
    Handler,
    Listener,
    MeshReader,
    MeshSocket,
    MeshWriter,
    Proxy,
    Server,
    StreamProtocol,
)
from ._aio_work import Offer, Output, Work
from ._channel import Channel
from ._functions import AsyncWorkContext
from ._session import Descriptor, Op, Session
from ._units import AsyncUnit as Unit
from .errors import ClosedError, ConfigError, MeshTimeout, ReceptorError
from .types import (
    JSON,
    TLS,
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
    TLSProfile,
    Topology,
    WorkCommand,
)

__all__ = [
    "AsyncWorkContext",
    "Client",
    "DatagramSocket",
    "EventStream",
    "Listener",
    "MeshReader",
    "MeshSocket",
    "MeshWriter",
    "Node",
    "Offer",
    "Output",
    "Proxy",
    "Server",
    "Unit",
    "Work",
    "connect",
]

_LAST_WORDS_S = 3.0  # How long a closing node waits until what was written to closed streams is with the engine.
_END_TASKS_S = 0.1  # What cancelled handlers and functions have at least.
T = TypeVar("T")


class Node(_modes.AnyNode):
    """A node of the mesh, running from ``async with`` (or ``await Node(...)``) until its end (or :meth:`close`).

    The arguments are those of :class:`receptor.Node`, and so are the errors, raised when it starts. It belongs to the
    event loop that starts it: calls on another raise RuntimeError.
    """

    def __init__(
        self,
        id: str | None = None,
        *,
        peers: Iterable[str | Peer] = (),
        listeners: Iterable[str | LinkListener] = (),
        tls_profiles: Mapping[str, TLS] | None = None,
        config: str | os.PathLike[str] | None = None,
        data_dir: str | os.PathLike[str] | None = None,
        work_commands: Iterable[WorkCommand] = (),
        environ: Mapping[str, str] | None = None,
        max_idle_s: float | None = None,
        log_level: LogLevel | None = None,
        timeout_s: float | None = 30.0,
        mode: _modes.Mode = "auto",
    ) -> None:
        self._prepare(id or "", log_level, timeout_s)
        where = _modes.resolve(mode)
        environ = os.environ if environ is None else environ
        commands = list(work_commands)

        def op() -> Op[dict[str, Any]]:
            return _ops.open_node(
                id,
                peers=peers,
                listeners=listeners,
                tls_profiles=tls_profiles,
                config=config,
                data_dir=data_dir,
                work_commands=commands,
                environ=environ,
                max_idle_s=max_idle_s,
                log_level=log_level,
                timeout_s=timeout_s,
                mode=where,
            )

        self._op = op
        self._connect = lambda: _modes.open_session(where, environ)
        self._takes_time = bool(commands) or config is not None or where == "sidecar"  # It looks for the daemon.

    @classmethod
    def attach(
        cls, path: str | os.PathLike[str], *, log_level: LogLevel | None = None, timeout_s: float | None = 30.0
    ) -> Self:
        """The node of the daemon whose control socket is ``path``, for this program as well; to be started as others.

        What is opened and added through it goes when it is closed or this program ends; the daemon's node stays.
        Whoever may open the control socket may do this.
        log_level: forward what the daemon logs, and what its node has to say about this program's doings.

        Starting it raises ControlError if there is no such daemon, MeshTimeout if it does not answer.
        """
        self = cls.__new__(cls)
        self._prepare("", log_level, timeout_s)
        self._op = None
        self._connect = lambda: (_modes.attach(path, timeout_s), None)
        self._host = _modes.daemon_at(path)
        self._takes_time = True
        return self

    _op: Callable[[], Op[JSON]] | None
    _connect: Callable[[], tuple[socket.socket, _modes.Sidecar | None]]

    def _prepare(self, id: str, log_level: LogLevel | None, timeout_s: float | None) -> None:
        self._pid = os.getpid()
        self._id = id
        self._version = ""
        self._mode = ""
        self._log_level = log_level
        self._session: AsyncSession | None = None
        self._host = _modes.Host()
        self._sidecar: _modes.Sidecar | None = None
        self._closed = False
        self._starting = asyncio.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()  # Any: their results are not used
        self._protocols: set[StreamProtocol] = set()  # Of the asyncio streams that are open.
        self._wanted: list[Callable[[], Coroutine[Any, Any, Offer]]] = []  # Offers to be made at the start.
        self.timeout_s = timeout_s

    async def start(self) -> Self:
        """Start it; ``async with`` and ``await`` do that. Without effect on one that runs.

        Raises ClosedError if it is closed meanwhile, RuntimeError where no event loop of asyncio runs.
        """
        self._check(started=False)  # Also in a child that was forked, where no loop runs.
        check_asyncio()
        async with self._starting:
            self._check(started=False)
            if self._session is None:
                await self._start()
        return self

    async def _start(self) -> None:
        op, sock, sidecar = await self._begin_in_thread() if self._takes_time else self._begin()
        self._host = sidecar or self._host
        self._host.id = self._id
        session = AsyncSession(sock, Session(self._host))
        try:
            if self._log_level is not None:
                session.on_event = _log_forwarder(self)
            # The answer comes behind the greeting.
            kinds = ("log",) if self._log_level else None
            (await session.call(_ops.events(kinds, self.timeout_s, self._log_level))).result()
            hello = session.session.hello
            assert hello is not None
            self._mode, self._version = hello.mode, hello.version
            self._id = hello.node or self._id
            if op is not None:
                self._id = str(op.decode((await session.call(op)).result()).get("node"))
            self._host.id = self._id
            self._check(started=False)
        except BaseException:
            session.close()
            await _reap(sidecar)
            raise
        self._session = session
        self._sidecar = sidecar
        try:
            for make in self._wanted:
                await make()
        except BaseException:
            await self.close()
            raise
        _process.track_node(self)

    def _begin(self) -> tuple[Op[JSON] | None, socket.socket, _modes.Sidecar | None]:
        op = self._op() if self._op is not None else None
        return (op, *self._connect())

    async def _begin_in_thread(self) -> tuple[Op[JSON] | None, socket.socket, _modes.Sidecar | None]:
        begun = in_thread(self._begin)
        try:
            return await asyncio.shield(begun)
        except asyncio.CancelledError:
            begun.add_done_callback(_end_unwanted)
            raise

    # What it is.

    @property
    def work(self) -> Work:
        """Units of work: submit them, look at them, end them."""
        return Work(self)

    # The mesh.

    async def status(self) -> Status:
        """What the node knows of itself and of the mesh now."""
        return await self._run(_ops.status(self.timeout_s))

    async def routes(self) -> dict[str, Route]:
        """How each node that can be reached now is reached."""
        return await self._run(_ops.routes(self.timeout_s))

    async def topology(self) -> Topology:
        """The whole mesh as the node sees it now."""
        return Topology.of(await self.status())

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
        tls: TLSProfile | None = None,
    ) -> BackendID:
        """Dial one more neighbour from now on, and return what :meth:`remove` takes. Does not wait for the link."""
        return await self._run(_ops.add_peer(address, cost, redial, allowed_peers, tls, self.timeout_s))

    async def add_listener(
        self,
        address: str | LinkListener = "tcp://127.0.0.1:0",
        *,
        cost: float = 1.0,
        node_cost: Mapping[str, float] | None = None,
        allowed_peers: Iterable[str] | None = None,
        tls: TLSProfile | None = None,
    ) -> BoundListener:
        """Let neighbours dial in at ``address``; port 0 takes a free one. Raises AddressInUse."""
        return await self._run(_ops.add_listener(address, cost, node_cost, allowed_peers, tls, self.timeout_s))

    async def remove(self, backend: BackendID | BoundListener) -> None:
        """End a dialer or a listener and the links it made."""
        await self._run(_ops.remove(backend, self.timeout_s))

    # Streams, datagrams, events.

    async def open_socket(
        self, node: str, service: str, *, tls: TLSProfile | None = None, timeout_s: float | None = 30.0
    ) -> MeshSocket:
        """Open a stream to ``service`` on ``node`` as a non-blocking socket, for ``loop.sock_recv`` or ssl.

        tls: for a service with a certificate: it must be that of ``node``. Raises Unreachable or MeshTimeout.
        """
        descriptor, (stream, local) = await self._run_descriptor(_ops.connect(node, service, tls, timeout_s))
        return MeshSocket(descriptor, stream, Address(node, service), local, self)

    async def open_connection(
        self,
        node: str,
        service: str,
        *,
        tls: TLSProfile | None = None,
        timeout_s: float | None = 30.0,
        limit: int = LIMIT_BYTES,
    ) -> tuple[MeshReader, MeshWriter]:
        """Open a stream to ``service`` on ``node`` as a pair of asyncio streams.

        ``writer.get_extra_info`` knows "mesh_peer" and "mesh_local" (addresses) and "mesh_socket". Raises Unreachable
        or MeshTimeout.
        """
        sock = await self.open_socket(node, service, tls=tls, timeout_s=timeout_s)
        return await sock.streams(limit=limit)

    def listen(
        self,
        service: str = "",
        *,
        advertise: bool = True,
        tags: Mapping[str, str] | None = None,
        backlog: int = 64,
        tls: TLSProfile | None = None,
    ) -> Opening[Listener]:
        """Take streams that others open to ``service`` here; an empty name takes a free one. Raises AddressInUse.

        To be awaited, or entered with ``async with``.
        advertise: tell the mesh of the service, with ``tags``. It can be reached in any case.
        backlog: about how many streams may wait to be accepted beyond 128 that always may, at least 1; more than 1024
            count as 1024. Whoever opens another waits until one is accepted.
        tls: show this node's certificate; who connects must expect it, and show one where ``require_client_cert`` says.
        """
        return Opening(self._listen(_ops.listen(service, advertise, tags, backlog, tls, self.timeout_s)))

    async def start_server(
        self,
        handler: Handler,
        service: str = "",
        *,
        advertise: bool = True,
        tags: Mapping[str, str] | None = None,
        backlog: int = 64,
        tls: TLSProfile | None = None,
        limit: int = LIMIT_BYTES,
    ) -> Server:
        """Serve ``service``: ``handler(reader, writer)`` runs in a task of its own for each stream.

        As ``asyncio.start_server``, but the handler is awaited, the writer is closed when it ends, and the stream is
        reset if that was with an exception, or if it was cancelled and had not closed it. Raises AddressInUse.
        """
        if not callable(handler):
            raise ConfigError(f"handler {handler!r}: want async def handler(reader, writer)")
        listener = await self._listen(_ops.listen(service, advertise, tags, backlog, tls, self.timeout_s))
        return Server(listener, handler, limit)

    def datagram(
        self, service: str | None = None, *, advertise: bool = False, tags: Mapping[str, str] | None = None
    ) -> Opening[DatagramSocket]:
        """A socket for datagrams at ``service`` here; None takes a free name. Raises AddressInUse.

        To be awaited, or entered with ``async with``.
        """
        return Opening(self._datagram(_ops.datagram(service, advertise, tags, self.timeout_s)))

    def forward(
        self, node: str, service: str, listen: str = "127.0.0.1:0", *, tls: TLSProfile | None = None
    ) -> Opening[Proxy]:
        """Open a local port whose connections go to ``service`` on ``node``, for programs that know no mesh.

        To be awaited, or entered with ``async with``.
        listen: "host:port", port 0 takes a free one (see ``Proxy.address``), or "unix:///path". Raises AddressInUse.
        """
        op = _ops.forward(node, service, listen, tls, self.timeout_s)
        return Opening(self._forward(op, Address(node, service)))

    def expose(
        self,
        address: str,
        service: str = "",
        *,
        advertise: bool = True,
        tags: Mapping[str, str] | None = None,
        tls: TLSProfile | None = None,
    ) -> Opening[Proxy]:
        """Offer what listens at ``address``, "host:port" or "unix:///path", as ``service`` in the mesh.

        To be awaited, or entered with ``async with``. An empty name takes a free one (see ``Proxy.service``). The
        address is dialled for each stream. Raises AddressInUse.
        """
        return Opening(self._expose(_ops.expose(address, service, advertise, tags, tls, self.timeout_s), address))

    def events(self, *kinds: EventKind) -> EventStream:
        """What happens, for ``async for``; no kinds means all but log records.

        Events come from the first ``async for`` on, or from the entry of ``async with node.events() as events``. The
        node never waits for a slow reader: what it could not keep is counted by an EventsLost in its place.
        """
        return EventStream(self, _ops.events(kinds, self.timeout_s))

    # The end.

    async def close(self, timeout_s: float = 5.0) -> None:
        """Stop the node and its streams. Waits until it has stopped, for at most ``timeout_s``.

        Commands that run for units go on if the node has a ``data_dir``, where the next one finds them; functions end.
        Whoever waits for an answer gets ClosedError. Safe to call twice, and without effect in a forked child. A node
        whose event loop has ended is closed from any other.
        """
        if self._closed or os.getpid() != self._pid:
            return
        if self._session is None:
            self._closed = True
            return
        if self._session.loop.is_closed():
            with suppress(ClosedError, MeshTimeout):
                await in_thread(self._close_at_exit, timeout_s)
            return
        check_loop(self._session.loop)
        self._closed = self._host.closing = True
        end = self._session.loop.time() + timeout_s
        sidecar_end_s = _modes.SIDECAR_END_S
        try:
            await self._last_words(min(timeout_s, _LAST_WORDS_S))
            await self._session.call(_ops.close(max(end - self._session.loop.time(), 0.0)))
        except ClosedError:
            pass  # It ended by itself.
        except MeshTimeout:  # It ends with its session, now.
            sidecar_end_s = _modes.unanswered_end_s(timeout_s)
        finally:
            self._session.close()
            try:
                await self._end_tasks(max(end - self._session.loop.time(), _END_TASKS_S))
            finally:
                await _reap(self._sidecar, sidecar_end_s)

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
        _sockets.left_open(self, self._end_forgotten)

    # Sessions and tasks.

    def _check(self, *, started: bool = True) -> None:
        _process.check(self._pid)
        if self._closed:
            raise self._host.closed()
        if started and self._session is None:
            raise ClosedError(f'node {self._id!r} is not started: use "async with", or await it')

    async def _loss(self, what: str, done: bool) -> ClosedError:
        """What ``what`` raises at its end; done: this program has closed it."""
        why = None
        if not done:
            try:
                await self.status()  # Which raises at once if this program has closed the node.
            except ReceptorError as error:
                why = error
        return _ops.closed(what, why)

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

    async def _datagram(self, op: Op[tuple[str, int]]) -> DatagramSocket:
        descriptor, (name, number) = await self._run_descriptor(op)
        return DatagramSocket(descriptor, name, number, self)

    async def _forward(self, op: Op[tuple[int, str]], service: Address) -> Proxy:
        number, address = await self._run(op)
        return Proxy(number, address, service, self)

    async def _expose(self, op: Op[tuple[int, str]], address: str) -> Proxy:
        number, name = await self._run(op)
        return Proxy(number, address, Address(self._id, name), self)

    def _spawn(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:  # Any: as above
        """Run a task that ends with the node at the latest."""
        try:
            loop = self._open_session().loop
            check_loop(loop)
        except BaseException:
            coroutine.close()
            raise
        task = owned(loop, coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _later(self, make: Callable[[], Coroutine[Any, Any, Offer]]) -> None:  # Any: as above
        """Make an offer when the node starts, or now if it runs."""
        if self._session is None:
            self._wanted.append(make)
        else:
            self._spawn(make()).add_done_callback(self._tell_failure)

    def _tell_failure(self, task: asyncio.Task[Any]) -> None:  # Any: its result is not used
        if task.cancelled() or (error := task.exception()) is None:
            return
        if self._closed and isinstance(error, ClosedError):
            return  # There is nobody left to offer it to.
        task.get_loop().call_exception_handler({"message": "a function could not be offered", "exception": error})

    async def _last_words(self, limit_s: float) -> None:
        """Wait until the sockets of the streams that the program has closed are closed, and so all that was written."""
        closing = [protocol.ended for protocol in self._protocols if protocol.closing]
        if closing:
            await asyncio.wait(closing, timeout=limit_s)

    async def _end_tasks(self, limit_s: float) -> None:
        """Cancel what runs for the node and wait for it. A function that goes on all the same is left alone."""
        await asyncio.sleep(0)  # Who waits for an answer gets ClosedError, and who was made just now begins.
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=limit_s)

    def _end_forgotten(self) -> None:
        session = self._session
        assert session is not None
        if session.loop.is_closed():
            session.close()
        else:
            session.loop.call_soon_threadsafe(session.close)
        if self._sidecar is not None:
            self._sidecar.forget()

    def _close_at_exit(self, timeout_s: float) -> None:
        if self._closed or self._session is None:
            return
        if self._session.loop.is_running():  # In another thread.
            asyncio.run_coroutine_threadsafe(self.close(timeout_s), self._session.loop).result(timeout_s)
            return
        self._closed = self._host.closing = True
        sock = self._session.sock
        if sock.fileno() >= 0:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, fileno=sock.detach()) as blocking:
                Channel(blocking, self._session.session).call(_ops.close(timeout_s))
            if self._sidecar is not None:
                self._sidecar.wait(timeout_s)

    def _abandon_after_fork(self) -> None:
        if self._session is not None:
            self._session.abandon_after_fork()


def _end_unwanted(begun: asyncio.Future[tuple[Op[JSON] | None, socket.socket, _modes.Sidecar | None]]) -> None:
    """End what a thread has begun for a start that was cancelled."""
    if begun.cancelled() or begun.exception() is not None:
        return
    _, sock, sidecar = begun.result()
    sock.close()
    if sidecar is not None:
        threading.Thread(target=sidecar.wait, name="receptor-sidecar", daemon=True).start()


async def _reap(sidecar: _modes.Sidecar | None, timeout_s: float = _modes.SIDECAR_END_S) -> None:
    """Wait for the end of a sidecar, in a thread that goes on if this is cancelled, or a zombie would stay."""
    if sidecar is not None:
        await asyncio.shield(in_thread(sidecar.wait, timeout_s))


def _log_forwarder(node: Node) -> Callable[[Event], None]:
    from ._logs import emit

    def forward(event: Event) -> None:
        if isinstance(event, LogRecord):
            emit(event, node.id)  # Which an attached node knows from its greeting on.

    return forward
