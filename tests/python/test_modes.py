"""What all nodes do alike, wherever they run: TLS, proxies, routes, counts; and how each mode begins and ends."""

import asyncio
import http.client
import http.server
import itertools
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import types
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
from meshes import Daemon, InThread, Mesh

import receptor
from receptor import _daemon, _library


def issue(folder: Path, *nodes: str) -> dict[str, receptor.TLS]:
    """A CA and a certificate for each node."""
    daemon = _daemon.require("a test")
    ca = ["commonname=test", "bits=2048", f"outcert={folder}/ca.crt", f"outkey={folder}/ca.key"]
    subprocess.run([daemon, "--cert-init", *ca], check=True, capture_output=True)
    for node in nodes:
        names = [f"commonname={node}", "bits=2048", f"nodeid={node}", "dnsname=localhost", "ipaddress=127.0.0.1"]
        files = [f"outreq={folder}/{node}.csr", f"outkey={folder}/{node}.key"]
        subprocess.run([daemon, "--cert-makereq", *names, *files], check=True, capture_output=True)
        files = [f"req={folder}/{node}.csr", f"outcert={folder}/{node}.crt"]
        ca = [f"cacert={folder}/ca.crt", f"cakey={folder}/ca.key", "verify=true"]
        subprocess.run([daemon, "--cert-signreq", *files, *ca], check=True, capture_output=True)
    return {
        node: receptor.TLS(folder / f"{node}.crt", folder / f"{node}.key", folder / "ca.crt", require_client_cert=True)
        for node in nodes
    }


def test_tls_on_links_and_streams(nodes: Mesh, tmp_path: Path, in_thread: InThread) -> None:
    tls = issue(tmp_path, "a", "b", "other")
    a, b = nodes.pair()
    bound = a.add_listener("wss://127.0.0.1:0", tls=tls["a"])
    b.remove(b.add_peer(bound.address, tls=tls["b"]))
    with b.listen("safe", tls=tls["b"]) as listener:
        serving = in_thread(lambda: listener.accept(timeout_s=60))
        with a.connect("b", "safe", tls=tls["a"]) as sock, serving.result() as far:
            sock.sendall(b"sealed")
            assert far.recv(10) == b"sealed"
        with pytest.raises(receptor.Unreachable):
            a.connect("b", "safe", timeout_s=60)
        with pytest.raises(receptor.Unreachable):
            a.connect("b", "safe", tls=receptor.TLS(pins=["00" * 32], insecure_skip_verify=True), timeout_s=60)
    with pytest.raises(receptor.ConfigError, match=r"missing\.crt"):
        b.add_listener("tcp://127.0.0.1:0", tls=receptor.TLS(tmp_path / "missing.crt", tmp_path / "b.key"))
    with pytest.raises(receptor.ConfigError, match="has no TLS"):
        b.add_peer("udp://127.0.0.1:1", tls=tls["b"])


def test_tls_profiles_by_name(nodes: Mesh, tmp_path: Path) -> None:
    tls = issue(tmp_path, "a", "b")
    a = nodes.node("a")
    b = nodes.node("b", peers=[], tls_profiles={"mesh": tls["b"]})
    bound = b.add_listener("tcp://127.0.0.1:0", tls="mesh")
    a.add_peer(bound.address, tls=tls["a"])
    assert a.wait_route("b", timeout_s=60).next_hop == "b"
    with pytest.raises(receptor.ConfigError, match="unknown TLS config nonesuch"):
        b.listen("x", tls="nonesuch")


def test_streams_that_nobody_accepts_are_reset(nodes: Mesh) -> None:
    a, b = nodes.pair()
    with b.listen("busy") as listener:
        first = a.connect("b", "busy")
        far = listener.accept(timeout_s=60)
        second = a.connect("b", "busy")
    with second, pytest.raises(receptor.StreamResetError):
        second.recv(1)
    with first, far:
        far.sendall(b"goes on")
        far.shutdown(socket.SHUT_WR)
        assert first.makefile("rb").read() == b"goes on"


def test_the_end_of_a_node_resets_its_streams(nodes: Mesh) -> None:
    """The other end hears of it from there, and need not find out that the path is lost."""
    a, b = nodes.pair()
    with b.listen("x") as listener, a.connect("b", "x") as sock, listener.accept(timeout_s=60) as far:
        far.sendall(b"half")
        assert sock.recv(10) == b"half"
        b.close()
        with pytest.raises(receptor.StreamResetError) as caught:
            sock.recv(1)
        assert caught.value.remote is True


