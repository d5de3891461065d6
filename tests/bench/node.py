"""The node inside a Python process."""

import socket
import statistics
import tempfile
from contextlib import ExitStack, closing
from pathlib import Path

from support import READY_S, Row, daemon, port_of, sink, throughput

import receptor


def figures(rounds: int) -> list[Row]:
    return mesh_figures()


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
            with socket.create_connection(("127.0.0.1", port)) as plain:
                raw.append(throughput(plain, 1000))
            with node.connect("edge", "sink") as stream:
                mesh.append(throughput(stream, 300))
    tcp, two_hops = statistics.median(raw), statistics.median(mesh)
    ratio = f"{two_hops / tcp:.1%} of TCP from Python ({tcp:.0f} MB/s)"
    return [
        ("stream, Python to edge, two hops and a TCP proxy", f"{two_hops:.0f} MB/s", ratio),
        ("ping, two hops", f"{statistics.median(pings):.0f} us", "200 pings"),
    ]
