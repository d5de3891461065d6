"""The standalone daemon."""

import json
import re
import socket
import statistics
import tempfile
import time
from pathlib import Path

from support import Row, daemon


def figures(rounds: int) -> list[Row]:
    return [*start_figures(rounds), *configuration_figures(max(rounds // 3, 5))]


def start_figures(rounds: int) -> list[Row]:
    """From the start of the process to an accepting control socket, and the memory it holds then."""
    times, memory = [], []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            started = time.monotonic()
            with daemon(Path(folder), "n", "--local-only") as (process, _):
                times.append((time.monotonic() - started) * 1e3)
                status = Path(f"/proc/{process.pid}/status").read_text()
                memory.append(int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024)  # type: ignore[index]
    return [
        ("daemon start to control socket", f"{statistics.median(times):.1f} ms", f"{rounds} starts"),
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
