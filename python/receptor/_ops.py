"""The operations of a session as values, shared by the blocking and the asyncio shell.

Each function checks its arguments, builds the request and says how the reply is read. No I/O. What replies are made
into is read from ``types`` with the first such reply.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from . import _daemon
from ._address import Address
from ._seconds import check_seconds
from ._session import Op
from .errors import ClosedError, ConfigError, ReceptorError, WorkCancelled, WorkFailed

if TYPE_CHECKING:
    from .types import (
        JSON,
        TLS,
        BackendID,
        BoundListener,
        DatagramStatus,
        Hop,
        LinkListener,
        LogLevel,
        Peer,
        PingResult,
        Route,
        Status,
        StreamStatus,
        TLSProfile,
        UnitStatus,
        WorkCommand,
        WorkResult,
    )

EVENT_KINDS = ("peer", "route", "service", "work", "log")
LOG_LEVELS = ("error", "warning", "info", "debug")
_MAX_INT = 2**31 - 1
_MAX_OFFSET = 2**63 - 1
_MAX_CODE = 2**62 - 1  # Of a QUIC stream's end.
_SHORTEST_IDLE_S = 21  # Two adverts of a neighbour, and a second.
T = TypeVar("T")
_NEVER_S = 10 * 365 * 86_400.0  # What "wait for ever" is to a node whose default is shorter.


def open_node(
    node: str | None,
    *,
    peers: Iterable[str | Peer],
    listeners: Iterable[str | LinkListener],
    tls_profiles: Mapping[str, TLS] | None,
    config: str | os.PathLike[str] | None,
    data_dir: str | os.PathLike[str] | None,
    work_commands: Iterable[WorkCommand],
    environ: Mapping[str, str],
    max_idle_s: float | None,
    log_level: LogLevel | None,
    timeout_s: float | None,
    mode: str,
) -> Op[JSON]:
    """``open``: the node itself. mode: where it will run; a sidecar finds the daemon by itself."""
    from .types import TLS, WorkCommand, list_of, of_kind

    if node is None and config is None:
        raise ConfigError('a node needs an ID, or a configuration file that gives one: Node("web-1")')
    for what, given, there in (
        ("id", node, "the ID"),
        ("data_dir", data_dir, "it, as datadir of node"),
        ("max_idle_s", max_idle_s, "it, as maxidleconnectiontimeout of node"),
    ):
        if given is not None and config is not None:
            raise ConfigError(f"{what}={given!r} and config={config!r} exclude each other: the file gives {there}")
    commands = [
        of_kind(command, WorkCommand, "work command").to_json()
        for command in list_of("work_commands", work_commands, "receptor.WorkCommand")
    ]
    settings: JSON = {"environ": _environ(environ)}
    if log_level is not None:
        settings["log_level"] = _level(log_level)
    if node is not None:
        settings["node"] = _named("id", node)
    if config is not None:
        settings["file"] = _path("config", config)
    if data_dir is not None:
        settings["data_dir"] = _path("data_dir", data_dir)
    settings["peers"] = [_peer(peer).to_json() for peer in list_of("peers", peers, "addresses")]
    settings["listeners"] = [_listener(listener).to_json() for listener in list_of("listeners", listeners, "addresses")]
    if tls_profiles:
        profiles = _mapping("tls_profiles", tls_profiles, "receptor.TLS")
        settings["tls_profiles"] = {
            name: of_kind(profile, TLS, f"tls_profiles: {name!r}:").to_json() for name, profile in profiles.items()
        }
    if commands:
        settings["work_commands"] = commands
    if mode == "in-process":  # A sidecar is the daemon.
        if commands:
            settings["daemon"] = _daemon.require(f"work command {commands[0]['worktype']!r}")
        elif config is not None and (daemon := _daemon.find()) is not None:
            settings["daemon"] = daemon
    if max_idle_s is not None:
        settings["max_idle"] = _positive("max_idle_s", max_idle_s)
        if max_idle_s < _SHORTEST_IDLE_S:
            raise ConfigError(f"max_idle_s={max_idle_s!r}: want {_SHORTEST_IDLE_S} or more")
    return Op("open", {"config": settings}, _same, timeout_s)


def new_session(timeout_s: float | None) -> Op[None]:
    """``session.new``: brings the session's descriptor."""
    return Op("session.new", {}, _nothing, timeout_s)


def close(timeout_s: float) -> Op[None]:
    """``close``: stop the node, and wait until it has."""
    return Op("close", {"timeout": timeout_s}, _nothing, timeout_s, own_timeout=True)


