"""doctor: each trouble that a way through the mesh can have, provoked, and what is said about it."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from daemons import free_port
from fake_daemon import FakeDaemon
from real_daemon import Mesh, Node, run_mesh, run_node
from receptorctl_support import Certificates, Invoke

import receptor
from receptor import control
from receptor.cli import _remedies


@pytest.fixture(scope="module")
def mesh(daemon: Path, certificates: Certificates, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with run_mesh(daemon, tmp_path_factory.mktemp("mesh"), certificates) as running:
        wait_for_service(running.gamma, "beta", "control")
        yield running


@pytest.fixture
def ctl(mesh: Mesh, invoke: Invoke) -> Invoke:
    """Run the command against gamma."""
    return lambda *args, **keys: invoke("--socket", mesh.gamma.socket, *args, **keys)


def checks(text: str) -> dict[str, str]:
    """Return the result of each check by its name, the worst where there are several."""
    order = ["ok", "skipped", "warning", "failed"]
    worst: dict[str, str] = {}
    for check in json.loads(text)["checks"]:
        name, result = check["check"], check["result"]
        if order.index(result) >= order.index(worst.get(name, "ok")):
            worst[name] = result
        assert check["remedy"] or result in ("ok", "skipped"), check
    return worst


def test_doctor_of_a_healthy_mesh(ctl: Invoke) -> None:
    result = ctl("doctor", "beta", "--worktype", "cat", "--json")
    found = json.loads(result.stdout)
    assert (result.exit_code, found["ok"], found["from"], found["to"]) == (0, True, "gamma", "beta")
    names = ["daemon", "link", "route", "ping", "service", "connection", "clocks", "way back", "work type", "signature"]
    assert [name for name in names if checks(result.stdout).get(name) != "ok"] == []
    shown = ctl("doctor").stdout
    assert "ok       cost: both ends of each link of the mesh agree (1)\n" in shown


def test_doctor_of_what_is_missing(ctl: Invoke) -> None:
    result = ctl("doctor", "bet", "--json")
    assert result.exit_code == 1
    assert checks(result.stdout)["route"] == "failed"
    assert "did you mean beta?" in result.stdout
    result = ctl("doctor", "beta", "--service", "nosuch", "--json")
    assert (checks(result.stdout)["service"], checks(result.stdout)["connection"]) == ("warning", "failed")
    result = ctl("doctor", "beta", "--worktype", "nosuch")
    assert result.exit_code == 1
    assert (
        "failed   work type: beta offers cat, exec, sh, shraw, upper, not nosuch\n         -> add a work-command"
        in result.stdout
    )


def wait_for_failure(node: Node, *kinds: str) -> None:
    """Return once a backend has failed: for a reason of its own, not because nobody listened yet; or of some kinds."""
    with receptor.connect(node.socket) as client:
        end = time.monotonic() + 60
        while not any(
            backend.error_kind in kinds if kinds else backend.error_kind not in ("", "refused")
            for backend in client.links().backends
        ):
            assert time.monotonic() < end, client.links()


def test_doctor_of_costs_that_differ(daemon: Path, tmp_path: Path, invoke: Invoke) -> None:
    port = free_port()
    listener = {"tcp-listener": {"bindaddr": "127.0.0.1", "port": port, "cost": 1}}
    peer = {"tcp-peer": {"address": f"127.0.0.1:{port}", "cost": 5}}
    with run_node(daemon, "hub", tmp_path, listener) as hub, run_node(daemon, "edge", tmp_path, peer) as edge:
        for node in (edge, hub):
            wait_for_failure(node, "cost", "rejected")  # Not cut off before the reason had arrived.
        for address, other in ((edge.socket, "hub"), (hub.socket, "edge")):
            result = invoke("--socket", address, "doctor", other, "--json")
            assert result.stdout, result.stderr
            assert checks(result.stdout)["backend"] == "failed", result.stderr
            assert "edge uses 5, hub 1" in result.stdout or "hub uses 1, edge 5" in result.stdout
            assert "set the same cost for this link in both configurations" in result.stdout


def test_doctor_of_firewalls_and_nobody_there(daemon: Path, tmp_path: Path, invoke: Invoke) -> None:
    port, nobody = free_port(), free_port()
    rules = [{"action": "reject", "fromnode": "edge", "tonode": "far"}]
    listener = {"tcp-listener": {"bindaddr": "127.0.0.1", "port": port}}
    peer = {"tcp-peer": {"address": f"127.0.0.1:{port}"}}
    dead = {"tcp-peer": {"address": f"127.0.0.1:{nobody}"}}
    with (
        run_node(daemon, "hub", tmp_path, listener, node={"firewallrules": rules}),
        run_node(daemon, "far", tmp_path, peer),
        run_node(daemon, "edge", tmp_path, peer, dead) as edge,
    ):
        edge.wait_for_log("far via hub")
        wait_for_failure(edge, "refused")
        result = invoke("--socket", edge.socket, "doctor", "far", "--json")
        found = checks(result.stdout)
        assert (result.exit_code, found["firewall"], found["backend"]) == (1, "failed", "warning")
        assert "blocked by firewall" in result.stdout
        assert "nobody listens there" in result.stdout


def test_doctor_of_a_control_service_that_lets_nobody_in(daemon: Path, tmp_path: Path, invoke: Invoke) -> None:
    port = free_port()
    rules = [{"action": "reject", "fromnode": "edge", "toservice": "control"}]
    listener = {"tcp-listener": {"bindaddr": "127.0.0.1", "port": port}}
    peer = {"tcp-peer": {"address": f"127.0.0.1:{port}"}}
    with (
        run_node(daemon, "hub", tmp_path, listener, node={"firewallrules": rules}),
        run_node(daemon, "edge", tmp_path, peer) as edge,
    ):
        edge.wait_for_log("hub via hub")
        found = checks(invoke("--socket", edge.socket, "doctor", "hub", "--json").stdout)
        assert (found["ping"], found["connection"], "examination" in found) == ("ok", "failed", False)


def test_firewall_rules_are_shown_with_their_packets(daemon: Path, tmp_path: Path, invoke: Invoke) -> None:
    rules = [{"action": "accept", "toservice": "ping"}, {"action": "drop", "toservice": "nothing"}]
    listener = {"tcp-listener": {"bindaddr": "127.0.0.1", "port": free_port()}}
    with run_node(daemon, "alone", tmp_path, listener, node={"firewallrules": rules}) as node:
        assert invoke("--socket", node.socket, "ping", "alone", "--count", "1").exit_code == 0
        table = invoke("--socket", node.socket, "links").stdout.split("\n\n")[-1].splitlines()
        assert [line.split(maxsplit=1) for line in table[:3]] == [
            ["Packets", "Firewall"],
            ["1", "action: accept toservice: ping"],
            ["0", "action: drop toservice: nothing"],
        ]
        found = invoke("--socket", node.socket, "doctor", "alone", "--json").stdout
        assert "firewall" not in checks(found), "a rule that accepts packets is no reason to worry"


def test_doctor_of_a_link_that_took_two_tries(daemon: Path, tmp_path: Path, invoke: Invoke) -> None:
    """The dialer was there first. Nothing is wrong any more."""
    port = free_port()
    listener = {"tcp-listener": {"bindaddr": "127.0.0.1", "port": port}}
    with run_node(daemon, "edge", tmp_path, {"tcp-peer": {"address": f"127.0.0.1:{port}"}}) as edge:
        wait_for_failure(edge, "refused")
        with run_node(daemon, "hub", tmp_path, listener):
            edge.wait_for_log("hub via hub")
            result = invoke("--socket", edge.socket, "doctor", "--json")
            assert checks(result.stdout)["backend"] == "ok"
            assert "is up; before that" in result.stdout
            assert result.exit_code == 0


def test_doctor_of_another_project(fake_socket: str, invoke: Invoke) -> None:
    result = invoke("--socket", fake_socket, "doctor", "beta", "--json")
    assert result.exit_code == 1
    found = checks(result.stdout)
    assert (found["daemon"], found["links"], found["route"], found["ping"]) == ("ok", "failed", "failed", "failed")


# TLS, clocks, signatures.


@pytest.fixture(scope="module")
def papers(daemon: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates that are good, for another address, for another node, and expired; and a CA that signed none."""
    folder = tmp_path_factory.mktemp("papers")

    def run(*args: str) -> None:
        subprocess.run([daemon, *args], cwd=folder, check=True, capture_output=True)

    def request(name: str, *names: str) -> None:
        run("--cert-makereq", f"commonname={name}", "bits=2048", *names, f"outreq={name}.csr", f"outkey={name}.key")

    def sign(name: str, request: str, *more: str) -> None:
        ca = ["cacert=ca.crt", "cakey=ca.key", "verify=true"]
        run("--cert-signreq", f"req={request}.csr", *ca, f"outcert={name}.crt", *more)

    for ca in ("ca", "stranger"):
        run("--cert-init", f"commonname={ca}", "bits=2048", f"outcert={ca}.crt", f"outkey={ca}.key")
    request("good", "nodeid=hub", "dnsname=localhost", "ipaddress=127.0.0.1")
    request("elsewhere", "nodeid=hub", "dnsname=hub.example", "ipaddress=192.0.2.1")
    request("other", "nodeid=other", "dnsname=localhost", "ipaddress=127.0.0.1")
    for name in ("good", "elsewhere", "other"):
        sign(name, name)
    sign("old", "good", "notbefore=2020-01-01T12:00:00Z", "notafter=2021-01-01T12:00:00Z")
    (folder / "old.key").write_bytes((folder / "good.key").read_bytes())
    return folder


