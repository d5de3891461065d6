"""Hosts that are network namespaces, the wires between them, and a daemon on each."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from receptor._daemon import find
from receptorctl import ReceptorControl

LINK_LOSS_S = 26.0  # The protocol's limit: a silent link is given up after 21 s, looked for every 5 s.
PATIENCE_S = 75.0  # It is dialled again after at most 20 s, or 15 s later if a dial hangs.
PORT = 2222
HOSTS = ("laptop", "hub", "edge")
LINKS = (("laptop", "hub"), ("hub", "edge"), ("laptop", "edge"))

# Writes numbered lines, the next one whenever its standard input, a named pipe, says so: tests decide when it goes on.
COUNTER = "exec 3<>{fifo}; while read -r n <&3; do echo line $n; [ $n = end ] && break; done"


def wait_for(what: str, condition: Callable[[], bool], limit_s: float = PATIENCE_S) -> None:
    until = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < until, f"{what}: not within {limit_s} s"
        time.sleep(0.05)  # There is no event to wait for in another process.


def command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE_S, check=False)


def must(*words: str) -> None:
    done = command(*words)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"


class Network:
    """Three namespaces, each with a wire to the two others. ``close`` removes them, whatever has become of them."""

    def __init__(self) -> None:
        self.made: list[str] = []

    def namespace(self, host: str) -> str:
        return f"receptor-{os.getpid()}-{host}"

    def lay(self) -> None:
        for host in HOSTS:
            name = self.namespace(host)
            made = command("ip", "netns", "add", name)
            if made.returncode != 0:
                pytest.skip(f"no network namespace can be made here: {made.stderr.strip()}")
            self.made.append(name)
            must("ip", "-n", name, "link", "set", "lo", "up")
        for number, (a, b) in enumerate(LINKS):
            near, far = self.namespace(a), self.namespace(b)
            made = command(
                "ip", "link", "add", f"to-{b}", "netns", near, "type", "veth", "peer", "name", f"to-{a}", "netns", far
            )
            if made.returncode != 0:
                pytest.skip(f"no wire between namespaces can be made here: {made.stderr.strip()}")
            for name, host, peer in ((near, a, b), (far, b, a)):
                address = f"{self.address(number, host)}/24"
                must("ip", "-n", name, "address", "add", address, "dev", f"to-{peer}")
                must("ip", "-n", name, "link", "set", f"to-{peer}", "up")

    @staticmethod
    def address(number: int, host: str) -> str:
        return f"10.77.{number}.{1 + HOSTS.index(host)}"

    def switch(self, a: str, b: str, state: str) -> None:
        """Turn a wire ``down`` or ``up`` at one end: nobody is told, packets just do not arrive."""
        must("ip", "-n", self.namespace(a), "link", "set", f"to-{b}", state)

    def disturb(self, a: str, b: str, how: str) -> None:
        """Let the kernel delay or lose packets, in both directions. ``how`` is for tc: a discipline and its options."""
        for host, peer in ((a, b), (b, a)):
            place = ("qdisc", "add", "dev", f"to-{peer}", "root")
            done = command("tc", "-n", self.namespace(host), *place, *how.split())
            if done.returncode != 0:
                pytest.skip(f"this kernel has no {how.split()[0]}: {done.stderr.strip()}")

    def dropped(self, *links: tuple[str, str]) -> int:
        """How many packets the kernel has dropped at the ends of these wires."""
        ends = [*links, *(link[::-1] for link in links)]
        shown = [
            command("tc", "-n", self.namespace(host), "-s", "qdisc", "show", "dev", f"to-{peer}") for host, peer in ends
        ]
        return sum(int(number) for show in shown for number in re.findall(r"dropped (\d+)", show.stdout))

    def close(self) -> None:
        for name in self.made:
            for pid in command("ip", "netns", "pids", name).stdout.split():  # What a daemon that failed has left.
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
        left = [name for name in self.made if command("ip", "netns", "delete", name).returncode != 0]
        assert not left, f"namespaces that could not be removed: {left}"  # With the others went their wires.


class Daemon:
    """The daemon of one host. Its control socket is a file, which the test reaches from outside."""

    def __init__(self, program: str, network: Network, folder: Path, host: str, *directives: str) -> None:
        self.host, self.socket, self.log = host, folder / f"{host}.sock", folder / f"{host}.log"
        words = [
            "ip", "netns", "exec", network.namespace(host), program, "--node", f"id={host}", f"datadir={folder}/data",
            "--log-level", "info", "--control-service", "service=control", f"filename={self.socket}", *directives,
        ]  # fmt: skip
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(words, stdout=log, stderr=log)

    def started(self) -> bool:
        assert self.process.poll() is None, f"{self.host} ended:\n{self.log.read_text()}"
        return "Initialization complete" in self.log.read_text()

    def ask(self, text: str) -> Any:
        with ReceptorControl(str(self.socket)) as control:
            return control.simple_command(text)

    def path(self, node: str) -> list[str]:
        """The nodes on the way to another, this one included."""
        answer = self.ask(f"traceroute {node}")
        hops = [answer[key] for key in sorted(answer, key=int)]
        return [hop["From"] for hop in hops] if "Error" not in hops[-1] else []

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait(PATIENCE_S)


class Unit:
    """Work that laptop has given to edge; its output is read as it comes."""

    def __init__(self, laptop: Daemon, work_type: str, payload: bytes, **params: str) -> None:
        self.laptop = laptop
        with ReceptorControl(str(laptop.socket)) as control:
            self.id: str = control.submit_work(work_type, payload, node="edge", params=params)["unitid"]
        with ReceptorControl(str(laptop.socket)) as control:
            self.output = control.get_work_results(self.id)

    def take(self, size: int) -> bytes:
        return self.output.read(size)

    def finish(self) -> tuple[bytes, str]:
        """The rest of the output and the unit's detail; the unit is released."""
        with self.output:
            rest = self.output.read()
        wait_for("the unit's end", lambda: self.laptop.ask(f"work status {self.id}")["StateName"] != "Running")
        detail: str = self.laptop.ask(f"work status {self.id}")["Detail"]
        assert self.laptop.ask(f"work release {self.id}") == {"released": self.id}
        return rest, detail


