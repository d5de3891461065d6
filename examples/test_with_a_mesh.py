"""Tests of a program that uses the mesh: a mesh of three nodes for each test, in one line.

pytest examples/test_with_a_mesh.py
"""

from collections.abc import Mapping

import receptor
import receptor.testing

mesh = receptor.testing.fixture("hub", "client", "server")


def greet(unit: receptor.WorkContext) -> str:
    """The function under test: work for other nodes."""
    return f"hello {unit.params['name']}"


def test_the_function_answers_across_the_mesh(mesh: Mapping[str, receptor.Node]) -> None:
    mesh["server"].work.offer("greet", greet)
    with mesh["client"].work.submit("server", "greet", params={"name": "mesh"}) as unit:
        assert b"".join(unit.stdout(timeout_s=30)) == b"hello mesh"


def test_a_lost_node_is_noticed(mesh: Mapping[str, receptor.Node]) -> None:
    with mesh["client"].events("route") as events:
        mesh["server"].close()
        for event in events:
            if isinstance(event, receptor.RoutesChanged) and "server" not in event.table:
                break
