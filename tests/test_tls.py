"""Certificates, TLS profiles and mutual TLS between daemons, as an operator sets them up."""

from __future__ import annotations

import json
import socket
import ssl
import stat
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from daemons import free_port

REPO = Path(__file__).resolve().parents[1]
PATIENCE_S = 60.0  # After this a wait counts as a hang.


def run(receptor: Path, *arguments: str, answer: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [receptor, *arguments], input=answer, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )


@dataclass(frozen=True)
class Papers:
    """A folder with a certificate authority and the certificates it has signed."""

    receptor: Path
    folder: Path

    def issue(self, node: str) -> None:
        made = run(
            self.receptor, "--cert-makereq", f"commonname={node}", "bits=2048", f"nodeid={node}", "dnsname=localhost",
            "ipaddress=127.0.0.1", f"outreq={self.folder}/{node}.csr", f"outkey={self.folder}/{node}.key",
        )  # fmt: skip
        assert (made.returncode, made.stdout, made.stderr) == (0, "", "")
        signed = run(self.receptor, *self.signing(node), answer="yes\n")
        assert (signed.returncode, signed.stderr) == (0, "")
        assert signed.stdout == (
            "Requested certificate:\n"
            f"  Subject: CN={node}\n"
            "  Encryption Algorithm: RSA (2048 bits)\n"
            "  Signature Algorithm: SHA256-RSA\n"
            "  Names:\n"
            "    DNS Name: localhost\n"
            "    IP Address: 127.0.0.1\n"
            f"    Receptor Node ID: {node}\n"
            "Sign certificate (yes/no)? "
        )

    def signing(self, node: str) -> list[str]:
        f = self.folder
        return [
            "--cert-signreq",
            f"req={f}/{node}.csr",
            f"cacert={f}/ca.crt",
            f"cakey={f}/ca.key",
            f"outcert={f}/{node}.crt",
        ]

    def pair(self, node: str) -> list[str]:
        return [f"cert={self.folder}/{node}.crt", f"key={self.folder}/{node}.key"]

    def profiles(self, node: str) -> list[str]:
        """For mutual TLS: a tls-server ``srv`` and a tls-client ``cli``. ``anon`` is one without a certificate."""
        ca = f"{self.folder}/ca.crt"
        server = ["--tls-server", "name=srv", *self.pair(node), "requireclientcert=true", f"clientcas={ca}"]
        client = ["--tls-client", "name=cli", *self.pair(node), f"rootcas={ca}"]
        return [*server, *client, "--tls-client", "name=anon", "cert=", "key=", f"rootcas={ca}"]


@pytest.fixture(scope="module")
def papers(receptor: Path, tmp_path_factory: pytest.TempPathFactory) -> Papers:
    folder = tmp_path_factory.mktemp("certs")
    made = run(
        receptor,
        "--cert-init",
        "commonname=test ca",
        "bits=2048",
        f"outcert={folder}/ca.crt",
        f"outkey={folder}/ca.key",
    )
    assert (made.returncode, made.stdout, made.stderr) == (0, "", "")
    papers = Papers(receptor, folder)
    papers.issue("alpha")
    papers.issue("beta")
    return papers


class Mesh:
    """Running daemons, each with a log and a control socket in a folder."""

    def __init__(self, receptor: Path, folder: Path) -> None:
        self.receptor, self.folder = receptor, folder
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, node: str, *directives: str) -> None:
        log = self.folder / f"{node}.log"
        command = [
            str(self.receptor), "--node", f"id={node}", f"datadir={self.folder}/data",
            "--control-service", "tls=srv", f"filename={self.folder}/{node}.sock", *directives,
        ]  # fmt: skip
        with log.open("wb") as output:
            self.processes.append(subprocess.Popen(command, stdout=output, stderr=output))
        self.wait_log(node, "Initialization complete")

    def wait_log(self, node: str, text: str) -> None:
        log = self.folder / f"{node}.log"
        until = time.monotonic() + PATIENCE_S
        while text not in log.read_text():
            assert time.monotonic() < until, f"no {text!r} in the log of {node}:\n{log.read_text()}"
            time.sleep(0.01)  # There is no event to wait for in another process's file.

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait(PATIENCE_S)


