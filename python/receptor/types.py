"""What goes into a node and what comes out of it: frozen values, the same for the blocking and the asyncio side.

Durations are ``timedelta``, times are aware ``datetime``, and ``raw`` keeps the JSON object that a value was made of,
with whatever a newer node added to it.
"""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum, IntEnum
from typing import Any, Literal, Self, TypeAlias, TypeVar

from ._address import Address
from .errors import ConfigError, ReceptorError, from_wire

__all__ = [
    "TLS",
    "Address",
    "Advertisement",
    "BackendID",
    "BoundListener",
    "Connection",
    "DatagramStatus",
    "Event",
    "EventKind",
    "EventsLost",
    "Hop",
    "LinkListener",
    "LogLevel",
    "LogRecord",
    "Peer",
    "PeerDown",
    "PeerUp",
    "PingResult",
    "Route",
    "RoutesChanged",
    "ServiceGone",
    "ServiceSeen",
    "ServiceType",
    "Status",
    "StreamState",
    "StreamStatus",
    "TLSProfile",
    "Topology",
    "UnitStatus",
    "WorkChanged",
    "WorkCommand",
    "WorkOffer",
    "WorkResult",
    "WorkState",
]

JSON: TypeAlias = dict[str, Any]  # Any: an object as it came over the wire
_T = TypeVar("_T")

EventKind: TypeAlias = Literal["peer", "route", "service", "work", "log"]
LogLevel: TypeAlias = Literal["error", "warning", "info", "debug"]
BackendID: TypeAlias = int | str  # Names a dialer or a listener of a node; only for handing back.


# What goes into a node.


@dataclass(frozen=True, slots=True)
class TLS:
    """Certificates and rules of one side of a TLS connection, as PEM files that are read again when they change.

    cert, key: what this side shows; needed where it is the server. A node's certificate carries its node ID.
    cas: the authorities that may have signed the other side's; None trusts SSL_CERT_FILE of the node's environment,
        or what the system does.
    require_client_cert: where this side is the server: the other side must show a certificate, too. Then ``cas`` and
        ``pins`` are about it.
    pins: fingerprints (SHA-256 or SHA-512, hexadecimal); the other side's certificate must have one of them.
    insecure_skip_verify: where this side is the client: accept any certificate. Pins are compared nevertheless.
    skip_names_check: the own certificate need not carry the own node ID.
    min_tls13: refuse TLS 1.2 on links; streams never use it.
    """

    cert: str | os.PathLike[str] | None = None
    key: str | os.PathLike[str] | None = None
    cas: str | os.PathLike[str] | None = None
    require_client_cert: bool = False
    pins: Sequence[str] = ()
    insecure_skip_verify: bool = False
    skip_names_check: bool = False
    min_tls13: bool = False

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            raise ConfigError(f"TLS: cert and key go together, and {'cert' if self.cert is None else 'key'} is missing")

    def to_json(self) -> JSON:
        """The object that the session's keys ``tls`` and ``tls_profiles`` take."""
        files = {"cert": self.cert, "key": self.key, "cas": self.cas}
        keys: JSON = {name: os.path.abspath(path) for name, path in files.items() if path is not None}
        rules = ("require_client_cert", "insecure_skip_verify", "skip_names_check", "min_tls13")
        keys |= {name: True for name in rules if getattr(self, name)}
        if self.pins:
            keys["pins"] = list_of("pins", self.pins, "fingerprints")
        return keys


TLSProfile: TypeAlias = TLS | str  # Files and rules, or the name of a profile of the node's configuration.


def tls_keys(tls: TLSProfile | None) -> JSON:
    """The key ``tls`` of a request; none without TLS."""
    if tls is None:
        return {}
    return {"tls": tls if isinstance(tls, str) else of_kind(tls, TLS, "tls", "the name of a profile").to_json()}


def of_kind(value: _T, kind: type[_T], what: str, other: str = "") -> _T:
    """``value`` if it is of ``kind``; else raise ConfigError. other: what is taken as well."""
    if not isinstance(value, kind):
        raise ConfigError(f"{what} {value!r}: want a receptor.{kind.__name__}{other and ' or '}{other}")
    return value


def list_of(what: str, values: Iterable[_T], of: str) -> list[_T]:
    """``values`` as a list; ConfigError if they are a string, or nothing to iterate over. of: what they are."""
    if isinstance(values, str):
        raise ConfigError(f"{what}: want a list of {of}, got the string {values!r}")
    if not isinstance(values, Iterable):
        raise ConfigError(f"{what}={values!r}: want a list of {of}")
    return list(values)


