"""The node inside a Python process."""

import asyncio
import itertools
import json
import multiprocessing
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack, closing
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

from support import READY_S, Row, connect, daemon, go_bench, port_of, sink, throughput

import receptor
import receptor.testing

MEGABYTES = 300
BLOCK = 1 << 18
UNITS = 300
PAIRS = 9
STREAMS = (
    31_000_000 // BLOCK,
    MEGABYTES * 1_000_000 // BLOCK,
)  # Blocks of that which goes before, and of that which is measured.


def figures(rounds: int) -> list[Row]:
    return [
        *start_figures(rounds),
        *stream_figures(),
        *small_figures(),
        *function_figures(),
        *mesh_figures(),
    ]


def start_figures(rounds: int) -> list[Row]:
    """What a node costs the interpreter that gets one."""
    program = (
        "import os, time, json\n"
        "def rss(): return int(open('/proc/self/statm').read().split()[1]) * os.sysconf('SC_PAGE_SIZE')\n"
        "begin = time.perf_counter(); import receptor; a = time.perf_counter()\n"
        "receptor.Node; b = time.perf_counter(); before = rss()\n"
        "node = receptor.Node('a'); c = time.perf_counter(); after = rss()\n"
        "node.close(); d = time.perf_counter()\n"
        "more = []\n"
        "for _ in range(20):\n"
        "    e = time.perf_counter(); receptor.Node('a').close(); more.append(time.perf_counter() - e)\n"
        "print(json.dumps([a - begin, b - a, c - b, d - c, after - before, sorted(more)[10]]))\n"
    )
    runs = [
        json.loads(subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout)
        for _ in range(max(rounds // 3, 3))
    ]
    imported, used, opened, closed, rss, again = (statistics.median(values) for values in zip(*runs, strict=True))
    alone = statistics.median(timed(10, lambda: subprocess.run([sys.executable, "-c", ""], check=True))) / 1e3
    return [
        ("import receptor", f"{imported * 1e3:.1f} ms", f"an interpreter alone starts in {alone:.1f} ms"),
        ("first use of receptor.Node", f"{used * 1e3:.1f} ms", f"loads its modules; {len(runs)} interpreters"),
        ("first node open, library loaded", f"{opened * 1e3:.1f} ms", f"close {closed * 1e3:.1f} ms"),
        ("further nodes, open and close", f"{again * 1e3:.1f} ms", "20 nodes"),
        ("memory added by a node", f"{rss / 1e6:.1f} MB RSS", ""),
    ]


def stream_figures() -> list[Row]:
    """Python to Python, over one link: between two programs, and between two nodes in one, each beside Go."""
    plain = statistics.median(blocking(*socket.socketpair()) for _ in range(3))
    apart = partial(go_to_go, "./go/daemon", "StreamBetweenPrograms")
    within = partial(go_to_go, "./go/netceptor", "StreamOneHop")
    ways: dict[str, tuple[Callable[[], float], Callable[[], float]]] = {
        "stream between two Python programs": (partial(between_programs, send_blocking, receive_blocking), apart),
        "the same with asyncio": (partial(between_programs, send_asyncio, receive_asyncio), apart),
        "stream between two nodes in a Python program": (over_a_mesh, within),
        "that with asyncio": (asynchronous, within),
    }
    compared = {name: beside(way, go) for name, (way, go) in ways.items()}
    return [
        ("socket pair, Python to Python", f"{plain:.0f} MB/s", ""),
        *(
            (name, f"{rate:.0f} MB/s", f"{share:.0%} of the same in Go ({go:.0f} MB/s), {PAIRS} pairs")
            for name, (rate, go, share) in compared.items()
        ),
    ]


def beside(way: Callable[[], float], go_way: Callable[[], float]) -> tuple[float, float, float]:
    """Medians of the MB/s of ``way``, of those of ``go_way``, the same in Go, and of one divided by the other.

    The two take turns, and each of one is compared to the mean of the two of the other around it: how fast the
    machine is changes within seconds. Each turn is a process of its own: two of one program differ by 7 %, by which
    memory they got.
    """
    rates, around = [], [go_way()]
    for _ in range(PAIRS):
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as other:
            other.submit(way).result()  # As the Go program does a little before it does all.
            rates.append(other.submit(way).result())
        around.append(go_way())
    go = [(before + after) / 2 for before, after in itertools.pairwise(around)]
    shares = [rate / other for rate, other in zip(rates, go, strict=True)]
    return statistics.median(rates), statistics.median(go), statistics.median(shares)


def go_to_go(package: str, name: str) -> float:
    """MB/s of a benchmark of streams in Go, as the machine is now."""
    return go_bench(package, name, "MB/s", "-benchtime", "1200x", rounds=1)[name]


def over_a_mesh() -> float:
    """MB/s of a blocking stream between two nodes in this process."""
    with receptor.testing.mesh("a", "b") as nodes, nodes["b"].listen("bulk") as listener:
        return blocking(nodes["a"].connect("b", "bulk"), listener.accept())


def between_programs(send: Callable[[str], float], receive: Callable[[Connection], None]) -> float:
    """MB/s that ``send`` measures from a node in this process to that of ``receive``, which is another process."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    other = spawn.Process(target=receive, args=(theirs,))
    other.start()
    rate = send(ours.recv())
    other.join()
    return rate


def send_blocking(address: str) -> float:
    """MB/s of the second of two streams, until the far end has confirmed all."""
    with receptor.Node("a", peers=[address]) as node:
        node.wait_route("b", timeout_s=READY_S)
        for count in STREAMS:
            with node.connect("b", "bulk") as stream:
                block = bytes(BLOCK)
                begin = time.monotonic()
                for _ in range(count):
                    stream.sendall(block)
                stream.shutdown(socket.SHUT_WR)
                got = int(stream.makefile("rb").read())
                rate = got / 1e6 / (time.monotonic() - begin)
    return rate


def receive_blocking(tell: Connection) -> None:
    with receptor.Node("b") as node, node.listen("bulk") as listener:
        tell.send(node.add_listener().address)
        buffer = bytearray(BLOCK)
        for _ in STREAMS:
            with listener.accept() as stream:
                got = 0
                while count := stream.recv_into(buffer):
                    got += count
                stream.sendall(b"%d" % got)


def send_asyncio(address: str) -> float:
    """As :func:`send_blocking`."""

    async def send() -> float:
        async with receptor.aio.Node("a", peers=[address]) as node:
            await node.wait_route("b", timeout_s=READY_S)
            for count in STREAMS:
                reader, writer = await node.open_connection("b", "bulk")
                block = bytes(BLOCK)
                begin = time.monotonic()
                for _ in range(count):
                    writer.write(block)
                    await writer.drain()
                writer.write_eof()
                got = int(await reader.read())
                rate = got / 1e6 / (time.monotonic() - begin)
                writer.close()
                await writer.wait_closed()
        return rate

    return asyncio.run(send())


def receive_asyncio(tell: Connection) -> None:
    async def receive() -> None:
        async with receptor.aio.Node("b") as node:
            confirmed = asyncio.Semaphore(0)

            async def read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                got = 0
                while data := await reader.read(BLOCK):
                    got += len(data)
                writer.write(b"%d" % got)
                writer.close()
                await writer.wait_closed()
                confirmed.release()

            async with await node.start_server(read, "bulk", limit=BLOCK):
                tell.send((await node.add_listener()).address)
                for _ in STREAMS:
                    await confirmed.acquire()

    asyncio.run(receive())


def blocking(near: socket.socket, far: socket.socket) -> float:
    """MB/s from one end to the other, until the far end has all."""
    buffer, got = bytearray(BLOCK), 0

    def read() -> None:
        nonlocal got
        while count := far.recv_into(buffer):
            got += count

    thread = threading.Thread(target=read)
    begin = time.monotonic()
    thread.start()
    block = bytes(BLOCK)
    for _ in range(MEGABYTES * 1_000_000 // BLOCK):
        near.sendall(block)
    near.shutdown(socket.SHUT_WR)
    thread.join()
    seconds = time.monotonic() - begin
    near.close()
    far.close()
    return got / 1e6 / seconds


def asynchronous() -> float:
    """The same over readers and writers, each end on an event loop and in a thread of its own."""
    address: Future[str] = Future()
    counted: Future[int] = Future()

    async def receive() -> None:
        async with receptor.aio.Node("b") as node:
            ended = asyncio.Event()

            async def read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                got = 0
                while data := await reader.read(BLOCK):
                    got += len(data)
                counted.set_result(got)
                ended.set()

            async with await node.start_server(read, "bulk", limit=BLOCK):
                address.set_result((await node.add_listener()).address)
                await ended.wait()

    async def send() -> float:
        async with receptor.aio.Node("a", peers=[address.result()]) as node:
            await node.wait_route("b", timeout_s=READY_S)
            _, writer = await node.open_connection("b", "bulk")
            block = bytes(BLOCK)
            begin = time.monotonic()
            for _ in range(MEGABYTES * 1_000_000 // BLOCK):
                writer.write(block)
                await writer.drain()
            writer.write_eof()
            got = await asyncio.wrap_future(counted)
            rate = got / 1e6 / (time.monotonic() - begin)
            writer.close()
        return rate

    thread = threading.Thread(target=asyncio.run, args=(receive(),))
    thread.start()
    rate = asyncio.run(send())
    thread.join()
    return rate


def small_figures() -> list[Row]:
    """Small things over one link: an echo, a call of the node, datagrams."""
    with receptor.testing.mesh("a", "b") as nodes:
        a, b = nodes["a"], nodes["b"]
        with b.listen("echo") as listener, a.connect("b", "echo") as near, listener.accept() as far:

            def echo() -> None:
                while data := far.recv(100):
                    far.sendall(data)

            thread = threading.Thread(target=echo)
            thread.start()

            def trip() -> None:
                near.sendall(bytes(64))
                near.recv(100)

            trips = timed(2000, trip)
            near.shutdown(socket.SHUT_WR)
            thread.join()
        calls = timed(2000, lambda: a.routes())
        with b.datagram("in") as inbox, a.datagram() as outbox:
            count, payload = 50_000, bytes(1000)

            def send() -> None:
                for _ in range(count):
                    outbox.send_to(payload, ("b", "in"))

            sender = threading.Thread(target=send)
            begin = time.monotonic()
            sender.start()
            got = 0
            last = begin
            try:
                while True:
                    inbox.recv_from(timeout_s=0.5)
                    got += 1
                    last = time.monotonic()
            except receptor.MeshTimeout:
                pass
            sender.join()
            rate = got / (last - begin)
    return [
        ("echo of 64 bytes, one hop, p50", f"{trips[1000]:.0f} us", f"p99 {trips[1980]:.0f} us"),
        ("call of the node (routes), p50", f"{calls[1000]:.0f} us", f"p99 {calls[1980]:.0f} us"),
        ("datagrams of 1000 bytes, Python to Python", f"{rate:,.0f} a second", f"{got / count:.0%} arrived"),
    ]


def timed(count: int, call: Callable[[], object]) -> list[float]:
    """Sorted microseconds of calls."""
    times = []
    for _ in range(count):
        begin = time.perf_counter()
        call()
        times.append((time.perf_counter() - begin) * 1e6)
    return sorted(times)


def nothing(unit: object = None) -> None:
    """The work of the figures below."""


def function_figures() -> list[Row]:
    """Units of function work a second, 16 at once, against pools that know no units."""
    with receptor.Node("a") as node, ThreadPoolExecutor(16) as clients:
        node.work.offer("thread", nothing, concurrency=16)
        node.work.offer("process", nothing, mode="process", concurrency=os.cpu_count() or 1)

        def unit(worktype: str) -> None:
            with node.work.submit("a", worktype) as made:
                made.wait()

        rates = {}
        for worktype in ("thread", "process"):
            list(clients.map(unit, [worktype] * 20))
            begin = time.monotonic()
            list(clients.map(unit, [worktype] * UNITS))
            rates[worktype] = UNITS / (time.monotonic() - begin)
    threads, processes = bare(ThreadPoolExecutor(16)), bare(ProcessPoolExecutor(os.cpu_count()))
    return [
        ("function units in threads", f"{rates['thread']:,.0f} a second", f"a bare thread pool: {threads:,.0f}"),
        ("function units in processes", f"{rates['process']:,.0f} a second", f"a bare process pool: {processes:,.0f}"),
    ]


def bare(pool: Executor) -> float:
    """Calls a second of a pool."""
    with pool:
        list(pool.map(nothing, range(20)))
        begin = time.monotonic()
        list(pool.map(nothing, range(UNITS * 10)))
        return UNITS * 10 / (time.monotonic() - begin)


def mesh_figures() -> list[Row]:
    """A Python program, two hops from its destination; three processes and the program share the machine."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server, _ = sink()
        stack.enter_context(closing(server))
        port = server.getsockname()[1]
        stack.enter_context(daemon(folder, "hub", "--tcp-listener", "bindaddr=127.0.0.1", "port=0"))
        address = port_of(folder, "hub")
        proxy = ["--tcp-client", "service=sink", f"address=127.0.0.1:{port}"]
        stack.enter_context(daemon(folder, "edge", "--tcp-peer", f"address={address}", *proxy))
        node = stack.enter_context(receptor.Node("laptop", peers=[f"tcp://{address}"]))
        node.wait_route("edge", timeout_s=READY_S)

        pings = [node.ping("edge").rtt.total_seconds() * 1e6 for _ in range(200)]
        raw, mesh = [], []
        for _ in range(3):
            with connect(port) as plain:
                raw.append(throughput(plain, 1000))
            with node.connect("edge", "sink") as stream:
                mesh.append(throughput(stream, 300))
    tcp, two_hops = statistics.median(raw), statistics.median(mesh)
    ratio = f"{two_hops / tcp:.1%} of TCP from Python ({tcp:.0f} MB/s)"
    return [
        ("stream, Python to edge, two hops and a TCP proxy", f"{two_hops:.0f} MB/s", ratio),
        ("ping, two hops", f"{statistics.median(pings):.0f} us", "200 pings"),
    ]