async def test_streams_that_no_task_accepts_are_reset(nodes: Mesh) -> None:
    nodes.node("hub")
    async with nodes.aio_node("a") as a, nodes.aio_node("b") as b:
        await a.wait_route("b", timeout_s=60)
        async with b.listen("busy") as listener:
            reader, writer = await a.open_connection("b", "busy")
            _, far_writer = await (await listener.accept(timeout_s=60)).streams()
            second, second_writer = await a.open_connection("b", "busy")
        with pytest.raises(receptor.StreamResetError):
            await second.read()
        far_writer.write(b"goes on")
        far_writer.close()
        assert await reader.read() == b"goes on"
        for each in (writer, second_writer):
            each.close()


@pytest.mark.parametrize("mode", ["in-process", "sidecar"])
def test_the_environment_says_whom_to_trust(mode: Literal["in-process", "sidecar"], tmp_path: Path) -> None:
    """A library does not see what its program puts into the environment: SSL_CERT_FILE gets there all the same."""
    if mode == "in-process" and not os.path.exists(_library.PATH):
        pytest.skip("the library is not built")
    tls = issue(tmp_path, "a", "b")
    server = replace(tls["a"], require_client_cert=False)
    named = {"public": replace(tls["b"], cas=None, require_client_cert=False)}
    environ = {**os.environ, "SSL_CERT_FILE": f"{tmp_path}/ca.crt"}
    with receptor.Node("a") as a, receptor.Node("b", mode=mode, environ=environ, tls_profiles=named) as b:
        secure = a.add_listener("wss://127.0.0.1:0", tls=server).address
        plain = a.add_listener("tcp://127.0.0.1:0", tls=server).address
        ways: list[tuple[str, receptor.TLS | str | None]] = [
            (secure, None),
            (secure, receptor.TLS()),
            (plain, receptor.TLS()),
            (plain, "public"),
        ]
        for address, profile in ways:
            with b.events("peer") as events:
                added = b.add_peer(address, tls=profile)
                assert isinstance(events.get(timeout_s=60), receptor.PeerUp), (address, profile)
                b.remove(added)
                assert isinstance(events.get(timeout_s=60), receptor.PeerDown), (address, profile)


@pytest.mark.parametrize("mode", ["in-process", "sidecar"])
def test_the_environment_says_which_proxy(mode: Literal["in-process", "sidecar"]) -> None:
    if mode == "in-process" and not os.path.exists(_library.PATH):
        pytest.skip("the library is not built")
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        proxy.settimeout(60)
        address = f"http://127.0.0.1:{proxy.getsockname()[1]}"
        environ = {**os.environ, "HTTP_PROXY": address, "http_proxy": address, "NO_PROXY": "", "no_proxy": ""}
        with receptor.Node("a", mode=mode, environ=environ) as node:
            node.add_peer("ws://mesh.example:80/")
            asked, _ = proxy.accept()
            with asked:
                assert asked.recv(100).startswith(b"CONNECT mesh.example:80 ")


@pytest.mark.parametrize("mode", ["in-process", "sidecar"])
def test_a_node_from_a_daemons_configuration_file(mode: Literal["in-process", "sidecar"], tmp_path: Path) -> None:
    """Its name, links, TLS profiles and work types are the file's."""
    if mode == "in-process" and not os.path.exists(_library.PATH):
        pytest.skip("the library is not built")
    issue(tmp_path, "from-file")
    file = tmp_path / "receptor.yml"
    file.write_text(
        f"- node: {{id: from-file, datadir: {tmp_path}/data}}\n"
        f"- tls-server: {{name: own, cert: {tmp_path}/from-file.crt, key: {tmp_path}/from-file.key}}\n"
        "- tcp-listener: {bindaddr: 127.0.0.1, port: 0}\n"
        "- control-service: {service: control}\n"
        "- work-command: {worktype: upper, command: tr, params: a-z A-Z}\n"
    )
    with receptor.Node(config=file, mode=mode) as node, receptor.Node("other") as other:
        assert node.id == "from-file"
        other.add_peer(node.add_listener().address)
        other.wait_route("from-file", timeout_s=60)
        node.wait_route("other", timeout_s=60)
        with other.work.submit("from-file", "upper", b"by file") as unit:
            assert b"".join(unit.stdout()) == b"BY FILE"
        with node.listen("safe", tls="own"):
            client = receptor.TLS(cas=tmp_path / "ca.crt")
            with other.connect("from-file", "safe", tls=client, timeout_s=60) as sock:
                assert sock.peer.node == "from-file"
        assert (tmp_path / "data" / "from-file").is_dir()
    with pytest.raises(receptor.ConfigError, match="exclude each other"):
        receptor.Node("name", config=file, mode=mode)


