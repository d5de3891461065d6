"""The control service and its clients."""

import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from support import Row, daemon, go_bench


def figures(rounds: int) -> list[Row]:
    return round_trip_figures(rounds) + service_figures() + cold_start_figures(rounds)


def round_trip_figures(rounds: int) -> list[Row]:
    """One ``status`` after another on one connection of the unix socket."""
    times = []
    with (
        tempfile.TemporaryDirectory() as folder,
        daemon(Path(folder), "n", "--local-only") as (_, path),
        socket.socket(socket.AF_UNIX) as client,
    ):
        client.connect(str(path))
        replies = client.makefile("rb")
        replies.readline()
        for _ in range(10 * rounds):
            started = time.monotonic()
            client.sendall(b"status\n")
            replies.readline()
            times.append((time.monotonic() - started) * 1e6)
    return [
        ("control round trip, status of a node alone", f"{statistics.median(times):.0f} us", f"{10 * rounds} times")
    ]


def service_figures() -> list[Row]:
    """The service alone, its clients in the same Go process over a unix socket."""
    names = "RoundTrip|Status1000Nodes|Topology1000Nodes|WorkList10000|Clients500"
    took = go_bench("./go/control", names, "ns/op", "-benchtime", "300ms", rounds=3)
    once = took["RoundTrip"]

    def times(name: str) -> str:
        return f"{took[name] / once:.0f} round trips"

    return [
        ("control round trip, version (Go, one process)", f"{once / 1e3:.0f} us", ""),
        ("status with 1,000 known nodes", f"{took['Status1000Nodes'] / 1e6:.1f} ms", times("Status1000Nodes")),
        ("topology with 1,000 known nodes", f"{took['Topology1000Nodes'] / 1e6:.1f} ms", times("Topology1000Nodes")),
        ("work list with 10,000 units", f"{took['WorkList10000'] / 1e6:.1f} ms", times("WorkList10000")),
        (
            "status, 500 clients at once",
            f"{1e9 / took['Clients500']:,.0f} a second",
            f"{1e9 / once:,.0f} versions from one",
        ),
    ]


def cold_start_figures(rounds: int) -> list[Row]:
    """``receptorctl status`` as somebody types it, against a Python that does nothing."""
    bare, status, topology = [], [], []
    with tempfile.TemporaryDirectory() as folder, daemon(Path(folder), "n", "--local-only") as (_, path):
        command = [sys.executable, "-m", "receptorctl", "--socket", str(path)]
        for _ in range(min(rounds, 15)):
            bare.append(duration_ms([sys.executable, "-c", "pass"]))
            status.append(duration_ms([*command, "status"]))
            topology.append(duration_ms([*command, "topology"]))
    python = f"{statistics.median(bare):.0f} ms of it Python alone, {len(bare)} times"
    return [
        ("receptorctl status, cold start", f"{statistics.median(status):.0f} ms", python),
        ("receptorctl topology, cold start", f"{statistics.median(topology):.0f} ms", python),
    ]


def duration_ms(command: list[str]) -> float:
    started = time.monotonic()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    return (time.monotonic() - started) * 1e3
