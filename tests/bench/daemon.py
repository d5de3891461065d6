"""The standalone daemon."""

import json
import re
import socket
import statistics
import subprocess
import tempfile
import time
from contextlib import closing
from pathlib import Path

from support import Row, connect, daemon, go_bench, program, sink, throughput

CONNECTIONS = 300
MEGABYTES = 200
TRIES = 5


def figures(rounds: int) -> list[Row]:
    rows = [*start_figures(rounds), *configuration_figures(max(rounds // 3, 5))]
    return [*rows, *metrics_figures(), *proxy_figures()]


def start_figures(rounds: int) -> list[Row]:
    """From the start of the process to an accepting control socket, and the memory it holds then."""
    times, memory, bare = [], [], []
    for _ in range(rounds):
        started = time.monotonic()
        subprocess.run([program(), "--version"], stdout=subprocess.DEVNULL, check=True)
        bare.append((time.monotonic() - started) * 1e3)
        with tempfile.TemporaryDirectory() as folder:
            started = time.monotonic()
            with daemon(Path(folder), "n", "--local-only") as (process, _):
                times.append((time.monotonic() - started) * 1e3)
                status = Path(f"/proc/{process.pid}/status").read_text()
                memory.append(int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024)  # type: ignore[index]
    return [
        (
            "daemon start to control socket",
            f"{statistics.median(times):.1f} ms",
            f"{statistics.median(bare):.1f} ms from start to end of receptor --version, {rounds} starts",
        ),
        ("daemon memory, idle", f"{statistics.median(memory):.1f} MB RSS", ""),
    ]


def configuration_figures(rounds: int) -> list[Row]:
    """A file of 500 directives, and a reload of it in which one link of 500 changes."""
    starts, reloads, none = [], [], []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            path = folder / "n.yml"
            peers = [f"- tcp-peer: {{address: '127.0.0.1:1', cost: {i + 1}}}" for i in range(500)]
            path.write_text("\n".join(peers))
            started = time.monotonic()
            with daemon(folder, "n", "--config", str(path)) as (_, control):
                starts.append((time.monotonic() - started) * 1e3)
                none.append(reload(control))
                peers[250] = peers[250].replace("cost:", "redial: false, cost:")
                path.write_text("\n".join(peers))
                reloads.append(reload(control))
    return [
        ("start to control socket, a file of 500 links", f"{statistics.median(starts):.1f} ms", f"{rounds} starts"),
        ("reload, one link of 500 changes", f"{statistics.median(reloads):.1f} ms", f"{rounds} reloads"),
        ("reload, nothing of 500 links changes", f"{statistics.median(none):.1f} ms", f"{rounds} reloads"),
    ]


def reload(control: Path) -> float:
    """Milliseconds that the control command takes."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(control))
        stream = client.makefile("rwb")
        stream.readline()
        started = time.monotonic()
        stream.write(b"reload\n")
        stream.flush()
        answer = json.loads(stream.readline())
        if not answer["Success"]:
            raise SystemExit(f"bench: reload: {answer['Error']}")
        return (time.monotonic() - started) * 1e3


def metrics_figures() -> list[Row]:
    """All metrics as text, of a node that knows many nodes and has many units."""
    took = {name: ns / 1e6 for name, ns in go_bench("./go/metrics", "Text|Reading", "ns/op", rounds=3).items()}
    reading = f"{took['Reading']:.1f} ms of it reading the node and its units"
    return [("/metrics with 1,000 nodes and 10,000 units", f"{took['Text']:.1f} ms", reading)]


def proxy_figures() -> list[Row]:
    """A TCP proxy to a service of the mesh and one back out of it, on one node: what both cost a connection and a byte.

    The stream between them is compared to the same server without a proxy, and to a stream from a control client.
    """
    server, _ = sink()
    with closing(server), tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        target = server.getsockname()[1]
        with socket.create_server(("127.0.0.1", 0)) as probe:
            entry = probe.getsockname()[1]
        inward = ["--tcp-server", "bindaddr=127.0.0.1", f"port={entry}", "remotenode=n", "remoteservice=sink"]
        outward = ["--tcp-client", "service=sink", f"address=127.0.0.1:{target}"]
        with daemon(folder, "n", "--local-only", *inward, *outward) as (_, control):
            opened = {port: statistics.median(opens(port) for _ in range(TRIES)) for port in (target, entry)}
            speed = {port: statistics.median(send(port) for _ in range(TRIES)) for port in (target, entry)}
            raw = statistics.median(send_raw(control) for _ in range(TRIES))
    against = f"{opened[entry] / opened[target]:.0%} of TCP without ({opened[target]:,.0f} a second)"
    share = f"{speed[entry] / speed[target]:.1%} of TCP"
    ratio = f"{speed[entry] / raw:.0%} of one from a control client ({raw:.0f} MB/s), {share}"
    return [
        ("connections through two TCP proxies, one after another", f"{opened[entry]:,.0f} a second", against),
        ("stream through two TCP proxies on one node", f"{speed[entry]:.0f} MB/s", ratio),
    ]


def opens(port: int) -> float:
    """Connections a second that reach the server and are answered."""
    started = time.monotonic()
    for _ in range(CONNECTIONS):
        with connect(port) as stream:
            finish(stream)
    return CONNECTIONS / (time.monotonic() - started)


def finish(stream: socket.socket) -> None:
    stream.shutdown(socket.SHUT_WR)
    if stream.recv(1) != b"!":
        raise SystemExit("bench: the proxy lost a connection")


def send(port: int) -> float:
    with connect(port) as stream:
        return throughput(stream, MEGABYTES)


def send_raw(control: Path) -> float:
    """A stream to the service without the first proxy, from a client of the control service."""
    with socket.socket(socket.AF_UNIX) as stream:
        stream.connect(str(control))
        lines = stream.makefile("rb", buffering=0)
        lines.readline()
        stream.sendall(b"connect n sink\n")
        lines.readline()
        return throughput(stream, MEGABYTES)