@pytest.fixture
def mesh(receptor: Path, tmp_path: Path) -> Iterator[Mesh]:
    mesh = Mesh(receptor, tmp_path)
    yield mesh
    mesh.close()


class Control:
    """A control session."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.file = connection.makefile("rwb")
        self.greeting = self.line()

    def line(self) -> str:
        return self.file.readline().decode().rstrip("\n")

    def ask(self, command: str) -> str:
        self.file.write(command.encode() + b"\n")
        self.file.flush()
        return self.line()

    def __enter__(self) -> Control:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        self.connection.close()


def control(mesh: Mesh, node: str) -> Control:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(PATIENCE_S)
    connection.connect(f"{mesh.folder}/{node}.sock")
    return Control(connection)


def submit(mesh: Mesh, payload: bytes, **request: str) -> str:
    """Give ``beta`` work for ``alpha`` and return the unit's ID."""
    with control(mesh, "beta") as session:
        first = session.ask(
            json.dumps({"command": "work", "subcommand": "submit", "node": "alpha", "worktype": "upper", **request})
        )
        assert first.startswith("Work unit created with ID "), first
        session.file.write(payload)
        session.file.flush()
        session.connection.shutdown(socket.SHUT_WR)
        reply = json.loads(session.line())
    unit: str = reply["unitid"]
    return unit


def results(mesh: Mesh, unit: str) -> bytes:
    with control(mesh, "beta") as session:
        assert session.ask(f"work results {unit}").startswith("Streaming results")
        return session.file.read()


def wait_status(mesh: Mesh, unit: str, state: str) -> dict[str, Any]:
    until = time.monotonic() + PATIENCE_S
    while True:
        with control(mesh, "beta") as session:
            status: dict[str, Any] = json.loads(session.ask(f"work status {unit}"))
        if status["StateName"] == state:
            return status
        assert time.monotonic() < until, f"the unit is not {state}: {status}"
        time.sleep(0.02)  # The command answers with what is; it does not wait.


@pytest.fixture
def pair(mesh: Mesh, papers: Papers) -> Mesh:
    """``alpha``, which runs work, and ``beta``, linked to it."""
    port = free_port()
    work = ["--work-command", "worktype=upper", "command=tr", "params=a-z A-Z"]
    mesh.start("alpha", "--tcp-listener", "bindaddr=127.0.0.1", f"port={port}", *work, *papers.profiles("alpha"))
    mesh.start("beta", "--tcp-peer", f"127.0.0.1:{port}", *papers.profiles("beta"))
    mesh.wait_log("beta", "Connection established with alpha")
    return mesh


def test_f109_f110_remote_work_under_mutual_tls(pair: Mesh) -> None:
    with control(pair, "beta") as session:
        until = time.monotonic() + PATIENCE_S
        while (reply := session.ask("connect alpha control cli")) != "Connecting":  # The route takes a moment.
            assert reply == "ERROR: INTERNAL_ERROR (local): no route to node", reply
            assert time.monotonic() < until, reply
        assert session.line() == "Receptor Control, node alpha"
    unit = submit(pair, b"under tls\n", tlsclient="cli", secret_word="kept")
    assert results(pair, unit) == b"UNDER TLS\n"
    status = wait_status(pair, unit, "Succeeded")
    assert status["ExtraData"]["TLSClient"] == "cli"


def test_f111_remote_work_without_tls_is_refused(pair: Mesh) -> None:
    unit = submit(pair, b"x")
    detail = wait_status(pair, unit, "Failed")["Detail"]
    assert detail.startswith(
        "TLS error connecting to remote service: CRYPTO_ERROR 0x12a (local): insecure connection"
    ), detail


def test_f098_remote_work_without_a_certificate_is_refused(pair: Mesh) -> None:
    unit = submit(pair, b"x", tlsclient="anon")
    detail = wait_status(pair, unit, "Failed")["Detail"]
    assert detail.startswith("TLS error connecting to remote service: CRYPTO_ERROR 0x174 (remote)"), detail


def test_f114_unknown_profile(pair: Mesh) -> None:
    with control(pair, "beta") as session:
        assert session.ask("connect alpha control nosuch") == "ERROR: unknown TLS config nosuch"
        reply = session.ask(
            '{"command":"work","subcommand":"submit","node":"alpha","worktype":"upper","tlsclient":"nosuch"}'
        )
        assert reply == "ERROR: unknown TLS config nosuch"


