"""The human form of a status reply."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from receptor.control import ControlProtocolError

_Status = dict[str, Any]  # Any: JSON values
_TYPES = {0: "Datagram", 1: "Stream", 2: "StreamTLS"}
_SHOWN = {
    "NodeID",
    "Version",
    "SystemCPUCount",
    "SystemMemoryMiB",
    "Connections",
    "KnownConnectionCosts",
    "RoutingTable",
    "Advertisements",
    "Certificates",
}


def status_lines(status: _Status) -> list[str]:
    """Return the lines that show ``status`` to a person."""
    try:
        return list(_lines(status))
    except (AttributeError, KeyError, TypeError, ValueError) as e:
        raise ControlProtocolError(f"the daemon's status cannot be used: {type(e).__name__}: {e}") from e


def _lines(status: _Status) -> Iterator[str]:
    yield f"Node ID: {status['NodeID']}"
    yield f"Version: {status['Version']}"
    yield f"System CPU Count: {status['SystemCPUCount']}"
    yield f"System Memory MiB: {status['SystemMemoryMiB']}"
    links = status.get("Connections") or []
    costs = status.get("KnownConnectionCosts") or {}
    ads = status.get("Advertisements") or []
    width = max([12, *(len(link["NodeID"]) for link in links), *map(len, costs)])
    yield from _links(links, width)
    yield from _costs(costs, width)
    yield from _routes(status.get("RoutingTable") or {}, width)
    yield from _certificates(status.get("Certificates") or [], width)
    yield from _services(ads, width)
    yield from _work_types(ads, width, "Work Types", secure=False)
    yield from _work_types(ads, width, "Secure Work Types", secure=True)
    if rest := {key: value for key, value in status.items() if key not in _SHOWN}:
        yield ""
        yield "Additional data returned from Receptor:"
        yield json.dumps(rest, indent=4, sort_keys=True)


def _links(links: list[_Status], width: int) -> Iterator[str]:
    if links:
        yield ""
        yield f"{'Connection':<{width}} Cost"
    for link in links:
        yield f"{link['NodeID']:<{width}} {link['Cost']}"


def _costs(costs: dict[str, dict[str, float]], width: int) -> Iterator[str]:
    if costs:
        yield ""
        yield f"{'Known Node':<{width}} Known Connections"
    for node, peers in costs.items():
        yield f"{node:<{width}} " + "".join(f"{peer}: {cost} " for peer, cost in peers.items())


def _routes(routes: dict[str, str], width: int) -> Iterator[str]:
    if routes:
        yield ""
        yield f"{'Route':<{width}} Via"
    for node, via in routes.items():
        yield f"{node:<{width}} {via}"


def _certificates(certificates: list[_Status], width: int) -> Iterator[str]:
    if certificates:
        yield ""
        yield f"{'Certificate':<{width}} {'Use':<9} {'Good Until':<21} Node IDs"
    for of in certificates:
        use = "server" if of["Server"] else "client"
        yield f"{of['Name']:<{width}} {use:<9} {_seen(of['Expiry']):<21} {', '.join(of.get('NodeIDs') or ['-'])}"


def _services(ads: list[_Status], width: int) -> Iterator[str]:
    if ads:
        yield ""
        yield f"{'Node':<{width}} {'Service':<9} {'Type':<10} {'Last Seen':<21} Tags"
    for ad in ads:
        kind = _TYPES.get(ad["ConnType"], str(ad["ConnType"]))
        tags = "-" if ad["Tags"] is None else str(ad["Tags"])
        yield f"{ad['NodeID']:<{width}} {ad['Service']:<9} {kind:<10} {_seen(ad['Time']):<21} {tags:<16}"


def _seen(time: str) -> str:
    """Cut RFC 3339 to the second; the time zone stays that of the daemon's reply, UTC as a rule.

    >>> _seen("2026-11-21T21:14:30.719651208Z")
    '2026-11-21 21:14:30'
    """
    match = re.match(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)", time)
    return f"{match[1]} {match[2]}" if match else time


def _work_types(ads: list[_Status], width: int, title: str, *, secure: bool) -> Iterator[str]:
    offered: dict[str, dict[str, None]] = {}  # inner dict: a set that keeps its order
    for ad in ads:
        for work in ad["WorkCommands"] or []:
            if work["Secure"] is secure:
                offered.setdefault(ad["NodeID"], {})[work["WorkType"]] = None
    if offered:
        yield ""
        yield f"{'Node':<{width}} {title}"
    for node, types in offered.items():
        yield f"{node:<{width}} {', '.join(types)}"
