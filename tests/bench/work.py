"""Units of work."""

import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from support import READY_S, Row, daemon, port_of
from work_local import bulk_figures, local_figures
from work_remote import remote_figures

import receptor


def figures(rounds: int) -> list[Row]:
    return first_byte_figures(rounds) + local_figures(rounds) + remote_figures(rounds) + bulk_figures()


def first_byte(node: receptor.Node, where: str) -> float:
    started = time.monotonic()
    with node.work.submit(where, "cat", b"x") as unit:
        next(unit.stdout())
        taken = (time.monotonic() - started) * 1e3
        unit.wait(timeout_s=READY_S)
    return taken


def first_byte_figures(rounds: int) -> list[Row]:
    """From the submit in a Python program to the first byte of output, here and two hops away."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.enter_context(daemon(folder, "hub", "--tcp-listener", "bindaddr=127.0.0.1", "port=0"))
        address = port_of(folder, "hub")
        work = ["--work-command", "worktype=cat", "command=cat"]
        stack.enter_context(daemon(folder, "edge", "--tcp-peer", f"address={address}", *work))
        local = [receptor.WorkCommand("cat", "cat")]
        node = stack.enter_context(receptor.Node("laptop", peers=[f"tcp://{address}"], work_commands=local))
        node.wait_route("edge", timeout_s=READY_S)
        here = [first_byte(node, "localhost") for _ in range(rounds)]
        there = [first_byte(node, "edge") for _ in range(rounds)]
    return [
        ("submit to first output byte, local", f"{statistics.median(here):.1f} ms", f"{rounds} units"),
        ("submit to first output byte, two hops", f"{statistics.median(there):.1f} ms", f"{rounds} units"),
    ]
