"""What the tests of both nodes share."""

import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from fake_node import FakeMesh

import receptor
from receptor import _daemon

MODES = ("in-process", "sidecar", "attached")


class Daemon:
    """A running daemon that programs attach to. ``options`` are those of a Node."""

    def __init__(self, id: str, **options: Any) -> None:
        options.pop("log_level", None)
        arguments = [_daemon.require("a test"), "--node", f"id={id}", "datadir="]
        for peer in options.pop("peers", ()):
            address = peer if isinstance(peer, str) else peer.address
            arguments += ["--tcp-peer", f"address={address.removeprefix('tcp://')}"]
        for command in options.pop("work_commands", ()):
            arguments += ["--work-command", f"worktype={command.worktype}", f"command={command.command}"]
            arguments += [f"params={command.params}", f"allowruntimeparams={command.allow_runtime_params}"]
        if options:
            pytest.skip(f"a running daemon takes no {', '.join(options)} from a program")
        self.folder = Path(tempfile.mkdtemp(prefix="receptor-test-"))
        self.socket = self.folder / "s"
        arguments[3] += str(self.folder)
        arguments += ["--local-only", "--control-service", f"filename={self.socket}"]
        self.log = (self.folder / "log").open("w+")
        self.process = subprocess.Popen(arguments, stdout=self.log, stderr=subprocess.STDOUT)
        while not self._accepts():
            assert self.process.poll() is None, (self.folder / "log").read_text()
            time.sleep(0.005)

    def _accepts(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(self.socket))
            except OSError:
                return False
            return True

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(60)
        self.log.close()
        shutil.rmtree(self.folder, ignore_errors=True)


class Mesh:
    """Nodes that reach one another. ``mode`` is "fake" or one of MODES."""

    def __init__(self, mode: str, fake: FakeMesh | None) -> None:
        self.mode = mode
        self._fake = fake
        self._nodes: list[receptor.Node] = []
        self._daemons: list[Daemon] = []
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
        if self.mode == "attached":
            level = options.get("log_level")
            node = receptor.Node.attach(self._daemon(id, **options).socket, log_level=level)
        else:
            node = receptor.Node(id, mode=self._node_mode, **options)
        self._nodes.append(node)
        if not self._address:
            self._address = node.add_listener("tcp://127.0.0.1:0").address
        return node

    def pair(self, **options: Any) -> tuple[receptor.Node, receptor.Node]:
        """Nodes "a" and "b" that know a route to each other; ``options`` are those of b."""
        a = self.node("a")
        b = self.node("b", **options)
        a.wait_route("b", timeout_s=60)
        b.wait_route("a", timeout_s=60)
        return a, b

    def aio_node(self, id: str, **options: Any) -> receptor.aio.Node:
        """The same for asyncio, to be entered by the test. Make a blocking node first."""
        assert self._address, "make a blocking node first: it has the address"
        options.setdefault("peers", [self._address])
        if self.mode == "attached":
            level = options.get("log_level")
            return receptor.aio.Node.attach(self._daemon(id, **options).socket, log_level=level)
        return receptor.aio.Node(id, mode=self._node_mode, **options)

    @property
    def _node_mode(self) -> Any:
        return "sidecar" if self.mode == "sidecar" else "in-process"

    def _daemon(self, id: str, **options: Any) -> Daemon:
        self._daemons.append(Daemon(id, **options))
        return self._daemons[-1]

    def close(self) -> None:
        for node in self._nodes:
            node.close()
        for daemon in self._daemons:
            daemon.close()


class Running:
    """A function in a thread, and how it ended."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self.value: Any = None
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, args=(function,), daemon=True)
        self.thread.start()

    def result(self) -> Any:
        self.thread.join(60)
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


def await_closed(before: dict[str, str]) -> None:
    """Wait until sockets and pipes opened since are closed: the library's ends are a moment after Python's."""
    end = time.monotonic() + 60
    while left := {
        fd: what
        for fd, what in descriptors().items()
        if before.get(fd) != what and what.startswith(("socket:", "pipe:"))
    }:
        assert time.monotonic() < end, f"descriptors left open: {left}"
        time.sleep(0.001)
