"""Reads golden sessions of a command line, and compares what a run prints with what the session shows.

What varies from run to run is compared by pattern: unit IDs, durations, times of day, versions. A unit ID of the file
stands for one ID of the run, the same everywhere.
"""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_UNIT = re.compile(r'(?<=Unit ID: )\w{8}|(?<=\()\w{8}(?=, )|(?<=^")\w{8}(?=": \{)|(?<= ")\w{8}(?=": \{)|^\w{8}$', re.M)
_VARIES = re.compile(
    r"(?P<duration>\b\d+(\.\d+)?(ns|µs|ms|s)\b)"
    r"|(?P<time>\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+Z)?)"
    r"|(?P<receptorctl>(?<=receptorctl  )1\.4\.9$)"
    r"|(?P<receptor>1\.4\.9\+git)"
    r"|(?P<ssl>_ssl\.c:\d+|TLSV13_ALERT_CERTIFICATE_REQUIRED|tlsv13 alert certificate required)",
    re.M,
)
_PATTERNS = {
    "duration": r"\d+(?:\.\d+)?(?:ns|µs|ms|s)",
    "time": r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+Z)?",
    "receptorctl": r"\S+",
    "receptor": r"\S*",
    "ssl": r"[\w .:]+",
}


@dataclass
class Session:
    """One command of the file and what it showed."""

    line: str
    env: dict[str, str] = field(default_factory=dict)
    args: list[str] = field(default_factory=list)
    stdin: bytes | None = None
    stdout: str = ""
    stderr: str = ""
    status: int = 0


def read_sessions(path: Path) -> list[Session]:
    """Return the sessions of a file in order."""
    sessions: list[Session] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("$ "):
            sessions.append(_command(line[2:]))
        elif line.startswith("1| "):
            sessions[-1].stdout += line[3:] + "\n"
        elif line.startswith("2| "):
            sessions[-1].stderr += line[3:] + "\n"
        elif line.startswith("exit "):
            sessions[-1].status = int(line[5:])
    return sessions


def _command(line: str) -> Session:
    command, _, stdin = line.partition("   < ")
    command = re.sub(r"\\u([0-9a-f]{4})", lambda m: chr(int(m[1], 16)), command)
    words = shlex.split(command)
    env = {}
    while "=" in words[0]:
        name, _, value = words.pop(0).partition("=")
        env[name] = value
    data = ast.literal_eval(stdin) if stdin else None
    return Session(line, env, words[1:], data)


def units_in(text: str) -> Iterator[str]:
    """Yield the unit IDs that a piece of a golden file shows."""
    yield from _UNIT.findall(text)


class Comparer:
    """Compares, and remembers which unit ID of a run goes for which of the file."""

    def __init__(self) -> None:
        self.units: dict[str, str] = {}

    def expect(self, expected: str, got: str, what: str) -> None:
        """Assert that ``got`` is what the file shows as ``expected``, line by line."""
        wanted, lines = expected.splitlines(), got.splitlines()
        for number, (want, have) in enumerate(zip(wanted, lines, strict=False), 1):
            self._expect_line(want, have, f"{what}, line {number}")
        assert len(lines) == len(wanted), f"{what}: got {len(lines)} lines, want {len(wanted)}:\n{got}"

    def _expect_line(self, want: str, have: str, where: str) -> None:
        pattern, units = "", []
        position = 0
        for match in sorted([*_UNIT.finditer(want), *_VARIES.finditer(want)], key=lambda m: m.start()):
            if match.start() < position:
                continue
            pattern += re.escape(want[position : match.start()])
            if match.re is _UNIT:
                units.append(match[0])
                pattern += r"([A-Za-z0-9]{8})"
            else:
                pattern += _PATTERNS[str(match.lastgroup)]
            position = match.end()
        found = re.fullmatch(pattern + re.escape(want[position:]), have)
        assert found is not None, f"{where}: got {have!r}, want {want!r}"
        for golden, actual in zip(units, found.groups(), strict=True):
            known = self.units.setdefault(golden, actual)
            assert known == actual, f"{where}: got unit {actual}, want {known}"
