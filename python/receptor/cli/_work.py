"""The commands about work units."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from receptor.cli import _show
from receptor.cli._root import Failure, Group, Interrupted, Session, cli, fail_usage, pass_session
from receptor.control import Payload, RefusedError, Submitted

if TYPE_CHECKING:
    from receptor.types import UnitStatus

REFUSED = 101
_BLOCK_BYTES = 64 * 1024


@cli.group(cls=Group, help="Submit, look at and end units of work.", example="receptorctl work list")
def work() -> None:
    """Group the work commands."""


@work.command("list", help="Show work units and how they stand.", example="receptorctl work list --quiet")
@click.option("--quiet", "-q", is_flag=True, help="Only print the IDs of the units")
@click.option("--node", help="Node whose units to show; default is the node we are connected to")
@click.option("--unit_id", "--unit-id", "unit", help="Only show this unit")
@click.option("--tls-client", default="", help="TLS client entry of the daemon for the connection to --node")
@click.option("--json", "_json", is_flag=True, help="Print as JSON, which this command does anyway")
@pass_session
def list_units(session: Session, quiet: bool, node: str | None, unit: str | None, tls_client: str, _json: bool) -> None:
    """Print the units of a node."""
    if node:
        session.client.hop_to(node, tls_client=tls_client)
    units = session.client.command(f"work list {unit}" if unit else "work list")
    if not quiet:
        _show.document(units)
        return
    for name in units:
        _show.out(name)


@work.command(
    help="Submit a unit of work. CMDPARAMS are appended to the parameter params.",
    example="receptorctl work submit --node edge-7 backup --payload in.tar --follow --rm",
)
@click.argument("worktype")
@click.argument("cmdparams", nargs=-1)
@click.option("--node", help="Node to run the unit on; default is the node we are connected to")
@click.option("--payload", "-p", "payload_file", help="File with the input of the unit, - for standard input")
@click.option("--payload-literal", "-l", "literal", help="The input of the unit itself; a newline is appended")
@click.option("--no-payload", "-n", is_flag=True, help="The unit gets no input")
@click.option("--tls-client", help="TLS client entry of the daemon to use for the connection to the node")
@click.option("--ttl", help="Time after which a remote unit that has not started is given up, such as 1h20m30s")
@click.option("--signwork", is_flag=True, help="Sign the request with the key of the daemon")
@click.option("--follow", "-f", is_flag=True, help="Wait for the unit and print its output as it comes")
@click.option("--rm", is_flag=True, help="Release the unit at the end")
@click.option("--param", "-a", "params", multiple=True, help="Work parameter KEY=VALUE; @FILE as VALUE reads a file")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON; not with --follow")
@pass_session
def submit(
    session: Session,
    worktype: str,
    cmdparams: tuple[str, ...],
    node: str | None,
    payload_file: str | None,
    literal: str | None,
    no_payload: bool,
    tls_client: str | None,
    ttl: str | None,
    signwork: bool,
    follow: bool,
    rm: bool,
    params: tuple[str, ...],
    as_json: bool,
) -> None:
    """Start a unit and, if asked to, stay with it."""
    if as_json and follow:
        fail_usage("--json and --follow exclude each other: stdout carries the output of the unit")
    payload = _payload(payload_file, literal, no_payload)
    if rm and not follow:
        _show.warning("using --rm without --follow. Unit results will never be seen.")
    unit = ""

    def created(name: str) -> None:
        nonlocal unit
        unit = name

    try:
        try:
            started = session.client.work.submit(
                node,
                worktype,
                payload,
                params=_parameters(params, cmdparams),
                tls_client=tls_client,
                ttl_s=ttl,
                sign=signwork,
                on_created=created,
            )
        except (OSError, ValueError, RuntimeError) as e:
            raise Failure(str(e), REFUSED, hint=getattr(e, "hint", "")) from e
        if follow:
            _follow(session, started.unit)
        elif not as_json:
            _show.out(f"Result: {started.result}")
            _show.out(f"Unit ID: {started.unit}")
    except KeyboardInterrupt:
        raise _interrupted(unit, submitted=follow) from None
    except Exception:
        if rm and unit:
            _release_after(session, unit)
        raise
    _finish_submit(session, started, rm, as_json)


def _finish_submit(session: Session, started: Submitted, rm: bool, as_json: bool) -> None:
    pending = session.client.work.release(started.unit) if rm else None
    if as_json:
        _show.document({"unit": started.unit, "result": started.result, "released": pending is False})
    elif pending is not None:
        _show.out(f"({started.unit}, {_word('release', pending)})")


def _release_after(session: Session, unit: str) -> None:
    """Release ``unit`` although something failed; that failure is what the user is told."""
    try:
        pending = session.client.work.release(unit)
    except (OSError, RuntimeError) as e:
        _show.error(f"{unit}: {e}")
    else:
        _show.out(f"({unit}, {_word('release', pending)})")


def _payload(file: str | None, literal: str | None, none: bool) -> Payload:
    given = sum((file is not None, literal is not None, none))
    if given == 0:
        raise Failure(
            "Must provide one of --payload, --no-payload or --payload-literal.",
            hint="add -n for no input, -p FILE for that of a file, or -p - for standard input",
        )
    if given > 1:
        raise Failure("Cannot provide more than one of --payload, --no-payload and --payload-literal.")
    if literal is not None:
        return f"{literal}\n"
    if file is None:
        return b""
    if file == "-":
        return sys.stdin.buffer
    return _open_payload(file)


def _open_payload(path: str) -> BinaryIO:
    try:
        return click.get_current_context().with_resource(open(path, "rb"))
    except OSError as e:
        raise Failure(f"Failed to load payload file: {e}") from None


def _parameters(given: Iterable[str], cmdparams: tuple[str, ...]) -> dict[str, str]:
    params: dict[str, str] = {}
    for number, item in enumerate(given):
        key, equals, value = item.partition("=")
        if not equals:
            raise Failure(
                f"dictionary update sequence element #{number} has length 1; 2 is required",
                REFUSED,
                hint=f"write a parameter as KEY=VALUE, not as {item!r}",
            )
        params[key] = _file_text(value[1:]) if value.startswith("@") and not value.startswith("@@") else value
    if cmdparams:
        params["params"] = " ".join([params["params"], *cmdparams] if params.get("params") else cmdparams)
    return params


def _file_text(path: str) -> str:
    if not os.path.exists(path):
        raise Failure(f"{path} does not exist", REFUSED)
    with open(path, encoding="utf-8") as file:
        return file.read()


@work.command(help="Print the output of a unit, from start to end.", example="receptorctl work results LWJm6jtg")
@click.argument("unit_id")
@pass_session
def results(session: Session, unit_id: str) -> None:
    """Stream the output of a unit."""
    try:
        _follow(session, unit_id)
    except KeyboardInterrupt:
        raise _interrupted(unit_id, submitted=True) from None


def _interrupted(unit: str, *, submitted: bool) -> Exception:
    if not unit:
        return click.Abort()
    if not submitted:
        return Interrupted(f"see what became of the unit with: receptorctl work list --unit_id {unit}")
    return Interrupted(f"the unit goes on; see its output with: receptorctl work results {unit}")


def _follow(session: Session, unit: str) -> None:
    """Copy the output of ``unit`` to stdout until the unit is complete, and fail if the unit did."""
    sink = sys.stdout.buffer
    position = empty = 0
    # A stream that ends early belongs to a daemon that is going down or was restarted: ask for the rest. Twice in a row
    # without a byte means that there is no more to be had.
    while empty < 2:
        copied = _copy_output(session, unit, position, sink)
        position += copied
        empty = 0 if copied else empty + 1
        status = session.client.work.status(unit, timeout_s=None)
        if status.complete and position >= status.stdout_size:
            _raise_if_failed(status)
            return
    raise Failure(
        f"The daemon ended the results of unit {unit} after {position} bytes, before the unit was complete",
        hint=f"see how the unit stands with: receptorctl work list --unit_id {unit}",
    )


def _copy_output(session: Session, unit: str, position: int, sink: BinaryIO) -> int:
    copied = 0
    with session.client.work.results(unit, offset=position) as output:
        # read1 returns what is there, and the flush shows it at once.
        while block := output.read1(_BLOCK_BYTES):  # type: ignore[attr-defined]
            sink.write(block)
            sink.flush()
            copied += len(block)
    return copied


def _raise_if_failed(status: UnitStatus) -> None:
    from receptor.types import WorkState

    if status.state is WorkState.FAILED:
        raise Failure(f"Remote unit failed: {status.detail}\n")
    if status.state is WorkState.CANCELED:
        raise Failure(f"Remote unit was cancelled: {status.detail}\n")


@work.command(help="Stop units of work. Their output stays.", example="receptorctl work cancel LWJm6jtg")
@click.argument("unit_ids", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print as JSON")
@pass_session
def cancel(session: Session, unit_ids: tuple[str, ...], as_json: bool) -> None:
    """Stop units."""
    _end_units(session, "cancel", unit_ids, as_json)


@work.command(help="Stop units of work and delete their output.", example="receptorctl work release LWJm6jtg")
@click.argument("unit_ids", nargs=-1)
@click.option("--force", is_flag=True, help="Delete here even if the node that runs the unit cannot be told")
@click.option("--all", "everything", is_flag=True, help="Release all units of the node")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON")
@pass_session
def release(session: Session, unit_ids: tuple[str, ...], force: bool, everything: bool, as_json: bool) -> None:
    """Delete units."""
    units = tuple(session.client.command("work list")) if everything else unit_ids
    _end_units(session, "release", units, as_json, force=force)


def _end_units(session: Session, verb: str, units: tuple[str, ...], as_json: bool, *, force: bool = False) -> None:
    done: list[dict[str, Any]] = []  # Any: JSON values
    failure = None
    if not units:
        _show.warning("No unit IDs supplied: Not doing anything")
    elif not as_json:
        _show.out("Cancelled:" if verb == "cancel" else "Released:")
    for unit in units:
        try:
            word = _word(verb, _end_unit(session, verb, unit, force))
        except RefusedError as e:
            failure = Failure(f"{unit}: ERROR: {e.text}", hint=e.hint)
            break
        done.append({"unit": unit, "result": word})
        if not as_json:
            _show.out(f"({unit}, {word})")
    if as_json:
        _show.document({"units": done, "error": failure.message if failure else None})
    if failure is not None:
        raise failure


def _end_unit(session: Session, verb: str, unit: str, force: bool) -> bool:
    client = session.client.work
    return client.cancel(unit) if verb == "cancel" else client.release(unit, force=force)


def _word(verb: str, pending: bool) -> str:
    done = {"cancel": "cancelled", "release": "released"}
    return f"{verb} pending" if pending else done[verb]


__all__ = ["cancel", "list_units", "release", "results", "submit", "work"]
