"""topology and path: the mesh as a picture, and the way to one node."""

from __future__ import annotations

from typing import Any

import click

from receptor.cli import _graph, _show
from receptor.cli._root import Failure, Session, cli, completing, pass_session
from receptor.control import NotOfferedError

_FORMATS = ("tree", "dot", "mermaid", "json", "svg")


@cli.command(
    help="Show the mesh: the paths from the node as a tree, or all of it in a format for other programs.",
    example="receptorctl topology --format svg > mesh.svg",
    data=True,
)
@click.option(
    "--format", "drawing", type=click.Choice(_FORMATS), default="tree", show_default=True, help="What to print"
)
@pass_session
def topology(session: Session, drawing: str) -> None:
    """Print the mesh."""
    if drawing == "json" or _show.form() != "table":
        _show.document(_raw_topology(session))
        return
    mesh = session.client.topology()
    for line in {"tree": _graph.tree, "dot": _graph.dot, "mermaid": _graph.mermaid, "svg": _graph.svg}[drawing](mesh):
        _show.out(line)


def _raw_topology(session: Session) -> dict[str, Any]:  # Any: JSON values
    try:
        return session.client.request("topology")
    except NotOfferedError:
        from receptor._control_topology import from_status

        return from_status(session.client.command("status"))


@cli.command(
    help="Show the path to a node: every node on it, what each link costs, and how long it takes to get there.",
    example="receptorctl path edge-7",
    data=True,
)
@click.argument("node", shell_complete=completing("nodes"))
@click.option("--probe/--no-probe", default=True, help="Send probes along the path (the default), or do not")
@pass_session
def path(session: Session, node: str, probe: bool) -> None:
    """Print a path, as it should be by the costs, and as probes see it."""
    mesh = session.client.topology()
    nodes = {known.node: known for known in mesh.nodes}
    target = nodes.get(mesh.node if node.lower() == "localhost" else node)
    if target is None or not target.reachable:
        raise _no_path(session, node, known=target is not None)
    way = [target]
    while way[-1].node != mesh.node and (before := nodes.get(way[-1].parent or "")) is not None and before not in way:
        way.append(before)
    way.reverse()
    probes = session.client.traceroute(target.node) if probe else []
    hops = []
    for number, step in enumerate(way):
        seen = probes[number] if number < len(probes) else None
        hops.append(
            {
                "hop": number,
                "node": step.node,
                "cost": step.cost,
                "time_ns": round(seen.rtt.total_seconds() * 1e9) if seen and seen.from_node == step.node else None,
                "error": str(seen.error) if seen and seen.error else None,
            }
        )
    other = [hop.from_node for hop in probes if hop.from_node not in [step.node for step in way]]
    if _show.form() != "table":
        _show.document({"from": mesh.node, "to": target.node, "reachable": True, "cost": target.cost, "hops": hops})
        return
    rows = [(hop["hop"], hop["node"], hop["cost"], _time(hop["time_ns"]), hop["error"] or "") for hop in hops]
    for line in _show.table(("Hop", "Node", "Cost", "Time", "Error"), rows):
        _show.out(line)
    if other:
        _show.warning(f"probes went another way, over {', '.join(other)}: routes have just changed, or costs differ")


def _time(nanoseconds: Any) -> str:
    if nanoseconds is None:
        return "-"
    return _show.span(nanoseconds / 1e9)


def _no_path(session: Session, node: str, *, known: bool) -> Failure:
    if _show.form() != "table":
        _show.document({"from": session.client.node, "to": node, "reachable": False, "cost": None, "hops": []})
    text = f"no route to node {node}" if known else f"node {node} is not known here"
    return Failure(text, hint=f"find out why with: receptorctl doctor {node}")
