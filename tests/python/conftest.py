"""Tests of the node's Python side run twice: over the fake node of fake_node.py, and over the real library."""

import asyncio
import gc
import inspect
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import receptor
from fake_node import FakeMesh
from receptor import _library

TEST_LIMIT_S = 60


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run coroutine tests on a loop of their own."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    arguments = {name: pyfuncitem.funcargs[name] for name in names}
    asyncio.run(asyncio.wait_for(pyfuncitem.obj(**arguments), TEST_LIMIT_S))
    return True


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


@pytest.fixture(params=["fake", "library"])
def mesh(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mesh]:
    if request.param == "library":
        if not _library.PATH.exists():
            pytest.skip(f"{_library.PATH.name} is not built: pip install -e .")
        mesh = Mesh("library", None)
        yield mesh
        mesh.close()
        return
    fake = FakeMesh()
    monkeypatch.setattr(_library, "open_session", fake.open_session)
    monkeypatch.setattr("receptor._daemon.find", lambda: "/bin/true")
    mesh = Mesh("fake", fake)
    yield mesh
    mesh.close()
    fake.close()


@pytest.fixture(autouse=True)
def no_leaks() -> Iterator[None]:
    """Every test leaves as many descriptors and threads as it found."""
    gc.collect()
    before, threads = descriptors(), set(threading.enumerate())
    yield
    gc.collect()
    left = {fd: what for fd, what in descriptors().items() if before.get(fd) != what and "receptor" not in what}
    left = {fd: what for fd, what in left.items() if what.startswith(("socket:", "pipe:"))}
    assert not left, f"descriptors left open: {left}"
    extra = [thread.name for thread in set(threading.enumerate()) - threads if thread.name.startswith("receptor")]
    assert not extra, f"threads left running: {extra}"


def descriptors() -> dict[str, str]:
    """Open descriptors of this process and what they are."""
    found = {}
    for fd in os.listdir("/proc/self/fd"):
        try:
            found[fd] = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:
            pass  # The one that lists.
    return found


@pytest.fixture
def in_thread() -> Iterator[Callable[[Callable[[], Any]], "Running"]]:
    """Run functions in threads; the test waits for all of them."""
    started: list[Running] = []

    def run(function: Callable[[], Any]) -> Running:
        started.append(Running(function))
        return started[-1]

    yield run
    for running in started:
        running.thread.join(20)
        assert not running.thread.is_alive(), "a thread of the test hangs"


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
