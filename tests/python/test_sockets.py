"""Mesh streams are real sockets: what other libraries make of them."""

import asyncio
import contextlib
import http.client
import http.server
import os
import shutil
import socket
import socketserver
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from meshes import InThread, Mesh, descriptors

import receptor


@contextlib.contextmanager
def served(listener: receptor.Listener, handle: Callable[[receptor.MeshSocket], Any]) -> Iterator[None]:
    """Handle streams one after another in a thread until the block is left."""

    def serve() -> None:
        for sock in listener:
            with sock:
                handle(sock)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        listener.close()
        thread.join(60)
        assert not thread.is_alive()


class Page(http.server.BaseHTTPRequestHandler):
    """Any path is a page that says its name."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # As xmlrpc.server has it: an option of TCP.

    def do_GET(self) -> None:
        body = self.path.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None: ...


def test_http_client_and_server(nodes: Mesh) -> None:
    a, b = nodes.pair()

    def handle(sock: receptor.MeshSocket) -> None:
        Page(sock, sock.peer, None)  # type: ignore[arg-type]  # an address is any pair

    with b.listen("http") as listener, served(listener, handle):
        connection = http.client.HTTPConnection("b", timeout=60)
        connection.sock = a.connect("b", "http")
        for path in ("/one", "/two"):  # Over one stream.
            connection.request("GET", path)
            assert connection.getresponse().read() == path.encode()
        connection.close()


class MeshServer(socketserver.ThreadingMixIn, socketserver.BaseServer):
    """A socketserver whose streams come from the mesh."""

    def __init__(self, listener: receptor.Listener, handler: Any) -> None:
        super().__init__(listener.address, handler)
        self.listener = listener

    def fileno(self) -> int:
        return self.listener.fileno()

    def get_request(self) -> tuple[receptor.MeshSocket, receptor.Address]:
        sock = self.listener.accept(timeout_s=60)
        return sock, sock.peer

    def shutdown_request(self, request: Any) -> None:
        request.close()


def test_socketserver(nodes: Mesh) -> None:
    a, b = nodes.pair()
    with b.listen("http") as listener, MeshServer(listener, Page) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            connection = http.client.HTTPConnection("b", timeout=60)
            connection.sock = a.connect("b", "http")
            connection.request("GET", "/x")
            assert connection.getresponse().read() == b"/x"
            connection.close()
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make a certificate")
    folder = tmp_path_factory.mktemp("tls")
    make = "openssl req -x509 -newkey rsa:2048 -nodes -keyout both.pem -out cert.pem -subj /CN=b -days 2"
    names = ["-addext", "subjectAltName=DNS:b"]
    subprocess.run([*make.split(), *names], cwd=folder, check=True, capture_output=True)
    with (folder / "both.pem").open("a") as both:
        both.write((folder / "cert.pem").read_text())
    return folder


def test_ssl_on_top(nodes: Mesh, certificate: Path) -> None:
    a, b = nodes.pair()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(certificate / "both.pem")
    client = ssl.create_default_context(cafile=str(certificate / "cert.pem"))

    def handle(sock: receptor.MeshSocket) -> None:
        with server.wrap_socket(sock, server_side=True) as secure:
            secure.sendall(secure.recv(100).upper())
            with contextlib.suppress(OSError):
                secure.unwrap()

    with b.listen("tls") as listener, served(listener, handle):
        with client.wrap_socket(a.connect("b", "tls"), server_hostname="b") as secure:
            secure.sendall(b"sealed")
            assert secure.recv(100) == b"SEALED"
            assert secure.version() == "TLSv1.3"


@pytest.mark.parametrize("ends", ["in good order", "with a reset"])
async def test_asyncio_tls_on_top(nodes: Mesh, certificate: Path, caplog: pytest.LogCaptureFixture, ends: str) -> None:
    nodes.node("hub")
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(certificate / "both.pem")
    client = ssl.create_default_context(cafile=str(certificate / "cert.pem"))
    async with nodes.aio_node("a") as a, nodes.aio_node("b") as b:
        await a.wait_route("b", timeout_s=60)

        async def handle(reader: receptor.aio.MeshReader, writer: receptor.aio.MeshWriter) -> None:
            await writer.start_tls(server)
            writer.write((await reader.readline()).upper())
            await writer.drain()
            await reader.readline()
            if ends == "with a reset":
                await writer.get_extra_info("mesh_socket").abort(7)

        async with await b.start_server(handle, "tls"):
            reader, writer = await a.open_connection("b", "tls")
            await writer.start_tls(client, server_hostname="b")
            writer.write(b"sealed\n")
            assert await reader.readline() == b"SEALED\n"
            writer.write(b"go on\n")
            if ends == "with a reset":
                with pytest.raises(receptor.StreamResetError, match="code 7"):
                    await reader.read()
                writer.close()
                with pytest.raises(receptor.StreamResetError, match="code 7"):
                    await writer.wait_closed()
            else:
                assert await reader.read() == b""
                writer.close()
                await writer.wait_closed()
    assert [record.getMessage() for record in caplog.records] == []


def test_a_stream_is_the_stdin_and_stdout_of_a_program(nodes: Mesh) -> None:
    a, b = nodes.pair()

    def handle(sock: receptor.MeshSocket) -> None:
        subprocess.run(["tr", "a-z", "A-Z"], stdin=sock.fileno(), stdout=sock.fileno(), check=True)

    with b.listen("tr") as listener, served(listener, handle):
        with a.connect("b", "tr") as sock:
            sock.sendall(b"through a program")
            sock.shutdown(socket.SHUT_WR)
            assert sock.makefile("rb").read() == b"THROUGH A PROGRAM"


@pytest.mark.parametrize("nodes", ["in-process"], indirect=True)
def test_who_knows_nothing_of_meshes_sees_a_reset(nodes: Mesh) -> None:
    """A program that has the descriptor, and a copy of it: neither takes half of an answer for all of it."""
    a, b = nodes.pair()

    def broken(sock: receptor.MeshSocket) -> None:
        sock.sendall(b"half")
        assert sock.recv(1) == b"+"
        sock.abort()

    with b.listen("answer") as listener, served(listener, broken):
        with a.connect("b", "answer") as sock:
            cat = subprocess.Popen(["cat"], stdin=sock.fileno(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            assert cat.stdout is not None
            assert cat.stderr is not None
            assert cat.stdout.read(4) == b"half"
            sock.sendall(b"+")
            assert cat.wait(60) != 0
            assert b"Connection reset" in cat.stderr.read()
            cat.stdout.close()
            cat.stderr.close()
        with a.connect("b", "answer") as sock:
            copy = sock.dup()
        with copy:
            assert copy.recv(4) == b"half"
            copy.sendall(b"+")
            with pytest.raises(ConnectionResetError):
                copy.recv(1)
            assert copy.recv(1) == b""


def test_a_default_timeout_is_that_of_streams_only(nodes: Mesh, in_thread: InThread) -> None:
    """As of other sockets. What the package itself waits for takes as long as it takes."""
    a, b = nodes.pair()
    patient = socket.getdefaulttimeout()
    socket.setdefaulttimeout(0.01)
    try:
        with b.datagram("box") as inbox, b.listen("x") as listener, a.connect("b", "x") as sock:
            waiting = [in_thread(inbox.recv_from), in_thread(listener.accept)]
            with pytest.raises(TimeoutError):
                sock.recv(1)
            sock.settimeout(60)
            with sock.dup() as copy, waiting[1].result() as far:
                assert copy.gettimeout() == 60
                with pytest.raises(TimeoutError):
                    far.recv(1)
            with pytest.raises(receptor.MeshTimeout):
                inbox.recv_from(timeout_s=0.05)
            with a.datagram() as outbox:
                outbox.send_to(b"late", ("b", "box"))
            assert waiting[0].result()[0] == b"late"

            with b.work.offer("late", lambda unit: "done"):
                with pytest.raises(receptor.MeshTimeout):  # More than the default has passed for what takes units.
                    inbox.recv_from(timeout_s=0.05)
                with a.work.submit("b", "late") as unit:
                    assert b"".join(unit.stdout(timeout_s=60)) == b"done"
    finally:
        socket.setdefaulttimeout(patient)


def test_options_of_tcp_are_what_they_were_set_to(nodes: Mesh) -> None:
    node = nodes.node("a")
    with node.listen("s") as listener, node.connect("a", "s") as sock, listener.accept():
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1, "a stream holds nothing back"
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, False)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 0
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, struct.pack("i", 77))
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 77
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 16) == struct.pack("i", 77)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) == socket.SOCK_STREAM
        with pytest.raises(OSError):
            sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 100)


def test_sendfile(nodes: Mesh) -> None:
    a, b = nodes.pair()
    data = os.urandom(1 << 20)
    got: list[bytes] = []
    with b.listen("file") as listener, served(listener, lambda sock: got.append(sock.makefile("rb").read())):
        with tempfile.TemporaryFile() as file, a.connect("b", "file") as sock:
            file.write(data)
            file.seek(0)
            assert sock.sendfile(file) == len(data)
            sock.shutdown(socket.SHUT_WR)
            assert sock.recv(1) == b""
    assert got == [data]


def test_a_forking_server_serves_in_the_child(nodes: Mesh) -> None:
    """What a child is to have of a stream it gets by number; the sockets themselves are the parent's alone."""
    a, b = nodes.pair()

    def handle(sock: receptor.MeshSocket) -> None:
        program = "import socket, sys; s = socket.socket(fileno=int(sys.argv[1])); s.sendall(s.recv(100)[::-1])"
        arguments = [sys.executable, "-c", program, str(sock.fileno())]
        subprocess.run(arguments, pass_fds=[sock.fileno()], check=True)

    with b.listen("rev") as listener, served(listener, handle):
        with a.connect("b", "rev") as sock:
            sock.sendall(b"abc")
            assert sock.recv(100) == b"cba"


