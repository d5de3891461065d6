"""The standalone daemon."""

import re
import statistics
import tempfile
import time
from pathlib import Path

from support import Row, daemon


def figures(rounds: int) -> list[Row]:
    return start_figures(rounds)


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
