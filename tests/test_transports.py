"""A chain of daemons whose links are of every kind: pings, streams and work go across as over one."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from daemons import PATIENCE_S, Daemon, wait_for

REPO = Path(__file__).resolve().parents[1]


@pytest.fixture
def chain(receptor: Path, tmp_path: Path) -> Iterator[list[Daemon]]:
    """Four daemons: one -TCP- two -UDP- three -WebSocket- four. The last one runs work."""
    daemons: list[Daemon] = []

    def add(node: str, *directives: str) -> Daemon:
        daemons.append(Daemon(receptor, tmp_path, node, *directives))
        return daemons[-1]

    local = ("bindaddr=127.0.0.1", "port=0")
    try:
        tcp = add("one", "--tcp-listener", *local).port("TCP")
        udp = add("two", "--tcp-peer", f"127.0.0.1:{tcp}", "--udp-listener", *local).port("UDP")
        ws = add("three", "--udp-peer", f"127.0.0.1:{udp}", "--ws-listener", *local, "path=/mesh").port("Websocket")
        work = ("--work-command", "worktype=upper", "command=tr", "params=a-z A-Z")
        add("four", "--ws-peer", f"ws://127.0.0.1:{ws}/mesh", *work)
        wait_for("route from end to end", lambda: daemons[0].reaches("four") and daemons[-1].reaches("one"))
        yield daemons
    finally:
        for daemon in daemons:
            daemon.process.kill()
            daemon.process.wait(PATIENCE_S)


def work(daemon: Daemon, payload: bytes) -> bytes:
    """What comes back of ``payload`` from the work type of the far end."""
    request = {"command": "work", "subcommand": "submit", "node": "four", "worktype": "upper"}
    first, reply = daemon.ask(json.dumps(request), payload)
    assert first.startswith(b"Work unit created with ID "), first
    unit = json.loads(reply)["unitid"]
    head, _, output = b"\n".join(daemon.ask(f"work results {unit}")).partition(b"\n")
    assert head.startswith(b"Streaming results"), head
    return output


def test_ping_and_traceroute(chain: list[Daemon]) -> None:
    reply = json.loads(chain[0].ask("ping four")[0])
    assert (reply["Success"], reply["From"]) == (True, "four")
    hops = json.loads(chain[0].ask("traceroute four")[0])
    assert [hops[str(i)]["From"] for i in range(len(hops))] == ["one", "two", "three", "four"]


def test_stream_of_a_control_service(chain: list[Daemon]) -> None:
    assert chain[0].ask("connect four control")[:2] == [b"Connecting", b"Receptor Control, node four"]


def test_remote_work_in_bulk(chain: list[Daemon]) -> None:
    lines = [f"line {i} of the payload" for i in range(50_000)]
    assert work(chain[0], "\n".join(lines).encode()) == "\n".join(lines).upper().encode()


@pytest.mark.parametrize("index", [1, 2])
def test_every_link_comes_back(chain: list[Daemon], index: int) -> None:
    """A node in the middle dies without a word and is started again: links of every kind are made anew."""
    middle = chain[index]
    port = middle.port("UDP" if index == 1 else "Websocket")
    middle.end(signal.SIGKILL)
    middle.command[middle.command.index("port=0")] = f"port={port}"
    middle.start()
    wait_for("route from end to end", lambda: chain[0].reaches("four") and chain[-1].reaches("one"))
    wait_for("ping from end to end", lambda: json.loads(chain[0].ask("ping four")[0])["Success"])
    assert work(chain[0], b"again") == b"AGAIN"
