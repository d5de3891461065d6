"""The mesh as a daemon knows it that has only ``status``: the object that ``topology`` would send."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from typing import Any

_CONNECTIONS = {0: "datagram", 1: "stream", 2: "stream-tls"}
JSON = dict[str, Any]  # Any: a JSON object as it came or as it goes
Costs = Mapping[str, Mapping[str, float]]


def from_status(status: JSON) -> JSON:
    """Return nodes, edges and services; what ``status`` does not tell (times, clocks) is left out."""
    here = str(status["NodeID"])
    costs: dict[str, Mapping[str, float]] = {here: {}, **(status.get("KnownConnectionCosts") or {})}
    known = {*costs, *(peer for peers in costs.values() for peer in peers)}
    paths = _paths(here, costs)
    routes = status.get("RoutingTable") or {}
    return {
        "node": here,
        "nodes": [_node(name, paths, routes, here) for name in sorted(known)],
        "edges": [_edge(a, b, costs) for a, b in _pairs(costs)],
        "services": [_service(ad) for ad in status.get("Advertisements") or ()],
    }


def _paths(here: str, costs: Costs) -> dict[str, tuple[float, int, str]]:
    """Return cost, hops and the node before for every node that links of equal cost on both ends lead to."""
    found: dict[str, tuple[float, int, str]] = {}
    queue: list[tuple[float, int, str, str]] = [(0, 0, here, "")]
    while queue:
        cost, hops, name, parent = heapq.heappop(queue)
        if name in found:
            continue
        found[name] = (cost, hops, parent)
        for peer, step in costs.get(name, {}).items():
            if name in costs.get(peer, {}):
                heapq.heappush(queue, (cost + step, hops + 1, peer, name))
    return found


def _node(name: str, paths: Mapping[str, tuple[float, int, str]], routes: Mapping[str, str], here: str) -> JSON:
    if name == here:
        return {"node": name, "reachable": True, "cost": 0, "hops": 0}
    if name not in routes:
        return {"node": name, "reachable": False}
    node: JSON = {"node": name, "reachable": True, "via": routes[name]}
    if name in paths:
        node["cost"], node["hops"], node["parent"] = paths[name]
    return node


def _pairs(costs: Costs) -> list[tuple[str, str]]:
    return sorted({(min(a, b), max(a, b)) for a, peers in costs.items() for b in peers})


def _edge(a: str, b: str, costs: Costs) -> JSON:
    edge: JSON = {"a": a, "b": b}
    ab, ba = costs.get(a, {}).get(b), costs.get(b, {}).get(a)
    if ab is not None:
        edge["cost_ab"] = ab
    if ba is not None:
        edge["cost_ba"] = ba
    if ab is not None and ba is not None:
        edge["state"] = "ok" if ab == ba else "costs differ"
    else:
        edge["state"] = "one-sided" if (a if ab is None else b) in costs else "unconfirmed"
    return edge


def _service(ad: JSON) -> JSON:
    return {
        "node": ad["NodeID"],
        "service": ad["Service"],
        "connection": _CONNECTIONS.get(ad.get("ConnType") or 0, str(ad.get("ConnType"))),
        "tags": ad.get("Tags") or {},
        "work": [
            {"type": offer["WorkType"], "secure": bool(offer["Secure"])} for offer in ad.get("WorkCommands") or ()
        ],
        "time": ad.get("Time"),
    }
