"""A screen that is drawn again: work list --watch, and top."""

from __future__ import annotations

import contextlib
import shutil
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator

from receptor._control_ops import events_line
from receptor._control_socket import Connection
from receptor.cli import _show
from receptor.cli._units import Filter, Status, table
from receptor.control import Client, ControlClientError, NotOfferedError

_SETTLE_S = 0.1  # changes come in bunches: one drawing for all of them


@contextlib.contextmanager
def screen() -> Iterator[Callable[[list[str]], None]]:
    """Yield a function that draws lines: on a terminal over what was there, else below it."""
    if not sys.stdout.isatty():
        yield lambda lines: _show.out("\n".join(lines), ours=True)
        return
    write = sys.stdout.write
    write("\x1b[?1049h\x1b[?25l")
    try:
        yield _draw
    finally:
        write("\x1b[?25h\x1b[?1049l")
        sys.stdout.flush()


def _draw(lines: list[str]) -> None:
    size = shutil.get_terminal_size()
    shown = lines[: size.lines - 1]
    if len(lines) > len(shown):
        shown[-1] = f"... and {len(lines) - len(shown) + 1} more"
    body = "".join(f"{_cut(line, size.columns)}\x1b[K\n" for line in shown)
    sys.stdout.write(f"\x1b[H{body}\x1b[J")
    sys.stdout.flush()


def _cut(line: str, width: int) -> str:
    return line if "\x1b" in line or len(line) <= width else line[: width - 1] + ">"


class Changes:
    """Says when something changed: by events, or by the clock where the daemon has none. Use as a context manager."""

    def __init__(self, client: Client, *kinds: str, every_s: float) -> None:
        self._client = client
        self._line = events_line(kinds, None, None, snapshot=False)
        self._every_s = every_s
        self._changed = threading.Event()
        self._thread: threading.Thread | None = None
        self._connection: Connection | None = None
        self._error: ControlClientError | None = None
        self.recent: list[str] = []

    def __enter__(self) -> Changes:
        try:
            self._connection = self._client._event_connection(self._line)
        except NotOfferedError:
            return self
        self._thread = threading.Thread(target=self._listen, args=(self._connection,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._connection is not None and self._thread is not None:
            with contextlib.suppress(OSError):  # the daemon may be gone
                socket.socket.shutdown(self._connection.sock, socket.SHUT_RDWR)
            self._thread.join()
            self._connection.close()

    def wait(self, at_most_s: float | None = None) -> None:
        """Return after the next change; raises what ended the events."""
        if self._thread is None:
            time.sleep(self._every_s)  # nothing there could tell us
            return
        self._changed.wait(at_most_s)
        time.sleep(_SETTLE_S)
        self._changed.clear()
        if self._error is not None:
            raise self._error

    def _listen(self, connection: Connection) -> None:
        from receptor._control_events import event_json
        from receptor.cli._events import sentence

        try:
            while True:
                raw = event_json(connection.read_line())
                if raw["event"] not in ("live", "alive"):
                    self.recent = [*self.recent[-99:], sentence(raw)]
                    self._changed.set()
        except ControlClientError as e:
            self._error = e
            self._changed.set()


def watch_units(client: Client, wanted: Filter, unit: str | None, quiet: bool) -> None:
    """Show units, and again after every change, until Ctrl-C."""
    command = f"work list {unit}" if unit else "work list"
    before: dict[str, Status] | None = None
    with Changes(client, "unit", every_s=2) as changes, screen() as draw:
        while True:
            units = wanted.apply(client.command(command))
            if units != before or sys.stdout.isatty():
                _show_units(units, client.node, quiet, draw)
            before = units
            changes.wait(None if units == {} or not sys.stdout.isatty() else 1.0)


def _show_units(units: dict[str, Status], home: str, quiet: bool, draw: Callable[[list[str]], None]) -> None:
    if _show.form("table") != "table":
        _show.line(units)
        sys.stdout.flush()
    elif quiet:
        draw(list(units))
    else:
        draw([_show.clean(line) for line in table(units, home)])


__all__ = ["Changes", "screen", "watch_units"]
