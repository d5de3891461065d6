"""The typed client for asyncio: ``receptor.aio.connect``. See ``receptor.control``, whose twin this is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self, TypeVar

from . import _control_ops as ops
from . import _control_protocol as protocol
from ._aio_control import AsyncConnection, AsyncSession, limited
from ._aio_session import Opening, check_asyncio
from ._closing import AsyncClosable
from ._control_errors import NotOfferedError, RefusedError
from ._control_events import DaemonEvent, EventDecoder
from ._control_exec import END_OF_INPUT, AnyExec, exec_line, input_frames, parse_exec, resize_frame, signal_frame
from ._control_exec import Output as ExecOutput
from ._control_session import AnyClient
from ._control_socket import TLSOptions
from ._control_types import About, Links, Topology
from ._ops import check as checked
from ._payload import AsyncPayload
from ._units import AsyncUnit
from .types import Hop, PingResult, Status, UnitStatus, WorkResult

if TYPE_CHECKING:
    import os
    import socket

_T = TypeVar("_T")
JSON = dict[str, Any]  # Any: a JSON object as it came


def connect(
    address: str | os.PathLike[str], *, tls: TLSOptions | None = None, timeout_s: float | None = 10.0
) -> Opening[Client]:
    """Connect to the control service at ``address``; to be awaited, or entered with ``async with``.

    The arguments and errors are those of :func:`receptor.connect`.
    """
    return Opening(_open(Client(address, tls=tls, timeout_s=timeout_s)))


async def _open(client: Client) -> Client:
    check_asyncio()
    await client.open()
    return client


class Client(AnyClient[AsyncSession], AsyncClosable):
    """A daemon's control service. Any number of tasks may use it at a time; made by ``connect``."""

    _session_type = AsyncSession

    @cached_property
    def work(self) -> Work:
        """Units of work: submit them, look at them, end them."""
        return Work(self)

    async def open(self) -> None:
        """Connect and read the greeting, unless that is done."""
        with self._session() as session:
            await session.open()

    def at(self, node: str, *, tls_client: str = "") -> Client:
        """Return a client of another node's control service, reached through this one's daemon. Close it too."""
        hops = (*self._hops, (node, tls_client))
        return Client(self._address, tls=self._tls, timeout_s=self._timeout_s, _hops=hops)

    async def command(self, text: str, *, timeout_s: float | None = None) -> JSON:
        """Send any one-line command, text or JSON, and return the JSON answer."""
        return await self._run(ops.raw(text), timeout_s)

    async def request(self, command: str, *, timeout_s: float | None = 30.0) -> JSON:
        """Send a command that others than ours may not have, and return its JSON answer; or raise NotOfferedError."""
        return await self._run(ops.addition(command), timeout_s)

    # The mesh.

    async def status(self, *, timeout_s: float | None = 30.0) -> Status:
        """Return what the node knows of itself and the mesh."""
        return await self._run(ops.status(), timeout_s)

    async def version(self, *, timeout_s: float | None = 30.0) -> str:
        """Return the version of the daemon; it may be empty in unreleased builds."""
        return await self._run(ops.version(), timeout_s)

    async def about(self, *, timeout_s: float | None = 30.0) -> About:
        """Return what the daemon says of itself: its implementation, commands, clock."""
        try:
            return await self._run(ops.about(time.time()), timeout_s)
        except NotOfferedError:
            return await self._run(ops.about_from_status(), timeout_s)

    async def ping(self, node: str, *, timeout_s: float | None = 15.0) -> PingResult:
        """Send one probe to ``node``; the daemon itself waits for up to 10 s.

        Raises RefusedError with code ``no_route``, ``timeout``, ``service_unknown``, ``expired`` or ``firewall``.
        """
        return await self._run(ops.ping(node), timeout_s)

    async def traceroute(self, node: str, *, timeout_s: float | None = None) -> list[Hop]:
        """Return the hops towards ``node`` in order; each can take the daemon 10 s. A failed hop is the last one."""
        return await self._run(ops.traceroute(node), timeout_s)

    async def topology(self, *, timeout_s: float | None = 30.0) -> Topology:
        """Return the mesh as the node knows it: nodes, links with their costs, services."""
        try:
            return await self._run(ops.topology(), timeout_s)
        except NotOfferedError:
            return await self._run(ops.topology_from_status(), timeout_s)

    async def links(self, *, timeout_s: float | None = 30.0) -> Links:
        """Return the node's dialers, listeners and links, with the reasons of failures; or raise NotOfferedError."""
        return await self._run(ops.links(), timeout_s)

    async def config(self, *, timeout_s: float | None = 30.0) -> list[JSON]:
        """Return the directives that the daemon runs, secrets hidden; or raise NotOfferedError."""
        return await self._run(ops.config(), timeout_s)

    async def metrics(self, *, timeout_s: float | None = 30.0) -> str:
        """Return the metrics in the Prometheus text format; or raise NotOfferedError."""
        return await self._run(ops.metrics(), timeout_s)

    async def reload(self, *, dry_run: bool = False, timeout_s: float | None = None) -> list[str]:
        """Make the daemon read its configuration again; raises RefusedError if it keeps the old one.

        Returns what changed, in words; empty of daemons that do not say. dry_run: change nothing, or NotOfferedError.
        """
        if dry_run and not (await self.about()).implementation:  # to another daemon it would be a reload
            raise ops.not_offered(self._node, "reload dry-run")
        return await self._run(ops.reload(dry_run), timeout_s)

    def connect(
        self, node: str, service: str, *, tls_client: str = "", timeout_s: float | None = None
    ) -> Opening[ServiceStream]:
        """Connect to ``service`` of ``node``; to be awaited, or entered with ``async with``.

        tls_client: name of a ``tls-client`` entry in the daemon's configuration.
        """
        line = protocol.connect_line(node, service, tls_client)
        return Opening(self._connect(line, timeout_s))

    async def _connect(self, line: bytes, timeout_s: float | None) -> ServiceStream:
        with self._session() as session:
            await session.switch(line, protocol.parse_connecting, timeout_s)
            return ServiceStream(await session.hand_over())

    async def events(
        self,
        *kinds: str,
        node: str | None = None,
        unit: str | None = None,
        snapshot: bool = True,
        timeout_s: float | None = None,
    ) -> AsyncIterator[DaemonEvent]:
        """Yield what is there now, SnapshotComplete, and then every change, until the daemon ends; or NotOfferedError.

        kinds: of ``link``, ``route``, ``service`` and ``unit``; none means all. node, unit: only what concerns these.
        snapshot: False leaves out what is there now. timeout_s: seconds to wait for the next event.
        """
        line = ops.events_line(kinds, node, unit, snapshot)
        decoder = EventDecoder()
        with self._session() as session:
            conn = await session.hand_over()
        try:
            async with limited(self._timeout_s, "no answer from the daemon"):
                text = await conn.request(line)
            ops.check_offered(text, "events", self._node)
            while True:
                for event in decoder.feed(text):
                    yield event
                async with limited(timeout_s, "no event"):
                    text = await conn.read_line()
        finally:
            conn.close()

    # How.

    async def _run(self, request: ops.Request[_T], timeout_s: float | None) -> _T:
        with self._session() as session:
            try:
                reply = await session.request(request.line, timeout_s)
            except RefusedError as e:
                raise request.refused(e, session.node) from None
        return request.answer(reply)


