"""Units of work on other nodes, over one hop and over two."""

from __future__ import annotations

import json
import socket
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from support import CHUNK, READY_S, Row, daemon, port_of, sink, warm

MIB = 1 << 20
WORK = (
    ("cat", "cat", ""),
    ("count", "wc", "-c"),
    ("head", "head", "-c 1073741824 /dev/zero"),
    ("dd", "dd", f"if=/dev/zero bs={len(CHUNK)} count={1024 * MIB // len(CHUNK)} status=none"),
    ("true", "true", ""),
)


def remote_figures(rounds: int) -> list[Row]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server, _ = sink()
        stack.enter_context(closing(server))
        work = [word for name, command, params in WORK for word in work_command(name, command, params)]
        work += ["--tcp-client", "service=sink", f"address=127.0.0.1:{server.getsockname()[1]}"]
        listen = ["--tcp-listener", "bindaddr=127.0.0.1", "port=0"]
        stack.enter_context(daemon(folder, "hub", *listen, *work))
        peer = ["--tcp-peer", f"address={port_of(folder, 'hub')}"]
        stack.enter_context(daemon(folder, "edge", *peer, *work))
        _, path = stack.enter_context(daemon(folder, "alpha", *peer, *work))
        for node in ("hub", "edge"):
            await_route(path, node)
        rows = [row for name, node in NODES for row in latency_figures(path, name, node, 5 * rounds)]
        return rows + rate_figures(path) + bulk_figures(path)


NODES = (("one hop", "hub"), ("two hops", "edge"))


def work_command(name: str, command: str, params: str) -> list[str]:
    return ["--work-command", f"worktype={name}", f"command={command}", f"params={params}"]


