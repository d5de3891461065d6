"""The daemon as a process: what it prints, where, its exit codes, and what it leaves behind."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import shutil
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

REPO = Path(__file__).resolve().parents[1]
PATIENCE_S = 60.0  # After this a wait counts as a hang.


class Daemon:
    """One running daemon."""

    def __init__(self, binary: Path, *arguments: str | Path) -> None:
        self.process = subprocess.Popen(
            [binary, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        )
        self.output = ""

    def wait_for(self, text: str) -> None:
        """Read standard output until ``text`` has come."""
        assert self.process.stdout is not None
        until = time.monotonic() + PATIENCE_S
        while text not in self.output:
            readable, _, _ = select.select([self.process.stdout], [], [], max(0.0, until - time.monotonic()))
            assert readable, f"no {text!r} within {PATIENCE_S} s:\n{self.output}"
            chunk = os.read(self.process.stdout.fileno(), 65536)
            assert chunk, f"the daemon ended before {text!r}:\n{self.output}{self._rest(self.process.stderr)}"
            self.output += chunk.decode()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and return the exit status."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Return the exit status. What runs work units may hold the pipes open, so their end is not waited for."""
        status = self.process.wait(PATIENCE_S)
        if self.process.stdout is not None and not self.process.stdout.closed:
            os.set_blocking(self.process.stdout.fileno(), False)
            self.output += (self.process.stdout.read() or b"").decode()
        return status

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE_S)
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()

    @staticmethod
    def _rest(stream: IO[bytes] | None) -> str:
        if stream is None:
            return ""
        os.set_blocking(stream.fileno(), False)
        return (stream.read() or b"").decode()


class Daemons:
    """Starts daemons and ends what is left of them."""

    def __init__(self, binary: Path) -> None:
        self.binary = binary
        self.started: list[Daemon] = []

    def __call__(self, *arguments: str | Path) -> Daemon:
        daemon = Daemon(self.binary, *arguments)
        self.started.append(daemon)
        return daemon


@pytest.fixture
def start(receptor: Path) -> Iterator[Daemons]:
    daemons = Daemons(receptor)
    yield daemons
    for daemon in daemons.started:
        daemon.close()


def run(receptor: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [receptor, *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
        stdin=subprocess.DEVNULL,
    )


@contextlib.contextmanager
def control(path: Path) -> Iterator[socket.socket]:
    """Connect to a control socket."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(PATIENCE_S)
        client.connect(str(path))
        yield client


def banner(path: Path) -> bytes:
    """Return the first line of a control socket."""
    with control(path) as client:
        return client.makefile("rb").readline()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration file for a node with a control socket named ``s`` beside the file."""
    path = tmp_path / "mesh.yml"
    path.write_text(
        f"""---
- node:
    id: solo
    datadir: {tmp_path / "data"}
- local-only
- control-service:
    filename: {tmp_path / "s"}
    permissions: 0660
"""
    )
    return path


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_f039_f040_f052_starts_serves_and_stops(start: Daemons, config: Path, number: signal.Signals) -> None:
    daemon = start("--config", config)
    daemon.wait_for("Initialization complete\n")
    path = config.parent / "s"
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert banner(path) == b"Receptor Control, node solo\n"
    assert daemon.stop(number) == 0
    left = sorted(p.name for p in config.parent.iterdir() if p.name != "data")
    assert left == ["mesh.yml"], "the socket or its lock is left behind"
    lines = [line for line in daemon.output.splitlines() if not line.startswith(" ")]
    for line in lines:
        assert re.match(r"(ERROR|WARNING|INFO|DEBUG) \d{4}/\d\d/\d\d \d\d:\d\d:\d\d \S", line), line


def test_f051_second_daemon_on_a_socket_is_refused(receptor: Path, start: Daemons, config: Path) -> None:
    first = start("-c", config)
    first.wait_for("Initialization complete")
    second = run(receptor, "-c", config)
    assert second.returncode == 1
    assert second.stderr.startswith(
        "Error: error opening Unix socket: could not acquire lock on socket file: fslock is already locked "
        f"(another program holds {config.parent}/s.lock: a daemon that is running, most likely)"
    )
    assert f"{config}:6" in second.stderr
    assert banner(config.parent / "s") == b"Receptor Control, node solo\n"
    first.process.kill()
    first.wait()
    third = start("-c", config)
    third.wait_for("Initialization complete")
    assert banner(config.parent / "s") == b"Receptor Control, node solo\n"


def test_work_types_are_there_when_the_socket_is(start: Daemons, config: Path) -> None:
    with config.open("a") as file:
        file.write("- work-command: {worktype: echo, command: cat}\n")
    daemon = start("-c", config)
    until = time.monotonic() + PATIENCE_S
    with contextlib.ExitStack() as stack:
        client = None
        while client is None:  # Nothing else tells the first moment at which somebody can connect.
            assert time.monotonic() < until
            with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):  # It is made first.
                client = stack.enter_context(control(config.parent / "s"))
        stream = client.makefile("rwb")
        stream.readline()
        stream.write(b'{"command": "work", "subcommand": "submit", "node": "localhost", "worktype": "echo"}\n')
        stream.flush()
        assert stream.readline().startswith(b"Work unit created with ID ")
    assert daemon.stop() == 0


