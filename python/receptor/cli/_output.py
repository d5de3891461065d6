"""The output of units: work results and work logs."""

from __future__ import annotations

import base64
import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import click

from receptor._control_errors import hint_for
from receptor._control_ops import LOST
from receptor.cli import _show
from receptor.cli._progress import progress
from receptor.cli._root import Failure, Interrupted, Session, completing, pass_session
from receptor.cli._work import work
from receptor.control import ClientUnit

Sink = Callable[[int, bytes], None]

if TYPE_CHECKING:
    from receptor.types import UnitStatus


@work.command(
    help="Print the output of a unit, from start to end.", example="receptorctl work results LWJm6jtg", data=True
)
@click.argument("unit_id", shell_complete=completing("units"))
@click.option(
    "--offset", default=0, type=click.IntRange(min=0), help="Byte to start at, to go on after an interruption"
)
@pass_session
def results(session: Session, unit_id: str, offset: int) -> None:
    """Stream the output of a unit."""
    follow(session, unit_id, offset)


@work.command(
    help="Print what a unit has written so far, or with --follow all that it will.",
    example="receptorctl work logs --follow LWJm6jtg",
    data=True,
)
@click.argument("unit_id", shell_complete=completing("units"))
@click.option("--follow", "-f", is_flag=True, help="Go on until the unit is complete; its failure is no error here")
@click.option("--offset", default=0, type=click.IntRange(min=0), help="Byte to start at")
@click.option("--tail", type=click.IntRange(min=0), help="Start that many bytes before the present end")
@pass_session
def logs(session: Session, unit_id: str, follow: bool, offset: int, tail: int | None) -> None:
    """Print the output of a unit as far as it goes."""
    unit = session.client.work.unit(unit_id)
    status = unit.status()
    if tail is not None:
        offset = max(status.stdout_size - tail, 0)
    with interruptible(unit_id) as place:
        place.offset = offset
        if follow:
            copy_output(unit, place, offset, status)
        else:
            _copy_until(unit, place, offset, status)


class Place:
    """How far the output of a unit was copied."""

    def __init__(self) -> None:
        self.offset = 0


@contextlib.contextmanager
def interruptible(unit_id: str) -> Iterator[Place]:
    """Say at Ctrl-C, and where the daemon stays away, how to go on."""
    place = Place()
    try:
        yield place
    except KeyboardInterrupt:
        raise Interrupted(_to_go_on(unit_id, place.offset)) from None
    except LOST as e:
        raise Failure(str(e), hint=e.hint, goes_on=_to_go_on(unit_id, place.offset)) from e


def _to_go_on(unit_id: str, offset: int) -> str:
    text = f"the unit goes on; see its output with: receptorctl work results {unit_id}"
    rest = f"\nhint: or the rest of it with: receptorctl work results --offset {offset} {unit_id}"
    return text + (rest if offset else "")


def follow(session: Session, unit_id: str, offset: int = 0) -> None:
    """Copy the output of ``unit_id`` to stdout until the unit is complete, and fail if the unit did."""
    unit = session.client.work.unit(unit_id)
    with interruptible(unit_id) as place:
        place.offset = offset
        status = copy_output(unit, place, offset, None)
    _raise_if_failed(status)


def copy_output(unit: ClientUnit, place: Place, offset: int, known: UnitStatus | None) -> UnitStatus:
    """Copy output to stdout, each piece as it comes, and return the status after the last."""
    total = known.stdout_size - offset if known is not None and known.complete else None
    with _sink(unit, total) as sink:
        for chunk in unit.stdout(offset):
            sink(place.offset, chunk)
            place.offset += len(chunk)
    status = unit.status(timeout_s=None)
    _last_line(status)
    return status


def _copy_until(unit: ClientUnit, place: Place, offset: int, status: UnitStatus) -> None:
    with _sink(unit, status.stdout_size - offset) as sink, contextlib.closing(unit.stdout(offset)) as chunks:
        while place.offset < status.stdout_size:
            chunk = next(chunks, b"")[: status.stdout_size - place.offset]
            if not chunk:
                break
            sink(place.offset, chunk)
            place.offset += len(chunk)
    _last_line(status)


def _last_line(status: UnitStatus) -> None:
    if _show.form("raw") != "raw":
        from receptor.types import WorkResult

        result = WorkResult.of(status)
        _show.line(
            {
                "unit": status.unit,
                "state": status.raw.get("StateName", status.state.name.capitalize()),
                "detail": status.detail,
                "exit_code": result.exit_code,
                "size": status.stdout_size,
            }
        )


@contextlib.contextmanager
def _sink(unit: ClientUnit, total: int | None) -> Iterator[Sink]:
    """Yield what takes chunks: as bytes on stdout, with a bar while a terminal is free for it, or as lines of JSON."""
    if _show.form("raw") != "raw":
        yield _chunk_line
        return
    out = sys.stdout.buffer
    with contextlib.ExitStack() as stack:
        advance = None
        if not sys.stdout.isatty():
            advance = stack.enter_context(progress(f"results of {unit.id}", total))

        def write(offset: int, chunk: bytes) -> None:
            out.write(chunk)
            out.flush()
            if advance is not None:
                advance(len(chunk))

        yield write


def _chunk_line(offset: int, chunk: bytes) -> None:
    try:
        _show.line({"offset": offset, "text": chunk.decode()})
    except UnicodeDecodeError:
        _show.line({"offset": offset, "base64": base64.b64encode(chunk).decode()})


def _raise_if_failed(status: UnitStatus) -> None:
    from receptor.types import WorkState

    if status.state is WorkState.FAILED:
        raise Failure(f"Remote unit failed: {status.detail}\n", hint=hint_for(status.detail))
    if status.state is WorkState.CANCELED:
        raise Failure(f"Remote unit was cancelled: {status.detail}\n")
