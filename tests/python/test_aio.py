"""The asyncio node."""

import asyncio
import gc
import io
import logging
import os
import socket
import tempfile
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from meshes import Mesh

import receptor
from receptor import _modes

CAT = receptor.WorkCommand("cat", "cat")
SLOW = receptor.WorkCommand("slow", "sh", '-c "echo first; exec sleep 60"')

Ends: TypeAlias = tuple[receptor.aio.MeshReader, receptor.aio.MeshWriter]


async def seen(mesh: Mesh, what: str, count: int = 1) -> None:
    await asyncio.to_thread(mesh.fake.wait_for, what, count)


async def test_a_node_lives_in_a_with_statement(mesh: Mesh) -> None:
    mesh.node("hub")
    async with mesh.aio_node("a") as node:
        assert node.id == "a"
        assert (await node.wait_route("hub", timeout_s=60)).next_hop == "hub"
        assert (await node.ping("hub")).from_node == "hub"
        assert (await node.status()).node == "a"
        hops = [hop async for hop in node.traceroute("hub")]
        assert hops[-1].from_node == "hub"
        with pytest.raises(receptor.Unreachable):
            await node.ping("nowhere", timeout_s=60)
        with pytest.raises(receptor.MeshTimeout):
            await node.wait_route("nowhere", timeout_s=0.05)
        bound = await node.add_listener()
        await node.remove(bound)
        await node.remove(await node.add_peer(bound.address))
    with pytest.raises(receptor.ClosedError):
        await node.status()
    await node.close()
    with pytest.raises(receptor.ClosedError):
        await node.start()


async def test_a_node_can_be_awaited(mesh: Mesh) -> None:
    mesh.node("hub")
    node = mesh.aio_node("a")
    with pytest.raises(receptor.ClosedError, match="not started"):
        await node.status()
    assert await node is node
    await node.close()


async def test_a_node_that_is_started_twice_is_one(mesh: Mesh) -> None:
    mesh.node("hub")
    node = mesh.aio_node("a")
    first, second = await asyncio.gather(node.start(), node.start())
    assert first is second is node
    assert (await node.status()).node == "a"
    await node.close()


async def test_a_node_that_is_closed_while_it_starts_does_not_run(mesh: Mesh) -> None:
    mesh.node("hub")
    node = mesh.aio_node("a")
    starting = asyncio.ensure_future(node.start())
    await asyncio.sleep(0)  # It begins.
    await node.close()
    with pytest.raises(receptor.ClosedError):
        await starting
    assert node.closed


async def test_two_thousand_pings_at_once(mesh: Mesh) -> None:
    mesh.node("hub")
    async with mesh.aio_node("a") as node:
        await node.wait_route("hub", timeout_s=60)
        results = await asyncio.gather(*(node.ping("hub", timeout_s=200) for _ in range(2000)))
    assert {result.from_node for result in results} == {"hub"}


async def test_requests_wait_when_the_session_socket_is_full(mesh: Mesh) -> None:
    mesh.node("hub")
    async with mesh.aio_node("a") as node:
        name = "n" * 4000  # 2000 of them are more than a socket holds.
        results = await asyncio.gather(*(node.ping(name) for _ in range(2000)), return_exceptions=True)
    assert {type(result) for result in results} == {receptor.Unreachable}


async def test_cancelling_a_task_cancels_the_request(mesh: Mesh) -> None:
    fake = mesh.fake
    mesh.node("hub")
    async with mesh.aio_node("a") as node:
        task = asyncio.create_task(node.wait_route("nowhere"))
        await seen(mesh, "route.wait")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await seen(mesh, "cancel route.wait")
        fake.hold("status")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await node.status()
        await seen(mesh, "cancel status")
        node.timeout_s = 0.05
        with pytest.raises(receptor.MeshTimeout, match="status: no answer within"):
            await node.status()
        await seen(mesh, "cancel status", 2)


