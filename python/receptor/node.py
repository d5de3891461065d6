"""A node of this process, for blocking code.

::

    import receptor

    with receptor.Node("web-1", peers=["tcp://hub:2222"]) as node:
        node.wait_route("db-1", timeout_s=10)
        with node.connect("db-1", "echo") as sock:
            sock.sendall(b"hello")
            print(sock.recv(100))

A node may be used from any number of threads. Each blocking call has a session socket of its own while it runs, so
threads do not wait for one another, and a call that is interrupted (Ctrl-C) or runs into its timeout is cancelled in
the node as well. Every wait is one that signals end at once: a plain read of a socket, or, in the main thread, the wait
for a passing thread that makes something which an interrupt has to take back. No thread stays, but for the one that
carries log records if ``log_level`` is given.
"""

# The annotations stay text, and the modules of values are read with the first value that needs them: most of what
# importing this module would cost is the making of their dataclasses.
from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self, TypeVar

from . import _modes, _ops, _process, _sockets
from ._address import Address
from ._channel import Channel, Deadline, deadline_of, from_descriptor
from ._closing import Closable
from ._making import Making
from ._session import Descriptor, Op, Reply, Session
from ._streams import DatagramSocket, EventStream, Listener, MeshSocket, Proxy
from .errors import ClosedError, MeshTimeout, ReceptorError

if TYPE_CHECKING:
    from ._functions import Offer
    from .types import (
        JSON,
        TLS,
        BackendID,
        BoundListener,
        EventKind,
        Hop,
        LinkListener,
        LogLevel,
        Peer,
        PingResult,
        Route,
        Status,
        TLSProfile,
        Topology,
        WorkCommand,
    )
    from .work import Work

__all__ = ["DatagramSocket", "EventStream", "Listener", "MeshSocket", "Node", "Proxy"]

_IDLE_CHANNELS = 8  # Kept for the next calls; what more threads needed at once is closed again.
T = TypeVar("T")
R = TypeVar("R")