@contextmanager
def web() -> Iterator[tuple[str, int]]:
    class Hello(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "5")
            self.end_headers()
            self.wfile.write(b"hello")

        def log_message(self, format: str, *args: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hello) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[:2]  # type: ignore[misc]
        server.shutdown()
        thread.join()


def test_a_web_server_behind_the_mesh(nodes: Mesh, tmp_path: Path) -> None:
    a, b = nodes.pair()
    with web() as (host, port):
        with b.expose(f"{host}:{port}", "web") as exposed, a.forward("b", "web") as forward:
            assert exposed.service == ("b", "web")
            connection = http.client.HTTPConnection(*forward.host_port, timeout=60)
            connection.request("GET", "/")
            assert connection.getresponse().read() == b"hello"
            connection.close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(forward.host_port, 60)
        with pytest.raises(receptor.AddressInUse):
            a.forward("b", "web", f"{host}:{port}")
    with a.forward("b", "web", f"unix://{tmp_path}/s") as forward:
        assert (tmp_path / "s").is_socket()
        with pytest.raises(ValueError, match="no host and port"):
            forward.host_port  # noqa: B018


async def test_proxies_for_asyncio(nodes: Mesh) -> None:
    nodes.node("hub")
    async with nodes.aio_node("a") as a, nodes.aio_node("b") as b:
        await a.wait_route("b", timeout_s=60)
        with web() as (host, port):
            async with b.expose(f"{host}:{port}", "web"), a.forward("b", "web") as forward:
                import asyncio

                reader, writer = await asyncio.open_connection(*forward.host_port)
                writer.write(b"GET / HTTP/1.0\r\n\r\n")
                assert (await reader.read()).endswith(b"hello")
                writer.close()
                await writer.wait_closed()
        assert (await a.routes())["hub"].cost == 1.0
        assert (await a.topology()).neighbours("hub") == {"a": 1.0, "b": 1.0}


def test_routes_and_topology(nodes: Mesh) -> None:
    a, _ = nodes.pair()
    c = nodes.node("c")
    c.wait_route("b", timeout_s=60)
    a.wait_route("c", timeout_s=60)
    assert c.routes()["b"] == receptor.Route("b", "a", 2.0)
    topology = c.topology()
    assert topology.nodes == ("a", "b", "c")
    assert topology.links == (("a", "b", 1.0), ("a", "c", 1.0))


def test_datagrams_that_nobody_reads_are_counted(nodes: Mesh) -> None:
    node = nodes.node("a")
    with node.datagram("in") as slow, node.datagram() as sender:
        for _ in range(20_000):
            sender.send_to(bytes(1000), ("a", "in"))
        while sender.status().sent < 20_000:
            pass
        dropped = slow.status().dropped
        assert 0 < dropped < 20_000
        for _ in range(20_000 - dropped):  # What was not dropped is there, all of it.
            assert slow.recv_from(timeout_s=60)[0] == bytes(1000)
        while slow.status().received < 20_000 - dropped:
            pass
        assert slow.status().dropped == dropped


# Attached programs.


def test_two_programs_share_a_daemons_node() -> None:
    daemon = Daemon("host")
    try:
        with receptor.Node.attach(daemon.socket) as one, receptor.Node.attach(str(daemon.socket)) as two:
            assert (one.id, one.mode, one.version) == ("host", "attached", receptor.__version__)
            with one.listen("chat") as listener, two.connect("host", "chat") as sock:
                with listener.accept(timeout_s=60) as far:
                    sock.sendall(b"hi")
                    assert far.recv(10) == b"hi"
            kept = two.listen("kept")
            one.close()
            with two.connect("host", "kept"), kept.accept(timeout_s=60):
                pass
            kept.close()
        with receptor.Node.attach(daemon.socket) as third:
            assert third.status().node == "host"
            daemon.process.terminate()
            with pytest.raises(receptor.ClosedError):
                third.wait_route("nowhere", timeout_s=60)
    finally:
        daemon.close()