async def test_a_descriptor_that_comes_late_is_closed(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = mesh.fake
    hub = mesh.node("hub")
    late = asyncio.Event()

    async def ignore_cancel(op: str) -> None:
        if op == "datagram.open":
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                pass

    monkeypatch.setattr(fake, "gate", ignore_cancel)
    async with mesh.aio_node("a") as node:
        task = asyncio.create_task(late_open(node))
        await seen(mesh, "datagram.open")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await seen(mesh, "datagram late closed")
        assert not late.is_set()
        assert (await node.ping("hub")).from_node == "hub"
    assert hub.id == "hub"


async def late_open(node: receptor.aio.Node) -> None:
    await node.datagram("late")


@pytest.mark.parametrize("moment", ["on its way", "received", "received before the task hears of its end"])
async def test_a_proxy_that_comes_late_is_closed(nodes: Mesh, tmp_path: Path, moment: str) -> None:
    nodes.node("hub")
    door = tmp_path / "door"
    async with nodes.aio_node("a") as node:
        opening = node.forward("hub", "x", f"unix://{door}")

        async def opened() -> receptor.aio.Proxy:
            return await opening

        task = asyncio.create_task(opened())
        await asyncio.sleep(0)  # The request is made, and its answer comes while the loop is busy here.
        assert node._session is not None
        (waiting,) = node._session._futures.values()
        while not door.exists() or (moment == "received" and not waiting.done()):
            if moment == "received":
                node._session._on_readable()
        task.cancel()
        while moment == "received before the task hears of its end" and node._session._futures:
            node._session._on_readable()
        with pytest.raises(asyncio.CancelledError):
            await task
        while door.exists():
            await node.status()


async def test_what_a_cancelled_call_took_is_free_for_the_next(nodes: Mesh, tmp_path: Path) -> None:
    nodes.node("hub")
    async with nodes.aio_node("a") as node:
        bound = await node.add_listener()
        await node.remove(bound)

        async def add_listener() -> None:
            await node.remove(await node.add_listener(bound.address))

        async def offer() -> None:
            (await node.work.offer("x", lambda unit: None)).close()

        async def enter(opening: Callable[[], AbstractAsyncContextManager[object]]) -> None:
            async with opening():
                pass

        calls: list[Callable[[], Coroutine[Any, Any, None]]] = [
            add_listener,
            offer,
            lambda: enter(lambda: node.listen("x")),
            lambda: enter(lambda: node.datagram("x")),
            lambda: enter(lambda: node.expose("127.0.0.1:1", "x")),
            lambda: enter(lambda: node.forward("hub", "x", f"unix://{tmp_path}/door")),
        ]
        for call in calls:
            for moment in [*range(1, 6)] * 20:
                task = asyncio.create_task(call())
                for _ in range(moment):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait([task])
                await call()


async def test_what_is_closed_is_closed_although_the_task_is_cancelled(nodes: Mesh) -> None:
    nodes.node("hub")
    async with nodes.aio_node("a") as node:
        proxy = await node.expose("127.0.0.1:1", "x")
        bound = await node.add_listener()
        for close in (proxy.close(), node.remove(bound)):
            given_up = asyncio.create_task(node.add_listener())
            await asyncio.sleep(0)  # Its request is made,
            given_up.cancel()
            closing = asyncio.create_task(close)
            await asyncio.sleep(0)  # and given up, and that of the other made, with nothing answered yet.
            closing.cancel()
            await asyncio.wait([given_up, closing])
            assert closing.cancelled()
        async with node.expose("127.0.0.1:1", "x"):
            await node.add_listener(bound.address)


async def test_what_is_opened_can_be_opened_in_a_task(nodes: Mesh) -> None:
    nodes.node("hub")
    async with nodes.aio_node("a") as node:
        async with asyncio.TaskGroup() as group:
            listening = group.create_task(node.listen("x"))
            receiving = group.create_task(node.datagram("y"))
        assert (listening.result().service, receiving.result().service) == ("x", "y")
        assert repr(listening.result()) == "<receptor._aio_streams.Listener a:x>"
        with pytest.raises(receptor.AddressInUse):
            await asyncio.create_task(node.listen("x"))
        node.listen("z").close()  # And never awaited.
        listening.result().close()
        receiving.result().close()


@pytest.mark.parametrize("moment", [0, 1, 2])
async def test_a_start_that_is_cancelled_leaves_nothing(
    moment: int, monkeypatch: pytest.MonkeyPatch, nodes: Mesh
) -> None:
    if nodes.mode != "sidecar":
        pytest.skip("only a sidecar is started in a thread")
    started: list[_modes.Sidecar] = []
    begun, go_on = threading.Event(), threading.Event()
    open_session = _modes.open_session

    def slowly(where: str, environ: Mapping[str, str]) -> tuple[socket.socket, _modes.Sidecar | None]:
        begun.set()
        assert go_on.wait(60)
        sock, sidecar = open_session(where, environ)
        assert sidecar is not None
        started.append(sidecar)
        return sock, sidecar

    monkeypatch.setattr(_modes, "open_session", slowly)
    node = receptor.aio.Node("a", mode="sidecar")
    task = asyncio.create_task(node.start())
    await asyncio.to_thread(begun.wait, 60)
    if moment == 0:
        task.cancel()
    go_on.set()
    while not started:
        await asyncio.sleep(0)
    if moment == 1:
        task.cancel()
    while moment == 2 and not node.version:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    while os.path.exists(f"/proc/{started[0].pid}"):  # Ended, and reaped.
        await asyncio.sleep(0.001)


async def test_a_server_that_ends_at_once_closes_what_it_has_accepted(nodes: Mesh) -> None:
    hub = nodes.node("hub")
    async with nodes.aio_node("a") as node:
        await node.wait_route("hub", timeout_s=60)
        await asyncio.to_thread(hub.wait_route, "a", timeout_s=60)

        async def handle(reader: receptor.aio.MeshReader, writer: receptor.aio.MeshWriter) -> None:
            raise AssertionError("there was no time for this")

        async with await node.start_server(handle, "x") as server:
            connecting = asyncio.create_task(asyncio.to_thread(hub.connect, "a", "x"))
            while not server._handlers:
                await asyncio.sleep(0)
        with await connecting as sock, pytest.raises(receptor.StreamResetError):
            await asyncio.to_thread(sock.recv, 1)


async def test_a_node_belongs_to_its_loop(mesh: Mesh) -> None:
    mesh.node("hub")
    async with mesh.aio_node("a") as node, node.listen("x") as listener:

        async def elsewhere() -> None:
            calls: list[Callable[[], Awaitable[object]]] = [node.status, node.close, listener.accept, node.events().get]
            for call in calls:
                with pytest.raises(
                    RuntimeError, match="opened on one event loop, used on another: open a node for each"
                ):
                    await call()

        await asyncio.to_thread(asyncio.run, elsewhere())
        assert (await node.status()).node == "a"


async def test_no_task_is_made_for_a_node_on_another_loop(mesh: Mesh) -> None:
    mesh.node("hub")
    async with mesh.aio_node("a") as node:

        async def elsewhere() -> None:
            with pytest.raises(RuntimeError, match="opened on one event loop, used on another"):
                await node.work.submit("a", "cat")
            with pytest.raises(RuntimeError, match="opened on one event loop, used on another"):
                node.work.handler("x")(lambda unit: None)

        await asyncio.to_thread(asyncio.run, elsewhere())
        with pytest.raises(RuntimeError, match="opened on one event loop, used on another"):
            await asyncio.to_thread(node.work.handler("x"), lambda unit: None)


def test_a_node_whose_loop_has_ended_is_closed_from_another(mesh: Mesh) -> None:
    mesh.node("hub")
    node = mesh.aio_node("a")

    async def start() -> None:
        await node.start()

    asyncio.run(start())
    asyncio.run(node.close())
    assert node.closed
    if mesh.mode == "fake":
        mesh.fake.wait_for("node a closed")


async def test_streams(mesh: Mesh) -> None:
    mesh.node("hub")
    async with mesh.aio_node("a") as a, mesh.aio_node("b") as b:
        await a.wait_route("b", timeout_s=60)
        block = os.urandom(300_000)

        async def reverse(reader: receptor.aio.MeshReader, writer: receptor.aio.MeshWriter) -> None:
            assert writer.get_extra_info("mesh_peer").node == "a"
            writer.write((await reader.read())[::-1])
            await writer.drain()

        async with await b.start_server(reverse, "reverse") as server:
            assert server.address == receptor.Address("b", "reverse")
            reader, writer = await a.open_connection("b", "reverse")
            assert writer.get_extra_info("mesh_peer") == receptor.Address("b", "reverse")
            assert writer.get_extra_info("mesh_local").node == "a"
            assert writer.get_extra_info("socket") is not None
            writer.write(block)
            writer.write_eof()
            assert await reader.readexactly(len(block)) == block[::-1]
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()
        async with asyncio.timeout(60):  # A node in another process hears of the close a moment later.
            with pytest.raises(receptor.Unreachable):
                while True:
                    _, writer = await a.open_connection("b", "reverse", timeout_s=60)
                    writer.close()
                    with suppress(receptor.ReceptorError, OSError):
                        await writer.wait_closed()


@asynccontextmanager
async def both_ends(mesh: Mesh) -> AsyncIterator[tuple[Ends, Ends]]:
    """A stream of a node to itself; what is done with it has a minute."""
    mesh.node("hub")
    async with mesh.aio_node("a") as node, await node.listen("x") as listener:
        near = await node.open_connection("a", "x")
        async with asyncio.timeout(60):
            yield near, await (await listener.accept()).streams()


async def test_everything_that_holds_bytes_is_written(nodes: Mesh) -> None:
    """More than the socket takes at once, so that some of each waits for the rest."""
    async with both_ends(nodes) as ((_, writer), (far_reader, far)):
        block = os.urandom(5_000_000)
        for data in (block, bytearray(block), memoryview(block)[1:], b"", b"end"):
            writer.write(data)
        with pytest.raises(TypeError, match="bytes-like"):
            writer.write("text")  # type: ignore[arg-type]
        writer.close()
        assert await far_reader.read() == block + block + block[1:] + b"end"
        far.close()


async def test_reads_get_every_byte_once_and_in_order(mesh: Mesh) -> None:
    async with both_ends(mesh) as ((reader, writer), (far_reader, far)):
        steps: list[tuple[Callable[[], Coroutine[Any, Any, bytes]], list[bytes], bytes]] = [
            (lambda: reader.read(4), [b"abcd", b"ef"], b"abcd"),  # What fits is taken as it came,
            (lambda: reader.read(4), [], b"ef"),  # and the rest is for the next.
            (lambda: reader.read(4), [b"abcdef"], b"abcd"),
            (lambda: reader.readexactly(5), [b"g", b"hi"], b"efghi"),
            (lambda: reader.readline(), [b"jk", b"l\nm"], b"jkl\n"),
            (lambda: reader.read(4), [b"n"], b"m"),
        ]
        for take, arrivals, expected in steps:
            task = asyncio.create_task(take())
            await asyncio.sleep(0)  # Until it waits, if it has to.
            for data in arrivals:
                reader.feed_data(data)  # As a transport does.
            assert await task == expected
        assert await reader.read(4) == b"n"

        cancelled = asyncio.create_task(reader.read(4))
        await asyncio.sleep(0)
        reader.feed_data(b"o")
        reader.feed_data(b"p")
        cancelled.cancel()  # When its data is there, and before it runs.
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        assert await reader.read(4) == b"op"

        far.write(b"q" * 300_000)
        far.write_eof()
        assert await reader.read() == b"q" * 300_000
        writer.close()
        assert await far_reader.read() == b""
        far.close()


async def test_only_one_task_reads_at_a_time(mesh: Mesh) -> None:
    """Asyncio says so as well, and each read of a task that may not leaves the others alone."""
    mesh.node("hub")
    async with mesh.aio_node("a") as node, await node.listen("x") as listener:
        reader, writer = await node.open_connection("a", "x")
        _, far = await (await listener.accept()).streams()
        kinds: list[Callable[[], Coroutine[Any, Any, bytes]]] = [
            lambda: reader.read(3),
            lambda: reader.readexactly(3),
            lambda: reader.readuntil(b"c"),
        ]
        for waits in kinds:
            first = asyncio.create_task(waits())
            await asyncio.sleep(0)
            for other in kinds:
                with pytest.raises(RuntimeError, match="another coroutine is already waiting"):
                    await other()
            far.write(b"abc")
            assert await first == b"abc"
        for each in (writer, far):
            each.close()


def count(sock: receptor.MeshSocket) -> int:
    """How many bytes come until the end."""
    return sum(map(len, iter(lambda: sock.recv(1 << 16), b"")))


async def test_what_was_written_to_a_closed_stream_arrives(nodes: Mesh) -> None:
    """The node is closed with it, and most of it is still in the writer."""
    hub = nodes.node("hub")
    with hub.listen("x") as listener:
        async with nodes.aio_node("a") as node:
            await node.wait_route("hub", timeout_s=60)
            _, writer = await node.open_connection("hub", "x")
            far = await asyncio.to_thread(listener.accept, timeout_s=60)
            got = asyncio.create_task(asyncio.to_thread(count, far))
            writer.write(bytes(8_000_000))
            writer.close()
        assert await got == 8_000_000
        far.close()


async def test_the_end_of_a_node_does_not_wait_for_ever_for_a_stream_that_nobody_reads(nodes: Mesh) -> None:
    """The other end gets the whole or a reset."""
    hub = nodes.node("hub")
    with hub.listen("x") as listener:
        async with nodes.aio_node("a") as node:
            await node.wait_route("hub", timeout_s=60)
            _, writer = await node.open_connection("hub", "x")
            with await asyncio.to_thread(listener.accept, timeout_s=60) as far:
                writer.write(bytes(30_000_000))
                writer.close()
                await node.close(timeout_s=0.1)
                with suppress(receptor.StreamResetError):
                    assert await asyncio.to_thread(count, far) == 30_000_000


async def test_a_reset_is_never_an_end_of_file(mesh: Mesh) -> None:
    mesh.node("hub")
    async with mesh.aio_node("a") as a, mesh.aio_node("b") as b:
        await a.wait_route("b", timeout_s=60)
        async with b.listen("flaky") as listener:
            reads: list[Callable[[receptor.aio.MeshReader], Any]] = [
                lambda reader: reader.read(),
                lambda reader: reader.readexactly(10),
                lambda reader: reader.readline(),
                lambda reader: reader.readuntil(b"x"),
            ]
            for number, read in enumerate(reads, 1):
                reader, writer = await a.open_connection("b", "flaky")
                far = await listener.accept(timeout_s=60)
                await asyncio.get_running_loop().sock_sendall(far, b"half")
                assert await reader.readexactly(2) == b"ha"
                if number % 2:
                    writer.write_eof()
                await far.abort(number)
                with pytest.raises(receptor.StreamResetError) as caught:
                    await read(reader)
                assert caught.value.remote
                assert caught.value.error_code == number
                writer.close()


async def test_raw_sockets(mesh: Mesh) -> None:
    mesh.node("hub")
    loop = asyncio.get_running_loop()
    async with mesh.aio_node("a") as a, mesh.aio_node("b") as b:
        await a.wait_route("b", timeout_s=60)
        async with b.listen("raw") as listener:
            with await a.open_socket("b", "raw") as sock, await listener.accept(timeout_s=60) as far:
                assert sock.peer == receptor.Address("b", "raw")
                assert far.peer == sock.local
                await loop.sock_sendall(sock, b"hello")
                assert await loop.sock_recv(far, 10) == b"hello"
                assert (await sock.status()).state is receptor.StreamState.OPEN
                await sock.abort()
                assert sock.fileno() == -1


async def test_a_socket_has_one_pair_of_streams(mesh: Mesh) -> None:
    mesh.node("hub")
    async with mesh.aio_node("a") as node, node.listen("x") as listener:
        sock = await node.open_socket("a", "x")
        far = await listener.accept()
        reader, writer = await sock.streams()
        assert repr(writer) == f"<MeshWriter {sock.local} to a:x>"
        with pytest.raises(RuntimeError, match="to a:x .* has its pair of streams already"):
            await sock.streams()
        await asyncio.get_running_loop().sock_sendall(far, b"still here")
        far.close()
        assert await reader.read() == b"still here"
        writer.close()
        await writer.wait_closed()
        assert repr(writer) == f"<MeshWriter {sock.local} to a:x closing>"


async def test_a_listener_iterates_until_it_is_closed(mesh: Mesh) -> None:
    mesh.node("hub")
    async with mesh.aio_node("a") as node, node.listen() as listener:
        with pytest.raises(receptor.MeshTimeout):
            await listener.accept(timeout_s=0.01)
        loop = asyncio.get_running_loop()
        loop.call_soon(listener.close)
        assert [sock async for sock in listener] == []
        with pytest.raises(receptor.AddressInUse):
            async with node.listen("x"), node.listen("x"):
                pass


async def test_streams_beyond_the_backlog_wait(nodes: Mesh) -> None:
    hub = nodes.node("hub")
    async with nodes.aio_node("a") as node:
        await node.wait_route("hub", timeout_s=60)
        with hub.listen("slow", backlog=1) as listener:
            opening = [asyncio.create_task(node.open_socket("hub", "slow", timeout_s=60)) for _ in range(200)]
            await asyncio.wait(opening, return_when=asyncio.FIRST_COMPLETED)
            for _ in opening:
                (await asyncio.to_thread(listener.accept, timeout_s=60)).close()
            for sock in await asyncio.gather(*opening):
                sock.close()


async def test_handlers_that_fail_are_reported(mesh: Mesh) -> None:
    mesh.node("hub")
    reported: list[Any] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: reported.append(context["exception"]))

    async def fail(reader: receptor.aio.MeshReader, writer: receptor.aio.MeshWriter) -> None:
        raise ZeroDivisionError("in the handler")

    async with mesh.aio_node("a") as node:
        async with await node.start_server(fail, "x"):
            reader, writer = await node.open_connection("a", "x")
            try:
                await reader.read()
            except receptor.StreamResetError:
                pass
            writer.close()
    assert [type(error) for error in reported] == [ZeroDivisionError]


