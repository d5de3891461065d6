"""The blocking shell around the control protocol: addresses, TLS, and one connection to a daemon."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import select
import socket
import stat
import struct
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from receptor import _control_protocol as protocol
from receptor._control_errors import (
    AddressError,
    ConnectError,
    ControlClientError,
    ControlTimeout,
    DisconnectedError,
    OptionsError,
)
from receptor._seconds import check_seconds

if TYPE_CHECKING:  # the module costs 15 ms, which a Unix socket must not pay
    import ssl

_INET = re.compile(
    r"(?P<scheme>tcp|tls):(?://)?(?:\[(?P<ip6>[0-9a-fA-F:.]+)\]|(?P<host>[a-zA-Z0-9_.:-]+)):(?P<port>\d+)"
)
_UNIX = re.compile(r"(?:unix:(?://)?)?(?P<path>[^:]+)")
_ADDRESSES = "use a path, unix:PATH, tcp://HOST:PORT or tls://HOST:PORT"
_BLOCK_BYTES = 64 * 1024
_YES = frozenset({"true", "t", "yes", "y", "on", "1"})  # "false" in quotes must not switch a check off


@dataclass(frozen=True, slots=True)
class Address:
    """Where a control service listens: a Unix socket (``path``), or ``host`` and ``port``, with or without TLS.

    >>> Address.parse("tls://hub.example:2222")
    Address(path='', host='hub.example', port=2222, tls=True)
    """

    path: str = ""
    host: str = ""
    port: int = 0
    tls: bool = False

    @classmethod
    def parse(cls, text: str | os.PathLike[str]) -> Address:
        """Read ``[unix:[//]]PATH`` (``~`` is expanded), ``tcp:[//]HOST:PORT`` or ``tls:[//]HOST:PORT``, or a path."""
        if isinstance(text, os.PathLike):
            return cls(path=os.path.expanduser(os.fsdecode(text)))
        if not isinstance(text, str):
            raise AddressError(f"Invalid socket address {text!r}", hint=_ADDRESSES)
        if match := _INET.fullmatch(text):
            port = int(match["port"])
            if port > 65535:
                raise AddressError(f"Invalid socket address {text}", hint="a port is at most 65535")
            return cls(host=match["ip6"] or match["host"], port=port, tls=match["scheme"] == "tls")
        if match := _UNIX.fullmatch(text):
            return cls(path=os.path.expanduser(match["path"]))
        raise AddressError(
            f"Invalid socket address {text}",
            hint=_ADDRESSES,
        )


@dataclass(frozen=True, slots=True)
class TLSOptions:
    """How to prove who we are and to check who they are, for ``tls:`` addresses. All paths are of PEM files.

    rootcas: CAs to trust; None means those of the system.
    key, cert: what to show when the daemon demands a client certificate.
    insecure_skip_verify: do not compare the host name with the certificate. The chain is verified all the same.
    """

    rootcas: str | None = None
    key: str | None = None
    cert: str | None = None
    insecure_skip_verify: bool = False

    def context(self) -> ssl.SSLContext:
        """Return a context for one or more connections; TLS 1.2 at least."""
        import ssl

        try:
            context = ssl.create_default_context(cafile=self.rootcas)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.check_hostname = not self.insecure_skip_verify
            if self.cert:
                context.load_cert_chain(self.cert, self.key)
        except OSError as e:
            files = ", ".join(f for f in (self.rootcas, self.key, self.cert) if f)
            keyless = isinstance(e, ssl.SSLError) and self.cert and not self.key
            hint = f"{self.cert} holds no key: name the file that does with --key" if keyless else ""
            raise OptionsError(f"could not load the TLS files {files}: {e}", hint=hint) from e
        return context


def tls_options_from_config(path: str, name: str) -> TLSOptions | None:
    """Return the ``tls-client`` entry called ``name`` of a daemon configuration file, or None if there is none.

    Both forms of the file are understood: the list of sections, and the mapping with ``tls-clients``.
    """
    try:
        import yaml
    except ImportError:
        raise OptionsError(
            f"reading {path} needs PyYAML, which is not installed; install it with: pip install PyYAML"
        ) from None
    try:
        with open(path, encoding="utf-8") as file:
            content = yaml.safe_load(file)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as e:
        raise OptionsError(f"could not read the configuration file {path}: {e}") from e
    for entry in _tls_clients(content):
        if isinstance(entry, dict) and entry.get("name") == name:
            return TLSOptions(
                rootcas=_optional_text(entry.get("rootcas")),
                key=_optional_text(entry.get("key")),
                cert=_optional_text(entry.get("cert")),
                insecure_skip_verify=str(entry.get("insecureskipverify")).lower() in _YES,
            )
    return None


def choose_tls(config: str | None, name: str | None, given: TLSOptions) -> TLSOptions | None:
    """Return the TLS options: those of entry ``name`` of the file ``config``, or those given one by one."""
    if not config:
        return given
    if not name:
        raise OptionsError("Must specify both config and tlsclient")
    if given.rootcas or given.key or given.cert:
        raise OptionsError("Cannot specify both config and rootcas, key, cert")
    return tls_options_from_config(config, name)


def _tls_clients(content: object) -> list[object]:
    if isinstance(content, dict):
        entries = content.get("tls-clients")
        return entries if isinstance(entries, list) else []
    if isinstance(content, list):
        return [item["tls-client"] for item in content if isinstance(item, dict) and "tls-client" in item]
    return []


def _optional_text(value: object) -> str | None:
    return None if value is None else str(value)


class Deadline:
    """A point in time that several waits share. ``timeout_s`` None means no limit."""

    def __init__(self, timeout_s: float | None) -> None:
        check_seconds("timeout_s", timeout_s)
        self.timeout_s = timeout_s
        self._end = None if timeout_s is None else time.monotonic() + timeout_s

    def left_s(self) -> float | None:
        """Return the seconds left, never below a millisecond (0 would mean non-blocking to a socket)."""
        return None if self._end is None else max(self._end - time.monotonic(), 0.001)

    def check(self, what: str) -> None:
        """Raise ControlTimeout once the time is up."""
        if self._end is not None and time.monotonic() >= self._end:
            raise ControlTimeout(f"{what} within {self.timeout_s:g} s", hint=SLOW)


SLOW = "the daemon may be busy or stopped; see its log, or allow more time"


class Connection:
    """One connection to a control service, in command mode until a request changes that.

    Not for use by several threads at once. After an error other than a refusal it is of no further use: close it.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.lines = protocol.LineBuffer()
        self._newline_unread = False

    @classmethod
    def open(cls, address: Address, tls: TLSOptions | None = None, timeout_s: float | None = None) -> Connection:
        """Connect, with the TLS handshake where the address asks for it. The greeting is not read yet."""
        deadline = Deadline(timeout_s)
        if address.path:
            return cls(_open_unix(address.path, deadline))
        return cls(_open_inet(address, tls or TLSOptions(), deadline))

    def close(self) -> None:
        """Close; safe to call twice."""
        self.sock.close()

    def send(self, data: bytes | bytearray | memoryview, timeout_s: float | None = None) -> None:
        """Send all of ``data``."""
        deadline = Deadline(timeout_s)
        try:
            self.sock.settimeout(deadline.left_s())
            self.sock.sendall(data)
        except TimeoutError:
            raise ControlTimeout(f"the daemon took no data within {timeout_s:g} s", hint=SLOW) from None
        except OSError as e:
            raise lost(e) from e

    def send_some(self, data: bytes | bytearray | memoryview) -> int:
        """Send what the connection takes at once, and return how many bytes that is."""
        full: tuple[type[OSError], ...] = (BlockingIOError,)
        if self._is_tls():
            import ssl

            full = (ssl.SSLWantReadError, ssl.SSLWantWriteError)
        try:
            self.sock.settimeout(0)
            return self.sock.send(data)
        except full:
            return 0
        except OSError as e:
            raise lost(e) from e

    def read_line(
        self, timeout_s: float | None = None, *, max_bytes: int = protocol.MAX_LINE_BYTES, exact: bool = False
    ) -> str:
        """Return the next line.

        exact: take nothing past the newline off the socket, because what follows is for somebody else.
        """
        deadline = Deadline(timeout_s)
        if self._newline_unread:
            self._newline_unread = False
            self._recv(1, deadline)
        while True:
            line = self.lines.next_line(max_bytes)
            if line is not None:
                return line
            deadline.check("no answer from the daemon")
            self.lines.feed(self._recv(1 if exact else _BLOCK_BYTES, deadline))

    def greeting(self, timeout_s: float | None = None) -> str:
        """Read the greeting and return the node ID in it."""
        return protocol.parse_greeting(self.read_line(timeout_s, max_bytes=protocol.MAX_GREETING_BYTES, exact=True))

    def request(self, line: bytes, timeout_s: float | None = None, *, exact: bool = False) -> str:
        """Send one request line and return the line that answers it."""
        self.send(line, timeout_s)
        return self.read_line(timeout_s, exact=exact)

    def read_line_keeping_newline(self, timeout_s: float | None = None) -> str:
        """Like ``read_line``, but leaves the newline unread in the kernel where that is possible (not under TLS).

        While something is unread, the end of this process, however sudden, reaches the daemon as a reset and not as an
        ordinary end of input. So a work unit whose payload breaks off fails instead of running on half of it.
        """
        if self._is_tls():
            return self.read_line(timeout_s)
        deadline = Deadline(timeout_s)
        while True:
            deadline.check("no answer from the daemon")
            seen = self._recv(4096, deadline, socket.MSG_PEEK)
            end = seen.find(b"\n")
            if end < 0:
                self.lines.feed(self._recv(max(len(seen), 1), deadline))
                self.lines.next_line()  # no line yet: raises if there will be none, or an endless one
                continue
            if end > 0:
                self.lines.feed(self._recv(end, deadline))
            self.lines.feed(b"\n")
            self._newline_unread = True
            line = self.lines.next_line()
            assert line is not None  # its newline has just been fed
            return line

    def half_close(self) -> None:
        """Tell the daemon that nothing more comes, and stay able to read.

        Under TLS this is a bare FIN of TCP without close_notify: what the daemon expects.
        """
        try:
            socket.socket.shutdown(self.sock, socket.SHUT_WR)
        except OSError as e:
            raise lost(e) from e

    def abort(self) -> None:
        """Close so that the daemon sees a reset, and not an end of input, where the transport can tell these apart."""
        reset_on_close(self.sock)
        self.sock.close()

    def read_some(self, timeout_s: float | None = None) -> bytes:
        """Return what has come, at least one byte; empty at the end."""
        rest = self.lines.take_rest()
        return rest or self._recv(_BLOCK_BYTES, Deadline(timeout_s))

    def has_buffered(self) -> bool:
        """Whether ``read_some`` has something that no select on the socket shows."""
        pending = getattr(self.sock, "pending", None)
        return self.lines.holds_more() or (pending is not None and pending() > 0)

    def _is_tls(self) -> bool:
        return hasattr(self.sock, "pending")

    def _recv(self, size: int, deadline: Deadline, flags: int = 0) -> bytes:
        try:
            self.sock.settimeout(deadline.left_s())
            return self.sock.recv(size, flags)
        except TimeoutError:
            raise ControlTimeout(f"no answer from the daemon within {deadline.timeout_s:g} s", hint=SLOW) from None
        except OSError as e:
            raise lost(e) from e


def is_readable(sock: socket.socket) -> bool:
    """Return whether there is something to read, the end of the connection included."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


def reset_on_close(sock: socket.socket) -> None:
    """Make the end of a TCP connection a reset. A Unix socket is reset by what it leaves unread."""
    if sock.family != socket.AF_UNIX:
        with contextlib.suppress(OSError):  # the connection may be gone already
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def lost(e: OSError) -> ControlClientError:
    """Return the error for a connection that broke."""
    if "SSL" in type(e).__name__:
        return DisconnectedError(str(e), code="tls", hint=_hint_for_tls(str(e)))
    return DisconnectedError(f"the connection to the daemon was lost: {e}", hint="is the daemon still running?")


def _hint_for_tls(text: str) -> str:
    if "CERTIFICATE_REQUIRED" in text or "BAD_CERTIFICATE" in text:
        return "the daemon demands a client certificate: give --key and --cert, or -c FILE with --tls-client NAME"
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return "the daemon's certificate is not trusted: give its CA with --rootcas"
    return ""


def check_path(path: str) -> None:
    """Raise AddressError if there is nothing at ``path``."""
    if not os.path.exists(path):
        raise AddressError(
            f"Socket path does not exist: {path}",
            hint="is the daemon running? The path is the filename of control-service in its configuration",
        )


def _open_unix(path: str, deadline: Deadline) -> socket.socket:
    check_path(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(deadline.left_s())
        sock.connect(path)
    except OSError as e:
        sock.close()
        raise ConnectError(unix_trouble(path, e)) from e
    return sock


def unix_trouble(path: str, e: OSError) -> str:
    """Say why nobody could be reached at ``path``, and what to do."""
    text = f"Could not connect to {path}: {e.strerror or e}"
    if e.errno == errno.ECONNREFUSED:
        with contextlib.suppress(OSError):
            if not stat.S_ISSOCK(os.stat(path).st_mode):
                return f"{text}. It is not a socket: take the filename of control-service in the daemon's configuration"
        return (
            f"{text}. The socket file is there but no daemon listens on it: it stopped without removing the file, "
            "or listens elsewhere. Start the daemon, or compare the path with control-service in its configuration"
        )
    if e.errno in (errno.EACCES, errno.EPERM):
        return (
            f"{text}. Run this as the user of the daemon, or widen the permissions of control-service "
            "in its configuration"
        )
    if isinstance(e, (TimeoutError, BlockingIOError)):
        return f"{text}. The daemon does not accept connections at the moment; see its log"
    return text


def _open_inet(address: Address, tls: TLSOptions, deadline: Deadline) -> socket.socket:
    context = tls.context() if address.tls else None
    sock: socket.socket | None = None
    try:
        sock = socket.create_connection((address.host, address.port), deadline.left_s())
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if context is None:
            return sock
        sock.settimeout(deadline.left_s())
        return context.wrap_socket(sock, server_hostname=address.host)
    except (OSError, ValueError) as e:  # ValueError: a host name that TLS cannot check
        if sock is not None:
            sock.close()
        raise inet_trouble(address, e) from e


def inet_trouble(address: Address, e: Exception) -> ConnectError:
    """Return the error for a host that could not be reached, with what to do."""
    return ConnectError(f"Could not connect to host {address.host} port {address.port}", hint=f"{e}; {_inet_advice(e)}")


def _inet_advice(e: Exception) -> str:
    if advice := _hint_for_tls(str(e)):
        return advice
    if isinstance(e, ConnectionRefusedError):
        return "nobody listens on that port: is the daemon running, with tcplisten in its control-service?"
    return "check the address, and tcplisten and tcptls of the daemon's control-service"
