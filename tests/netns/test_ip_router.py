"""Real IP traffic through the mesh: TUN interfaces on two hosts, and a network that is reached through one of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from netns_hosts import Hosts, command, must, wait_for

LAN, SERVER = "192.168.177.0/24", "192.168.177.9"
ROUTERS = {
    "laptop": ("--ip-router", "networkname=net", "interface=mesh0", "localnet=10.99.0.0/30", "routes=fd78::/64"),
    "edge": ("--ip-router", "networkname=net", "localnet=10.99.0.4/30", f"routes={LAN},fd77::/64"),
}

pytestmark = pytest.mark.skipif(not Path("/dev/net/tun").exists(), reason="there is no /dev/net/tun here")

# Answers one connection with what it sent, in capitals, and says first where it listens.
SERVE = """
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
with socket.create_server((sys.argv[1], 0), family=family) as server:
    print(server.getsockname()[1], flush=True)
    connection, peer = server.accept()
    data = b"".join(iter(lambda: connection.recv(65536), b""))
    connection.sendall(peer[0].encode() + b" " + data.upper())
"""
ASK = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=60) as s:
    s.sendall(sys.stdin.buffer.read()); s.shutdown(socket.SHUT_WR)
    sys.stdout.buffer.write(b"".join(iter(lambda: s.recv(65536), b"")))
"""


def routes(hosts: Hosts, host: str, *version: str) -> str:
    return command("ip", "-n", hosts.network.namespace(host), *version, "route").stdout


def ask(hosts: Hosts, address: str, question: bytes) -> bytes:
    """What a server on edge answers to a client on laptop."""
    edge, laptop = hosts.network.namespace("edge"), hosts.network.namespace("laptop")
    inside = ["ip", "netns", "exec"]
    with subprocess.Popen([*inside, edge, sys.executable, "-c", SERVE, address], stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        port = server.stdout.readline().decode().strip()
        client = [*inside, laptop, sys.executable, "-c", ASK, address, port]
        done = subprocess.run(client, input=question, capture_output=True, timeout=60, check=False)
        if done.returncode != 0:
            server.kill()
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


@pytest.mark.parametrize("hosts", [{"extra": ROUTERS}], indirect=True, ids=["tcp"])
def test_f129_f130_ip_traffic_and_routes(hosts: Hosts) -> None:
    laptop, edge = hosts.network.namespace("laptop"), hosts.network.namespace("edge")
    wait_for("route to the network behind edge", lambda: LAN in routes(hosts, "laptop"))
    wait_for("the way back", lambda: "10.99.0.0/30" in routes(hosts, "edge"))
    assert f"{LAN} via 10.99.0.2 dev mesh0" in routes(hosts, "laptop")
    assert "fd77::/64 dev mesh0" in routes(hosts, "laptop", "-6")
    tags = {ad["NodeID"]: ad["Tags"] for ad in hosts.hub.ask("status")["Advertisements"] if ad["Service"] == "net"}
    assert tags["edge"] == {
        "type": "IP Router", "network": "net", "route_local": "10.99.0.4/30", "route_0": LAN, "route_1": "fd77::/64",
    }  # fmt: skip
    must("ip", "-n", edge, "address", "add", f"{SERVER}/24", "dev", "lo")
    must("ip", "-n", edge, "address", "add", "fd77::9/64", "dev", "lo", "nodad")
    must("ip", "-n", laptop, "address", "add", "fd78::1/128", "dev", "lo", "nodad")

    assert ask(hosts, SERVER, b"through the mesh") == b"10.99.0.1 THROUGH THE MESH"
    large = b"x" * 2_000_000
    assert ask(hosts, SERVER, large) == b"10.99.0.1 " + large.upper()
    assert ask(hosts, "fd77::9", b"over version 6") == b"fd78::1 OVER VERSION 6"

    hosts.edge.close()
    wait_for("its routes are gone", lambda: LAN not in routes(hosts, "laptop"))
    assert "10.99.0.2 dev mesh0" in routes(hosts, "laptop"), "the interface itself stays"
    hosts.laptop.close()
    assert "mesh0" not in command("ip", "-n", laptop, "link").stdout
