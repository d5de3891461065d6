r"""Daemons on three hosts, which are network namespaces: delays, losses, cut links, a second path, a partition.

    laptop --- hub --- edge        cost 1 each
       \_______________/           cost 5

Needs root, the ``ip`` and ``tc`` programs and a kernel that lets us; without them the tests are skipped.
"""

from __future__ import annotations

import os

import pytest
from netns_hosts import LINK_LOSS_S, LINKS, Counter, Hosts, Unit, wait_for

from receptorctl import ReceptorControl


def test_three_hosts(hosts: Hosts) -> None:
    assert hosts.laptop.ask("status")["RoutingTable"] == {"hub": "hub", "edge": "hub"}
    payload = os.urandom(300_000)
    assert Unit(hosts.laptop, "cat", payload).finish() == (payload, "exit status 0")


DISTURBANCES = {
    "delay": "netem delay 40ms",
    "loss": "netem loss 10%",
    "all": "netem delay 30ms 20ms 25% loss 5% duplicate 2%",
    "narrow": "tbf rate 8mbit burst 5kb limit 10kb",  # What does not fit in the queue is lost.
}


@pytest.mark.parametrize("hosts", [{"kind": "tcp"}, {"kind": "udp"}], indirect=True, ids=["tcp", "udp"])
@pytest.mark.parametrize("how", DISTURBANCES)
def test_delay_and_loss(hosts: Hosts, how: str) -> None:
    for a, b in LINKS[:2]:
        hosts.network.disturb(a, b, DISTURBANCES[how])
    if how == "delay":
        assert hosts.laptop.ask("ping edge")["Time"] >= 4 * 40e6  # Nanoseconds; two links, there and back.
    payload = os.urandom(1_000_000)
    assert Unit(hosts.laptop, "cat", payload).finish() == (payload, "exit status 0")
    if how == "narrow":
        assert hosts.network.dropped(*LINKS[:2]) > 0, "the wires were not narrow enough to lose anything"


def test_a_cut_link_is_gone_around_and_comes_back(hosts: Hosts) -> None:
    hosts.network.switch("laptop", "hub", "down")
    hosts.wait_path("laptop", "edge", limit_s=LINK_LOSS_S)
    status = hosts.laptop.ask("status")
    assert status["Connections"] == [{"NodeID": "edge", "Cost": 5}]
    assert status["RoutingTable"] == {"hub": "edge", "edge": "edge"}
    payload = os.urandom(100_000)
    assert Unit(hosts.laptop, "cat", payload).finish() == (payload, "exit status 0")
    hosts.network.switch("laptop", "hub", "up")
    hosts.wait_path("laptop", "hub", "edge")


def test_a_stream_survives_the_change_of_its_path(hosts: Hosts) -> None:
    with ReceptorControl(str(hosts.laptop.socket)) as control:
        control.connect_to_service("edge", "control")
        control.handshake()
        hosts.network.switch("hub", "edge", "down")
        assert control.simple_command("status")["NodeID"] == "edge"
        hosts.wait_path("laptop", "edge", limit_s=LINK_LOSS_S)
        assert control.simple_command("status")["NodeID"] == "edge"


def test_work_goes_on_over_the_second_path(hosts: Hosts) -> None:
    counter = Counter(hosts.laptop, hosts.folder)
    counter.write("1")
    got = counter.take(len(counter.expected))
    hosts.network.switch("hub", "edge", "down")
    counter.write("2")
    got += counter.take(len(counter.expected) - len(got))  # Before the link is back.
    hosts.wait_path("laptop", "edge")
    hosts.network.switch("hub", "edge", "up")
    counter.write("end")
    rest, detail = counter.finish()
    assert (got + rest, detail) == (counter.expected, "exit status 0")


@pytest.mark.parametrize("hosts", [{"kind": "tcp"}, {"kind": "udp"}], indirect=True, ids=["tcp", "udp"])
def test_a_partition_heals(hosts: Hosts) -> None:
    counter = Counter(hosts.laptop, hosts.folder)
    counter.write("1")
    got = counter.take(len(counter.expected))
    for peer in ("hub", "edge"):
        hosts.network.switch("laptop", peer, "down")
    wait_for("loss of both links", lambda: not hosts.laptop.ask("status")["Connections"])
    assert hosts.laptop.ask("ping edge")["Error"] == "no route to node"
    for word in map(str, range(2, 200)):
        counter.write(word)  # The command goes on without its submitter.
    hosts.network.switch("laptop", "hub", "up")
    counter.write("end")
    rest, detail = counter.finish()
    assert (got + rest, detail) == (counter.expected, "exit status 0")
    hosts.network.switch("laptop", "edge", "up")
    wait_for("both links of laptop", lambda: len(hosts.laptop.ask("status")["Connections"]) == 2)


def test_wires_that_come_and_go(hosts: Hosts) -> None:
    counter = Counter(hosts.laptop, hosts.folder)
    for turn, (a, b) in enumerate((*LINKS, *LINKS)):
        hosts.network.switch(a, b, "down")
        counter.write(f"{turn}-down")
        hosts.network.switch(a, b, "up")
        counter.write(f"{turn}-up")
    counter.write("end")
    output, detail = counter.finish()
    assert (output, detail) == (counter.expected, "exit status 0")


def test_a_lost_hub(hosts: Hosts) -> None:
    """The hub is cut off from both others, which still have each other."""
    hosts.network.switch("hub", "laptop", "down")
    hosts.network.switch("hub", "edge", "down")
    wait_for("loss of both links", lambda: not hosts.hub.ask("status")["Connections"])
    hosts.wait_path("laptop", "edge")
    assert hosts.hub.ask("ping laptop")["Error"] == "no route to node"
    hosts.network.switch("hub", "laptop", "up")
    hosts.network.switch("hub", "edge", "up")
    hosts.wait_path("laptop", "hub", "edge")
