r"""A command that runs while the client watches: the frames of ``work exec``, and the blocking shell around them.

with daemon.work.exec("edge-7", "sort -n") as command:
    command.send(b"3\n1\n")
    command.end_input()
    for part in command.output():
        print(part.stream, part.data)
    print(command.status.detail)
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from receptor import _control_protocol as protocol
from receptor._closing import Closable
from receptor._control_errors import ControlProtocolError, DisconnectedError

if TYPE_CHECKING:
    from receptor._control_socket import Connection
    from receptor.types import UnitStatus

_HEADER = struct.Struct(">BH")
_INPUT, _RESIZE, _SIGNAL, _STDOUT, _STDERR, _EXIT, _TAKEN = 1, 2, 3, 16, 17, 18, 19
WINDOW_BYTES = 1 << 20
"""So much input that the command has not taken may be under way without keeping signals from it."""
_MAX_CONTENT_BYTES = 0xFFFF
_MAX_STATUS_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Output:
    """What the command wrote. ``stream`` is "stdout" for all that comes from a terminal."""

    stream: Literal["stdout", "stderr"]
    data: bytes


def exec_line(
    node: str,
    worktype: str,
    params: str,
    tty: bool,
    rows: int,
    cols: int,
    term: str,
    tls_client: str | None,
    sign: bool,
) -> bytes:
    """Return the request."""
    request: dict[str, object] = {
        "command": "work",
        "subcommand": "exec",
        "node": node,
        "worktype": worktype,
        "tty": tty,
    }
    if params:
        request["params"] = params
    if tty:
        request.update(rows=rows, cols=cols, term=term)
    if tls_client:
        request["tlsclient"] = tls_client
    if sign:
        request["signwork"] = "true"
    return protocol.object_line(request)


def parse_exec(line: str) -> str:
    """Return the unit's ID from the answer, after which frames follow; raises RefusedError."""
    reply = protocol.parse_reply(line)
    if not isinstance(reply.get("unitid"), str):
        raise ControlProtocolError(f"the answer to work exec lacks unitid: {line[:120]!r}")
    return str(reply["unitid"])


def input_frames(data: bytes) -> bytes:
    """Return frames with bytes for the command."""
    parts = (data[at : at + _MAX_CONTENT_BYTES] for at in range(0, len(data), _MAX_CONTENT_BYTES))
    return b"".join(_HEADER.pack(_INPUT, len(part)) + part for part in parts)


END_OF_INPUT = _HEADER.pack(_INPUT, 0)


def resize_frame(rows: int, cols: int) -> bytes:
    """Return the frame with a new size of the terminal."""
    return _HEADER.pack(_RESIZE, 4) + struct.pack(">HH", rows, cols)


def signal_frame(name: str) -> bytes:
    """Return the frame that sends a signal such as INT or TERM."""
    text = name.upper().removeprefix("SIG").encode()
    return _HEADER.pack(_SIGNAL, len(text)) + text


