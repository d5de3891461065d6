"""What the command does beyond the golden sessions: JSON, interruptions, terminals, odd daemons."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import shlex
import signal
import socket
import subprocess
import sys
import termios
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from fake_daemon import FakeDaemon
from receptorctl_support import Invoke, interrupt

import receptorctl.cli
from receptor import control
from receptor.cli._output import interruptible
from receptor.cli._root import Command, own_version

COMMAND = [sys.executable, "-m", "receptorctl"]


@contextlib.contextmanager
def running(*args: str, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Run the command as a process of its own."""
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    with subprocess.Popen([*COMMAND, *args], **streams) as process:
        try:
            yield process
        finally:
            process.kill()


def every_command(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        assert command is not None
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from every_command(command, (*path, name))


@pytest.mark.parametrize("path", [path for path, _ in every_command(receptorctl.cli.cli)], ids=" ".join)
def test_help_has_an_example_and_needs_no_daemon(invoke: Invoke, path: tuple[str, ...], tmp_path: Path) -> None:
    for socket_options in ([], ["--socket", str(tmp_path / "none")]):
        result = invoke(*socket_options, *path, "--help")
        assert result.exit_code == 0
        assert f"\n  Example: receptorctl {' '.join(path)}" in result.stdout


def test_no_command_is_a_question_for_help(invoke: Invoke) -> None:
    result = invoke()
    assert (result.exit_code, result.stderr) == (0, "")
    assert "Commands:" in result.stdout


def test_json_of_ping_and_traceroute(invoke: Invoke, fake_socket: str) -> None:
    result = invoke("--socket", fake_socket, "ping", "gamma", "--count", "2", "--delay", "0", "--json")
    reply = {"success": True, "from": "gamma", "time_ns": 9670, "error": None}
    assert json.loads(result.stdout) == {"node": "gamma", "sent": 2, "received": 2, "replies": [reply, reply]}
    result = invoke("--socket", fake_socket, "ping", "nosuch", "--count", "1", "--json")
    reply = {"success": False, "from": None, "time_ns": None, "error": "no route to node"}
    assert json.loads(result.stdout) == {"node": "nosuch", "sent": 1, "received": 0, "replies": [reply]}
    assert result.exit_code == 2
    result = invoke("--socket", fake_socket, "traceroute", "beta", "--json")
    hops = [
        {"hop": 0, "from": "gamma", "time_ns": 97730, "error": None},
        {"hop": 1, "from": "gamma", "time_ns": 1260, "error": "no route to node"},
    ]
    assert json.loads(result.stdout) == {"node": "beta", "reached": False, "hops": hops}


def test_json_of_work_and_version(invoke: Invoke, fake: FakeDaemon, fake_socket: str) -> None:
    result = invoke("--socket", fake_socket, "version", "--json")
    assert json.loads(result.stdout) == {"receptorctl": own_version(), "receptor": "1.4.9+git"}
    result = invoke("--socket", fake_socket, "work", "submit", "cat", "-n", "--json")
    submitted = json.loads(result.stdout)
    unit = submitted.pop("unit")
    assert submitted == {"result": "Job Started", "released": False}
    fake.next_unit().wait_complete()
    result = invoke("--socket", fake_socket, "work", "cancel", unit, "--json")
    assert json.loads(result.stdout) == {"units": [{"unit": unit, "result": "cancelled"}], "error": None}
    result = invoke("--socket", fake_socket, "work", "release", unit, "nosuch", "--json")
    assert json.loads(result.stdout) == {
        "units": [{"unit": unit, "result": "released"}],
        "error": "nosuch: ERROR: unknown work unit nosuch",
    }
    assert result.exit_code == 1
    result = invoke("--socket", fake_socket, "work", "submit", "cat", "-n", "--rm", "--json")
    assert json.loads(result.stdout)["released"] is True
    result = invoke("--socket", fake_socket, "work", "submit", "cat", "-n", "--follow", "--json")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "--json and --follow exclude each other" in result.stderr


def test_equal_versions_bring_no_warning(invoke: Invoke, tmp_path: Path) -> None:
    with FakeDaemon(version=own_version()) as daemon:
        result = invoke("--socket", daemon.listen_unix(tmp_path / "s"), "ping", "gamma", "--count", "1")
    assert result.stderr == ""


def test_a_failing_unit_is_released_all_the_same(invoke: Invoke, fake: FakeDaemon, fake_socket: str) -> None:
    result = invoke(
        "--socket", fake_socket, "work", "submit", "sh", "-n", "-f", "--rm", "-a", "params='echo a; exit 4'"
    )
    assert result.exit_code == 1
    assert result.stdout.startswith("a\n(")
    assert result.stdout.endswith(", released)\n")
    assert result.stderr.endswith("ERROR: Remote unit failed: exit status 4\n\n")
    assert fake.units == {}


def test_following_a_cancelled_unit_fails(invoke: Invoke, fake: FakeDaemon, fake_socket: str) -> None:
    invoke("--socket", fake_socket, "work", "submit", "sh", "-n", "-a", "params='exec sleep 60'")
    [unit] = fake.units
    invoke("--socket", fake_socket, "work", "cancel", unit)
    result = invoke("--socket", fake_socket, "work", "results", unit)
    assert result.exit_code == 1
    assert "ERROR: Remote unit was cancelled: Canceled" in result.stderr


def test_results_go_on_where_a_stream_broke_off(invoke: Invoke, fake: FakeDaemon, fake_socket: str) -> None:
    fake.cut_results = [3, 0]
    program = "params='echo one; echo two; echo three'"
    result = invoke("--socket", fake_socket, "work", "submit", "sh", "-n", "-f", "-a", program)
    assert (result.exit_code, result.stdout) == (0, "one\ntwo\nthree\n")
    assert [line.split()[-1] for line in fake.requests if "results" in line] == ["0", "3", "3"]


def test_a_command_on_its_own_takes_the_socket_from_the_environment(
    fake_socket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECEPTORCTL_SOCKET", fake_socket)
    result = CliRunner().invoke(receptorctl.cli.status, ["--json"])
    assert json.loads(result.stdout)["NodeID"] == "gamma"
    result = CliRunner().invoke(receptorctl.cli.work, ["list"])
    assert json.loads(result.stdout) == {}


def test_control_characters_do_not_reach_the_terminal(invoke: Invoke, tmp_path: Path) -> None:
    with FakeDaemon(version="1\x1b[31m", node="evil\x07") as daemon:
        result = invoke("--socket", daemon.listen_unix(tmp_path / "s"), "status")
    assert "Node ID: evil\\x07\nVersion: 1\\x1b[31m\n" in result.stdout


@pytest.mark.parametrize("greeting", [b"SSH-2.0\r\n", b""])
def test_something_else_at_the_address(invoke: Invoke, tmp_path: Path, greeting: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        with running("--socket", str(tmp_path / "s"), "status") as process:
            sock, _ = listener.accept()
            with sock:
                sock.sendall(greeting)
            _, stderr = process.communicate(timeout=60)
    assert process.returncode == 1
    assert stderr.startswith(b"ERROR: ")
    assert b"Traceback" not in stderr


def test_interrupted_results_say_how_to_go_on(fake: FakeDaemon, fake_socket: str) -> None:
    program = "params='echo ready; exec sleep 60'"
    with running("--socket", fake_socket, "work", "submit", "sh", "-n", "-f", "-a", program) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        interrupt(process)
        _, stderr = process.communicate()
    [unit] = fake.units
    assert process.returncode == 130
    assert f"hint: the unit goes on; see its output with: receptorctl work results {unit}\n" in stderr.decode()
    assert b"Traceback" not in stderr


def test_a_daemon_that_stays_away_says_how_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    @click.command(cls=Command)
    def follows() -> None:
        with interruptible("LWJm6jtg") as place:
            place.offset = 6
            raise control.ConnectError("nobody listens")

    with pytest.raises(SystemExit) as end:
        follows.main([])
    assert (end.value.code, capsys.readouterr().err.splitlines()) == (
        1,
        [
            "ERROR: nobody listens",
            "hint: the unit goes on; see its output with: receptorctl work results LWJm6jtg",
            "hint: or the rest of it with: receptorctl work results --offset 6 LWJm6jtg",
        ],
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_upload_does_not_start_the_unit(
    fake: FakeDaemon, fake_socket: str, number: signal.Signals
) -> None:
    with running("--socket", fake_socket, "work", "submit", "cat", "-p", "-") as process:
        assert process.stdin is not None
        process.stdin.write(b"half of the input")
        process.stdin.flush()
        unit = fake.next_unit()
        unit.wait(lambda: bool(unit.stdin))  # standard input is handed on before its end
        process.send_signal(number)
        unit.wait_complete()
        process.stdin.close()
        assert process.wait(60) in (130, -signal.SIGKILL)
        assert process.stderr is not None
        hint = process.stderr.read()
    assert unit.detail.startswith("Error reading input data")
    if number is signal.SIGINT:
        assert b"hint: see what became of the unit with: receptorctl work list --unit_id" in hint


def test_a_reader_that_leaves_is_no_error(fake_socket: str) -> None:
    program = "params='yes | head -c 1000000'"
    with running("--socket", fake_socket, "work", "submit", "sh", "-n", "-f", "-a", program) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(2)
        process.stdout.close()
        stderr = process.stderr.read()
        assert process.wait(60) == 1
    assert b"Traceback" not in stderr
    assert b"ERROR" not in stderr


@pytest.mark.parametrize("closed", ["2>&-", "0<&- 2>&-", "0<&-"])
def test_output_comes_although_other_streams_are_closed(fake: FakeDaemon, fake_socket: str, closed: str) -> None:
    with running("--socket", fake_socket, "work", "submit", "cat", "-l", "output", "-f") as process:
        process.communicate()
    [unit] = fake.units
    results = shell(f"work results {unit} {closed}", fake_socket)
    assert (results.returncode, results.stdout) == (0, b"output\n")


def test_a_closed_output_is_no_fault(fake: FakeDaemon, fake_socket: str) -> None:
    with running("--socket", fake_socket, "work", "submit", "cat", "-l", "output", "-f") as process:
        process.communicate()
    [unit] = fake.units
    results = shell(f"work results {unit} >&-", fake_socket)
    assert results.returncode == 0
    assert b"ERROR" not in results.stderr


def test_a_closed_input_is_no_payload(fake: FakeDaemon, fake_socket: str) -> None:
    result = shell("work submit cat -p - <&-", fake_socket)
    assert result.returncode == 1
    assert result.stderr.decode().endswith("ERROR: standard input is closed\n")
    assert not fake.units


def shell(command: str, address: str) -> subprocess.CompletedProcess[bytes]:
    """Run the command as a line of a shell."""
    line = f"{shlex.join(COMMAND)} --socket {address} {command}"
    return subprocess.run(line, shell=True, capture_output=True, check=False)


def test_arguments_that_are_no_text(invoke: Invoke, fake: FakeDaemon, fake_socket: str) -> None:
    """Bytes are sent as they are where there is room for them, and refused in words where there is none."""
    odd = os.fsdecode(b"\xff\xfe")
    to = ("--socket", fake_socket)
    assert invoke(*to, "work", "submit", "cat", "-l", odd, "-f").stdout_bytes == b"\xff\xfe\n"
    assert len(fake.units) == 1
    for args in [("cat", "-n", "-a", f"params={odd}"), ("cat", "-n", "--node", odd), (odd, "-n")]:
        result = invoke(*to, "work", "submit", *args)
        assert result.exit_code == 101
        assert "is not UTF-8 text and cannot be part of a request: send it as payload" in result.stderr
    assert len(fake.units) == 1
    assert "codec" not in invoke(*to, "ping", odd, "--count", "1").stderr


def test_arguments_in_a_locale_that_knows_less(invoke: Invoke, fake: FakeDaemon, fake_socket: str) -> None:
    read = "params='echo h\u00e4llo \u2603'".encode().decode("ascii", "surrogateescape")  # as in LC_ALL=C
    result = invoke("--socket", fake_socket, "work", "submit", "sh", "-n", "-f", "-a", read)
    assert result.stdout == "h\u00e4llo \u2603\n"


@pytest.mark.parametrize(
    ("content", "text"),
    [(b"\xff", "is not UTF-8 text"), (b"x" * (16 * 1024 * 1024 + 1), "is larger than a parameter may be")],
)
def test_a_file_that_is_no_parameter(
    invoke: Invoke, fake: FakeDaemon, fake_socket: str, tmp_path: Path, content: bytes, text: str
) -> None:
    (tmp_path / "file").write_bytes(content)
    result = invoke("--socket", fake_socket, "work", "submit", "cat", "-n", "-a", f"key=@{tmp_path}/file")
    assert result.exit_code == 101
    assert f"{tmp_path}/file {text}" in result.stderr
    assert not fake.units


@pytest.mark.parametrize(
    ("answer", "args", "text"),
    [
        (b"ERROR: ", ["status"], "the daemon did not say why"),
        (b"ERROR: ", ["work", "cancel", "LWJm6jtg"], "LWJm6jtg: ERROR: the daemon did not say why"),
        (b"{}", ["ping", "edge", "--count", "1"], "the daemon did not say why"),
        (b'{"LWJm6jtg":5}', ["work", "list"], "the daemon's list of units cannot be used: 'LWJm6jtg' has no status"),
    ],
)
def test_odd_answers(invoke: Invoke, tmp_path: Path, answer: bytes, args: list[str], text: str) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()

        def serve() -> None:
            with listener.accept()[0] as sock, sock.makefile("rwb") as stream:
                stream.write(b"Receptor Control, node gamma\n")
                stream.flush()
                for request in stream:
                    version = json.dumps({"Version": own_version()}).encode()
                    stream.write((version if b"Version" in request else answer) + b"\n")
                    stream.flush()

        with ThreadPoolExecutor() as other:
            other.submit(serve)
            result = invoke("--socket", str(tmp_path / "s"), *args)
    assert result.exit_code in (1, 2)
    assert result.stderr == f"ERROR: {text}\n"


def test_a_daemon_that_stops_after_its_greeting(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("receptor.cli._root.CONNECT_TIMEOUT_S", 0.2)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()

        def greet() -> None:
            with listener.accept()[0] as sock:
                sock.sendall(b"Receptor Control, node gamma\n")
                while sock.recv(1024):
                    pass

        with ThreadPoolExecutor() as other:
            other.submit(greet)
            result = invoke("--socket", str(tmp_path / "s"), "status")
    assert (result.exit_code, result.stderr) == (1, "ERROR: no answer from the daemon within 0.2 s\n")


def test_help_names_the_environment(invoke: Invoke) -> None:
    shown = " ".join(invoke("--help").stdout.split())
    for variable in ("RECEPTORCTL_SOCKET", "RECEPTORCTL_CONFIG", "RECEPTORCTL_TLSCLIENT"):
        assert f"[env var: {variable}]" in shown


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_full_disk_is_told_in_words(fake_socket: str) -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "receptorctl", "--socket", fake_socket, "version"]
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (result.returncode, result.stderr.splitlines()[-1]) == (1, "ERROR: No space left on device")


def test_connect_needs_a_terminal(invoke: Invoke, fake_socket: str) -> None:
    result = invoke("--socket", fake_socket, "connect", "beta", "echo")
    assert result.exit_code == 1
    assert "ERROR: connect needs a terminal on standard input\n" in result.stderr


@contextlib.contextmanager
def connected(*args: str) -> Iterator[tuple[subprocess.Popen[bytes], int, int]]:
    """Run ``connect`` in a terminal; yields the process and both ends of the terminal."""
    master, slave = pty.openpty()
    try:
        with running(*args, stdin=slave, stdout=slave) as process:
            yield process, master, slave
    finally:
        os.close(master)
        os.close(slave)


def read_until(fd: int, text: bytes) -> bytes:
    seen = b""
    while text not in seen:
        assert select.select([fd], [], [], 60)[0], f"waited in vain for {text!r} after {seen!r}"
        seen += os.read(fd, 4096)
    return seen


def test_connect(fake_socket: str) -> None:
    with connected("--socket", fake_socket, "connect", "beta", "echo") as (process, master, _):
        os.write(master, b"hello\n")
        read_until(master, b"HELLO")
        os.write(master, b"\x04")
        assert process.wait(60) == 0


@pytest.mark.parametrize("ending", ["service", "killed"])
def test_raw_connect_restores_the_terminal(fake_socket: str, ending: str) -> None:
    with connected("--socket", fake_socket, "connect", "--raw", "beta", "echo") as (process, master, slave):
        before = termios.tcgetattr(slave)
        os.write(master, b"hello\n")
        read_until(master, b"HELLO")
        assert termios.tcgetattr(slave)[3] & (termios.ECHO | termios.ISIG) == 0
        if ending == "service":
            os.write(master, b"quit\n")
            assert process.wait(60) == 0
        else:
            process.terminate()
            assert process.wait(60) == 128 + signal.SIGTERM
        assert termios.tcgetattr(slave) == before


def test_an_error_on_a_terminal_has_colour_and_a_hint(tmp_path: Path) -> None:
    master, slave = pty.openpty()
    with running("--socket", str(tmp_path / "none"), "status", stderr=slave) as process:
        process.wait(60)
        shown = read_until(master, b"hint: is the daemon running?")
    assert b"\x1b[31mERROR: Socket path does not exist" in shown
    os.environ["NO_COLOR"] = "1"
    try:
        with running("--socket", str(tmp_path / "none"), "status", stderr=slave) as process:
            process.wait(60)
            shown = read_until(master, b"hint: is the daemon running?")
    finally:
        del os.environ["NO_COLOR"]
        os.close(master)
        os.close(slave)
    assert b"\x1b" not in shown


def test_work_list_shows_the_queue() -> None:
    from receptor.cli import _units

    units: dict[str, dict[str, object]] = {
        f"U{place}": {"State": 0, "Detail": "Queued", "QueuePosition": place, "WorkType": "x"} for place in (1, 2)
    }
    header, *rows = _units.table(units, "alpha")
    assert [row[header.index("Detail") :] for row in rows] == ["Queued, place 1", "Queued, place 2"]


def test_work_list_shows_what_keeps_a_unit_from_its_node() -> None:
    from receptor.cli import _units

    unit = {"State": 0, "Detail": "Starting Worker", "Trouble": "no route to node", "WorkType": "x"}
    header, row = _units.table({"U": unit}, "alpha")
    assert row[header.index("Detail") :] == "Starting Worker, no connection to its node: no route to node"
