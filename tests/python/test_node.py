"""The blocking node."""

import asyncio
import contextlib
import errno
import gc
import io
import logging
import os
import re
import select
import selectors
import signal
import socket
import sys
import threading
import types
import warnings
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
from meshes import InThread, Mesh, await_closed, descriptors

import receptor
from receptor import _ops
from receptor._channel import Channel, Deadline, deadline_of, next_on
from receptor._fds import receive
from receptor._modes import Sidecar
from receptor._session import Descriptor, Op, Reply, Session, encode
from receptor.errors import ProtocolError

T = TypeVar("T")
MAKERS = [f"{os.path.dirname(receptor.__file__)}/{name}.py" for name in ("_making", "node", "work")]
CAT = receptor.WorkCommand("cat", "cat")
FAIL = receptor.WorkCommand("fail", "sh", '-c "echo oh; exit 3"')
SLOW = receptor.WorkCommand("slow", "sh", '-c "echo first; exec sleep 60"')


def test_a_node_knows_itself(mesh: Mesh) -> None:
    node = mesh.node("a")
    assert node.id == "a"
    assert node.version
    status = node.status()
    assert status.node == "a"
    assert status.raw["NodeID"] == "a"
    assert status.connections == ()
    assert node.mode == mesh.mode


def test_without_an_id_or_a_file_there_is_no_node() -> None:
    with pytest.raises(receptor.ConfigError, match="needs an ID"):
        receptor.Node()
    with pytest.raises(ValueError, match="peers: want a list"):
        receptor.Node("a", peers="tcp://hub:2222")


def test_a_configuration_file_is_refused_with_its_place(tmp_path: Any) -> None:
    path = tmp_path / "bad.yml"
    path.write_text("- nonsense: {}\n")
    with pytest.raises(receptor.ConfigError, match="bad.yml"):
        receptor.Node(config=path)


def test_mistakes_are_named(mesh: Mesh) -> None:
    node = mesh.node("a")
    tls = {"cert": "x"}
    with node.datagram() as sock:
        mistakes: list[tuple[Callable[[], object], str]] = [
            (lambda: node.ping("a", timeout_s="5"), "timeout_s='5': want seconds"),  # type: ignore[arg-type]
            (lambda: node.ping("a", timeout_s=-1), "timeout_s=-1: want seconds, 0 or more"),
            (lambda: sock.send_to(b"x", "ab"), "address 'ab': want a node and a service"),  # type: ignore[arg-type]
            (lambda: sock.send_to(b"x", ("a", "b", "c")), "want a node and a service"),  # type: ignore[arg-type]
            (lambda: sock.send_to(b"x", ("a", 7)), "want a node and a service"),  # type: ignore[arg-type]
            (lambda: sock.send_to(b"x", ("a", ["b"])), "want a node and a service"),  # type: ignore[arg-type]
            (lambda: sock.send_to(b"x", 7), "want a node and a service"),  # type: ignore[arg-type]
            (lambda: sock.send_to("x", ("a", "b")), "data: want bytes, got str"),  # type: ignore[arg-type]
            (lambda: sock.send_to(b"x", ("a", "\udcff")), "want a node and a service"),
            (lambda: node.work.offer("f", 5), "work function 5: want something"),  # type: ignore[arg-type]
            (lambda: node.ping("a", hops=0), "hops=0: want 1 to 255"),
            (lambda: node.add_peer(2222), "peer 2222: want a receptor.Peer or an address"),  # type: ignore[arg-type]
            (lambda: receptor.Node("b", environ={"A": 5}), "environ: 'A': 5: want a mapping of str to str"),  # type: ignore[dict-item]
            (lambda: receptor.Node("b", work_commands=["cat"]), "'cat': want a receptor.WorkCommand"),  # type: ignore[list-item]
            (lambda: node.listen("x", tls=tls), "want a receptor.TLS or the name of a profile"),  # type: ignore[arg-type]
            (lambda: receptor.Node("b", environ=5), "environ=5: want a mapping"),  # type: ignore[arg-type]
            (lambda: receptor.Node("b", tls_profiles=5), "tls_profiles=5: want a mapping"),  # type: ignore[arg-type]
            (lambda: receptor.Node("b", tls_profiles={"x": tls}), "tls_profiles: 'x': {'cert': 'x'}: want a"),  # type: ignore[dict-item]
            (lambda: receptor.Node("b", peers=5), "peers=5: want a list of addresses"),  # type: ignore[arg-type]
            (lambda: receptor.Node("b", work_commands=5), "work_commands=5: want a list"),  # type: ignore[arg-type]
            (lambda: receptor.Node("b", data_dir=5), "data_dir=5: want a path"),  # type: ignore[arg-type]
            (lambda: receptor.Node("b", max_idle_s=5), "max_idle_s=5: want 21 or more"),
            (lambda: receptor.Node("b", config="b.yml"), "id='b' and config='b.yml' exclude each other"),
            (lambda: receptor.Node(config="b.yml", data_dir="d"), "data_dir='d' and config='b.yml' exclude each other"),
            (lambda: receptor.Node(config="b.yml", max_idle_s=30), "max_idle_s=30 and config='b.yml' exclude each"),
            (lambda: receptor.Node("b", log_level="loud"), "log_level='loud': want one of error, warning"),  # type: ignore[arg-type]
            (lambda: node.remove(None), "backend None: want a receptor.BoundListener"),  # type: ignore[arg-type]
            (lambda: node.add_peer("tcp://127.0.0.1:1", allowed_peers="b"), "allowed_peers: want a list"),
            (lambda: node.events(["peer"]), "event kind ['peer']: want one of peer"),  # type: ignore[arg-type]
            (lambda: node.add_listener(node_cost=5), "node_cost=5: want a mapping"),  # type: ignore[arg-type]
            (lambda: node.work.get(""), "unit='': want its name"),
            (lambda: node.expose(5), 'address=5: want "host:port"'),  # type: ignore[arg-type]
            (lambda: node.forward("a", "x", 5), 'listen=5: want "host:port"'),  # type: ignore[arg-type]
            (lambda: node.listen("x", advertise="no"), "advertise='no': want True or False"),  # type: ignore[arg-type]
            (lambda: receptor.TLS(cert="a.crt"), "cert and key go together, and key is missing"),
        ]
        for mistake, says in mistakes:
            with pytest.raises(receptor.ConfigError, match=re.escape(says)):
                mistake()


def test_what_keeps_a_program_waiting_is_told(nodes: Mesh) -> None:
    node = nodes.node("a")
    for address, says in (("tcp://127.0.0.1:99999", "want a number up to 65535"), ("tcp://hub", "no port")):
        with pytest.raises(receptor.ConfigError, match=says):
            node.add_peer(address)
    with pytest.raises(receptor.ConfigError, match='give "cert" and "key"'):
        node.listen("x", tls=receptor.TLS())
    node.add_peer("tcp://127.0.0.1:1")
    while True:
        with pytest.raises(receptor.MeshTimeout, match='no route to node "b" within the time given') as late:
            node.wait_route("b", timeout_s=0.01)
        if "tcp 127.0.0.1:1: " in str(late.value) and "connection refused" in str(late.value):
            break
    with node.work.submit("nowhere", "cat") as unit:
        with pytest.raises(
            receptor.MeshTimeout, match=f"unit {unit.id} is not complete within the time given: Pending"
        ):
            unit.wait(timeout_s=0.01)


def test_ping(mesh: Mesh) -> None:
    a, _ = mesh.pair()
    result = a.ping("b")
    assert result.from_node == "b"
    assert timedelta() < result.rtt < timedelta(seconds=10)


def test_ping_of_an_unknown_node_says_no_route(mesh: Mesh) -> None:
    node = mesh.node("a")
    with pytest.raises(receptor.Unreachable, match="no route.*nowhere|nowhere: no route") as caught:
        node.ping("nowhere", timeout_s=60)
    assert caught.value.reason is receptor.UnreachableReason.NO_ROUTE
    assert caught.value.code == "no_route"
    assert isinstance(caught.value, ConnectionError)
    assert caught.value.errno == errno.EHOSTUNREACH


