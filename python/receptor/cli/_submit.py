"""work submit: start a unit, and stay with it if asked to."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable
from typing import BinaryIO

import click

from receptor.cli import _show
from receptor.cli._progress import Counted, progress
from receptor.cli._root import Failure, Interrupted, Session, completing, fail_usage, pass_session
from receptor.cli._work import ending_word, work
from receptor.control import ClientUnit, Payload, Readable

REFUSED = 101
_MAX_PARAMETER = 16 * 1024 * 1024  # bytes: no daemon of ours reads a longer request
_AS_PAYLOAD = "send it as payload, with -p"


@work.command(
    help="Submit a unit of work. CMDPARAMS are appended to the parameter params, of which a command gets the words, "
    "as a shell splits them.",
    example="receptorctl work submit --node edge-7 backup --payload in.tar --follow --rm",
    data=True,
)
@click.argument("worktype", shell_complete=completing("worktypes"))
@click.argument("cmdparams", nargs=-1)
@click.option(
    "--node",
    shell_complete=completing("nodes"),
    help="Node to run the unit on; default is this one",
)
@click.option("--payload", "-p", "payload_file", help="File with the input of the unit, - for standard input")
@click.option("--payload-literal", "-l", "literal", help="The input of the unit itself; a newline is appended")
@click.option("--no-payload", "-n", is_flag=True, help="The unit gets no input")
@click.option("--tls-client", help="TLS client entry of the daemon to use for the connection to the node")
@click.option("--ttl", help="Time after which a remote unit that has not started is given up, such as 1h20m30s")
@click.option("--signwork", is_flag=True, help="Sign the request with the key of the daemon")
@click.option("--follow", "-f", is_flag=True, help="Wait for the unit and print its output as it comes")
@click.option("--rm", is_flag=True, help="Release the unit at the end")
@click.option(
    "--param",
    "-a",
    "params",
    multiple=True,
    help="Work parameter KEY=VALUE; @FILE as VALUE reads a file, which keeps a secret_KEY out of process lists",
)
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
) -> None:
    """Start a unit and, if asked to, stay with it."""
    as_data = _show.form() != "table"
    if as_data and follow:
        fail_usage("--json and --follow exclude each other: stdout carries the output of the unit")
    payload, size = _payload(payload_file, literal, no_payload)
    if rm and not follow:
        _show.warning("using --rm without --follow. Unit results will never be seen.")
    unit = ""

    def created(name: str) -> None:
        nonlocal unit
        unit = name

    try:
        try:
            with progress("payload", size) as advance:
                started = session.client.work.submit(
                    node,
                    worktype,
                    Counted(payload, advance) if isinstance(payload, Readable) else payload,
                    params=_parameters(params, cmdparams),
                    tls_client=tls_client,
                    ttl_s=ttl,
                    sign=signwork,
                    on_created=created,
                )
        except (OSError, ValueError, RuntimeError) as e:
            hint = getattr(e, "hint", "")
            if node is None and cmdparams and getattr(e, "code", "") == "work_type":
                hint = _meant_node(session, worktype) or hint
            raise Failure(str(e), REFUSED, hint=hint) from e
        if follow:
            from receptor.cli._output import follow as follow_output

            follow_output(session, started.id)
        elif not as_data:
            _show.out(f"Result: {started.result}")
            _show.out(f"Unit ID: {started.id}")
    except KeyboardInterrupt:
        if not unit:
            raise
        raise Interrupted(f"see what became of the unit with: receptorctl work list --unit_id {unit}") from None
    except Interrupted:
        raise
    except Exception:
        if rm and unit:
            _release_after(session, unit)
        raise
    _finish_submit(started, rm, as_data)


def _meant_node(session: Session, name: str) -> str:
    """Return a hint for one who gave a node in the place of the work type."""
    with contextlib.suppress(OSError, RuntimeError):
        if name in session.client.status().known_costs:
            return f"{name} is a node; to run something there: receptorctl work submit --node {name} WORKTYPE"
    return ""


def _finish_submit(started: ClientUnit, rm: bool, as_data: bool) -> None:
    done = started.release() if rm else None
    if as_data:
        _show.document({"unit": started.id, "result": started.result, "released": done is True})
    elif done is not None:
        _show.out(f"({started.id}, {ending_word('release', done)})")


def _release_after(session: Session, unit: str) -> None:
    """Release ``unit`` although something failed; that failure is what the user is told."""
    try:
        done = session.client.work.unit(unit).release()
    except (OSError, RuntimeError) as e:
        _show.error(f"{unit}: {e}")
    else:
        _show.out(f"({unit}, {ending_word('release', done)})")


def _payload(file: str | None, literal: str | None, none: bool) -> tuple[Payload, int | None]:
    """Return the payload, and its size if that is known."""
    given = sum((file is not None, literal is not None, none))
    if given == 0:
        raise Failure(
            "Must provide one of --payload, --no-payload or --payload-literal.",
            hint="add -n for no input, -p FILE for that of a file, or -p - for standard input",
        )
    if given > 1:
        raise Failure("Cannot provide more than one of --payload, --no-payload and --payload-literal.")
    if literal is not None:
        return f"{literal}\n", None
    if file is None:
        return b"", None
    if file == "-":
        if sys.stdin is None:
            raise Failure("standard input is closed", hint="add -n for no input, or -p FILE for that of a file")
        return sys.stdin.buffer, None
    opened = _open_payload(file)
    return opened, _size(opened)


def _open_payload(path: str) -> BinaryIO:
    try:
        return click.get_current_context().with_resource(open(path, "rb"))
    except OSError as e:
        raise Failure(f"Failed to load payload file: {e}") from None


def _size(file: BinaryIO) -> int | None:
    with contextlib.suppress(OSError):
        return os.fstat(file.fileno()).st_size or None
    return None


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
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(_MAX_PARAMETER + 1)
    except UnicodeDecodeError:
        raise Failure(f"{path} is not UTF-8 text", REFUSED, hint=_AS_PAYLOAD) from None
    if len(text) > _MAX_PARAMETER:
        raise Failure(f"{path} is larger than a parameter may be: {_MAX_PARAMETER} bytes", REFUSED, hint=_AS_PAYLOAD)
    return text