@contextmanager
def session(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(120)
        client.connect(str(path))
        line_of(client)
        yield client


def line_of(client: socket.socket) -> bytes:
    """The next line, and nothing of what comes behind it."""
    line = b""
    while not line.endswith(b"\n") and (there := client.recv(1024, socket.MSG_PEEK)):
        line += client.recv(there.find(b"\n") + 1 or len(there))
    return line


def ask(path: Path, text: str) -> dict[str, object]:
    with session(path) as client:
        client.sendall(text.encode() + b"\n")
        found: dict[str, object] = json.loads(line_of(client))
        return found


def await_route(path: Path, node: str) -> None:
    end = time.monotonic() + READY_S
    while not ask(path, f"ping {node}")["Success"]:
        if time.monotonic() > end:
            raise SystemExit(f"bench: no route to {node}")


def submit(path: Path, node: str, work: str, payload: int | bytes = b"") -> str:
    """Submit a unit with a payload, or with so many MiB of zeros, and return its ID."""
    with session(path) as client:
        client.sendall(f"work submit {node} {work}\n".encode())
        unit = line_of(client).decode().split(" ID ")[1].split(".")[0]
        if isinstance(payload, bytes):
            client.sendall(payload)
        else:
            for _ in range(payload * MIB // len(CHUNK)):
                client.sendall(CHUNK)
        client.shutdown(socket.SHUT_WR)
        assert b"Job Started" in line_of(client)
        return unit


def read_results(path: Path, unit: str) -> tuple[float, int]:
    """When the first byte came, and how many there were."""
    with session(path) as client:
        client.sendall(f"work results {unit}\n".encode())
        line_of(client)
        buffer = bytearray(MIB)
        total, first = 0, 0.0
        while n := client.recv_into(buffer):
            first = first or time.monotonic()
            total += n
        return first, total


def latency_figures(path: Path, name: str, node: str, rounds: int) -> list[Row]:
    """``cat`` of 1 KiB, by a client of the control socket."""
    first_byte, finished = [], []
    for _ in range(rounds):
        started = time.monotonic()
        unit = submit(path, node, "cat", bytes(1024))
        first, total = read_results(path, unit)
        finished.append((time.monotonic() - started) * 1e3)
        first_byte.append((first - started) * 1e3)
        assert total == 1024
        assert ask(path, f"work status {unit}")["State"] == 2
        ask(path, f"work release {unit}")
    rows: list[Row] = []
    for what, times in (("first output byte", first_byte), ("finished", finished)):
        p99 = statistics.quantiles(times, n=100)[98]
        text = f"p99 {p99:.1f} ms, of {rounds} units"
        rows.append((f"submit to {what}, cat of 1 KiB, {name}", f"{statistics.median(times):.1f} ms", text))
    return rows


def rate_figures(path: Path) -> list[Row]:
    """Units that are submitted, ended and released, each client one after another."""
    bare = min(time_bare() for _ in range(3))
    rows: list[Row] = []
    for clients in (1, 16, 64):
        count = 20 if clients == 1 else 2 * clients
        per_client = max(count // clients, 2)
        started = time.monotonic()
        threads = [threading.Thread(target=many, args=(path, per_client)) for _ in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        rate = clients * per_client / (time.monotonic() - started)
        ratio = f"{rate * bare:.0%} of fork and exec of true ({1 / bare:,.0f} a second)"
        rows.append((f"units run on another node, {clients} client{'s'[: clients > 1]}", f"{rate:.0f} a second", ratio))
    return rows


def many(path: Path, count: int) -> None:
    for _ in range(count):
        unit = submit(path, "hub", "true")
        read_results(path, unit)
        ask(path, f"work release {unit}")


def time_bare() -> float:
    started = time.monotonic()
    for _ in range(50):
        subprocess.run(["true"], check=True, stdin=subprocess.DEVNULL)
    return (time.monotonic() - started) / 50


def bulk_figures(path: Path) -> list[Row]:
    """Payload and output, each compared to a stream right before and right after: the machine changes by the minute.

    The output comes from a command that writes as much at a time as the stream is given, and from one that writes
    4 KiB: on two cores its own work, which is a second for each GB, counts.
    """
    moved = [
        ("256 MiB of stdin, one hop", "count", 256),
        ("1 GiB of stdout, one hop, of dd in blocks of 256 KiB", "dd", 1024),
        ("1 GiB of stdout, one hop, of head in blocks of 4 KiB", "head", 1024),
    ]
    raws = [raw_stream(path)]
    speeds: dict[str, list[float]] = {what: [] for what, _, _ in moved}
    shares: dict[str, list[float]] = {what: [] for what, _, _ in moved}
    for _ in range(5):
        for what, work, size in moved:
            warm(path.parent, 2 * size)  # There are two copies.
            speeds[what].append(bulk(path, work, size))
            raws.append(raw_stream(path))
            shares[what].append(2 * speeds[what][-1] / (raws[-2] + raws[-1]))
    rows: list[Row] = [
        ("stream to a TCP sink behind another node, one hop", f"{statistics.median(raws):.0f} MB/s", "for comparison")
    ]
    for what, _, _ in moved:
        share = statistics.median(shares[what])
        rows.append((what, f"{statistics.median(speeds[what]):.0f} MB/s", f"{share:.0%} of that stream"))
    return rows


def bulk(path: Path, work: str, size: int) -> float:
    started = time.monotonic()
    unit = submit(path, "hub", work, size if work == "count" else b"")
    read_results(path, unit)
    taken = time.monotonic() - started
    assert ask(path, f"work status {unit}")["State"] == 2
    ask(path, f"work release {unit}")
    return size * MIB / 1e6 / taken


def raw_stream(path: Path) -> float:
    with session(path) as client:
        client.sendall(b"connect hub sink\n")
        assert line_of(client) == b"Connecting\n"
        started = time.monotonic()
        for _ in range(512 * MIB // len(CHUNK)):
            client.sendall(CHUNK)
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b"!"
        return 512 * MIB / 1e6 / (time.monotonic() - started)


if __name__ == "__main__":
    for row in remote_figures(20):
        print(*row, sep=" | ")
