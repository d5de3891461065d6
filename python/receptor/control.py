"""A typed client for the control service of any Receptor daemon.

    from receptor import control

    with control.connect("/run/receptor/receptor.sock") as daemon:
        print(daemon.status().node, daemon.ping("edge-7").rtt)
        job = daemon.work.submit("edge-7", "backup", payload=open("in.tar", "rb"), params={"params": "--fast"})
        with daemon.work.results(job.unit) as output:
            shutil.copyfileobj(output, sys.stdout.buffer)
        print(daemon.work.status(job.unit).detail)
        daemon.work.release(job.unit)

It works against this project's daemon and against compatible ones, over a Unix socket, TCP or TLS. Simple requests
share one connection, which is opened when first needed and again after an error; a submit and a stream of results use
up the connection they run on. A client is not for use by several threads at once: open one for each.

Waiting calls take ``timeout_s``; None means to wait as long as it takes. Errors are ``ControlClientError`` with a
stable ``code`` (the tree is at the top of ``receptor/_control_errors.py``). Results are the frozen values of
``receptor.types``, whose ``raw`` keeps the JSON as it came.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar, cast

from receptor import _control_protocol as protocol
from receptor._control_errors import (
    AddressError,
    ConnectError,
    ControlClientError,
    ControlProtocolError,
    ControlTimeout,
    DisconnectedError,
    OptionsError,
    RefusedError,
    refusal,
)
from receptor._control_session import Payload, Readable, Session
from receptor._control_socket import Address, TLSOptions, tls_options_from_config

if TYPE_CHECKING:  # at run time they are loaded by the methods that need them: a third of the start of receptorctl
    from receptor.types import Hop, PingResult, Status, UnitStatus

__all__ = [
    "AddressError",
    "ConnectError",
    "ControlClient",
    "ControlClientError",
    "ControlProtocolError",
    "ControlTimeout",
    "DisconnectedError",
    "OptionsError",
    "Payload",
    "Readable",
    "RefusedError",
    "Submitted",
    "TLSOptions",
    "Work",
    "connect",
    "tls_options_from_config",
]

_T = TypeVar("_T")
JSON = dict[str, Any]  # Any: a JSON object as it came


@dataclass(frozen=True, slots=True)
class Submitted:
    """A unit of work that was accepted. ``result`` is the daemon's word: ``Job Started`` or ``Job Submitted``."""

    unit: str
    result: str

    @property
    def started(self) -> bool:
        """The executor has the unit and its payload. Otherwise the daemon goes on trying to reach it."""
        return self.result == "Job Started"


def connect(
    address: str,
    *,
    tls: TLSOptions | None = None,
    timeout_s: float | None = 10.0,
) -> ControlClient:
    """Connect to the control service at ``address`` and read its greeting.

    address: a path, ``unix:PATH``, ``tcp://HOST:PORT`` or ``tls://HOST:PORT``.
    timeout_s: for connecting and for the greeting, here and whenever the client has to connect again.
    Raises AddressError, OptionsError, ConnectError, ControlTimeout, ControlProtocolError or DisconnectedError.
    """
    client = ControlClient(address, tls=tls, timeout_s=timeout_s)
    client.open()
    return client