def server(papers: Path, certificate: str) -> dict[str, dict[str, Any]]:
    files = {"cert": str(papers / f"{certificate}.crt"), "key": str(papers / f"{certificate}.key")}
    return {"tls-server": {"name": "srv", **files, "skipreceptornamescheck": True}}


def client(papers: Path, ca: str) -> dict[str, dict[str, Any]]:
    return {"tls-client": {"name": ca, "cert": "", "key": "", "rootcas": str(papers / f"{ca}.crt")}}


def remedies(text: str, check: str) -> str:
    """Return all that is said about what failed under this name."""
    failed = [found for found in json.loads(text)["checks"] if (found["check"], found["result"]) == (check, "failed")]
    return "; ".join(f"{found['text']} -> {found['remedy']}" for found in failed)


@pytest.mark.parametrize(
    ("certificate", "ca", "told"),
    [
        ("elsewhere", "ca", "dial the node by a name of its certificate"),
        ("old", "ca", "put a new certificate in the place of the expired one"),
        ("good", "stranger", "the end that refuses must trust the CA of the other"),
    ],
)
def test_doctor_of_certificates(
    daemon: Path, papers: Path, tmp_path: Path, invoke: Invoke, certificate: str, ca: str, told: str
) -> None:
    port = free_port()
    listener = {"tcp-listener": {"bindaddr": "127.0.0.1", "port": port, "tls": "srv"}}
    peer = {"tcp-peer": {"address": f"127.0.0.1:{port}", "tls": ca}}
    with (
        run_node(daemon, "hub", tmp_path, server(papers, certificate), listener) as hub,
        run_node(daemon, "edge", tmp_path, client(papers, ca), peer) as edge,
    ):
        for node in (edge, hub):
            wait_for_failure(node)
        result = invoke("--socket", edge.socket, "doctor", "hub", "--json")
        assert result.exit_code == 1
        assert told in remedies(result.stdout, "backend")
        assert checks(result.stdout)["certificate"] == "warning"  # of a server, and the backend says more
        assert "the certificates of servers were refused" in result.stdout
        result = invoke("--socket", hub.socket, "doctor", "edge", "--json")
        assert "receptorctl doctor, run there, says why" in remedies(result.stdout, "backend")
        about = remedies(result.stdout, "certificate")
        if certificate == "old":
            assert about.startswith("TLS server srv: the certificate expired ")
            assert about.endswith(" ago -> put a new certificate in its place")
        else:
            assert about == ""