def test_a_killed_daemon_is_told() -> None:
    daemon = Daemon("host")
    try:
        with receptor.Node.attach(daemon.socket) as node:
            daemon.process.kill()
            with pytest.raises(
                receptor.ClosedError, match=f"node 'host' is gone: the daemon of {daemon.socket} has ended"
            ):
                node.wait_route("nowhere", timeout_s=60)
    finally:
        daemon.close()


def test_an_attached_program_hears_the_daemons_log(caplog: pytest.LogCaptureFixture) -> None:
    heard = threading.Event()

    class Tell(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "Connection established with other" in record.getMessage() and record.node == "host":  # type: ignore[attr-defined]
                heard.set()

    logger, handler = logging.getLogger("receptor.node"), Tell()
    daemon = Daemon("host")
    logger.addHandler(handler)
    try:
        with (
            caplog.at_level(logging.DEBUG, logger="receptor.node"),
            receptor.Node.attach(daemon.socket) as quiet,
            receptor.Node.attach(daemon.socket, log_level="debug"),
        ):
            address = quiet.add_listener().address
            with receptor.Node("other", mode="sidecar", peers=[address]):
                assert heard.wait(60)  # What another program's link does is the daemon's news.
    finally:
        logger.removeHandler(handler)
        daemon.close()


def test_attaching_to_what_is_no_daemon(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with pytest.raises(receptor.ControlError, match="is a receptor daemon running"):
        receptor.Node.attach(path)
    with pytest.raises(receptor.ControlError, match="too long; attach by a shorter path"):
        receptor.Node.attach(tmp_path / ("d" * 150))
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        with pytest.raises(receptor.MeshTimeout):
            receptor.Node.attach(path, timeout_s=0.05)
        server.listen(0)  # The one that has given up fills its queue.
        with pytest.raises(receptor.MeshTimeout):
            receptor.Node.attach(path, timeout_s=0.05)
        path.chmod(0)
        if os.geteuid() != 0:
            with pytest.raises(receptor.ControlError, match="Permission denied"):
                receptor.Node.attach(path)


def test_attaching_takes_its_time_at_most_however_much_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_thread: InThread
) -> None:
    path = tmp_path / "s"
    seconds = itertools.count()
    monkeypatch.setattr("receptor._channel.time", types.SimpleNamespace(monotonic=lambda: float(next(seconds))))

    def say() -> None:
        client, _ = server.accept()
        with client:
            client.sendall(b"x" * 5000)
            client.recv(1)

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        saying = in_thread(say)
        with pytest.raises(receptor.MeshTimeout, match="/s: no answer within 60 s"):
            receptor.Node.attach(path, timeout_s=60)  # A second for each byte.
        with pytest.raises(ConnectionResetError):
            saying.result()


# Sidecars.


def test_a_sidecar_is_reaped() -> None:
    with receptor.Node("a", mode="sidecar") as node:
        assert node.mode == "sidecar"
        assert node._sidecar is not None
        pid = node._sidecar.pid
        assert os.path.exists(f"/proc/{pid}")
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, 0)


async def test_a_sidecar_is_reaped_although_the_close_of_its_node_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    node = await receptor.aio.Node("a", mode="sidecar")
    assert node._sidecar is not None
    pid = node._sidecar.pid

    async def cancelled(timeout_s: float) -> None:
        closing.cancel()
        await asyncio.sleep(0)

    monkeypatch.setattr(node, "_end_tasks", cancelled)
    closing = asyncio.create_task(node.close())
    with pytest.raises(asyncio.CancelledError):
        await closing
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, 0)


def test_a_killed_sidecar_is_told() -> None:
    with receptor.Node("a", mode="sidecar") as node:
        assert node._sidecar is not None
        with node.events("peer") as events:
            os.kill(node._sidecar.pid, signal.SIGKILL)
            killed = rf"node 'a' is gone: its sidecar, process {node._sidecar.pid}, has ended, killed by signal 9"
            with pytest.raises(receptor.ClosedError, match=killed):
                events.get(timeout_s=60)
        with pytest.raises(receptor.ClosedError, match=killed):
            node.status()
    with pytest.raises(receptor.ClosedError, match="node 'a' is closed"):
        node.status()


