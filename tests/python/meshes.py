"""What the tests of both nodes share."""

import os
import threading
from collections.abc import Callable
from typing import Any, TypeAlias

import pytest
from fake_node import FakeMesh

import receptor


class Mesh:
    """Nodes that reach one another. ``mode`` is "fake" or "library"."""

    def __init__(self, mode: str, fake: FakeMesh | None) -> None:
        self.mode = mode
        self._fake = fake
        self._nodes: list[receptor.Node] = []
        self._address = ""

    @property
    def fake(self) -> FakeMesh:
        """The fake's own controls; tests that need them run over the fake only."""
        if self._fake is None:
            pytest.skip("needs the controls of the fake node")
        return self._fake

    def node(self, id: str, **options: Any) -> receptor.Node:
        """A node that peers with the first one made."""
        if self._address:
            options.setdefault("peers", [self._address])
        node = receptor.Node(id, **options)
        self._nodes.append(node)
        if not self._address:
            self._address = node.add_listener("tcp://127.0.0.1:0").address
        return node

    def pair(self, **options: Any) -> tuple[receptor.Node, receptor.Node]:
        """Nodes "a" and "b" that know a route to each other; ``options`` are those of b."""
        a = self.node("a")
        b = self.node("b", **options)
        a.wait_route("b", timeout_s=20)
        b.wait_route("a", timeout_s=20)
        return a, b

    def aio_node(self, id: str, **options: Any) -> receptor.aio.Node:
        """The same for asyncio, to be entered by the test. Make a blocking node first."""
        assert self._address, "make a blocking node first: it has the address"
        options.setdefault("peers", [self._address])
        return receptor.aio.Node(id, **options)

    def close(self) -> None:
        for node in self._nodes:
            node.close()


class Running:
    """A function in a thread, and how it ended."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self.value: Any = None
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, args=(function,), daemon=True)
        self.thread.start()

    def result(self) -> Any:
        self.thread.join(20)
        assert not self.thread.is_alive(), "the call hangs"
        if self.error is not None:
            raise self.error
        return self.value

    def _run(self, function: Callable[[], Any]) -> None:
        try:
            self.value = function()
        except BaseException as error:
            self.error = error


InThread: TypeAlias = Callable[[Callable[[], Any]], Running]


def descriptors() -> dict[str, str]:
    """Open descriptors of this process and what they are."""
    found = {}
    for fd in os.listdir("/proc/self/fd"):
        try:
            found[fd] = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:
            pass  # The one that lists.
    return found
