"""Units of work as people look at them. Works on the JSON of the daemon, which scripts get as it is."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import Any

from receptor.cli import _show
from receptor.control import ControlProtocolError

STATES = ("pending", "running", "succeeded", "failed", "canceled")
FAILED = 3
COMPLETE = (2, 3, 4)
Status = dict[str, Any]  # Any: JSON values


@dataclass(frozen=True)
class Filter:
    """Which units are wanted: an empty list asks for nothing in particular."""

    states: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()

    def apply(self, units: dict[str, Status]) -> dict[str, Status]:
        """Return those that pass."""
        if odd := [unit for unit, status in units.items() if not isinstance(status, dict)]:
            raise ControlProtocolError(f"the daemon's list of units cannot be used: {odd[0]!r} has no status")
        return {unit: status for unit, status in units.items() if self.passes(status)}

    def passes(self, status: Status) -> bool:
        """Return whether a unit of this status is wanted."""
        return (
            (not self.states or state(status).lower() in self.states)
            and (not self.types or worktype(status) in self.types)
            and (not self.nodes or executor(status) in self.nodes)
        )


def state(status: Status) -> str:
    """Return the name of its state."""
    number = status.get("State")
    if isinstance(number, int) and 0 <= number < len(STATES):
        return STATES[number].capitalize()
    return str(status.get("StateName") or number)


def worktype(status: Status) -> str:
    """Return its work type; of a remote unit that of the executing node."""
    return str(_extra(status).get("RemoteWorkType") or status.get("WorkType") or "")


def executor(status: Status) -> str:
    """Return the node that runs it, "" if it is this one."""
    return str(_extra(status).get("RemoteNode") or "")


def _extra(status: Status) -> dict[str, Any]:
    extra = status.get("ExtraData")
    return extra if isinstance(extra, dict) else {}


def seconds_since(moment: object) -> float | None:
    """Return how long ago a time of the daemon was, None if there is none."""
    if not isinstance(moment, str) or moment.startswith("0001-"):
        return None
    from datetime import datetime

    try:
        return time.time() - datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", moment)).timestamp()
    except ValueError:
        return None


def table(units: dict[str, Status], home: str) -> list[str]:
    """Return a line for each unit, the youngest last where their ages are known."""
    rows = [(_age(status), unit, status) for unit, status in units.items()]
    rows.sort(key=lambda row: -(row[0] or 0))
    return _show.table(
        ("Unit", "State", "Type", "Node", "Size", "Age", "Detail"),
        [
            (
                unit,
                state(status),
                worktype(status),
                executor(status) or home,
                _show.size(status.get("StdoutSize") or 0),
                "-" if age is None else _show.span(age),
                detail(status),
            )
            for age, unit, status in rows
        ],
    )


def detail(status: Status) -> object:
    """Return its detail, with its place if it waits for other units, and what keeps it from its node."""
    text, place, trouble = status.get("Detail"), status.get("QueuePosition"), status.get("Trouble")
    if place:
        text = f"{text}, place {place}"
    return f"{text}, no connection to its node: {trouble}" if trouble else text


def _age(status: Status) -> float | None:
    return seconds_since(status.get("Created"))


def details(unit: str, status: Status) -> list[str]:
    """Return the lines that show one unit to a person."""
    shown: list[tuple[str, object]] = [("Unit ID", unit), ("State", state(status)), ("Detail", status.get("Detail"))]
    shown += [("Work Type", worktype(status)), ("Node", executor(status))]
    shown += [("Output", _show.size(status.get("StdoutSize") or 0))]
    skipped = {"State", "StateName", "Detail", "WorkType", "StdoutSize", "ExtraData"}
    shown += [(key, value) for key, value in sorted(status.items()) if key not in skipped]
    remote = _extra(status)
    shown += [(key, remote[key]) for key in ("RemoteUnitID", "Pid") if remote.get(key)]
    return [f"{_WORDS.sub(' ', name)}: {value}" for name, value in shown if value not in (None, "")]


_WORDS = re.compile("(?<=[a-z])(?=[A-Z])")  # between the words of a key such as ExitCode