def closed(what: str, why: ReceptorError | None) -> ClosedError:
    """What ``what`` raises at its end; why: what the node says to that, if the program did not want it."""
    error = ClosedError(f"{what} is closed: {why}" if why else f"{what} is closed")
    error.__cause__ = why
    return error


def status(timeout_s: float | None) -> Op[Status]:
    """``status``."""

    def decode(ok: JSON) -> Status:
        from .types import Status

        return Status.from_json(ok)

    return Op("status", {}, decode, timeout_s)


def ping(node: str, hops: int, timeout_s: float | None) -> Op[PingResult]:
    """``ping``."""
    _number("hops", hops, 1, 255)

    def decode(ok: JSON) -> PingResult:
        from datetime import timedelta

        from .types import PingResult

        return PingResult(str(ok.get("from", "")), timedelta(microseconds=ok.get("rtt_ns", 0) / 1000))

    return Op(
        "ping",
        {"node": _named("node", node), "hops": hops, "timeout": _limit(timeout_s)},
        decode,
        timeout_s,
        own_timeout=True,
    )


def traceroute(node: str, timeout_s: float | None) -> Op[list[Hop]]:
    """``traceroute``: each hop has the time."""

    def decode(ok: JSON) -> list[Hop]:
        from .types import Hop

        return [Hop.from_json(hop) for hop in ok.get("hops") or ()]

    return Op(
        "traceroute",
        {"node": _named("node", node), "timeout": _limit(timeout_s)},
        decode,
        timeout_s,
        own_timeout=True,
        watched=True,
    )


def wait_route(node: str, timeout_s: float | None) -> Op[Route]:
    """``route.wait``."""
    return Op(
        "route.wait",
        {"node": _named("node", node), **_timeout(timeout_s)},
        lambda ok: _route(node, ok),
        timeout_s,
        own_timeout=True,
    )


def routes(timeout_s: float | None) -> Op[dict[str, Route]]:
    """``routes``."""

    def decode(ok: JSON) -> dict[str, Route]:
        return {node: _route(node, raw) for node, raw in ok.items()}

    return Op("routes", {}, decode, timeout_s)


def forward(
    node: str, service: str, listen: str, tls: TLSProfile | None, timeout_s: float | None
) -> Op[tuple[int, str]]:
    """``forward.add``: the proxy's number and the address as bound."""
    keys = {"node": _named("node", node), "service": _named("service", service), "address": _place("listen", listen)}
    keys |= _tls(tls)
    return Op(
        "forward.add",
        keys,
        lambda ok: (int(ok["proxy"]), str(ok.get("address", ""))),
        timeout_s,
        undo=lambda ok: remove_proxy(int(ok["proxy"]), timeout_s),
        exclusive=True,
    )


def expose(
    address: str,
    service: str,
    advertise: bool,
    tags: Mapping[str, str] | None,
    tls: TLSProfile | None,
    timeout_s: float | None,
) -> Op[tuple[int, str]]:
    """``expose.add``: the proxy's number and the service's name."""
    keys: JSON = {"address": _place("address", address), "service": _named("service", service, found=True)}
    keys["advertise"] = _flag("advertise", advertise)
    keys |= _tls(tls) | _tags(tags)
    return Op(
        "expose.add",
        keys,
        lambda ok: (int(ok["proxy"]), _service(ok)),
        timeout_s,
        undo=lambda ok: remove_proxy(int(ok["proxy"]), timeout_s),
        exclusive=True,
    )


def remove_proxy(proxy: int, timeout_s: float | None) -> Op[None]:
    """``proxy.remove``."""
    return Op("proxy.remove", {"proxy": proxy}, _nothing, timeout_s, exclusive=True, frees=True)


def add_peer(
    address: str | Peer,
    cost: float,
    redial: bool,
    allowed_peers: Iterable[str] | None,
    tls: TLSProfile | None,
    timeout_s: float | None,
) -> Op[BackendID]:
    """``peer.add``. A whole Peer has its settings with it."""
    keys = _peer(address, cost, redial, _allowed(allowed_peers), tls).to_json()
    return Op(
        "peer.add",
        keys,
        lambda ok: _backend(ok["backend"]),
        timeout_s,
        undo=lambda ok: remove(_backend(ok["backend"]), timeout_s),
    )


