"""The asyncio shell around the control protocol: one connection to a daemon, and one conversation over it.

The twin of ``_control_socket.Connection`` and ``_control_session.Session``. A cancelled exchange costs its connection.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from receptor import _control_protocol as protocol
from receptor import _control_socket as blocking
from receptor._control_errors import (
    ConnectError,
    ControlClientError,
    ControlTimeout,
    DisconnectedError,
    RefusedError,
)
from receptor._control_session import AnySession
from receptor._control_socket import Address, TLSOptions
from receptor._payload import AsyncPayload, async_chunks, check
from receptor._seconds import check_seconds

if TYPE_CHECKING:
    import ssl

_T = TypeVar("_T")
JSON = dict[str, Any]  # Any: a JSON object as it came
_BLOCK_BYTES = 64 * 1024


@asynccontextmanager
async def limited(timeout_s: float | None, what: str) -> AsyncIterator[None]:
    """Raise ControlTimeout if the block takes longer."""
    check_seconds("timeout_s", timeout_s)
    try:
        async with asyncio.timeout(timeout_s) as scope:
            yield
    except TimeoutError:
        if scope.expired():
            raise ControlTimeout(f"{what} within {timeout_s:g} s", hint=blocking.SLOW) from None
        raise


class AsyncConnection:
    """One connection to a control service; for one task at a time, except that one may send while another reads."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.lines = protocol.LineBuffer()
        self._newline_unread = False
        self._loop = asyncio.get_running_loop()

    @classmethod
    async def open(cls, address: Address, tls: TLSOptions | None, timeout_s: float | None) -> AsyncConnection:
        """Connect, with the TLS handshake where the address asks for it. The greeting is not read yet."""
        async with limited(timeout_s, "no connection to the daemon"):
            if address.path:
                return cls(_open_unix(address.path))
            return await cls._open_inet(address, tls or TLSOptions())

    @classmethod
    async def _open_inet(cls, address: Address, tls: TLSOptions) -> AsyncConnection:
        context = tls.context() if address.tls else None
        sock: socket.socket | None = None
        try:
            sock = await _open_tcp(address)
            if context is None:
                return cls(sock)
            conn = cls(context.wrap_socket(sock, server_hostname=address.host, do_handshake_on_connect=False))
            sock = conn.sock
            await conn._handshake(conn.sock)
        except (OSError, ValueError) as e:  # ValueError: a host name that TLS cannot check
            if sock is not None:
                sock.close()
            cause = e.__cause__ if isinstance(e, DisconnectedError) and isinstance(e.__cause__, Exception) else e
            raise blocking.inet_trouble(address, cause) from cause
        except BaseException:
            if sock is not None:
                sock.close()
            raise
        return conn

    async def _handshake(self, sock: socket.socket) -> None:
        secure: ssl.SSLSocket = sock  # type: ignore[assignment]  # made by wrap_socket
        await self._retry(secure.do_handshake)

    def close(self) -> None:
        """Close; safe to call twice. A task that waits for data gets DisconnectedError."""
        if self.sock.fileno() >= 0:
            if not self._loop.is_closed():
                self._loop.remove_reader(self.sock.fileno())
                self._loop.remove_writer(self.sock.fileno())
            self.sock.close()

    def abort(self) -> None:
        """Close so that the daemon sees a reset, where the transport can tell it from an end of input."""
        if self.sock.fileno() >= 0:
            blocking.reset_on_close(self.sock)
            self.close()

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of ``data``."""
        view = memoryview(data)
        while view:
            view = view[await self._retry(lambda view=view: self.sock.send(view), writing=True) :]  # type: ignore[misc]

    async def read_line(self, *, max_bytes: int = protocol.MAX_LINE_BYTES, exact: bool = False) -> str:
        """Return the next line; ``exact``: take nothing past the newline off the socket."""
        if self._newline_unread:
            self._newline_unread = False
            await self._recv(1)
        while (line := self.lines.next_line(max_bytes)) is None:
            self.lines.feed(await self._recv(1 if exact else _BLOCK_BYTES))
        return line

    async def read_some(self) -> bytes:
        """Return what has come, at least one byte; empty at the end."""
        return self.lines.take_rest() or await self._recv(_BLOCK_BYTES)

    async def greeting(self) -> str:
        """Read the greeting and return the node ID in it."""
        return protocol.parse_greeting(await self.read_line(max_bytes=protocol.MAX_GREETING_BYTES, exact=True))

    async def request(self, line: bytes, *, exact: bool = False) -> str:
        """Send one request line and return the line that answers it."""
        await self.send(line)
        return await self.read_line(exact=exact)

    async def read_line_keeping_newline(self) -> str:
        """See ``_control_socket.Connection.read_line_keeping_newline``."""
        if hasattr(self.sock, "pending"):
            return await self.read_line()
        while True:
            seen = await self._recv(4096, socket.MSG_PEEK)
            end = seen.find(b"\n")
            if end < 0:
                self.lines.feed(await self._recv(max(len(seen), 1)))
                self.lines.next_line()  # no line yet: raises if there will be none, or an endless one
                continue
            if end > 0:
                self.lines.feed(await self._recv(end))
            self.lines.feed(b"\n")
            self._newline_unread = True
            line = self.lines.next_line()
            assert line is not None  # its newline has just been fed
            return line

    def half_close(self) -> None:
        """Tell the daemon that nothing more comes, and stay able to read. Under TLS a bare FIN of TCP."""
        try:
            socket.socket.shutdown(self.sock, socket.SHUT_WR)
        except OSError as e:
            raise blocking.lost(e) from e

    async def _recv(self, size: int, flags: int = 0) -> bytes:
        return await self._retry(lambda: self.sock.recv(size, flags))

    async def _retry(self, operation: Callable[[], _T], *, writing: bool = False) -> _T:
        """Run a socket operation, waiting as often as it cannot go on."""
        while True:
            try:
                return operation()
            except (BlockingIOError, InterruptedError):
                pass
            except OSError as e:
                kind = type(e).__name__
                if kind == "SSLWantReadError":
                    writing = False
                elif kind == "SSLWantWriteError":
                    writing = True
                else:
                    raise blocking.lost(e) from e
            await self._ready(writing)

    async def _ready(self, writing: bool) -> None:
        future = self._loop.create_future()

        def wake() -> None:
            if not future.done():
                future.set_result(None)

        fd = self.sock.fileno()
        if fd < 0:
            raise DisconnectedError("the connection was closed")
        (self._loop.add_writer if writing else self._loop.add_reader)(fd, wake)
        try:
            await future
        finally:
            if self.sock.fileno() >= 0:
                (self._loop.remove_writer if writing else self._loop.remove_reader)(fd)


def _open_unix(path: str) -> socket.socket:
    blocking.check_path(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.setblocking(False)
    try:
        sock.connect(path)  # Done at once, or refused; asyncio takes a full queue for a connection that comes about.
    except OSError as e:
        sock.close()
        raise ConnectError(blocking.unix_trouble(path, e)) from e
    except BaseException:
        sock.close()
        raise
    return sock


async def _open_tcp(address: Address) -> socket.socket:
    loop = asyncio.get_running_loop()
    failure: OSError | None = None
    for family, kind, proto, _, place in await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM):
        sock = socket.socket(family, kind, proto)
        sock.setblocking(False)
        try:
            await loop.sock_connect(sock, place)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return sock
        except OSError as e:
            sock.close()
            failure = e
        except BaseException:
            sock.close()
            raise
    raise failure or OSError("the host name has no address")


class AsyncSession(AnySession[AsyncConnection]):
    """The one for tasks."""

    async def open(self) -> AsyncConnection:
        """Return the connection, made and greeted if there is none."""
        if self.connection is None:
            conn = await AsyncConnection.open(self.address, self._tls, self._timeout_s)
            try:
                async with limited(self._timeout_s, "no answer from the daemon"):
                    self.node = await conn.greeting()
                for node, tls_client in self._hops:
                    async with limited(self._timeout_s, "no answer from the daemon"):
                        line = protocol.connect_line(node, "control", tls_client)
                        protocol.parse_connecting(await conn.request(line, exact=True))
                        self.node = await conn.greeting()
            except BaseException:
                conn.close()
                raise
            self.connection = conn
        return self.connection

    async def hand_over(self) -> AsyncConnection:
        """Give the connection away; the next request opens a new one."""
        conn, self.connection = await self.open(), None
        return conn

    async def guarded(self, talk: Callable[[AsyncConnection], Awaitable[_T]], timeout_s: float | None) -> _T:
        """Run one exchange. What leaves the two sides out of step costs the connection; a refusal does not."""
        conn = await self.open()
        try:
            async with limited(timeout_s, "no answer from the daemon"):
                return await talk(conn)
        except RefusedError:
            raise
        except BaseException:
            self.close()
            raise

    async def request(self, line: bytes, timeout_s: float | None) -> JSON:
        """Send a request that does not change the mode of the connection and return the JSON answer."""

        async def talk(conn: AsyncConnection) -> JSON:
            return protocol.parse_reply(await conn.request(line))

        return await self.guarded(talk, timeout_s)

    async def switch(self, line: bytes, parse: Callable[[str], _T], timeout_s: float | None) -> _T:
        """Send a request after whose answer the connection carries something else."""

        async def talk(conn: AsyncConnection) -> _T:
            return parse(await conn.request(line, exact=True))

        return await self.guarded(talk, timeout_s)

    async def results(self, line: bytes, timeout_s: float | None) -> AsyncConnection:
        """Ask for output and return the connection that it comes on, its sending side closed."""
        await self.switch(line, protocol.parse_streaming, timeout_s)
        conn = await self.hand_over()
        try:
            conn.half_close()
        except BaseException:
            conn.close()
            raise
        return conn

    async def submit(
        self,
        line: bytes,
        payload: AsyncPayload,
        timeout_s: float | None,
        on_created: Callable[[str], object] | None,
    ) -> JSON:
        """Create a unit, send its payload, and return the daemon's ``result`` and ``unitid``."""
        check(payload)

        async def create(conn: AsyncConnection) -> str:
            await conn.send(line)
            return protocol.parse_created(await conn.read_line_keeping_newline())

        unit = await self.guarded(create, timeout_s)
        conn = await self.hand_over()
        try:
            if on_created is not None:
                on_created(unit)
            answer = await _upload(conn, payload, timeout_s)
        except BaseException:
            conn.abort()
            raise
        conn.close()
        return protocol.parse_started(answer)


async def _upload(conn: AsyncConnection, payload: AsyncPayload, timeout_s: float | None) -> str:
    """Send the payload and its end, and return the line that answers it. What the payload raises is raised."""
    async for block in async_chunks(payload):
        try:
            await conn.send(block)
        except DisconnectedError as lost:
            return await _last_words(conn, lost, timeout_s)
    try:
        conn.half_close()
    except DisconnectedError as lost:
        return await _last_words(conn, lost, timeout_s)
    return await _answer(conn, timeout_s)


async def _last_words(conn: AsyncConnection, lost: DisconnectedError, timeout_s: float | None) -> str:
    """A daemon that cannot go on says so before it closes; its words are worth more than "broken pipe"."""
    try:
        return await _answer(conn, timeout_s)
    except ControlClientError:
        raise lost from lost.__cause__


async def _answer(conn: AsyncConnection, timeout_s: float | None) -> str:
    async with limited(timeout_s, "no answer from the daemon"):
        return await conn.read_line()