def expiries(mesh: Mesh, node: str) -> dict[str, str]:
    """When the certificates of a daemon end, by profile, as its status has them."""
    with control(mesh, node) as session:
        return {c["Name"]: c["Expiry"] for c in json.loads(session.ask("status"))["Certificates"]}


def test_certificates_renewed_under_a_running_daemon(pair: Mesh, papers: Papers) -> None:
    before = expiries(pair, "alpha")
    renewed = run(papers.receptor, *papers.signing("alpha"), "verify=true", "notafter=2090-01-02T03:04:05Z")
    assert (renewed.returncode, renewed.stdout) == (0, "")
    unit = submit(pair, b"again\n", tlsclient="cli")
    assert results(pair, unit) == b"AGAIN\n"
    pair.wait_log("alpha", "TLS files read again")
    assert "2090-01-02T03:04:05Z" not in before.values()
    assert expiries(pair, "alpha") == dict.fromkeys(("srv", "cli"), "2090-01-02T03:04:05Z")
    for node in ("alpha", "beta"):
        log = (pair.folder / f"{node}.log").read_text()
        assert log.count("Connection established") == 1, f"the link did not live on:\n{log}"


def test_f134_control_under_tls_with_half_close(mesh: Mesh, papers: Papers) -> None:
    port = free_port()
    tcp = ["--control-service", "service=c2", f"tcplisten=127.0.0.1:{port}", "tcptls=srv"]
    mesh.start("alpha", "--local-only", *tcp, *papers.profiles("alpha"))
    context = ssl.create_default_context(cafile=f"{papers.folder}/ca.crt")
    context.load_cert_chain(f"{papers.folder}/beta.crt", f"{papers.folder}/beta.key")
    with (
        socket.create_connection(("127.0.0.1", port), PATIENCE_S) as raw,
        context.wrap_socket(raw, server_hostname="localhost") as tls,
    ):
        tls.sendall(b"status")
        socket.socket.shutdown(tls, socket.SHUT_WR)  # A bare FIN: nothing is said in TLS.
        received = b""
        while chunk := tls.recv(65536):
            received += chunk
    greeting, _, reply = received.partition(b"\n")
    assert greeting == b"Receptor Control, node alpha"
    assert json.loads(reply)["NodeID"] == "alpha"

    anonymous = ssl.create_default_context(cafile=f"{papers.folder}/ca.crt")
    with (
        socket.create_connection(("127.0.0.1", port), PATIENCE_S) as raw,
        pytest.raises((ssl.SSLError, ConnectionError)),
    ):
        with anonymous.wrap_socket(raw, server_hostname="localhost") as tls:
            tls.recv(1)


def test_f106_certificate_of_another_node(receptor: Path, papers: Papers) -> None:
    done = run(receptor, "--node", "gamma", "--local-only", "--tls-server", "name=srv", *papers.pair("alpha"))
    assert done.returncode == 1
    assert done.stderr.startswith(
        "Error: error preparing tls server config: nodeID=gamma not found in certificate name(s); "
        f"names found=[alpha]; cfg section=srv; server cert={papers.folder}/alpha.crt"
    )


def test_f189_declined(receptor: Path, papers: Papers, tmp_path: Path) -> None:
    signing = [*papers.signing("alpha")[:-1], f"outcert={tmp_path}/out.crt"]
    alone = "EOF: there is nobody to answer; verify=true signs without asking"
    for answer, want in {"no\n": "user declined", "\n": "unexpected newline", "": alone}.items():
        done = run(receptor, *signing, answer=answer)
        assert (done.returncode, done.stderr) == (1, f"Error: {want}\n")
    assert not list(tmp_path.iterdir())


def test_f185_keys_are_private(receptor: Path, tmp_path: Path) -> None:
    for name in ("ca.crt", "ca.key"):
        (tmp_path / name).write_text("old")
        (tmp_path / name).chmod(0o644)
    done = run(
        receptor, "--cert-init", "commonname=x", "bits=2048", f"outcert={tmp_path}/ca.crt", f"outkey={tmp_path}/ca.key"
    )
    assert done.returncode == 0, done.stderr
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in tmp_path.iterdir()}
    assert modes == {"ca.crt": 0o644, "ca.key": 0o600}
