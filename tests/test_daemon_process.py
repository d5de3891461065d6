"""The daemon among its neighbours on a machine: signals, service managers, files that change, clients that stay."""

# The fixtures are those of the command line's tests.
# ruff: noqa: F401, F811

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import urllib.request
from contextlib import suppress
from pathlib import Path

import pytest
from daemons import free_port, wait_for
from test_daemon_cli import PATIENCE_S, REPO, Daemons, banner, config, control, run, start


def test_f048_hangup_reloads(start: Daemons, config: Path) -> None:
    daemon = start("-c", config)
    daemon.wait_for("Initialization complete")
    other = config.parent / "other"
    with control(config.parent / "s") as client:
        assert client.recv(100)
        config.write_text(config.read_text() + f"- control-service: {{service: '', filename: {other}}}\n")
        daemon.process.send_signal(signal.SIGHUP)
        daemon.wait_for(f"Reloaded: added control-service {other}\n")
        assert banner(other) == b"Receptor Control, node solo\n"
        client.sendall(b'{"command": "reload", "dry_run": true}\n')
        assert json.loads(client.recv(1000)) == {"Success": True, "DryRun": True}
        config.write_text("- node: [")
        client.sendall(b"reload\n")
        reply = json.loads(client.recv(1000))
        assert reply["Success"] is False
        assert reply["Error"].startswith("error loading config file: yaml: line 1: ")
        assert reply["Error"].endswith(" ERRORCODE 4")
    assert daemon.stop() == 0
    assert not other.exists()


@pytest.mark.parametrize("suffix", ["yaml", "json", "toml"])
def test_f198_f202_second_format_is_reloaded_when_saved(start: Daemons, tmp_path: Path, suffix: str) -> None:
    path, data = tmp_path / f"receptor.{suffix}", str(tmp_path / "data")

    def save(level: str) -> None:
        values = {
            "version": 2,
            "node": {"id": "solo", "datadir": data},
            "local-only": {"local": True},
            "log-level": {"level": level},
        }
        if suffix == "toml":
            text = f'version = 2\nnode = {{id = "solo", datadir = "{data}"}}\n[local-only]\nlocal = true\n'
            text += f'[log-level]\nlevel = "{level}"\n'
        else:
            text = json.dumps(values)
        fresh = tmp_path / "fresh"
        fresh.write_text(text)
        fresh.replace(path)

    save("info")
    daemon = start("--config-v2", "--config", path)
    daemon.wait_for("Initialization complete")
    assert daemon.output.startswith(f"Running v2 cli/config\nUsing config file: {path}\n")
    save("debug")
    daemon.wait_for(f"Config file changed: {path}\n")
    daemon.wait_for("Reloaded: changed log-level (level)\n")
    assert daemon.stop() == 0


