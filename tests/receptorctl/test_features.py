"""The rows of the feature table about the command and the client library, each by a test of its name.

The golden sessions (test_receptorctl_golden.py) compare every text with that of the original client; these tests say
what each feature is.
"""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
import threading
from importlib import metadata
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from fake_daemon import FakeDaemon
from receptorctl_support import Certificates, Invoke, server_context, write_files

import receptorctl
from receptor.cli._root import own_version
from receptorctl.socket_interface import ReceptorControl

WARNING = "Warning: receptorctl and receptor are different versions, they may not be compatible\n"


def fields(result: Result) -> list[list[str]]:
    return [line.split() for line in result.stdout.splitlines()]


def test_f205_global_options(
    invoke: Invoke, fake: FakeDaemon, certificates: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = invoke("status")
    assert (result.exit_code, result.stderr) == (1, "ERROR: Missing parameter: socket\n")
    port = fake.listen_tcp(server_context(certificates, client_cert=True))
    write_files(tmp_path, certificates)
    address = f"tls://localhost:{port}"
    files = ["--rootcas", certificates.path("ca.crt")]
    own = ["--key", certificates.path("alpha-client.key"), "--cert", certificates.path("alpha-client.crt")]
    assert invoke("--socket", address, *files, *own, "version").exit_code == 0
    config = ["--config", str(tmp_path / "alpha.yml"), "--tls-client", "cli"]
    assert invoke("--socket", address, *config, "version").exit_code == 0
    assert invoke("--socket", address, "-c", *config[1:], "--insecureskipverify", "true", "version").exit_code == 0
    result = invoke("--socket", address, *config[:2], "version")
    assert result.stderr == "ERROR: Must specify both config and tlsclient\n"
    result = invoke("--socket", address, *config, *own, "version")
    assert result.stderr == "ERROR: Cannot specify both config and rootcas, key, cert\n"
    monkeypatch.setenv("RECEPTORCTL_SOCKET", address)
    monkeypatch.setenv("RECEPTORCTL_CONFIG", config[1])
    monkeypatch.setenv("RECEPTORCTL_TLSCLIENT", "cli")
    assert invoke("version").exit_code == 0


def test_f206_addresses(invoke: Invoke, fake: FakeDaemon, certificates: Certificates, tmp_path: Path) -> None:
    path = fake.listen_unix(tmp_path / "gamma.sock")
    tcp, tls = fake.listen_tcp(), fake.listen_tcp(server_context(certificates, client_cert=False))
    unix = [path, f"unix:{path}", f"unix://{path}"]
    for address in [*unix, f"tcp://localhost:{tcp}", f"tcp:127.0.0.1:{tcp}", f"tls://localhost:{tls}"]:
        result = invoke("--socket", address, "--rootcas", certificates.path("ca.crt"), "ping", "gamma", "--count", "1")
        assert result.exit_code == 0, result.stderr
    result = invoke("--socket", "bogus:xx", "status")
    assert (result.exit_code, result.stderr) == (1, "ERROR: Invalid socket address bogus:xx\n")
    result = invoke("--socket", "tcp://no_such_host:1", "status")
    assert (result.exit_code, result.stderr) == (1, "ERROR: Could not connect to host no_such_host port 1\n")


def test_f207_version_warning(invoke: Invoke, fake_socket: str, tmp_path: Path) -> None:
    for command in (["status"], ["work", "list"], ["ping", "gamma", "--count", "0"]):
        assert invoke("--socket", fake_socket, *command).stderr == WARNING
    with FakeDaemon(version=own_version()) as same:
        assert invoke("--socket", same.listen_unix(tmp_path / "same"), "status").stderr == ""


def test_f208_status(invoke: Invoke, fake_socket: str) -> None:
    result = invoke("--socket", fake_socket, "status")
    lines = fields(result)
    assert ["Node", "ID:", "gamma"] in lines
    assert ["alpha", "beta:", "1"] in lines
    assert ["gamma", "cat,", "upper,", "sh,", "shraw,", "count"] in lines
    assert ["gamma", "secure"] in lines
    for option in (["--json"], ["--output", "json"]):
        text = invoke("--socket", fake_socket, "status", *option).stdout
        assert text == json.dumps(json.loads(text), indent=4, sort_keys=True) + "\n"
        assert json.loads(text)["NodeID"] == "gamma"
    yaml = pytest.importorskip("yaml")
    assert yaml.safe_load(invoke("--socket", fake_socket, "status", "--output", "yaml").stdout) == json.loads(text)


def test_f209_ping(invoke: Invoke, fake_socket: str) -> None:
    result = invoke("--socket", fake_socket, "ping", "gamma", "--count", "2", "--delay", "0")
    assert (result.exit_code, result.stdout) == (0, "Reply from gamma in 9.67µs\n" * 2)
    result = invoke("--socket", fake_socket, "ping", "nosuch", "--count", "1")
    assert (result.exit_code, result.stdout, result.stderr) == (2, "", WARNING + "ERROR: no route to node\n")
    assert "[default: 4]" in invoke("ping", "--help").stdout


def test_f210_traceroute(invoke: Invoke, fake_socket: str) -> None:
    result = invoke("--socket", fake_socket, "traceroute", "beta")
    assert (result.exit_code, result.stdout) == (0, "0: gamma in 97.73µs\n")
    assert result.stderr == WARNING + "ERROR: 1: Error no route to node from gamma in 1.26µs\n"


def test_f211_connect(invoke: Invoke, fake_socket: str) -> None:
    """What it does on a terminal: test_connect and test_raw_connect_restores_the_terminal."""
    result = invoke("--socket", fake_socket, "connect", "beta", "echo", "--tls-client", "nosuch", "-r")
    assert result.exit_code == 1
    assert result.stderr.endswith("ERROR: connect needs a terminal on standard input\n")


def test_f212_reload(invoke: Invoke, fake: FakeDaemon, fake_socket: str) -> None:
    result = invoke("--socket", fake_socket, "reload")
    assert (result.exit_code, result.stdout) == (0, "Reload successful\n")
    for text, status in (("changed ERRORCODE 3", 3), ("bad file ERRORCODE 4", 4), ("odd", 5)):
        fake.reload_error = text
        result = invoke("--socket", fake_socket, "reload")
        assert (result.exit_code, result.stderr) == (status, f"{WARNING}ERROR: {text}\n")
        result = invoke("--socket", fake_socket, "reload", "--json")
        assert json.loads(result.stdout) == {"success": False, "error": text, "code": status, "changes": []}


def test_f213_version(invoke: Invoke, fake_socket: str) -> None:
    result = invoke("--socket", fake_socket, "version")
    assert result.stdout == f"receptorctl  {own_version()}\nreceptor     1.4.9+git\n"


def test_f214_work_list(invoke: Invoke, fake: FakeDaemon, fake_socket: str) -> None:
    assert invoke("--socket", fake_socket, "work", "list").stdout == "{}\n"
    invoke("--socket", fake_socket, "work", "submit", "cat", "-n")
    unit = fake.next_unit()
    unit.wait_complete()
    [name] = fake.units
    shown = json.loads(invoke("--socket", fake_socket, "work", "list").stdout)
    assert shown == {name: unit.reply()}
    for option in ("--quiet", "-q"):
        assert invoke("--socket", fake_socket, "work", "list", option).stdout == f"{name}\n"
    for option in ("--unit_id", "--unit-id"):
        assert json.loads(invoke("--socket", fake_socket, "work", "list", option, name).stdout) == shown
    assert invoke("--socket", fake_socket, "work", "list", "-q", "--node", "beta").stdout == "IGv3kQiU\n"
    result = invoke("--socket", fake_socket, "work", "list", "--node", "beta", "--tls-client", "nosuch")
    assert result.stderr == WARNING + "ERROR: unknown TLS config nosuch\n"


def test_f215_work_submit(invoke: Invoke, fake: FakeDaemon, fake_socket: str, tmp_path: Path) -> None:
    def submit(*args: str, stdin: bytes | None = None) -> Result:
        return invoke("--socket", fake_socket, "work", "submit", *args, stdin=stdin)

    (tmp_path / "in").write_text("of a file\n")
    for source in (["--payload", str(tmp_path / "in")], ["-p", str(tmp_path / "in")], ["-l", "of a file"]):
        result = submit("cat", *source, "--follow", "--rm")
        assert (result.exit_code, result.stdout.splitlines()[0]) == (0, "of a file")
        assert result.stdout.endswith(", released)\n")
    assert submit("cat", "-p", "-", "-f", stdin=b"of stdin").stdout == "of stdin"
    result = submit("cat", "-n")
    assert result.stdout.startswith("Result: Job Started\nUnit ID: ")
    submit("upper", "-n", "--node", "beta", "--ttl", "1h", "--signwork", "--tls-client", "c", "-a", "k=v", "x", "y")
    sent = json.loads(fake.requests[-1])
    assert sent | {"node": "beta", "ttl": "1h", "signwork": "true", "tlsclient": "c", "k": "v", "params": "x y"} == sent
    (tmp_path / "value").write_text("from @file")
    submit("upper", "-n", "--node", "beta", "--param", f"a=@{tmp_path}/value", "-a", "b=@@x", "-a", "c=")
    sent = json.loads(fake.requests[-1])
    assert sent | {"a": "from @file", "b": "@@x", "c": ""} == sent
    assert submit("nosuch", "-n").exit_code == 101
    assert submit("cat").exit_code == submit("cat", "-n", "-l", "x").exit_code == 1


def test_f216_work_results(invoke: Invoke, fake: FakeDaemon, fake_socket: str) -> None:
    invoke("--socket", fake_socket, "work", "submit", "sh", "-n", "-a", "params='echo out; exit 3'")
    fake.next_unit().wait_complete()
    [unit] = fake.units
    result = invoke("--socket", fake_socket, "work", "results", unit)
    assert (result.exit_code, result.stdout) == (1, "out\n")
    assert result.stderr == WARNING + "ERROR: Remote unit failed: exit status 3\n\n"
    result = invoke("--socket", fake_socket, "work", "results", "--offset", "1", unit)
    assert result.stdout == "ut\n"
    result = invoke("--socket", fake_socket, "work", "results", "nosuch")
    assert (result.exit_code, result.stderr[len(WARNING) :]) == (
        1,
        "ERROR: Failed to get results: unknown work unit nosuch\n",
    )


def test_f217_work_cancel_and_release(invoke: Invoke, fake: FakeDaemon, fake_socket: str) -> None:
    for _ in range(3):
        invoke("--socket", fake_socket, "work", "submit", "cat", "-n")
    first, second, third = fake.units
    result = invoke("--socket", fake_socket, "work", "cancel", first, second)
    assert result.stdout == f"Cancelled:\n({first}, cancelled)\n({second}, cancelled)\n"
    result = invoke("--socket", fake_socket, "work", "release", "--force", first)
    assert result.stdout == f"Released:\n({first}, released)\n"
    result = invoke("--socket", fake_socket, "work", "release", "nosuch", second)
    assert (result.exit_code, list(fake.units)) == (1, [second, third])
    result = invoke("--socket", fake_socket, "work", "release", "--all")
    assert (result.exit_code, list(fake.units)) == (0, [])
    result = invoke("--socket", fake_socket, "work", "release")
    assert result.stderr == WARNING + "Warning: No unit IDs supplied: Not doing anything\n"


def test_f218_receptor_control(fake: FakeDaemon, certificates: Certificates, tmp_path: Path) -> None:
    write_files(tmp_path, certificates)
    address = f"tls://localhost:{fake.listen_tcp(server_context(certificates, client_cert=True))}"
    rootcas, key, cert = (certificates.path(name) for name in ("ca.crt", "alpha-client.key", "alpha-client.crt"))
    positional = (address, None, None, rootcas, key, cert, False)
    for control in (ReceptorControl(*positional), ReceptorControl(address, str(tmp_path / "alpha.yml"), "cli")):
        with control:
            assert control.simple_command("ping gamma")["From"] == "gamma"
    with pytest.raises(RuntimeError, match="^Cannot specify both config and rootcas, key, cert$"):
        ReceptorControl(address, config="x", tlsclient="y", rootcas=rootcas)
    assert receptorctl.ReceptorControl is receptorctl.socket_interface.ReceptorControl is ReceptorControl


def test_f219_simple_commands(fake_socket: str) -> None:
    control = ReceptorControl(fake_socket)
    control.connect()
    assert control.simple_command("status")["NodeID"] == "gamma"
    assert control.simple_command('{"command":"status","requested_fields":["Version"]}') == {"Version": "1.4.9+git"}
    with pytest.raises(RuntimeError, match="^Unknown command$"):
        control.simple_command("doesnotexist")
    control.connect_to_service("beta", "control", "")
    control.handshake()
    assert list(control.simple_command("work list")) == ["IGv3kQiU"]
    control.close()
    control.close()


def test_f220_work_and_services(fake: FakeDaemon, fake_socket: str) -> None:
    control = ReceptorControl(fake_socket)
    for payload in (b"bytes", "bytes", io.BytesIO(b"bytes"), io.StringIO("bytes")):
        started = control.submit_work("cat", payload, node="gamma", params={})
        assert started["result"] == "Job Started"
        unit = started["unitid"]
        with control.get_work_results(unit) as file:
            assert file.read() == b"bytes"
        with control.get_work_results(unit, startpos=2, return_socket=True, return_sockfile=False) as sock:
            assert sock.recv(100, socket.MSG_WAITALL) == b"tes"
        sock, file = control.get_work_results(unit, return_socket=True)
        with sock, file:
            assert file.read() == b"bytes"
    control.connect_to_service("beta", "echo", "")
    assert control._sockfile is not None
    control._sockfile.write(b"hello\n")
    control._sockfile.flush()
    assert control._sockfile.readline() == b"HELLO\n"
    control.close()


def test_a_payload_that_another_thread_writes(fake: FakeDaemon, fake_socket: str) -> None:
    """As programs do that pass the two ends of a socket pair to the client and to whatever makes the payload."""
    reading, writing = socket.socketpair()

    def write() -> None:
        with writing:
            for number in range(1000):
                writing.sendall(b"%04d" % number)

    writer = threading.Thread(target=write)
    writer.start()
    control = ReceptorControl(fake_socket)
    with reading, reading.makefile("rb") as file:
        started = control.submit_work(worktype="cat", payload=file, node="gamma")
    writer.join()
    with control.get_work_results(started["unitid"]) as results:
        assert results.read() == b"".join(b"%04d" % number for number in range(1000))
    control.close()


def test_time_outs(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        with pytest.raises(TimeoutError, match=r"within 0\.05 s"):
            ReceptorControl(str(tmp_path / "s"), timeout_s=0.05).connect()


def test_click_commands_by_their_names(fake_socket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from receptorctl import cli as commands

    monkeypatch.setenv("RECEPTORCTL_SOCKET", fake_socket)
    runner = CliRunner()
    assert json.loads(runner.invoke(commands.status, ["--json"]).stdout)["NodeID"] == "gamma"
    assert runner.invoke(commands.work, ["list", "-q"]).exit_code == 0
    assert runner.invoke(commands.cli, ["--socket", fake_socket, "work", "list"]).exit_code == 0
    for name in commands.__all__:
        assert callable(getattr(commands, name))


def test_the_version_that_callers_ask_for() -> None:
    """Asked by name, the provider answers under its own name; nothing claims to be the other distribution."""
    distribution = metadata.distribution("receptorctl")
    assert distribution.metadata["Name"] == "pyreceptor"
    assert metadata.version("receptorctl") == distribution.version == receptorctl.__version__
    assert "receptorctl" not in [found.metadata["Name"] for found in metadata.distributions()]
    with pytest.raises(metadata.PackageNotFoundError):
        metadata.version("receptorctl-nosuch")


def test_another_distribution_of_that_name_is_found_first(tmp_path: Path) -> None:
    other = tmp_path / "receptorctl-9.9.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: receptorctl\nVersion: 9.9\n")
    program = "import receptorctl; from importlib import metadata; print(metadata.version('receptorctl'))"
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "9.9\n"