class ControlClient:
    """See the module. Made by ``connect``; made directly it connects at the first request."""

    def __init__(self, address: str, *, tls: TLSOptions | None = None, timeout_s: float | None = 10.0) -> None:
        self._session = Session(Address.parse(address), tls, timeout_s)
        self.work = Work(self._session)

    def __enter__(self) -> ControlClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def node(self) -> str:
        """The ID of the node, from its greeting; "" before the first connection."""
        return self._session.node

    def open(self) -> None:
        """Connect and read the greeting, unless that is done."""
        self._session.open()

    def close(self) -> None:
        """Close the connection; the next request opens a new one. Safe to call twice."""
        self._session.close()

    def request(self, line: bytes, *, timeout_s: float | None = None) -> JSON:
        """Send a request line that does not change the mode of the connection and return the JSON answer."""
        return self._session.request(line, timeout_s)

    def command(self, text: str, *, timeout_s: float | None = None) -> JSON:
        """Send any one-line command, text or JSON, and return the JSON answer."""
        return self.request(protocol.request_line(text), timeout_s=timeout_s)

    def status(self, *, timeout_s: float | None = 30.0) -> Status:
        """Return what the node knows of itself and the mesh."""
        from receptor.types import Status

        return _decoded(Status.from_json, self.command("status", timeout_s=timeout_s))

    def version(self, *, timeout_s: float | None = 30.0) -> str:
        """Return the version of the daemon; it may be empty in unreleased builds."""
        reply = self.command('{"command":"status","requested_fields":["Version"]}', timeout_s=timeout_s)
        return _decoded(lambda reply: str(reply["Version"]), reply)

    def ping(self, node: str, *, timeout_s: float | None = 15.0) -> PingResult:
        """Send one probe to ``node``; the daemon itself waits for up to 10 s.

        Raises RefusedError with code ``no_route``, ``timeout``, ``service_unknown``, ``expired`` or ``firewall``.
        """
        from receptor.types import PingResult

        reply = self.request(protocol.words_line("ping", node), timeout_s=timeout_s)
        if reply.get("Success") is not True:
            raise refusal(_error_of(reply), reply=reply)
        return _decoded(lambda reply: PingResult(str(reply["From"]), _rtt(reply)), reply)

    def traceroute(self, node: str, *, timeout_s: float | None = None) -> list[Hop]:
        """Return the hops towards ``node`` in order; each can take the daemon 10 s. A failed hop is the last one."""
        reply = self.request(protocol.words_line("traceroute", node), timeout_s=timeout_s)
        return _decoded(_hops, reply)

    def reload(self, *, timeout_s: float | None = None) -> None:
        """Make the daemon read its configuration file again; raises RefusedError if it keeps the old one."""
        reply = self.command("reload", timeout_s=timeout_s)
        if reply.get("Success") is not True:
            raise refusal(_error_of(reply), reply=reply)

    def connect_service(
        self, node: str, service: str, *, tls_client: str = "", timeout_s: float | None = None
    ) -> socket.socket:
        """Return a blocking socket whose other end is ``service`` of ``node``. The caller closes it.

        tls_client: name of a ``tls-client`` entry in the daemon's configuration.
        """
        self._session.switch(protocol.connect_line(node, service, tls_client), protocol.parse_connecting, timeout_s)
        sock = self._session.hand_over().sock
        sock.settimeout(None)
        return sock

    def hop_to(self, node: str, *, tls_client: str = "", timeout_s: float | None = None) -> None:
        """Turn this client's connection into one to the control service of ``node``.

        It lasts until the connection is closed, or used up by a submit or a stream of results.
        """
        self._session.switch(protocol.connect_line(node, "control", tls_client), protocol.parse_connecting, timeout_s)
        self._session.greet(timeout_s)