async def test_what_is_no_handler_is_named(mesh: Mesh) -> None:
    mesh.node("hub")
    reported: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(str(context["exception"])))

    def plain(reader: object, writer: object) -> None: ...

    async with mesh.aio_node("a") as node:
        with pytest.raises(receptor.ConfigError, match=r"handler None: want async def handler\(reader, writer\)"):
            await node.start_server(None, "x")  # type: ignore[arg-type]
        async with await node.start_server(plain, "x"):  # type: ignore[arg-type]
            reader, writer = await node.open_connection("a", "x")
            with suppress(receptor.StreamResetError):
                await reader.read()
            writer.close()
    assert reported == [f"{plain!r} returned None: want async def handler(reader, writer)"]


async def test_half_of_an_answer_has_no_end_of_file(mesh: Mesh) -> None:
    mesh.node("hub")
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)

    async def fails(_: receptor.aio.MeshReader, writer: receptor.aio.MeshWriter) -> None:
        writer.write(b"half of the answer")
        await writer.drain()
        raise ZeroDivisionError

    async with mesh.aio_node("a") as node, await node.start_server(fails, "fails"):
        reader, writer = await node.open_connection("a", "fails")
        with pytest.raises(receptor.StreamResetError):
            await reader.read()
        writer.close()


@pytest.mark.parametrize("said", ["nothing", "an end of file", "closed"])
async def test_only_what_a_cancelled_handler_has_finished_has_an_end_of_file(mesh: Mesh, said: str) -> None:
    mesh.node("hub")

    async def answers(_: receptor.aio.MeshReader, writer: receptor.aio.MeshWriter) -> None:
        writer.write(b"answer")
        if said == "an end of file":
            writer.write_eof()
        if said == "closed":
            writer.close()
        await asyncio.Event().wait()

    async with mesh.aio_node("a") as node:
        async with await node.start_server(answers, "x"):
            reader, writer = await node.open_connection("a", "x")
            assert await reader.readexactly(6) == b"answer"
        if said == "nothing":
            with pytest.raises(receptor.StreamResetError):
                await reader.read()
        else:
            assert await reader.read() == b""
        writer.close()