def add_listener(
    address: str | LinkListener,
    cost: float,
    node_cost: Mapping[str, float] | None,
    allowed_peers: Iterable[str] | None,
    tls: TLSProfile | None,
    timeout_s: float | None,
) -> Op[BoundListener]:
    """``listen.add``. A whole LinkListener has its settings with it."""
    from .types import BoundListener

    costs = _mapping("node_cost", node_cost or {}, "numbers")
    keys = _listener(address, cost, costs, _allowed(allowed_peers), tls).to_json()
    return Op(
        "listen.add",
        keys,
        lambda ok: BoundListener(_backend(ok["backend"]), _bound(keys["address"], str(ok.get("address", "")))),
        timeout_s,
        undo=lambda ok: remove(_backend(ok["backend"]), timeout_s),
        exclusive=True,
    )


def remove(backend: BackendID | BoundListener, timeout_s: float | None) -> Op[None]:
    """``backend.remove``."""
    if not isinstance(backend, (int, str)):
        from .types import BoundListener, of_kind

        backend = of_kind(backend, BoundListener, "backend", "what add_peer has returned").backend
    return Op("backend.remove", {"backend": backend}, _nothing, timeout_s, exclusive=True, frees=True)


def connect(node: str, service: str, tls: TLSProfile | None, timeout_s: float | None) -> Op[tuple[int, Address]]:
    """``stream.connect``: the stream's ID and this side's address."""
    keys = {"node": _named("node", node), "service": _named("service", service), "timeout": _limit(timeout_s)}
    return Op(
        "stream.connect",
        {**keys, **_tls(tls)},
        lambda ok: (int(ok.get("stream", 0)), Address.from_json(ok.get("local"))),
        timeout_s,
        own_timeout=True,
    )


def listen(
    service: str,
    advertise: bool,
    tags: Mapping[str, str] | None,
    backlog: int,
    tls: TLSProfile | None,
    timeout_s: float | None,
) -> Op[str]:
    """``stream.listen``: the service's name, found by the node if none was given."""
    keys: JSON = {"service": _named("service", service, found=True), "confirm": True}
    keys["advertise"] = _flag("advertise", advertise)
    keys["backlog"] = _number("backlog", backlog, 1, _MAX_INT)
    keys |= _tls(tls) | _tags(tags)
    return Op("stream.listen", keys, _service, timeout_s, exclusive=True)


def datagram(
    service: str | None, advertise: bool, tags: Mapping[str, str] | None, timeout_s: float | None
) -> Op[tuple[str, int]]:
    """``datagram.open``: the service's name, and the socket's number."""
    keys: JSON = {"advertise": _flag("advertise", advertise), **_tags(tags)}
    if service is not None:
        keys["service"] = _named("service", service, found=True)
    return Op("datagram.open", keys, lambda ok: (_service(ok), int(ok.get("datagram", 0))), timeout_s, exclusive=True)


def datagram_status(number: int, timeout_s: float | None) -> Op[DatagramStatus]:
    """``datagram.status``."""

    def decode(ok: JSON) -> DatagramStatus:
        from .types import DatagramStatus

        return DatagramStatus(int(ok.get("sent", 0)), int(ok.get("received", 0)), int(ok.get("dropped", 0)))

    return Op("datagram.status", {"datagram": number}, decode, timeout_s)


def stream_status(stream: int, timeout_s: float | None) -> Op[StreamStatus]:
    """``stream.status``."""

    def decode(ok: JSON) -> StreamStatus:
        from .types import StreamStatus

        return StreamStatus.from_json(ok)

    return Op("stream.status", {"stream": stream}, decode, timeout_s)


def stream_abort(stream: int, error_code: int, timeout_s: float | None) -> Op[None]:
    """``stream.abort``."""
    keys = {"stream": stream, "error_code": _number("error_code", error_code, 0, _MAX_CODE)}
    return Op("stream.abort", keys, _nothing, timeout_s)


def events(kinds: Sequence[str] | None, timeout_s: float | None, log_level: LogLevel | None = None) -> Op[None]:
    """``events``; no kinds means all but log records, None none at all."""
    for kind in kinds or ():
        if not isinstance(kind, str):
            raise ConfigError(f"event kind {kind!r}: want one of {', '.join(EVENT_KINDS)}, each an argument of its own")
    wanted = [] if kinds is None else list(dict.fromkeys(kinds)) or [kind for kind in EVENT_KINDS if kind != "log"]
    unknown = [kind for kind in wanted if kind not in EVENT_KINDS]
    if unknown:
        raise ConfigError(f"event kind {unknown[0]!r}: want one of {', '.join(EVENT_KINDS)}")
    level = {} if log_level is None else {"log_level": _level(log_level)}
    return Op("events", {"kinds": wanted, **level}, _nothing, timeout_s)