def test_no_loop_ends_in_silence_when_a_sidecar_is_killed(in_thread: InThread) -> None:
    with receptor.Node("a", mode="sidecar") as node:
        assert node._sidecar is not None
        with node.listen("x") as listener, node.datagram("y") as inbox, node.events("peer") as events:
            waiting = [in_thread(lambda: list(listener)), in_thread(inbox.recv_from), in_thread(lambda: list(events))]
            os.kill(node._sidecar.pid, signal.SIGKILL)
            for what, running in zip(("listener 'x' is closed: ", "socket 'y' is closed: ", ""), waiting, strict=True):
                with pytest.raises(receptor.ClosedError, match=f"{what}node 'a' is gone: .* killed by signal 9"):
                    running.result()


async def test_no_loop_of_asyncio_ends_in_silence_when_a_sidecar_is_killed() -> None:
    async with receptor.aio.Node("a", mode="sidecar") as node:
        assert node._sidecar is not None

        async def handle(*_: object) -> None: ...

        async with (
            node.listen("x") as listener,
            node.datagram("y") as inbox,
            node.events("peer") as events,
            await node.start_server(handle, "z") as server,
        ):
            waiting = [anext(aiter(listener)), inbox.recv_from(), anext(events), server.serve_forever()]
            tasks = [asyncio.ensure_future(what) for what in waiting]
            await asyncio.sleep(0)
            os.kill(node._sidecar.pid, signal.SIGKILL)
            said = ("listener 'x' is closed: ", "socket 'y' is closed: ", "", "listener 'z' is closed: ")
            for what, task in zip(said, tasks, strict=True):
                with pytest.raises(receptor.ClosedError, match=f"{what}node 'a' is gone: .* killed by signal 9"):
                    await task


async def test_a_killed_sidecar_is_told_to_tasks() -> None:
    async with receptor.aio.Node("a", mode="sidecar") as node:
        assert node._sidecar is not None
        async with node.events("peer") as events:
            os.kill(node._sidecar.pid, signal.SIGKILL)
            for what in (events.get(timeout_s=60), node.status(), node.routes()):
                with pytest.raises(receptor.ClosedError, match="its sidecar, process .* killed by signal 9"):
                    await what


def test_a_sidecar_that_is_no_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "receptor"
    program.write_text("#!/bin/sh\nexit 7\n")
    program.chmod(0o755)
    monkeypatch.setenv("RECEPTOR_DAEMON", str(program))
    with pytest.raises(
        receptor.ClosedError, match="node 'a' is gone: its sidecar, process .* has ended with exit status 7"
    ):
        receptor.Node("a", mode="sidecar")


def test_a_sidecar_ends_with_its_program() -> None:
    program = (
        "import receptor, os, sys\n"
        "node = receptor.Node('a', mode='sidecar')\n"
        "print(node._sidecar.pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        watch = os.pidfd_open(pid)
        process.kill()
    import select

    poll = select.poll()
    poll.register(watch, select.POLLIN)
    assert poll.poll(60_000), "the sidecar outlives its program"
    os.close(watch)


@pytest.mark.parametrize("mode", ["auto", "in-process", "sidecar"])
async def test_a_data_dir_that_cannot_be_written_is_told_at_once(
    mode: Literal["auto", "in-process", "sidecar"], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    wrong = tmp_path / "file" / "units"
    with pytest.raises(receptor.ConfigError, match=f"data_dir {wrong} cannot be made .*; name a directory"):
        receptor.Node("a", data_dir=wrong, mode=mode)
    with pytest.raises(receptor.ConfigError, match=f"data_dir {wrong} cannot be made .*; name a directory"):
        await receptor.aio.Node("a", data_dir=wrong, mode=mode)
    with receptor.Node("a", data_dir=tmp_path / "made", mode=mode):
        assert not (tmp_path / "made").exists(), "nothing is made without a unit"


def test_the_mode_is_checked() -> None:
    with pytest.raises(receptor.ConfigError, match="mode 'daemon': want one of auto, in-process, sidecar"):
        receptor.Node("a", mode="daemon")  # type: ignore[arg-type]
