"""A conversation with one daemon, on which the typed client and the drop-in ``ReceptorControl`` both stand.

It connects when needed, keeps the two sides in step, and runs the requests that change the mode of their connection.
"""

from __future__ import annotations

import io
import os
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

from receptor import _control_protocol as protocol
from receptor._control_errors import ControlClientError, DisconnectedError, RefusedError
from receptor._control_socket import Address, Connection, TLSOptions, is_readable
from receptor._payload import Buffer, some

_T = TypeVar("_T")
JSON = dict[str, Any]  # Any: a JSON object as it came
_BLOCK_BYTES = 64 * 1024
_IDLE_CONNECTIONS = 8


@runtime_checkable
class Readable(Protocol):
    """Something payload can be read from: a binary file, or what ``socket.makefile("rb")`` returns."""

    def read(self, size: int, /) -> bytes | str:
        """Return up to ``size`` bytes, empty at the end. Text is sent as UTF-8."""
        ...


Payload = Buffer | str | Readable | Iterable[Buffer]


class _Connection(Protocol):
    sock: socket.socket

    def close(self) -> None: ...


_C = TypeVar("_C", bound=_Connection)


class AnySession(Generic[_C]):
    """At most one open connection, with the daemon's greeting read. For one thread, or task, at a time.

    hops: nodes to go on to once connected, by the control services of their names, each with the TLS client entry to
    use for it ("" for none); the session is then one with the last of them.
    """

    def __init__(
        self,
        address: Address,
        tls: TLSOptions | None = None,
        timeout_s: float | None = None,
        hops: Sequence[tuple[str, str]] = (),
    ) -> None:
        self.address = address
        self.node = ""
        self.connection: _C | None = None
        self._tls = tls
        self._timeout_s = timeout_s
        self._hops = tuple(hops)

    def is_stale(self) -> bool:
        """Whether something came, or the connection ended, while nobody had asked: it is of no further use."""
        return self.connection is not None and is_readable(self.connection.sock)

    def close(self) -> None:
        """Close the connection, if any."""
        conn, self.connection = self.connection, None
        if conn is not None:
            conn.close()


_S = TypeVar("_S", bound=AnySession[Any])  # Any: of either kind of connection


class AnyClient(Generic[_S]):
    """The sessions of a client with a daemon, or with another node by way of it (``_hops``)."""

    _session_type: type[_S]

    def __init__(
        self,
        address: str | os.PathLike[str],
        *,
        tls: TLSOptions | None = None,
        timeout_s: float | None = 10.0,
        _hops: tuple[tuple[str, str], ...] = (),
    ) -> None:
        self._address = address
        self._parsed = Address.parse(address)
        self._tls = tls
        self._timeout_s = timeout_s
        self._hops = _hops
        self._node = ""
        self._idle: list[_S] = []  # append and pop are atomic, so threads need no lock

    def __repr__(self) -> str:
        return f"<{type(self).__module__}.{type(self).__qualname__} {self._address} node {self._node or 'unknown'}>"

    @property
    def node(self) -> str:
        """The ID of the node, from its greeting; "" before the first connection."""
        return self._node

    def close(self) -> None:
        """Close the connections; the next request opens a new one. Safe to call twice."""
        while self._idle:
            self._idle.pop().close()

    @contextmanager
    def _session(self) -> Iterator[_S]:
        """Lend a session; it is kept if its connection survives."""
        session = self._idle_session() or self._session_type(self._parsed, self._tls, self._timeout_s, self._hops)
        try:
            yield session
        finally:
            self._node = session.node or self._node
            if session.connection is not None:
                if len(self._idle) < _IDLE_CONNECTIONS:
                    self._idle.append(session)
                else:
                    session.close()

    def _idle_session(self) -> _S | None:
        while self._idle:
            try:
                session = self._idle.pop()
            except IndexError:  # another thread was faster
                return None
            if not session.is_stale():
                return session
            session.close()  # the daemon went away meanwhile; a new one may be there
        return None


