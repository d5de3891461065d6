"""Chains of three daemons, ours and another implementation's in every mix.

``RECEPTOR_PEER`` names the other ``receptor`` program. Without it the scenarios run with three of ours, so that they
are always exercised, and the mixed ones are skipped.
"""

from __future__ import annotations

import itertools
import os
import signal
import socket
import socketserver
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from daemons import free_port

from receptor._daemon import find
from receptorctl import ReceptorControl

PATIENCE_S = (
    60.0  # After this a wait counts as a hang. The other implementation polls once a second and redials after 5 s.
)
NODES = ("left", "middle", "right")
PEER = "RECEPTOR_PEER"


def wait_for(what: str, condition: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until, f"{what}: not within {PATIENCE_S} s"
        time.sleep(0.05)  # There is no event to wait for in another process, whoever wrote it.


class Daemon:
    """A running daemon of either implementation: only options that both have."""

    def __init__(self, program: str, folder: Path, node: str, *directives: str) -> None:
        self.node, self.socket, self.log = node, folder / f"{node}.sock", folder / f"{node}.log"
        command = [
            program, "--node", f"id={node}", f"datadir={folder}/data", "--log-level", "info",
            "--control-service", "service=control", f"filename={self.socket}", *directives,
        ]  # fmt: skip
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)

    def started(self) -> bool:
        assert self.process.poll() is None, f"{self.node} ended:\n{self.log.read_text()}"
        if not self.socket.is_socket():
            return False
        try:
            with ReceptorControl(str(self.socket)) as control:
                return bool(control.simple_command("status")["NodeID"] == self.node)
        except OSError:
            return False

    def ask(self, command: str) -> Any:
        """One control command; what it answers is checked by the tests."""
        with ReceptorControl(str(self.socket)) as control:
            return control.simple_command(command)

    def reaches(self, node: str) -> bool:
        return "Success" in (answer := self.ask(f"ping {node}")) and bool(answer["Success"])

    def status_of(self, unit: str) -> Any:
        return self.ask(f"work status {unit}")

    def submit(self, work_type: str, payload: bytes) -> str:
        """Give work to the node at the right end."""
        with ReceptorControl(str(self.socket)) as control:
            answer = control.submit_work(work_type, payload, node="right")
        assert answer["result"] == "Job Started", answer
        unit: str = answer["unitid"]
        return unit

    def results(self, unit: str) -> bytes:
        with ReceptorControl(str(self.socket)) as control:
            stream = control.get_work_results(unit)
            with stream:
                return stream.read()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait(PATIENCE_S)


class UpperCase(socketserver.BaseRequestHandler):
    """Answers every line in capital letters."""

    def handle(self) -> None:
        while data := self.request.recv(65536):
            self.request.sendall(data.upper())


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 128


class Chain:
    """left - middle - right. right runs work and offers a TCP service, left leads to it from a local port."""

    def __init__(self, programs: tuple[str, ...], folder: Path) -> None:
        self.server = Server(("127.0.0.1", 0), UpperCase)
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()
        self.daemons: list[Daemon] = []
        try:
            self.start(programs, folder)
        except BaseException:
            self.close()
            raise

    def start(self, programs: tuple[str, ...], folder: Path) -> None:
        target = f"127.0.0.1:{self.server.server_address[1]}"
        first, second, self.door = free_port(), free_port(), free_port()
        listen = ("--tcp-listener", "bindaddr=127.0.0.1")
        shell = ("--work-command", "worktype=sh", "command=sh")
        directives = {
            "left": (
                *listen, f"port={first}", "--tcp-server", "bindaddr=127.0.0.1", f"port={self.door}",
                "remotenode=right", "remoteservice=upper",
            ),
            "middle": (*listen, f"port={second}", "--tcp-peer", f"address=127.0.0.1:{first}"),
            "right": (
                "--tcp-peer", f"address=127.0.0.1:{second}", "--tcp-client", "service=upper", f"address={target}",
                "--work-command", "worktype=cat", "command=cat", *shell,
            ),
        }  # fmt: skip
        for program, node in zip(programs, NODES, strict=True):
            daemon = Daemon(program, folder, node, *directives[node])
            self.daemons.append(daemon)
            wait_for(f"start of {node}", daemon.started)
        self.left, self.middle, self.right = self.daemons
        wait_for("route from left to right", lambda: self.left.reaches("right"))
        wait_for("route from right to left", lambda: self.right.reaches("left"))

    def close(self) -> None:
        for daemon in self.daemons:
            daemon.close()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


MIXES = ["-".join(mix) for mix in itertools.product(("ours", "theirs"), repeat=3)]


