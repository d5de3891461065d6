"""Where a node runs: inside this process, in a child of it, or in a daemon; each gives a session's socket."""

import os
import select
import socket
import struct
import time
from collections.abc import Mapping
from typing import Literal, TypeAlias

from . import _daemon, _library, _process, _sockets
from ._channel import Deadline
from ._seconds import check_seconds
from ._session import Whose
from .errors import ClosedError, ConfigError, ControlError, NativeLibraryError, ReceptorError

Mode: TypeAlias = Literal["auto", "in-process", "sidecar"]
MODES = ("auto", "in-process", "sidecar")

_SESSION_FD = 3  # Of the child.
_GREETING = b"Receptor Control, node "
_LINE_BYTES = 4096
SIDECAR_END_S = 5.0  # How long a sidecar may take to end after its session,
_SIDECAR_LEAST_S = 0.2  # and at least has, where it did not answer in the time it had for that.
_SOCKET_TO_STATUS_S = 0.2  # A process that ends closes its sockets a little before its status can be asked for.
_LEAST_S = 0.001  # Of a time to attach: there is always something to wait for.


class Host(Whose):
    """What a node runs in."""

    closing = False  # This program closes its node.

    def __init__(self, ended: str = "") -> None:
        self._ended = ended

    def gone(self) -> ClosedError:
        """What became of a node whose sessions have ended without a word."""
        how = "" if self.closing else self._how()
        return self.closed(f"is gone: {how}" if how else "")

    def _how(self) -> str:
        return self._ended


class Sidecar(Host):
    """The child process that holds a node. It ends by itself when its session's socket does."""

    def __init__(self, pid: int) -> None:
        super().__init__(f"its sidecar, process {pid}, has ended")
        self.pid = pid
        self._parent = os.getpid()
        self._reaped = False

    def wait(self, timeout_s: float = SIDECAR_END_S) -> None:
        """Wait for its end after the session's; kill it if that takes more than ``timeout_s``. Safe to call twice."""
        if self._reaped or os.getpid() != self._parent:
            return
        self._reaped = True
        try:
            if not self._ends(timeout_s):
                os.kill(self.pid, 9)
            os.waitpid(self.pid, 0)
        except (ChildProcessError, ProcessLookupError):
            pass  # Somebody reaps all children, or nobody needs to.

    def forget(self) -> None:
        """Let it end by itself, soon; the zombie that may stay until this process ends takes no resources."""
        self._reaped = True

    def _how(self) -> str:
        try:
            status = None
            if not self._reaped and self._ends(_SOCKET_TO_STATUS_S):
                status = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            pass  # Somebody reaps all children.
        if status is None:
            return self._ended
        if status.si_code == os.CLD_EXITED:
            return f"{self._ended} with exit status {status.si_status}"
        return f"{self._ended}, killed by signal {status.si_status}"

    def _ends(self, timeout_s: float) -> bool:
        try:
            fd = os.pidfd_open(self.pid)
        except (AttributeError, OSError):
            return self._ends_without_pidfd(timeout_s)
        try:
            poll = select.poll()
            poll.register(fd, select.POLLIN)
            return bool(poll.poll(max(timeout_s, 0) * 1000))
        finally:
            os.close(fd)

    def _ends_without_pidfd(self, timeout_s: float) -> bool:
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:  # Nothing can tell on kernels before 5.3.
            if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                return True
            time.sleep(0.01)
        return False


class AnyNode(_process.Local):
    """What a node is, for either shell."""

    _id: str
    _version: str
    _mode: str
    _closed: bool

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
        """Where the node runs, once started: "in-process", "sidecar" or "attached"."""
        return self._mode

    @property
    def closed(self) -> bool:
        """It was closed by :meth:`close`."""
        return self._closed

    def __repr__(self) -> str:
        return _sockets.described(self, repr(self._id), closed=self._closed)


def unanswered_end_s(timeout_s: float) -> float:
    """What is left to a sidecar for its end, where it did not answer to a ``close`` within ``timeout_s``."""
    return max(SIDECAR_END_S - timeout_s, _SIDECAR_LEAST_S)


def resolve(mode: str) -> str:
    """The mode that "auto" stands for here: the library where it can be used, else the sidecar."""
    if mode not in MODES:
        raise ConfigError(f"mode {mode!r}: want one of {', '.join(MODES)}")
    if mode != "auto":
        return mode
    return "in-process" if _library.expected() else "sidecar"


