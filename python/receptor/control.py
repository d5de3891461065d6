"""A typed client for the control service of any Receptor daemon.

    import receptor

    with receptor.connect("/run/receptor/receptor.sock") as daemon:
        print(daemon.status().node, daemon.ping("edge-7").rtt)
        with daemon.work.submit("edge-7", "backup", open("in.tar", "rb"), params={"params": "--fast"}) as unit:
            for chunk in unit.stdout():
                sys.stdout.buffer.write(chunk)
            print(unit.wait().detail)

``receptor.aio.connect`` is the same for asyncio. Both work against this project's daemon and against compatible ones,
over a Unix socket, TCP or TLS. What only ours can do (events, links, metrics) raises NotOfferedError elsewhere; waiting
for a unit and the topology are made of what the others offer.

Requests share connections, which are opened when needed, again after an error; several threads (tasks) may use one
client. Waiting calls take ``timeout_s``; None means to wait as long as it takes. Errors are ``ControlClientError`` with
a stable ``code`` (the tree is at the top of ``receptor/_control_errors.py``). Results are the frozen values of
``receptor.types`` and those below; their ``raw`` keeps the JSON as it came.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from receptor import _control_ops as ops
from receptor import _control_protocol as protocol
from receptor._closing import Closable
from receptor._control_errors import (
    AddressError,
    ConnectError,
    ControlClientError,
    ControlProtocolError,
    ControlTimeout,
    DisconnectedError,
    NotOfferedError,
    OptionsError,
    RefusedError,
)
from receptor._control_session import AnyClient, Payload, Readable, Session
from receptor._control_socket import Connection, TLSOptions, tls_options_from_config
from receptor._units import Unit

if TYPE_CHECKING:  # at run time they are loaded by the methods that need them: a third of the start of receptorctl
    from receptor._control_events import DaemonEvent
    from receptor._control_exec import BlockingExec
    from receptor._control_types import (
        About,
        Backend,
        BackendFailed,
        Link,
        Links,
        SnapshotComplete,
        Topology,
        TopologyEdge,
        TopologyNode,
        TopologyService,
        WorkReleased,
    )
    from receptor.types import Hop, PingResult, Status, UnitStatus, WorkResult

__all__ = [
    "About",
    "AddressError",
    "Backend",
    "BackendFailed",
    "Client",
    "ClientUnit",
    "ConnectError",
    "ControlClientError",
    "ControlProtocolError",
    "ControlTimeout",
    "DaemonEvent",
    "DisconnectedError",
    "Link",
    "Links",
    "NotOfferedError",
    "OptionsError",
    "Payload",
    "Readable",
    "RefusedError",
    "SnapshotComplete",
    "TLSOptions",
    "Topology",
    "TopologyEdge",
    "TopologyNode",
    "TopologyService",
    "Work",
    "WorkReleased",
    "connect",
    "tls_options_from_config",
]

_T = TypeVar("_T")
JSON = dict[str, Any]  # Any: a JSON object as it came


def connect(
    address: str | os.PathLike[str],
    *,
    tls: TLSOptions | None = None,
    timeout_s: float | None = 10.0,
) -> Client:
    """Connect to the control service at ``address`` and read its greeting.

    address: a path, ``unix:PATH``, ``tcp://HOST:PORT`` or ``tls://HOST:PORT``.
    timeout_s: for connecting and for the greeting, here and whenever the client has to connect again.
    Raises AddressError, OptionsError, ConnectError, ControlTimeout, ControlProtocolError or DisconnectedError.
    """
    client = Client(address, tls=tls, timeout_s=timeout_s)
    client.open()
    return client


class Client(AnyClient[Session], Closable):
    """See the module. Made by ``connect``; made directly it connects at the first request."""

    _session_type = Session

    @cached_property
    def work(self) -> Work:
        """Units of work: submit them, look at them, end them."""
        return Work(self)

    def open(self) -> None:
        """Connect and read the greeting, unless that is done."""
        with self._session() as session:
            session.open()

    def at(self, node: str, *, tls_client: str = "") -> Client:
        """Return a client of another node's control service, reached through this one's daemon.

        tls_client: name of a ``tls-client`` entry in the daemon's configuration. Close the client when done with it.
        """
        hops = (*self._hops, (node, tls_client))
        far = Client(self._address, tls=self._tls, timeout_s=self._timeout_s, _hops=hops)
        if self._idle:
            session = self._idle.pop()
            try:
                session.go_on(node, tls_client)
            except BaseException:
                session.close()
                raise
            far._idle.append(session)
            far._node = session.node
        return far

    def command(self, text: str, *, timeout_s: float | None = None) -> JSON:
        """Send any one-line command, text or JSON, and return the JSON answer."""
        return self._run(ops.raw(text), timeout_s)

    def request(self, command: str, *, timeout_s: float | None = 30.0) -> JSON:
        """Send a command that others than ours may not have, and return its JSON answer; or raise NotOfferedError."""
        return self._run(ops.addition(command), timeout_s)

    # The mesh.

    def status(self, *, timeout_s: float | None = 30.0) -> Status:
        """Return what the node knows of itself and the mesh."""
        return self._run(ops.status(), timeout_s)

    def version(self, *, timeout_s: float | None = 30.0) -> str:
        """Return the version of the daemon; it may be empty in unreleased builds."""
        return self._run(ops.version(), timeout_s)

    def about(self, *, timeout_s: float | None = 30.0) -> About:
        """Return what the daemon says of itself: its implementation, commands, clock."""
        try:
            return self._run(ops.about(time.time()), timeout_s)
        except NotOfferedError:
            return self._run(ops.about_from_status(), timeout_s)

    def ping(self, node: str, *, timeout_s: float | None = 15.0) -> PingResult:
        """Send one probe to ``node``; the daemon itself waits for up to 10 s.

        Raises RefusedError with code ``no_route``, ``timeout``, ``service_unknown``, ``expired`` or ``firewall``.
        """
        return self._run(ops.ping(node), timeout_s)

    def traceroute(self, node: str, *, timeout_s: float | None = None) -> list[Hop]:
        """Return the hops towards ``node`` in order; each can take the daemon 10 s. A failed hop is the last one."""
        return self._run(ops.traceroute(node), timeout_s)

    def topology(self, *, timeout_s: float | None = 30.0) -> Topology:
        """Return the mesh as the node knows it: nodes, links with their costs, services."""
        try:
            return self._run(ops.topology(), timeout_s)
        except NotOfferedError:
            return self._run(ops.topology_from_status(), timeout_s)

    def links(self, *, timeout_s: float | None = 30.0) -> Links:
        """Return the node's dialers, listeners and links, with the reasons of failures; or raise NotOfferedError."""
        return self._run(ops.links(), timeout_s)

    def config(self, *, timeout_s: float | None = 30.0) -> list[JSON]:
        """Return the directives that the daemon runs, secrets hidden; or raise NotOfferedError."""
        return self._run(ops.config(), timeout_s)

    def metrics(self, *, timeout_s: float | None = 30.0) -> str:
        """Return the metrics in the Prometheus text format; or raise NotOfferedError."""
        return self._run(ops.metrics(), timeout_s)

    def reload(self, *, dry_run: bool = False, timeout_s: float | None = None) -> list[str]:
        """Make the daemon read its configuration again; raises RefusedError if it keeps the old one.

        Returns what changed, in words; empty of daemons that do not say. dry_run: change nothing, or NotOfferedError.
        """
        if dry_run and not self.about().implementation:  # to another daemon it would be a reload
            raise ops.not_offered(self._node, "reload dry-run")
        return self._run(ops.reload(dry_run), timeout_s)

    def connect(
        self, node: str, service: str, *, tls_client: str = "", timeout_s: float | None = None
    ) -> socket.socket:
        """Return a blocking socket whose other end is ``service`` of ``node``. The caller closes it.

        tls_client: name of a ``tls-client`` entry in the daemon's configuration.
        """
        with self._session() as session:
            session.switch(protocol.connect_line(node, service, tls_client), protocol.parse_connecting, timeout_s)
            sock = session.hand_over().sock
        sock.settimeout(None)
        return sock

    def events(
        self,
        *kinds: str,
        node: str | None = None,
        unit: str | None = None,
        snapshot: bool = True,
        timeout_s: float | None = None,
    ) -> Iterator[DaemonEvent]:
        """Yield what is there now, SnapshotComplete, and then every change, until the daemon ends; or NotOfferedError.

        kinds: of ``link``, ``route``, ``service`` and ``unit``; none means all. node, unit: only what concerns these.
        snapshot: False leaves out what is there now. timeout_s: seconds to wait for the next event.
        """
        from receptor._control_events import EventDecoder

        decoder = EventDecoder()
        for line in self.event_lines(*kinds, node=node, unit=unit, snapshot=snapshot, timeout_s=timeout_s):
            yield from decoder.feed(line)

    def event_lines(
        self,
        *kinds: str,
        node: str | None = None,
        unit: str | None = None,
        snapshot: bool = True,
        timeout_s: float | None = None,
    ) -> Iterator[str]:
        """Yield the same as the JSON texts that the daemon sends."""
        with closing(self._event_connection(ops.events_line(kinds, node, unit, snapshot))) as conn:
            while True:
                yield conn.read_line(timeout_s)

    def _event_connection(self, line: bytes) -> Connection:
        """Return a connection that has nothing but events to read."""
        with self._session() as session:
            conn = session.hand_over()
        try:
            first = conn.request(line, self._timeout_s)
            ops.check_offered(first, "events", self._node)
            conn.lines.put_back(first)
        except BaseException:
            conn.close()
            raise
        return conn

    # How.

    def _run(self, request: ops.Request[_T], timeout_s: float | None) -> _T:
        with self._session() as session:
            try:
                reply = session.request(request.line, timeout_s)
            except RefusedError as e:
                raise request.refused(e, session.node) from None
        return request.answer(reply)