@pytest.fixture(scope="module", params=MIXES)
def chain(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    mix: str = request.param
    theirs = os.environ.get(PEER, "")
    if "theirs" in mix and not theirs:
        pytest.skip(f"{PEER} is not set: it names the receptor program of another implementation")
    ours = find()
    assert ours is not None, "the receptor daemon is not installed beside this Python"
    programs = tuple(ours if who == "ours" else theirs for who in mix.split("-"))
    chain = Chain(programs, tmp_path_factory.mktemp("chain"))
    yield chain
    chain.close()


def test_ping(chain: Chain) -> None:
    for daemon in chain.daemons:
        for node in NODES:
            answer = daemon.ask(f"ping {node}")
            assert (answer["Success"], answer["From"]) == (True, node)
            assert answer["Time"] > 0
            assert answer["TimeStr"]
    assert chain.left.ask("ping nowhere") == {"Success": False, "Error": "no route to node"}


def test_traceroute(chain: Chain) -> None:
    for daemon, path in ((chain.left, NODES), (chain.right, NODES[::-1])):
        answer = daemon.ask(f"traceroute {path[-1]}")
        assert [answer[str(i)]["From"] for i in range(3)] == list(path)
        assert len(answer) == 3
        assert "Error" not in answer["2"]


def test_status(chain: Chain) -> None:
    for daemon in chain.daemons:
        wait_for(
            f"{daemon.node} knows right's control service",
            lambda daemon=daemon: any(  # type: ignore[misc]
                ad["NodeID"] == "right" and ad["Service"] == "control"
                for ad in daemon.ask("status")["Advertisements"] or ()
            ),
        )
    status = chain.left.ask("status")
    assert status["NodeID"] == "left"
    assert status["Connections"] == [{"NodeID": "middle", "Cost": 1}]
    assert status["RoutingTable"] == {"middle": "middle", "right": "middle"}
    known = {"left": {"middle": 1}, "middle": {"left": 1, "right": 1}, "right": {"middle": 1}}
    assert status["KnownConnectionCosts"] == known
    ad = next(a for a in status["Advertisements"] if a["NodeID"] == "right" and a["Service"] == "control")
    assert {c["WorkType"] for c in ad["WorkCommands"]} >= {"cat", "sh"}
    assert ad["Tags"] == {"type": "Control Service"}


def test_connect_to_a_remote_control_service(chain: Chain) -> None:
    with ReceptorControl(str(chain.left.socket)) as control:
        control.connect_to_service("right", "control")
        control.handshake()
        assert control.simple_command("status")["NodeID"] == "right"


@pytest.mark.parametrize("size", [0, 1, 1200, 300_000], ids=str)
def test_work(chain: Chain, size: int) -> None:
    payload = os.urandom(size)
    unit = chain.left.submit("cat", payload)
    assert chain.left.results(unit) == payload
    wait_for("the unit's end", lambda: bool(chain.left.status_of(unit)["StateName"] == "Succeeded"))
    status = chain.left.status_of(unit)
    assert (status["Detail"], status["StdoutSize"]) == ("exit status 0", size)
    remote = status["ExtraData"]["RemoteUnitID"]
    assert chain.right.results(remote) == payload
    assert chain.left.ask(f"work release {unit}") == {"released": unit}
    wait_for("release on the far side", lambda: remote not in chain.right.ask("work list"))
    assert unit not in chain.left.ask("work list")


def test_work_that_fails(chain: Chain) -> None:
    unit = chain.left.submit("sh", b"echo before the end; exit 3")
    assert chain.left.results(unit) == b"before the end\n"
    wait_for("the unit's end", lambda: bool(chain.left.status_of(unit)["StateName"] == "Failed"))
    assert "exit status 3" in chain.left.status_of(unit)["Detail"]
    assert chain.left.ask(f"work release {unit}") == {"released": unit}


def test_cancelled_work(chain: Chain, tmp_path: Path) -> None:
    (tmp_path / "go").touch()
    unit = chain.left.submit("sh", b"echo begun; exec sleep 1000")
    wait_for("output", lambda: bool(chain.left.status_of(unit)["StdoutSize"] == 6))
    assert chain.left.ask(f"work cancel {unit}") == {"cancelled": unit}
    wait_for("the unit's end", lambda: bool(chain.left.status_of(unit)["StateName"] == "Canceled"))
    status = chain.left.status_of(unit)
    assert status["Detail"] == "Canceled"
    remote = status["ExtraData"]["RemoteUnitID"]
    assert chain.right.status_of(remote)["StateName"] == "Canceled"
    assert chain.left.ask(f"work release {unit}") == {"released": unit}
    wait_for("release on the far side", lambda: remote not in chain.right.ask("work list"))


def test_tcp_proxy(chain: Chain) -> None:
    text = b"through the mesh " * 10_000
    with socket.create_connection(("127.0.0.1", chain.door), timeout=PATIENCE_S) as connection:
        sender = threading.Thread(target=connection.sendall, args=(text,))
        sender.start()
        got = b""
        while len(got) < len(text):  # Before the end of the request: proxies of the other kind end both ways at once.
            chunk = connection.recv(65536)
            assert chunk, f"the connection ended after {len(got)} of {len(text)} bytes"
            got += chunk
        sender.join()
    assert got == text.upper()


def test_many_connections_through_the_proxy(chain: Chain) -> None:
    connections = [socket.create_connection(("127.0.0.1", chain.door), timeout=PATIENCE_S) for _ in range(20)]
    for i, connection in enumerate(connections):
        connection.sendall(f"number {i}\n".encode())
    for i, connection in enumerate(connections):
        with connection, connection.makefile("rb") as answers:
            assert answers.readline() == f"NUMBER {i}\n".encode()