class Work:
    """Work units of the node that a ``ControlClient`` talks to; its attribute ``work``."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def submit(
        self,
        node: str | None,
        worktype: str,
        payload: Payload = b"",
        *,
        params: Mapping[str, str] | None = None,
        tls_client: str | None = None,
        ttl_s: float | str | None = None,
        sign: bool = False,
        timeout_s: float | None = None,
        on_created: Callable[[str], object] | None = None,
    ) -> Submitted:
        """Start one unit of work on ``node`` (None: the node this client talks to).

        payload: bytes, text, an open binary file, or an iterable of bytes. Files and iterables are sent as they come
            and never held whole. If reading them fails, the upload is reset, so that the unit fails (not under TLS to
            a peer that cannot tell a reset) instead of running on half of its input, and the error is raised.
        ttl_s: seconds until the daemon gives up on a remote unit that has not started; text is passed on as it is.
        timeout_s: for each answer of the daemon; sending the payload has no limit.
        on_created: called with the unit's ID before the payload is sent.
        Raises RefusedError with code ``work_type``, ``signature`` and others.
        """
        line = protocol.submit_line(worktype, node, tls_client, _ttl_text(ttl_s), sign, params)
        started = self._session.submit(line, payload, timeout_s, on_created)
        return Submitted(started["unitid"], started["result"])

    def list(self, unit: str | None = None, *, timeout_s: float | None = 30.0) -> dict[str, UnitStatus]:
        """Return all units by ID, or only ``unit``."""
        from receptor.types import UnitStatus

        words = ("work", "list", unit) if unit else ("work", "list")
        reply = self._session.request(protocol.words_line(*words), timeout_s)
        return _decoded(lambda reply: {unit: UnitStatus.from_json(unit, raw) for unit, raw in reply.items()}, reply)

    def status(self, unit: str, *, timeout_s: float | None = 30.0) -> UnitStatus:
        """Return the state of ``unit``; RefusedError with code ``unit_unknown`` if there is none."""
        from receptor.types import UnitStatus

        reply = self._session.request(protocol.words_line("work", "status", unit), timeout_s)
        return _decoded(lambda raw: UnitStatus.from_json(unit, raw), reply)

    def results(self, unit: str, *, offset: int = 0, timeout_s: float | None = None) -> BinaryIO:
        """Return the output of ``unit`` from byte ``offset`` on, as a binary file to read from and close.

        It ends when the unit is complete and everything has been read. ``status`` tells afterwards how it went.
        """
        conn = self._session.results(protocol.words_line("work", "results", unit, str(offset)), timeout_s)
        try:
            return cast(BinaryIO, conn.sock.makefile("rb"))
        finally:
            conn.close()  # the file keeps the connection open until it is closed itself

    def cancel(self, unit: str, *, timeout_s: float | None = None) -> bool:
        """Stop ``unit``. Its directory and output stay until it is released.

        Returns whether a confirmation of another node is still due.
        """
        return self._stop("cancel", unit, {"cancelled": False, "cancel pending": True}, timeout_s)

    def release(self, unit: str, *, force: bool = False, timeout_s: float | None = None) -> bool:
        """Stop ``unit`` if need be and delete all of it.

        force: delete it here at once, even if the node that runs it cannot be told.
        Returns whether a confirmation of another node is still due.
        """
        verb = "force-release" if force else "release"
        return self._stop(verb, unit, {"released": False, "release pending": True}, timeout_s)

    def _stop(self, verb: str, unit: str, pending: Mapping[str, bool], timeout_s: float | None) -> bool:
        reply = self._session.request(protocol.words_line("work", verb, unit), timeout_s)
        for key, value in reply.items():
            if key in pending and value == unit:
                return pending[key]
        raise ControlProtocolError(f"the answer to work {verb} {unit} does not confirm that unit")


def _ttl_text(ttl_s: float | str | None) -> str | None:
    if ttl_s is None or isinstance(ttl_s, str):
        return ttl_s
    return f"{ttl_s:f}".rstrip("0").rstrip(".") + "s"


def _decoded(decode: Callable[[JSON], _T], reply: JSON) -> _T:
    """Decode an answer; one that lacks what is needed, or has it in another shape, is a fault of the other side."""
    try:
        return decode(reply)
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as e:
        raise ControlProtocolError(f"the daemon's answer cannot be used: {type(e).__name__}: {e}") from e


def _hops(reply: JSON) -> list[Hop]:
    from receptor.types import Hop

    if not all(re.fullmatch("[0-9]{1,9}", key) for key in reply):
        raise ValueError("a hop is not a number")
    return [
        Hop(int(key), str(hop["From"]), _rtt(hop), refusal(_error_of(hop), reply=hop) if "Error" in hop else None)
        for key in sorted(reply, key=int)
        for hop in [reply[key]]
    ]


def _rtt(reply: JSON) -> timedelta:
    return timedelta(microseconds=int(reply["Time"]) / 1000)


def _error_of(reply: JSON) -> str:
    error = reply.get("Error")
    return error if isinstance(error, str) else "the daemon did not say why"
