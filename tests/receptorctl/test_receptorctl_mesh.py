"""What the command offers beyond the original: the mesh, units, and diagnosis, against two real daemons."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from fake_daemon import FakeDaemon
from real_daemon import Mesh, run_mesh, run_node
from receptorctl_support import Certificates, Invoke

import receptor
import receptorctl.cli
from receptor import control


@pytest.fixture(scope="module")
def mesh(daemon: Path, certificates: Certificates, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with run_mesh(daemon, tmp_path_factory.mktemp("mesh"), certificates) as running:
        yield running


@pytest.fixture
def ctl(mesh: Mesh, invoke: Invoke) -> Iterator[Invoke]:
    """Run the command against gamma; what it left is released afterwards."""
    yield lambda *args, **keys: invoke("--socket", mesh.gamma.socket, *args, **keys)
    with receptor.connect(mesh.gamma.socket) as client:
        for unit in client.work.list():
            client.work.unit(unit).release(force=True)


def submit(ctl: Invoke, program: str, *, node: str = "localhost", wait: bool = True) -> str:
    result = ctl("work", "submit", "sh", "-n", "--node", node, "-a", f"params='{program}'", "--json")
    assert result.exit_code == 0, result.stderr
    unit: str = json.loads(result.stdout)["unit"]
    if wait:
        ctl("work", "status", "--wait", unit)
    return unit


# The mesh.


def test_topology_as_a_tree(ctl: Invoke) -> None:
    assert ctl("topology").stdout == "gamma\n`-- beta  cost 1\n"


def test_topology_for_programs(ctl: Invoke) -> None:
    for option in (["--json"], ["--format", "json"]):
        mesh = json.loads(ctl("topology", *option).stdout)
        assert [node["node"] for node in mesh["nodes"]] == ["beta", "gamma"]
        [edge] = mesh["edges"]
        assert edge == {"a": "beta", "b": "gamma", "cost_ab": 1, "cost_ba": 1, "state": "ok"}
    assert '"beta" -- "gamma" [label="1"];' in ctl("topology", "--format", "dot").stdout
    assert 'n0 ---|"1"| n1' in ctl("topology", "--format", "mermaid").stdout
    drawing = ElementTree.fromstring(ctl("topology", "--format", "svg").stdout)
    texts = [text.text for text in drawing.iter("{http://www.w3.org/2000/svg}text")]
    assert sorted(filter(None, texts)) == ["1", "beta", "gamma"]


def test_topology_of_another_project(fake_socket: str, invoke: Invoke) -> None:
    shown = invoke("--socket", fake_socket, "topology").stdout
    assert shown.startswith("gamma\n\nOther links:\n  alpha -- beta  cost 1\n\nNot reachable:\n  alpha\n")


def test_names_of_foreign_nodes_do_no_harm_in_drawings(invoke: Invoke, tmp_path: Path) -> None:
    name = 'a"]<b>\x1b[31m'
    with FakeDaemon(node=name) as daemon:
        address = daemon.listen_unix(tmp_path / "s")
        for form in ("tree", "dot", "mermaid", "svg"):
            shown = invoke("--socket", address, "topology", "--format", form).stdout
            assert "\x1b" not in shown
        ElementTree.fromstring(invoke("--socket", address, "topology", "--format", "svg").stdout)


def test_path(ctl: Invoke) -> None:
    lines = ctl("path", "beta").stdout.splitlines()
    assert lines[0].split() == ["Hop", "Node", "Cost", "Time", "Error"]
    assert [line.split()[:3] for line in lines[1:]] == [["0", "gamma", "0"], ["1", "beta", "1"]]
    found = json.loads(ctl("path", "beta", "--json").stdout)
    assert (found["from"], found["to"], found["reachable"], found["cost"]) == ("gamma", "beta", True, 1)
    assert [hop["node"] for hop in found["hops"] if hop["time_ns"] > 0] == ["gamma", "beta"]
    result = ctl("path", "nosuch")
    assert (result.exit_code, result.stderr) == (1, "ERROR: node nosuch is not known here\n")


def test_links_config_and_metrics(ctl: Invoke) -> None:
    assert ctl("links").stdout.splitlines()[1].split()[:2] == ["beta", "1"]
    assert json.loads(ctl("links", "--json").stdout)["node"] == "gamma"
    assert "tcp-listener" in ctl("config").stdout
    directives = json.loads(ctl("config", "--json").stdout)["directives"]
    assert "gamma" in [entry["parameters"].get("id") for entry in directives if entry["directive"] == "node"]
    assert ctl("metrics", "receptor_build_info").stdout.splitlines()[-1].startswith("receptor_build_info{")
    assert ctl("metrics", "nosuch").stderr == "hint: no metric is named like that\n"


# The keys that the documentation of receptor.cli promises, for what changes nothing.
SHAPES = {
    "status": "Advertisements Connections KnownConnectionCosts NodeID RoutingTable Version",
    "ping beta --count 1": "node sent received replies",
    "traceroute beta": "node reached hops",
    "path beta": "from to reachable cost hops",
    "version": "receptorctl receptor",
    "reload --dry-run": "success error code changes",
    "topology": "nodes edges",
    "links": "node backends links packets",
    "config": "node directives",
    "metrics": "content_type text",
    "doctor beta": "from to ok checks",
    "top --count 1": "node version links nodes routes units states",
    "work list": "",
}


@pytest.mark.parametrize("command", SHAPES)
def test_shapes_of_what_programs_read(ctl: Invoke, command: str) -> None:
    yaml = pytest.importorskip("yaml")
    keys = set(SHAPES[command].split())
    for options, load in ((["--json"], json.loads), (["--output", "json"], json.loads), (["--output", "yaml"], None)):
        result = ctl(*command.split(), *options)
        assert result.exit_code == 0, result.stderr
        found = load(result.stdout) if load else yaml.safe_load(result.stdout)
        assert keys <= found.keys(), options


def test_every_command_that_prints_data_does_so_for_programs() -> None:
    def without_json(group: click.Group, path: str = "") -> Iterator[str]:
        for name in group.list_commands(click.Context(group)):
            command = group.get_command(click.Context(group), name)
            assert command is not None
            if isinstance(command, click.Group):
                yield from without_json(command, f"{name} ")
            elif not {"--json", "--output"} <= {option for parameter in command.params for option in parameter.opts}:
                yield path + name

    passing_bytes_through = ["completion", "connect", "work exec"]
    assert list(without_json(receptorctl.cli.cli)) == passing_bytes_through


def test_events_that_are_there(mesh: Mesh) -> None:
    command = [sys.executable, "-m", "receptorctl", "--socket", mesh.gamma.socket, "events", "link", "route", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        seen: list[dict[str, Any]] = []
        while not seen or seen[-1]["event"] != "live":
            seen.append(json.loads(process.stdout.readline()))
        process.terminate()
    told = [(event["event"], event.get("node")) for event in seen]
    assert sorted(told[:-1]) == [("link", "beta"), ("route", "beta")]
    assert told[-1] == ("live", "gamma")


def test_events_of_both_clients(mesh: Mesh) -> None:
    with receptor.connect(mesh.gamma.socket) as client:
        events = client.events(timeout_s=60)
        first = []
        for event in events:
            first.append(event)
            if isinstance(event, control.SnapshotComplete):
                break
        assert receptor.PeerUp("beta", 1.0) in first
        assert receptor.RoutesChanged({"beta": "beta"}) in first
        assert receptor.ServiceSeen("beta", "control") in first
        with client.work.submit(None, "cat", b"x") as unit:
            states = []
            for event in events:
                if isinstance(event, receptor.WorkChanged) and event.status.unit == unit.id:
                    states.append(event.status.state)
                    if event.status.complete:
                        break
            assert states[-1] is receptor.WorkState.SUCCEEDED
        assert control.WorkReleased(unit.id) in events
    with pytest.raises(ValueError, match="event kind 'nosuch': want one of link, route, service, unit"):
        list(client.events("nosuch"))


def test_top_without_a_terminal(ctl: Invoke) -> None:
    unit = submit(ctl, "echo hi")
    shown = ctl("top", "--count", "1").stdout
    assert shown.startswith("gamma  ")
    assert "links 1  nodes 2  routes 1  units: 1 succeeded" in shown
    assert unit in shown
    look = json.loads(ctl("top", "--count", "1", "--json").stdout)
    assert (look["node"], look["links"], look["states"]) == ("gamma", [{"node": "beta", "cost": 1}], {"succeeded": 1})


# Units.


def test_work_status(ctl: Invoke) -> None:
    unit = submit(ctl, "echo hi; exit 3", wait=False)
    result = ctl("work", "status", "--wait", unit)
    assert result.exit_code == 1
    assert result.stderr.endswith(f"ERROR: {unit} Failed: exit status 3\n")
    assert result.stdout.startswith(f"Unit ID: {unit}\nState: Failed\nDetail: exit status 3\nWork Type: sh\n")
    assert "\nExit Code: 3\n" in result.stdout
    shown = json.loads(ctl("work", "status", unit, "--json").stdout)
    assert (shown[unit]["State"], shown[unit]["StdoutSize"]) == (3, 3)
    result = ctl("work", "status", "nosuch")
    assert (result.exit_code, result.stderr) == (1, "ERROR: unknown work unit nosuch\n")
    running = submit(ctl, "exec sleep 600", wait=False)
    result = ctl("work", "status", "--wait", "--timeout", "0.1", running)
    assert (result.exit_code, "is not complete after 0.1 s" in result.stderr) == (1, True)


@pytest.mark.parametrize("node", ["gamma", "beta"])
def test_work_logs(ctl: Invoke, node: str) -> None:
    unit = submit(ctl, "echo one; echo two; exit 3", node=node)
    assert ctl("work", "logs", unit).stdout == "one\ntwo\n"
    assert ctl("work", "logs", unit).exit_code == 0
    assert ctl("work", "logs", "--tail", "4", unit).stdout == "two\n"
    assert ctl("work", "logs", "--follow", "--offset", "2", unit).stdout == "e\ntwo\n"
    lines = [json.loads(line) for line in ctl("work", "logs", unit, "--json").stdout.splitlines()]
    assert "".join(line["text"] for line in lines[:-1]) == "one\ntwo\n"
    end = {"unit": unit, "state": "Failed", "detail": "exit status 3", "exit_code": 3, "size": 8}
    assert lines[-1] == end
    lines = [json.loads(line) for line in ctl("work", "results", unit, "--json").stdout.splitlines()]
    assert lines[-1] == end


def test_work_logs_of_a_running_unit(mesh: Mesh, ctl: Invoke) -> None:
    unit = submit(ctl, "echo begun; exec sleep 600", wait=False)
    with receptor.connect(mesh.gamma.socket) as client:
        assert next(client.work.unit(unit).stdout(timeout_s=60)) == b"begun\n"
    assert ctl("work", "logs", unit).stdout == "begun\n"
    result = ctl("work", "logs", unit, "--json")
    assert json.loads(result.stdout.splitlines()[-1])["state"] in ("Pending", "Running")  # output may be told first


def test_binary_output_as_json(ctl: Invoke) -> None:
    unit = submit(ctl, 'printf "\\\\377\\\\376"')
    first = json.loads(ctl("work", "results", unit, "--json").stdout.splitlines()[0])
    assert first == {"offset": 0, "base64": "//4="}


def test_work_list_filters(ctl: Invoke) -> None:
    good, bad = submit(ctl, "true"), submit(ctl, "exit 1")
    far = submit(ctl, "true", node="beta")
    ids = {
        (): {good, bad, far},
        ("--state", "failed"): {bad},
        ("--state", "Failed", "--state", "succeeded"): {good, bad, far},
        ("--type", "sh"): {good, bad, far},
        ("--type", "cat"): set(),
        ("--on", "beta"): {far},
        ("--state", "failed", "--on", "beta"): set(),
    }
    for options, wanted in ids.items():
        assert set(ctl("work", "list", "-q", *options).stdout.split()) == wanted, options
    lines = ctl("work", "list", "--output", "table").stdout.splitlines()
    assert lines[0].split() == ["Unit", "State", "Type", "Node", "Size", "Age", "Detail"]
    shown = {(line.split()[0], line.split()[3]) for line in lines[1:]}
    assert shown == {(good, "gamma"), (bad, "gamma"), (far, "beta")}


def test_work_release_by_what_units_are(ctl: Invoke) -> None:
    good, bad = submit(ctl, "true"), submit(ctl, "exit 1")
    running = submit(ctl, "exec sleep 600", wait=False)
    result = ctl("work", "release", "--failed", "--dry-run")
    assert result.stdout == f"{bad}\n"
    result = ctl("work", "release", "--older-than", "7d")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "hint: no unit is like that\n")
    result = ctl("work", "release", "--failed", "--older-than", "0s")
    assert result.stdout == f"Released:\n({bad}, released)\n"
    result = ctl("work", "release", "--older-than", "0s", "--json")
    assert json.loads(result.stdout)["units"] == [{"unit": good, "result": "released"}]
    assert ctl("work", "list", "-q").stdout == f"{running}\n"
    result = ctl("work", "release", "--older-than", "soon")
    assert (result.exit_code, "write 90s, 45m, 12h, 7d or 1h30m" in result.stderr) == (1, True)
    result = ctl("work", "release", "--failed", running)
    assert (result.exit_code, "exclude each other" in result.stderr) == (1, True)


def test_units_without_times_are_left_out(fake_socket: str, fake: FakeDaemon, invoke: Invoke) -> None:
    invoke("--socket", fake_socket, "work", "submit", "cat", "-n")
    fake.next_unit().wait_complete()
    result = invoke("--socket", fake_socket, "work", "release", "--older-than", "0s")
    assert "Warning: 1 units were left out: the daemon does not tell when they ended" in result.stderr
    assert len(fake.units) == 1


# The typed clients.


def test_a_wait_is_pushed(mesh: Mesh) -> None:
    with receptor.connect(mesh.gamma.socket) as client:
        unit = client.work.submit("beta", "sh", params={"params": "'sleep 0.3; exit 2'"})
        result = unit.wait(timeout_s=60, check=False)
        assert (result.state, result.exit_code) == (receptor.WorkState.FAILED, 2)
        unit.release()


def test_what_a_daemon_says_of_itself(mesh: Mesh) -> None:
    with receptor.connect(mesh.gamma.socket) as client:
        about = client.about()
        assert (about.node, about.implementation) == ("gamma", "pyreceptor")
        assert about.commands is not None
        assert "work submit" in about.commands
        assert about.clock_skew is not None
        assert abs(about.clock_skew.total_seconds()) < 60
        assert client.links().links[0].node == "beta"
        assert "receptor_build_info" in client.metrics()
        assert any(directive["directive"] == "node" for directive in client.config())
        with client.at("beta") as beta:
            assert beta.about().node == "beta"


def test_output_outlives_a_daemon_that_is_killed(daemon: Path, tmp_path: Path) -> None:
    program = "'for i in 1 2 3 4 5 6 7 8; do echo line $i; sleep 0.2; done'"
    with run_node(daemon, "alone", tmp_path, {"local-only": {}}) as node, receptor.connect(node.socket) as client:
        unit = client.work.submit(None, "sh", params={"params": program})
        output = unit.stdout()
        seen = next(output)
        node.process.kill()
        node.process.wait()
        with run_node(daemon, "alone", tmp_path, {"local-only": {}}):
            seen += b"".join(output)
            assert seen == b"".join(b"line %d\n" % n for n in range(1, 9))
            assert unit.wait(timeout_s=60).exit_code == 0
            unit.release()
