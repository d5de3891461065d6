"""Real daemons for the tests: started, asked over their control sockets, ended."""

from __future__ import annotations

import errno
import json
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

PATIENCE_S = 60.0  # After this a wait counts as a hang.


def wait_for(what: str, condition: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until, f"{what}: not within {PATIENCE_S} s"
        time.sleep(0.01)  # There is no event to wait for in another process's files.


_kept: list[socket.socket] = []


def free_port() -> int:
    """A port that nobody has and nobody gets until this process ends.

    It lies below those that the system gives out, and an abstract socket keeps it for this process among all tests on
    this host that choose a port in this way (go/daemon/daemon_test.go too).
    """
    for _ in range(1000):
        port = random.randrange(20000, 32000)
        keeper = socket.socket(socket.AF_UNIX)
        try:
            keeper.bind(f"\0receptor-test-port-{port}")
            with socket.create_server(("", port)):
                _kept.append(keeper)
                return port
        except OSError as error:
            keeper.close()
            if error.errno != errno.EADDRINUSE:
                raise
    raise AssertionError("no free port from 20000 to 31999")


class Daemon:
    """A running daemon with a log and a control socket."""

    def __init__(self, program: Path, folder: Path, node: str, *directives: str) -> None:
        self.node, self.socket, self.log = node, folder / f"{node}.sock", folder / f"{node}.log"
        self.command = [
            str(program), "--node", f"id={node}", f"datadir={folder}/data", "--log-level", "debug",
            "--control-service", f"filename={self.socket}", *directives,
        ]  # fmt: skip
        self.start()

    def start(self) -> None:
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log)
        wait_for(f"start of {self.node}", lambda: "Initialization complete" in self.log.read_text())

    def port(self, kind: str) -> int:
        """Where a listener with ``port=0`` listens."""
        line = next(line for line in self.log.read_text().splitlines() if f"Listening on {kind} " in line)
        return int(line.split(f"Listening on {kind} ")[1].split()[0].rpartition(":")[2])

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        self.process.send_signal(number)
        self.process.wait(PATIENCE_S)

    def ask(self, command: str, payload: bytes | None = None) -> list[bytes]:
        """The lines of the answer, without the greeting. ``payload`` follows the first of them."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(PATIENCE_S)
            connection.connect(str(self.socket))
            with connection.makefile("rb") as answer:
                assert answer.readline() == f"Receptor Control, node {self.node}\n".encode()
                connection.sendall(command.encode() + b"\n")
                if payload is None:
                    connection.shutdown(socket.SHUT_WR)
                    return answer.read().splitlines()
                first = answer.readline().rstrip()
                connection.sendall(payload)
                connection.shutdown(socket.SHUT_WR)
                return [first, *answer.read().splitlines()]

    def reaches(self, node: str) -> bool:
        return node in json.loads(self.ask("status")[0])["RoutingTable"]


def units_done_by(runner: int, data: Path) -> list[Path]:
    """The directories of the units that a runner does: it has their runner.lock open."""
    found = []
    for path in Path(f"/proc/{runner}/fd").glob("*"):
        with suppress(OSError):
            file = path.readlink()
            if file.name == "runner.lock" and file.is_relative_to(data):
                found.append(file.parent)
    return found
