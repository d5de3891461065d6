"""A progress bar on stderr for what takes long, if stderr is a terminal."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from receptor._control_session import Readable, reader

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_QUICK_S = 0.5  # what is done sooner shows no bar

Advance = Callable[[int], None]


@contextlib.contextmanager
def progress(what: str, total: int | None) -> Iterator[Advance]:
    """Yield a function to be told of every few bytes that went by. total: of bytes, None if nobody knows."""
    bar = _Bar(what, total) if sys.stderr.isatty() else None
    try:
        yield bar.advance if bar is not None else _ignore
    finally:
        if bar is not None:
            bar.close()


def _ignore(count: int) -> None:
    pass


class _Bar:
    """The bar itself, which appears once there is something to wait for; rich is not loaded before."""

    def __init__(self, what: str, total: int | None) -> None:
        self._what = what
        self._total = total
        self._done = 0
        self._started = time.monotonic()
        self._shown: tuple[Progress, TaskID] | None = None

    def advance(self, count: int) -> None:
        self._done += count
        if self._shown is None and time.monotonic() - self._started > _QUICK_S:
            self._show()
        if self._shown is not None:
            progress, task = self._shown
            progress.update(task, completed=self._done)

    def close(self) -> None:
        if self._shown is not None:
            self._shown[0].stop()

    def _show(self) -> None:
        from rich import progress as rich
        from rich.console import Console

        columns: list[rich.ProgressColumn] = [rich.TextColumn("{task.description}"), rich.BarColumn()]
        columns += [rich.DownloadColumn(binary_units=True), rich.TransferSpeedColumn()]
        if self._total is not None:
            columns.append(rich.TimeRemainingColumn())
        bar = rich.Progress(*columns, console=Console(stderr=True), transient=True)
        bar.start()
        self._shown = (bar, bar.add_task(self._what, total=self._total))


class Counted:
    """A binary file that tells how much was read of it."""

    def __init__(self, file: Readable, advance: Advance) -> None:
        self._read = reader(file)
        self._advance = advance

    def read(self, size: int, /) -> bytes | str:
        """Read what is there, at most ``size`` bytes."""
        block = self._read(size)
        self._advance(len(block))
        return block
