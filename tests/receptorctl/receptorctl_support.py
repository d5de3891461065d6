"""What several of these tests use."""

from __future__ import annotations

import contextlib
import signal
import ssl
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from click.testing import Result

HERE = Path(__file__).parent
REPO = HERE.parents[1]

Invoke = Callable[..., Result]


@dataclass(frozen=True)
class Certificates:
    """A small CA with one server and one client, as paths of PEM files."""

    directory: Path

    def path(self, name: str) -> str:
        """Return the path of one of ca.crt, server.crt, server.key, alpha-client.crt, alpha-client.key."""
        return str(self.directory / name)


def await_rest(pid: int) -> None:
    """Return once a process waits in a system call: what it was about to do is done.

    Python misses a signal that comes in the few instructions before it waits, and a command that was interrupted
    between a write and the next line of its program does not know how much it has written.
    """
    seen = "running"
    while True:
        with contextlib.suppress(OSError):  # Its end, or a host where this may not be read.
            now = Path(f"/proc/{pid}/syscall").read_text()
            if now != seen or now.startswith("running"):
                seen = now
                time.sleep(0.02)  # There is no event to wait for in another process.
                continue
        return


def interrupt(process: subprocess.Popen[bytes]) -> None:
    """Press Ctrl-C, and again if it was missed, until the process has ended."""
    await_rest(process.pid)
    for _ in range(12):
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
            return
    raise AssertionError("it cannot be interrupted")


def server_context(certificates: Certificates, *, client_cert: bool) -> ssl.SSLContext:
    """Return the server's side of TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.options |= ssl.OP_IGNORE_UNEXPECTED_EOF  # clients end a payload by a FIN without close_notify
    context.load_cert_chain(certificates.path("server.crt"), certificates.path("server.key"))
    if client_cert:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(certificates.path("ca.crt"))
    return context


def write_files(directory: Path, certificates: Certificates) -> None:
    """Write the files that the golden sessions name."""
    (directory / "payload.txt").write_text("from a file\n")
    (directory / "par.txt").write_text("-c 'echo from file'")
    (directory / "alpha.yml").write_text(
        "- node:\n    id: alpha\n"
        "- tls-client:\n    name: cli\n"
        f"    rootcas: {certificates.path('ca.crt')}\n"
        f"    key: {certificates.path('alpha-client.key')}\n"
        f"    cert: {certificates.path('alpha-client.crt')}\n"
    )
