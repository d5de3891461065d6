"""``ReceptorControl`` as existing programs use it."""

from __future__ import annotations

import io
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from fake_daemon import FakeDaemon
from receptorctl_support import Certificates, server_context, write_files

import receptorctl
from receptorctl.socket_interface import ReceptorControl

STATUS_KEYS = {
    "Advertisements",
    "Connections",
    "KnownConnectionCosts",
    "NodeID",
    "RoutingTable",
    "SystemCPUCount",
    "SystemMemoryMiB",
    "Version",
}


def test_simple_commands_share_one_connection(fake_socket: str) -> None:
    with ReceptorControl(fake_socket) as control:
        assert set(control.simple_command("status")) == STATUS_KEYS
        connection = control._socket
        with pytest.raises(RuntimeError, match="Unknown command"):
            control.simple_command("doesnotexist")
        assert control.simple_command("ping gamma")["Success"] is True
        assert control._socket is connection
        assert control.node_id == "gamma"
    assert control._socket is None


@pytest.mark.parametrize("payload", ["payload ö", "payload ö".encode(), io.BytesIO("payload ö".encode())])
def test_payload_and_results(fake_socket: str, payload: str | bytes | io.BytesIO) -> None:
    control = ReceptorControl(fake_socket)
    started = control.submit_work("cat", payload, node="gamma")
    assert started["result"] == "Job Started"
    with control.get_work_results(started["unitid"]) as file:
        assert file.read() == "payload ö".encode()
    status = control.simple_command(f"work status {started['unitid']}")
    assert (status["StateName"], status["Detail"]) == ("Succeeded", "exit status 0")
    assert control.simple_command(f"work release {started['unitid']}") == {"released": started["unitid"]}
    control.close()


def test_a_socket_file_as_payload_is_sent_as_it_comes(fake: FakeDaemon, fake_socket: str) -> None:
    ours, theirs = socket.socketpair()
    control = ReceptorControl(fake_socket)
    with theirs, theirs.makefile("rb") as file:

        def write() -> None:
            with ours:
                for number in range(100):
                    ours.sendall(b"%d\n" % number * 1000)

        writer = threading.Thread(target=write)
        writer.start()
        unit = control.submit_work("cat", file)["unitid"]
        writer.join()
    with control.get_work_results(unit) as output:
        assert output.read() == b"".join(b"%d\n" % number * 1000 for number in range(100))


@pytest.mark.parametrize("startpos", [0, 3])
def test_results_as_socket_and_file(fake_socket: str, startpos: int) -> None:
    control = ReceptorControl(fake_socket)
    unit = control.submit_work("cat", "line 1\nline 2\n")["unitid"]
    sock, file = control.get_work_results(unit, startpos, return_socket=True, return_sockfile=True)
    assert isinstance(sock, socket.socket)
    assert b"".join(file.readlines()) == b"line 1\nline 2\n"[startpos:]
    sock.shutdown(socket.SHUT_RDWR)
    file.close()
    sock.close()


def test_results_as_bare_socket_lose_nothing(fake_socket: str) -> None:
    control = ReceptorControl(fake_socket)
    unit = control.submit_work("cat", b"x" * 100_000)["unitid"]
    with control.get_work_results(unit, return_socket=True, return_sockfile=False) as sock:
        received = b""
        while block := sock.recv(4096):
            received += block
    assert received == b"x" * 100_000
    assert control.get_work_results(unit, return_socket=False, return_sockfile=False) is None


def test_refusals_keep_their_texts(fake_socket: str) -> None:
    control = ReceptorControl(fake_socket)
    with pytest.raises(RuntimeError, match=r"(?m)^Failed to start work unit: unknown work type nosuch$"):
        control.submit_work("nosuch", "")
    with pytest.raises(RuntimeError, match=r"(?m)^Failed to get results: unknown work unit nosuch$"):
        control.get_work_results("nosuch")
    with pytest.raises(ValueError, match=r"^Duplicate or illegal parameter node$"):
        control.submit_work("cat", "", params={"node": "x"})
    with pytest.raises(RuntimeError, match=r"(?m)^INTERNAL_ERROR \(local\): no route to node$"):
        control.connect_to_service("nosuch", "control")
    control.close()


def test_connect_to_a_control_service(fake_socket: str) -> None:
    with ReceptorControl(fake_socket) as control:
        control.connect_to_service("beta", "control", "")
        control.handshake()
        assert control.node_id == "beta"
        assert "IGv3kQiU" in control.simple_command("work list")


def test_connect_to_another_service(fake_socket: str) -> None:
    with ReceptorControl(fake_socket) as control:
        control.connect_to_service("beta", "echo")
        assert control._sockfile is not None
        control._sockfile.write(b"hello\n")
        control._sockfile.flush()
        assert control._sockfile.readline() == b"HELLO\n"


