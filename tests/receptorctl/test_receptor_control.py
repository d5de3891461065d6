"""The typed client, and what it makes of servers that are not well-behaved."""

from __future__ import annotations

import contextlib
import doctest
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fake_daemon import FakeDaemon

import receptor.errors
from receptor import (
    _control_errors,
    _control_events,
    _control_exec,
    _control_protocol,
    _control_socket,
    control,
)
from receptor.cli import _show, _table
from receptor.types import ServiceType, WorkState


@pytest.fixture
def client(fake_socket: str) -> Iterator[control.Client]:
    with control.connect(fake_socket) as opened:
        yield opened


def test_status(client: control.Client) -> None:
    status = client.status()
    assert (status.node, status.cpu_count, status.memory_mib) == ("gamma", 2, 24105)
    assert status.known_costs["alpha"] == {"beta": 1}
    ad = next(ad for ad in status.advertisements if ad.service == "ctl2")
    assert (ad.node, ad.type, ad.tags) == ("alpha", ServiceType.STREAM, {"type": "Control Service"})
    assert ad.time == datetime(2026, 11, 21, 21, 13, 45, 916270, UTC)
    assert [work.worktype for work in ad.work if work.secure] == ["secure"]
    assert client.version() == status.version == "1.4.9+git"
    assert client.node == "gamma"


def test_ping_and_traceroute(client: control.Client) -> None:
    pong = client.ping("gamma")
    assert (pong.from_node, pong.rtt) == ("gamma", timedelta(microseconds=9.67))
    with pytest.raises(receptor.errors.Unreachable) as caught:
        client.ping("nosuch")
    assert (caught.value.code, str(caught.value)) == ("no_route", "no route to node")
    first, second = client.traceroute("beta")
    assert (first.number, first.from_node, first.error) == (0, "gamma", None)
    assert second.error is not None
    assert second.error.code == "no_route"


def test_work(client: control.Client) -> None:
    seen: list[str] = []
    job = client.work.submit(None, "shraw", (b"in", b"put"), params={"params": "-c cat"}, on_created=seen.append)
    assert job.started
    assert seen == [job.id]
    assert b"".join(job.stdout(offset=2)) == b"put"
    with job.open_stdout(offset=3) as sock:
        assert sock.recv(10, socket.MSG_WAITALL) == b"ut"
    status = job.status()
    assert (status.state, status.detail, status.stdout_size) == (WorkState.SUCCEEDED, "exit status 0", 5)
    assert client.work.list() == {job.id: status}
    assert job.wait().exit_code == 0
    assert job.cancel()
    assert job.release(force=True)
    with pytest.raises(receptor.errors.UnitNotFound, match=f"(?m)^unknown work unit {job.id}$") as caught:
        client.work.get(job.id)
    assert caught.value.code == "unit_unknown"
    with pytest.raises(receptor.errors.WorkTypeError):
        client.work.submit(None, "nosuch")


def test_a_ttl_is_written_as_a_duration(fake: FakeDaemon, client: control.Client) -> None:
    client.work.submit("elsewhere", "cat", ttl_s=90.5, sign=True)
    assert '"ttl": "90.5s", "signwork": "true"' in fake.requests[-1]


def test_services(client: control.Client) -> None:
    with client.connect("beta", "echo") as sock, sock.makefile("rwb") as file:
        file.write(b"hello\n")
        file.flush()
        assert file.readline() == b"HELLO\n"
    with client.at("beta") as beta:
        assert list(beta.work.list()) == ["IGv3kQiU"]
        assert beta.node == "beta"
    assert client.status().node == "gamma"


def test_reload(client: control.Client) -> None:
    client.reload()


def test_words_cannot_smuggle_in_requests(fake: FakeDaemon, client: control.Client) -> None:
    for unit in ("a\nreload", "a b", ""):
        with pytest.raises(ValueError, match="cannot be used in a request"):
            client.work.unit(unit).release()
    with pytest.raises(ValueError, match="cannot contain a newline"):
        client.command("ping a\nreload")
    assert fake.requests == []


