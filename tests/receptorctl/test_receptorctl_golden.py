"""The golden sessions of the reference client, in their order, against the fake daemon."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_daemon import FakeDaemon
from golden import Comparer, Session, read_sessions
from receptorctl_support import HERE, Certificates, Invoke, server_context, write_files

SESSIONS = read_sessions(HERE / "data" / "10-receptorctl.txt")
# The reference client falls over an empty value; ours hands it to the daemon.
EMPTY_VALUE = "work submit shraw -n -a foo="
VERSION_WARNING = "Warning: receptorctl and receptor are different versions, they may not be compatible\n"


def test_golden_sessions(
    fake: FakeDaemon,
    tmp_path: Path,
    certificates: Certificates,
    invoke: Invoke,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sockets = {
        "SOCKDIR/gamma.sock": fake.listen_unix(tmp_path / "gamma.sock"),
        "27011": str(fake.listen_tcp()),
        "27012": str(fake.listen_tcp(server_context(certificates, client_cert=True))),
        "27013": str(fake.listen_tcp(server_context(certificates, client_cert=False))),
    }
    write_files(tmp_path, certificates)
    monkeypatch.chdir(tmp_path)
    places = {**sockets, "TLSDIR": str(certificates.directory), "CFGDIR": str(tmp_path)}
    assert len(SESSIONS) == 63, "sessions were lost in reading the file"
    replay(SESSIONS, invoke, lambda text: substitute(text, places), monkeypatch)


def test_an_empty_parameter_value_is_sent(fake: FakeDaemon, fake_socket: str, invoke: Invoke) -> None:
    session = next(session for session in SESSIONS if EMPTY_VALUE in session.line)
    result = invoke("--socket", fake_socket, *session.args[2:])
    assert result.exit_code == 0
    assert json.loads(fake.requests[-1])["foo"] == ""


def replay(
    sessions: list[Session], invoke: Invoke, place: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run sessions one after the other and compare each with the file."""
    comparer = Comparer()
    for session in sessions:
        if EMPTY_VALUE in session.line:
            continue
        for name, value in session.env.items():
            monkeypatch.setenv(name, place(value))
        args = [comparer.units.get(word, place(word)) for word in session.args]
        result = invoke(*args, stdin=session.stdin)
        for name in session.env:
            monkeypatch.delenv(name)
        stderr = result.stderr
        if VERSION_WARNING not in session.stderr:
            stderr = stderr.replace(VERSION_WARNING, "")
        what = f"$ {session.line}"
        assert result.exit_code == session.status, f"{what}: got {result.exit_code}\n{result.stdout}{result.stderr}"
        comparer.expect(place(session.stderr), stderr, f"{what}: stderr")
        expect_stdout(comparer, session, result.stdout)
        settle(comparer, session, args, invoke)


def expect_stdout(comparer: Comparer, session: Session, stdout: str) -> None:
    what = f"$ {session.line}: stdout"
    if session.args[-2:] == ["status", "--json"]:
        assert status_key(stdout) == status_key(session.stdout), what
        assert stdout == json.dumps(json.loads(stdout), indent=4, sort_keys=True) + "\n"
    elif session.args[-1] == "status" and session.stdout:
        comparer.expect(sort_services(session.stdout), sort_services(stdout), what)
    elif session.args[-1] == "--help":
        # Ours adds options and an example, and has another name for the program.
        shown = [line.split() for line in stdout.splitlines()[1:]]
        assert [line for line in session.stdout.splitlines()[1:] if line.split() not in shown] == [], what
        assert "Example: receptorctl status" in stdout
    else:
        comparer.expect(session.stdout, without_additions(stdout), what)


def settle(comparer: Comparer, session: Session, args: list[str], invoke: Invoke) -> None:
    """Wait for the end of the unit that was just submitted: the stream of its results ends with it.

    A daemon drops ExtraData a moment later, when the process that ran the unit has ended too.
    """
    if "submit" in args and "Unit ID" in session.stdout and "--rm" not in args:
        if "sleep" in session.line or "nosuchnode" in args:
            return
        unit = next(reversed(comparer.units.values()))
        invoke(*args[:2], "work", "results", unit)
        end = time.monotonic() + 60
        while '"ExtraData": null' not in (shown := invoke(*args[:2], "work", "list", "--unit_id", unit).stdout):
            assert time.monotonic() < end, f"the unit never came to rest: {shown}"


def without_additions(text: str) -> str:
    """Return a list of units without the keys that existing daemons do not have."""
    if not text.startswith("{\n"):
        return text
    units = json.loads(text)
    known = {"Detail", "ExtraData", "State", "StateName", "StdoutSize", "WorkType"}
    shown = {unit: {key: raw[key] for key in raw.keys() & known} for unit, raw in units.items()}
    return json.dumps(shown, indent=4, sort_keys=True) + "\n"


def status_key(text: str) -> object:
    """Return a status without what varies: times, and the order of the advertisements."""
    status = json.loads(text)
    for ad in status["Advertisements"]:
        ad["Time"] = len(ad["Time"])
    status["Advertisements"].sort(key=lambda ad: (ad["NodeID"], ad["Service"]))
    return status


def sort_services(text: str) -> str:
    """Sort the rows of the table of services, whose order varies."""
    lines = text.splitlines()
    first = next(n for n, line in enumerate(lines) if line.startswith("Node         Service")) + 1
    last = first + lines[first:].index("")
    return "\n".join([*lines[:first], *sorted(lines[first:last]), *lines[last:]])


def substitute(text: str, places: dict[str, str]) -> str:
    """Put the places of this run where the file has those of another."""
    for name, value in places.items():
        text = text.replace(name, value)
    return text