class OwnExit(BaseException):
    """Not an Exception."""


async def test_a_handler_that_ends_the_program_resets_its_stream(mesh: Mesh) -> None:
    mesh.node("hub")

    async def ends(_: receptor.aio.MeshReader, writer: receptor.aio.MeshWriter) -> None:
        writer.write(b"half of the answer")
        raise OwnExit

    async with mesh.aio_node("a") as node, await node.start_server(ends, "x") as server:
        reader, writer = await node.open_connection("a", "x")
        with pytest.raises(receptor.StreamResetError):
            await reader.read()
        writer.close()
        for task in list(server._handlers):
            with pytest.raises(OwnExit):
                await task


async def test_closing_the_node_ends_handlers(mesh: Mesh) -> None:
    mesh.node("hub")
    ended = asyncio.Event()
    started = asyncio.Event()

    async def wait(reader: receptor.aio.MeshReader, writer: receptor.aio.MeshWriter) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with mesh.aio_node("a") as node:
        await node.start_server(wait, "x")
        with await node.open_socket("a", "x"):
            await started.wait()
            await node.close()
    assert ended.is_set()


async def test_closing_the_node_does_not_wait_for_a_stubborn_handler(mesh: Mesh) -> None:
    mesh.node("hub")
    started, cancelled, let_go, ended = (asyncio.Event() for _ in range(4))

    async def stubborn(_: receptor.aio.MeshReader, __: receptor.aio.MeshWriter) -> None:
        started.set()
        while not let_go.is_set():
            try:
                await let_go.wait()
            except asyncio.CancelledError:
                cancelled.set()
        ended.set()

    async with mesh.aio_node("a") as node:
        await node.start_server(stubborn, "x")
        with await node.open_socket("a", "x"):
            await started.wait()
            await node.close(timeout_s=0.01)
    assert cancelled.is_set()
    assert not ended.is_set()
    let_go.set()
    await ended.wait()


