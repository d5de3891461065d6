"""What the commands say that only daemons of this project know: frozen values, as in ``receptor.types``.

``raw`` keeps the JSON as it came. Where an older daemon cannot tell something, the value is None.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Self

JSON = Mapping[str, Any]  # Any: a JSON object as it came


@dataclass(frozen=True, slots=True)
class About:
    """What a daemon says of itself.

    implementation: "pyreceptor", or "" of a daemon that does not say. commands: what this client may use there, None if
    it does not say. clock_skew: how far its clock is ahead of ours, None if it does not say.
    """

    node: str
    version: str
    implementation: str = ""
    platform: str = ""
    commands: tuple[str, ...] | None = None
    uptime: timedelta | None = None
    clock_skew: timedelta | None = None
    raw: JSON = field(repr=False, compare=False, default_factory=dict)


@dataclass(frozen=True, slots=True)
class TopologyNode:
    """A node that is known; if reachable with its cost, hops, next hop ``via`` and ``parent``, the node before it."""

    node: str
    reachable: bool
    cost: float | None = None
    hops: int | None = None
    via: str | None = None
    parent: str | None = None
    heard: timedelta | None = None

    @classmethod
    def from_json(cls, raw: JSON) -> Self:
        """Decode an element of ``nodes``."""
        return cls(
            str(raw["node"]),
            bool(raw.get("reachable")),
            raw.get("cost"),
            raw.get("hops"),
            raw.get("via"),
            raw.get("parent"),
            _seconds(raw.get("heard_s")),
        )


@dataclass(frozen=True, slots=True)
class TopologyEdge:
    """A link between ``a`` and ``b``, and what each end says of its cost (None: it does not list the other).

    state: ``ok``, ``costs differ``, ``one-sided`` or ``unconfirmed``.
    """

    a: str
    b: str
    cost_ab: float | None
    cost_ba: float | None
    state: str

    @classmethod
    def from_json(cls, raw: JSON) -> Self:
        """Decode an element of ``edges``."""
        return cls(str(raw["a"]), str(raw["b"]), raw.get("cost_ab"), raw.get("cost_ba"), str(raw.get("state", "")))


@dataclass(frozen=True, slots=True)
class TopologyService:
    """A service some node advertises. ``work`` maps the work types it offers to whether they want signatures."""

    node: str
    service: str
    connection: str
    tags: Mapping[str, str]
    work: Mapping[str, bool]
    heard: timedelta | None = None
    skew: timedelta | None = None

    @classmethod
    def from_json(cls, raw: JSON) -> Self:
        """Decode an element of ``services``."""
        return cls(
            str(raw["node"]),
            str(raw["service"]),
            str(raw.get("connection", "")),
            raw.get("tags") or {},
            {str(offer["type"]): bool(offer.get("secure")) for offer in raw.get("work") or ()},
            _seconds(raw.get("heard_s")),
            _seconds(raw.get("skew_s")),
        )


@dataclass(frozen=True, slots=True)
class Topology:
    """The mesh as ``node`` knows it."""

    node: str
    nodes: tuple[TopologyNode, ...]
    edges: tuple[TopologyEdge, ...]
    services: tuple[TopologyService, ...]
    raw: JSON = field(repr=False, compare=False, default_factory=dict)

    @classmethod
    def from_json(cls, raw: JSON) -> Self:
        """Decode the object of the control command ``topology``."""
        return cls(
            str(raw["node"]),
            tuple(map(TopologyNode.from_json, raw.get("nodes") or ())),
            tuple(map(TopologyEdge.from_json, raw.get("edges") or ())),
            tuple(map(TopologyService.from_json, raw.get("services") or ())),
            raw,
        )


@dataclass(frozen=True, slots=True)
class Backend:
    """A dialer or listener of a node, and why it has no link if it has none.

    state: ``up``, ``listening``, ``dialing``, ``waiting``, ``standby`` (the peer is linked already) or ``stopped``.
    error, error_kind: the last failure, or "".
    """

    backend: str
    kind: str
    state: str
    cost: float
    peers: tuple[str, ...]
    error: str = ""
    error_kind: str = ""
    next_try: timedelta | None = None

    @classmethod
    def from_json(cls, raw: JSON) -> Self:
        """Decode an element of ``backends``."""
        error = raw.get("last_error") or {}
        return cls(
            str(raw["backend"]),
            str(raw.get("kind", "")),
            str(raw.get("state", "")),
            float(raw.get("cost") or 0),
            tuple(raw.get("peers") or ()),
            str(error.get("text", "")),
            str(error.get("kind", "")),
            _seconds(raw.get("next_try_s")),
        )


@dataclass(frozen=True, slots=True)
class Link:
    """An established link of a node; ``heard`` is how long ago something came over it."""

    node: str
    cost: float
    link: str
    backend: str
    heard: timedelta | None

    @classmethod
    def from_json(cls, raw: JSON) -> Self:
        """Decode an element of ``links``."""
        return cls(
            str(raw["node"]),
            float(raw.get("cost") or 0),
            str(raw.get("link", "")),
            str(raw.get("backend", "")),
            _seconds(raw.get("heard_s")),
        )


@dataclass(frozen=True, slots=True)
class Links:
    """Everything a node knows of why it is, or is not, connected; firewall and TLS profiles are in ``raw``."""

    node: str
    backends: tuple[Backend, ...]
    links: tuple[Link, ...]
    raw: JSON = field(repr=False, compare=False, default_factory=dict)

    @classmethod
    def from_json(cls, raw: JSON) -> Self:
        """Decode the object of the control command ``links``."""
        return cls(
            str(raw["node"]),
            tuple(map(Backend.from_json, raw.get("backends") or ())),
            tuple(map(Link.from_json, raw.get("links") or ())),
            raw,
        )


@dataclass(frozen=True, slots=True)
class BackendFailed:
    """A try of ``backend`` to make a link has failed, for another reason than before; ``kind`` as in ``Backend``."""

    backend: str
    reason: str
    kind: str


@dataclass(frozen=True, slots=True)
class WorkReleased:
    """The unit is no more."""

    unit: str


@dataclass(frozen=True, slots=True)
class SnapshotComplete:
    """All that was there has been told; what follows are changes."""

    node: str


def _seconds(value: object) -> timedelta | None:
    return timedelta(seconds=value) if isinstance(value, (int, float)) else None