def test_f200_default_file_of_the_second_format(
    start: Daemons, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    missing = run(start.binary, "--config-v2")
    assert (missing.returncode, missing.stdout) == (1, "")
    assert missing.stderr == "Error: Could not locate config file (default is $HOME/receptor.yaml)\n"
    (tmp_path / "receptor.yaml").write_text(f"node: {{id: a, datadir: {tmp_path}}}\nlocal-only: {{local: true}}\n")
    daemon = start("--config-v2")
    daemon.wait_for("Initialization complete")
    assert daemon.stop() == 0


def test_service_manager_is_told(start: Daemons, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(config.parent / "notify"))
        manager.settimeout(PATIENCE_S)
        monkeypatch.setenv("NOTIFY_SOCKET", str(config.parent / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "200000")

        def hear(wanted: str) -> str:
            while not (heard := manager.recv(4096).decode()).startswith(wanted):
                pass
            return heard

        config.write_text(config.read_text() + "- work-command: {worktype: env, command: env}\n")
        daemon = start("-c", config)
        assert hear("READY=1") == "READY=1\nSTATUS=Node solo, links: 0, reachable nodes: 0"
        hear("WATCHDOG=1")
        with control(config.parent / "s") as client:
            stream = client.makefile("rwb")
            stream.readline()
            stream.write(b'{"command": "work", "subcommand": "submit", "node": "localhost", "worktype": "env"}\n')
            stream.flush()
            unit = stream.readline().split()[5].rstrip(b".").decode()
            client.shutdown(socket.SHUT_WR)
            stream.readline()
        with control(config.parent / "s") as client:
            stream = client.makefile("rwb")
            stream.readline()
            stream.write(f"work results {unit}\n".encode())
            stream.flush()
            environment = stream.read()
        assert b"PATH=" in environment
        assert b"NOTIFY_SOCKET" not in environment
        daemon.process.send_signal(signal.SIGHUP)
        assert re.match(r"RELOADING=1\nMONOTONIC_USEC=\d+\n", hear("RELOADING"))
        hear("READY=1")
        assert daemon.stop() == 0
        hear("STOPPING=1")


def test_sockets_of_the_service_manager(receptor: Path, config: Path) -> None:
    """A child of a shell that passes two listening sockets, as systemd does."""
    with socket.socket(socket.AF_UNIX) as unix, socket.create_server(("127.0.0.1", 0)) as tcp:
        path = config.parent / "s"
        unix.bind(str(path))
        unix.listen()
        port = tcp.getsockname()[1]
        config.write_text(config.read_text() + f"- tcp-listener: {{bindaddr: 127.0.0.1, port: {port}}}\n")
        bash = shutil.which("bash")
        if bash is None:
            pytest.skip("no bash")
        given = (unix.fileno(), tcp.fileno())
        script = 'exec env LISTEN_PID=$$ LISTEN_FDS=2 "$@" 13<&{} 14<&{} 3<&13 4<&14 13<&- 14<&-'.format(*given)
        process = subprocess.Popen(
            [bash, "-c", script, "sh", receptor, "-c", config], pass_fds=given, stdout=subprocess.PIPE, text=True
        )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if "Initialization complete" in line:
                break
        assert banner(path) == b"Receptor Control, node solo\n"
        with socket.create_connection(("127.0.0.1", port), PATIENCE_S):
            pass
        process.send_signal(signal.SIGHUP)
        config.write_text(config.read_text().replace(f"port: {port}", f"port: {port}, cost: 2"))
        process.send_signal(signal.SIGHUP)
        for line in process.stdout:
            if "Reloaded: changed tcp-listener" in line:
                break
        with socket.create_connection(("127.0.0.1", port), PATIENCE_S):
            pass
        process.terminate()
        assert process.wait(PATIENCE_S) == 0
        assert path.exists(), "the socket belongs to the service manager"
    finally:
        process.kill()
        process.wait(PATIENCE_S)
        if process.stdout is not None:
            process.stdout.close()


def test_socket_activation_by_name(receptor: Path, config: Path) -> None:
    """The first connection to a port starts the daemon, which serves it; the configuration names another port."""
    activate = shutil.which("systemd-socket-activate")
    if activate is None:
        pytest.skip("no systemd-socket-activate")
    config.write_text(config.read_text() + "- metrics-listener: {port: 1}\n")
    address = f"127.0.0.1:{free_port()}"
    process = subprocess.Popen(
        [
            activate,
            "-l",
            address,
            "-l",
            str(config.parent / "other"),
            "--fdname=metrics-listener:other",
            receptor,
            "-c",
            config,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        for line in process.stderr:
            if "other" in line:
                break
        with urllib.request.urlopen(f"http://{address}/healthz", timeout=PATIENCE_S) as response:
            assert response.status == 200
        seen = ""
        for line in process.stdout:
            seen += line
            if "Initialization complete" in line:
                break
        assert re.search("WARNING .* Nothing uses a socket of the service manager.*name=other", seen), seen
        process.terminate()
        assert process.wait(PATIENCE_S) == 0
    finally:
        process.kill()
        process.wait(PATIENCE_S)
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def test_check_by_the_service_manager_knows_of_its_sockets(receptor: Path, config: Path) -> None:
    """ExecStartPre= with a socket unit: the manager holds the port already."""
    with socket.create_server(("127.0.0.1", 0)) as manager, socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(config.parent / "s"))
        unix.listen()
        port = manager.getsockname()[1]
        config.write_text(config.read_text() + f"- tcp-listener: {{bindaddr: 127.0.0.1, port: {port}}}\n")
        shell: list[str | Path] = ["sh", "-c", 'SYSTEMD_EXEC_PID=$$ exec "$@"', "sh", receptor, "--check", "-c", config]
        managed = subprocess.run(shell, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        alone = run(receptor, "--check", "-c", config)
    assert (managed.returncode, alone.returncode) == (0, 1)
    warnings = managed.stderr.splitlines()
    assert len(warnings) == 2
    assert all(line.startswith("Warning: ") for line in warnings), warnings
    assert len(alone.stderr.splitlines()) == 2


def test_stop_waits_for_clients(start: Daemons, config: Path) -> None:
    """A connection through a proxy ends by itself, and the daemon after it."""
    near = free_port()
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(PATIENCE_S)
        target = server.getsockname()[1]
        config.write_text(
            config.read_text()
            + f"- tcp-server: {{bindaddr: 127.0.0.1, port: {near}, remotenode: solo, remoteservice: t}}\n"
            + f"- tcp-client: {{service: t, address: '127.0.0.1:{target}'}}\n- process: {{draintimeout: 60s}}\n"
        )
        daemon = start("-c", config)
        daemon.wait_for("Initialization complete")
        with socket.create_connection(("127.0.0.1", near), PATIENCE_S) as client:
            client.sendall(b"before")
            far, _ = server.accept()
            with far:
                far.settimeout(PATIENCE_S)
                assert far.recv(6) == b"before"
                daemon.process.send_signal(signal.SIGTERM)
                daemon.wait_for("Waiting for clients to finish")
                far.sendall(b"after")
                assert client.recv(5) == b"after"
            client.shutdown(socket.SHUT_WR)
            assert client.recv(1) == b""
        assert daemon.wait() == 0
        assert "did not finish in time" not in daemon.output


def test_stop_waits_for_terminals_and_not_for_listeners_to_events(start: Daemons, config: Path) -> None:
    front = config.parent / "front"
    config.write_text(
        config.read_text()
        + f"- unix-socket-server: {{filename: {front}, remotenode: solo, remoteservice: t}}\n"
        + "- command-service: {service: t, command: cat}\n- process: {draintimeout: 60s}\n"
    )
    daemon = start("-c", config)
    daemon.wait_for("Initialization complete")
    with control(config.parent / "s") as listener, control(front) as terminal:
        heard = listener.makefile("rb")
        assert heard.readline() == b"Receptor Control, node solo\n"
        listener.sendall(b"events\n")
        heard.readline()
        said = terminal.makefile("rb")
        terminal.sendall(b"before\n")
        assert said.readline() == b"before\r\n"
        daemon.process.send_signal(signal.SIGTERM)
        daemon.wait_for("Waiting for clients to finish")
        while b"after" not in said.readline():
            terminal.sendall(b"after\n")
        terminal.shutdown(socket.SHUT_WR)
        assert daemon.wait() == 0
    assert "did not finish in time" not in daemon.output


def test_check_names_everything_and_starts_nothing(receptor: Path, start: Daemons, config: Path) -> None:
    before = config.read_text()
    good = run(receptor, "--check", "-c", config)
    assert (good.returncode, good.stdout) == (0, "The configuration is good: 3 directives\n")
    assert sorted(p.name for p in config.parent.iterdir()) == ["mesh.yml"]
    config.write_text(f"{before}- control-service: {{service: other, allow: [{{commands: [all, work]}}]}}\n")
    slip = run(receptor, "--check", "-c", config)
    assert (slip.returncode, slip.stdout) == (0, "The configuration is good: 4 directives\n")
    assert "Warning: a rule allows the command all, which does not exist; * is all of them (" in slip.stderr
    assert "command work," not in slip.stderr
    config.write_text(before)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config.write_text(
            config.read_text()
            + f"- tcp-listener: {{bindaddr: 127.0.0.1, port: {port}}}\n"
            + "- tls-server: {name: s, cert: /no/cert, key: /no/key}\n"
            + '- work-command: {worktype: w, command: /no/such, params: "\'"}\n- work-signing: /no/key\n'
            + "- metrics-listener: {port: 0, tokenfile: /no/token}\n- tcp-peer: nowhere\n- tcp-pear: h:1\n"
        )
        bad = run(receptor, "--check", "--config", config)
    assert (bad.returncode, bad.stdout) == (1, "")
    for text in (
        f"listen tcp 127.0.0.1:{port}: bind: address already in use ({config}:9:3)",
        f"open /no/cert: no such file or directory ({config}:10:3)",
        "the command cannot be run: ",
        'params "\'"',
        f"/no/key does not exist ({config}:12:3)",
        f"open /no/token: no such file or directory ({config}:13:3)",
        f"address nowhere: missing port in address ({config}:14:13)",
        f"unknown config type tcp-pear ({config}:15:3; did you mean tcp-peer?)",
    ):
        assert text in bad.stderr
    config.write_text(before)
    config.chmod(0o666)
    loose = run(receptor, "-c", config)
    assert loose.returncode == 1
    assert "may be written by everybody (mode 0666)" in loose.stderr


def test_check_of_a_running_node_is_good(receptor: Path, start: Daemons, config: Path) -> None:
    port = free_port()
    config.write_text(config.read_text() + f"- tcp-listener: {{bindaddr: 127.0.0.1, port: {port}}}\n")
    daemon = start("-c", config)
    daemon.wait_for("Initialization complete")
    result = run(receptor, "--check", "-c", config)
    assert (result.returncode, result.stderr) == (0, "")
    assert banner(config.parent / "s") == b"Receptor Control, node solo\n"
    assert daemon.stop() == 0


def test_show_config_is_a_configuration(receptor: Path, config: Path) -> None:
    with config.open("a") as file:
        file.write("- ws-peer: {address: 'ws://h', extraheader: 'Authorization: Bearer topsecret'}\n")
    shown = run(receptor, "--show-config", "-c", config)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "topsecret" not in shown.stdout
    again = config.parent / "again.yml"
    again.write_text(shown.stdout.replace("(hidden)", "'Authorization: Bearer topsecret'"))
    assert run(receptor, "--show-config", "-c", again).stdout == shown.stdout


def test_runs_without_root_home_or_writable_directory(receptor: Path, start: Daemons, tmp_path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("needs root to become nobody")
    directory = tmp_path / "run"
    directory.mkdir()
    for parent in (directory, *directory.parents):
        if parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o011)
    os.chown(directory, 65534, 65534)
    binary = Path("/proc/self/fd/0")
    with receptor.open("rb") as program:
        process = subprocess.Popen(
            [
                binary,
                "--node",
                "id=n",
                f"datadir={directory / 'data'}",
                "--local-only",
                "--control-service",
                f"filename={directory / 's'}",
            ],
            stdin=program,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            user=65534,
            group=65534,
            extra_groups=[],
            cwd="/",
            env={"HOME": "/nonexistent", "PATH": os.environ["PATH"]},
        )
    try:
        assert process.stdout is not None
        seen = ""
        for line in process.stdout:
            seen += line
            if "Initialization complete" in line:
                break
        assert "Initialization complete" in seen, seen
        assert (directory / "s").stat().st_uid == 65534
        process.terminate()
        assert process.wait(PATIENCE_S) == 0
    finally:
        process.kill()
        process.wait(PATIENCE_S)
        if process.stdout is not None:
            process.stdout.close()


def test_certificates_of_a_small_mesh(receptor: Path, start: Daemons, tmp_path: Path) -> None:
    made = run(receptor, "cert", "mesh", tmp_path / "pki", "node=hub=localhost,127.0.0.1", "node=edge", "bits=1024")
    assert made.returncode == 0, made.stderr
    pki = tmp_path / "pki"
    good = run(
        receptor,
        "cert",
        "doctor",
        pki / "hub.crt",
        f"key={pki / 'hub.key'}",
        f"ca={pki / 'ca.crt'}",
        "node=hub",
        "host=localhost",
    )
    assert (good.returncode, good.stderr) == (0, "")
    assert "good: it is for the node hub\n" in good.stdout
    bad = run(receptor, "cert", "doctor", pki / "hub.crt", f"key={pki / 'edge.key'}", "node=edge", "json=true")
    assert bad.returncode == 1
    assert len(json.loads(bad.stdout)["problems"]) == 2
    assert run(receptor, "cert", "mesh", pki, "node=hub").returncode == 1

    def profiles(node: str) -> list[str]:
        files = [f"cert={pki / node}.crt", f"key={pki / node}.key"]
        return [
            "--tls-server", "name=mesh", *files, "requireclientcert=yes", f"clientcas={pki / 'ca.crt'}",
            "--tls-client", "name=mesh", *files, f"rootcas={pki / 'ca.crt'}",
        ]  # fmt: skip

    port = free_port()
    data = [f"datadir={tmp_path / 'data'}"]
    hub = start(
        "--node", "id=hub", *data, "--tcp-listener", "bindaddr=127.0.0.1", f"port={port}", "tls=mesh", *profiles("hub")
    )
    hub.wait_for("Initialization complete")
    edge = start("--node", "id=edge", *data, "--tcp-peer", f"address=localhost:{port}", "tls=mesh", *profiles("edge"))
    edge.wait_for("Connection established with hub")
    assert (edge.stop(), hub.stop()) == (0, 0)


def test_second_signal_ends_the_drain(start: Daemons, config: Path) -> None:
    config.write_text(config.read_text() + "- process: {draintimeout: 60s}\n")
    daemon = start("-c", config)
    daemon.wait_for("Initialization complete")
    with control(config.parent / "s") as client:
        client.recv(100)
        client.sendall(
            b'{"command": "ping", "target": "nobody"}\n{"command": "connect", "node": "solo", "service": "control"}\n'
        )
        client.recv(1000)

        def read() -> None:
            with suppress(ConnectionResetError):  # The daemon ends without a farewell.
                client.recv(1000)

        reader = threading.Thread(target=read)
        reader.start()
        daemon.process.send_signal(signal.SIGTERM)
        daemon.wait_for("Waiting for clients to finish")
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.wait() == -signal.SIGTERM
        reader.join()


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_a_unit_is_durable_before_its_client_hears_of_it(receptor: Path, config: Path) -> None:
    """What a loss of power would take away cannot be tried: that the record has been synced can be seen."""
    config.write_text(config.read_text() + "- work-command: {worktype: cat, command: cat}\n")
    trace = config.parent / "trace"
    if subprocess.run(["strace", "-o", trace, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("no process may be traced here")
    # With -D the daemon, not strace, is the process that is started here.
    options = ["-D", "-f", "-s", "80", "-e", "trace=write,pwrite64,fdatasync", "-o", str(trace)]
    daemon = Daemons(Path("strace"))(*options, receptor, "-c", config)
    try:
        daemon.wait_for("Initialization complete\n")
        with control(config.parent / "s") as client, client.makefile("rb") as answers:
            client.sendall(b"work submit solo cat\n")
            assert answers.readline() == b"Receptor Control, node solo\n"
            created = re.fullmatch(r"Work unit created with ID (\w+)\..*\n", answers.readline().decode())
        assert created
        wait_for("the trace", lambda: created[0].strip() in trace.read_text())
    finally:
        daemon.close()
    calls = trace.read_text().splitlines()
    told = next(i for i, call in enumerate(calls) if created[0].strip() in call)
    noted = next(i for i, call in enumerate(calls) if "pwrite64(" in call and created[1] in call)
    synced = re.compile(r"fdatasync(\(\d+\)| resumed>\)) += 0$")
    assert any(synced.search(call) for call in calls[noted:told]), "\n".join(calls[: told + 1])