def check_worktype(worktype: str) -> None:
    """Raise ConfigError for what is no name of a work type."""
    _named("worktype", worktype)


def offer(worktype: str, concurrency: int, verify_signature: bool, timeout_s: float | None) -> Op[None]:
    """``work.offer``."""
    keys = {
        "worktype": _named("worktype", worktype),
        "concurrency": _number("concurrency", concurrency, 0, _MAX_INT, ", 0 for no limit"),
        "verifysignature": _flag("verify_signature", verify_signature),
    }
    return Op("work.offer", keys, _nothing, timeout_s, exclusive=True)


def submit(
    node: str,
    worktype: str,
    params: Mapping[str, object] | None,
    ttl_s: float | None,
    tls: str | None,
    sign: bool,
    timeout_s: float | None,
) -> Op[str]:
    """``work.submit``: the unit's ID."""
    keys: JSON = {"node": _named("node", node), "worktype": _named("worktype", worktype)}
    if tls is not None:
        if not isinstance(tls, str):
            raise ConfigError(f"tls={tls!r}: want the name of a TLS profile of the node, a str")
        keys["tls"] = tls
    if sign:
        keys["sign"] = True
    if params:
        keys["params"] = _texts("params", params)
    if ttl_s is not None:
        keys["ttl"] = _positive("ttl_s", ttl_s)
    return Op(
        "work.submit",
        keys,
        lambda ok: str(ok["unit"]),
        timeout_s,
        undo=lambda ok: release(str(ok["unit"]), True, timeout_s),
    )


def started(unit: str, timeout_s: float | None) -> Op[str]:
    """``work.started``: waits until the unit's start is decided, which a remote node may take long for."""
    return Op("work.started", {"unit": unit}, lambda ok: str(ok.get("result", "")), timeout_s, watched=True)


def unit_status(unit: str, timeout_s: float | None) -> Op[UnitStatus]:
    """``work.status``."""
    return Op("work.status", {"unit": _named("unit", unit)}, lambda ok: _unit(unit, ok), timeout_s)


def unit_list(timeout_s: float | None) -> Op[dict[str, UnitStatus]]:
    """``work.list``."""
    return Op("work.list", {}, lambda ok: {unit: _unit(unit, raw) for unit, raw in ok.items()}, timeout_s)


def results(unit: str, offset: int, timeout_s: float | None) -> Op[int]:
    """``work.results``: the stream's ID."""
    keys = {"unit": unit, "offset": _number("offset", offset, 0, _MAX_OFFSET, " bytes")}
    return Op("work.results", keys, lambda ok: int(ok.get("stream", 0)), timeout_s)


def unit_wait(unit: str, timeout_s: float | None) -> Op[WorkResult]:
    """``work.wait``."""

    def decode(ok: JSON) -> WorkResult:
        from .types import WorkResult

        return WorkResult.of(_unit(unit, ok))

    return Op("work.wait", {"unit": unit, **_timeout(timeout_s)}, decode, timeout_s, own_timeout=True)


def cancel(unit: str, timeout_s: float | None) -> Op[bool]:
    """``work.cancel``: True once the executor has confirmed it."""
    return Op("work.cancel", {"unit": unit}, lambda ok: not ok.get("pending", False), timeout_s)


def release(unit: str, force: bool, timeout_s: float | None) -> Op[bool]:
    """``work.release``: True once the executor has confirmed it."""
    return Op("work.release", {"unit": unit, "force": force}, lambda ok: not ok.get("pending", False), timeout_s)


def check(result: WorkResult) -> WorkResult:
    """Raise what a unit that did not succeed is worth."""
    from .types import WorkState

    if result.state is WorkState.CANCELED:
        raise WorkCancelled(f"unit {result.unit} was cancelled", result=result)
    if result.state is not WorkState.SUCCEEDED:
        raise WorkFailed(f"unit {result.unit} failed: {result.detail}", result=result)
    return result


def _peer(address: str | Peer, *settings: Any) -> Peer:  # Any: the further fields of a Peer, which checks them
    from .types import Peer, of_kind

    return Peer(address, *settings) if isinstance(address, str) else of_kind(address, Peer, "peer", "an address")


def _listener(address: str | LinkListener, *settings: Any) -> LinkListener:  # Any: as above
    from .types import LinkListener, of_kind

    if isinstance(address, str):
        return LinkListener(address, *settings)
    return of_kind(address, LinkListener, "listener", "an address")