def test_f049_work_outlives_the_daemon(start: Daemons, config: Path) -> None:
    go = config.parent / "go"
    # It gives up in the end, so that a failed test leaves nothing running.
    script = f"n=0; until test -e {go} || test $n = 2000; do n=$((n+1)); sleep 0.02; done; cat; echo done"
    with config.open("a") as file:
        file.write(f"- work-command: {{worktype: wait, command: sh, params: '-c \"{script}\"'}}\n")
    first = start("-c", config)
    first.wait_for("Initialization complete")
    with control(config.parent / "s") as client:
        stream = client.makefile("rwb")
        stream.readline()
        stream.write(b'{"command": "work", "subcommand": "submit", "node": "localhost", "worktype": "wait"}\n')
        stream.flush()
        unit = stream.readline().split()[5].rstrip(b".").decode()
        stream.write(b"payload\n")
        stream.flush()
        client.shutdown(socket.SHUT_WR)
        assert json.loads(stream.readline()) == {"result": "Job Started", "unitid": unit}
    assert first.stop() == 0
    second = start("-c", config)
    second.wait_for("Initialization complete")
    go.touch()
    with control(config.parent / "s") as client:
        stream = client.makefile("rwb")
        stream.readline()
        stream.write(f"work results {unit}\n".encode())
        stream.flush()
        assert stream.readline() == f"Streaming results for work unit {unit}\n".encode()
        assert stream.read() == b"payload\ndone\n"
    assert second.stop() == 0