class Counter(Unit):
    """A unit that writes a line whenever it is told to, wherever the links are."""

    def __init__(self, laptop: Daemon, folder: Path) -> None:
        self.fifo = folder / "go"
        os.mkfifo(self.fifo)
        self.expected = b""
        super().__init__(laptop, "sh", b"", params=f"'{COUNTER.format(fifo=self.fifo)}'")

    def write(self, word: str) -> None:
        with self.fifo.open("w") as pipe:
            pipe.write(f"{word}\n")
        self.expected += f"line {word}\n".encode()


class Hosts:
    """Three hosts. ``kind`` is that of their links; ``extra`` are more directives of a host's daemon."""

    def __init__(
        self,
        network: Network,
        folder: Path,
        stack: contextlib.ExitStack,
        kind: str = "tcp",
        extra: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
    ) -> None:
        program = find()
        assert program is not None, "the receptor daemon is not installed beside this Python"
        self.network, self.folder = network, folder

        def start(host: str, *directives: str) -> Daemon:
            daemon = Daemon(program, network, folder, host, *directives, *extra.get(host, ()))
            stack.callback(daemon.close)
            wait_for(f"start of {host}", daemon.started)
            return daemon

        def peer(number: int, host: str, cost: int) -> tuple[str, ...]:
            return (f"--{kind}-peer", f"address={network.address(number, host)}:{PORT}", f"cost={cost}")

        listen = (f"--{kind}-listener", f"port={PORT}")
        shell = ("--work-command", "worktype=sh", "command=sh", "params=-c", "allowruntimeparams=true")
        work = (*shell, "--work-command", "worktype=cat", "command=cat")
        self.hub = start("hub", *listen, "cost=1")
        self.edge = start("edge", *listen, "cost=5", *peer(1, "hub", 1), *work)
        self.laptop = start("laptop", *peer(0, "hub", 1), *peer(2, "edge", 5))
        self.wait_path("laptop", "hub", "edge")
        wait_for("both links of laptop", lambda: len(self.laptop.ask("status")["Connections"]) == 2)

    def wait_path(self, *nodes: str, limit_s: float = PATIENCE_S) -> None:
        """Wait until packets between laptop and edge go this way, there and back."""
        for daemon, way in ((self.laptop, list(nodes)), (self.edge, list(nodes)[::-1])):
            wait_for(
                f"{daemon.host} goes by {way[1]}",
                lambda daemon=daemon, way=way: daemon.ask("status")["RoutingTable"].get(way[-1]) == way[1],  # type: ignore[misc]
                limit_s,
            )
        assert self.laptop.path("edge") == list(nodes)
        assert self.edge.path("laptop") == list(nodes)[::-1]