def _bound(asked: str, bound: str) -> str:
    """What a neighbour dials, of a listener that was asked for at one address and bound to another.

    >>> _bound("ws://127.0.0.1:0/mesh", "127.0.0.1:4711")
    'ws://127.0.0.1:4711/mesh'
    >>> _bound("127.0.0.1:0", "127.0.0.1:4711")
    'tcp://127.0.0.1:4711'
    """
    scheme, _, rest = asked.rpartition("://")
    _, slash, path = rest.partition("/")
    return f"{scheme or 'tcp'}://{bound.rpartition('://')[2]}{slash}{path}"


def _allowed(peers: Iterable[str] | None) -> list[str] | None:
    from .types import list_of

    return None if peers is None else list_of("allowed_peers", peers, "node IDs")


def _mapping(what: str, values: Mapping[str, T], to: str) -> Mapping[str, T]:
    if not isinstance(values, Mapping):
        raise ConfigError(f"{what}={values!r}: want a mapping of str to {to}")
    return values


def _path(what: str, path: str | os.PathLike[str]) -> str:
    try:
        return os.path.abspath(os.fsdecode(path))
    except TypeError:
        raise ConfigError(f"{what}={path!r}: want a path") from None


def _flag(what: str, flag: bool) -> bool:
    if not isinstance(flag, bool):
        raise ConfigError(f"{what}={flag!r}: want True or False")
    return flag


def _level(level: LogLevel) -> LogLevel:
    if level not in LOG_LEVELS:
        raise ConfigError(f"log_level={level!r}: want one of {', '.join(LOG_LEVELS)}")
    return level


def _route(node: str, raw: JSON) -> Route:
    from .types import Route

    return Route(node, str(raw.get("next_hop", "")), float(raw.get("cost") or 0))


def _unit(unit: str, raw: JSON) -> UnitStatus:
    from .types import UnitStatus

    return UnitStatus.from_json(unit, raw)


def _tls(tls: TLSProfile | None) -> JSON:
    if tls is None:
        return {}
    from .types import tls_keys

    return tls_keys(tls)


def _limit(timeout_s: float | None) -> float:
    return _NEVER_S if timeout_s is None else _positive("timeout_s", timeout_s)


def _timeout(timeout_s: float | None) -> JSON:
    return {} if timeout_s is None else {"timeout": _positive("timeout_s", timeout_s)}


def _named(what: str, name: str, *, found: bool = False) -> str:
    """Check a name. found: an empty one has the node find one."""
    if not isinstance(name, str) or not (name or found):
        raise ConfigError(f"{what}={name!r}: want its name, a str")
    if "\0" in name or any("\ud800" <= char <= "\udfff" for char in name):
        raise ConfigError(f"{what}={name!r}: a name has no zero bytes, and no surrogates")
    return name


def _place(what: str, address: str) -> str:
    if not isinstance(address, str):
        raise ConfigError(f'{what}={address!r}: want "host:port" or "unix:///path"')
    return address


def _number(what: str, number: int, least: int, most: int, note: str = "") -> int:
    if isinstance(number, bool) or not isinstance(number, int) or not least <= number <= most:
        raise ConfigError(f"{what}={number!r}: want {least} to {most}{note}")
    return number


def _texts(what: str, texts: Mapping[str, Any]) -> dict[str, str]:  # Any: what is made a text
    """The parameters or tags that a program gives."""
    if not isinstance(texts, Mapping):
        raise ConfigError(f"{what}={texts!r}: want a mapping of names to texts")
    return {name: str(text) for name, text in texts.items()}


def _environ(environ: Mapping[str, str]) -> dict[str, str]:
    for name, value in _mapping("environ", environ, "str").items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise ConfigError(f"environ: {name!r}: {value!r}: want a mapping of str to str")
    return dict(environ)


def _tags(tags: Mapping[str, str] | None) -> JSON:
    if not tags:
        return {}
    named = _texts("tags", tags)
    wrong = [part for item in tags.items() for part in item if not isinstance(part, str)]
    if wrong:
        raise ConfigError(f"tags={tags!r}: want a mapping of str to str, and not {wrong[0]!r}")
    return {"tags": named}


def _positive(name: str, seconds: float) -> float:
    check_seconds(name, seconds)
    return max(float(seconds), 0.001)  # A node takes 0 for "not given".


def _backend(value: Any) -> BackendID:  # Any: JSON
    return value if isinstance(value, int) else str(value)


def _service(ok: JSON) -> str:
    return str(ok.get("service", ""))


def _same(ok: JSON) -> JSON:
    return ok


def _nothing(_: JSON) -> None:
    return None