def test_traceroute(mesh: Mesh) -> None:
    a, _ = mesh.pair()
    hops = list(a.traceroute("b"))
    assert [hop.number for hop in hops] == list(range(len(hops)))
    assert hops[-1].from_node == "b"
    assert hops[-1].error is None
    missed = list(a.traceroute("nowhere"))
    assert isinstance(missed[-1].error, receptor.Unreachable)


def test_wait_route_times_out(mesh: Mesh) -> None:
    node = mesh.node("a")
    with pytest.raises(TimeoutError) as caught:
        node.wait_route("nowhere", timeout_s=0.05)
    assert isinstance(caught.value, receptor.MeshTimeout)
    assert caught.value.errno == errno.ETIMEDOUT


def test_wait_route_ends_when_the_node_appears(mesh: Mesh, in_thread: InThread) -> None:
    a = mesh.node("a")
    waiting = in_thread(lambda: a.wait_route("b", timeout_s=60))
    mesh.node("b")
    assert waiting.result().next_hop == "b"


def test_listeners_and_peers_come_and_go(mesh: Mesh) -> None:
    a = mesh.node("a")
    bound = a.add_listener("tcp://127.0.0.1:0")
    assert not bound.address.endswith(":0")
    with pytest.raises(receptor.AddressInUse) as caught:
        a.add_listener(bound.address)
    assert caught.value.errno == errno.EADDRINUSE
    b = mesh.node("b", peers=[receptor.Peer(bound.address, cost=1.0)])
    assert a.wait_route("b", timeout_s=60).next_hop == "b"
    backend = b.add_peer("tcp://127.0.0.1:1", redial=False)
    b.remove(backend)
    a.remove(bound)


@pytest.mark.parametrize("asked", ["127.0.0.1:0", "tcp://127.0.0.1:0", "udp://127.0.0.1:0", "ws://127.0.0.1:0/mesh"])
def test_a_listener_says_what_a_neighbour_dials(nodes: Mesh, asked: str) -> None:
    a = nodes.node("a")
    bound = a.add_listener(asked)
    scheme, _, rest = asked.rpartition("://")
    assert re.fullmatch(f"{scheme or 'tcp'}://{rest.replace(':0', ':[1-9][0-9]+')}", bound.address)
    b = nodes.node("b", peers=[])
    b.add_peer(bound.address)
    assert a.wait_route("b", timeout_s=60).next_hop == "b"


def serve_one(listener: receptor.Listener, handle: Callable[[receptor.MeshSocket], Any]) -> Callable[[], Any]:
    def serve() -> Any:
        with listener.accept(timeout_s=60) as sock:
            return handle(sock)

    return serve


def read_all(sock: socket.socket) -> bytes:
    return b"".join(iter(lambda: sock.recv(65536), b""))


def test_streams_half_close_both_ways(mesh: Mesh, in_thread: InThread) -> None:
    a, b = mesh.pair()
    question = os.urandom(1 << 20)

    def answer(sock: receptor.MeshSocket) -> bytes:
        data = read_all(sock)
        sock.sendall(data[::-1])
        return data

    with b.listen("reverse") as listener:
        serving = in_thread(serve_one(listener, answer))
        with a.connect("b", "reverse", timeout_s=60) as sock:
            assert sock.peer == receptor.Address("b", "reverse")
            assert sock.local.node == "a"
            sock.sendall(question)
            sock.shutdown(socket.SHUT_WR)
            assert read_all(sock) == question[::-1]
            assert sock.recv(1) == b""
            assert sock.status().state in (receptor.StreamState.OPEN, receptor.StreamState.CLOSED)
        assert serving.result() == question


def test_streams_are_ordinary_sockets(mesh: Mesh, in_thread: InThread) -> None:
    a, b = mesh.pair()

    def shout(sock: receptor.MeshSocket) -> None:
        assert sock.peer.node == "a"
        with sock.makefile("rwb") as file:
            for line in file:
                file.write(line.upper())
                file.flush()

    with b.listen("shout") as listener:
        serving = in_thread(serve_one(listener, shout))
        sock = a.connect("b", "shout")
        with sock, sock.makefile("rwb") as file, selectors.DefaultSelector() as selector:
            file.write(b"hello\nworld\n")
            file.flush()
            selector.register(sock, selectors.EVENT_READ)
            assert selector.select(10)
            assert file.readline() == b"HELLO\n"
            assert file.readline() == b"WORLD\n"
            sock.shutdown(socket.SHUT_WR)
            assert file.readline() == b""
        serving.result()


def test_a_reset_is_never_an_end_of_file(mesh: Mesh, in_thread: InThread) -> None:
    a, b = mesh.pair()
    got = threading.Event()

    def break_off(sock: receptor.MeshSocket) -> None:
        sock.sendall(b"half")
        assert got.wait(60)
        sock.abort(42)

    with b.listen("flaky") as listener:
        serving = in_thread(serve_one(listener, break_off))
        with a.connect("b", "flaky") as sock:
            assert sock.recv(100) == b"half"
            got.set()
            serving.result()
            with pytest.raises(receptor.StreamResetError) as caught:
                sock.recv(100)
            assert isinstance(caught.value, ConnectionResetError)
            assert caught.value.remote
            assert caught.value.error_code == 42
            assert sock.status().state is receptor.StreamState.RESET


def test_a_reset_after_shutdown_is_never_an_end_of_file(mesh: Mesh, in_thread: InThread) -> None:
    a, b = mesh.pair()
    with b.listen("flaky") as listener:

        def read_and_abort(sock: receptor.MeshSocket) -> None:
            read_all(sock)
            sock.abort(7)

        serving = in_thread(serve_one(listener, read_and_abort))
        with a.connect("b", "flaky") as sock, sock.makefile("rb") as file:
            sock.shutdown(socket.SHUT_WR)
            with pytest.raises(receptor.StreamResetError):
                file.read()
        serving.result()