async def test_aiohttp_behind_a_proxy(nodes: Mesh) -> None:
    aiohttp = pytest.importorskip("aiohttp", reason="needs aiohttp")
    from aiohttp import web

    nodes.node("hub")
    async with nodes.aio_node("a") as a, nodes.aio_node("b") as b:
        await a.wait_route("b", timeout_s=60)

        async def page(request: Any) -> Any:
            return web.Response(text=f"page {request.match_info['name']}", content_type="text/html")

        app = web.Application()
        app.router.add_get("/{name}", page)
        runner = web.AppRunner(app)
        await runner.setup()
        with tempfile.TemporaryDirectory() as folder:
            await web.UnixSite(runner, f"{folder}/s").start()
            try:
                async with b.expose(f"unix://{folder}/s", "web"), a.forward("b", "web") as proxy:
                    host, port = proxy.host_port
                    async with aiohttp.ClientSession() as browser:
                        for name in ("one", "two"):
                            async with browser.get(f"http://{host}:{port}/{name}") as answer:
                                assert await answer.text() == f"page {name}"
            finally:
                await runner.cleanup()


async def test_uvicorn_behind_a_proxy(nodes: Mesh) -> None:
    """A page of an ASGI program, to one that fetches it several times over a connection, and a body as it is made."""
    uvicorn = pytest.importorskip("uvicorn", reason="needs uvicorn")
    aiohttp = pytest.importorskip("aiohttp", reason="needs aiohttp")
    parts = [b"part %d\n" % i for i in range(5)]

    async def program(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        question = b"".join([message["body"] async for message in bodies(receive)])
        headers = [(b"content-type", b"text/html"), (b"x-path", scope["path"].encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for part in [question, *parts]:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def bodies(receive: Any) -> AsyncIterator[Any]:
        more = True
        while more:
            message = await receive()
            more = message.get("more_body", False)
            yield message

    nodes.node("hub")
    listening = socket.create_server(("127.0.0.1", 0))  # Connections wait in its backlog until uvicorn takes them.
    server = uvicorn.Server(uvicorn.Config(program, lifespan="off", log_config=None))
    async with nodes.aio_node("a") as a, nodes.aio_node("b") as b:
        await a.wait_route("b", timeout_s=60)
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        try:
            exposed = b.expose(f"127.0.0.1:{listening.getsockname()[1]}", "web")
            async with exposed, a.forward("b", "web") as proxy, aiohttp.ClientSession() as browser:
                host, port = proxy.host_port
                for size in (0, 10, 1 << 20):
                    async with browser.post(f"http://{host}:{port}/{size}", data=b"x" * size) as answer:
                        assert (answer.status, answer.headers["x-path"]) == (200, f"/{size}")
                        assert await answer.read() == b"".join([b"x" * size, *parts])
        finally:
            server.should_exit = True
            await serving


def test_trio(nodes: Mesh) -> None:
    trio = pytest.importorskip("trio", reason="needs trio")
    a, b = nodes.pair()

    def handle(sock: receptor.MeshSocket) -> None:
        sock.sendall(sock.recv(100).upper())

    async def main() -> bytes:
        sock = a.connect("b", "up")
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(plain(sock)))
        async with stream:
            await stream.send_all(b"trio")
            data: bytes = await stream.receive_some(100)
            return data

    with b.listen("up") as listener, served(listener, handle):
        assert trio.run(main) == b"TRIO"


@pytest.mark.parametrize("make", [lambda: receptor.aio.Node("x").start(), lambda: receptor.aio.connect("unix:/x")])
def test_the_asyncio_face_says_that_trio_is_not_asyncio(make: Callable[[], Awaitable[object]]) -> None:
    trio = pytest.importorskip("trio", reason="needs trio")

    async def main() -> None:
        await make()

    before = descriptors()
    with pytest.raises(RuntimeError, match=r"event loop of asyncio: .* trio, use receptor.Node"):
        trio.run(main)
    assert descriptors().keys() == before.keys()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_anyio(nodes: Mesh, backend: str) -> None:
    """Both directions at once, more than any buffer holds, then the end of one before the other."""
    anyio = pytest.importorskip("anyio", reason="needs anyio")
    pytest.importorskip(backend, reason=f"needs {backend}")
    a, b = nodes.pair()
    data = os.urandom(4 << 20)

    def handle(sock: receptor.MeshSocket) -> None:
        while some := sock.recv(1 << 16):
            sock.sendall(some)
        sock.sendall(b"end")

    async def main() -> bytes:
        back = bytearray()
        async with await anyio.abc.SocketStream.from_socket(plain(a.connect("b", "echo"))) as stream:

            async def send() -> None:
                await stream.send(data)
                await stream.send_eof()

            async with anyio.create_task_group() as group:
                group.start_soon(send)
                async for some in stream:
                    back += some
        return bytes(back)

    with b.listen("echo") as listener, served(listener, handle):
        assert anyio.run(main, backend=backend) == data + b"end"


def plain(sock: receptor.MeshSocket) -> socket.socket:
    """The same stream as a socket of the standard library's own class, for those who insist on it."""
    copy = sock.dup()
    sock.close()
    return copy


POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))


