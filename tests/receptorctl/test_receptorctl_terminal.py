"""The command on a terminal, driven as a person does: keys typed, and the screen read."""

from __future__ import annotations

import asyncio
import doctest
import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest
from fake_daemon import FakeDaemon
from real_daemon import Mesh, run_mesh
from receptorctl_support import Certificates, await_rest
from shells import SHELLS, check_completions

import receptor
import receptor.aio
from receptor.cli import _exec

COMMAND = [sys.executable, "-m", "receptorctl"]
TIMEOUT_S = 60


@pytest.fixture(scope="module")
def mesh(daemon: Path, certificates: Certificates, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with run_mesh(daemon, tmp_path_factory.mktemp("mesh"), certificates) as running:
        yield running


def spawn(*args: str, **environ: str) -> pexpect.spawn[str]:
    """Start the command on a terminal of 24 lines of 100 columns."""
    env = {**os.environ, "TERM": "xterm", **environ}
    return pexpect.spawn(
        COMMAND[0], [*COMMAND[1:], *args], env=env, encoding="utf-8", timeout=TIMEOUT_S, dimensions=(24, 100)
    )


def ended(child: pexpect.spawn[str]) -> tuple[str, int]:
    """Wait for the end; return what was shown last, and the exit status."""
    if not child.flag_eof:
        child.expect(pexpect.EOF)
    child.close()
    return str(child.before), int(child.exitstatus if child.exitstatus is not None else -(child.signalstatus or 0))


def interrupted(child: pexpect.spawn[str]) -> tuple[str, int]:
    """Press Ctrl-C, and again if it was missed, until the end; return what ``ended`` does."""
    assert child.pid is not None
    await_rest(child.pid)
    for _ in range(12):
        child.sendintr()
        if child.expect([pexpect.EOF, pexpect.TIMEOUT], timeout=5) == 0:
            break
    return ended(child)


def test_top(mesh: Mesh) -> None:
    child = spawn("--socket", mesh.gamma.socket, "top", "--interval", "60")
    child.expect(r"\x1b\[\?1049h")  # a screen of its own
    child.expect("gamma")
    child.expect("links 1  nodes 2  routes 1  units: none")
    with receptor.connect(mesh.gamma.socket) as client:
        unit = client.work.submit(None, "sh", params={"params": "'exec sleep 600'"})
        child.expect(rf"{unit.id} +Running +sh")  # at once, not after the interval
        child.expect("Events")
        unit.release()
    child.expect(f"unit released: {unit.id}")
    shown, status = interrupted(child)
    assert status == 130
    assert "\x1b[?1049l" in shown
    assert "Traceback" not in shown


def test_work_list_watch(mesh: Mesh) -> None:
    child = spawn("--socket", mesh.gamma.socket, "work", "list", "--watch", "--state", "running")
    child.expect("Unit State Type Node Size Age Detail")
    with receptor.connect(mesh.gamma.socket) as client:
        unit = client.work.submit(None, "sh", params={"params": "'exec sleep 600'"})
        child.expect(rf"{unit.id} +Running")
        unit.cancel()
        child.expect(r"Unit State Type Node Size Age Detail\x1b\[K\r\n\x1b\[J")
        unit.release()
    assert interrupted(child)[1] == 130


def test_watching_another_project_asks_again(fake: FakeDaemon, fake_socket: str) -> None:
    child = spawn("--socket", fake_socket, "work", "list", "--watch", "--quiet")
    child.expect(r"\x1b\[J")
    with receptor.connect(fake_socket) as client:
        unit = client.work.submit(None, "cat", b"x")
    child.expect(unit.id)
    assert interrupted(child)[1] == 130


def test_events_until_ctrl_c(mesh: Mesh) -> None:
    child = spawn("--socket", mesh.gamma.socket, "events", "unit")
    child.expect("live: that was what gamma has now")
    with receptor.connect(mesh.gamma.socket) as client, client.work.submit(None, "cat", b"x") as unit:
        unit.wait()
        child.expect(f"unit changed: {unit.id} Succeeded: exit status 0")
    child.expect(f"unit released: {unit.id}")
    assert interrupted(child)[1] == 130


def test_a_node_in_the_place_of_the_work_type(mesh: Mesh) -> None:
    child = spawn("--socket", mesh.gamma.socket, "work", "submit", "beta", "cat", "-n")
    child.expect("unknown work type beta")
    child.expect("hint: beta is a node; to run something there: receptorctl work submit --node beta WORKTYPE")
    assert ended(child)[1] == 101


def test_ctrl_c_says_how_to_go_on(mesh: Mesh) -> None:
    program = "params='echo 12345; exec sleep 600'"
    child = spawn("--socket", mesh.gamma.socket, "work", "submit", "sh", "-n", "-f", "-a", program)
    child.expect("12345")
    shown, status = interrupted(child)
    found = re.search(r"hint: or the rest of it with: receptorctl work results --offset 6 (\w{8})", shown)
    assert found is not None, shown
    assert status == 130
    with receptor.connect(mesh.gamma.socket) as client:
        assert client.work.unit(found[1]).cancel()
        assert b"".join(client.work.unit(found[1]).stdout(offset=6)) == b""
        client.work.unit(found[1]).release()


def test_a_bar_while_a_payload_is_sent(fake: FakeDaemon, fake_socket: str, tmp_path: Path) -> None:
    fifo = tmp_path / "payload"
    os.mkfifo(fifo)
    child = spawn("--socket", fake_socket, "work", "submit", "cat", "--payload", str(fifo))
    with open(fifo, "wb", buffering=0) as payload:
        while child.expect(["payload .*KiB", pexpect.TIMEOUT], timeout=0.1):
            payload.write(b"x" * 4096)
    shown, status = ended(child)
    assert (status, "Unit ID: " in shown) == (0, True)


def test_a_bar_while_results_go_into_a_file(fake: FakeDaemon, fake_socket: str, tmp_path: Path) -> None:
    with receptor.connect(fake_socket) as client:
        program = "'while ! [ -e stop ]; do head -c 4096 /dev/zero; done'".replace("stop", str(tmp_path / "stop"))
        unit = client.work.submit(None, "sh", params={"params": program})
        line = " ".join([*COMMAND, "--socket", fake_socket, "work", "results", unit.id])
        shell = pexpect.spawn("/bin/sh", ["-c", f"{line} > {tmp_path}/out"], encoding="utf-8", timeout=TIMEOUT_S)
        shell.expect(f"results of {unit.id}.*[KM]iB")
        (tmp_path / "stop").touch()
        assert ended(shell)[1] == 0
        assert (tmp_path / "out").stat().st_size == unit.status().stdout_size


def test_no_bar_and_no_colour_without_a_terminal(fake: FakeDaemon, fake_socket: str, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"x" * 100_000)
    command = [*COMMAND, "--socket", fake_socket, "work", "submit", "cat", "-p", str(tmp_path / "in"), "-f"]
    done = subprocess.run(command, capture_output=True, check=True)
    assert done.stdout == b"x" * 100_000
    assert b"\x1b" not in done.stderr
    child = spawn("--socket", fake_socket, "status", NO_COLOR="1")
    assert "\x1b" not in ended(child)[0]


def test_connect_is_a_terminal_to_a_control_service(mesh: Mesh) -> None:
    child = spawn("--socket", mesh.gamma.socket, "connect", "beta", "control")
    child.expect("Receptor Control, node beta")
    child.sendline("ping gamma")
    child.expect('"From":"gamma"')
    child.sendeof()
    assert ended(child)[1] == 0


@pytest.mark.parametrize("node", ["gamma", "beta"])
def test_exec_is_a_terminal_on_a_node(mesh: Mesh, node: str) -> None:
    child = spawn("--socket", mesh.gamma.socket, "work", "exec", node, "--", "sh")
    child.expect(r"[$#] ")
    child.sendline("stty size; echo on-$((40 + 2))")
    child.expect("24 100")
    child.expect("on-42")
    child.setwinsize(30, 90)
    child.sendline("while [ \"$(stty size)\" != '30 90' ]; do :; done; echo re''sized")
    child.expect("resized")
    child.sendline("cat")
    child.sendline("here")
    child.expect("here\r\nhere")  # typed, and copied: it runs
    child.sendintr()  # ends it there, not us here
    child.expect(r"[$#] ")
    child.sendline("exit 7")
    assert ended(child)[1] == 7


def test_exec_in_pipes(mesh: Mesh) -> None:
    def run(*command: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        args = [*COMMAND, "--socket", mesh.gamma.socket, "work", "exec", "beta", *command]
        return subprocess.run(args, input=stdin, capture_output=True, timeout=TIMEOUT_S, check=False)

    done = run("--", "sort", "-n", stdin=b"30\n4\n")
    assert (done.returncode, done.stdout) == (0, b"4\n30\n")
    done = run("--", "sh", "-c", "echo out; echo err >&2; exit 3")
    assert (done.returncode, done.stdout) == (3, b"out\n")
    assert done.stderr.endswith(b"err\n")
    assert run("--", "sh", "-c", "kill -TERM $$").returncode == 128 + 15
    big = os.urandom(300_000)
    assert run("--", "cat", stdin=big).stdout == big
    done = run("--worktype", "cat")
    assert (done.returncode, b"does not allow exec" in done.stderr) == (1, True)


def test_exec_passes_signals_on(mesh: Mesh) -> None:
    program = "trap 'echo caught; exit 5' USR1; echo ready; while :; do sleep 0.05; done"
    command = [*COMMAND, "--socket", mesh.gamma.socket, "work", "exec", "beta", "--", "sh", "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGUSR1)
        assert process.stdout.readline() == b"caught\n"
        assert process.wait(TIMEOUT_S) == 5


def test_exec_input_that_is_not_taken(mesh: Mesh) -> None:
    """More input than fits on the way holds up neither output, nor the end, nor a signal."""
    command = [*COMMAND, "--socket", mesh.gamma.socket, "work", "exec", "beta", "--"]
    with Path("/dev/zero").open("rb") as endless:
        done = subprocess.run(
            [*command, "sh", "-c", "echo out; exit 3"],
            stdin=endless,
            capture_output=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        assert (done.returncode, done.stdout) == (3, b"out\n")
        done = subprocess.run(
            [*command, "head", "-c", "50000000"], stdin=endless, capture_output=True, timeout=TIMEOUT_S, check=False
        )
        assert (done.returncode, len(done.stdout)) == (0, 50_000_000)
        program = "trap 'echo caught; exit 5' INT; echo ready; while :; do sleep 0.05; done"
        with subprocess.Popen([*command, "sh", "-c", program], stdin=endless, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            process.send_signal(signal.SIGINT)
            assert process.stdout.readline() == b"caught\n"
            assert process.wait(TIMEOUT_S) == 5


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_exec_can_be_left_when_the_daemon_has_stopped(mesh: Mesh, number: signal.Signals) -> None:
    """A signal goes to the command, which hears of none; who insists gets away."""
    command = [*COMMAND, "--socket", mesh.gamma.socket, "work", "exec", "beta", "--", "sh", "-c"]
    with (
        Path("/dev/zero").open("rb") as endless,
        subprocess.Popen([*command, "echo $$; exec sleep 600"], stdin=endless, stdout=subprocess.PIPE) as process,
    ):
        assert process.stdout is not None
        with os.fdopen(os.pidfd_open(int(process.stdout.readline())), "rb") as command_end:
            mesh.gamma.process.send_signal(signal.SIGSTOP)
            try:
                for _ in range(3):
                    await_rest(process.pid)
                    process.send_signal(number)
                assert process.wait(TIMEOUT_S) == 128 + number
            finally:
                mesh.gamma.process.send_signal(signal.SIGCONT)
            assert select.select([command_end], [], [], TIMEOUT_S)[0], "the command goes on"


def test_exec_escape_hangs_up(mesh: Mesh) -> None:
    assert doctest.testmod(_exec).failed == 0
    program = "stty -echo; echo pid-$$; read line; echo got-$line; exec sleep 600"
    child = spawn("--socket", mesh.gamma.socket, "work", "exec", "beta", "--", "sh", "-c", program)
    child.expect(r"pid-(\d+)\r\n")
    assert isinstance(child.match, re.Match)
    with os.fdopen(os.pidfd_open(int(child.match[1])), "rb") as command_end:
        child.send("~~x\r")
        child.expect("got-~x")
        child.send("~.")
        assert ended(child)[1] == 128 + signal.SIGHUP
        assert select.select([command_end], [], [], TIMEOUT_S)[0], "the command goes on"


def test_exec_of_both_clients(mesh: Mesh) -> None:
    with receptor.connect(mesh.gamma.socket) as client, client.work.exec("beta", "sort -n") as command:
        command.send(b"3\n1\n")
        command.end_input()
        assert b"".join(part.data for part in command.output()) == b"1\n3\n"
        assert command.status.state is receptor.WorkState.SUCCEEDED

    async def main() -> None:
        async with receptor.aio.connect(mesh.gamma.socket) as client:
            async with client.work.exec("gamma", "sh -c 'echo out; echo err >&2; exit 2'") as command:
                parts = {part.stream: part.data async for part in command.output(timeout_s=TIMEOUT_S)}
            assert parts == {"stdout": b"out\n", "stderr": b"err\n"}
            assert command.status.detail == "exit status 2"

    asyncio.run(main())


# What is typed, and what stands there after the tab key.
COMPLETIONS = (
    ("receptorctl topo", "receptorctl topology"),
    ("receptorctl ping be", "receptorctl ping beta"),
    ("receptorctl work submit upp", "receptorctl work submit upper"),
    ("receptorctl work list --wat", "receptorctl work list --watch"),
    ("receptorctl connect beta contr", "receptorctl connect beta control"),
    ("receptorctl work logs ", "receptorctl work logs UNIT"),
)


@pytest.fixture
def shell_environment(mesh: Mesh, tmp_path: Path) -> dict[str, str]:
    """An environment in which ``receptorctl`` is a command that talks to gamma."""
    (tmp_path / "receptorctl").write_text(f'#!/bin/sh\nexec {" ".join(COMMAND)} "$@"\n')
    (tmp_path / "receptorctl").chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    home = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path), "ZDOTDIR": str(tmp_path)}
    return {**os.environ, **home, "PATH": path, "RECEPTORCTL_SOCKET": mesh.gamma.socket, "PS1": "$ ", "TERM": "xterm"}


@pytest.fixture
def completions(mesh: Mesh) -> Iterator[list[tuple[str, str]]]:
    """What is typed and completed while gamma has one unit."""
    with receptor.connect(mesh.gamma.socket) as client, client.work.submit(None, "cat") as unit:
        unit.wait(timeout_s=TIMEOUT_S)
        yield [(typed, completed.replace("UNIT", unit.id)) for typed, completed in COMPLETIONS]


@pytest.mark.parametrize("shell", SHELLS)
def test_shells_complete(
    shell: str, completions: list[tuple[str, str]], shell_environment: dict[str, str], tmp_path: Path
) -> None:
    check_completions(shell, [*COMMAND, "completion", shell], completions, shell_environment, tmp_path)


@pytest.mark.parametrize(("shell", "word"), [("bash", "complete "), ("zsh", "compdef"), ("fish", "complete ")])
def test_completion_scripts(shell: str, word: str) -> None:
    script = subprocess.run([*COMMAND, "completion", shell], capture_output=True, text=True, check=True).stdout
    assert word in script
    assert "receptorctl" in script