READS: dict[str, Callable[[socket.socket], Any]] = {
    "recv": lambda sock: sock.recv(10),
    "recv_into": lambda sock: sock.recv_into(bytearray(10)),
    "recvfrom": lambda sock: sock.recvfrom(10),
    "recvfrom_into": lambda sock: sock.recvfrom_into(bytearray(10)),
    "recvmsg": lambda sock: sock.recvmsg(10),
    "recvmsg_into": lambda sock: sock.recvmsg_into([bytearray(10), bytearray(10)]),
    "makefile": lambda sock: sock.makefile("rb").read(),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_no_way_of_reading_takes_a_reset_for_an_end_of_file(nodes: Mesh, read: Callable[[socket.socket], Any]) -> None:
    a, b = nodes.pair()
    with b.listen("flaky") as listener, a.connect("b", "flaky") as sock, listener.accept() as far:
        far.abort(7)
        for _ in range(2):  # The kernel tells of it once at most.
            with pytest.raises(receptor.StreamResetError) as caught:
                read(sock)
            assert caught.value.error_code == 7


def test_every_way_of_reading_and_writing(nodes: Mesh) -> None:
    a, b = nodes.pair()
    with b.listen("any") as listener, a.connect("b", "any") as sock, listener.accept() as far:
        assert far.sendmsg([b"one", memoryview(b" two"), b" three four five six"]) == 27
        assert sock.recvfrom(4) == (b"one ", None)
        parts = bytearray(4), bytearray(6)
        assert sock.recvfrom_into(parts[0]) == (4, None)
        assert sock.recvmsg(6) == (b"three ", [], 0, None)
        assert sock.recvmsg_into(iter(parts)) == (10, [], 0, None)
        assert b"".join(parts) == b"four five "
        assert (sock.recvmsg(0)[0], sock.recvmsg_into([])[0]) == (b"", 0)  # Which say nothing of an end.
        assert sock.recv(10) == b"six"
        with pytest.raises(receptor.ConfigError, match="stream to b:any: .* no descriptors"):
            socket.send_fds(sock, [b"x"], [0])
        sock.shutdown(socket.SHUT_WR)
        assert [far.recvfrom(1)[0], far.recvmsg(1)[0], far.recv(1)] == [b""] * 3
        sock.abort(7)
        with pytest.raises(receptor.StreamResetError):
            while True:
                far.sendmsg([b"x" * 65536])


def test_sending_into_a_reset_says_so(mesh: Mesh, in_thread: InThread) -> None:
    a, b = mesh.pair()
    with b.listen("flaky") as listener:

        def read_and_abort(sock: receptor.MeshSocket) -> None:
            sock.recv(1)
            sock.abort(9)

        serving = in_thread(serve_one(listener, read_and_abort))
        with a.connect("b", "flaky") as sock:
            sock.sendall(b"x")
            serving.result()
            with pytest.raises(receptor.StreamResetError):
                while True:
                    sock.sendall(b"x" * 65536)


def test_closing_with_data_unread_reaches_the_other_end(nodes: Mesh) -> None:
    """Whether it sends for ever or says nothing more: what is closed is closed both ways."""
    a, b = nodes.pair()
    with b.listen("talk") as listener:
        for shut in (False, True):
            sock = a.connect("b", "talk", timeout_s=60)
            with listener.accept(timeout_s=60) as far:
                far.settimeout(60)
                far.sendall(b"x" * 1000)
                assert sock.recv(1) == b"x"
                if shut:
                    sock.shutdown(socket.SHUT_WR)
                sock.close()
                with pytest.raises(ConnectionError):
                    while True:
                        far.sendall(b"x" * 65536)
    assert a.status().node == "a"


def test_a_service_that_does_not_exist(mesh: Mesh) -> None:
    a, _ = mesh.pair()
    with pytest.raises(receptor.Unreachable) as caught:
        a.connect("b", "nothing", timeout_s=60)
    assert caught.value.reason is receptor.UnreachableReason.SERVICE_UNKNOWN


def test_a_service_name_is_taken_once(mesh: Mesh) -> None:
    node = mesh.node("a")
    with node.listen("echo") as listener, pytest.raises(receptor.AddressInUse):
        node.listen("echo")
    assert repr(listener) == "<receptor._streams.Listener a:echo closed>"


def test_a_service_can_be_offered_again_at_once(nodes: Mesh) -> None:
    """The node hears a moment later that what is closed here is closed; who opens the next need not know."""
    node = nodes.node("a")
    for _ in range(200):
        node.listen("echo").close()
        node.datagram("echo").close()
        node.expose("127.0.0.1:1", "echo").close()
    with node.listen("echo"), pytest.raises(receptor.AddressInUse):
        node.datagram("echo")


def test_closing_a_listener_ends_its_loop(mesh: Mesh, in_thread: InThread) -> None:
    node = mesh.node("a")
    listener = node.listen()
    assert listener.service
    assert listener.address == receptor.Address("a", listener.service)
    serving = in_thread(lambda: list(listener))
    with node.listen("other") as other, pytest.raises(receptor.MeshTimeout):
        other.accept(timeout_s=0.01)
    listener.close()
    assert serving.result() == []
    with pytest.raises(receptor.ClosedError):
        listener.accept()


@pytest.mark.parametrize("moment", ["with its descriptor", "with its peer", "before it is confirmed"])
def test_an_accept_that_is_interrupted_costs_only_its_stream(
    nodes: Mesh, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    a, b = nodes.pair()
    messages = 2 if moment == "with its peer" else 1

    def interrupted(stream: int) -> bytes:
        raise KeyboardInterrupt

    def received(sock: socket.socket, size: int, deadline: Deadline) -> tuple[bytes, list[Descriptor]]:
        nonlocal messages
        message = next_on(sock, size, deadline)
        messages -= 1
        if messages == 0:
            raise KeyboardInterrupt
        return message

    with b.listen("loss") as listener, a.connect("b", "loss") as lost:
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            if moment == "before it is confirmed":
                patched.setattr("receptor._sockets.confirmation", interrupted)
            else:
                patched.setattr("receptor._streams.next_on", received)
            listener.accept(timeout_s=60)
        with a.connect("b", "loss") as sock, listener.accept(timeout_s=60) as far:
            far.sendall(b"all")
            far.close()
            sock.settimeout(60)
            assert sock.makefile("rb").read() == b"all"
        listener.close()
        lost.settimeout(60)
        with pytest.raises(receptor.StreamResetError):
            lost.recv(1)


class Losing:
    """A recvmsg that loses the first descriptor of a listener, as at the limit on open files."""

    def __init__(self, listener: receptor.Listener | receptor.aio.Listener) -> None:
        self.listener = listener
        self.lost = False

    def __call__(self, sock: socket.socket, size: int, *flags: int) -> tuple[bytes, list[Descriptor]]:
        data, descriptors = receive(sock, size, *flags)
        if descriptors and not self.lost and sock.fileno() == self.listener.fileno():
            self.lost = True
            descriptors[0].close()
            raise ProtocolError("a descriptor was lost on its way")
        return data, descriptors


def test_a_stream_that_is_lost_at_the_limit_is_reset(nodes: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = nodes.pair()
    with b.listen("loss") as listener, a.connect("b", "loss") as lost:
        monkeypatch.setattr("receptor._fds.receive", Losing(listener))
        with pytest.raises(receptor.ReceptorError, match="was lost"):
            listener.accept(timeout_s=60)
        with a.connect("b", "loss") as sock, listener.accept(timeout_s=60) as far:
            far.sendall(b"x")
            assert sock.recv(1) == b"x"
            lost.settimeout(60)
            with pytest.raises(receptor.StreamResetError):
                lost.recv(1)


async def test_a_server_goes_on_at_the_limit(nodes: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes.node("hub")
    async with nodes.aio_node("a") as a, nodes.aio_node("b") as b:
        await a.wait_route("b", timeout_s=60)
        told: list[str] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["message"]))

        async def handle(_: receptor.aio.MeshReader, writer: receptor.aio.MeshWriter) -> None:
            writer.write(b"here")

        async with await b.start_server(handle, "loss") as server:
            monkeypatch.setattr("receptor._fds.receive", Losing(server._listener))
            lost, lost_writer = await a.open_connection("b", "loss")
            with pytest.raises(receptor.StreamResetError):
                await lost.read()
            reader, writer = await a.open_connection("b", "loss")
            assert await reader.read() == b"here"
            for each in (lost_writer, writer):
                each.close()
        assert told == ["service 'loss' failed"]


@pytest.mark.parametrize("wrong", [-1, float("nan"), "1"])
async def test_what_is_no_time_to_wait(nodes: Mesh, wrong: Any) -> None:
    node = nodes.node("hub")
    with node.listen("x") as listener, node.datagram() as sock, pytest.raises(receptor.ConfigError, match="timeout_s="):
        listener.accept(timeout_s=wrong)
    with pytest.raises(receptor.ConfigError, match="timeout_s="):
        sock.recv_from(timeout_s=wrong)
    async with nodes.aio_node("a") as a, a.listen("y") as other:
        with pytest.raises(receptor.ConfigError, match="timeout_s="):
            await other.accept(timeout_s=wrong)
    with node.work.offer("f", print), node.work.submit("hub", "f") as unit:
        with pytest.raises(receptor.ConfigError, match="timeout_s="):
            unit.stdout(timeout_s=wrong)
    with pytest.raises(receptor.ConfigError, match="timeout_s="):
        receptor.Node.attach("/nowhere", timeout_s=wrong)


@pytest.mark.parametrize("wrong", [True, float("inf"), 1e300])
async def test_how_long_nobody_waits(nodes: Mesh, wrong: Any) -> None:
    node = nodes.node("hub")
    async with nodes.aio_node("a") as a:
        for call in (node.ping, node.wait_route):
            with pytest.raises(receptor.ConfigError, match="timeout_s="):
                call("hub", timeout_s=wrong)
        with pytest.raises(receptor.ConfigError, match="timeout_s="):
            await a.ping("a", timeout_s=wrong)


async def test_what_is_there_already_needs_no_time(nodes: Mesh) -> None:
    """As after ``select``: a time of 0 gives what it told of."""
    a, b = nodes.pair()
    with b.listen("x") as listener, b.datagram("y") as inbox, b.events("service") as events:
        for take in (listener.accept, inbox.recv_from, events.get):
            with pytest.raises(receptor.MeshTimeout, match="within 0 s"):
                take(timeout_s=0)
        with a.connect("b", "x") as sock, a.datagram() as outbox, a.listen("z"):
            outbox.send_to(b"here", ("b", "y"))
            for waits in (listener, inbox, events._channel._sock):
                select.select([waits], [], [])
            with listener.accept(timeout_s=0) as far:
                assert far.peer == sock.local
            assert inbox.recv_from(timeout_s=0)[0] == b"here"
            assert isinstance(events.get(timeout_s=0), receptor.ServiceSeen)
    async with nodes.aio_node("c") as c:
        await c.wait_route("b", timeout_s=60)
        async with c.listen("x") as listening, c.datagram("y") as mailbox:
            b.wait_route("c", timeout_s=60)
            with b.connect("c", "x") as sock, b.datagram() as outbox:
                outbox.send_to(b"here", ("c", "y"))
                select.select([listening], [], [])
                select.select([mailbox], [], [])
                (await listening.accept(timeout_s=0)).close()
                assert (await mailbox.recv_from(timeout_s=0))[0] == b"here"


def test_output_that_is_not_waited_for(nodes: Mesh) -> None:
    node = nodes.node("a", work_commands=[receptor.WorkCommand("sleep", "sleep", "60")])
    with node.work.submit("a", "sleep") as unit, pytest.raises(receptor.MeshTimeout, match="nothing came for 0 s"):
        next(unit.stdout(timeout_s=0))


def test_output_that_nobody_reads_leaves_no_socket_open(nodes: Mesh) -> None:
    node = nodes.node("a", work_commands=[receptor.WorkCommand("true", "true")])
    with node.work.submit("a", "true") as unit:
        unit.wait(timeout_s=60)
        before = descriptors()
        unit.stdout()
        await_closed(before)


WRONG_NUMBERS: list[tuple[str, Callable[[Any, Any], Any], list[Any]]] = [
    ("backlog", lambda node, wrong: node.listen("n", backlog=wrong), [-5, 0, True, "5", None, 1.5, 10**30]),
    ("hops", lambda node, wrong: node.ping("a", hops=wrong), [0, 256, True, "5", None, 1.5]),
    ("concurrency", lambda node, wrong: node.work.offer("f", print, concurrency=wrong), [-1, True, "5", 10**30]),
    ("cost", lambda node, wrong: node.add_peer("tcp://127.0.0.1:1", cost=wrong), [float("nan"), float("inf"), b"1"]),
    ("tags", lambda node, wrong: node.listen("n", tags=wrong), ["ab", {1: "x"}, {"x": b"y"}]),
    ("params", lambda node, wrong: node.work.submit("a", "f", params=wrong), ["ab", b"ab"]),
]


@pytest.mark.parametrize(("name", "call", "wrong"), WRONG_NUMBERS, ids=[each[0] for each in WRONG_NUMBERS])
async def test_what_is_no_argument(nodes: Mesh, name: str, call: Callable[[Any, Any], Any], wrong: list[Any]) -> None:
    """The error names it, and the node goes on."""
    node = nodes.node("hub")
    async with nodes.aio_node("a") as a:
        for value in wrong:
            with pytest.raises(receptor.ConfigError, match=f"^{name}="):
                call(node, value)
            with pytest.raises(receptor.ConfigError, match=f"^{name}="):
                await call(a, value)
        assert (await a.status()).node == "a"
        assert node.status().node == "hub"


def test_a_code_for_a_reset_fits_into_the_protocol(nodes: Mesh) -> None:
    node = nodes.node("a")
    with node.listen("x") as listener:
        for wrong in (-1, 2**62, True, "1"):
            with node.connect("a", "x") as sock, pytest.raises(receptor.ConfigError, match="^error_code="):
                sock.abort(wrong)  # type: ignore[arg-type]
        with node.connect("a", "x") as sock:
            sock.abort(2**62 - 1)
        listener.close()


@pytest.mark.parametrize("wrong", ["x\0", "\udc80", b"x", 5])
async def test_what_is_no_name_of_a_service(nodes: Mesh, wrong: Any) -> None:
    """Names are cut at a zero byte in the mesh: this one would be another's."""
    node = nodes.node("hub")
    async with nodes.aio_node("a") as a:
        calls: list[tuple[str, Callable[[Any], Any]]] = [
            ("service", lambda node: node.listen(wrong)),
            ("service", lambda node: node.datagram(wrong)),
            ("service", lambda node: node.expose("127.0.0.1:1", wrong)),
            ("service", lambda node: node.forward("a", wrong)),
            ("node", lambda node: node.forward(wrong, "x")),
            ("worktype", lambda node: node.work.offer(wrong, print)),
        ]
        for name, call in calls:
            with pytest.raises(receptor.ConfigError, match=f"^{name}={re.escape(repr(wrong))}"):
                call(node)
            with pytest.raises(receptor.ConfigError, match=f"^{name}={re.escape(repr(wrong))}"):
                await call(a)
        with pytest.raises(receptor.ConfigError, match=f"^service={re.escape(repr(wrong))}"):
            node.connect("a", wrong)
        with pytest.raises(receptor.ConfigError, match=f"^service={re.escape(repr(wrong))}"):
            await a.open_socket("hub", wrong)
        with pytest.raises(receptor.ConfigError, match=f"^id={re.escape(repr(wrong))}"):
            receptor.Node(wrong)


@pytest.mark.parametrize("wrong", [b"b", "", None, 1])
def test_what_is_no_name(mesh: Mesh, wrong: Any) -> None:
    node = mesh.node("a")
    for call in (
        lambda: node.ping(wrong),
        lambda: node.traceroute(wrong),
        lambda: node.wait_route(wrong),
        lambda: node.connect(wrong, "x"),
        lambda: node.work.submit(wrong, "cat"),
    ):
        with pytest.raises(receptor.ConfigError, match=f"node={re.escape(repr(wrong))}"):
            call()
    with pytest.raises(receptor.ConfigError, match="service="):
        node.connect("a", wrong)
    with pytest.raises(receptor.ConfigError, match="worktype="):
        node.work.submit("a", wrong)


def test_datagrams(mesh: Mesh) -> None:
    a, b = mesh.pair()
    with a.datagram() as left, b.datagram("right") as right:
        left.send_to(b"hi", ("b", "right"))
        assert right.recv_from(timeout_s=60) == (b"hi", left.address)
        right.send_to(b"", left.address)
        assert left.recv_from(timeout_s=60) == (b"", receptor.Address("b", "right"))
        with pytest.raises(receptor.MeshTimeout):
            left.recv_from(timeout_s=0.01)


def test_datagram_notices_are_exceptions(mesh: Mesh) -> None:
    a, _ = mesh.pair()
    with a.datagram() as sock:
        sock.send_to(b"hi", ("b", "nobody"))
        with pytest.raises(receptor.Unreachable) as caught:
            sock.recv_from(timeout_s=60)
        assert caught.value.reason is receptor.UnreachableReason.SERVICE_UNKNOWN
        assert (caught.value.node, caught.value.service) == ("b", "nobody")
        with pytest.raises(receptor.ConfigError):
            sock.send_to(b"hi", ("n" * 256, "s"))
        with pytest.raises(receptor.PayloadTooLarge):
            sock.send_to(bytes(4 << 20), ("b", "nobody"))
        sock.send_to(bytes(70_000), ("b", "nobody"))
        with pytest.raises(receptor.PayloadTooLarge):
            sock.recv_from(timeout_s=60)


def test_what_the_node_refuses_names_the_address_of_the_datagram(nodes: Mesh) -> None:
    node = nodes.node("a")
    with node.datagram("s") as sock:
        for to in (("localhost", "nobody"), ("nowhere", "s")):
            sock.send_to(b"hi", to)
            with pytest.raises(receptor.Unreachable, match=f"datagram to {to[0]}:{to[1]}: ") as caught:
                sock.recv_from(timeout_s=60)
            assert (caught.value.node, caught.value.service) == to
        sock.send_to(bytes(70_000), ("nowhere", "s"))
        with pytest.raises(receptor.PayloadTooLarge, match="datagram to nowhere:s: .*65499 bytes$"):
            sock.recv_from(timeout_s=60)
        sock.send_to(b"hi", ("LocalHost", "s"))
        assert sock.recv_from(timeout_s=60) == (b"hi", sock.address)


def test_closing_a_datagram_socket_ends_its_reader(mesh: Mesh, in_thread: InThread) -> None:
    node = mesh.node("a")
    sock = node.datagram()
    reading = in_thread(sock.recv_from)
    sock.close()
    with pytest.raises(receptor.ClosedError):
        reading.result()


def test_events(mesh: Mesh) -> None:
    a = mesh.node("a")
    with a.events("peer", "route", "service") as events:
        b = mesh.node("b")
        seen: list[receptor.Event] = []
        while not any(isinstance(event, receptor.PeerUp) for event in seen):
            seen.append(events.get(timeout_s=60))
        assert next(event for event in seen if isinstance(event, receptor.PeerUp)).node == "b"
        with b.listen("news"):
            while not any(isinstance(event, receptor.ServiceSeen) and event.service == "news" for event in seen):
                seen.append(events.get(timeout_s=60))
        with pytest.raises(receptor.MeshTimeout):
            while True:
                events.get(timeout_s=0.05)
    with pytest.raises(receptor.ClosedError):
        events.get()
    with pytest.raises(ValueError, match="event kind 'weather'"):
        a.events("weather")  # type: ignore[arg-type]


def test_events_that_nobody_takes_are_counted(mesh: Mesh) -> None:
    fake, node = mesh.fake, mesh.node("a")
    with node.events("route") as events:
        fake_node = fake.nodes["a"]

        def flood() -> None:
            for number in range(50_000):
                fake_node.event("route", {"ev": "route", "table": {"x" * 100: str(number)}})

        fake.do(flood)
        kinds = {type(events.get(timeout_s=60)) for _ in range(1000)}
        fake.do(flood)
        while receptor.EventsLost not in kinds:
            kinds.add(type(events.get(timeout_s=60)))
    assert kinds == {receptor.RoutesChanged, receptor.EventsLost}


def test_a_program_that_takes_no_events_holds_up_nobody(nodes: Mesh) -> None:
    """The node goes on, and says in their place how many it could not keep."""
    a, b = nodes.pair()

    def chatty(unit: receptor.WorkContext) -> None:
        for step in range(100):
            unit.progress(str(step))

    with a.events("work") as events, a.work.offer("chatty", chatty):
        for _ in range(100):
            with a.work.submit("a", "chatty") as unit:
                unit.wait(timeout_s=60)
        assert b.ping("a", timeout_s=60).from_node == "a"
        count = 0
        while not isinstance(event := events.get(timeout_s=60), receptor.EventsLost):
            count += 1
        assert 1000 < count < 10_000
        assert event.count > 1000
        with a.work.submit("a", "chatty") as unit:  # What comes later arrives.
            while not (isinstance(event, receptor.WorkChanged) and event.status.unit == unit.id):
                event = events.get(timeout_s=60)


def test_own_services_are_events_too(nodes: Mesh) -> None:
    node = nodes.node("a")
    with node.events("service") as events:
        with node.listen("news"), node.listen("secret", advertise=False):
            while (event := events.get(timeout_s=60)) != receptor.ServiceSeen("a", "news"):
                assert event.service == "control", f"{event} was not looked for"  # type: ignore[union-attr]
            assert "news" in [ad.service for ad in node.status().advertisements]
        assert events.get(timeout_s=60) == receptor.ServiceGone("a", "news")


def test_events_in_a_selector(mesh: Mesh) -> None:
    node = mesh.node("a")
    seen: set[str] = set()
    with selectors.DefaultSelector() as selector, node.events("peer") as events:
        selector.register(events, selectors.EVENT_READ)
        assert not selector.select(0)
        for name in ("b", "c"):
            mesh.node(name)
        while len(seen) < 2:
            assert selector.select(60), f"not readable, with events of {seen} read"
            seen.add(next(events).node)  # type: ignore[union-attr]
        with pytest.raises(receptor.MeshTimeout):
            events.get(timeout_s=0)
        assert not selector.select(0)
        node.close()
        assert selector.select(60)
        selector.unregister(events)
        assert all(isinstance(event, receptor.PeerDown) for event in events), "the stream goes on"
    assert events.fileno() == -1


def test_an_event_stream_is_readable_as_long_as_an_event_waits() -> None:
    ours, theirs = socket.socketpair()
    with theirs, contextlib.closing(Channel(ours, Session())) as channel, selectors.DefaultSelector() as selector:
        channel.read_frame_by_frame()
        selector.register(channel, selectors.EVENT_READ)
        told = [{"ev": "service", "kind": "seen", "node": "b", "service": f"{'s' * 70_000}{number}"} for number in "12"]
        theirs.sendall(b"".join(map(encode, told)))
        for event in told:
            assert selector.select(0)
            assert channel.next_event(Deadline(0, "events")) == receptor.ServiceSeen("b", event["service"])
        assert not selector.select(0)


def test_closing_the_node_ends_the_event_loop(mesh: Mesh, in_thread: InThread) -> None:
    node = mesh.node("a")
    events = node.events("peer")
    reading = in_thread(lambda: list(events))
    node.close()
    assert reading.result() == []
    events.close()


def test_a_node_that_ends_by_itself_says_why(mesh: Mesh) -> None:
    fake, node = mesh.fake, mesh.node("a")
    err = {"code": "in_use", "msg": "another node with this ID was in the mesh first"}
    with node.events("peer") as events:
        fake.do(lambda: fake.nodes["a"].close(err))
        with pytest.raises(receptor.ClosedError, match="in the mesh first"):
            next(events)
    with pytest.raises(receptor.ClosedError):
        node.status()


def test_log_records(mesh: Mesh, caplog: pytest.LogCaptureFixture) -> None:
    arrived = threading.Event()

    class Tell(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            arrived.set()

    logger, handler = logging.getLogger("receptor.node"), Tell()
    logger.addHandler(handler)
    try:
        with caplog.at_level(logging.DEBUG, logger="receptor.node"):
            node = mesh.node("a", log_level="debug")
            node.add_peer("tcp://127.0.0.1:1")
            assert arrived.wait(60)  # Opening has its records, too.
            assert node.status().node == "a"
            node.close()
    finally:
        logger.removeHandler(handler)
    assert caplog.records[0].name == "receptor.node"
    assert caplog.records[0].node == "a"  # type: ignore[attr-defined]
    assert caplog.records[0].getMessage()


def test_a_log_handler_that_fails_costs_its_record_only(
    nodes: Mesh, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    records: list[logging.LogRecord] = []
    second = threading.Event()

    class Fail(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)
            if len(records) > 1:
                second.set()
            raise ValueError("the program's")

    def made(*arguments: Any, **more: Any) -> logging.LogRecord:
        record = logging.LogRecord(*arguments, **more)
        record.node = "that of all records of the program"
        return record

    logger = logging.getLogger("receptor.node")
    monkeypatch.setattr(logger, "handlers", [Fail()])
    monkeypatch.setattr(logger, "level", logging.DEBUG)
    before = logging.getLogRecordFactory()
    logging.setLogRecordFactory(made)
    try:
        node = nodes.node("a", log_level="debug")
        for _ in range(10):
            node.remove(node.add_peer("tcp://127.0.0.1:1"))
        assert second.wait(60)
        node.close()
    finally:
        logging.setLogRecordFactory(before)
    assert records[0].node == "a"  # type: ignore[attr-defined]
    assert "ValueError: the program's" in capfd.readouterr().err


# Work.


def test_a_unit_from_submit_to_release(mesh: Mesh) -> None:
    node = mesh.node("a", work_commands=[CAT])
    with node.work.submit("a", "cat", b"hello") as unit:
        assert b"".join(unit.stdout()) == b"hello"
        result = unit.wait(timeout_s=60)
        assert (result.state, result.exit_code, result.stdout_size) == (receptor.WorkState.SUCCEEDED, 0, 5)
        assert node.work.get(unit.id).status().complete
        assert unit.id in node.work.list()
        assert b"".join(unit.stdout(offset=3)) == b"lo"
        with unit.open_stdout(1) as sock:
            assert read_all(sock) == b"ello"
    with pytest.raises(receptor.UnitNotFound):
        unit.status()
    assert node.work.list() == {}


def chunked() -> Iterator[bytes]:
    yield b"he"
    yield b""
    yield b"llo"


@pytest.mark.parametrize(
    "payload", [b"hello", bytearray(b"hello"), "hello", lambda: io.BytesIO(b"hello"), chunked, b""]
)
def test_payloads(mesh: Mesh, payload: Any) -> None:
    node = mesh.node("a", work_commands=[CAT])
    with node.work.submit("localhost", "cat", payload() if callable(payload) else payload) as unit:
        assert b"".join(unit.stdout()) == (b"" if payload == b"" else b"hello")


def test_a_large_payload_passes_in_pieces(mesh: Mesh) -> None:
    node = mesh.node("a", work_commands=[CAT])
    block = os.urandom(1 << 20)
    with node.work.submit("a", "cat", (block for _ in range(24))) as unit:
        assert sum(map(len, unit.stdout())) == 24 << 20


def test_remote_work(mesh: Mesh) -> None:
    a, _ = mesh.pair(work_commands=[CAT])
    with a.work.submit("b", "cat", b"over there") as unit:
        assert b"".join(unit.stdout()) == b"over there"
        assert unit.wait(timeout_s=60).exit_code == 0
        assert f"{unit.status().state} {unit.wait().state!s}" == "SUCCEEDED SUCCEEDED"


def test_work_that_another_node_does_not_offer(nodes: Mesh) -> None:
    a, _ = nodes.pair(work_commands=[CAT])
    with pytest.raises(receptor.WorkTypeError, match="^node b: unknown work type dog$") as caught:
        a.work.submit("b", "dog")
    assert caught.value.node == "b"
    with pytest.raises(receptor.ConfigError, match="^unknown TLS config nonesuch$"):
        a.work.submit("b", "cat", tls="nonesuch")
    with pytest.raises(receptor.ConfigError, match="want the name of a TLS profile of the node, a str$"):
        a.work.submit("b", "cat", tls=receptor.TLS())  # type: ignore[arg-type]  # on purpose


def test_work_that_fails(mesh: Mesh) -> None:
    node = mesh.node("a", work_commands=[FAIL])
    with node.work.submit("a", "fail") as unit:
        with pytest.raises(receptor.WorkFailed, match="exit status 3") as caught:
            unit.wait(timeout_s=60)
        assert caught.value.result.exit_code == 3
        assert caught.value.unit == unit.id
        assert unit.wait(check=False, timeout_s=60).state is receptor.WorkState.FAILED


def test_work_that_is_cancelled(mesh: Mesh) -> None:
    node = mesh.node("a", work_commands=[SLOW])
    with node.work.submit("a", "slow") as unit:
        output = unit.stdout()
        assert next(output) == b"first\n"
        with pytest.raises(receptor.MeshTimeout):
            unit.wait(timeout_s=0.05)
        unit.cancel()
        with pytest.raises(receptor.WorkCancelled):
            unit.wait(timeout_s=60)
        assert list(output) == []


def test_work_types_must_exist(mesh: Mesh) -> None:
    node = mesh.node("a", work_commands=[CAT])
    with pytest.raises(receptor.WorkTypeError):
        node.work.submit("a", "dog", b"")
    assert node.work.list() == {}
    with pytest.raises(receptor.UnitNotFound):
        node.work.get("nope")


def test_a_detached_unit_stays(mesh: Mesh) -> None:
    node = mesh.node("a", work_commands=[CAT])
    with node.work.submit("a", "cat", b"x") as unit:
        unit.detach()
    assert node.work.get(unit.id).wait(timeout_s=60).exit_code == 0
    assert unit.release()


# What a socket raises is what a payload raises that is read from another socket.
BROKEN = [ZeroDivisionError, BrokenPipeError, ConnectionResetError, receptor.StreamResetError, TimeoutError]


@pytest.mark.parametrize("kind", BROKEN)
def test_a_payload_that_breaks_never_runs(mesh: Mesh, kind: type[Exception]) -> None:
    node = mesh.node("a", work_commands=[CAT])

    def broken() -> Iterator[bytes]:
        yield b"half"
        raise kind("in the payload")

    with pytest.raises(kind, match="^in the payload$"):
        node.work.submit("a", "cat", broken())
    assert node.work.list() == {}


def test_a_file_that_has_nothing_yet_is_not_at_its_end(mesh: Mesh) -> None:
    node = mesh.node("a", work_commands=[CAT])
    out, into = os.pipe()
    os.set_blocking(out, False)
    with open(out, "rb") as file, open(into, "wb", buffering=0) as far:
        far.write(b"half")
        with pytest.raises(receptor.ConfigError, match="nothing to read now"):
            node.work.submit("a", "cat", file)
    assert node.work.list() == {}


def test_what_is_no_payload_never_runs(mesh: Mesh) -> None:
    node = mesh.node("a", work_commands=[CAT])
    with pytest.raises(receptor.ConfigError, match="want bytes in the iterable, got int"):
        node.work.submit("a", "cat", [1])  # type: ignore[list-item]
    assert node.work.list() == {}


def test_work_events(mesh: Mesh) -> None:
    node = mesh.node("a", work_commands=[CAT])
    with node.events("work") as events, node.work.submit("a", "cat", b"x") as unit:
        while True:
            event = events.get(timeout_s=60)
            assert isinstance(event, receptor.WorkChanged)
            if event.status.unit == unit.id and event.status.complete:
                break


# Threads, timeouts, interrupts, ends.


def test_threads_do_not_wait_for_one_another(mesh: Mesh, in_thread: InThread) -> None:
    a = mesh.node("a")
    waiting = [in_thread(lambda: a.wait_route("later", timeout_s=60)) for _ in range(12)]
    assert a.status().node == "a"
    mesh.node("later")
    for running in waiting:
        assert running.result().node == "later"


def test_a_call_that_times_out_is_cancelled_in_the_node(mesh: Mesh) -> None:
    fake, node = mesh.fake, mesh.node("a")
    release = fake.hold("status")
    node.timeout_s = 0.05
    with pytest.raises(receptor.MeshTimeout, match="status: no answer within 0.05 s"):
        node.status()
    fake.wait_for("cancel status")
    release()
    node.timeout_s = 30
    assert node.status().node == "a"


def test_a_node_that_says_nothing_is_given_up_a_moment_after_the_time_of_the_call() -> None:
    assert deadline_of(_ops.ping("b", 30, 3.0)).left() <= 4.0
    assert deadline_of(_ops.close(5.0)).left() <= 6.0


def test_a_call_that_wants_one_more_session_is_given_up_in_its_own_time(mesh: Mesh, in_thread: InThread) -> None:
    fake, node = mesh.fake, mesh.node("a")
    release = fake.hold("session.new")
    node.timeout_s = 1.0
    with node.events("peer"):  # Takes the session that was there.
        running = [in_thread(lambda: node.ping("a", timeout_s=0.02)) for _ in range(2)]
        with pytest.raises(receptor.MeshTimeout, match=r"route\.wait: no answer within 0\.02 s"):
            node.wait_route("a", timeout_s=0.02)
        for each in running:
            with pytest.raises(receptor.MeshTimeout, match=r"ping: no answer within 0\.02 s"):
                each.result()
        release()
        assert node.ping("a").from_node == "a", "the node is lost with the calls that were given up"


@pytest.mark.parametrize("face", ["blocking", "asyncio"])
@pytest.mark.parametrize("op", ["traceroute", "work.started"])
async def test_what_takes_its_time_ends_with_the_answers_of_the_node(
    mesh: Mesh, op: str, face: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node is asked meanwhile whether it is there, which a stopped one is not."""
    monkeypatch.setattr("receptor._session.GRACE_S", 0.01)
    fake, first = mesh.fake, mesh.node("a", work_commands=[receptor.WorkCommand("cat", "cat")])
    async with mesh.aio_node("b", work_commands=[receptor.WorkCommand("cat", "cat")]) as second:

        async def call() -> object:
            if face == "asyncio":
                if op == "work.started":
                    return await second.work.submit("b", "cat")
                return [hop async for hop in second.traceroute("b", timeout_s=0.03)]
            if op == "work.started":
                return await asyncio.to_thread(first.work.submit, "a", "cat")
            return await asyncio.to_thread(first.traceroute, "a", timeout_s=0.03)

        release = fake.hold(op)
        first.timeout_s = second.timeout_s = 0.3
        called = asyncio.create_task(call())
        await asyncio.to_thread(fake.wait_for, "status", 3)
        release()
        await called
        fake.hold(op)
        fake.hold("status")
        with pytest.raises(receptor.MeshTimeout, match=rf"{op}: no answer within 0\.0?3 s"):
            await call()


def test_threads_share_events(nodes: Mesh, in_thread: InThread) -> None:
    node = nodes.node("a")
    seen: list[receptor.Event] = []
    with node.events("service") as events:
        readers = [in_thread(lambda: seen.extend(events)) for _ in range(8)]
        for number in range(200):
            node.listen(f"s{number}").close()
        node.listen("last").close()
        while not any(isinstance(event, receptor.ServiceGone) and event.service == "last" for event in seen):
            for reader in readers:
                assert reader.error is None, "one thread has taken what was another's"
    for reader in readers:
        reader.result()


@pytest.mark.parametrize("sent", [True, False])
async def test_what_was_interrupted_while_it_ended_can_be_ended_again(
    nodes: Mesh, tmp_path: Path, sent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    node, door = nodes.node("a", work_commands=[receptor.WorkCommand("cat", "cat")]), tmp_path / "door"

    def interrupted(end: Callable[[], object]) -> None:
        def run(op: Op[Any]) -> None:
            if sent:
                receptor.Node._run(node, op)
            raise KeyboardInterrupt

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(node, "_run", run)
            end()

    proxy = node.forward("a", "x", f"unix://{door}")
    interrupted(proxy.close)
    proxy.close()
    assert not door.exists()
    with node.work.submit("a", "cat") as unit:
        interrupted(unit.release)
    assert not node.work.list()
    async with nodes.aio_node("b", work_commands=[receptor.WorkCommand("cat", "cat")]) as other:

        async def cancelled(end: Callable[[], Awaitable[object]]) -> None:
            async def run(op: Op[Any]) -> None:
                if sent:
                    await receptor.aio.Node._run(other, op)
                raise asyncio.CancelledError

            with monkeypatch.context() as patch, pytest.raises(asyncio.CancelledError):
                patch.setattr(other, "_run", run)
                await end()

        task_proxy = await other.forward("b", "x", f"unix://{door}")
        await cancelled(task_proxy.close)
        await task_proxy.close()
        assert not door.exists()
        async with other.work.submit("b", "cat") as task_unit:
            await cancelled(task_unit.release)
        assert not await other.work.list()


@pytest.mark.parametrize("face", ["blocking", "asyncio"])
async def test_a_sidecar_that_says_nothing_is_ended_soon(face: str, monkeypatch: pytest.MonkeyPatch) -> None:
    allowed_s: list[float] = []
    wait = Sidecar.wait

    def recorded(self: Sidecar, timeout_s: float) -> None:
        allowed_s.append(timeout_s)
        wait(self, 0)

    monkeypatch.setattr(Sidecar, "wait", recorded)
    monkeypatch.setattr("receptor._session.GRACE_S", 0.01)
    if face == "blocking":
        with receptor.Node("a", mode="sidecar") as node:
            stop(node._sidecar)
            node.close(timeout_s=0.5)
    else:
        async with receptor.aio.Node("a", mode="sidecar") as task_node:
            stop(task_node._sidecar)
            await task_node.close(timeout_s=0.5)
    assert allowed_s == [4.5], "close goes beyond the five seconds that a sidecar has in all"


def stop(sidecar: Sidecar | None) -> None:
    """Stop it as a debugger would: it lives and does nothing."""
    assert sidecar is not None
    os.kill(sidecar.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, sidecar.pid, os.WSTOPPED)


@contextlib.contextmanager
def interrupted(in_thread: InThread, seen: Callable[[], Any]) -> Iterator[None]:
    """Press Ctrl-C once ``seen`` has returned and the main thread waits in a system call; it must end the block.

    A signal in the few instructions before that call does not end it, and no program in Python can help that: as a
    person would, this presses again until it is noticed.
    """
    over, noticed = threading.Event(), False

    def notice(number: int, frame: Any) -> None:
        nonlocal noticed
        if not noticed:
            noticed = True
            raise KeyboardInterrupt

    def press() -> None:
        seen()
        while not main_thread_waits() and not over.wait(0.001):
            pass
        while not over.is_set():
            os.kill(os.getpid(), signal.SIGINT)
            over.wait(0.1)

    before = signal.signal(signal.SIGINT, notice)
    pressing = in_thread(press)
    try:
        with pytest.raises(KeyboardInterrupt):
            yield
    finally:
        over.set()
        pressing.result()
        signal.signal(signal.SIGINT, before)


def main_thread_waits() -> bool:
    """The main thread is in a system call that is not the wait for the interpreter's lock."""
    with open(f"/proc/self/task/{os.getpid()}/syscall") as file:
        number, *arguments = file.read().split()
    if number == ("202" if os.uname().machine == "x86_64" else "98"):  # futex
        return arguments[3] == "0x0"  # The interpreter's lock is waited for a while at a time.
    return number not in ("running", "-1")


@pytest.mark.parametrize(
    ("op", "call"),
    [
        ("status", lambda node: node.status()),
        ("route.wait", lambda node: node.wait_route("nowhere")),
        ("stream.connect", lambda node: node.connect("a", "x")),
        ("work.submit", lambda node: node.work.submit("a", "cat")),
        ("work.started", lambda node: node.work.submit("a", "cat")),
    ],
)
def test_ctrl_c_abandons_the_call(mesh: Mesh, in_thread: InThread, op: str, call: Callable[[Any], Any]) -> None:
    fake, node = mesh.fake, mesh.node("a", work_commands=[CAT])
    release = fake.hold(op)
    with interrupted(in_thread, lambda: fake.wait_for(op)):
        call(node)
    fake.wait_for(f"cancel {op}")
    release()
    assert node.work.list() == {}
    assert node.status().node == "a"


def test_ctrl_c_ends_every_wait_on_a_descriptor(mesh: Mesh, in_thread: InThread) -> None:
    node = mesh.node("a")
    with node.listen("x") as listener, node.datagram() as datagrams, node.events() as events:
        calls: list[Callable[[], Any]] = [
            listener.accept,
            datagrams.recv_from,
            lambda: [events.get() for _ in range(1000)],
            lambda: node.wait_route("nowhere"),
        ]
        for call in calls:
            entered = threading.Event()
            with interrupted(in_thread, lambda entered=entered: entered.wait(60)):  # type: ignore[misc]
                entered.set()
                call()
    assert node.status().node == "a"


def test_ctrl_c_in_a_payload_takes_the_unit_back(mesh: Mesh) -> None:
    node = mesh.node("a", work_commands=[CAT])

    def payload() -> Iterator[bytes]:
        yield b"half"
        signal.raise_signal(signal.SIGINT)
        yield b"never"

    with pytest.raises(KeyboardInterrupt):
        node.work.submit("a", "cat", payload())
    assert node.work.list() == {}


def test_ctrl_c_takes_back_what_the_node_has_done_already(
    nodes: Mesh, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    node = nodes.node("a", work_commands=[CAT])
    door = tmp_path / "door"
    calls: list[Callable[[], object]] = [
        lambda: node.work.submit("a", "cat"),
        lambda: node.forward("a", "x", f"unix://{door}"),
        lambda: node.expose("127.0.0.1:1", "x"),
        lambda: node.add_listener("tcp://127.0.0.1:0"),
    ]

    def interrupted(sock: socket.socket, size: int, deadline: Deadline) -> tuple[bytes, list[Descriptor]]:
        deadline.wait(sock, select.POLLIN)  # The answer is there.
        monkeypatch.undo()
        raise KeyboardInterrupt

    for call in calls:
        node.status()  # So that there is a session, and the first that is received is the answer.
        monkeypatch.setattr("receptor._channel.next_on", interrupted)
        with pytest.raises(KeyboardInterrupt):
            call()
    assert node.work.list() == {}
    assert not door.exists()
    assert "x" not in [ad.service for ad in node.status().advertisements]


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # The session of such a call is left to the collector.
def test_an_interrupt_between_any_two_steps_leaves_nothing(nodes: Mesh, tmp_path: Path) -> None:
    node, door = nodes.node("a", work_commands=[CAT]), tmp_path / "door"
    step = 0
    while (unit := interrupted_at(step, lambda: node.work.submit("a", "cat"))) is None:
        assert node.work.list() == {}, f"interrupted at step {step}"
        step += 1
    unit.release()
    step = 0
    while (proxy := interrupted_at(step, lambda: node.forward("a", "x", f"unix://{door}"))) is None:
        assert not door.exists(), f"interrupted at step {step}"
        step += 1
    proxy.close()
    for channel in node._busy:  # Of calls that were interrupted before they began; they go with the node.
        channel.close()


def interrupted_at(step: int, call: Callable[[], T]) -> T | None:
    """What ``call`` returns, or None if it had so many steps in these modules, and was interrupted there."""
    steps = 0

    def trace(frame: types.FrameType, event: str, arg: object) -> Any:
        nonlocal steps
        if frame.f_code.co_filename not in MAKERS:
            return None
        if event == "line":
            steps += 1
            if steps > step:
                sys.settrace(before)
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        return call()
    except KeyboardInterrupt:
        return None
    finally:
        sys.settrace(before)


def test_closing_the_node_ends_calls_in_other_threads(mesh: Mesh, in_thread: InThread) -> None:
    node = mesh.node("a")
    waiting = in_thread(lambda: node.wait_route("nowhere"))
    listener = node.listen("x")
    accepting = in_thread(listener.accept)
    inbox = node.datagram("y")
    receiving = in_thread(inbox.recv_from)
    events = node.events("peer")
    node.close()
    node.close()
    ends = {"": waiting, "listener 'x' is closed: ": accepting, "datagram socket 'y' is closed: ": receiving}
    for what, running in ends.items():
        with pytest.raises(receptor.ClosedError, match=rf"^{what}node ['\"]a['\"] is closed$") as caught:
            running.result()
        assert what or caught.value.node == "a"
    for call in (node.status, lambda: node.events("peer"), lambda: node.work.submit("a", "cat"), events.get):
        with pytest.raises(receptor.ClosedError, match="^node 'a' is closed$"):
            call()
    listener.close()
    inbox.close()
    events.close()
    with pytest.raises(receptor.ClosedError, match="^event stream of node 'a' is closed$"):
        events.get()
    with pytest.raises(receptor.ClosedError, match="^listener 'x' is closed$"):
        listener.accept()


def test_close_ends_the_node_in_order_however_many_threads_want_sessions(
    nodes: Mesh, in_thread: InThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    farewells: list[str] = []
    call = Channel.call

    def recorded(self: Channel, op: Op[Any], *rest: Any, **settings: Any) -> Reply:
        try:
            reply = call(self, op, *rest, **settings)
        except receptor.ReceptorError as error:
            if op.name == "close":
                farewells.append(repr(error))
            raise
        if op.name == "close":
            farewells.append("in order" if reply.error is None else repr(reply.error))
        return reply

    monkeypatch.setattr(Channel, "call", recorded)

    def crowd(node: receptor.Node, begun: threading.Barrier) -> None:
        begun.wait(60)
        with pytest.raises(receptor.ClosedError):
            while True:
                node.events().close()  # Each takes a session of its own.

    for turn in range(5):
        node = nodes.node(f"n{turn}")
        begun = threading.Barrier(13)
        running = [in_thread(lambda node=node, begun=begun: crowd(node, begun)) for _ in range(12)]  # type: ignore[misc]
        begun.wait(60)
        node.events().close()
        node.close()
        for one in running:
            one.result()
    assert farewells == ["in order"] * 5


def test_streams_end_as_resets_when_the_node_closes(mesh: Mesh) -> None:
    a, b = mesh.pair()
    with b.listen("x") as listener, a.connect("b", "x") as sock, listener.accept(timeout_s=60):
        a.close()
        with pytest.raises(receptor.StreamResetError):
            sock.recv(10)


def test_a_stream_that_flows_does_not_hold_up_the_end_of_its_node(nodes: Mesh, in_thread: InThread) -> None:
    """It is reset at once: all that it still carried would be waited for, and there is no end of that."""
    if nodes.mode == "attached":
        pytest.skip("the node goes on")
    a, b = nodes.pair()
    flows = threading.Event()
    with b.listen("x") as listener, a.connect("b", "x") as sock, listener.accept() as far:

        def send() -> None:
            while True:
                sock.sendall(bytes(100_000))

        def take() -> None:
            while far.recv(100_000):
                flows.set()

        sending, taking = in_thread(send), in_thread(take)
        assert flows.wait(60)
        a.close()
        with pytest.raises(receptor.StreamResetError):
            sending.result()
        with pytest.raises(receptor.StreamResetError, match="as of a node that ends"):
            taking.result()


def test_an_unclosed_node_warns_and_ends(mesh: Mesh) -> None:
    fake = mesh.fake
    with pytest.warns(ResourceWarning, match="unclosed <receptor.node.Node 'left'>"):
        receptor.Node("left")
        import gc

        gc.collect()
    fake.wait_for("node left closed")


def test_what_was_not_closed_is_named(mesh: Mesh) -> None:
    node = mesh.node("a")
    opened: dict[str, Callable[[], Any]] = {
        "unclosed <receptor._streams.Listener a:one>": lambda: node.listen("one"),
        "unclosed <receptor._streams.DatagramSocket a:two>": lambda: node.datagram("two"),
        "unclosed <receptor._streams.EventStream of 'a'>": lambda: node.events(),
    }
    for text, make in opened.items():
        with pytest.warns(ResourceWarning) as caught:
            make()
            gc.collect()
        assert [(str(warning.message), warning.filename) for warning in caught] == [(text, __file__)]


@pytest.mark.parametrize("log_level", [None, "info"])
def test_what_was_not_closed_ends_also_where_warnings_are_errors(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch, log_level: receptor.types.LogLevel | None
) -> None:
    """And is told of once."""
    fake = mesh.fake
    told: list[str] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: told.append(str(unraisable.exc_value)))
    before = threading.active_count()
    node = receptor.Node("a", log_level=log_level)
    node.listen("one")
    gc.collect()
    assert told == ["unclosed <receptor._streams.Listener a:one>"]
    del node
    gc.collect()
    fake.wait_for("node a closed")
    assert told[1:] == ["unclosed <receptor.node.Node 'a'>"]
    assert threading.active_count() == before


def test_wrong_arguments_leave_nothing_to_warn_of(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(TypeError, match="listen"):
        receptor.Node("left", listen=["tcp://127.0.0.1:0"])  # type: ignore[call-arg]
    assert capfd.readouterr().err == ""


def test_an_argument_that_cannot_be_sent_leaves_no_socket_open(mesh: Mesh) -> None:
    node = mesh.node("left")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(receptor.ConfigError, match="^advertise=b'yes'"):
            node.listen("x", advertise=b"yes")  # type: ignore[arg-type]
        gc.collect()
    assert [str(warning.message) for warning in caught] == []


def test_sessions_are_reused_and_no_thread_stays(mesh: Mesh) -> None:
    node = mesh.node("a")
    before = threading.active_count()
    for _ in range(50):
        node.status()
    assert threading.active_count() == before
    assert mesh.fake.seen["session.new"] == 1
