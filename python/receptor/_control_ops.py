"""The requests of the control protocol as values, and the decisions of whoever makes them. No I/O.

The blocking and the asyncio client share this: each function checks its arguments, builds the line and says how the
answer is read. ``Waiting`` and ``OutputCursor`` decide what comes next while a unit is waited for or read.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from receptor import _control_protocol as protocol
from receptor._control_errors import (
    UNSAID,
    AddressError,
    ConnectError,
    ControlClientError,
    ControlProtocolError,
    ControlTimeout,
    DisconnectedError,
    NotOfferedError,
    RefusedError,
    refusal,
)
from receptor._seconds import check_seconds

if TYPE_CHECKING:  # at run time they are loaded by what needs them: a third of the start of receptorctl
    from datetime import timedelta

    from receptor._control_types import About, Links, Topology
    from receptor.types import Hop, PingResult, Status, UnitStatus

T = TypeVar("T")
JSON = dict[str, Any]  # Any: a JSON object as it came

EVENT_KINDS = ("link", "route", "service", "unit")
# Beyond the time of a wait: a daemon says that it is over, and how the unit stands.
_GRACE_S = 1.0


@dataclass(frozen=True)
class Request(Generic[T]):
    """One line that does not change the mode of its connection, and what its answer means."""

    line: bytes
    decode: Callable[[JSON], T]
    addition: str = ""  # the name of a command that daemons of other projects do not have

    def answer(self, reply: JSON) -> T:
        """Decode; what lacks what is needed, or has it in another shape, is a fault of the other side."""
        try:
            return self.decode(reply)
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as e:
            if isinstance(e, ControlClientError):
                raise
            raise ControlProtocolError(f"the daemon's answer cannot be used: {type(e).__name__}: {e}") from e

    def refused(self, error: RefusedError, node: str) -> RefusedError:
        """Return what to raise for a refusal: a command that the daemon does not know has an error of its own."""
        if self.addition and is_unknown_command(error):
            return not_offered(node, self.addition)
        return error


def is_unknown_command(error: RefusedError) -> bool:
    """Return whether a daemon does not know the command, and not only dislike its parameters."""
    return error.text in ("Unknown command", "bad command")


def exec_refused(error: RefusedError, node: str) -> RefusedError:
    """Return what to raise for a refusal of ``work exec`` by ``node``, or by another that is named in the text."""
    match = re.fullmatch(r"node (.+): (?:Unknown command|bad command)", error.text)
    if match is not None:
        return not_offered(match[1], "work exec")
    return not_offered(node, "work exec") if is_unknown_command(error) else error


def not_offered(node: str, command: str) -> NotOfferedError:
    """Return the error for a command that only daemons of this project have."""
    return NotOfferedError(
        f"node {node} does not offer the command {command}",
        hint="it is an addition of pyreceptor, and that node runs another Receptor or an older version",
        command=command,
    )


def check_offered(line: str, command: str, node: str) -> None:
    """Raise what the first line of an answer is worth, if it is an error line."""
    if line.startswith("ERROR:"):
        try:
            protocol.parse_reply(line)
        except RefusedError as e:
            if is_unknown_command(e):
                raise not_offered(node, command) from None
            raise


def raw(text: str) -> Request[JSON]:
    """Any command, as text or JSON; its answer as it comes."""
    return Request(protocol.request_line(text), _same)


def addition(command: str) -> Request[JSON]:
    """Any command that daemons of other projects do not have; its answer as it comes."""
    return Request(protocol.request_line(command), _same, command.split(" ")[0])


def status() -> Request[Status]:
    """``status``."""

    def decode(reply: JSON) -> Status:
        from receptor.types import Status

        return Status.from_json(reply)

    return Request(b"status\n", decode)


def version() -> Request[str]:
    """The version of the daemon."""
    line = b'{"command":"status","requested_fields":["Version"]}\n'
    return Request(line, lambda reply: str(reply["Version"]))


def about(sent: float) -> Request[About]:
    """``version``. sent: the time of day when it was sent, to tell the clocks apart."""

    def decode(reply: JSON) -> About:
        from datetime import datetime, timedelta

        from receptor._control_types import About

        skew = None
        if isinstance(reply.get("time"), str):
            middle = (sent + time.time()) / 2
            skew = timedelta(seconds=datetime.fromisoformat(reply["time"]).timestamp() - middle)
        return About(
            str(reply["node"]),
            str(reply.get("version", "")),
            str(reply.get("implementation", "")),
            str(reply.get("platform", "")),
            tuple(map(str, reply.get("commands") or ())),
            timedelta(seconds=reply["uptime_s"]) if "uptime_s" in reply else None,
            skew,
            reply,
        )

    return Request(b"version\n", decode, "version")


def about_from_status() -> Request[About]:
    """What a daemon without ``version`` tells of itself."""

    def decode(reply: JSON) -> About:
        from receptor._control_types import About

        return About(str(reply["NodeID"]), str(reply["Version"]), raw=reply)

    return Request(b'{"command":"status","requested_fields":["NodeID","Version"]}\n', decode)


def ping(node: str) -> Request[PingResult]:
    """``ping``."""

    def decode(reply: JSON) -> PingResult:
        from receptor.types import PingResult

        if reply.get("Success") is not True:
            error = refusal(_error_of(reply), reply=reply)
            error.node = node
            raise error
        return PingResult(str(reply["From"]), _rtt(reply))

    return Request(protocol.words_line("ping", node), decode)


def traceroute(node: str) -> Request[list[Hop]]:
    """``traceroute``."""
    return Request(protocol.words_line("traceroute", node), _hops)


def reload(dry_run: bool) -> Request[list[str]]:
    """``reload``: what changed, in words."""

    def decode(reply: JSON) -> list[str]:
        if reply.get("Success") is not True:
            raise refusal(_error_of(reply), reply=reply)
        return [str(change) for change in reply.get("Changes") or ()]

    return Request(b"reload dry-run\n" if dry_run else b"reload\n", decode)


def topology() -> Request[Topology]:
    """``topology``."""

    def decode(reply: JSON) -> Topology:
        from receptor._control_types import Topology

        return Topology.from_json(reply)

    return Request(b"topology\n", decode, "topology")


def topology_from_status() -> Request[Topology]:
    """The same from a daemon that has only ``status``."""

    def decode(reply: JSON) -> Topology:
        from receptor._control_topology import from_status
        from receptor._control_types import Topology

        return Topology.from_json(from_status(reply))

    return Request(b"status\n", decode)


def links() -> Request[Links]:
    """``links``."""

    def decode(reply: JSON) -> Links:
        from receptor._control_types import Links

        return Links.from_json(reply)

    return Request(b"links\n", decode, "links")


def config() -> Request[list[JSON]]:
    """``config``: its directives."""
    return Request(b"config\n", lambda reply: list(reply["directives"]), "config")


def metrics() -> Request[str]:
    """``metrics``: the text."""
    return Request(b"metrics\n", lambda reply: str(reply["text"]), "metrics")


# Work.


def unit_list(unit: str | None) -> Request[dict[str, UnitStatus]]:
    """``work list``."""

    def decode(reply: JSON) -> dict[str, UnitStatus]:
        from receptor.types import UnitStatus

        return {name: UnitStatus.from_json(name, raw) for name, raw in reply.items()}

    words = ("work", "list", unit) if unit else ("work", "list")
    return Request(protocol.words_line(*words), decode)


def unit_status(unit: str) -> Request[UnitStatus]:
    """``work status``."""
    return Request(protocol.words_line("work", "status", unit), lambda reply: _unit(unit, reply))


def cancel(unit: str) -> Request[bool]:
    """``work cancel``: whether the executing node has confirmed it."""
    return _ending("cancel", unit, {"cancelled": True, "cancel pending": False})


def release(unit: str, force: bool) -> Request[bool]:
    """``work release``: whether the executing node has confirmed it."""
    return _ending("force-release" if force else "release", unit, {"released": True, "release pending": False})


def _ending(verb: str, unit: str, confirmed: Mapping[str, bool]) -> Request[bool]:
    def decode(reply: JSON) -> bool:
        for key, value in reply.items():
            if key in confirmed and value == unit:
                return confirmed[key]
        raise ControlProtocolError(f"the answer to work {verb} {unit} does not confirm that unit")

    return Request(protocol.words_line("work", verb, unit), decode)


def submit_line(
    worktype: str,
    node: str | None,
    tls_client: str | None,
    ttl_s: float | str | None,
    sign: bool,
    params: Mapping[str, object] | None,
) -> bytes:
    """``work submit``. Values of parameters are sent as text."""
    texts = {key: value if isinstance(value, str) else str(value) for key, value in (params or {}).items()}
    return protocol.submit_line(worktype, node, tls_client, _ttl_text(ttl_s), sign, texts)


def results_line(unit: str, offset: int) -> bytes:
    """``work results``."""
    if offset < 0:
        raise ValueError(f"offset {offset}: want 0 or more bytes")
    return protocol.words_line("work", "results", unit, str(offset))


def events_line(kinds: tuple[str, ...], node: str | None, unit: str | None, snapshot: bool) -> bytes:
    """``events``; no kinds means all."""
    unknown = [kind for kind in kinds if kind not in EVENT_KINDS]
    if unknown:
        raise ValueError(f"event kind {unknown[0]!r}: want one of {', '.join(EVENT_KINDS)}")
    request: JSON = {"command": "events", "snapshot": snapshot}
    if kinds:
        request["kinds"] = list(dict.fromkeys(kinds))
    if node:
        request["node"] = node
    if unit:
        request["unit"] = unit
    return protocol.object_line(request)


# What a daemon that restarts looks like.
LOST = (ConnectError, DisconnectedError, AddressError)


class Patience:
    """How long a lost connection is worth new tries, counted from the last success. Without a success: not at all."""

    LIMIT_S = 30.0

    def __init__(self) -> None:
        self._reached = False
        self._since: float | None = None
        self._pause_s = 0.0

    def reset(self) -> None:
        """Something went well."""
        self._reached, self._since, self._pause_s = True, None, 0.0

    def pause_after(self, error: Exception) -> float:
        """Return how many seconds to wait before the next try; raises ``error`` when there should be none."""
        if not self._reached:
            raise error
        now = time.monotonic()
        if self._since is None:
            self._since = now
        if now - self._since > self.LIMIT_S:
            raise error
        self._pause_s = min(max(self._pause_s * 2, 0.05), 1.0)
        return self._pause_s


class Waiting:
    """A wait for the end of a unit: which request is next, and when.

    A daemon of this project answers when the unit is complete. Others answer at once, so they are asked again, soon at
    first and every second later: nothing there could push.
    """

    def __init__(self, unit: str, timeout_s: float | None) -> None:
        check_seconds("timeout_s", timeout_s)
        self.unit = unit
        self.timeout_s = timeout_s
        self.patience = Patience()
        self._end = None if timeout_s is None else time.monotonic() + timeout_s
        self._pause_s = 0.02

    def request(self) -> Request[UnitStatus]:
        """Return the request to send now."""
        keys: JSON = {"command": "work", "subcommand": "status", "unitid": self.unit, "wait": True}
        if (left := self._left_s()) is not None:
            keys["timeout"] = round(max(left, 0.001), 3)
        protocol.words_line(self.unit)  # refuses what cannot be an ID
        return Request(protocol.object_line(keys), lambda reply: _unit(self.unit, reply))

    def limit_s(self) -> float | None:
        """Return how many seconds to wait for the answer to that request."""
        left = self._left_s()
        return None if left is None else max(left, 0) + _GRACE_S

    def pause_after(self, status: UnitStatus) -> float | None:
        """Return None if the unit is complete, else the seconds until the next request; raises ControlTimeout."""
        self.patience.reset()
        if status.complete:
            return None
        left = self._left_s()
        if left is not None and left <= 0:
            raise ControlTimeout(f"unit {self.unit} is not complete after {self.timeout_s:g} s: {status.detail}")
        self._pause_s = min(self._pause_s * 1.5, 1.0)
        return self._pause_s if left is None else min(self._pause_s, left)

    def pause_after_loss(self, error: Exception) -> float:
        """Return the seconds until the next try; raises ``error`` when there should be none."""
        pause_s = self.patience.pause_after(error)
        left = self._left_s()
        if left is not None and left <= pause_s:
            raise error
        return pause_s

    def _left_s(self) -> float | None:
        return None if self._end is None else self._end - time.monotonic()


class OutputCursor:
    """Where a reader of a unit's output stands, and what to do when the stream ends.

    The end of a stream is the end of the output only if the unit is complete and all of it was read. Otherwise the
    stream belonged to a daemon that went down or was restarted, and the rest is asked for.
    """

    def __init__(self, unit: str, offset: int) -> None:
        self.unit = unit
        self.offset = offset
        self.patience = Patience()
        self._since_stream = 0
        self._empty = 0

    def line(self) -> bytes:
        """Return the request for the stream from here on."""
        self._since_stream = 0
        return results_line(self.unit, self.offset)

    def took(self, count: int) -> None:
        """Note that ``count`` bytes were handed to the reader."""
        self.offset += count
        self._since_stream += count
        self.patience.reset()

    def finished(self, status: UnitStatus) -> bool:
        """Return whether a stream that has ended was the last one; raises where more is due and none can be had."""
        if status.complete and self.offset >= status.stdout_size:
            return True
        self._empty = 0 if self._since_stream else self._empty + 1
        if self._empty >= 2:
            raise DisconnectedError(
                f"The daemon ended the results of unit {self.unit} after {self.offset} bytes, "
                "before the unit was complete",
                hint=f"see how the unit stands with: receptorctl work list --unit_id {self.unit}",
            )
        return False


def _unit(unit: str, reply: JSON) -> UnitStatus:
    from receptor.types import UnitStatus

    return UnitStatus.from_json(unit, reply)


def _ttl_text(ttl_s: float | str | None) -> str | None:
    if ttl_s is None or isinstance(ttl_s, str):
        return ttl_s
    return f"{ttl_s:f}".rstrip("0").rstrip(".") + "s"


def _hops(reply: JSON) -> list[Hop]:
    from receptor.types import Hop

    if not all(re.fullmatch("[0-9]{1,9}", key) for key in reply):
        raise ValueError("a hop is not a number")
    return [
        Hop(int(key), str(hop["From"]), _rtt(hop), refusal(_error_of(hop), reply=hop) if "Error" in hop else None)
        for key in sorted(reply, key=int)
        for hop in [reply[key]]
    ]


def _rtt(reply: JSON) -> timedelta:
    from datetime import timedelta

    return timedelta(microseconds=int(reply["Time"]) / 1000)


def _error_of(reply: JSON) -> str:
    error = reply.get("Error")
    return error if isinstance(error, str) and error else UNSAID


def _same(reply: JSON) -> JSON:
    return reply
