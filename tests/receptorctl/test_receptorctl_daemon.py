"""The command and the libraries against the real daemon, two nodes of it."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from golden import read_sessions
from real_daemon import Mesh, run_mesh, run_node
from receptorctl_support import HERE, Certificates, Invoke, interrupt, write_files
from test_receptorctl_golden import replay, substitute
from test_receptorctl_library import STATUS_KEYS

import receptor.errors
from receptor import control
from receptor.types import WorkState
from receptorctl.socket_interface import ReceptorControl


@pytest.fixture(scope="module")
def mesh(daemon: Path, certificates: Certificates, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with run_mesh(daemon, tmp_path_factory.mktemp("mesh"), certificates) as running:
        yield running


def test_golden_sessions_against_the_daemon(
    mesh: Mesh, certificates: Certificates, invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_files(tmp_path, certificates)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("receptor.cli._root.own_version", lambda: "1.4.9")  # In the sessions it is not the daemon's.
    places = {
        "SOCKDIR/gamma.sock": mesh.gamma.socket,
        "27011": str(mesh.tcp),
        "27012": str(mesh.tls_client_cert),
        "27013": str(mesh.tls),
        "TLSDIR": str(certificates.directory),
        "CFGDIR": str(tmp_path),
    }
    with control.connect(mesh.beta.socket) as beta:
        unit = beta.work.submit(None, "cat")
        # What these show of the mesh is that of the nodes they were taken from.
        other = {"status", "status --json", "traceroute beta", "reload"}
        sessions = [s for s in read_sessions(HERE / "data" / "10-receptorctl.txt") if " ".join(s.args[2:]) not in other]
        if not mesh.tls:
            sessions = [s for s in sessions if "tls://" not in s.line]
        replay(sessions, invoke, lambda text: substitute(text, places), monkeypatch)
        unit.release()


def test_reload(mesh: Mesh, invoke: Invoke) -> None:
    result = invoke("--socket", mesh.gamma.socket, "reload", "--dry-run")
    assert (result.exit_code, result.stdout) == (0, "Nothing would change\n")
    result = invoke("--socket", mesh.gamma.socket, "reload")
    assert (result.exit_code, result.stdout) == (0, "Reload successful\n")
    result = invoke("--socket", mesh.gamma.socket, "reload", "--json")
    assert json.loads(result.stdout) == {"success": True, "error": None, "code": 0, "changes": []}


OFFERED = {"cat", "upper", "sh", "shraw", "exec"}


def work_types(lines: list[str]) -> dict[str, set[str]]:
    """Return what the table of work types says; the order of the types is the daemon's business."""
    rows = lines[lines.index("Node         Work Types") + 1 :]
    return {node: set(types.strip().split(", ")) for node, _, types in (row.partition(" ") for row in rows)}


def wait_for_advertisement(mesh: Mesh, node: str) -> None:
    """Return once gamma knows a service of ``node``. Nothing pushes this to a client, so it asks again and again."""
    end = time.monotonic() + 60
    with control.connect(mesh.gamma.socket) as client:
        while not any(ad.node == node for ad in client.status().advertisements):
            assert time.monotonic() < end, f"gamma never learnt of the services of {node}"


def test_status(mesh: Mesh, invoke: Invoke) -> None:
    wait_for_advertisement(mesh, "beta")
    result = invoke("--socket", mesh.gamma.socket, "status")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0] == "Node ID: gamma"
    assert "Connection   Cost" in lines
    assert "beta         1" in lines
    assert "Route        Via" in lines
    assert "beta         beta" in lines
    assert work_types(lines) == {"gamma": OFFERED, "beta": OFFERED}
    reply = json.loads(invoke("--socket", mesh.gamma.socket, "status", "--json").stdout)
    assert set(reply) - {"Certificates"} == STATUS_KEYS
    if mesh.tls:
        assert lines[lines.index("Certificate  Use       Good Until            Node IDs") + 1].startswith("plain  ")
        assert [(of["Name"], of["Server"]) for of in reply["Certificates"]] == [("plain", True), ("asking", True)]