@dataclass(frozen=True, slots=True)
class Peer:
    """A neighbour to dial.

    address: ``tcp://host:port``, ``udp://host:port``, ``ws://host:port/path`` or ``wss://host:port/path``;
        ``host:port`` is TCP.
    cost: what the link adds to a route, > 0; both ends must use the same.
    redial: dial again when the link is lost; False gives up after the first failure or loss.
    allowed_peers: node IDs that may be at the other end; None admits everybody.
    tls: for tcp and wss: TLS, or the name of a profile; wss without it trusts what the system does.
    headers: of the HTTP request that opens a ws or wss link.
    """

    address: str
    cost: float = 1.0
    redial: bool = True
    allowed_peers: Sequence[str] | None = None
    tls: TLSProfile | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> JSON:
        """The keys of the session's ``peer.add``."""
        keys: JSON = {"address": self.address, "cost": self.cost, "redial": self.redial}
        if self.allowed_peers is not None:
            keys["allowed_peers"] = list_of("allowed_peers", self.allowed_peers, "node IDs")
        if self.headers:
            keys["headers"] = dict(self.headers)
        return keys | tls_keys(self.tls)


@dataclass(frozen=True, slots=True)
class LinkListener:
    """An address where neighbours may dial in.

    address: ``tcp://host:port``, ``udp://host:port``, ``ws://host:port/path`` or ``wss://host:port/path``; port 0
        takes a free one.
    cost: what its links add to a route, > 0.
    node_cost: other costs for the neighbours named.
    allowed_peers: node IDs that may dial in; None admits everybody.
    tls: for tcp, and needed for wss: TLS, or the name of a profile.
    """

    address: str
    cost: float = 1.0
    node_cost: Mapping[str, float] = field(default_factory=dict)
    allowed_peers: Sequence[str] | None = None
    tls: TLSProfile | None = None

    def to_json(self) -> JSON:
        """The keys of the session's ``listen.add``."""
        keys: JSON = {"address": self.address, "cost": self.cost}
        if self.node_cost:
            keys["node_cost"] = dict(self.node_cost)
        if self.allowed_peers is not None:
            keys["allowed_peers"] = list_of("allowed_peers", self.allowed_peers, "node IDs")
        return keys | tls_keys(self.tls)


@dataclass(frozen=True, slots=True)
class WorkCommand:
    """A work type of this node that runs a command.

    worktype: the name under which units ask for it.
    command: the program, a path or a name found in ``PATH``.
    params: its arguments, split as a shell would.
    allow_runtime_params: let the submitter add arguments.
    verify_signature: take it only with a signature, which a configuration file says how to verify.
    """

    worktype: str
    command: str
    params: str = ""
    allow_runtime_params: bool = False
    verify_signature: bool = False

    def to_json(self) -> JSON:
        """An element of ``work_commands`` of the session's ``open``."""
        return {
            "worktype": self.worktype,
            "command": self.command,
            "params": self.params,
            "allowruntimeparams": self.allow_runtime_params,
            "verifysignature": self.verify_signature,
        }


# What comes out of it.


@dataclass(frozen=True, slots=True)
class BoundListener:
    """A listener for neighbours that is up.

    backend: what :meth:`Node.remove` takes.
    address: what neighbours dial, such as "tcp://127.0.0.1:2222", with the port that was found for port 0.
    """

    backend: BackendID
    address: str


@dataclass(frozen=True, slots=True)
class PingResult:
    """The answer to a ping: who gave it, and how long it took there and back."""

    from_node: str
    rtt: timedelta


@dataclass(frozen=True, slots=True)
class Hop:
    """One step of a traceroute.

    number: counts from 0. from_node: who answered, empty if nobody did. rtt: there and back.
    error: None at the target; how the probe ended elsewhere.
    """

    number: int
    from_node: str
    rtt: timedelta
    error: ReceptorError | None = None

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Self:
        """Decode an element of the reply of ``traceroute``."""
        error = from_wire(raw["err"]) if raw.get("err") else None
        return cls(int(raw.get("hop", 0)), str(raw.get("from", "")), _nanoseconds(raw.get("rtt_ns")), error)


@dataclass(frozen=True, slots=True)
class Route:
    """How a node is reached: over which neighbour, and at what cost."""

    node: str
    next_hop: str
    cost: float


@dataclass(frozen=True, slots=True)
class Topology:
    """The mesh as the node sees it: its nodes, and its links as (one end, other end, cost), each once."""

    nodes: tuple[str, ...]
    links: tuple[tuple[str, str, float], ...]

    @classmethod
    def of(cls, status: "Status") -> Self:
        """What a status says of the mesh."""
        costs = status.known_costs
        nodes = {status.node, *costs, *(peer for peers in costs.values() for peer in peers)}
        links = {(min(a, b), max(a, b)): float(cost) for a, peers in costs.items() for b, cost in peers.items()}
        return cls(tuple(sorted(nodes)), tuple((a, b, cost) for (a, b), cost in sorted(links.items())))

    def neighbours(self, node: str) -> dict[str, float]:
        """The nodes that ``node`` has links to, and their costs.

        >>> Topology(("a", "b"), (("a", "b", 1.0),)).neighbours("b")
        {'a': 1.0}
        """
        return {b if a == node else a: cost for a, b, cost in self.links if node in (a, b)}