class ServiceStream(AsyncClosable):
    """A stream to a service of a node. ``async with`` closes it."""

    def __init__(self, conn: AsyncConnection) -> None:
        self._conn = conn

    async def read(self, *, timeout_s: float | None = None) -> bytes:
        """Return what has come, waiting for at least one byte; empty at the end."""
        async with limited(timeout_s, "nothing came"):
            return await self._conn.read_some()

    async def write(self, data: bytes, *, timeout_s: float | None = None) -> None:
        """Send all of ``data``."""
        async with limited(timeout_s, "nothing was taken"):
            await self._conn.send(data)

    def end(self) -> None:
        """Say that no more is coming, and stay able to read."""
        self._conn.half_close()

    def close(self) -> None:
        """Close it. Safe to call twice."""
        self._conn.close()


class Work:
    """Units of work of the node that a ``Client`` talks to; its attribute ``work``."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def submit(
        self,
        node: str | None,
        worktype: str,
        payload: AsyncPayload = b"",
        *,
        params: Mapping[str, object] | None = None,
        tls_client: str | None = None,
        ttl_s: float | str | None = None,
        sign: bool = False,
        timeout_s: float | None = None,
        on_created: Callable[[str], object] | None = None,
    ) -> Opening[ClientUnit]:
        """Start a unit on ``node`` (None: the client's own); to be awaited, or entered with ``async with``.

        payload: bytes, text, a file open in mode "rb", an iterable or an asynchronous iterable of bytes, sent as it
            comes and never held whole in memory. Files and iterables are read in a thread. If that fails, or the task
            is cancelled, the upload is reset, so that the unit fails instead of running on half of its input.
        params: parameters of the work type; values are sent as text.
        ttl_s: seconds until the daemon gives up on a remote unit that has not started; text is passed on as it is.
        timeout_s: for each answer of the daemon; sending the payload has no limit.
        on_created: called with the unit's ID before the payload is sent.
        """
        line = ops.submit_line(worktype, node, tls_client, ttl_s, sign, params)
        return Opening(self._submit(line, payload, timeout_s, on_created))

    async def _submit(
        self,
        line: bytes,
        payload: AsyncPayload,
        timeout_s: float | None,
        on_created: Callable[[str], object] | None,
    ) -> ClientUnit:
        with self._client._session() as session:
            started = await session.submit(line, payload, timeout_s, on_created)
        return ClientUnit(started["unitid"], self._client, started["result"])

    async def get(self, unit_id: str) -> ClientUnit:
        """Return a unit that exists, by its ID. Raises UnitNotFound."""
        unit = self.unit(unit_id)
        await unit.status()
        return unit

    def unit(self, unit_id: str) -> ClientUnit:
        """Return the unit of this ID without asking the daemon whether there is one."""
        return ClientUnit(unit_id, self._client)

    async def list(self, unit: str | None = None, *, timeout_s: float | None = 30.0) -> dict[str, UnitStatus]:
        """Return all units by ID, or only ``unit``."""
        return await self._client._run(ops.unit_list(unit), timeout_s)

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
    ) -> Opening[Exec]:
        """Run a command while watching it, as ssh does: in a terminal, or with three pipes; or raise NotOfferedError.

        params: the command's parameters, split as a shell does. worktype: a work type of ``node`` that allows it.
        timeout_s: for the answer of the daemon. Leaving its ``async with`` hangs up.
        """
        line = exec_line(node, worktype, params, tty, rows, cols, term, tls_client, sign)
        return Opening(self._exec(line, timeout_s))

    async def _exec(self, line: bytes, timeout_s: float | None) -> Exec:
        with self._client._session() as session:
            try:
                unit = await session.switch(line, parse_exec, timeout_s)
            except RefusedError as e:
                raise ops.exec_refused(e, session.node) from None
            return Exec(await session.hand_over(), unit)


class ClientUnit(AsyncUnit):
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

    async def status(self, *, timeout_s: float | None = 30.0) -> UnitStatus:
        """Return how it stands. Raises UnitNotFound."""
        return await self._client._run(ops.unit_status(self._id), timeout_s)

    def stdout(self, offset: int = 0, *, timeout_s: float | None = None) -> Output:
        """Return its output from byte ``offset`` on, for ``async for``: each chunk as it arrives, until it is complete.

        A connection that is lost, to a daemon that restarts for instance, is made again, and the output goes on at the
        exact byte. timeout_s: seconds to wait for the next chunk.
        """
        return Output(self, offset, timeout_s)

    async def open_stdout(self, offset: int = 0) -> socket.socket:
        """Return its output from byte ``offset`` on as a non-blocking socket; one connection, not made again."""
        with self._client._session() as session:
            return (await session.results(ops.results_line(self._id, offset), self._client._timeout_s)).sock

    async def wait(self, *, timeout_s: float | None = None, check: bool = True) -> WorkResult:
        waiting = ops.Waiting(self._id, timeout_s)
        while True:
            try:
                status = await self._client._run(waiting.request(), waiting.limit_s())
                pause_s = waiting.pause_after(status)
            except ops.LOST as e:
                pause_s = waiting.pause_after_loss(e)
            if pause_s is None:
                break
            await asyncio.sleep(pause_s)
        result = WorkResult.of(status)
        return checked(result) if check else result

    async def cancel(self, *, timeout_s: float | None = None) -> bool:
        """End it. Its output stays until it is released.

        True if the executing node has confirmed it; else it will be told when it can be reached.
        """
        return await self._client._run(ops.cancel(self._id), timeout_s)

    async def release(self, *, force: bool = False, timeout_s: float | None = None) -> bool:
        confirmed = await self._client._run(ops.release(self._id, force), timeout_s)
        self._detached = True
        return confirmed


class Output(AsyncIterator[bytes], AsyncClosable):
    """Output of a unit, for ``async for`` in one task; ``offset`` counts the bytes taken.

    A cancelled or timed-out wait loses nothing: go on with the same object. ``close`` stops early.
    """

    def __init__(self, unit: ClientUnit, offset: int, timeout_s: float | None) -> None:
        self._unit = unit
        self._cursor = ops.OutputCursor(unit.id, offset)
        self._timeout_s = timeout_s
        self._conn: AsyncConnection | None = None
        self._ended = False

    @property
    def offset(self) -> int:
        """Where the next chunk begins."""
        return self._cursor.offset

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        chunk = await self.read()
        if not chunk:
            raise StopAsyncIteration
        return chunk

    async def read(self) -> bytes:
        """Return the next chunk; empty once the unit is complete and all has been read."""
        while not self._ended:
            try:
                if self._conn is None:
                    self._conn = await self._open()
                async with limited(self._timeout_s, f"output of unit {self._unit.id}: nothing came"):
                    chunk = await self._conn.read_some()
                if chunk:
                    self._cursor.took(len(chunk))
                    return chunk
                self.close()
                status = await self._unit.status()
            except ops.LOST as e:
                self.close()
                await asyncio.sleep(self._cursor.patience.pause_after(e))
            else:
                self._ended = self._cursor.finished(status)
        return b""

    async def _open(self) -> AsyncConnection:
        client = self._unit._client
        with client._session() as session:
            conn = await session.results(self._cursor.line(), client._timeout_s)
        self._cursor.patience.reset()
        return conn

    def close(self) -> None:
        """Stop reading. Safe to call twice."""
        if self._conn is not None:
            self._conn.close()
            self._conn = None

    def __del__(self) -> None:
        self.close()


class Exec(AnyExec, AsyncClosable):
    """A command that runs while the program watches. One task may send while another reads. Leaving it hangs up."""

    def __init__(self, conn: AsyncConnection, unit: str) -> None:
        super().__init__(unit)
        self._conn = conn

    async def send(self, data: bytes) -> None:
        """Send input."""
        await self._send(input_frames(data))

    async def end_input(self) -> None:
        """Say that no more input comes."""
        await self._send(END_OF_INPUT)

    async def resize(self, rows: int, cols: int) -> None:
        """Tell a terminal its new size."""
        await self._send(resize_frame(rows, cols))

    async def signal(self, name: str) -> None:
        """Send a signal such as ``INT`` or ``TERM``.

        It overtakes input that the command has not taken, if that is no more than 1 MiB; ``taken_bytes`` tells.
        """
        await self._send(signal_frame(name))

    async def output(self, *, timeout_s: float | None = None) -> AsyncIterator[ExecOutput]:
        """Yield what the command writes, until it has ended. timeout_s: seconds to wait for the next piece."""
        while self._reader.status is None:
            async with limited(timeout_s, "nothing came"):
                data = await self._conn.read_some()
            for part in self._reader.feed(data):
                yield part

    def close(self) -> None:
        """Hang up: the command gets SIGHUP. Safe to call twice."""
        self._conn.close()

    async def _send(self, frames: bytes) -> None:
        if self._reader.status is None:
            await self._conn.send(frames)