def test_a_payload_that_breaks_off_is_a_reset(fake: FakeDaemon, client: control.Client) -> None:
    def blocks() -> Iterator[bytes]:
        yield b"half of the input"
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        client.work.submit(None, "cat", blocks())
    unit = next(iter(fake.units.values()))
    unit.wait_complete()
    assert (unit.state, fake.uploads_broken) == (3, 1), "the daemon took half a payload for a whole one"


def test_a_payload_of_another_type_is_refused(client: control.Client) -> None:
    with pytest.raises(TypeError, match="a payload is bytes, str, a binary file or an iterable of bytes, not int"):
        client.work.submit(None, "cat", 5)  # type: ignore[arg-type]


# Servers that are not well-behaved.

GREETING = b"Receptor Control, node x\n"
Talk = Callable[[socket.socket], object]


@contextlib.contextmanager
def server(path: Path, talk: Talk) -> Iterator[str]:
    """Serve one client with ``talk``, then close."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            sock, _ = listener.accept()
            with sock, contextlib.suppress(OSError):
                talk(sock)

        thread = threading.Thread(target=serve)
        thread.start()
        yield str(path)
        thread.join(60)
        assert not thread.is_alive()


def answering(*answers: bytes) -> Talk:
    """Greet, and give each request the next answer."""

    def talk(sock: socket.socket) -> None:
        sock.sendall(GREETING)
        for answer in answers:
            sock.recv(65536)
            sock.sendall(answer)

    return talk


@pytest.mark.parametrize("greeting", [b"SSH-2.0-OpenSSH\r\n", b"\n", b"\xff\xfe\x00\n", b"Receptor Control, node \n"])
def test_another_greeting(tmp_path: Path, greeting: bytes) -> None:
    with (
        server(tmp_path / "s", lambda sock: sock.sendall(greeting)) as address,
        pytest.raises(control.ControlProtocolError, match="this is not a Receptor control service, it greets with"),
    ):
        control.connect(address)


def test_an_endless_greeting(tmp_path: Path) -> None:
    with (
        server(tmp_path / "s", lambda sock: sock.sendall(b"x" * 65_536_000)) as address,
        pytest.raises(control.ControlProtocolError, match="a line longer than 65536 bytes"),
    ):
        control.connect(address)


def test_an_endless_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def talk(sock: socket.socket) -> None:
        sock.sendall(GREETING)
        sock.recv(65536)
        while True:
            sock.sendall(b"x" * 65536)

    limits = {"max_bytes": 1_000_000, "exact": False}
    monkeypatch.setattr(_control_socket.Connection.read_line, "__kwdefaults__", limits)
    with (
        server(tmp_path / "s", talk) as address,
        control.connect(address) as client,
        pytest.raises(control.ControlProtocolError, match="a line longer than 1000000 bytes"),
    ):
        client.status()


@pytest.mark.parametrize("sent", [b"", b"Receptor Con"])
def test_an_early_close_before_the_greeting(tmp_path: Path, sent: bytes) -> None:
    with (
        server(tmp_path / "s", lambda sock: sock.sendall(sent)) as address,
        pytest.raises(control.DisconnectedError, match="closed the connection before it answered"),
    ):
        control.connect(address)


def test_an_early_close_in_an_answer(tmp_path: Path) -> None:
    with (
        server(tmp_path / "s", answering(b'{"NodeID":')) as address,
        control.connect(address) as client,
        pytest.raises(ConnectionError) as caught,
    ):
        client.status()
    assert isinstance(caught.value, control.ControlClientError)
    assert caught.value.code == "closed"


@pytest.mark.parametrize(
    "answer",
    [
        b"{\n",
        b"[]\n",
        b"null\n",
        b"5\n",
        b"NaN\n",
        b"\xff\n",
        b"[" * 200_000 + b"\n",
        b'{"NodeID":"x","Connections":5,"Version":""}\n',
        b'{"NodeID":"x","Connections":[5]}\n',
        b'{"Advertisements":[{"Tags":{},"WorkCommands":7}]}\n',
        b'{"SystemCPUCount":"many"}\n',
    ],
    ids=lambda answer: repr(answer[:30]),
)
def test_an_answer_that_makes_no_sense(tmp_path: Path, answer: bytes) -> None:
    with (
        server(tmp_path / "s", answering(answer)) as address,
        control.connect(address) as client,
        pytest.raises(control.ControlProtocolError),
    ):
        client.status()


@pytest.mark.parametrize("answer", [b'{"x":{}}\n', b'{"0":5}\n', b'{"0":{"From":"x","Time":"soon"}}\n'])
def test_a_traceroute_that_makes_no_sense(tmp_path: Path, answer: bytes) -> None:
    with (
        server(tmp_path / "s", answering(answer)) as address,
        control.connect(address) as client,
        pytest.raises(control.ControlProtocolError),
    ):
        client.traceroute("x")


@pytest.mark.parametrize("answer", [b'{"released":"other"}\n', b"{}\n", b'{"cancelled":"U"}\n'])
def test_a_release_that_is_not_confirmed(tmp_path: Path, answer: bytes) -> None:
    with (
        server(tmp_path / "s", answering(answer)) as address,
        control.connect(address) as client,
        pytest.raises(control.ControlProtocolError, match="does not confirm that unit"),
    ):
        client.work.unit("U").release()


CREATED = b"Work unit created with ID U1. Send stdin data and EOF.\n"


@pytest.mark.parametrize(
    ("answers", "text"),
    [
        ((b"Hello\n",), "^Failed to start work unit: unexpected answer 'Hello'$"),
        ((b"ERROR: no space\n",), "^Failed to start work unit: no space$"),
        ((b"Work unit created",), "closed the connection before it answered"),
        ((CREATED, b"ERROR: cannot sign work: signing key is empty\n"), "^Remote error: ERROR: cannot sign work"),
        ((CREATED, b'{"result":"Job Started"}\n'), "lacks result or unitid"),
    ],
)
def test_a_submit_that_goes_wrong(tmp_path: Path, answers: tuple[bytes, ...], text: str) -> None:
    with (
        server(tmp_path / "s", answering(*answers)) as address,
        control.connect(address) as client,
        pytest.raises(control.ControlClientError, match=text),
    ):
        client.work.submit(None, "cat", b"x")


def test_the_words_of_a_daemon_that_stops_reading(tmp_path: Path) -> None:
    def talk(sock: socket.socket) -> None:
        sock.sendall(GREETING)
        sock.recv(65536)
        sock.sendall(CREATED)
        sock.recv(10)
        sock.sendall(b"ERROR: no space left on device\n")
        sock.shutdown(socket.SHUT_RD)

    with (
        server(tmp_path / "s", talk) as address,
        control.connect(address) as client,
        pytest.raises(control.RefusedError, match=r"^Remote error: ERROR: no space left on device$"),
    ):
        client.work.submit(None, "cat", (b"x" * 65536 for _ in range(1000)))


def test_a_prompt_in_pieces(tmp_path: Path) -> None:
    def talk(sock: socket.socket) -> None:
        sock.sendall(GREETING)
        sock.recv(65536)
        for byte in CREATED:
            sock.sendall(bytes([byte]))
        while sock.recv(65536):
            pass
        sock.sendall(b'{"result":"Job Started","unitid":"U1"}\n')

    with server(tmp_path / "s", talk) as address, control.connect(address) as client:
        unit = client.work.submit(None, "cat", b"x")
        assert (unit.id, unit.result) == ("U1", "Job Started")


def test_no_answer_in_time(tmp_path: Path) -> None:
    with (
        server(tmp_path / "s", lambda sock: sock.recv(1)) as address,
        pytest.raises(TimeoutError, match=r"no answer from the daemon within 0\.05 s"),
    ):
        control.connect(address, timeout_s=0.05)


def test_doctests_and_public_names() -> None:
    for module in (_control_errors, _control_events, _control_exec, _control_protocol, _control_socket, _show, _table):
        assert doctest.testmod(module).failed == 0
    assert control.__all__ == sorted(control.__all__)
    for name in control.__all__:
        assert hasattr(control, name)


def test_every_error_is_of_both_families() -> None:
    for name in _control_errors.__dict__:
        kind = getattr(_control_errors, name)
        if isinstance(kind, type) and issubclass(kind, control.ControlClientError):
            assert issubclass(kind, receptor.errors.ReceptorError)
            assert issubclass(kind, RuntimeError)