@pytest.mark.skipif(not POSTGRES, reason="needs PostgreSQL's server programs")
def test_a_database_behind_the_mesh(tmp_path: Path) -> None:
    pg8000 = pytest.importorskip("pg8000.native", reason="needs the driver pg8000")
    if os.geteuid() == 0:
        owner = shutil.which("runuser")
        if owner is None:
            pytest.skip("PostgreSQL does not run as root, and there is no runuser")
        prefix = [owner, "-u", "postgres", "--"]
        folder = Path(tempfile.mkdtemp(dir="/tmp"))
        shutil.chown(folder, "postgres")
    else:
        prefix, folder = [], tmp_path
    bindir = str(POSTGRES[-1].parent)
    subprocess.run(
        [*prefix, f"{bindir}/initdb", "-D", f"{folder}/data", "-A", "trust", "-U", "me"],
        check=True,
        capture_output=True,
    )
    options = f"-c listen_addresses= -c unix_socket_directories={folder} -c fsync=off"
    start = [*prefix, f"{bindir}/pg_ctl", "-D", f"{folder}/data", "-w", "-o", options, "-l", f"{folder}/log", "start"]
    subprocess.run(start, check=True, capture_output=True)
    try:
        import receptor.testing

        with receptor.testing.mesh("client", "hub", "db") as mesh:
            with mesh["db"].expose(f"unix://{folder}/.s.PGSQL.5432", "pg"), mesh["client"].forward("db", "pg") as proxy:
                host, port = proxy.host_port
                connection = pg8000.Connection("me", host=host, port=port, database="postgres")
                rows = connection.run("SELECT sum(n) FROM generate_series(1, 1000) AS n")
                connection.close()
        assert int(rows[0][0]) == 500_500
    finally:
        stop = [*prefix, f"{bindir}/pg_ctl", "-D", f"{folder}/data", "-m", "immediate", "stop"]
        subprocess.run(stop, check=True, capture_output=True)
        shutil.rmtree(folder, ignore_errors=True)


