"""What the topics share: daemons to measure, Go benchmarks, and the other end of a throughput test."""

import atexit
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
READY_S = 20.0
CHUNK = bytes(1 << 18)

Row = tuple[str, str, str]
"""What was measured; its median; what it is compared to in the same run, or of how many it is the median."""


def program() -> str:
    found = (
        os.environ.get("RECEPTOR_DAEMON")
        or shutil.which("receptor", path=sysconfig.get_path("scripts"))
        or shutil.which("receptor")
    )
    if found is None:
        raise SystemExit("bench: the receptor daemon is not installed beside this Python; run: make build")
    return found


def go_bench(package: str, names: str, unit: str, *options: str, rounds: int = 5) -> dict[str, float]:
    """The median of ``unit`` (``MB/s``, ``ns/op`` or a metric of its own) of each Go benchmark whose name matches."""
    flags = ["-run", "^$", "-bench", f"^Benchmark({names})$", "-count", str(rounds), *options]
    command = [bench_program(package), *(re.sub("^-(?=[a-z])", "-test.", flag) for flag in flags)]
    out = subprocess.run(command, cwd=PROJECT / package, capture_output=True, text=True, check=True).stdout
    found: dict[str, list[float]] = {}
    for name, value in re.findall(rf"^Benchmark(\S+?)(?:-\d+)?\s.*?([\d.]+) {re.escape(unit)}", out, re.MULTILINE):
        found.setdefault(name, []).append(float(value))
    return {name: statistics.median(values) for name, values in found.items()}


@cache
def bench_program(package: str) -> str:
    """The tests of a Go package, built once."""
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder)
    path = f"{folder}/{Path(package).name}.test"
    subprocess.run(["go", "test", "-c", "-o", path, package], cwd=PROJECT, check=True)
    return path


@contextmanager
def daemon(folder: Path, name: str, *directives: str) -> Iterator[tuple["subprocess.Popen[str]", Path]]:
    """A daemon whose control socket accepts, and the socket's path."""
    path = folder / f"{name}.sock"
    arguments = [program(), "--node", f"id={name}", f"datadir={folder}", "--log-level", "debug"]
    log = (folder / f"{name}.log").open("w+")
    process = subprocess.Popen(
        [*arguments, *directives, "--control-service", f"filename={path}"], stdout=log, text=True
    )
    try:
        await_socket(path, process)
        yield process, path
    finally:
        process.terminate()
        process.wait(timeout=READY_S)
        log.close()


def await_socket(path: Path, process: "subprocess.Popen[str]") -> None:
    while process.poll() is None:
        with socket.socket(socket.AF_UNIX) as probe, suppress(FileNotFoundError, ConnectionRefusedError):
            probe.connect(str(path))
            return
    raise SystemExit(f"bench: a daemon ended with status {process.returncode}")


def port_of(folder: Path, name: str) -> str:
    found = re.search(r"Listening on TCP (\S+)", (folder / f"{name}.log").read_text())
    if found is None:
        raise SystemExit(f"bench: {name} did not say where it listens")
    return found[1]


def warm(folder: Path, megabytes: int) -> None:
    """Have the kernel use as much memory for a file as what is measured next will.

    A virtual machine gives back what it does not use, and to fetch it again takes longer than what is measured.
    """
    path = folder / "warm"
    with path.open("wb") as file:
        for _ in range(megabytes * 1_000_000 // len(CHUNK)):
            file.write(CHUNK)
    path.unlink()


def sink() -> tuple[socket.socket, list[int]]:
    """A TCP server that reads one connection after another to its end and notes how much came."""
    server, counts = socket.create_server(("127.0.0.1", 0)), []

    def serve() -> None:
        buffer = bytearray(1 << 20)
        with suppress(OSError):
            while True:
                connection, _ = server.accept()
                with connection:
                    total = 0
                    while n := connection.recv_into(buffer):
                        total += n
                    counts.append(total)
                    connection.sendall(b"!")

    threading.Thread(target=serve, daemon=True).start()
    return server, counts


def connect(port: int) -> socket.socket:
    """A connection of the load generator to a port of this machine.

    Where BBR is the machine's default, the timers that it sends by would be measured with what is to be measured.
    """
    sock = socket.socket()
    try:
        if sys.platform == "linux":
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"reno")
        sock.connect(("127.0.0.1", port))
    except OSError:
        sock.close()
        raise
    return sock


def throughput(sock: socket.socket, megabytes: int) -> float:
    """MB/s until the far end has confirmed the last byte."""
    started = time.monotonic()
    for _ in range(megabytes * 1_000_000 // len(CHUNK)):
        sock.sendall(CHUNK)
    sock.shutdown(socket.SHUT_WR)
    assert sock.recv(1) == b"!"
    return megabytes / (time.monotonic() - started)