class Work:
    """Units of work of the node that a ``Client`` talks to; its attribute ``work``."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def submit(
        self,
        node: str | None,
        worktype: str,
        payload: Payload = b"",
        *,
        params: Mapping[str, object] | None = None,
        tls_client: str | None = None,
        ttl_s: float | str | None = None,
        sign: bool = False,
        timeout_s: float | None = None,
        on_created: Callable[[str], object] | None = None,
    ) -> ClientUnit:
        """Start one unit of work on ``node`` (None: the node this client talks to).

        payload: bytes, text, an open binary file, or an iterable of bytes. Files and iterables are sent as they come
            and never held whole. If reading them fails, the upload is reset, so that the unit fails (not under TLS to
            a peer that cannot tell a reset) instead of running on half of its input, and the error is raised.
        params: parameters of the work type; values are sent as text.
        ttl_s: seconds until the daemon gives up on a remote unit that has not started; text is passed on as it is.
        timeout_s: for each answer of the daemon; sending the payload has no limit.
        on_created: called with the unit's ID before the payload is sent.
        Raises RefusedError with code ``work_type``, ``signature`` and others.
        """
        line = ops.submit_line(worktype, node, tls_client, ttl_s, sign, params)
        with self._client._session() as session:
            started = session.submit(line, payload, timeout_s, on_created)
        return ClientUnit(started["unitid"], self._client, started["result"])

    def get(self, unit_id: str) -> ClientUnit:
        """Return a unit that exists, by its ID. Raises UnitNotFound."""
        unit = self.unit(unit_id)
        unit.status()
        return unit

    def unit(self, unit_id: str) -> ClientUnit:
        """Return the unit of this ID without asking the daemon whether there is one."""
        return ClientUnit(unit_id, self._client)

    def list(self, unit: str | None = None, *, timeout_s: float | None = 30.0) -> dict[str, UnitStatus]:
        """Return all units by ID, or only ``unit``."""
        return self._client._run(ops.unit_list(unit), timeout_s)

    def exec(
        self,
        node: str,
        params: str = "",
        *,
        worktype: str = "exec",
        tty: bool = False,
        rows: int = 24,
        cols: int = 80,
        term: str = "xterm",
        tls_client: str | None = None,
        sign: bool = False,
        timeout_s: float | None = None,
    ) -> BlockingExec:
        """Run a command while watching it, as ssh does: in a terminal, or with three pipes; or raise NotOfferedError.

        params: the command's parameters, split as a shell does. worktype: a work type of ``node`` that allows it.
        timeout_s: for the answer of the daemon. Leaving its ``with`` statement hangs up.
        """
        from receptor._control_exec import BlockingExec, exec_line, parse_exec

        line = exec_line(node, worktype, params, tty, rows, cols, term, tls_client, sign)
        client = self._client
        with client._session() as session:
            try:
                unit = session.switch(line, parse_exec, timeout_s)
            except RefusedError as e:
                raise ops.exec_refused(e, session.node) from None
            return BlockingExec(session.hand_over(), unit)


class ClientUnit(Unit):
    """A unit of work that a daemon has. ``result`` is the daemon's word at its submission, "" of one looked up."""

    def __init__(self, unit_id: str, client: Client, result: str = "") -> None:
        super().__init__(unit_id)
        self._client = client
        self.result = result

    @property
    def _home(self) -> str:
        return self._client.node

    @property
    def started(self) -> bool:
        """The executor had the unit when it was submitted. Else the daemon goes on trying to reach it."""
        return self.result == "Job Started"

    def status(self, *, timeout_s: float | None = 30.0) -> UnitStatus:
        """Return how it stands. Raises UnitNotFound."""
        return self._client._run(ops.unit_status(self._id), timeout_s)

    def stdout(self, offset: int = 0, *, timeout_s: float | None = None) -> Generator[bytes]:
        """Yield its output from byte ``offset`` on, each chunk as it arrives, until it is complete.

        A connection that is lost, to a daemon that restarts for instance, is made again, and the output goes on at the
        exact byte. timeout_s: seconds to wait for the next chunk. Raises UnitNotFound, ControlTimeout and what
        ``connect`` raises.
        """
        cursor = ops.OutputCursor(self._id, offset)
        while True:
            try:
                with closing(self._stream(cursor)) as conn:
                    while chunk := conn.read_some(timeout_s):
                        cursor.took(len(chunk))
                        yield chunk
                status = self.status()
            except ops.LOST as e:
                time.sleep(cursor.patience.pause_after(e))
            else:
                if cursor.finished(status):
                    return

    def _stream(self, cursor: ops.OutputCursor) -> Connection:
        with self._client._session() as session:
            conn = session.results(cursor.line(), self._client._timeout_s)
        cursor.patience.reset()
        return conn

    def open_stdout(self, offset: int = 0) -> socket.socket:
        """Return its output from byte ``offset`` on as a socket to read from: one connection, not made again."""
        with self._client._session() as session:
            return session.results(ops.results_line(self._id, offset), self._client._timeout_s).sock

    def wait(self, *, timeout_s: float | None = None, check: bool = True) -> WorkResult:
        from receptor._ops import check as checked
        from receptor.types import WorkResult

        waiting = ops.Waiting(self._id, timeout_s)
        while True:
            try:
                pause_s = waiting.pause_after(status := self._client._run(waiting.request(), waiting.limit_s()))
            except ops.LOST as e:
                pause_s = waiting.pause_after_loss(e)
            if pause_s is None:
                break
            time.sleep(pause_s)
        result = WorkResult.of(status)
        return checked(result) if check else result

    def cancel(self, *, timeout_s: float | None = None) -> bool:
        """End it. Its output stays until it is released.

        True if the executing node has confirmed it; else it will be told when it can be reached.
        """
        return self._client._run(ops.cancel(self._id), timeout_s)

    def release(self, *, force: bool = False, timeout_s: float | None = None) -> bool:
        confirmed = self._client._run(ops.release(self._id, force), timeout_s)
        self._detached = True
        return confirmed


def __getattr__(name: str) -> Any:  # Any: a class
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    module = "_control_events" if name == "DaemonEvent" else "_control_types"
    return getattr(import_module(f"receptor.{module}"), name)
