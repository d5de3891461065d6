"""top: the node, its links, the mesh and the work, live."""

from __future__ import annotations

import sys
import time
from collections import Counter
from typing import Any

import click

from receptor.cli import _show, _units
from receptor.cli._root import Session, cli, pass_session
from receptor.cli._watch import Changes, screen
from receptor.control import Client, Links, NotOfferedError, Topology

_UNITS = 15
_LINKS = 10
_EVENTS = 8


@cli.command(
    help="Watch the node: its links, the mesh, units of work and what happens. Ctrl-C ends it.",
    example="receptorctl top --interval 5",
    data=True,
)
@click.option(
    "--interval", default=2.0, show_default=True, type=click.FloatRange(min=0.2), help="Seconds between two looks"
)
@click.option("--count", type=click.IntRange(min=1), help="Stop after that many looks")
@pass_session
def top(session: Session, interval: float, count: int | None) -> None:
    """Draw the state of the node again and again."""
    client = session.client
    number = 0
    with Changes(client, every_s=interval) as changes, screen() as draw:
        while True:
            number += 1
            view = _View(client)
            if _show.form() == "table":
                draw(view.lines(changes.recent))
            else:
                _show.line(view.data())
            sys.stdout.flush()
            if number == count:
                return
            changes.wait(interval)


class _View:
    """What one look at the node shows."""

    def __init__(self, client: Client) -> None:
        self.version = client.version()
        self.mesh: Topology = client.topology()
        self.units: dict[str, _units.Status] = client.command("work list")
        self.links: Links | None = None
        try:
            self.links = client.links()
        except NotOfferedError:
            pass

    @property
    def _states(self) -> Counter[str]:
        return Counter(_units.state(status).lower() for status in self.units.values())

    def data(self) -> dict[str, Any]:  # Any: JSON values
        reachable = [node for node in self.mesh.nodes if node.reachable]
        return {
            "node": self.mesh.node,
            "version": self.version,
            "links": [{"node": name, "cost": cost} for name, cost in self._neighbours()],
            "nodes": len(self.mesh.nodes),
            "routes": len(reachable) - 1,
            "units": len(self.units),
            "states": dict(self._states),
        }

    def _neighbours(self) -> list[tuple[str, float]]:
        if self.links is not None:
            return [(link.node, link.cost) for link in self.links.links]
        return [(node.node, node.cost or 0) for node in self.mesh.nodes if node.reachable and node.hops == 1]

    def lines(self, recent: list[str]) -> list[str]:
        data = self.data()
        states = ", ".join(f"{count} {state}" for state, count in sorted(data["states"].items())) or "none"
        name = _show.clean(str(data["node"]))
        return [
            f"{_show.styled(name, bold=True)}  {_show.clean(self.version)}  {time.strftime('%H:%M:%S')}"
            f"  links {len(data['links'])}  nodes {data['nodes']}  routes {data['routes']}  units: {states}",
            "",
            *self._link_lines(),
            "",
            *self._unit_lines(),
            *(["", "Events", *recent[-_EVENTS:]] if recent else []),
        ]

    def _link_lines(self) -> list[str]:
        if self.links is None:
            return _show.table(("Link", "Cost"), self._neighbours()[:_LINKS])
        rows: list[tuple[object, ...]] = [
            (link.node, link.cost, link.link, "-" if link.heard is None else _show.span(link.heard.total_seconds()))
            for link in self.links.links
        ]
        lines = _show.table(("Link", "Cost", "Address", "Heard"), rows[:_LINKS])
        if len(rows) > _LINKS:
            lines.append(f"... and {len(rows) - _LINKS} more")
        down = [backend for backend in self.links.backends if backend.error and not backend.peers]
        return lines + [_show.clean(f"! {backend.backend}: {backend.error}") for backend in down[:_LINKS]]

    def _unit_lines(self) -> list[str]:
        going = {unit: status for unit, status in self.units.items() if status.get("State") not in _units.COMPLETE}
        ended = {unit: status for unit, status in self.units.items() if unit not in going}
        lately = sorted(ended, key=lambda unit: str(ended[unit].get("Finished") or ""))[-_UNITS:]
        shown = dict(list(going.items())[: 2 * _UNITS]) | {unit: ended[unit] for unit in lately}
        lines = _units.table(shown, self.mesh.node)
        if len(shown) < len(self.units):
            lines.append(f"... and {len(self.units) - len(shown)} more")
        return lines
