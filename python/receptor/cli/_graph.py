"""The mesh drawn: as a tree of paths, and in formats that other programs draw. Names of nodes are foreign text."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Iterator

from receptor.cli import _show
from receptor.control import Topology, TopologyEdge, TopologyNode


def tree(mesh: Topology) -> Iterator[str]:
    """Yield lines: the paths from the node, then the links that are on none of them, then what is not reachable."""
    children: dict[str, list[TopologyNode]] = {}
    for node in mesh.nodes:
        if node.reachable and node.node != mesh.node:
            children.setdefault(node.parent or node.via or mesh.node, []).append(node)
    yield _show.clean(mesh.node)
    yield from _branches(mesh, children, mesh.node, "", {mesh.node})
    used = {frozenset((node.node, node.parent)) for node in mesh.nodes if node.parent}
    others = [edge for edge in mesh.edges if frozenset((edge.a, edge.b)) not in used]
    if others:
        yield ""
        yield "Other links:"
        yield from (f"  {_show.clean(edge.a)} -- {_show.clean(edge.b)}  {_edge_text(edge)}" for edge in others)
    lost = [node for node in mesh.nodes if not node.reachable]
    if lost:
        yield ""
        yield "Not reachable:"
        yield from (f"  {_show.clean(node.node)}{_heard(node)}" for node in lost)


def _branches(
    mesh: Topology, children: dict[str, list[TopologyNode]], parent: str, indent: str, seen: set[str]
) -> Iterator[str]:
    below = [node for node in children.get(parent, []) if node.node not in seen]
    for number, node in enumerate(below):
        seen.add(node.node)
        last = number == len(below) - 1
        edge = _edge_between(mesh, parent, node.node)
        step = f"  {_edge_text(edge)}" if edge is not None else ""
        total = f", {node.cost:g} from here" if node.cost is not None and parent != mesh.node else ""
        yield f"{indent}{'`-- ' if last else '|-- '}{_show.clean(node.node)}{step}{total}"
        yield from _branches(mesh, children, node.node, indent + ("    " if last else "|   "), seen)


def _edge_between(mesh: Topology, a: str, b: str) -> TopologyEdge | None:
    return next((edge for edge in mesh.edges if {edge.a, edge.b} == {a, b}), None)


def _edge_text(edge: TopologyEdge) -> str:
    ab = "?" if edge.cost_ab is None else f"{edge.cost_ab:g}"
    ba = "?" if edge.cost_ba is None else f"{edge.cost_ba:g}"
    if edge.state == "ok":
        return f"cost {ab}"
    return f"cost {ab} by {_show.clean(edge.a)}, {ba} by {_show.clean(edge.b)}: {edge.state}"


def _heard(node: TopologyNode) -> str:
    return "" if node.heard is None else f"  (heard {_show.span(node.heard.total_seconds())} ago)"


def dot(mesh: Topology) -> Iterator[str]:
    """Yield the graph for Graphviz."""
    yield "graph mesh {"
    yield "  node [shape=box, style=rounded];"
    for node in mesh.nodes:
        look = "bold" if node.node == mesh.node else "rounded" if node.reachable else "dashed"
        yield f"  {_quoted(node.node)} [style={_quoted(look)}];"
    for edge in mesh.edges:
        style = "" if edge.state == "ok" else ", style=dashed, color=red"
        yield f"  {_quoted(edge.a)} -- {_quoted(edge.b)} [label={_quoted(_label(edge))}{style}];"
    yield "}"


def _quoted(text: str) -> str:
    return '"' + _show.clean(text).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _label(edge: TopologyEdge) -> str:
    if edge.state == "ok":
        return f"{edge.cost_ab:g}"
    return " / ".join("?" if cost is None else f"{cost:g}" for cost in (edge.cost_ab, edge.cost_ba))


def mermaid(mesh: Topology) -> Iterator[str]:
    """Yield the graph for Mermaid, which pages of documentation draw."""
    yield "graph TD"
    number = {node.node: f"n{count}" for count, node in enumerate(mesh.nodes)}
    for node in mesh.nodes:
        text = json.dumps(_entities(node.node + ("" if node.reachable else " (not reachable)")), ensure_ascii=False)
        yield f"  {number[node.node]}[{text}]"
    for edge in mesh.edges:
        line = "---" if edge.state == "ok" else "-.-"
        yield f'  {number[edge.a]} {line}|"{_label(edge)}"| {number[edge.b]}'


def _entities(text: str) -> str:
    return html.escape(_show.clean(text)).replace("&", "#").replace("##", "#")


def svg(mesh: Topology) -> Iterator[str]:
    """Yield a drawing: the node in the middle, the others on rings by their hops, unreachable ones outermost."""
    places, radius = _rings(mesh)
    side = 2 * radius + 240
    yield f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {side:.0f} {side:.0f}" font-family="sans-serif">'
    yield f'<rect width="{side:.0f}" height="{side:.0f}" fill="#ffffff"/>'
    for edge in mesh.edges:
        (xa, ya), (xb, yb) = places[edge.a], places[edge.b]
        look = 'stroke="#5b6770"' if edge.state == "ok" else 'stroke="#c0392b" stroke-dasharray="6 4"'
        yield f'<line x1="{xa:.1f}" y1="{ya:.1f}" x2="{xb:.1f}" y2="{yb:.1f}" stroke-width="1.5" {look}/>'
        yield _text((xa + xb) / 2, (ya + yb) / 2 - 4, _label(edge), 11, "#5b6770")
    for node in mesh.nodes:
        x, y = places[node.node]
        width = max(44, 8 * len(node.node) + 18)
        fill = "#d6eaf8" if node.node == mesh.node else "#eafaf1" if node.reachable else "#f2f3f4"
        dash = "" if node.reachable else ' stroke-dasharray="4 3"'
        yield (
            f'<rect x="{x - width / 2:.1f}" y="{y - 14:.1f}" width="{width}" height="28" rx="7" '
            f'fill="{fill}" stroke="#2c3e50"{dash}/>'
        )
        yield _text(x, y + 4.5, node.node, 13, "#17202a")
    yield "</svg>"


def _text(x: float, y: float, text: str, size: int, colour: str) -> str:
    shown = html.escape(_show.clean(text))
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="middle" fill="{colour}">{shown}</text>'


def _rings(mesh: Topology) -> tuple[dict[str, tuple[float, float]], float]:
    """Return where each node stands, each branch of the tree in a sector of its own, and the radius of all."""
    far = max([node.hops or 1 for node in mesh.nodes if node.reachable and node.node != mesh.node], default=0)
    rings: dict[int, list[TopologyNode]] = {}
    for node in mesh.nodes:
        if node.node != mesh.node:
            rings.setdefault((node.hops or 1) if node.reachable else far + 1, []).append(node)
    angle = {mesh.node: 0.0}
    polar: dict[str, tuple[float, float]] = {mesh.node: (0.0, 0.0)}
    distance = 0.0
    for ring in sorted(rings):
        nodes = sorted(rings[ring], key=lambda node: (angle.get(node.parent or mesh.node, 0.0), node.node))
        wide = max(max(44, 8 * len(node.node) + 18) for node in nodes) + 20
        distance = max(distance + 110, len(nodes) * wide / (2 * math.pi))
        for number, node in enumerate(nodes):
            angle[node.node] = (
                2 * math.pi * (number + 0.5) / len(nodes) + 0.6 * ring
            )  # so that no line runs through a node
            polar[node.node] = (distance, angle[node.node])
    middle = distance + 120
    places = {
        name: (middle + length * math.sin(turn), middle - length * math.cos(turn))
        for name, (length, turn) in polar.items()
    }
    return places, distance
