"""connect: the terminal as one end of a service."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
from collections.abc import Iterator
from types import FrameType

import click

from receptor.cli import _show
from receptor.cli._root import Failure, Session, cli, completing, pass_session

_BLOCK_BYTES = 64 * 1024


@cli.command(
    help="Connect the terminal to a service of a node.",
    example="receptorctl connect edge-7 control",
)
@click.argument("node", shell_complete=completing("nodes"))
@click.argument("service", shell_complete=completing("services"))
@click.option("--raw", "-r", is_flag=True, help="Hand every key to the service as it is typed, Ctrl-C included")
@click.option("--tls-client", default="", help="TLS client entry of the daemon to use for the connection")
@pass_session
def connect(session: Session, node: str, service: str, raw: bool, tls_client: str) -> None:
    """Bridge terminal and service until either ends."""
    if sys.stdin is None or not sys.stdin.isatty():
        raise Failure(
            "connect needs a terminal on standard input",
            hint="programs use ReceptorControl.connect_to_service or receptor.control instead",
        )
    with session.client.connect(node, service, tls_client=tls_client) as sock:
        try:
            with raw_terminal(sys.stdin.fileno()) if raw else contextlib.nullcontext():
                bridge(sock, sys.stdin.fileno(), sys.stdout.fileno())
        finally:
            _show.out()


def bridge(sock: socket.socket, source: int, sink: int) -> None:
    """Copy between a socket and two descriptors until either side ends."""
    while True:
        # TLS may hold decrypted bytes that no select can see.
        readers: list[socket.socket | int] = [sock, source]
        ready = [sock] if _held_bytes(sock) else select.select(readers, [], [])[0]
        if sock in ready:
            data = sock.recv(_BLOCK_BYTES)
            if not data:
                return
            _write_all(sink, data)
        if source in ready:
            data = os.read(source, _BLOCK_BYTES)
            if not data:
                return
            sock.sendall(data)


def _held_bytes(sock: socket.socket) -> int:
    pending = getattr(sock, "pending", None)
    return int(pending()) if pending is not None else 0


def _write_all(sink: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(sink, view) :]


@contextlib.contextmanager
def raw_terminal(fd: int) -> Iterator[None]:
    """Make the terminal raw, signals off, and restore it whatever ends the block, a polite kill included."""
    import termios
    import tty

    def leave(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = termios.tcgetattr(fd)
    handlers = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        tty.setraw(fd, termios.TCSADRAIN)  # the default would throw away what was typed ahead
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
        for number, handler in handlers.items():
            signal.signal(number, handler)