def test_doctor_of_a_listener_without_tls(daemon: Path, papers: Path, tmp_path: Path, invoke: Invoke) -> None:
    port = free_port()
    listener = {"tcp-listener": {"bindaddr": "127.0.0.1", "port": port}}
    peer = {"tcp-peer": {"address": f"127.0.0.1:{port}", "tls": "ca"}}
    with (
        run_node(daemon, "hub", tmp_path, listener),
        run_node(daemon, "edge", tmp_path, client(papers, "ca"), peer) as edge,
    ):
        wait_for_failure(edge)
        result = invoke("--socket", edge.socket, "doctor", "hub", "--json")
        assert "give both a TLS profile, or neither" in remedies(result.stdout, "backend")


@pytest.mark.parametrize("certificate", ["good", "other"])
def test_doctor_of_a_service_with_tls(
    daemon: Path, papers: Path, tmp_path: Path, invoke: Invoke, certificate: str
) -> None:
    port = free_port()
    listener = {"tcp-listener": {"bindaddr": "127.0.0.1", "port": port}}
    safe = {"control-service": {"service": "safe", "tls": "srv"}}
    peer = {"tcp-peer": {"address": f"127.0.0.1:{port}"}}
    with (
        run_node(daemon, "hub", tmp_path, server(papers, certificate), listener, safe),
        run_node(daemon, "edge", tmp_path, client(papers, "ca"), client(papers, "stranger"), peer) as edge,
    ):
        wait_for_service(edge, "hub", "safe")

        def doctor(*options: str) -> str:
            return invoke("--socket", edge.socket, "doctor", "hub", "--service", "safe", "--json", *options).stdout

        result = doctor()
        assert checks(result)["service"] == "warning"
        assert "use --tls-client NAME" in remedies(result, "connection")
        result = doctor("--tls-client", "ca")
        if certificate == "good":
            assert (checks(result)["service"], checks(result)["connection"]) == ("ok", "ok")
        else:
            assert "the certificate of that node must carry its node ID" in remedies(result, "connection")
        assert "is of another CA" in remedies(doctor("--tls-client", "stranger"), "connection")
        assert "the name must be a tls-client" in remedies(doctor("--tls-client", "nosuch"), "connection")


