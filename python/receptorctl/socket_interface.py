"""``ReceptorControl``, the class that programs written for the original client use."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any, BinaryIO, Literal, cast, overload

from receptor import _control_protocol as protocol
from receptor._control_session import Payload, Session
from receptor._control_socket import Address, TLSOptions, choose_tls

_JSON = dict[str, Any]  # Any: a JSON object as the daemon sent it


class ReceptorControl:
    """A client of one daemon's control service.

    socketaddress: a path (``~`` is expanded), ``unix:PATH``, ``tcp://HOST:PORT`` or ``tls://HOST:PORT``.
    config, tlsclient: a daemon configuration file and the name of the ``tls-client`` entry in it to use for ``tls:``.
    rootcas, key, cert: the same given one by one, as paths of PEM files.
    insecureskipverify: do not compare the host name with the certificate.
    timeout_s: for connecting and for each answer; None waits as long as it takes.

    It connects at the first command, or with ``connect``, and again after whatever used up the connection. Every error
    is a ``RuntimeError`` with the daemon's text; see ``receptor.control`` for the finer classes. Not for use by several
    threads at once. Works as a context manager.
    """

    def __init__(
        self,
        socketaddress: str,
        config: str | None = None,
        tlsclient: str | None = None,
        rootcas: str | None = None,
        key: str | None = None,
        cert: str | None = None,
        insecureskipverify: bool = False,
        *,
        timeout_s: float | None = None,
    ) -> None:
        given = TLSOptions(rootcas, key, cert, insecureskipverify)
        tls = choose_tls(config, tlsclient, given)
        self._timeout_s = timeout_s
        self._session = Session(Address.parse(str(socketaddress)), tls, timeout_s)
        self._file: tuple[socket.socket, BinaryIO] | None = None

    def __enter__(self) -> ReceptorControl:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<ReceptorControl {self._session.address} {'open' if self._session.connection else 'closed'}>"

    @property
    def node_id(self) -> str:
        """The ID of the node at the other end, from the last greeting; "" before the first."""
        return self._session.node

    @property
    def _socket(self) -> socket.socket | None:
        """The connection's socket: after ``connect_to_service`` this is the way to the service."""
        return self._session.connection.sock if self._session.connection else None

    @property
    def _sockfile(self) -> BinaryIO | None:
        """A binary file over ``_socket``, for reading and writing. Nothing that belongs to it was read ahead."""
        sock = self._socket
        if sock is None:
            return None
        if self._file is None or self._file[0] is not sock:
            self._file = (sock, cast(BinaryIO, sock.makefile("rwb")))
        return self._file[1]

    def connect(self) -> None:
        """Connect and read the greeting, unless that is done already."""
        self._session.open()

    def close(self) -> None:
        """Close the connection. The next command opens a new one."""
        held, self._file = self._file, None
        if held is not None:
            held[1].close()
        self._session.close()

    def handshake(self) -> None:
        """Read a greeting: that of a control service reached by ``connect_to_service``."""
        self._session.greet(self._timeout_s)

    def simple_command(self, command: str) -> _JSON:
        """Send one command, text or JSON, and return the daemon's JSON answer.

        Raises RuntimeError with the daemon's text if it refuses.
        """
        return self._session.request(protocol.request_line(command), self._timeout_s)

    def connect_to_service(self, node: str, service: str, tlsclient: str | None = None) -> None:
        """Turn the connection into one to ``service`` of ``node``; ``tlsclient`` names an entry of the daemon's."""
        line = protocol.connect_line(node, service, tlsclient or "")
        self._session.switch(line, protocol.parse_connecting, self._timeout_s)

    def submit_work(
        self,
        worktype: str,
        payload: Payload,
        node: str | None = None,
        tlsclient: str | None = None,
        ttl: str | None = None,
        signwork: bool = False,
        params: Mapping[str, str] | None = None,
    ) -> _JSON:
        """Start a unit of work and return the daemon's answer, with ``result`` and ``unitid``.

        payload: bytes, text, or an open binary file such as ``socket.makefile("rb")``, which is sent as it comes.
        node: where to run it; None is the node at the other end. ttl: a duration such as ``1h20m30s``.
        """
        line = protocol.submit_line(worktype, node, tlsclient, ttl, bool(signwork), params)
        return self._session.submit(line, payload, self._timeout_s)

    @overload
    def get_work_results(
        self,
        unit_id: str,
        startpos: int = 0,
        return_socket: Literal[False] = False,
        return_sockfile: Literal[True] = True,
    ) -> BinaryIO: ...
    @overload
    def get_work_results(
        self, unit_id: str, startpos: int = 0, *, return_socket: Literal[True], return_sockfile: Literal[True] = True
    ) -> tuple[socket.socket, BinaryIO]: ...
    @overload
    def get_work_results(
        self, unit_id: str, startpos: int = 0, *, return_socket: Literal[True], return_sockfile: Literal[False]
    ) -> socket.socket: ...
    @overload
    def get_work_results(
        self, unit_id: str, startpos: int = 0, return_socket: bool = False, return_sockfile: bool = True
    ) -> BinaryIO | socket.socket | tuple[socket.socket, BinaryIO] | None: ...
    def get_work_results(
        self, unit_id: str, startpos: int = 0, return_socket: bool = False, return_sockfile: bool = True
    ) -> BinaryIO | socket.socket | tuple[socket.socket, BinaryIO] | None:
        """Return the output of a unit from byte ``startpos`` on: as a binary file, as the socket, or (socket, file).

        The end of the file is the end of the unit; the caller closes what was returned.
        """
        line = protocol.words_line("work", "results", unit_id, str(startpos))
        conn = self._session.results(line, self._timeout_s)
        if not return_sockfile:
            if return_socket:
                return conn.sock
            conn.close()
            return None
        file = cast(BinaryIO, conn.sock.makefile("rb"))
        if return_socket:
            return conn.sock, file
        conn.close()  # the file keeps the connection open until it is closed itself
        return file