def test_many_streams_cost_no_threads(nodes: Mesh, in_thread: InThread) -> None:
    a, b = nodes.pair()
    count = 200
    with b.listen("many", backlog=256) as listener:
        taking = in_thread(lambda: [listener.accept(timeout_s=60) for _ in range(count)])
        threads = threading.active_count()
        near = [a.connect("b", "many", timeout_s=60) for _ in range(count)]
        far = taking.result()
        for left, right in zip(near, far, strict=True):
            left.sendall(b"x")
            assert right.recv(1) in (b"x",)
        assert threading.active_count() <= threads
        for sock in [*near, *far]:
            sock.close()


@pytest.mark.parametrize("size", [1, 65_536, 1 << 20])
async def test_asyncio_streams_carry_everything(nodes: Mesh, size: int) -> None:
    nodes.node("hub")
    async with nodes.aio_node("a") as a:

        async def echo(reader: receptor.aio.MeshReader, writer: receptor.aio.MeshWriter) -> None:
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()

        async with await a.start_server(echo, "echo"):
            reader, writer = await a.open_connection("a", "echo")
            data = os.urandom(size)

            async def send() -> None:
                writer.write(data)
                await writer.drain()
                writer.write_eof()

            _, back = await asyncio.gather(send(), reader.read())
            assert back == data
            writer.close()