def open_session(where: str, environ: Mapping[str, str]) -> tuple[socket.socket, Sidecar | None]:
    """A session on a node that is yet to be opened, ``where`` :func:`resolve` says.

    Raises NativeLibraryError, or ConfigError without a daemon.
    """
    _process.check_program()
    if where == "in-process":
        return _library.open_session(environ), None
    return _start_sidecar(environ)


def _start_sidecar(environ: Mapping[str, str]) -> tuple[socket.socket, Sidecar]:
    daemon = _daemon.require("a node as a sidecar")
    ours, theirs = socket.socketpair()
    with theirs:
        import fcntl

        end = fcntl.fcntl(theirs, fcntl.F_DUPFD_CLOEXEC, _SESSION_FD + 1)  # Where nothing of the child's overwrites it.
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
        (os.POSIX_SPAWN_DUP2, end, _SESSION_FD),
    ]
    try:
        pid = os.posix_spawn(
            daemon,
            [daemon, "--session-fd", str(_SESSION_FD)],
            dict(environ),
            file_actions=actions,
            setsid=True,  # Ctrl-C is for this process; the sidecar ends with it.
            setsigmask=[],
            setsigdef=_ignored_signals(),
        )
    except BaseException as error:
        ours.close()
        if isinstance(error, OSError):
            raise NativeLibraryError(f"the sidecar {daemon} cannot be started: {error}") from error
        raise
    finally:
        os.close(end)
    return ours, Sidecar(pid)


def _ignored_signals() -> list[int]:
    import signal

    return [
        number
        for number in signal.valid_signals()
        if number not in (signal.SIGKILL, signal.SIGSTOP) and signal.getsignal(number) == signal.SIG_IGN
    ]


def daemon_at(path: str | os.PathLike[str]) -> Host:
    """What the node of an attached program runs in."""
    return Host(f"the daemon of {os.fspath(path)} has ended, or has closed the connection")


def attach(path: str | os.PathLike[str], timeout_s: float | None) -> socket.socket:
    """A session on the node of the daemon whose control socket is ``path``.

    Raises ControlError if there is none or it does not offer sessions, MeshTimeout if it does not answer.
    """
    _process.check_program()
    name = os.fspath(path)
    check_seconds("timeout_s", timeout_s)
    deadline = Deadline(None if timeout_s is None else max(timeout_s, _LEAST_S), name)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(None)
    try:
        _connect(sock, name, deadline)
        greeting = _line(sock, deadline)
        if not greeting.startswith(_GREETING):
            raise ControlError(f"{name}: not the control socket of a receptor daemon")
        sock.sendall(b"session\n")
        first = _byte(sock, deadline, socket.MSG_PEEK)
        if not first:
            raise ClosedError(f"{name}: the daemon ended")
        if first != b"\0":
            text = _line(sock, deadline).decode("utf-8", "replace").removeprefix("ERROR: ")
            raise ControlError(f"{name}: the daemon does not take programs in: {text}")
    except OSError as error:
        sock.close()
        if isinstance(error, ReceptorError):
            raise
        if isinstance(error, PermissionError):
            hint = "the permissions of the daemon's control-service say who may attach"
        elif error.errno is None:
            hint = "attach by a shorter path: a relative one, or a link to its directory"
        else:
            hint = "is a receptor daemon running with this control-service filename?"
        raise ControlError(f"{name}: {error.strerror or error}; {hint}") from error
    except BaseException:
        sock.close()
        raise
    return sock


def _connect(sock: socket.socket, name: str, deadline: Deadline) -> None:
    """Connect a socket without a time-out of Python's: one with it does not wait where a daemon has much to accept."""
    left = deadline.left()
    if left >= 0:
        sock.setsockopt(
            socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", int(left), max(int(left % 1 * 1e6), 1))
        )
    try:
        sock.connect(name)
    except BlockingIOError:
        raise deadline.error() from None
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", 0, 0))


def _byte(sock: socket.socket, deadline: Deadline, flags: int = 0) -> bytes:
    while True:
        deadline.wait(sock, select.POLLIN)
        try:
            return sock.recv(1, flags | socket.MSG_DONTWAIT)
        except BlockingIOError:
            pass


def _line(sock: socket.socket, deadline: Deadline) -> bytes:
    line = b""
    while not line.endswith(b"\n") and len(line) < _LINE_BYTES:
        byte = _byte(sock, deadline)  # No more than the line: what follows may be a session.
        if not byte:
            break
        line += byte
    return line.rstrip(b"\n")
