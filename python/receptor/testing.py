"""Meshes for tests: real nodes in this process, linked over loopback, in one line.

As a pytest fixture::

    import receptor.testing

    mesh = receptor.testing.fixture("hub", "web", "db")       # web and db dial hub

    def test_ping(mesh):
        assert mesh["web"].ping("db").from_node == "db"

Anywhere::

    with receptor.testing.mesh(3, shape="line") as nodes:     # n0 - n1 - n2
        assert nodes["n0"].routes()["n2"].cost == 2

Every node knows a route to every other before the body runs, and all are closed after it.
"""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from typing import Any, Literal, TypeAlias

from . import aio
from .errors import ConfigError
from .node import Node

__all__ = ["Scope", "Shape", "aio_mesh", "fixture", "links", "mesh"]

Shape: TypeAlias = Literal["star", "line", "ring", "full"]
Scope: TypeAlias = Literal["session", "package", "module", "class", "function"]

READY_S = 30.0  # How long the routes of a mesh may take to settle.
_LISTEN = "tcp://127.0.0.1:0"


@contextmanager
def mesh(*nodes: int | str, shape: Shape = "star", **options: Any) -> Iterator[dict[str, Node]]:
    """Nodes that reach one another, by name.

    nodes: their names, or a number of them, 1 or more, which are called "n0", "n1" and so on.
    shape: "star" (all dial the first), "line", "ring" or "full" (everybody dials everybody).
    options: further arguments of every :class:`receptor.Node`, for example ``work_commands`` or ``mode``.
    """
    names = _names(nodes)
    with ExitStack() as stack:
        made = {name: stack.enter_context(Node(name, **options)) for name in names}
        for dialler, target in links(names, shape):
            made[dialler].add_peer(made[target].add_listener(_LISTEN).address)
        for node in made.values():
            for other in names:
                node.wait_route(other, timeout_s=READY_S)
        yield made


@asynccontextmanager
async def aio_mesh(*nodes: int | str, shape: Shape = "star", **options: Any) -> AsyncIterator[dict[str, aio.Node]]:
    """The same for asyncio: ``async with receptor.testing.aio_mesh(3) as nodes``."""
    names = _names(nodes)
    async with AsyncExitStack() as stack:
        made = {name: await stack.enter_async_context(aio.Node(name, **options)) for name in names}
        for dialler, target in links(names, shape):
            await made[dialler].add_peer((await made[target].add_listener(_LISTEN)).address)
        for node in made.values():
            for other in names:
                await node.wait_route(other, timeout_s=READY_S)
        yield made


def fixture(
    *nodes: int | str, shape: Shape = "star", scope: Scope = "function", **options: Any
) -> Callable[[], Mapping[str, Node]]:
    """A pytest fixture that is such a mesh. ``scope`` is pytest's.

    One for more than a function stands in a module or a conftest.py, also if only one class uses it.
    """
    import pytest

    def of_nodes(_: object = None) -> Iterator[Mapping[str, Node]]:  # In a class it is a method.
        with mesh(*nodes, shape=shape, **options) as made:
            yield made

    of_nodes.__doc__ = f"Receptor nodes that reach one another, by name: {', '.join(_names(nodes))}."
    result: Callable[[], Mapping[str, Node]] = pytest.fixture(scope=scope)(of_nodes)
    return result


def links(names: Sequence[str], shape: Shape) -> list[tuple[str, str]]:
    """Who dials whom in a mesh of a shape.

    >>> links(["a", "b", "c"], "line")
    [('b', 'a'), ('c', 'b')]
    """
    line = list(zip(names[1:], names, strict=False))
    match shape:
        case "star":
            return [(name, names[0]) for name in names[1:]]
        case "line":
            return line
        case "ring":
            return [*line, (names[0], names[-1])] if len(names) > 2 else line
        case "full":
            return [(name, other) for i, name in enumerate(names) for other in names[:i]]
    raise ConfigError(f"shape {shape!r}: want star, line, ring or full")


def _names(nodes: Sequence[int | str]) -> list[str]:
    if len(nodes) == 1 and isinstance(nodes[0], int) and nodes[0] > 0:
        return [f"n{i}" for i in range(nodes[0])]
    names = [node for node in nodes if isinstance(node, str)]
    if not names or len(set(names)) < len(nodes):
        raise ConfigError(f"nodes {nodes!r}: want one number, or names that differ")
    return names
