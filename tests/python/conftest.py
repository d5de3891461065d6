"""Tests of the node's Python side run over the fake node of fake_node.py, and over real nodes in each mode."""

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

from fake_node import FakeMesh
from meshes import MODES, Mesh, Running, await_closed, descriptors

from receptor import _daemon, _library

TEST_LIMIT_S = 300


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run coroutine tests on a loop of their own."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    arguments = {name: pyfuncitem.funcargs[name] for name in names}
    asyncio.run(asyncio.wait_for(pyfuncitem.obj(**arguments), TEST_LIMIT_S))
    return True


def real_mesh(mode: str) -> Iterator[Mesh]:
    """A mesh of real nodes of one mode."""
    if mode == "in-process" and not os.path.exists(_library.PATH):
        pytest.skip(f"{os.path.basename(_library.PATH)} is not built: pip install -e .")
    if mode != "in-process" and _daemon.find() is None:
        pytest.skip("there is no receptor daemon of this version: set RECEPTOR_DAEMON")
    mesh = Mesh(mode, None)
    try:
        yield mesh
    finally:
        mesh.close()


@pytest.fixture(params=MODES)
def nodes(request: pytest.FixtureRequest) -> Iterator[Mesh]:
    """Real nodes of every mode."""
    yield from real_mesh(request.param)


@pytest.fixture(params=["fake", *MODES])
def mesh(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mesh]:
    if request.param != "fake":
        yield from real_mesh(request.param)
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
    await_closed(before)
    extra = [thread.name for thread in set(threading.enumerate()) - threads if thread.name.startswith("receptor")]
    assert not extra, f"threads left running: {extra}"


@pytest.fixture
def in_thread() -> Iterator[Callable[[Callable[[], Any]], Running]]:
    """Run functions in threads; the test waits for all of them."""
    started: list[Running] = []

    def run(function: Callable[[], Any]) -> Running:
        started.append(Running(function))
        return started[-1]

    yield run
    for running in started:
        running.thread.join(60)
        assert not running.thread.is_alive(), "a thread of the test hangs"
