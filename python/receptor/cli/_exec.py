"""work exec: a command on another node, as if one were there."""

from __future__ import annotations

import contextlib
import os
import select
import shlex
import shutil
import signal
import sys
import time
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from receptor._control_errors import DisconnectedError
from receptor._control_exec import END_OF_INPUT, WINDOW_BYTES, input_frames, resize_frame, signal_frame
from receptor.cli._connect import raw_terminal
from receptor.cli._root import Failure, Session, completing, pass_session
from receptor.cli._work import work

if TYPE_CHECKING:
    from receptor._control_exec import BlockingExec

_BLOCK_BYTES = 64 * 1024
_STDIN = 0  # the null device where it was closed; there is no sys.stdin then
_FINAL = (signal.SIGTERM, signal.SIGHUP)
_URGENT = (signal.SIGINT, *_FINAL)
_URGED = 3  # So many of them within _URGED_S hang up, whatever becomes of the command.
_URGED_S = 2.0
_PASSED_ON = (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


@work.command(
    "exec",
    help="Run a command on a node and stay with it, in a terminal if this is one; the exit status is that of the "
    "command. In a terminal, ~. at the start of a line hangs up, and ~~ sends one ~; elsewhere, three interrupts "
    "within two seconds hang up. The node must offer a work type that allows it, such as: --work-command "
    "worktype=exec command=env allowruntimeparams=true allowpty=true",
    example="receptorctl work exec edge-7 -- tail -f /var/log/syslog",
)
@click.argument("node", shell_complete=completing("nodes"))
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.option("--worktype", default="exec", show_default=True, help="Work type of the node that runs the command")
@click.option("--tty/--no-tty", "-t/-T", default=None, help="Give it a terminal; default is whether this is one")
@click.option("--tls-client", help="TLS client entry of the daemon to use for the connection to the node")
@click.option("--signwork", is_flag=True, help="Sign the request with the key of the daemon")
@pass_session
def exec_command(
    session: Session,
    node: str,
    command: tuple[str, ...],
    worktype: str,
    tty: bool | None,
    tls_client: str | None,
    signwork: bool,
) -> None:
    """Run a command."""
    here = os.isatty(_STDIN) and sys.stdout.isatty()
    terminal = here if tty is None else tty
    rows, cols = _terminal_size()
    running = session.client.work.exec(
        node,
        shlex.join(command),
        worktype=worktype,
        tty=terminal,
        rows=rows,
        cols=cols,
        term=os.environ.get("TERM", "xterm"),
        tls_client=tls_client,
        sign=signwork,
    )
    raw = terminal and here
    with running, raw_terminal(_STDIN) if raw else contextlib.nullcontext():
        _Bridge(running, terminal=terminal, escape=_Escape() if raw else None).run()
    status = running.status
    click.get_current_context().exit(_exit_status(node, status.raw, status.detail))


def _exit_status(node: str, raw: object, detail: str) -> int:
    """Return the command's exit status, or 128 and its signal; what never ran is a failure of ours."""
    status = raw if isinstance(raw, dict) else {}
    if isinstance(code := status.get("ExitCode"), int) and code >= 0:
        return code
    if isinstance(name := status.get("Signal"), str) and name:
        with contextlib.suppress(KeyError):
            return 128 + signal.Signals["SIG" + name.removeprefix("SIG")].value
    if detail.startswith("exit status "):
        return int(detail.removeprefix("exit status "))
    raise Failure(f"{node}: {detail}")


def _terminal_size() -> tuple[int, int]:
    """Return rows and columns: of the terminal if there is one, as LINES and COLUMNS do not follow it."""
    for terminal in (_STDIN, 1):
        with contextlib.suppress(OSError):
            size = os.get_terminal_size(terminal)
            if size.lines and size.columns:
                return size.lines, size.columns
    size = shutil.get_terminal_size()
    return size.lines, size.columns


class _Escape:
    r"""What is typed at the start of a line for this program, not the command: ``~.`` hangs up, ``~~`` is a ``~``.

    >>> escape = _Escape()
    >>> escape.filter(b"a~.\r~"), escape.filter(b"~b\r~x"), escape.hung_up
    (b'a~.\r', b'~b\r~x', False)
    >>> escape.filter(b"\r~.c"), escape.hung_up
    (b'\r', True)
    """

    def __init__(self) -> None:
        self.hung_up = False
        self._line_begins = True
        self._tilde = False  # It has come, and is held back until it is clear what it means.

    def filter(self, typed: bytes) -> bytes:
        """Return what is for the command."""
        passed = bytearray()
        for key in typed:
            if self._tilde and key == ord("."):
                self.hung_up = True
                break
            if self._line_begins and key == ord("~") and not self._tilde:
                self._tilde = True
                continue
            if self._tilde and key != ord("~"):
                passed.append(ord("~"))
            passed.append(key)
            self._tilde, self._line_begins = False, key in b"\r\n"
        return bytes(passed)


class _Bridge:
    """Copies between this program and the command until the command ends.

    It never waits to get rid of input: a command that does not take its input may still write, get signals, end, or be
    left.
    """

    def __init__(self, running: BlockingExec, *, terminal: bool, escape: _Escape | None) -> None:
        self._running = running
        self._terminal = terminal
        self._escape = escape
        self._stdin: int | None = _STDIN
        self._given = 0  # Bytes of input.
        self._unsent = bytearray()  # Frames.
        self._signal_waits = False  # One of them is not on its way yet.
        self._urged: deque[float] = deque(maxlen=_URGED)  # When the last of _URGENT came.

    def _room(self) -> int:
        """Return how much input may still be given without keeping a signal from the command."""
        return WINDOW_BYTES - (self._given - self._running.taken_bytes)

    def run(self) -> None:
        with self._caught() as woken:
            while not self._running.ended:
                self._turn(woken)

    def _turn(self, woken: int) -> None:
        reading = [self._running.fileno(), woken]
        if self._stdin is not None and len(self._unsent) < _BLOCK_BYTES and self._room() > 0:
            reading.append(self._stdin)
        writing = [self._running.fileno()] if self._unsent else []
        wait_s = 0 if self._running.buffered else None
        readable, writable, _ = select.select(reading, writing, [], wait_s)
        if woken in readable:
            self._pass_on(os.read(woken, 64))
        if self._running.fileno() in readable or self._running.buffered:
            self._write()
        if self._running.ended:
            return
        if self._stdin in readable:
            self._read()
        elif writable:
            self._send(b"")

    def _write(self) -> None:
        for part in self._running.read():
            out = sys.stderr.buffer if part.stream == "stderr" else sys.stdout.buffer
            out.write(part.data)
            out.flush()

    def _read(self) -> None:
        data = os.read(_STDIN, min(_BLOCK_BYTES, self._room()))
        if not data:
            self._stdin = None
        elif self._escape is not None:
            data = self._escape.filter(data)
            if self._escape.hung_up:
                raise SystemExit(128 + signal.SIGHUP)
            if not data:
                return
        self._given += len(data) or self._terminal
        self._send(input_frames(data) or END_OF_INPUT)

    def _send(self, frames: bytes) -> None:
        self._unsent += frames
        try:
            sent = self._running.send_some(self._unsent) if self._unsent else 0
        except DisconnectedError:  # What has come before may tell how the command ended.
            self._stdin, sent = None, len(self._unsent)
        del self._unsent[:sent]
        self._signal_waits = self._signal_waits and bool(self._unsent)

    def _pass_on(self, numbers: bytes) -> None:
        for number in numbers:
            if number == signal.SIGWINCH:
                if self._terminal:
                    self._send(resize_frame(*_terminal_size()))
                continue
            blocked = self._unsent and (self._signal_waits or number in _FINAL)
            if self._is_urged(number) or blocked:
                raise SystemExit(128 + number)  # Which hangs up: the way is blocked, or the command goes on.
            self._signal_waits = True
            self._send(signal_frame(signal.Signals(number).name))

    def _is_urged(self, number: int) -> bool:
        if number not in _URGENT:
            return False
        now = time.monotonic()
        self._urged.append(now)
        return len(self._urged) == _URGED and now - self._urged[0] <= _URGED_S

    @contextlib.contextmanager
    def _caught(self) -> Iterator[int]:
        """Yield a descriptor from which the numbers of signals are read that arrive meanwhile."""
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        numbers = (*_PASSED_ON, signal.SIGWINCH)
        before = {number: signal.signal(number, lambda *_: None) for number in numbers}
        wakeup = signal.set_wakeup_fd(writer)
        try:
            yield reader
        finally:
            signal.set_wakeup_fd(wakeup)
            for number, handler in before.items():
                signal.signal(number, handler)
            os.close(reader)
            os.close(writer)


__all__ = ["exec_command"]