class Session(AnySession[Connection]):
    """The one for threads."""

    def open(self) -> Connection:
        """Return the connection, made and greeted if there is none."""
        if self.connection is None:
            conn = Connection.open(self.address, self._tls, self._timeout_s)
            try:
                self.node = conn.greeting(self._timeout_s)
                for hop in self._hops:
                    self.node = _go_on(conn, hop, self._timeout_s)
            except BaseException:
                conn.close()
                raise
            self.connection = conn
        return self.connection

    def go_on(self, node: str, tls_client: str) -> None:
        """Go on to the control service of another node; the daemon's refusal leaves the session where it was."""
        hop = (node, tls_client)
        self.node = self.guarded(lambda conn: _go_on(conn, hop, self._timeout_s))
        self._hops = (*self._hops, hop)

    def hand_over(self) -> Connection:
        """Give the connection away; the next request opens a new one."""
        conn, self.connection = self.open(), None
        return conn

    def guarded(self, talk: Callable[[Connection], _T]) -> _T:
        """Run one exchange. What leaves the two sides out of step costs the connection; a refusal does not."""
        conn = self.open()
        try:
            return talk(conn)
        except RefusedError:
            raise
        except BaseException:
            self.close()
            raise

    def greet(self, timeout_s: float | None = None) -> None:
        """Read a further greeting, that of the control service which a ``connect`` led to."""
        self.node = self.guarded(lambda conn: conn.greeting(timeout_s))

    def request(self, line: bytes, timeout_s: float | None = None) -> JSON:
        """Send a request that does not change the mode of the connection and return the JSON answer."""
        return self.guarded(lambda conn: protocol.parse_reply(conn.request(line, timeout_s)))

    def switch(self, line: bytes, parse: Callable[[str], _T], timeout_s: float | None = None) -> _T:
        """Send a request after whose answer the connection carries something else."""
        return self.guarded(lambda conn: parse(conn.request(line, timeout_s, exact=True)))

    def results(self, line: bytes, timeout_s: float | None = None) -> Connection:
        """Ask for output and return the connection that it comes on, its sending side closed."""
        self.switch(line, protocol.parse_streaming, timeout_s)
        conn = self.hand_over()
        try:
            conn.half_close()
            conn.sock.settimeout(None)
        except BaseException:
            conn.close()
            raise
        return conn

    def submit(
        self,
        line: bytes,
        payload: Payload,
        timeout_s: float | None = None,
        on_created: Callable[[str], object] | None = None,
    ) -> JSON:
        """Create a unit, send its payload, and return the daemon's ``result`` and ``unitid``.

        ``timeout_s`` is for each answer; sending the payload has no limit.
        """
        blocks = _blocks(payload)  # What is no payload is told before there is a unit.

        def create(conn: Connection) -> str:
            conn.send(line, timeout_s)
            return protocol.parse_created(conn.read_line_keeping_newline(timeout_s))

        unit = self.guarded(create)
        conn = self.hand_over()
        try:
            if on_created is not None:
                on_created(unit)
            answer = _upload(conn, blocks, timeout_s)
        except BaseException:
            conn.abort()
            raise
        conn.close()
        return protocol.parse_started(answer)


def _go_on(conn: Connection, hop: tuple[str, str], timeout_s: float | None) -> str:
    node, tls_client = hop
    line = protocol.connect_line(node, "control", tls_client)
    protocol.parse_connecting(conn.request(line, timeout_s, exact=True))
    return conn.greeting(timeout_s)


def _upload(conn: Connection, blocks: Iterable[Buffer], timeout_s: float | None) -> str:
    """Send the payload and its end, and return the line that answers it. What the payload raises is raised."""
    for block in blocks:
        try:
            conn.send(block)
        except DisconnectedError as lost:
            return _last_words(conn, lost, timeout_s)
    try:
        conn.half_close()
    except DisconnectedError as lost:
        return _last_words(conn, lost, timeout_s)
    return conn.read_line(timeout_s)


def _last_words(conn: Connection, lost: DisconnectedError, timeout_s: float | None) -> str:
    """A daemon that cannot go on says so before it closes; its words are worth more than "broken pipe"."""
    try:
        return conn.read_line(timeout_s)
    except ControlClientError:
        raise lost from lost.__cause__


def _blocks(payload: Payload) -> Iterable[Buffer]:
    if isinstance(payload, str):
        return (protocol.as_given(payload),)
    if isinstance(payload, (bytes, bytearray, memoryview)):
        return (payload,)
    if isinstance(payload, Readable):
        return _file_blocks(payload)
    if isinstance(payload, Iterable):
        return payload
    raise TypeError(f"a payload is bytes, str, a binary file or an iterable of bytes, not {type(payload).__name__}")


def _file_blocks(file: Readable) -> Iterable[bytes]:
    read = reader(file)
    while block := read(_BLOCK_BYTES):
        yield protocol.as_given(block) if isinstance(block, str) else block


def reader(file: Readable) -> Callable[[int], bytes | str]:
    """What reads up to so many bytes of ``file``, empty only at the end; ConfigError if it is not ready to be read."""
    # read1 hands over what a pipe has now; read would sit on it until a block is full. But where a non-blocking file
    # has nothing, only read tells that from its end.
    raw = getattr(file, "raw", None)
    waits = not isinstance(raw, io.FileIO) or os.get_blocking(raw.fileno())
    read = getattr(file, "read1", file.read) if waits else file.read
    return lambda size: some(read(size))
