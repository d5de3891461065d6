"""Send real input two hops away, compress it there, and get the result back while it is made.

    python examples/two_hops.py [FILE-OR-FOLDER]

Two daemons, ``hub`` and ``edge``, run as processes; edge dials hub. This program is the third node, ``laptop``: it
lives inside this Python process and dials hub too. laptop sends a tar of its input (by default: of the project this
file belongs to) to edge as the payload of a work unit, which compresses it, and checks that what comes back unpacks to
exactly what was sent. Exit status 0 if it does. Nothing is left running or lying about.
"""

import hashlib
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from os import fdopen, pipe
from pathlib import Path

import receptor

PROJECT = Path(__file__).resolve().parents[1]
MADE_HERE = {".git", ".venv", "build", "dist", ".mypy_cache", ".ruff_cache", ".pytest_cache"}
READY_S = 20.0


class DemoError(Exception):
    """What went wrong, and what to do about it, in one line."""


@contextmanager
def daemon(folder: Path, name: str, *directives: str) -> Iterator["subprocess.Popen[str]"]:
    """A running daemon with a node called ``name``. It is told to stop, and waited for, at the end."""
    program = shutil.which("receptor", path=sysconfig.get_path("scripts")) or shutil.which("receptor")
    if program is None:
        raise DemoError("the receptor daemon is not installed beside this Python; run: make build")
    arguments = [program, "--node", f"id={name}", f"datadir={folder}", "--log-level", "debug", *directives]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=READY_S)


def line_with(process: "subprocess.Popen[str]", text: str) -> str:
    """The first line of the daemon's log that contains ``text``; the rest is read away in the background."""
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line)
        if text in line:
            threading.Thread(target=process.stdout.read, daemon=True).start()
            return line.strip()
    raise DemoError(f"a daemon ended before it was ready:\n{''.join(seen)}")


def tar(source: Path) -> Iterator[bytes]:
    """A tar of ``source``, made as it is read."""
    reader, writer = pipe()
    problems: list[BaseException] = []

    def write() -> None:
        try:
            with fdopen(writer, "wb") as out, tarfile.open(fileobj=out, mode="w|") as archive:
                archive.add(source, source.name, filter=without_what_is_made if source == PROJECT else None)
        except BrokenPipeError:
            pass  # Nobody wants the rest.
        except BaseException as problem:
            problems.append(problem)

    thread = threading.Thread(target=write, daemon=True)  # Ctrl-C does not wait for it.
    thread.start()
    try:
        with fdopen(reader, "rb") as made:
            while chunk := made.read(1 << 18):
                yield chunk
    finally:
        thread.join()
    if problems:
        raise DemoError(f"{source} cannot be read: {problems[0]}")


def without_what_is_made(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Of the project itself only what somebody wrote is sent."""
    parts = Path(member.name).parts
    return None if len(parts) > 1 and parts[1] in MADE_HERE else member


class Measured:
    """Counts and hashes chunks as they pass."""

    def __init__(self) -> None:
        self.size = 0
        self.hash = hashlib.sha256()
        self.first_at = 0.0
        self.last_at = 0.0

    def add(self, chunk: bytes) -> None:
        now = time.monotonic()
        self.first_at = self.first_at or now
        self.last_at = now
        self.size += len(chunk)
        self.hash.update(chunk)

    def watch(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            self.add(chunk)
            yield chunk


def compress_there(node: receptor.Node, source: Path) -> None:
    """Run the unit, check its result and print the figures."""
    sent, received, unpacked = Measured(), Measured(), Measured()
    gunzip = zlib.decompressobj(wbits=31)
    started = time.monotonic()
    with node.work.submit("edge", "compress", sent.watch(tar(source))) as unit:
        for chunk in unit.stdout():
            received.add(chunk)
            unpacked.add(gunzip.decompress(chunk))
        result = unit.wait(timeout_s=READY_S)
    if not gunzip.eof or unpacked.hash.digest() != sent.hash.digest():
        raise DemoError(f"the result is not intact: {sent.size} bytes sent, {unpacked.size} unpacked")
    up, whole = sent.last_at - started, received.last_at - started
    print(f"unit           {result.unit} on edge: {result.detail}")
    print(f"sent           {sent.size:>12,} bytes in {up * 1e3:8.1f} ms  {sent.size / up / 1e6:8.1f} MB/s")
    print(f"received       {received.size:>12,} bytes, unpacked to the {unpacked.size:,} that were sent: intact")
    print(f"whole          {'':>12}          {whole * 1e3:8.1f} ms  {sent.size / whole / 1e6:8.1f} MB/s of input")
    print(f"first byte     {(received.first_at - sent.last_at) * 1e3:.1f} ms after the payload's last")


def first_byte(node: receptor.Node) -> float:
    """Milliseconds from submit to the first byte of output, for a payload of one byte."""
    started = time.monotonic()
    with node.work.submit("edge", "compress", b"x") as unit:
        next(unit.stdout())
        return (time.monotonic() - started) * 1e3


def show_mesh(node: receptor.Node) -> None:
    status = node.status()
    for name, peers in sorted(status.known_costs.items()):
        links = ", ".join(f"{peer} (cost {cost:g})" for peer, cost in sorted(peers.items()))
        print(f"topology       {name}: {links}")
    hops = [f"{hop.from_node} ({hop.rtt.total_seconds() * 1e3:.2f} ms)" for hop in node.traceroute("edge")]
    print(f"route          {' -> '.join(hops)}")


def run(source: Path) -> None:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="receptor-demo-")))
        hub = stack.enter_context(daemon(folder, "hub", "--tcp-listener", "bindaddr=127.0.0.1", "port=0"))
        address = line_with(hub, "Listening on TCP").split("Listening on TCP ")[1].split()[0]
        edge = stack.enter_context(
            daemon(
                folder, "edge",
                "--tcp-peer", f"address={address}",
                "--work-command", "worktype=compress", "command=gzip", "params=-1 -c",
                "--control-service", "service=control",
            )
        )  # fmt: skip
        line_with(edge, "Connection established with hub")
        node = stack.enter_context(receptor.Node("laptop", peers=[f"tcp://{address}"]))
        node.wait_route("edge", timeout_s=READY_S)
        show_mesh(node)
        print(
            f"submit         {min(first_byte(node) for _ in range(5)):.1f} ms to the first byte of output (best of 5)"
        )
        compress_there(node, source)


def main() -> int:
    source = Path(sys.argv[1] if len(sys.argv) > 1 else PROJECT).resolve()
    try:
        if not source.exists():
            raise DemoError(f"{source} does not exist; name a file or a folder")
        run(source)
    except (DemoError, receptor.ReceptorError, OSError) as problem:
        print(f"two_hops: error: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("two_hops: interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
