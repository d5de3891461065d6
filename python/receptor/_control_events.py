"""Lines of the control command ``events`` as events of ``receptor.types``. No I/O."""

from __future__ import annotations

import json
from typing import Any, TypeAlias

from receptor import _control_types as more
from receptor._control_errors import ControlProtocolError
from receptor.types import (
    EventsLost,
    PeerDown,
    PeerUp,
    RoutesChanged,
    ServiceGone,
    ServiceSeen,
    UnitStatus,
    WorkChanged,
)

DaemonEvent: TypeAlias = (
    PeerUp
    | PeerDown
    | RoutesChanged
    | ServiceSeen
    | ServiceGone
    | WorkChanged
    | EventsLost
    | more.BackendFailed
    | more.WorkReleased
    | more.SnapshotComplete
)
JSON = dict[str, Any]  # Any: a JSON object as it came


class EventDecoder:
    r"""Turns lines into events, and keeps the routing table, which the daemon tells route by route.

    >>> decoder = EventDecoder()
    >>> decoder.feed('{"event":"route","change":"up","node":"edge","via":"hub","cost":2,"snapshot":true}')
    []
    >>> decoder.feed('{"event":"live","node":"laptop"}')
    [RoutesChanged(table={'edge': 'hub'}), SnapshotComplete(node='laptop')]
    >>> decoder.feed('{"event":"route","change":"down","node":"edge"}')
    [RoutesChanged(table={})]
    """

    def __init__(self) -> None:
        self.table: dict[str, str] = {}
        self._fresh = True

    def feed(self, line: str) -> list[DaemonEvent]:
        """Return the events of a line: none for one of a kind that this version does not know.

        The routes of a snapshot are one event, at its end.
        """
        raw = event_json(line)
        try:
            event = self._event(raw)
            if event is None:
                return []
            if isinstance(event, more.SnapshotComplete):
                routes = [] if self._fresh else [RoutesChanged(dict(self.table))]
                self._fresh = True
                return [*routes, event]
            return [event]
        except (AttributeError, KeyError, TypeError, ValueError) as e:
            raise ControlProtocolError(f"the daemon sent an event that cannot be used: {type(e).__name__}: {e}") from e

    def _event(self, raw: JSON) -> DaemonEvent | None:
        match raw["event"], raw.get("change"):
            case "link", "up":
                return PeerUp(str(raw["node"]), float(raw.get("cost") or 0))
            case "link", "down":
                return PeerDown(str(raw["node"]), float(raw.get("cost") or 0), str(raw.get("reason") or ""))
            case "backend", _:
                return more.BackendFailed(str(raw["backend"]), str(raw.get("reason") or ""), str(raw.get("kind") or ""))
            case "route", change:
                return self._route(raw, change)
            case "service", "up":
                return ServiceSeen(str(raw["node"]), str(raw["service"]))
            case "service", "down":
                return ServiceGone(str(raw["node"]), str(raw["service"]))
            case "unit", "changed":
                return WorkChanged(UnitStatus.from_json(str(raw["unit"]), raw["status"]))
            case "unit", "released":
                return more.WorkReleased(str(raw["unit"]))
            case "live", _:
                return more.SnapshotComplete(str(raw["node"]))
            case "dropped", _:
                return EventsLost(int(raw.get("count") or 0))
        return None

    def _route(self, raw: JSON, change: object) -> RoutesChanged | None:
        if raw.get("snapshot"):
            if self._fresh:  # the first route of a new snapshot: what it does not name is gone
                self.table, self._fresh = {}, False
            self.table[str(raw["node"])] = str(raw["via"])
            return None
        if change == "down":
            self.table.pop(str(raw["node"]), None)
        else:
            self.table[str(raw["node"])] = str(raw["via"])
        return RoutesChanged(dict(self.table))


def event_json(line: str) -> JSON:
    """Return the object of a line."""
    try:
        raw = json.loads(line)
        if isinstance(raw, dict) and isinstance(raw.get("event"), str):
            return raw
    except (ValueError, RecursionError):
        pass
    raise ControlProtocolError(f"the daemon sent something that is no event: {line[:120]!r}")