def test_typed_client(mesh: Mesh) -> None:
    with control.connect(mesh.gamma.socket) as client:
        status = client.status()
        assert (status.node, status.routing_table) == ("gamma", {"beta": "beta"})
        assert client.ping("beta").from_node == "beta"
        assert [hop.from_node for hop in client.traceroute("beta")] == ["gamma", "beta"]
        with pytest.raises(receptor.errors.Unreachable):
            client.ping("nosuch")
        with client.at("beta") as beta:
            assert beta.status().node == "beta"
    with control.connect(mesh.gamma.socket) as client, pytest.raises(receptor.errors.UnitNotFound):
        client.work.get("nosuch")


@pytest.mark.parametrize("node", ["gamma", "beta"])
def test_work_round_trip(mesh: Mesh, node: str) -> None:
    payload = os.urandom(3_000_000)
    control = ReceptorControl(mesh.gamma.socket)
    started = control.submit_work("cat", io.BytesIO(payload), node=node)
    unit = started["unitid"]
    assert started["result"] == "Job Started"
    sock, file = control.get_work_results(unit, return_socket=True)
    with sock, file:
        assert file.read() == payload
    status = control.simple_command(f"work status {unit}")
    assert (status["StateName"], status["Detail"]) == ("Succeeded", "exit status 0")
    assert control.simple_command(f"work release {unit}") == {"released": unit}
    with pytest.raises(RuntimeError, match=f"(?m)^unknown work unit {unit}$"):
        control.simple_command(f"work status {unit}")
    control.close()


def test_cancelled_remote_work(mesh: Mesh) -> None:
    with control.connect(mesh.gamma.socket) as client:
        job = client.work.submit("beta", "sh", params={"params": "'echo ready; exec sleep 600'"})
        output = job.stdout()
        assert next(output) == b"ready\n"
        job.cancel()
        assert list(output) == []
        status = job.status()
        assert (status.state, status.detail) == (WorkState.CANCELED, "Canceled")
        job.release()


def test_a_broken_upload_fails_the_unit(mesh: Mesh) -> None:
    def blocks() -> Iterator[bytes]:
        yield b"half"
        raise OSError("the disk is gone")

    for address in (mesh.gamma.socket, f"tcp://127.0.0.1:{mesh.tcp}"):
        seen: list[str] = []
        with control.connect(address) as client:
            with pytest.raises(OSError, match="the disk is gone"):
                client.work.submit(None, "cat", blocks(), on_created=seen.append)
            unit = client.work.unit(*seen)
            unit.wait(check=False)
            status = unit.status()
            assert status.state is WorkState.FAILED, status.detail
            assert status.detail.startswith("Error reading input data")
            unit.release()


def test_an_interrupted_follower_can_come_back(mesh: Mesh) -> None:
    program = "params='echo ready; read line < fifo; echo done'"
    command = [sys.executable, "-m", "receptorctl", "--socket", mesh.gamma.socket, "work"]
    fifo = Path(mesh.gamma.socket).with_name("fifo")  # in the daemon's directory, which work commands run in
    os.mkfifo(fifo)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([*command, "submit", "sh", "-n", "-f", "-a", program], **pipes) as follower:  # type: ignore[call-overload]
        assert follower.stdout.readline() == b"ready\n"
        interrupt(follower)
        _, stderr = follower.communicate()
    assert follower.returncode == 130
    unit = stderr.decode().rstrip().rsplit(" ", 1)[1]
    fifo.write_text("go\n")
    result = subprocess.run([*command, "results", unit], capture_output=True, check=True)
    assert result.stdout == b"ready\ndone\n"


def test_the_socket_of_a_stopped_daemon_is_explained(daemon: Path, tmp_path: Path, invoke: Invoke) -> None:
    with run_node(daemon, "alone", tmp_path, {"local-only": {}}) as node:
        assert invoke("--socket", node.socket, "ping", "alone", "--count", "1").exit_code == 0
        with pytest.raises(RuntimeError, match="Unknown command"), ReceptorControl(node.socket) as client:
            client.simple_command("doesnotexist")
        node.process.kill()
        node.process.wait()
    result = invoke("--socket", node.socket, "status")
    assert result.exit_code == 1
    assert "no daemon listens on it" in result.stderr or "Socket path does not exist" in result.stderr
