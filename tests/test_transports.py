"""A chain of daemons whose links are of every kind: pings, streams and work go across as over one."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]
PATIENCE_S = 30.0  # After this a wait counts as a hang.


def wait_for(what: str, condition: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until, f"{what}: not within {PATIENCE_S} s"
        time.sleep(0.01)  # There is no event to wait for in another process's files.


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


@pytest.fixture
def chain(receptor: Path, tmp_path: Path) -> Iterator[list[Daemon]]:
    """Four daemons: one -TCP- two -UDP- three -WebSocket- four. The last one runs work."""
    daemons: list[Daemon] = []

    def add(node: str, *directives: str) -> Daemon:
        daemons.append(Daemon(receptor, tmp_path, node, *directives))
        return daemons[-1]

    local = ("bindaddr=127.0.0.1", "port=0")
    try:
        tcp = add("one", "--tcp-listener", *local).port("TCP")
        udp = add("two", "--tcp-peer", f"127.0.0.1:{tcp}", "--udp-listener", *local).port("UDP")
        ws = add("three", "--udp-peer", f"127.0.0.1:{udp}", "--ws-listener", *local, "path=/mesh").port("Websocket")
        work = ("--work-command", "worktype=upper", "command=tr", "params=a-z A-Z")
        add("four", "--ws-peer", f"ws://127.0.0.1:{ws}/mesh", *work)
        wait_for("route from end to end", lambda: daemons[0].reaches("four") and daemons[-1].reaches("one"))
        yield daemons
    finally:
        for daemon in daemons:
            daemon.process.kill()
            daemon.process.wait(PATIENCE_S)


def work(daemon: Daemon, payload: bytes) -> bytes:
    """What comes back of ``payload`` from the work type of the far end."""
    request = {"command": "work", "subcommand": "submit", "node": "four", "worktype": "upper"}
    first, reply = daemon.ask(json.dumps(request), payload)
    assert first.startswith(b"Work unit created with ID "), first
    unit = json.loads(reply)["unitid"]
    head, _, output = b"\n".join(daemon.ask(f"work results {unit}")).partition(b"\n")
    assert head.startswith(b"Streaming results"), head
    return output


def test_ping_and_traceroute(chain: list[Daemon]) -> None:
    reply = json.loads(chain[0].ask("ping four")[0])
    assert (reply["Success"], reply["From"]) == (True, "four")
    hops = json.loads(chain[0].ask("traceroute four")[0])
    assert [hops[str(i)]["From"] for i in range(len(hops))] == ["one", "two", "three", "four"]


def test_stream_of_a_control_service(chain: list[Daemon]) -> None:
    assert chain[0].ask("connect four control")[:2] == [b"Connecting", b"Receptor Control, node four"]


def test_remote_work_in_bulk(chain: list[Daemon]) -> None:
    lines = [f"line {i} of the payload" for i in range(50_000)]
    assert work(chain[0], "\n".join(lines).encode()) == "\n".join(lines).upper().encode()


@pytest.mark.parametrize("index", [1, 2])
def test_every_link_comes_back(chain: list[Daemon], index: int) -> None:
    """A node in the middle dies without a word and is started again: links of every kind are made anew."""
    middle = chain[index]
    port = middle.port("UDP" if index == 1 else "Websocket")
    middle.end(signal.SIGKILL)
    middle.command[middle.command.index("port=0")] = f"port={port}"
    middle.start()
    wait_for("route from end to end", lambda: chain[0].reaches("four") and chain[-1].reaches("one"))
    wait_for("ping from end to end", lambda: json.loads(chain[0].ask("ping four")[0])["Success"])
    assert work(chain[0], b"again") == b"AGAIN"
