"""The control service and its clients."""

import socket
import statistics
import tempfile
import time
from pathlib import Path

from support import Row, daemon


def figures(rounds: int) -> list[Row]:
    return round_trip_figures(rounds)


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
