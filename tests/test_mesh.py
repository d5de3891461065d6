"""Three nodes as a user has them: two daemons and a Python program, and what happens when things break."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from daemons import units_done_by

import receptor
from receptor._daemon import find

REPO = Path(__file__).resolve().parents[1]
PATIENCE_S = 60.0

# Writes numbered lines, the next one whenever its standard input, a named pipe, says so: tests decide when it goes on.
COUNTER = "exec 3<>{fifo}; while read -r n <&3; do echo line $n; [ $n = end ] && break; done"


def wait_for(what: str, condition: object) -> None:
    """Wait until ``condition()`` holds."""
    until = time.monotonic() + PATIENCE_S
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < until, f"{what}: not within {PATIENCE_S} s"
        time.sleep(0.01)  # There is no event to wait for in another process's files.


class Daemon:
    """A daemon that can be killed and started again."""

    def __init__(self, folder: Path, name: str, *directives: str) -> None:
        program = find()
        assert program is not None, "the receptor daemon is not installed beside this Python"
        self.folder, self.name = folder, name
        self.log = folder / f"{name}.log"
        self.command = [program, "--node", f"id={name}", f"datadir={folder}", "--log-level", "debug", *directives]
        self.start()

    def start(self) -> None:
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log)
        self.await_log("Initialization complete")

    def await_log(self, text: str) -> str:
        """The first line of the log with ``text``."""
        wait_for(f"{text!r} in the log of {self.name}", lambda: text in self.log.read_text())
        return next(line for line in self.log.read_text().splitlines() if text in line)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)


class Mesh:
    """hub and edge, and a node in this process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.hub = Daemon(folder, "hub", "--tcp-listener", "bindaddr=127.0.0.1", "port=0")
        self.address = self.hub.await_log("Listening on TCP").split("Listening on TCP ")[1].split()[0]
        _, port = self.address.rsplit(":", 1)
        self.port = int(port)
        self.hub.command[self.hub.command.index("port=0")] = f"port={port}"  # The same one when it is started again.
        shell = ("--work-command", "worktype=sh", "command=sh", "params=-c", "allowruntimeparams=true")
        self.edge = Daemon(
            folder, "edge", "--tcp-peer", f"address={self.address}", *shell,
            "--work-command", "worktype=cat", "command=cat", "--control-service", "service=control",
        )  # fmt: skip
        self.laptop = self.node()

    def node(self) -> receptor.Node:
        node = receptor.Node("laptop", peers=[f"tcp://{self.address}"], data_dir=str(self.folder / "laptop"))
        node.wait_route("edge", timeout_s=PATIENCE_S)
        return node

    def close(self) -> None:
        self.laptop.close()
        for daemon in (self.edge, self.hub):
            if daemon.process.poll() is None:
                daemon.end()


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[Mesh]:
    mesh = Mesh(tmp_path)
    yield mesh
    mesh.close()


class Counter:
    """A unit on edge that writes a line whenever it is told to."""

    def __init__(self, mesh: Mesh) -> None:
        self.fifo = mesh.folder / "go"
        os.mkfifo(self.fifo)
        self.unit = mesh.laptop.work.submit("edge", "sh", params={"params": f"'{COUNTER.format(fifo=self.fifo)}'"})
        self.expected = b""

    def write(self, word: str) -> None:
        with self.fifo.open("w") as pipe:
            pipe.write(f"{word}\n")
        self.expected += f"line {word}\n".encode()


def take(output: Iterator[bytes], size: int) -> bytes:
    got = b""
    while len(got) < size:
        got += next(output)
    return got


def test_a_restarted_executor_goes_on_with_its_unit(mesh: Mesh) -> None:
    counter = Counter(mesh)
    output = counter.unit.stdout(timeout_s=PATIENCE_S)
    counter.write("1")
    got = take(output, len(counter.expected))
    mesh.edge.end(signal.SIGKILL)
    counter.write("2")  # The command outlives its daemon.
    mesh.edge.start()
    counter.write("end")
    got += b"".join(output)
    assert got == counter.expected
    assert counter.unit.wait(timeout_s=PATIENCE_S).detail == "exit status 0"
    counter.unit.release()


def test_a_restarted_hub_costs_nothing(mesh: Mesh) -> None:
    counter = Counter(mesh)
    output = counter.unit.stdout(timeout_s=PATIENCE_S)
    counter.write("1")
    got = take(output, len(counter.expected))
    mesh.hub.end(signal.SIGKILL)
    counter.write("2")
    mesh.hub.start()
    counter.write("end")
    got += b"".join(output)
    assert got == counter.expected
    counter.unit.release()