class FrameReader:
    r"""Bytes of the server to what the command wrote, and at the end its last status. No I/O.

    >>> reader = FrameReader()
    >>> reader.feed(b"\x10\x00\x02hi\x12\x00\x0b{\"State\":2}")
    [Output(stream='stdout', data=b'hi')]
    >>> reader.feed(b"\x12\x00\x00"), reader.status
    ([], {'State': 2})
    """

    def __init__(self) -> None:
        self.status: dict[str, Any] | None = None  # Any: JSON as it came
        self.taken_bytes = 0
        self._buffer = bytearray()
        self._last = b""

    def feed(self, data: bytes) -> list[Output]:
        """Take bytes as they came; empty bytes mean the end of the connection."""
        if not data and self.status is None:
            raise DisconnectedError(
                "the connection ended before the command did", hint="the node or a link on the way to it went away"
            )
        self._buffer += data
        outputs = []
        while self.status is None and len(self._buffer) >= _HEADER.size:
            kind, size = _HEADER.unpack_from(self._buffer)
            if len(self._buffer) < _HEADER.size + size:
                break
            content = bytes(self._buffer[_HEADER.size : _HEADER.size + size])
            del self._buffer[: _HEADER.size + size]
            if kind == _STDOUT:
                outputs.append(Output("stdout", content))
            elif kind == _STDERR:
                outputs.append(Output("stderr", content))
            elif kind == _EXIT:
                self._exit(content)
            elif kind == _TAKEN and size == 4:
                self.taken_bytes += int.from_bytes(content)
            else:
                raise ControlProtocolError(f"the node sent a frame of kind {kind}, which this client does not know")
        return outputs

    def _exit(self, content: bytes) -> None:
        self._last += content
        if len(self._last) > _MAX_STATUS_BYTES:
            raise ControlProtocolError("the node sent an endless status")
        if not content:
            self.status = protocol.parse_reply(self._last.decode("utf-8", "replace"))


class AnyExec:
    """What is known of a command that runs."""

    def __init__(self, unit: str) -> None:
        self.unit = unit
        self._reader = FrameReader()

    @property
    def taken_bytes(self) -> int:
        """How many bytes of input the command has taken, as far as its output was read."""
        return self._reader.taken_bytes

    @property
    def status(self) -> UnitStatus:
        """How the command ended, once ``output`` has."""
        from receptor.types import UnitStatus

        if self._reader.status is None:
            raise ValueError("the command has not ended: read its output to the end first")
        return UnitStatus.from_json(self.unit, self._reader.status)


class BlockingExec(AnyExec, Closable):
    """A command that runs; see the module. One thread may send while another reads. Leaving ``with`` hangs up."""

    def __init__(self, conn: Connection, unit: str) -> None:
        super().__init__(unit)
        self._conn = conn
        conn.sock.settimeout(None)

    def send(self, data: bytes) -> None:
        """Send input."""
        self._send(input_frames(data))

    def send_some(self, frames: bytes | bytearray | memoryview) -> int:
        """Send what the connection takes at once of ready-made frames, and return how many bytes that is."""
        return self._conn.send_some(frames)

    def end_input(self) -> None:
        """Say that no more input comes."""
        self._send(END_OF_INPUT)

    def resize(self, rows: int, cols: int) -> None:
        """Tell a terminal its new size."""
        self._send(resize_frame(rows, cols))

    def signal(self, name: str) -> None:
        """Send ``INT``, ``QUIT``, ``TERM``, ``HUP``, ``KILL``, ``USR1``, ``USR2``, ``STOP``, ``TSTP`` or ``CONT``.

        It overtakes input that the command has not taken, if that is no more than 1 MiB; ``taken_bytes`` tells.
        """
        self._send(signal_frame(name))

    def output(self, *, timeout_s: float | None = None) -> Iterator[Output]:
        """Yield what the command writes, until it has ended. timeout_s: seconds to wait for the next piece."""
        while self._reader.status is None:
            yield from self._reader.feed(self._conn.read_some(timeout_s))

    def fileno(self) -> int:
        """Return the descriptor that is readable when the command wrote something."""
        return self._conn.sock.fileno()

    def read(self) -> list[Output]:
        """Take what has come, waiting if nothing has; after the end of the command nothing more comes."""
        return self._reader.feed(self._conn.read_some()) if self._reader.status is None else []

    @property
    def ended(self) -> bool:
        """The command has ended and ``status`` tells how."""
        return self._reader.status is not None

    @property
    def buffered(self) -> bool:
        """Something has come that no select on the descriptor shows."""
        return self._conn.has_buffered()

    def close(self) -> None:
        """Hang up: the command gets SIGHUP. Safe to call twice."""
        self._conn.close()

    def _send(self, frames: bytes) -> None:
        if not self.ended:
            self._conn.send(frames)