def test_f046_payloads_are_in_no_log(start: Daemons, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The trace of payloads is a decision not taken over: nothing of them is told, and all of them arrives."""
    monkeypatch.setenv("RECEPTOR_PAYLOAD_TRACE_LEVEL", "3")
    with config.open("a") as file:
        file.write("- work-command: {worktype: cat, command: cat}\n- log-level: debug\n- trace\n")
        file.write("- tcp-listener: {port: 0, bindaddr: 127.0.0.1}\n")
    daemon = start("-c", config)
    daemon.wait_for("Initialization complete")
    payload = b"first\nlast, without an end of line: hunter2"
    with control(config.parent / "s") as client:
        stream = client.makefile("rwb")
        stream.readline()
        stream.write(b"work submit localhost cat\n")
        stream.flush()
        unit = stream.readline().split()[5].rstrip(b".").decode()
        stream.write(payload)
        stream.flush()
        client.shutdown(socket.SHUT_WR)
        assert json.loads(stream.readline()) == {"result": "Job Started", "unitid": unit}
    with control(config.parent / "s") as client:
        stream = client.makefile("rwb")
        stream.readline()
        stream.write(f"work results {unit}\n".encode())
        stream.flush()
        stream.readline()
        assert stream.read() == payload
    assert daemon.stop() == 0
    assert "DEBUG" in daemon.output
    assert "hunter2" not in daemon.output
    assert "PACKET TRACING" not in daemon.output


def test_stops_with_clients_connected(start: Daemons, config: Path) -> None:
    daemon = start("-c", config)
    daemon.wait_for("Initialization complete")
    with control(config.parent / "s") as client:
        assert client.recv(100)
        assert daemon.stop() == 0
        assert client.recv(1) == b""


def test_closed_output_does_not_end_the_daemon(start: Daemons, config: Path) -> None:
    with config.open("a") as file:
        file.write("- log-level: debug\n- tcp-peer: {address: '127.0.0.1:1'}\n")
    daemon = start("-c", config)
    daemon.wait_for("Running control service")
    assert daemon.process.stdout is not None
    daemon.process.stdout.close()
    for _ in range(20):
        assert banner(config.parent / "s")
    daemon.process.send_signal(signal.SIGTERM)
    assert daemon.process.wait(PATIENCE_S) == 0


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--bogus"], "Error: command error: unknown config type bogus\n"),
        (["--tcp-per", "h:1"], "Error: command error: unknown config type tcp-per (did you mean tcp-peer?)\n"),
        (["--node", "name=a"], "Error: config error: unknown field name name "),
        (["--tcp-peer", "redial=no"], "Error: error in --tcp-peer: required parameter missing: address\n"),
        (["id=a"], "Error: parameter specified before command (a directive begins with two dashes; "),
        (["--node", ""], "Error: empty argument "),
        (["-c", "/no/such.yml"], "Error: error loading config file: open /no/such.yml: no such file or directory\n"),
        (["--log-level", "loud", "--local-only"], "Error: loud is not a valid log level name "),
        (["--local-only", "--tcp-listener", "99999"], "Error: listen tcp: address 99999: invalid port\n"),
    ],
)
def test_f017_to_f020_errors(receptor: Path, arguments: list[str], text: str) -> None:
    result = run(receptor, *arguments)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith(text)


def test_a_reader_that_leaves_early_is_no_error(receptor: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as gone:
        result = subprocess.run([receptor, "--json-schema"], stdout=gone, stderr=subprocess.PIPE, check=False)
    assert (result.returncode, result.stderr) == (1, b"")


def test_f033_errors_in_a_file_name_the_line(receptor: Path, tmp_path: Path) -> None:
    path = tmp_path / "bad.yml"
    path.write_text("- node:\n\tid: a\n")
    assert "bad.yml:2; the line is indented with a tab; YAML takes spaces only" in run(receptor, "-c", path).stderr
    path.write_text("- node: a\n- tcp-peeer: h:1\n- tcp-listener: {port: 27520.7}\n")
    result = run(receptor, "--config", path)
    assert result.returncode == 1
    first, second = result.stderr.splitlines()
    assert first == (
        "Error: error loading config file: could not get config type for command tcp-peeer: "
        f"unknown config type tcp-peeer ({path}:2:3; did you mean tcp-peer?)"
    )
    assert second == (
        "error loading config file: error setting field port in command tcp-listener: 27520.7 is not a whole number "
        f"({path}:3:24; write a whole number)"
    )


def test_f021_nothing_to_do(receptor: Path, tmp_path: Path) -> None:
    result = run(receptor, "--node", "id=a", "--control-service", f"filename={tmp_path / 's'}")
    assert result.returncode == 1
    assert re.fullmatch(r"WARNING \S+ \S+ Nothing to do - no backends are running\.\n", result.stdout)
    assert result.stderr.startswith("Run receptor --help for command line instructions.\n")


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["--node", "id=a", "--help"]])
def test_f009_f010_help(receptor: Path, arguments: list[str]) -> None:
    result = run(receptor, *arguments)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("Usage: receptor ")
    assert "   --tcp-listener: " in result.stdout


def test_f013_version(receptor: Path) -> None:
    result = run(receptor, "--version")
    assert (result.returncode, result.stderr) == (0, "")
    assert re.fullmatch(r"Version unknown\n|\d+\.\S+\n", result.stdout)


def test_f012_completion_can_be_sourced(receptor: Path) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash")
    script = run(receptor, "--bash-completion").stdout
    check = (
        "complete -p receptor; COMP_WORDS=(receptor --tcp-p); COMP_CWORD=1; _receptor_completion; echo ${COMPREPLY[@]}"
    )
    result = subprocess.run([bash, "-c", script + check], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines() == ["complete -F _receptor_completion receptor", "--tcp-peer"]