@dataclass(frozen=True, slots=True)
class DatagramStatus:
    """What a datagram socket has carried; ``dropped`` ones came while the program did not read."""

    sent: int
    received: int
    dropped: int


@dataclass(frozen=True, slots=True)
class Connection:
    """An established link to a neighbour."""

    node: str
    cost: float


class ServiceType(IntEnum):
    """What an advertised service speaks."""

    DATAGRAM = 0
    STREAM = 1
    STREAM_TLS = 2

    def __str__(self) -> str:
        return self.name


_SERVICE_TYPES: dict[int, ServiceType] = {member.value: member for member in ServiceType}


@dataclass(frozen=True, slots=True)
class WorkOffer:
    """A work type that a node offers; secure ones want signed submissions."""

    worktype: str
    secure: bool


@dataclass(frozen=True, slots=True)
class Advertisement:
    """A service that some node in the mesh advertises. ``type`` is a plain number if it is none we know."""

    node: str
    service: str
    time: datetime | None
    type: ServiceType | int
    tags: Mapping[str, str]
    work: tuple[WorkOffer, ...]
    raw: Mapping[str, Any] = field(repr=False, compare=False, default_factory=dict)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Self:
        """Decode an element of ``Advertisements`` of a status object."""
        number = int(raw.get("ConnType") or 0)
        return cls(
            node=str(raw.get("NodeID", "")),
            service=str(raw.get("Service", "")),
            time=_time(raw.get("Time")),
            type=_SERVICE_TYPES.get(number, number),
            tags=raw.get("Tags") or {},
            work=tuple(
                WorkOffer(str(offer.get("WorkType", "")), bool(offer.get("Secure")))
                for offer in raw.get("WorkCommands") or ()
            ),
            raw=raw,
        )


@dataclass(frozen=True, slots=True)
class Status:
    """What a node knows of itself and of the mesh at one moment.

    connections: its links. routing_table: reachable node to next hop. known_costs: the links of the whole mesh, as
    node to neighbour to cost. advertisements: services of all nodes. memory_mib: the machine's memory.
    """

    node: str
    version: str
    connections: tuple[Connection, ...]
    routing_table: Mapping[str, str]
    known_costs: Mapping[str, Mapping[str, float]]
    advertisements: tuple[Advertisement, ...]
    cpu_count: int
    memory_mib: int
    raw: Mapping[str, Any] = field(repr=False, compare=False, default_factory=dict)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Self:
        """Decode the object of the control command ``status``."""
        return cls(
            node=str(raw.get("NodeID", "")),
            version=str(raw.get("Version", "")),
            connections=tuple(
                Connection(str(link.get("NodeID", "")), float(link.get("Cost", 0)))
                for link in raw.get("Connections") or ()
            ),
            routing_table=raw.get("RoutingTable") or {},
            known_costs=raw.get("KnownConnectionCosts") or {},
            advertisements=tuple(Advertisement.from_json(ad) for ad in raw.get("Advertisements") or ()),
            cpu_count=int(raw.get("SystemCPUCount") or 0),
            memory_mib=int(raw.get("SystemMemoryMiB") or 0),
            raw=raw,
        )


class StreamState(Enum):
    """Where a stream is in its life."""

    OPEN = "open"
    CLOSED = "closed"  # Both directions ended in good order.
    RESET = "reset"  # Broken off; ``StreamStatus.error`` says by whom and why.


@dataclass(frozen=True, slots=True)
class StreamStatus:
    """How a stream stands, and how many bytes of payload went each way."""

    state: StreamState
    bytes_in: int
    bytes_out: int
    error: ReceptorError | None = None

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Self:
        """Decode the reply of ``stream.status``."""
        state = StreamState(raw.get("state", "closed"))
        error = from_wire({"code": "reset", **(raw.get("err") or {})}) if state is StreamState.RESET else None
        return cls(state, int(raw.get("bytes_in") or 0), int(raw.get("bytes_out") or 0), error)


# Work.


class WorkState(IntEnum):
    """Where a unit of work is in its life."""

    UNKNOWN = -1  # A number that this version does not know; the raw object has it.
    PENDING = 0
    RUNNING = 1
    SUCCEEDED = 2
    FAILED = 3
    CANCELED = 4

    def __str__(self) -> str:
        return self.name


_WORK_STATES: dict[object, WorkState] = {member.value: member for member in WorkState}
_COMPLETE = frozenset({WorkState.SUCCEEDED, WorkState.FAILED, WorkState.CANCELED})
_EXIT_STATUS = re.compile(r"exit status (\d+)\Z")


