"""What bridges the mesh to the world outside, on two daemons with a link between them."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from daemons import PATIENCE_S, Daemon, free_port, wait_for

Mesh = Callable[[list[str], list[str]], tuple[Daemon, Daemon]]


@pytest.fixture
def mesh(receptor: Path, tmp_path: Path) -> Iterator[Mesh]:
    """Starts near and far with these directives; far dials near, and near knows the services of far."""
    daemons: list[Daemon] = []

    def start(near: list[str], far: list[str]) -> tuple[Daemon, Daemon]:
        daemons.append(Daemon(receptor, tmp_path, "near", "--tcp-listener", "bindaddr=127.0.0.1", "port=0", *near))
        daemons.append(Daemon(receptor, tmp_path, "far", "--tcp-peer", f"127.0.0.1:{daemons[0].port('TCP')}", *far))
        wait_for("routes both ways", lambda: daemons[0].reaches("far") and daemons[1].reaches("near"))
        return daemons[0], daemons[1]

    yield start
    for daemon in daemons:
        if daemon.process.poll() is None:
            daemon.end()


def unix(path: Path) -> socket.socket:
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(PATIENCE_S)
    s.connect(str(path))
    return s


def everything(s: socket.socket) -> bytes:
    with s, s.makefile("rb") as stream:
        return stream.read()


def tags(daemon: Daemon) -> dict[str, dict[str, str]]:
    return {ad["Service"]: ad["Tags"] for ad in json.loads(daemon.ask("status")[0])["Advertisements"] if ad["Tags"]}


def test_f126_f127_unix_proxies(mesh: Mesh, tmp_path: Path) -> None:
    front, back = tmp_path / "front", tmp_path / "back"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(back))
        server.listen()
        server.settimeout(PATIENCE_S)
        near, _ = mesh(
            ["--unix-socket-server", f"filename={front}", "permissions=0640", "remotenode=far", "remoteservice=svc"],
            ["--unix-socket-client", "service=svc", f"filename={back}"],
        )
        assert stat.S_IMODE(front.stat().st_mode) == 0o640
        client = unix(front)
        client.sendall(b"question")
        client.shutdown(socket.SHUT_WR)
        connection, _ = server.accept()
        connection.settimeout(PATIENCE_S)
        with connection, connection.makefile("rb") as stream:
            assert stream.read() == b"question"
            connection.sendall(b"answer after the end of the question")
        assert everything(client) == b"answer after the end of the question"
        wait_for("advertisement", lambda: "svc" in tags(near))
        assert tags(near)["svc"] == {"type": "Unix Proxy", "filename": str(back)}
    back.unlink()
    assert everything(unix(front)) == b"", "a client whose target is gone is told, not left to wait"


def test_f125_udp_proxies(mesh: Mesh) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(PATIENCE_S)
        port = free_port()
        mesh(
            ["--udp-server", f"port={port}", "bindaddr=127.0.0.1", "remotenode=far", "remoteservice=svc"],
            ["--udp-client", "service=svc", f"address=127.0.0.1:{server.getsockname()[1]}"],
        )
        clients = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(3)]
        for number, client in enumerate(clients):
            client.connect(("127.0.0.1", port))
            client.settimeout(PATIENCE_S)
            client.send(f"client {number}".encode())
        asked = dict(server.recvfrom(100) for _ in clients)
        assert len(set(asked.values())) == len(clients), "each client has a socket of its own"
        for question, address in asked.items():
            server.sendto(b"answer to " + question, address)
        for number, client in enumerate(clients):
            with client:
                assert client.recv(100) == f"answer to client {number}".encode()


def test_f128_command_service(mesh: Mesh, tmp_path: Path) -> None:
    front = tmp_path / "front"
    near, far = mesh(
        ["--unix-socket-server", f"filename={front}", "remotenode=far", "remoteservice=shell"],
        ["--command-service", "service=shell", "command=sh -c 'stty -echo; tty; read -r line; echo got $line'"],
    )
    with unix(front) as client, client.makefile("rb") as output:
        assert output.readline().startswith(b"/dev/pts/")
        client.sendall(b"hello\n")
        assert output.read() == b"got hello\r\n"
    children = Path(f"/proc/{far.process.pid}/task/{far.process.pid}/children")
    wait_for("the end of the command, its zombie included", lambda: children.read_text() == "")
    wait_for("advertisement", lambda: "shell" in tags(near))
    assert tags(near)["shell"] == {"type": "Command Service"}


def test_f132_services_of_the_node_itself(receptor: Path, tmp_path: Path) -> None:
    front = tmp_path / "front"
    daemon = Daemon(
        receptor, tmp_path, "alone", "--local-only", "--command-service", "service=hi", "command=echo hello",
        "--unix-socket-server", f"filename={front}", "remotenode=localhost", "remoteservice=hi",
    )  # fmt: skip
    try:
        assert everything(unix(front)) == b"hello\r\n"
    finally:
        daemon.end()
    assert not front.exists(), "a clean stop removes its sockets"


def test_silent_clients_stop_nobody(mesh: Mesh, tmp_path: Path) -> None:
    """Connections that say nothing, many of them, leave the service as quick as before for others."""
    front = tmp_path / "front"
    mesh(
        ["--unix-socket-server", f"filename={front}", "remotenode=far", "remoteservice=cat"],
        ["--command-service", "service=cat", "command=cat"],
    )
    silent = [unix(front) for _ in range(100)]
    try:
        with unix(front) as busy:
            busy.sendall(b"one line\n")
            assert busy.recv(100).startswith(b"one line")
    finally:
        for s in silent:
            s.close()


def test_a_lost_node_ends_streams_with_an_error(mesh: Mesh) -> None:
    """A TCP client behind a proxy sees a reset, never an end of data, when the far node dies."""
    port = free_port()
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(PATIENCE_S)
        _, far = mesh(
            ["--tcp-server", f"port={port}", "bindaddr=127.0.0.1", "remotenode=far", "remoteservice=svc"],
            ["--tcp-client", "service=svc", f"address=127.0.0.1:{server.getsockname()[1]}"],
        )
        with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as client:
            client.sendall(b"hello")
            connection, _ = server.accept()
            with connection:
                assert connection.recv(5) == b"hello"
                far.end(signal.SIGKILL)
                with pytest.raises(ConnectionResetError):
                    client.recv(1)


@pytest.fixture
def limited(receptor: Path, tmp_path: Path) -> Path:
    """The daemon with 64 descriptors."""
    program = tmp_path / "limited"
    program.write_text(f'#!/bin/sh\nulimit -n 64\nexec {receptor} "$@"\n')
    program.chmod(0o755)
    return program


def tcp(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), PATIENCE_S)


def cpu_seconds(daemon: Daemon) -> float:
    user, system = Path(f"/proc/{daemon.process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


@contextmanager
def exhausted(daemon: Daemon, connect: Callable[[], socket.socket]) -> Iterator[None]:
    """Holds connections of which the daemon says that it has no descriptors left for them, and sees that it rests."""
    with ExitStack() as clients:
        for _ in range(200):
            with suppress(OSError):
                clients.enter_context(connect())
        wait_for("the shortage to be told", lambda: "too many open files" in daemon.log.read_text())
        before = cpu_seconds(daemon)
        with socket.create_server(("127.0.0.1", 0)) as nobody, suppress(TimeoutError):
            nobody.settimeout(1)  # A second in which nothing happens but the shortage.
            nobody.accept()
        used = cpu_seconds(daemon) - before
        assert used < 0.5, f"{used} s of CPU in a second without descriptors"
        assert daemon.log.read_text().count("Error accepting connection") < 20
        yield


@pytest.mark.parametrize("kind", ["tcp-server", "unix-socket-server"])
def test_no_descriptors_left_costs_refusals_only(limited: Path, tmp_path: Path, kind: str) -> None:
    """A proxy out of descriptors rests, goes on when there are some again, and logs the shortage once."""
    front, port = tmp_path / "front", free_port()
    where = [f"filename={front}"] if kind == "unix-socket-server" else [f"port={port}", "bindaddr=127.0.0.1"]

    def connect() -> socket.socket:
        return unix(front) if kind == "unix-socket-server" else tcp(port)

    daemon = Daemon(
        limited, tmp_path, "alone", "--local-only", "--command-service", "service=hi", "command=echo hello",
        f"--{kind}", *where, "remotenode=localhost", "remoteservice=hi",
    )  # fmt: skip
    try:
        with exhausted(daemon, connect):
            pass

        def served() -> bool:
            with suppress(OSError):
                return everything(connect()) == b"hello\r\n"
            return False

        wait_for("service again", served)
    finally:
        daemon.end()


@pytest.mark.parametrize("kind", ["tcp", "ws"])
def test_a_listener_without_descriptors_keeps_its_links(
    receptor: Path, limited: Path, tmp_path: Path, kind: str
) -> None:
    """Links that are up stay while strangers take all descriptors, and new ones come up when there are some again."""
    port = free_port()
    address = f"127.0.0.1:{port}" if kind == "tcp" else f"ws://127.0.0.1:{port}"
    daemons = [Daemon(limited, tmp_path, "hub", f"--{kind}-listener", f"port={port}", "bindaddr=127.0.0.1")]
    try:
        daemons.append(Daemon(receptor, tmp_path, "old", f"--{kind}-peer", address))
        hub, old = daemons
        wait_for("the first route", lambda: old.reaches("hub"))
        with exhausted(hub, lambda: tcp(port)):
            assert json.loads(old.ask("ping hub")[0])["Success"], "the link that was up carries a ping"
        daemons.append(Daemon(receptor, tmp_path, "new", f"--{kind}-peer", address))
        wait_for("a route of a new node", lambda: daemons[2].reaches("old"))
        assert "Backend connection exited" not in old.log.read_text()
    finally:
        for daemon in daemons:
            daemon.end()


def test_f093_datagrams_at_the_limit_and_over(mesh: Mesh) -> None:
    """65,499 bytes pass a TCP link; one more is dropped, and nothing happens to the link."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(PATIENCE_S)
        port = free_port()
        near, far = mesh(
            ["--udp-server", f"port={port}", "bindaddr=127.0.0.1", "remotenode=far", "remoteservice=svc"],
            ["--udp-client", "service=svc", f"address=127.0.0.1:{server.getsockname()[1]}"],
        )
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.connect(("127.0.0.1", port))
            for size in (65499, 65500, 65507, 3):
                client.send(bytes(size))
                if size not in (65500, 65507):
                    assert len(server.recv(1 << 16)) == size
        for daemon in (near, far):
            assert "Backend connection exited" not in daemon.log.read_text()


def test_many_connections_at_once(mesh: Mesh, tmp_path: Path) -> None:
    front, back = tmp_path / "front", tmp_path / "back"
    count, size = 100, 100_000
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(back))
        server.listen(count)

        def answer(connection: socket.socket) -> None:
            with connection, connection.makefile("rb") as stream:
                connection.sendall(stream.read()[::-1])

        def serve() -> None:
            for _ in range(count):
                threading.Thread(target=answer, args=(server.accept()[0],), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        mesh(
            ["--unix-socket-server", f"filename={front}", "remotenode=far", "remoteservice=svc"],
            ["--unix-socket-client", "service=svc", f"filename={back}"],
        )
        got: list[bool] = []

        def one() -> None:
            data = os.urandom(size)
            client = unix(front)
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            got.append(everything(client) == data[::-1])

        threads = [threading.Thread(target=one) for _ in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(2 * PATIENCE_S)
        assert got == [True] * count


def test_a_bad_command_is_refused_at_the_start(receptor: Path) -> None:
    done = subprocess.run(
        [str(receptor), "--node", "id=x", "--local-only", "--command-service", "service=s", "command=sh -c 'open"],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 1
    assert "sh -c 'open" in done.stderr
