"""events: what happens, as it happens."""

from __future__ import annotations

import sys
from typing import Any

import click

from receptor.cli import _show
from receptor.cli._root import Session, cli, completing, pass_session
from receptor.cli._units import state

_KINDS = ("link", "route", "service", "unit")


@cli.command(
    help="Show what there is and then every change: links, routes, services and units, or those that are named.",
    example="receptorctl events link route",
    data=True,
)
@click.argument("kinds", nargs=-1, type=click.Choice(_KINDS))
@click.option("--node", shell_complete=completing("nodes"), help="Only events about this node")
@click.option("--unit", help="Only events about this unit")
@click.option("--snapshot/--no-snapshot", default=True, help="Begin with what is there now (the default), or do not")
@pass_session
def events(session: Session, kinds: tuple[str, ...], node: str | None, unit: str | None, snapshot: bool) -> None:
    """Print events until Ctrl-C or the end of the daemon."""
    from receptor._control_events import event_json

    for line in session.client.event_lines(*kinds, node=node, unit=unit, snapshot=snapshot):
        raw = event_json(line)
        if _show.form() == "json":
            _show.out(line)
        elif _show.form() == "yaml":
            _show.line(raw)
        elif raw["event"] != "alive":
            _show.out(sentence(raw))
        sys.stdout.flush()


def sentence(raw: dict[str, Any]) -> str:  # Any: JSON values
    """Return an event in words, with the time of day."""
    moment = str(raw.get("time", ""))
    clock = moment[11:19] if len(moment) >= 19 else "--:--:--"
    return f"{clock} {'is ' if raw.get('snapshot') else ''}{_show.clean(_words(raw))}"


def _words(raw: dict[str, Any]) -> str:
    kind, change, node = raw.get("event"), raw.get("change"), raw.get("node")
    match kind:
        case "link" if change == "up":
            return f"link up: {node}, cost {raw.get('cost'):g}, {raw.get('link')}"
        case "link":
            return f"link down: {node}: {raw.get('reason') or 'no reason told'}"
        case "backend":
            return f"backend {change}: {raw.get('backend')}: {raw.get('reason')}"
        case "route" if change == "down":
            return f"route down: {node}"
        case "route":
            return f"route {change}: {node} via {raw.get('via')}, cost {raw.get('cost')}"
        case "service":
            return f"service {change}: {raw.get('service')} of {node}"
        case "unit" if change == "released":
            return f"unit released: {raw.get('unit')}"
        case "unit":
            status = raw.get("status") or {}
            return f"unit {change}: {raw.get('unit')} {state(status)}: {status.get('Detail')}"
        case "live":
            return f"live: that was what {node} has now; changes follow"
        case "dropped":
            return f"dropped: {raw.get('count')} changes were lost because they were not read fast enough"
    return str(raw)