async def test_datagrams(mesh: Mesh) -> None:
    mesh.node("hub")
    async with mesh.aio_node("a") as a, mesh.aio_node("b") as b:
        await a.wait_route("b", timeout_s=60)
        async with a.datagram() as left, b.datagram("right") as right:
            await left.send_to(b"hi", ("b", "right"))
            assert await right.recv_from(timeout_s=60) == (b"hi", left.address)
            with pytest.raises(receptor.MeshTimeout):
                await left.recv_from(timeout_s=0.01)
            await left.send_to(b"hi", ("b", "nobody"))
            with pytest.raises(receptor.Unreachable):
                await left.recv_from(timeout_s=60)
            with pytest.raises(receptor.PayloadTooLarge):
                await left.send_to(bytes(4 << 20), ("b", "right"))
            reading = asyncio.create_task(right.recv_from())
            await asyncio.sleep(0)
            right.close()
            with pytest.raises(receptor.ClosedError):
                await reading


async def test_events(mesh: Mesh) -> None:
    hub = mesh.node("hub")
    async with mesh.aio_node("a") as node:
        async with node.events("service") as events:
            with hub.listen("news"):
                async for event in events:
                    if isinstance(event, receptor.ServiceSeen) and event.service == "news":
                        break
            with pytest.raises(receptor.MeshTimeout):
                while True:
                    await events.get(timeout_s=0.05)
        with pytest.raises(receptor.ClosedError):
            await events.get()
        forgotten = node.events("peer")
        with pytest.raises(receptor.MeshTimeout):
            await forgotten.get(timeout_s=0.01)