@dataclass(frozen=True, slots=True)
class UnitStatus:
    """A unit of work at one moment.

    detail: text for people ("Running: PID 4711", "exit status 0"). stdout_size: bytes of output known so far.
    extra: what the kind of work adds, None if nothing.
    """

    unit: str
    state: WorkState
    detail: str
    stdout_size: int
    worktype: str
    extra: Any = None  # Any: whatever the work type stores: an object, a text, or nothing
    raw: Mapping[str, Any] = field(repr=False, compare=False, default_factory=dict)

    @property
    def complete(self) -> bool:
        """The unit has ended, and its state will not change any more."""
        return self.state in _COMPLETE

    @classmethod
    def from_json(cls, unit: str, raw: Mapping[str, Any]) -> Self:
        """Decode the object of the control command ``work status``."""
        return cls(
            unit=unit,
            state=_WORK_STATES.get(raw.get("State"), WorkState.UNKNOWN),
            detail=str(raw.get("Detail") or ""),
            stdout_size=int(raw.get("StdoutSize") or 0),
            worktype=str(raw.get("WorkType") or ""),
            extra=raw.get("ExtraData"),
            raw=raw,
        )


@dataclass(frozen=True, slots=True)
class WorkResult:
    """How a unit of work ended.

    exit_code: of the command; None if it was killed, never ran or is not a command. stdout_size: bytes of output.
    """

    unit: str
    state: WorkState
    detail: str
    exit_code: int | None
    stdout_size: int
    raw: Mapping[str, Any] = field(repr=False, compare=False, default_factory=dict)

    @classmethod
    def of(cls, status: UnitStatus) -> Self:
        """What the last status of a unit says.

        >>> WorkResult.of(UnitStatus.from_json("u1", {"State": 3, "Detail": "exit status 2"})).exit_code
        2
        """
        found = _EXIT_STATUS.match(status.detail)
        code = int(found.group(1)) if found else None
        return cls(status.unit, status.state, status.detail, code, status.stdout_size, status.raw)


# Events.


@dataclass(frozen=True, slots=True)
class PeerUp:
    """A link to ``node`` was established."""

    node: str
    cost: float


@dataclass(frozen=True, slots=True)
class PeerDown:
    """The link to ``node`` ended."""

    node: str
    cost: float
    reason: str


@dataclass(frozen=True, slots=True)
class RoutesChanged:
    """The routing table is now ``table``: reachable node to next hop."""

    table: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ServiceSeen:
    """``node``, which may be this one, advertises ``service``, and did not before."""

    node: str
    service: str


@dataclass(frozen=True, slots=True)
class ServiceGone:
    """``node`` no longer advertises ``service``."""

    node: str
    service: str


@dataclass(frozen=True, slots=True)
class WorkChanged:
    """The unit of ``status`` changed."""

    status: UnitStatus


@dataclass(frozen=True, slots=True)
class LogRecord:
    """A log record of the node."""

    level: str
    time: datetime | None
    message: str
    attrs: Mapping[str, Any]  # Any: JSON values


@dataclass(frozen=True, slots=True)
class EventsLost:
    """``count`` events did not fit into the node's queue because they were not taken fast enough."""

    count: int


Event: TypeAlias = PeerUp | PeerDown | RoutesChanged | ServiceSeen | ServiceGone | WorkChanged | LogRecord | EventsLost


def event_from_json(raw: Mapping[str, Any]) -> Event | None:
    """Decode an event; None if it is of a kind that this version does not know."""
    kind, name = raw.get("ev"), str(raw.get("node", ""))
    match kind, raw.get("kind"):
        case "peer", "up":
            return PeerUp(name, float(raw.get("cost") or 0))
        case "peer", "down":
            return PeerDown(name, float(raw.get("cost") or 0), str(raw.get("reason") or ""))
        case "route", _:
            return RoutesChanged(raw.get("table") or {})
        case "service", "seen":
            return ServiceSeen(name, str(raw.get("service", "")))
        case "service", "gone":
            return ServiceGone(name, str(raw.get("service", "")))
        case "work", _:
            return WorkChanged(UnitStatus.from_json(str(raw.get("unit", "")), raw.get("status") or {}))
        case "log", _:
            return LogRecord(
                str(raw.get("level") or "info").lower(),
                _time(raw.get("time")),
                str(raw.get("msg") or ""),
                raw.get("attrs") or {},
            )
        case "lost", _:
            return EventsLost(int(raw.get("n") or 0))
    return None


def _nanoseconds(value: object) -> timedelta:
    return timedelta(microseconds=int(value) / 1000) if isinstance(value, (int, float)) else timedelta()


def _time(value: object) -> datetime | None:
    if not isinstance(value, str):
        return None
    try:
        return datetime.fromisoformat(value)
    except ValueError:
        return None
