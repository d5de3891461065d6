"""status, ping, traceroute, reload and version."""

from __future__ import annotations

import time
from typing import Any

import click

from receptor._control_errors import UNSAID
from receptor.cli import _show
from receptor.cli._root import Failure, Session, cli, completing, own_version, pass_session
from receptor.cli._table import status_lines
from receptor.control import ControlProtocolError, RefusedError

_CAUSE = "receptorctl doctor {} looks for the cause"


@cli.command(help="Show the status of the Receptor network.", example="receptorctl status --json", data=True)
@pass_session
def status(session: Session) -> None:
    """Print what the node knows."""
    reply = session.client.command("status")
    if _show.form() != "table":
        _show.document(reply)
        return
    for line in status_lines(reply):
        _show.out(line)


@cli.command(
    help="Ping a node and show how long its answers take.", example="receptorctl ping edge-7 --count 1", data=True
)
@click.argument("node", shell_complete=completing("nodes"))
@click.option("--count", default=4, show_default=True, help="Number of pings to send")
@click.option("--delay", default=1.0, show_default=True, help="Seconds to wait between pings")
@pass_session
def ping(session: Session, node: str, count: int, delay: float) -> None:
    """Probe a node."""
    replies = []
    as_data = _show.form() != "table"
    for number in range(count):
        if number:
            time.sleep(max(delay, 0))
        replies.append(_probe(session, node, as_data))
    received = sum(reply["success"] for reply in replies)
    if as_data:
        _show.document({"node": node, "sent": len(replies), "received": received, "replies": replies})
    if received < len(replies):
        _show.hint(_CAUSE.format(node))
        click.get_current_context().exit(2)


def _probe(session: Session, node: str, quiet: bool) -> dict[str, Any]:  # Any: JSON values
    reply = session.client.command(f"ping {node}")
    success, origin, error = reply.get("Success") is True, reply.get("From"), reply.get("Error")
    if success and not quiet:
        _show.out(f"Reply from {origin} in {reply.get('TimeStr')}")
    elif not success and not quiet:
        came = f" from {origin} in {reply.get('TimeStr')}" if "From" in reply and "TimeStr" in reply else ""
        _show.error(f"{error or UNSAID}{came}")
    return {"success": success, "from": origin, "time_ns": reply.get("Time"), "error": error}


@cli.command(help="Show the way to a node, hop by hop.", example="receptorctl traceroute edge-7", data=True)
@click.argument("node", shell_complete=completing("nodes"))
@pass_session
def traceroute(session: Session, node: str) -> None:
    """Trace the way to a node."""
    reply = session.client.command(f"traceroute {node}")
    if not all(key.isdecimal() and isinstance(hop, dict) for key, hop in reply.items()):
        raise ControlProtocolError("the daemon's answer to traceroute is not a list of hops")
    hops = [(int(key), reply[key]) for key in sorted(reply, key=int)]
    if _show.form() != "table":
        _show.document({"node": node, "reached": _reached(hops), "hops": [_hop(n, hop) for n, hop in hops]})
        return
    for number, hop in hops:
        if "Error" in hop:
            _show.error(f"{number}: Error {hop['Error']} from {hop.get('From')} in {hop.get('TimeStr')}")
        else:
            _show.out(f"{number}: {hop.get('From')} in {hop.get('TimeStr')}")
    if not _reached(hops):
        _show.hint(_CAUSE.format(node))


def _reached(hops: list[tuple[int, dict[str, Any]]]) -> bool:
    return bool(hops) and "Error" not in hops[-1][1]


def _hop(number: int, hop: dict[str, Any]) -> dict[str, Any]:
    return {"hop": number, "from": hop.get("From") or None, "time_ns": hop.get("Time"), "error": hop.get("Error")}


@cli.command(help="Make the daemon read its configuration file again.", example="receptorctl reload", data=True)
@click.option("--dry-run", is_flag=True, help="Say what would change, and change nothing")
@pass_session
def reload(session: Session, dry_run: bool) -> None:
    """Reload the configuration."""
    as_data = _show.form() != "table"
    try:
        changes = session.client.reload(dry_run=dry_run)
    except RefusedError as e:
        if not e.reply:
            raise
        codes = {"ERRORCODE 3": 3, "ERRORCODE 4": 4}
        code = next((codes[text] for text in codes if text in e.text), 5)
        if as_data:
            _show.document({"success": False, "error": e.text, "code": code, "changes": []})
        raise Failure(e.text, code) from None
    if as_data:
        _show.document({"success": True, "error": None, "code": 0, "changes": changes})
        return
    _show.out(("These would change:" if changes else "Nothing would change") if dry_run else "Reload successful")
    for change in changes:
        _show.out(f"  {change}")


@cli.command(
    help="Show the versions of receptorctl and of the daemon.", example="receptorctl version --json", data=True
)
@pass_session
def version(session: Session) -> None:
    """Print both versions."""
    if _show.form() != "table":
        _show.document({"receptorctl": own_version(), "receptor": session.daemon_version})
        return
    _show.out(f"receptorctl  {own_version()}")
    _show.out(f"receptor     {session.daemon_version}")