async def test_log_records(mesh: Mesh, caplog: pytest.LogCaptureFixture) -> None:
    mesh.node("hub")
    arrived = asyncio.Event()

    class Tell(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            arrived.set()

    logger, handler = logging.getLogger("receptor.node"), Tell()
    logger.addHandler(handler)
    try:
        with caplog.at_level(logging.DEBUG, logger="receptor.node"):
            async with mesh.aio_node("a", log_level="debug") as node:
                await node.add_peer("tcp://127.0.0.1:1")
                await arrived.wait()  # Opening has its records, too.
                assert (await node.status()).node == "a"
    finally:
        logger.removeHandler(handler)
    assert caplog.records[0].node == "a"  # type: ignore[attr-defined]


async def test_a_log_handler_that_fails_costs_no_answer(
    nodes: Mesh, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    nodes.node("hub")
    failed = 0

    class Fail(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            nonlocal failed
            failed += 1
            raise ValueError("the program's")

    logger = logging.getLogger("receptor.node")
    monkeypatch.setattr(logger, "handlers", [Fail()])
    monkeypatch.setattr(logger, "level", logging.DEBUG)
    async with nodes.aio_node("a", log_level="debug") as node:
        while failed < 50:  # Some come together with an answer.
            await node.remove(await node.add_peer("tcp://127.0.0.1:1"))
    assert "ValueError: the program's" in capfd.readouterr().err


# Work.


async def test_a_unit_from_submit_to_release(mesh: Mesh) -> None:
    mesh.node("hub")
    async with mesh.aio_node("a", work_commands=[CAT]) as node:
        async with node.work.submit("a", "cat", b"hello") as unit:
            assert [chunk async for chunk in unit.stdout()] == [b"hello"]
            assert (await unit.wait(timeout_s=60)).exit_code == 0
            output = unit.stdout(3)
            assert await output.read() == b"lo"
            assert output.offset == 5
            assert await output.read() == b""
            assert list(await node.work.list()) == [unit.id]
            with await unit.open_stdout() as sock:
                assert await asyncio.get_running_loop().sock_recv(sock, 10) == b"hello"
        with pytest.raises(receptor.UnitNotFound):
            await node.work.get(unit.id)
        kept = await node.work.submit("a", "cat", b"")
        assert (await (await node.work.get(kept.id)).wait(timeout_s=60)).stdout_size == 0
        await kept.release()


async def chunked() -> AsyncIterator[bytes]:
    yield b"he"
    await asyncio.sleep(0)
    yield b"llo"


@pytest.mark.parametrize(
    "payload", [b"hello", "hello", lambda: io.BytesIO(b"hello"), lambda: iter([b"he", b"llo"]), chunked]
)
async def test_payloads(mesh: Mesh, payload: Any) -> None:
    mesh.node("hub")
    async with mesh.aio_node("a", work_commands=[CAT]) as node:
        async with node.work.submit("a", "cat", payload() if callable(payload) else payload) as unit:
            assert b"".join([chunk async for chunk in unit.stdout()]) == b"hello"


async def test_a_large_payload_does_not_block_the_loop(mesh: Mesh) -> None:
    mesh.node("hub")
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    with tempfile.TemporaryFile() as file:
        file.write(os.urandom(16 << 20))
        file.seek(0)
        async with mesh.aio_node("a", work_commands=[CAT]) as node:
            counting = asyncio.create_task(count())
            async with node.work.submit("a", "cat", file) as unit:
                assert turns > 32
                assert sum([len(chunk) async for chunk in unit.stdout()]) == 16 << 20
            counting.cancel()


async def half(reached: asyncio.Event) -> AsyncIterator[bytes]:
    """A payload that never ends. ``reached`` is set when half of it was taken."""
    yield b"half"
    reached.set()
    await asyncio.Event().wait()


async def test_cancelling_a_submit_takes_the_unit_back(mesh: Mesh) -> None:
    mesh.node("hub")
    reached = asyncio.Event()
    async with mesh.aio_node("a", work_commands=[CAT]) as node:
        task = asyncio.ensure_future(node.work.submit("a", "cat", half(reached)))
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await node.work.list() == {}


@pytest.mark.parametrize("op", ["work.submit", "work.started"])
async def test_cancelling_a_submit_at_any_time_takes_the_unit_back(mesh: Mesh, op: str) -> None:
    fake = mesh.fake
    mesh.node("hub")
    async with mesh.aio_node("a", work_commands=[CAT]) as node:
        release = fake.hold(op)
        task = asyncio.ensure_future(node.work.submit("a", "cat", b""))
        await seen(mesh, op)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.to_thread(release)
        await seen(mesh, "work.release")
        assert await node.work.list() == {}


async def test_a_submit_that_is_cancelled_twice_takes_the_unit_back_before_its_payload_ends(mesh: Mesh) -> None:
    fake = mesh.fake
    mesh.node("hub")
    reached = asyncio.Event()
    async with mesh.aio_node("a", work_commands=[CAT]) as node:
        release = fake.hold("work.release")
        task = asyncio.ensure_future(node.work.submit("a", "cat", half(reached)))
        await reached.wait()
        [unit] = fake.nodes["a"].units.values()
        task.cancel()
        await seen(mesh, "work.release")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await node.status()  # The fake has had time to read to the end, if there were one.
        assert not unit.payload_done.is_set()
        await asyncio.to_thread(release)


async def test_a_submit_whose_node_is_closed_is_not_cancelled(mesh: Mesh) -> None:
    fake = mesh.fake
    mesh.node("hub")
    async with mesh.aio_node("a", work_commands=[CAT]) as node:
        fake.hold("work.submit")
        task = asyncio.ensure_future(node.work.submit("a", "cat"))
        await seen(mesh, "work.submit")
        await node.close()
        with pytest.raises(receptor.ClosedError):
            await task


async def test_a_submit_whose_node_is_closed_does_not_wait_for_its_payload(mesh: Mesh) -> None:
    mesh.node("hub")
    waiting = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield b"half"
        waiting.set()
        await asyncio.Event().wait()

    async with mesh.aio_node("a", work_commands=[CAT]) as node:
        task = asyncio.ensure_future(node.work.submit("a", "cat", endless()))
        await waiting.wait()
        await node.close()
        with pytest.raises(receptor.ClosedError, match="node 'a' is closed"):
            await task


# What a socket raises is what a payload raises that is read from another socket.
BROKEN = [ZeroDivisionError, BrokenPipeError, ConnectionResetError, receptor.StreamResetError, TimeoutError]


@pytest.mark.parametrize("kind", BROKEN)
async def test_a_payload_that_breaks_never_runs(mesh: Mesh, kind: type[Exception]) -> None:
    mesh.node("hub")

    async def broken() -> AsyncIterator[bytes]:
        yield b"half"
        raise kind("in the payload")

    async with mesh.aio_node("a", work_commands=[CAT]) as node:
        with pytest.raises(kind, match="^in the payload$"):
            await node.work.submit("a", "cat", broken())
        with pytest.raises(receptor.WorkTypeError):
            await node.work.submit("a", "dog")
        assert await node.work.list() == {}


async def test_output_goes_on_after_a_cancelled_wait(mesh: Mesh) -> None:
    mesh.node("hub")
    async with mesh.aio_node("a", work_commands=[SLOW]) as node:
        async with node.work.submit("a", "slow") as unit:
            output = unit.stdout()
            assert await anext(output) == b"first\n"
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await anext(output)
            hasty = unit.stdout(output.offset, timeout_s=0.05)
            with pytest.raises(receptor.MeshTimeout):
                await anext(hasty)
            await unit.cancel()
            with pytest.raises(receptor.WorkCancelled):
                await unit.wait(timeout_s=60)
            assert [chunk async for chunk in output] == []
            assert [chunk async for chunk in hasty] == []
            assert [chunk async for chunk in unit.stdout()] == [b"first\n"]


async def test_output_that_has_ended_stays_so(mesh: Mesh) -> None:
    mesh.node("hub")
    async with mesh.aio_node("a", work_commands=[CAT, SLOW]) as node:
        async with node.work.submit("a", "cat", b"all") as unit:
            output = unit.stdout()
            assert await output.read(0) == b""
            assert [chunk async for chunk in output] == [b"all"]
            assert [chunk async for chunk in output] == []
            assert await output.read() == b""
        async with node.work.submit("a", "slow") as unit:
            output = unit.stdout()
            assert await anext(output) == b"first\n"
            waiting = asyncio.ensure_future(anext(output))
            await asyncio.sleep(0)  # It begins to wait.
            output.close()
            with pytest.raises(receptor.ClosedError, match=f"^output of unit {unit.id} is closed$"):
                await waiting
            with pytest.raises(receptor.ClosedError):
                await output.read()


async def test_closing_the_node_answers_everybody(mesh: Mesh) -> None:
    mesh.node("hub")
    async with mesh.aio_node("a") as node:
        waiting = asyncio.create_task(node.wait_route("nowhere"))
        events = node.events("peer")
        reading = asyncio.create_task(collect(events))
        listener, inbox = await node.listen("x"), await node.datagram("y")
        accepting, receiving = asyncio.create_task(listener.accept()), asyncio.create_task(inbox.recv_from())
        await node.status()
        await node.close()
        ends = {"": waiting, "listener 'x' is closed: ": accepting, "datagram socket 'y' is closed: ": receiving}
        for what, task in ends.items():
            with pytest.raises(receptor.ClosedError, match=rf"^{what}node ['\"]a['\"] is closed$"):
                await task
        await reading
        for call in (node.status(), node.events("peer").get(), node.listen("x")):
            with pytest.raises(receptor.ClosedError, match="^node 'a' is closed$"):
                await call
        listener.close()
        inbox.close()
        events.close()
        with pytest.raises(receptor.ClosedError, match="^event stream of node 'a' is closed$"):
            await events.get()


async def test_no_reader_waits_for_a_node_that_has_ended(mesh: Mesh) -> None:
    mesh.node("hub")
    async with mesh.aio_node("a") as node, node.listen("x") as listener:
        reader, writer = await node.open_connection("a", "x")
        with await listener.accept():
            reading = asyncio.ensure_future(reader.read())
            await asyncio.sleep(0)  # It begins to wait.
            node._open_session().close()  # The node ends by itself,
            writer.transport.get_protocol().eof_received()  # type: ignore[attr-defined]  # and so does the stream.
            await node.close()
            with pytest.raises(receptor.StreamResetError, match="is closed"):
                await asyncio.wait_for(reading, 60)
            writer.close()


async def test_events_that_were_waited_for_in_vain_can_be_waited_for_again(mesh: Mesh) -> None:
    fake = mesh.fake
    mesh.node("hub")
    async with mesh.aio_node("a") as node, node.events("service") as before:
        release = fake.hold("events")
        events = node.events("service")
        waiting = asyncio.ensure_future(events.get())
        await seen(mesh, "events", 3)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await asyncio.to_thread(release)
        again = asyncio.ensure_future(events.get())
        await seen(mesh, "events", 4)
        async with node.listen("news"):
            assert await before.get(timeout_s=60) == await again == receptor.ServiceSeen("a", "news")
        events.close()


async def test_tasks_share_events_from_the_first_on(mesh: Mesh) -> None:
    fake = mesh.fake
    mesh.node("hub")
    async with mesh.aio_node("a") as node:
        release = fake.hold("events")
        events = node.events("service")
        waiting = [asyncio.ensure_future(events.get()) for _ in range(3)]
        await seen(mesh, "events", 2)  # The first is of the node's start.
        await asyncio.to_thread(release)
        async with events, node.listen("news"), node.listen("more"), node.listen("last"):
            told = set(await asyncio.gather(*waiting))
        assert told == {receptor.ServiceSeen("a", name) for name in ("news", "more", "last")}
    assert fake.seen["events"] == 2


async def collect(events: receptor.aio.EventStream) -> list[receptor.Event]:
    try:
        return [event async for event in events]
    except receptor.ClosedError:  # The node was closed before the stream had begun.
        return []


async def test_an_unclosed_node_warns_and_ends(mesh: Mesh) -> None:
    mesh.node("hub")
    fake = mesh.fake
    with pytest.warns(ResourceWarning, match="unclosed <receptor.aio.Node 'left'>"):
        await mesh.aio_node("left").start()
        import gc

        gc.collect()
    await asyncio.to_thread(fake.wait_for, "node left closed")


async def test_what_was_not_closed_is_named(mesh: Mesh) -> None:
    mesh.node("hub")
    async with mesh.aio_node("a") as node:
        for text, opening in (
            ("unclosed <receptor._aio_streams.Listener a:one>", node.listen("one")),
            ("unclosed <receptor._aio_streams.DatagramSocket a:two>", node.datagram("two")),
        ):
            with pytest.warns(ResourceWarning) as caught:
                await opening
                gc.collect()
            assert [str(warning.message) for warning in caught] == [text]


async def test_everything_says_what_it_is(nodes: Mesh) -> None:
    def shout(unit: receptor.WorkContext) -> str:
        return repr(unit)

    async def serve(reader: receptor.aio.MeshReader, writer: receptor.aio.MeshWriter) -> None: ...

    hub = nodes.node("hub")
    assert repr(hub.work) == "<receptor.work.Work of 'hub'>"
    async with nodes.aio_node("a") as node, await node.start_server(serve, "news") as server:
        assert repr(node.work) == "<receptor._aio_work.Work of 'a'>"
        assert repr(server) == "<receptor._aio_streams.Server a:news>"
        async with await node.work.offer("shout", shout) as offer, node.work.submit("a", "shout") as unit:
            assert repr(offer) == "<receptor._aio_work.Offer 'shout'>"
            output = unit.stdout(1)
            assert repr(output) == f"<receptor._aio_work.Output of unit {unit.id} from byte 1 on>"
            said = b"".join([chunk async for chunk in output])
            assert said.decode() == f"receptor._functions.WorkContext unit {unit.id} of 'shout'>"
        assert repr(offer) == "<receptor._aio_work.Offer 'shout' closed>"
    assert repr(server) == "<receptor._aio_streams.Server a:news closed>"