def wait_for_service(node: Node, other: str, service: str) -> None:
    with receptor.connect(node.socket) as client:
        for event in client.events(timeout_s=60):
            if isinstance(event, receptor.ServiceSeen) and (event.node, event.service) == (other, service):
                return


@pytest.mark.parametrize("signs", [False, True])
def test_doctor_of_signatures(daemon: Path, papers: Path, tmp_path: Path, invoke: Invoke, signs: bool) -> None:
    port = free_port()
    make_public = ["openssl", "rsa", "-in", str(papers / "good.key"), "-pubout", "-out", str(tmp_path / "public.pem")]
    subprocess.run(make_public, check=True, capture_output=True)
    listener = {"tcp-listener": {"bindaddr": "127.0.0.1", "port": port}}
    verify = {"work-verification": {"publickey": str(tmp_path / "public.pem")}}
    secure = {"work-command": {"worktype": "secure", "command": "cat", "verifysignature": True}}
    peer = {"tcp-peer": {"address": f"127.0.0.1:{port}"}}
    own = [{"work-signing": {"privatekey": str(papers / "good.key")}}] if signs else []
    with (
        run_node(daemon, "hub", tmp_path, verify, secure, listener),
        run_node(daemon, "edge", tmp_path, *own, peer) as edge,
    ):
        wait_for_service(edge, "hub", "control")
        result = invoke("--socket", edge.socket, "doctor", "hub", "--worktype", "secure", "--json")
        assert checks(result.stdout)["work type"] == "ok"
        assert (result.exit_code, checks(result.stdout)["signature"]) == ((0, "ok") if signs else (1, "failed"))
        assert "submit with --signwork" in result.stdout
        assert signs == ("this daemon can sign" in result.stdout)


class Clocks(FakeDaemon):
    """A daemon whose clock, and that of the node behind it, are some seconds ahead."""

    def __init__(self, own_s: float, far_s: float) -> None:
        super().__init__()
        self._own_s, self._far_s = own_s, far_s

    def _ping(self, node: str) -> dict[str, Any]:
        return {"From": node, "Success": True, "Time": 9670, "TimeStr": "9.67µs"}

    def _text(self, sock: Any, lines: Any, word: str, rest: str) -> bool:
        if word == "version":
            self._reply(sock, self._about(self.node, self._own_s))
            return True
        return super()._text(sock, lines, word, rest)

    def _connect(self, sock: Any, lines: Any, words: list[str]) -> bool:
        sock.sendall(b"Connecting\n" + f"Receptor Control, node {words[0]}\n".encode())
        for line in lines:
            about = self._about(words[0], self._far_s)
            self._reply(sock, about if line == b"version\n" else self._ping(self.node))
        return False

    def _about(self, node: str, ahead_s: float) -> dict[str, Any]:
        now = datetime.now(UTC) + timedelta(seconds=ahead_s)
        return {"node": node, "version": "0.1.0", "implementation": "pyreceptor", "time": now.isoformat()}


@pytest.mark.parametrize(
    ("own_s", "far_s", "daemon_is", "clocks_are"),
    [
        (0, 0, "ok", "ok"),
        (0, 30, "ok", "warning"),
        (0, -3600, "ok", "failed"),
        (-3600, -3600, "warning", "ok"),
    ],
)
def test_doctor_of_clocks(
    tmp_path: Path, invoke: Invoke, own_s: float, far_s: float, daemon_is: str, clocks_are: str
) -> None:
    with Clocks(own_s, far_s) as fake:
        result = invoke("--socket", fake.listen_unix(tmp_path / "s"), "doctor", "beta", "--json")
        found = checks(result.stdout)
        assert (found["daemon"], found["clocks"], found["way back"]) == (daemon_is, clocks_are, "ok")
        assert ("chrony" in result.stdout) == ((daemon_is, clocks_are) != ("ok", "ok"))


