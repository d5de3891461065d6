"""Meshes for tests, tested."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

import receptor
import receptor.testing

mesh_of_three = receptor.testing.fixture("hub", "web", "db")


def test_the_fixture(mesh_of_three: Mapping[str, receptor.Node]) -> None:
    assert mesh_of_three["web"].ping("db").from_node == "db"


@pytest.mark.parametrize(("shape", "cost"), [("star", 1), ("line", 3), ("ring", 1), ("full", 1)])
def test_shapes(shape: receptor.testing.Shape, cost: int) -> None:
    with receptor.testing.mesh(4, shape=shape) as nodes:
        assert nodes["n0"].routes()["n3"].cost == cost
    assert all(node.closed for node in nodes.values())


async def test_the_mesh_for_asyncio() -> None:
    async with receptor.testing.aio_mesh("a", "b") as nodes:
        assert (await nodes["a"].ping("b")).from_node == "b"


mesh_of_a_class = receptor.testing.fixture("a", "b", scope="class")


class TestInAClass:
    mesh = receptor.testing.fixture("a", "b")

    def test_a_fixture_of_its_body(self, mesh: Mapping[str, receptor.Node]) -> None:
        assert mesh["b"].ping("a").from_node == "a"

    def test_a_fixture_for_all_of_it(self, mesh_of_a_class: Mapping[str, receptor.Node]) -> None:
        assert mesh_of_a_class["b"].ping("a").from_node == "a"


def test_the_list_of_fixtures_says_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text("import receptor.testing\nmesh = receptor.testing.fixture('hub', 'web')\n")
    command = [sys.executable, "-m", "pytest", "--fixtures", "-p", "no:cacheprovider", str(tmp_path)]
    environ = {**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(receptor.testing.__file__))}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=300, check=False)
    assert "Receptor nodes that reach one another, by name: hub, web." in done.stdout, done.stdout + done.stderr


def test_what_is_no_mesh() -> None:
    for names in [(), ("a", "a"), ("a", 1), (0,), (-1,)]:
        with pytest.raises(ValueError, match="want one number, or names that differ"):
            with receptor.testing.mesh(*names):
                pass
    with pytest.raises(ValueError, match="shape 'cube'"):
        receptor.testing.links(["a"], "cube")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="want one number, or names that differ"):
        receptor.testing.fixture("a", "a")  # Where it is made, not where a test asks for it.


def test_public_names() -> None:
    for name in receptor.testing.__all__:
        assert getattr(receptor.testing, name)