def test_a_restarted_submitter_finds_its_unit(mesh: Mesh) -> None:
    counter = Counter(mesh)
    counter.write("1")
    take(counter.unit.stdout(timeout_s=PATIENCE_S), len(counter.expected))
    unit = counter.unit.detach()
    mesh.laptop.close()
    counter.write("2")
    mesh.laptop = mesh.node()
    again = mesh.laptop.work.get(unit.id if hasattr(unit, "id") else counter.unit.id)
    output = again.stdout(timeout_s=PATIENCE_S)
    counter.write("end")
    assert b"".join(output) == counter.expected
    again.release()


def test_a_killed_runner_fails_its_unit(mesh: Mesh) -> None:
    counter = Counter(mesh)
    counter.write("1")
    take(counter.unit.stdout(timeout_s=PATIENCE_S), len(counter.expected))
    everybody = map(int, filter(str.isdigit, os.listdir("/proc")))
    runners = [pid for pid in everybody if units_done_by(pid, mesh.folder / "edge")]
    assert runners, "the unit has no runner process"
    for pid in runners:
        os.kill(pid, signal.SIGKILL)
    result = counter.unit.wait(timeout_s=PATIENCE_S, check=False)
    assert result.state is receptor.WorkState.FAILED
    assert "unner" in result.detail
    counter.unit.release()


@pytest.mark.parametrize(
    "attack",
    [
        b"\0\0",
        b"\xff\xff" + b"x" * 65535,
        b"\xff\xff" + b"too little",
        b"GET / HTTP/1.1\r\nHost: hub\r\n\r\n",
        bytes(range(256)) * 64,
        struct.pack("<H", 3) + b"\x01{}",
        struct.pack("<H", 3) + b"\x02{}",
        b"",
    ],
    ids=["empty-frame", "largest-frame", "half-frame", "http", "garbage", "empty-route", "empty-advert", "silence"],
)
def test_garbage_on_a_link_hurts_nobody(mesh: Mesh, attack: bytes) -> None:
    with socket.create_connection(("127.0.0.1", mesh.port), timeout=PATIENCE_S) as attacker:
        attacker.sendall(attack)
        attacker.shutdown(socket.SHUT_WR)
        while attacker.recv(65536):  # The hub introduces itself, and closes a connection that has ended.
            pass
    assert mesh.laptop.ping("edge").from_node == "edge"
    assert mesh.hub.process.poll() is None


def test_errors_name_what_is_wrong(mesh: Mesh) -> None:
    with pytest.raises(receptor.Unreachable, match="no route") as nowhere:
        mesh.laptop.ping("nowhere")
    assert nowhere.value.node == "nowhere"
    with pytest.raises(receptor.WorkError, match="unknown work type nonesuch"):
        mesh.laptop.work.submit("edge", "nonesuch")
    with pytest.raises(receptor.Unreachable, match="service unknown"):
        mesh.laptop.connect("edge", "nonesuch")


def demo(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(REPO / "examples" / "two_hops.py"), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def left_running(group: int) -> list[str]:
    """Processes of a process group that are still there."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            if int(fields[2]) == group and fields[0] != "Z":
                found.append(Path(f"/proc/{pid}/cmdline").read_text())
        except OSError:
            continue
    return found


def test_the_demo(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(os.urandom(3_000_000))
    process = demo(str(tmp_path))
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    for text in (
        "topology",
        "route          laptop (",
        " -> hub (",
        " -> edge (",
        "intact",
        "MB/s",
        "ms to the first byte of output",
    ):
        assert text in out
    assert left_running(process.pid) == []


def test_the_demo_without_input() -> None:
    process = demo("/nonexistent/input")
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (1, "")
    assert err == "two_hops: error: /nonexistent/input does not exist; name a file or a folder\n"


@pytest.mark.parametrize("after", ["start", "topology", "route", "submit"])
def test_ctrl_c_in_the_demo(tmp_path: Path, after: str) -> None:
    """Whenever it comes, the program ends, says so, and leaves nothing running."""
    (tmp_path / "data").write_bytes(os.urandom(30_000_000))
    process = demo(str(tmp_path / "data"))
    assert process.stdout is not None
    assert process.stderr is not None
    if after != "start":
        while not process.stdout.readline().startswith(after):
            assert process.poll() is None, process.stderr.read()
    os.killpg(process.pid, signal.SIGINT)  # As a terminal does: to the daemons too.
    process.wait(PATIENCE_S)
    assert left_running(process.pid) == []
    if after != "start":
        assert process.returncode == 130
        assert process.stderr.read() == "two_hops: interrupted\n"
    process.stdout.close()
    process.stderr.close()
