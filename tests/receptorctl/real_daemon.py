"""Starts the real daemon for a test and stops it afterwards."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daemons import free_port
from receptorctl_support import Certificates

WORK_COMMANDS: list[dict[str, Any]] = [
    {"worktype": "cat", "command": "cat"},
    {"worktype": "upper", "command": "tr", "params": "a-z A-Z"},
    {"worktype": "sh", "command": "bash", "params": "-c", "allowruntimeparams": True},
    {"worktype": "shraw", "command": "bash", "allowruntimeparams": True},
    {"worktype": "exec", "command": "env", "allowruntimeparams": True, "allowpty": True},
]


class Node:
    """A daemon that runs. A thread takes its log, so that it never waits for a reader."""

    def __init__(self, name: str, process: subprocess.Popen[str], socket: str) -> None:
        self.name, self.process, self.socket = name, process, socket
        self._log, self._ended, self._more = "", False, threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._more:
                self._log += line
                self._more.notify_all()
        with self._more:
            self._ended = True
            self._more.notify_all()

    def wait_for_log(self, text: str) -> None:
        """Return once the daemon has logged ``text``."""
        with self._more:
            self._more.wait_for(lambda: text in self._log or self._ended, 60)
            assert text in self._log, f"{self.name} did not log {text!r}:\n{self._log}"

    def end(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self._reader.join(60)


@contextlib.contextmanager
def run_node(
    daemon: Path, name: str, directory: Path, *sections: dict[str, dict[str, Any]], node: dict[str, Any] | None = None
) -> Iterator[Node]:
    """Run a node with a control socket and some work types; yields it once it is up. node: more of its own section."""
    config = directory / f"{name}.yml"
    address = str(directory / f"{name}.sock")
    base: list[dict[str, dict[str, Any]]] = [
        {"node": {"id": name, "datadir": str(directory / "data"), **(node or {})}},
        {"log-level": {"level": "info"}},
        *({"work-command": command} for command in WORK_COMMANDS),
        {"control-service": {"service": "control", "filename": address}},
    ]
    config.write_text(json.dumps([*base, *sections]))  # JSON is YAML
    process = subprocess.Popen(
        [str(daemon), "--config", str(config)],
        cwd=directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "TZ": "UTC"},
    )
    with process:
        running = Node(name, process, address)
        try:
            running.wait_for_log("Initialization complete")
            yield running
        finally:
            running.end()


@dataclass(frozen=True)
class Mesh:
    """gamma and beta, linked. gamma also has control listeners on TCP, TLS, and TLS with client certificates.

    The ports of TLS are 0 if the daemon was built without it.
    """

    gamma: Node
    beta: Node
    tcp: int
    tls: int
    tls_client_cert: int


@contextlib.contextmanager
def run_mesh(daemon: Path, directory: Path, certificates: Certificates) -> Iterator[Mesh]:
    """Run the two nodes; yields them once each has a route to the other."""
    link, tcp, tls, tls_client_cert = (free_port() for _ in range(4))
    with_tls = "--tls-server:" in subprocess.run([daemon, "--help"], capture_output=True, text=True, check=True).stdout
    own = {
        "key": certificates.path("server.key"),
        "cert": certificates.path("server.crt"),
        "skipreceptornamescheck": True,
    }
    ask = {"requireclientcert": True, "clientcas": certificates.path("ca.crt")}
    listeners: list[dict[str, dict[str, Any]]] = [
        {"control-service": {"service": "ctl-tcp", "tcplisten": f"127.0.0.1:{tcp}"}},
        {"tcp-listener": {"bindaddr": "127.0.0.1", "port": link}},
    ]
    secure_listeners: list[dict[str, dict[str, Any]]] = [
        {"tls-server": {"name": "plain", **own}},
        {"tls-server": {"name": "asking", **own, **ask}},
        {"control-service": {"service": "ctl-tls", "tcplisten": f"127.0.0.1:{tls}", "tcptls": "plain"}},
        {"control-service": {"service": "ctl-ask", "tcplisten": f"127.0.0.1:{tls_client_cert}", "tcptls": "asking"}},
    ]
    if with_tls:
        listeners = [*secure_listeners, *listeners]
    peer = {"tcp-peer": {"address": f"127.0.0.1:{link}", "redial": True}}
    with (
        run_node(daemon, "gamma", directory, *listeners) as gamma,
        run_node(daemon, "beta", directory, peer) as beta,
    ):
        gamma.wait_for_log("beta via beta")
        beta.wait_for_log("gamma via gamma")
        yield Mesh(gamma, beta, tcp, tls if with_tls else 0, tls_client_cert if with_tls else 0)