def test_home_directory_and_unix_prefix(fake: FakeDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    fake.listen_unix(tmp_path / "home.sock")
    for address in ("~/home.sock", "unix:~/home.sock", f"unix://{tmp_path}/home.sock"):
        with ReceptorControl(address) as control:
            assert control.simple_command("ping gamma")["Success"] is True


def test_host_names_and_tls(fake: FakeDaemon, certificates: Certificates, tmp_path: Path) -> None:
    plain = fake.listen_tcp()
    secure = fake.listen_tcp(server_context(certificates, client_cert=True))
    write_files(tmp_path, certificates)
    ca, key, cert = (certificates.path(name) for name in ("ca.crt", "alpha-client.key", "alpha-client.crt"))
    ways = [
        ReceptorControl(f"tcp://localhost:{plain}"),
        ReceptorControl(f"tcp:127.0.0.1:{plain}"),
        ReceptorControl(f"tls://localhost:{secure}", rootcas=ca, key=key, cert=cert),
        ReceptorControl(f"tls:localhost:{secure}", config=str(tmp_path / "alpha.yml"), tlsclient="cli"),
        ReceptorControl(f"tls:127.0.0.1:{secure}", rootcas=ca, key=key, cert=cert, insecureskipverify=True),
    ]
    for control in ways:
        with control:
            unit = control.submit_work("cat", "over the wire")["unitid"]
            with control.get_work_results(unit) as output:
                assert output.read() == b"over the wire"
    with pytest.raises(RuntimeError, match=f"(?m)^Could not connect to host 127.0.0.1 port {secure}$"):
        ReceptorControl(f"tls:127.0.0.1:{secure}", rootcas=ca, key=key, cert=cert).connect()


def test_mapping_form_of_the_configuration(certificates: Certificates, fake: FakeDaemon, tmp_path: Path) -> None:
    config = tmp_path / "v2.yml"
    config.write_text(f"tls-clients:\n  - name: cli\n    rootcas: {certificates.path('ca.crt')}\n")
    port = fake.listen_tcp(server_context(certificates, client_cert=False))
    with ReceptorControl(f"tls://localhost:{port}", config=str(config), tlsclient="cli") as control:
        assert control.simple_command("ping gamma")["Success"] is True


def test_bad_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeError, match=r"^Must specify both config and tlsclient$"):
        ReceptorControl("x", config="y")
    with pytest.raises(RuntimeError, match=r"^Cannot specify both config and rootcas, key, cert$"):
        ReceptorControl("x", config="y", tlsclient="z", key="k")
    with pytest.raises(RuntimeError, match="could not read the configuration file"):
        ReceptorControl("x", config=str(tmp_path / "none.yml"), tlsclient="z")
    for address in ("bogus:xx", "tcp://host", "tcp://host:99999"):
        with pytest.raises(ValueError, match=f"(?m)^Invalid socket address {address}$"):
            ReceptorControl(address)
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(RuntimeError, match=r"needs PyYAML.*pip install PyYAML"):
        ReceptorControl("x", config="y", tlsclient="z")


def test_a_stale_socket_is_explained(tmp_path: Path) -> None:
    path = tmp_path / "stale.sock"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
    with pytest.raises(ConnectionError, match=r"refused\. The socket file is there but no daemon listens on it"):
        ReceptorControl(str(path)).connect()
    with pytest.raises(RuntimeError, match=f"(?m)^Socket path does not exist: {tmp_path}/none$"):
        ReceptorControl(f"{tmp_path}/none").connect()


def test_a_new_connection_after_a_daemon_restart(tmp_path: Path) -> None:
    path = tmp_path / "gamma.sock"
    with FakeDaemon() as first:
        control = ReceptorControl(first.listen_unix(path))
        control.connect()
    path.unlink()
    with FakeDaemon() as second:
        second.listen_unix(path)
        with pytest.raises(ConnectionError):
            control.simple_command("ping gamma")
        assert control.simple_command("ping gamma")["Success"] is True
        control.close()


def test_the_package_offers_its_parts_without_loading_them() -> None:
    script = (
        "import sys, receptorctl\n"
        "assert not [m for m in ('click', 'ssl', 'yaml', 'receptorctl.cli') if m in sys.modules]\n"
        "from receptorctl.socket_interface import ReceptorControl\n"
        "assert not [m for m in ('click', 'ssl', 'yaml', 'receptorctl.cli') if m in sys.modules]\n"
        "assert receptorctl.ReceptorControl is ReceptorControl\n"
        "receptorctl.cli.cli, receptorctl.cli.status, receptorctl.cli.work, receptorctl.cli.run, receptorctl.cli.main\n"
        "assert not [m for m in ('ssl', 'yaml', 'receptor.types', 'importlib.metadata') if m in sys.modules]\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
    assert sorted(receptorctl.__all__) == ["ReceptorControl", "cli", "socket_interface"]
    with pytest.raises(AttributeError):
        receptorctl.nosuch  # noqa: B018  # the attribute access is the test
