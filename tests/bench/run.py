"""The figures of the README, measured on this machine: ``make bench``.

Every figure is a median; the stream figures come with what they are compared to, measured in the same run. With
``--write`` the table is put into README.md between its two marker comments.
"""

import argparse
import os
import re
import shutil
import socket
import statistics
import subprocess
import sysconfig
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import receptor

PROJECT = Path(__file__).resolve().parents[2]
README = PROJECT / "README.md"
BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"
READY_S = 20.0
CHUNK = bytes(1 << 18)

Row = tuple[str, str, str]


def program() -> str:
    found = shutil.which("receptor", path=sysconfig.get_path("scripts")) or shutil.which("receptor")
    if found is None:
        raise SystemExit("bench: the receptor daemon is not installed beside this Python; run: make build")
    return found


def go_figures(rounds: int) -> list[Row]:
    """Streams in one Go process: two hops over loopback TCP links, against what they are made of."""
    names = "StreamTwoHops|StreamOneHop|QUICInMemory|RawTCP"
    command = [
        "go",
        "test",
        "-run",
        "^$",
        "-bench",
        f"^Benchmark({names})$",
        "-benchtime",
        "2000x",
        "-count",
        str(rounds),
    ]
    out = subprocess.run([*command, "./go/netceptor"], cwd=PROJECT, capture_output=True, text=True, check=True).stdout
    speed: dict[str, list[float]] = {}
    for name, value in re.findall(r"^Benchmark(\w+?)(?:-\d+)?\s.*?([\d.]+) MB/s", out, re.MULTILINE):
        speed.setdefault(name, []).append(float(value))
    median = {name: statistics.median(values) for name, values in speed.items()}
    quic, tcp = median["QUICInMemory"], median["RawTCP"]
    rows: list[Row] = [
        ("raw loopback TCP (Go)", f"{tcp:.0f} MB/s", ""),
        ("quic-go over packets in memory", f"{quic:.0f} MB/s", ""),
    ]
    for name, text in (("StreamOneHop", "stream, one hop"), ("StreamTwoHops", "stream, two hops")):
        value = median[name]
        ratio = f"{value / quic:.0%} of quic-go in memory, {value / tcp:.1%} of TCP"
        rows.append((f"{text} (Go, one process)", f"{value:.0f} MB/s", ratio))
    return rows + packet_figures(rounds)


def packet_figures(rounds: int) -> list[Row]:
    """What a relay forwards, and how fast streams open."""
    command = ["go", "test", "-run", "^$", "-bench", "^Benchmark(Forward|Relay|OpenStream)$", "-count", str(rounds)]
    out = subprocess.run([*command, "./go/netceptor"], cwd=PROJECT, capture_output=True, text=True, check=True).stdout

    def nanoseconds(name: str) -> float:
        found = re.findall(rf"^Benchmark{name}-\d+\s+\d+\s+([\d.]+) ns/op", out, re.MULTILINE)
        return statistics.median(map(float, found))

    forward, relay = nanoseconds("Forward"), nanoseconds("Relay")
    shared, own = nanoseconds("OpenStream/shared"), nanoseconds("OpenStream/own")
    return [
        ("a relay's own work for a packet of 1 KiB", f"{forward:.0f} ns", f"{1e9 / forward:,.0f} a second"),
        ("datagrams of 1 KiB, sender to relay to receiver", f"{1e9 / relay:,.0f} a second", "three nodes, one process"),
        ("streams opened, two hops, between two of ours", f"{1e9 / shared:,.0f} a second", f"{own / shared:.0f} times"),
        ("streams opened, two hops, to an existing node", f"{1e9 / own:,.0f} a second", "a connection each"),
    ]


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


def first_byte(node: receptor.Node, where: str) -> float:
    started = time.monotonic()
    with node.work.submit(where, "cat", b"x") as unit:
        next(unit.stdout())
        taken = (time.monotonic() - started) * 1e3
        unit.wait(timeout_s=READY_S)
    return taken


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


def throughput(sock: socket.socket, megabytes: int) -> float:
    """MB/s until the far end has confirmed the last byte."""
    started = time.monotonic()
    for _ in range(megabytes * 1_000_000 // len(CHUNK)):
        sock.sendall(CHUNK)
    sock.shutdown(socket.SHUT_WR)
    assert sock.recv(1) == b"!"
    return megabytes / (time.monotonic() - started)


def mesh_figures(rounds: int) -> list[Row]:
    """A Python program, two hops from its destination; three processes and the program share the machine."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server, _ = sink()
        stack.enter_context(closing(server))
        port = server.getsockname()[1]
        stack.enter_context(daemon(folder, "hub", "--tcp-listener", "bindaddr=127.0.0.1", "port=0"))
        address = port_of(folder, "hub")
        work = ["--work-command", "worktype=cat", "command=cat"]
        proxy = ["--tcp-client", "service=sink", f"address=127.0.0.1:{port}"]
        stack.enter_context(daemon(folder, "edge", "--tcp-peer", f"address={address}", *work, *proxy))
        local = [receptor.WorkCommand("cat", "cat")]
        node = stack.enter_context(receptor.Node("laptop", peers=[f"tcp://{address}"], work_commands=local))
        node.wait_route("edge", timeout_s=READY_S)

        pings = [node.ping("edge").rtt.total_seconds() * 1e6 for _ in range(200)]
        here = [first_byte(node, "localhost") for _ in range(rounds)]
        there = [first_byte(node, "edge") for _ in range(rounds)]
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
        ("submit to first output byte, local", f"{statistics.median(here):.1f} ms", f"{rounds} units"),
        ("submit to first output byte, two hops", f"{statistics.median(there):.1f} ms", f"{rounds} units"),
        ("ping, two hops", f"{statistics.median(pings):.0f} us", "200 pings"),
    ]


def table(rows: list[Row]) -> str:
    cells = [("measured", "median", "compared to, or of"), ("---", "---", "---"), *rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put the table into README.md")
    parser.add_argument("--rounds", type=int, default=30, help="units and starts to time (default 30)")
    options = parser.parse_args()
    rows = [*start_figures(options.rounds), *mesh_figures(options.rounds), *go_figures(5)]
    note = f"Measured with `make bench` on {os.cpu_count()} cores, everything on one machine."
    text = f"{table(rows)}\n\n{note}"
    print(text)
    if options.write:
        before, _, rest = README.read_text().partition(BEGIN)
        _, _, after = rest.partition(END)
        README.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")


if __name__ == "__main__":
    main()