def test_doctor_of_signatures_that_nobody_tells_about(tmp_path: Path, invoke: Invoke) -> None:
    with Clocks(0, 0) as fake:
        result = invoke(
            "--socket", fake.listen_unix(tmp_path / "s"), "doctor", "beta", "--worktype", "secure", "--json"
        )
        assert checks(result.stdout)["signature"] == "warning"


def test_doctor_of_a_peer_that_is_not_allowed(daemon: Path, tmp_path: Path, invoke: Invoke) -> None:
    port = free_port()
    listener = {"tcp-listener": {"bindaddr": "127.0.0.1", "port": port, "allowedpeers": ["far"]}}
    peer = {"tcp-peer": {"address": f"127.0.0.1:{port}"}}
    with run_node(daemon, "hub", tmp_path, listener) as hub, run_node(daemon, "edge", tmp_path, peer) as edge:
        for node, other in ((edge, "hub"), (hub, "edge")):
            wait_for_failure(node)
            result = invoke("--socket", node.socket, "doctor", other, "--json")
            assert "to allowedpeers of the end that refuses" in remedies(result.stdout, "backend")


def test_doctor_of_two_nodes_that_dial_each_other(daemon: Path, tmp_path: Path, invoke: Invoke) -> None:
    ports = free_port(), free_port()

    def dialling(own: int) -> list[dict[str, Any]]:
        listener = {"tcp-listener": {"bindaddr": "127.0.0.1", "port": ports[own]}}
        return [listener, {"tcp-peer": {"address": f"127.0.0.1:{ports[1 - own]}"}}]

    with (
        run_node(daemon, "hub", tmp_path, *dialling(0)) as hub,
        run_node(daemon, "edge", tmp_path, *dialling(1)) as edge,
    ):
        with receptor.connect(hub.socket) as one, receptor.connect(edge.socket) as other:
            end = time.monotonic() + 60
            while not any(b.state == "standby" for client in (one, other) for b in client.links().backends):
                assert time.monotonic() < end, (one.links(), other.links())
        for node in (edge, hub):
            result = invoke("--socket", node.socket, "doctor", "--json")
            assert (result.exit_code, checks(result.stdout)["backend"]) == (0, "ok")


@pytest.mark.parametrize(
    ("profile", "trouble", "remedy"),
    [
        ({"server": True, "expiry": "2026-06-01T00:00:00.123456789Z"}, "", ""),
        ({"expiry": "2026-01-10T00:00:00Z"}, "the certificate expires in 9d00h", "soon"),
        ({"expiry": "2025-12-31T00:00:00Z"}, "the certificate expired 1d00h ago", "new certificate"),
        ({"error": "hub.key: no such file"}, "changed files are not used: hub.key: no such file", "mend the files"),
        ({"server": True, "refused": 3}, "3 handshakes were refused", "who dials has no certificate of the right CA"),
        ({"server": False, "refused": 3}, "the certificates of servers were refused 3 times", "says which and why"),
    ],
)
def test_what_is_said_about_a_tls_profile(profile: dict[str, Any], trouble: str, remedy: str) -> None:
    found = _remedies.certificate_trouble(profile, datetime(2026, 1, 1, tzinfo=UTC).timestamp())
    assert found[0] == trouble
    assert remedy in found[1]


@pytest.mark.parametrize(
    ("state", "costs", "text"),
    [
        ("costs differ", (1.0, 2.5), "a says the link to b costs 1, b says 2.5: it is not used"),
        ("one-sided", (1.0, None), "a says that it is linked to b, and b does not"),
        ("one-sided", (None, 1.0), "b says that it is linked to a, and a does not"),
        ("unconfirmed", (1.0, None), "a says that it is linked to b, which was never heard"),
    ],
)
def test_what_is_said_about_an_edge(state: str, costs: tuple[float | None, float | None], text: str) -> None:
    told, remedy = _remedies.edge_trouble(control.TopologyEdge("a", "b", *costs, state))
    assert (told, remedy != "") == (text, True)


def test_every_kind_of_link_error_has_a_remedy() -> None:
    kinds = ["refused", "unreachable", "name", "timeout", "tls", "rejected", "cost", "not allowed", "own id"]
    for kind in [*kinds, "already linked", "silent", "closed"]:
        assert _remedies.backend_remedy(kind, "") != "", kind
    assert "log" in _remedies.backend_remedy("other", "something new")