class Node(_modes.AnyNode, Closable):
    """A node of the mesh, running from construction until :meth:`close`.

    id: its name in the mesh, unique there. Not needed if ``config`` gives one.
    peers: neighbours to dial, as addresses ("tcp://host:port") or :class:`Peer`.
    listeners: addresses where neighbours may dial in, or :class:`LinkListener`.
    tls_profiles: TLS settings by name, for whatever takes the name of a profile here.
    config: path of a configuration file of the daemon; the node is what ``receptor --config FILE`` would run. It gives
        the ID, the data_dir and max_idle_s, which are not given beside it.
    data_dir: where units of work live, made with the first; ConfigError where this program cannot make or write it.
        None takes a private temporary directory, removed at close, which ends them.
    work_commands: work types that this node runs for others.
    environ: environment of the node and of its work commands; None takes a copy of ``os.environ`` as it is now.
    max_idle_s: seconds without a message after which a link is dead, at least 21, which None stands for.
    log_level: forward log records of this level and above to the logger ``receptor.node``; None forwards none.
    timeout_s: seconds within which the node must answer calls that have no timeout of their own; None waits. Where the
        start of a unit takes longer, because of the node that is to run it, the node is asked whether it is there.
    mode: where the node runs: "in-process" in a library, "sidecar" in a child process (the receptor daemon, which comes
        with this package); "auto" takes the library where the system can load one. All modes do the same; a sidecar
        survives faults of the library's kind apart from this process, and costs a second process.

    :meth:`attach` makes one of the node of a daemon that runs already.

    Raises ConfigError, AddressInUse, NativeLibraryError (no usable library) or ForkedProcessError.
    """

    _sidecar: _modes.Sidecar | None

    _closed = True  # Until it is open: __del__ runs also when the arguments were wrong.

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
        self._prepare(timeout_s)
        where = _modes.resolve(mode)
        environ = os.environ if environ is None else environ
        op = _ops.open_node(
            id,
            peers=peers,
            listeners=listeners,
            tls_profiles=tls_profiles,
            config=config,
            data_dir=data_dir,
            work_commands=work_commands,
            environ=environ,
            max_idle_s=max_idle_s,
            log_level=log_level,
            timeout_s=timeout_s,
            mode=where,
        )
        sock, self._sidecar = _modes.open_session(where, environ)
        self._host = self._sidecar or _modes.Host()
        self._host.id = id or ""
        self._begin(sock, op, log_level)

    @classmethod
    def attach(
        cls, path: str | os.PathLike[str], *, log_level: LogLevel | None = None, timeout_s: float | None = 30.0
    ) -> Self:
        """The node of the daemon whose control socket is ``path``, for this program as well.

        What is opened and added through it goes when it is closed or this program ends; the daemon's node stays.
        Whoever may open the control socket may do this.
        log_level: forward what the daemon logs, and what its node has to say about this program's doings.

        Raises ControlError if there is no such daemon, MeshTimeout if it does not answer.
        """
        self = cls.__new__(cls)
        self._prepare(timeout_s)
        self._host = _modes.daemon_at(path)
        self._begin(_modes.attach(path, timeout_s), None, log_level)
        return self

    def _prepare(self, timeout_s: float | None) -> None:
        self._pid = os.getpid()
        self._idle: list[Channel] = []
        self._busy: set[Channel] = set()
        self._lock = threading.Lock()  # Guards growth: _main may carry one exchange at a time.
        self._logs: _LogForwarder | None = None
        self._offers: set[Offer] = set()  # Those that nobody has closed.
        self._sidecar = None
        self.timeout_s = timeout_s

    def _begin(self, sock: socket.socket, op: Op[JSON] | None, log_level: LogLevel | None) -> None:
        self._root = self._main = Channel(sock, Session(self._host))  # The node lives as long as the root.
        try:
            if log_level is not None:
                self._root.call(_ops.events(("log",), self.timeout_s, log_level)).result()  # "open" has much to say.
            self._root.greeting(Deadline(self.timeout_s, "greeting"))
            hello = self._root.session.hello
            assert hello is not None
            self._mode, self._version, self._id = hello.mode, hello.version, hello.node
            if op is not None:
                self._id = str(op.decode(self._root.call(op).result()).get("node"))
            self._host.id = self._id
            if log_level is not None:
                self._main = self._new_channel()  # From here on the root is read for log records only.
                self._logs = _LogForwarder(self._root, self._id)
            self._idle.append(self._new_channel())
        except BaseException as error:
            self._drop(interrupted=not isinstance(error, Exception))
            raise
        self._closed = False
        _process.track_node(self)

    # What it is.

    @property
    def work(self) -> Work:
        """Units of work: submit them, look at them, end them."""
        from .work import Work

        return Work(self)

    # The mesh.

    def status(self) -> Status:
        """What the node knows of itself and of the mesh now."""
        return self._run(_ops.status(self.timeout_s))

    def routes(self) -> dict[str, Route]:
        """How each node that can be reached now is reached."""
        return self._run(_ops.routes(self.timeout_s))

    def topology(self) -> Topology:
        """The whole mesh as the node sees it now."""
        from .types import Topology

        return Topology.of(self.status())

    def ping(self, node: str, *, hops: int = 30, timeout_s: float | None = 10.0) -> PingResult:
        """Measure the way to ``node`` and back. Raises Unreachable or MeshTimeout.

        hops: how many nodes the probe may pass, 1 to 255.
        """
        return self._run(_ops.ping(node, hops, timeout_s))

    def traceroute(self, node: str, *, timeout_s: float | None = 10.0) -> Iterator[Hop]:
        """The nodes on the way to ``node``; a last hop with an error did not get there.

        timeout_s: seconds to wait for each hop.
        """
        hops = self._run(_ops.traceroute(node, timeout_s))
        return iter(hops)

    def wait_route(self, node: str, *, timeout_s: float | None = None) -> Route:
        """Wait until ``node`` is reachable. Raises MeshTimeout."""
        return self._run(_ops.wait_route(node, timeout_s))

    def add_peer(
        self,
        address: str | Peer,
        *,
        cost: float = 1.0,
        redial: bool = True,
        allowed_peers: Iterable[str] | None = None,
        tls: TLSProfile | None = None,
    ) -> BackendID:
        """Dial one more neighbour from now on, and return what :meth:`remove` takes. Does not wait for the link."""
        return self._make(_ops.add_peer(address, cost, redial, allowed_peers, tls, self.timeout_s), lambda made: made)

    def add_listener(
        self,
        address: str | LinkListener = "tcp://127.0.0.1:0",
        *,
        cost: float = 1.0,
        node_cost: Mapping[str, float] | None = None,
        allowed_peers: Iterable[str] | None = None,
        tls: TLSProfile | None = None,
    ) -> BoundListener:
        """Let neighbours dial in at ``address``; port 0 takes a free one. Raises AddressInUse."""
        op = _ops.add_listener(address, cost, node_cost, allowed_peers, tls, self.timeout_s)
        return self._make(op, lambda made: made)

    def remove(self, backend: BackendID | BoundListener) -> None:
        """End a dialer or a listener and the links it made."""
        self._run(_ops.remove(backend, self.timeout_s))

    # Streams, datagrams, events.

    def connect(
        self, node: str, service: str, *, tls: TLSProfile | None = None, timeout_s: float | None = 30.0
    ) -> MeshSocket:
        """Open a stream to ``service`` on ``node``: a socket. Raises Unreachable or MeshTimeout.

        tls: for a service with a certificate: it must be that of ``node``.
        """
        descriptor, (stream, local) = self._run_descriptor(_ops.connect(node, service, tls, timeout_s))
        return MeshSocket(descriptor, stream, Address(node, service), local, self)

    def listen(
        self,
        service: str = "",
        *,
        advertise: bool = True,
        tags: Mapping[str, str] | None = None,
        backlog: int = 64,
        tls: TLSProfile | None = None,
    ) -> Listener:
        """Take streams that others open to ``service`` here; an empty name takes a free one. Raises AddressInUse.

        advertise: tell the mesh of the service, with ``tags``. It can be reached in any case.
        backlog: about how many streams may wait to be accepted beyond 128 that always may, at least 1; more than 1024
            count as 1024. Whoever opens another waits until one is accepted.
        tls: show this node's certificate; who connects must expect it, and show one where ``require_client_cert`` says.
        """
        descriptor, name = self._run_descriptor(_ops.listen(service, advertise, tags, backlog, tls, self.timeout_s))
        return Listener(descriptor, name, self)

    def datagram(
        self, service: str | None = None, *, advertise: bool = False, tags: Mapping[str, str] | None = None
    ) -> DatagramSocket:
        """A socket for datagrams at ``service`` here; None takes a free name. Raises AddressInUse."""
        descriptor, (name, number) = self._run_descriptor(_ops.datagram(service, advertise, tags, self.timeout_s))
        return DatagramSocket(descriptor, name, number, self)

    def forward(self, node: str, service: str, listen: str = "127.0.0.1:0", *, tls: TLSProfile | None = None) -> Proxy:
        """Open a local port whose connections go to ``service`` on ``node``, for programs that know no mesh.

        listen: "host:port", port 0 takes a free one (see ``Proxy.address``), or "unix:///path". Raises AddressInUse.
        """
        op = _ops.forward(node, service, listen, tls, self.timeout_s)
        return self._make(op, lambda made: Proxy(*made, Address(node, service), self))

    def expose(
        self,
        address: str,
        service: str = "",
        *,
        advertise: bool = True,
        tags: Mapping[str, str] | None = None,
        tls: TLSProfile | None = None,
    ) -> Proxy:
        """Offer what listens at ``address``, "host:port" or "unix:///path", as ``service`` in the mesh.

        An empty name takes a free one (see ``Proxy.service``). The address is dialled for each stream. Raises
        AddressInUse.
        """
        op = _ops.expose(address, service, advertise, tags, tls, self.timeout_s)
        return self._make(op, lambda made: Proxy(made[0], address, Address(self._id, made[1]), self))

    def events(self, *kinds: EventKind) -> EventStream:
        """What happens from now on, as an iterator; no kinds means all but log records.

        The node never waits for a slow reader: what it could not keep is counted by an EventsLost in its place.
        """
        return EventStream(self._take(_ops.events(kinds, self.timeout_s)), self)

    # The end.

    def close(self, timeout_s: float = 5.0) -> None:
        """Stop the node and its streams. Waits until it has stopped, for at most ``timeout_s``.

        Commands that run for units go on if the node has a ``data_dir``, where the next one finds them; functions end.
        Calls that wait in other threads raise ClosedError. Safe to call twice, and without effect in a forked child.
        """
        if self._closed or os.getpid() != self._pid:
            return
        op = _ops.close(timeout_s)
        deadline = deadline_of(op)
        self._closed = self._host.closing = True
        sidecar_end_s = _modes.SIDECAR_END_S
        try:
            with self._growing(deadline):
                self._main.call(op, deadline)
        except ClosedError:
            pass  # It ended by itself.
        except MeshTimeout:  # It ends with its session, now.
            sidecar_end_s = _modes.unanswered_end_s(timeout_s)
        except BaseException as error:
            self._drop(interrupted=not isinstance(error, Exception))
            raise
        self._drop(sidecar_end_s)

    def __del__(self) -> None:
        if not self._closed and os.getpid() == self._pid:
            _sockets.left_open(self, self._end_forgotten)

    # Sessions.

    def _run(self, op: Op[T]) -> T:
        return op.decode(self._call(op).result())

    def _run_descriptor(self, op: Op[T]) -> tuple[Descriptor, T]:
        reply = self._call(op)
        return reply.descriptor(), op.decode(reply.ok)

    def _make(self, op: Op[T], own: Callable[[T], R]) -> R:
        making = Making(self, op)
        try:
            return own(making.result())
        except BaseException:
            making.take_back()
            raise

    def _call(self, op: Op[T]) -> Reply:
        deadline = deadline_of(op)
        channel = self._acquire(deadline)
        try:
            reply = channel.call(op, deadline)
        finally:
            self._busy.discard(channel)
        self._keep(channel)
        return reply

    def _keep(self, channel: Channel) -> None:
        """Keep a channel for the next call."""
        if len(self._idle) >= _IDLE_CHANNELS:
            channel.close()
        else:
            self._idle.append(channel)
        if self._closed:
            self._drop_idle()

    def _take(self, op: Op[T]) -> Channel:
        """Run ``op`` on a channel that is the caller's from then on, and readable when there is an event."""
        deadline = deadline_of(op)
        channel = self._acquire(deadline)
        channel.read_frame_by_frame()
        try:
            channel.call(op, deadline).result()
        except BaseException:
            channel.close()
            raise
        finally:
            self._busy.discard(channel)
        return channel

    def _acquire(self, deadline: Deadline) -> Channel:
        while True:
            self._check()
            try:
                channel = self._idle.pop()
            except IndexError:
                self._grow(deadline)
                continue  # Another thread may be faster.
            self._busy.add(channel)
            return channel

    def _check(self) -> None:
        _process.check(self._pid)
        if self._closed:
            raise self._host.closed()

    def _loss(self, what: str, done: bool) -> ClosedError:
        """What ``what`` raises at its end; done: this program has closed it."""
        why = None
        if not done:
            try:
                self.status()  # Which raises at once if this program has closed the node.
            except ReceptorError as error:
                why = error
        return _ops.closed(what, why)

    def _grow(self, deadline: Deadline) -> None:
        """Make one more channel, through the main one.

        An interrupt must not break the main channel, which the node's life hangs on. Interrupts are raised in the main
        thread only, so there a passing thread does the exchange, which is over in microseconds.
        """
        if threading.get_ident() != threading.main_thread().ident:
            self._add_channel(deadline)
            return
        errors: list[BaseException] = []

        def add() -> None:
            try:
                self._add_channel(deadline)
            except BaseException as error:  # Raised below, in the thread that asked.
                errors.append(error)

        thread = threading.Thread(target=add, name="receptor-session", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # There are no threads any more, as at the exit of Python 3.12.
            add()
        else:
            thread.join()
        if errors:
            raise errors[0]

    def _add_channel(self, deadline: Deadline) -> None:
        with self._growing(deadline):
            self._check()  # What close says on the main channel is the last that is said there.
            self._idle.append(self._new_channel(deadline))
        if self._closed:
            self._drop_idle()

    @contextmanager
    def _growing(self, deadline: Deadline) -> Iterator[None]:
        """Have the main channel alone. Raises MeshTimeout while another thread waits there for an answer."""
        if not self._lock.acquire(timeout=deadline.left()):
            raise deadline.error()
        try:
            yield
        finally:
            self._lock.release()

    def _new_channel(self, deadline: Deadline | None = None) -> Channel:
        op = _ops.new_session(self.timeout_s)
        deadline = deadline or deadline_of(op)
        reply = self._main.call(op, deadline, lasting=True)
        channel = from_descriptor(reply.descriptor().detach(), Session(self._host))
        channel.greeting(deadline)
        return channel

    def _drop(self, sidecar_end_s: float = _modes.SIDECAR_END_S, *, interrupted: bool = False) -> None:
        """Close all sessions, which ends the node if it still runs. Whoever is interrupted does not wait for that."""
        self._main.wake()
        self._main.close()
        if self._logs is None:
            self._root.close()
        for channel in list(self._busy):
            channel.wake()
        self._drop_idle()
        if self._logs is not None:
            self._logs.close()
        for offer in list(self._offers):
            offer.close()
        if self._sidecar is not None and interrupted:
            self._sidecar.forget()
        elif self._sidecar is not None:
            self._sidecar.wait(sidecar_end_s)

    def _end_forgotten(self) -> None:
        self._closed = True
        self._drop()

    def _drop_idle(self) -> None:
        while True:
            try:
                self._idle.pop().close()
            except IndexError:  # Several threads may do this at once.
                return

    def _close_at_exit(self, timeout_s: float) -> None:
        self.close(timeout_s)

    def _abandon_after_fork(self) -> None:
        self._closed = True
        for channel in [self._root, self._main, *self._idle, *self._busy]:
            channel.close()


class _LogForwarder:
    """The thread that carries log records from the session of ``channel``, which it closes at its end."""

    def __init__(self, channel: Channel, node_id: str) -> None:
        self._channel = channel
        self._node_id = node_id
        self._thread = threading.Thread(target=self._forward, name=f"receptor-log-{node_id}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._channel.wake()
        if self._thread is not threading.current_thread():
            self._thread.join()
        self._channel.close()

    def _forward(self) -> None:
        from ._logs import emit
        from .types import LogRecord

        deadline = Deadline(None, "logs")
        while True:
            try:
                event = self._channel.next_event(deadline)
            except (ReceptorError, OSError):
                return
            if isinstance(event, LogRecord):
                emit(event, self._node_id)
