"""A small working control service in Python: one node, units of work in memory, the reference mesh around it.

It speaks the line protocol as a daemon does, half-closes and resets included, so the client can be tested without one.
The node is called gamma; alpha and beta exist as names, with a control service that ``connect`` reaches.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import random
import shlex
import socket
import ssl
import string
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

STATES = ["Pending", "Running", "Succeeded", "Failed", "Canceled"]
TYPES = ["cat", "upper", "sh", "shraw", "secure", "count"]
PROGRAMS = {"cat": ["cat"], "upper": ["tr", "a-z", "A-Z"], "sh": ["bash", "-c"], "shraw": ["bash"]}
SEEN = {"gamma": "21:14:30.719651208", "alpha": "21:13:45.916270311", "beta": "21:14:06.645370171"}


class Refusal(Exception):
    """Answered as an ERROR line."""


@dataclass
class Unit:
    """A unit of work; ``changed`` is notified about every change."""

    worktype: str
    node: str
    state: int = 0
    detail: str = "Unit Created"
    stdin: bytes = b""
    stdout: bytes = b""
    process: subprocess.Popen[bytes] | None = None
    changed: threading.Condition = field(default_factory=threading.Condition)

    def update(self, state: int, detail: str, output: bytes = b"") -> None:
        """Move on, and wake whoever waits."""
        with self.changed:
            self.state, self.detail = state, detail
            self.stdout += output
            self.changed.notify_all()

    @property
    def complete(self) -> bool:
        """The state is final."""
        return self.state in (2, 3, 4)

    def wait(self, condition: Callable[[], bool]) -> None:
        """Return once ``condition`` holds."""
        with self.changed:
            assert self.changed.wait_for(condition, timeout=60), f"waited in vain: {self}"

    def wait_complete(self) -> None:
        """Return once the state is final."""
        self.wait(lambda: self.complete)

    def next_output(self, start: int, end: int | None) -> bytes:
        """Return output from ``start`` on, once there is some; empty at the end."""
        if start == end:
            return b""
        self.wait(lambda: self.complete or len(self.stdout) > start)
        return self.stdout[start:end]

    def reply(self) -> dict[str, Any]:
        """Return the answer to ``work status``."""
        return {
            "Detail": self.detail,
            "ExtraData": None,
            "State": self.state,
            "StateName": STATES[self.state],
            "StdoutSize": len(self.stdout),
            "WorkType": self.worktype,
        }


class FakeDaemon:
    """Listens while the ``with`` block lasts. ``requests`` has every request line that came."""

    def __init__(self, version: str = "1.4.9+git", node: str = "gamma") -> None:
        self.node = node
        self.version = version
        self.units: dict[str, Unit] = {}
        self.requests: list[str] = []
        self.uploads_broken = 0
        self.reload_error = ""
        self.cut_results: list[int] = []  # how many bytes the next streams of results get before they are cut off
        self._created: queue.Queue[Unit] = queue.Queue()
        self._far = FakeFar("beta")
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._closing = False

    def __enter__(self) -> FakeDaemon:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing = True
        for unit in self.units.values():
            if unit.process is not None:
                unit.process.kill()
        for sock in list(self._sockets):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        for thread in list(self._threads):
            thread.join(60)
            assert not thread.is_alive(), "a session of the fake daemon did not end"

    def listen_unix(self, path: Path) -> str:
        """Listen at ``path`` and return it."""
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(str(path))
        self._serve(sock, None)
        return str(path)

    def listen_tcp(self, context: ssl.SSLContext | None = None) -> int:
        """Listen on a free port of this host and return it."""
        sock = socket.create_server(("127.0.0.1", 0))
        self._serve(sock, context)
        return int(sock.getsockname()[1])

    def next_unit(self) -> Unit:
        """Return the unit that is created next, once it is."""
        return self._created.get(timeout=60)

    def _serve(self, listener: socket.socket, context: ssl.SSLContext | None) -> None:
        listener.listen()
        self._sockets.append(listener)
        self._start(self._accept, listener, context)

    def _start(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket, context: ssl.SSLContext | None) -> None:
        while not self._closing:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            self._sockets.append(sock)
            self._start(self._session, sock, context)

    def _session(self, sock: socket.socket, context: ssl.SSLContext | None) -> None:
        with contextlib.suppress(OSError):
            if context is not None:
                sock = context.wrap_socket(sock, server_side=True)
                self._sockets.append(sock)
            with sock, sock.makefile("rb") as lines:
                sock.sendall(f"Receptor Control, node {self.node}\n".encode())
                for line in lines:
                    if not self._answer(sock, lines, line.decode("utf-8", "replace").replace("\r", "").rstrip("\n")):
                        # Take what the client sent before it reads: closing on unread bytes would be a reset.
                        return

    def _answer(self, sock: socket.socket, lines: Any, line: str) -> bool:
        """Answer one request; return whether the session goes on."""
        self.requests.append(line)
        try:
            if line.startswith("{"):
                request = json.loads(line)
                return self._json(sock, lines, request)
            word, _, rest = line.partition(" ")
            return self._text(sock, lines, word.lower(), rest)
        except Refusal as e:
            sock.sendall(f"ERROR: {e}\n".encode())
            return True

    def _json(self, sock: socket.socket, lines: Any, request: dict[str, Any]) -> bool:
        if request["command"] == "status":
            status = self.status()
            self._reply(sock, {key: status[key] for key in request.get("requested_fields", status)})
            return True
        if request["command"] != "work":
            raise Refusal("Unknown command")
        if request["subcommand"] == "status":
            self._reply(sock, self._unit(request["unitid"]).reply())  # it knows no "wait"
            return True
        if request["subcommand"] != "submit":
            raise Refusal("bad command")
        return self._submit(sock, lines, request)

    def _text(self, sock: socket.socket, lines: Any, word: str, rest: str) -> bool:
        if word == "status":
            self._reply(sock, self.status())
        elif word == "ping":
            self._reply(sock, self._ping(rest))
        elif word == "traceroute":
            here = {"From": self.node, "Time": 97730, "TimeStr": "97.73µs"}
            there = {"Error": "no route to node", "From": self.node, "Time": 1260, "TimeStr": "1.26µs"}
            self._reply(sock, {"0": here} if rest == self.node else {"0": here, "1": there})
        elif word == "reload":
            error = {"Error": self.reload_error, "Success": False}
            self._reply(sock, error if self.reload_error else {"Success": True})
        elif word == "connect":
            return self._connect(sock, lines, rest.split(" "))
        elif word == "work":
            return self._work(sock, *rest.split(" "))
        else:
            raise Refusal("Unknown command")
        return True

    def _reply(self, sock: socket.socket, reply: dict[str, Any]) -> None:
        sock.sendall(json.dumps(reply, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")

    def _ping(self, node: str) -> dict[str, Any]:
        if node != self.node:
            return {"Error": "no route to node", "Success": False}
        return {"From": node, "Success": True, "Time": 9670, "TimeStr": "9.67µs"}

    def _connect(self, sock: socket.socket, lines: Any, words: list[str]) -> bool:
        if len(words) > 2 and words[2]:
            raise Refusal(f"unknown TLS config {words[2]}")
        if words[0] not in ("alpha", "beta"):
            raise Refusal("INTERNAL_ERROR (local): no route to node")
        sock.sendall(b"Connecting\n")
        if words[1] == "echo":
            for line in lines:
                if line.strip() == b"quit":
                    break
                sock.sendall(line.upper())
            return False
        self._far.serve(sock, lines)
        return False

    def status(self) -> dict[str, Any]:
        """Return the answer to ``status``: that of the golden sessions."""
        work = {node: list(TYPES) for node in SEEN}
        work["alpha"].insert(5, "nosuch")
        places = [("gamma", "control"), ("alpha", "control"), ("alpha", "ctl2"), ("alpha", "ctl3"), ("beta", "control")]
        ads: list[dict[str, Any]] = [
            {
                "NodeID": node,
                "Service": service,
                "Time": f"2026-11-21T{SEEN[node]}Z",
                "ConnType": 1,
                "Tags": {"type": "Control Service"},
                "WorkCommands": [{"WorkType": name, "Secure": name == "secure"} for name in work[node]],
            }
            for node, service in places
        ]
        ads.append({**ads[0], "NodeID": "tap", "Time": "2026-11-21T21:13:46.845689516Z", "WorkCommands": None})
        return {
            "Advertisements": ads,
            "Connections": [],
            "KnownConnectionCosts": {
                "alpha": {"beta": 1},
                "beta": {"alpha": 1},
                "gamma": {},
                "rel": {},
                "tap": {},
            },
            "NodeID": self.node,
            "RoutingTable": {},
            "SystemCPUCount": 2,
            "SystemMemoryMiB": 24105,
            "Version": self.version,
        }

    def _work(self, sock: socket.socket, verb: str, *words: str) -> bool:
        if verb == "list":
            units = self.units if not words else {words[0]: self._unit(words[0])}
            self._reply(sock, {name: unit.reply() for name, unit in units.items()})
        elif verb == "status":
            self._reply(sock, self._unit(words[0]).reply())
        elif verb == "cancel":
            self._stop(self._unit(words[0]))
            self._reply(sock, {"cancelled": words[0]})
        elif verb in ("release", "force-release"):
            self._stop(self._unit(words[0]))
            del self.units[words[0]]
            self._reply(sock, {"released": words[0]})
        elif verb == "results":
            self._results(sock, words[0], int(words[1]) if len(words) > 1 else 0)
            return False
        else:
            raise Refusal("bad command")
        return True

    def _unit(self, name: str) -> Unit:
        if name not in self.units:
            raise Refusal(f"unknown work unit {name}")
        return self.units[name]

    def _stop(self, unit: Unit) -> None:
        if not unit.complete:
            unit.update(4, "Canceled")
            if unit.process is not None:
                unit.process.kill()

    def _submit(self, sock: socket.socket, lines: Any, request: dict[str, Any]) -> bool:
        node, worktype = request["node"], request["worktype"]
        local = node in (self.node, "localhost")
        if local and request.get("ttl"):
            raise Refusal("ttl option is intended for remote work only")
        if local and worktype not in PROGRAMS:
            raise Refusal(f"unknown work type {worktype}")
        params = request.get("params", "")
        if local and params and worktype not in ("sh", "shraw"):
            raise Refusal("extra params provided but not allowed")
        name = "".join(random.choices(string.ascii_letters + string.digits, k=8))
        unit = self.units[name] = Unit(worktype if local else "remote", node)
        sock.sendall(f"Work unit created with ID {name}. Send stdin data and EOF.\n".encode())
        self._created.put(unit)
        try:
            while block := lines.read1(65536):
                unit.stdin += block
                unit.update(0, "Waiting for Input Data")
        except ConnectionError as e:
            self.uploads_broken += 1
            unit.update(3, f"Error reading input data: {e}")
            return False
        if local:
            self._run(unit, params)
        self._reply(sock, {"result": "Job Started" if local else "Job Submitted", "unitid": name})
        return False

    def _run(self, unit: Unit, params: str) -> None:
        command = [*PROGRAMS[unit.worktype], *shlex.split(params)]
        with tempfile.TemporaryFile() as stdin:
            stdin.write(unit.stdin)
            stdin.seek(0)
            unit.process = subprocess.Popen(command, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        unit.update(1, f"Running: PID {unit.process.pid}")
        self._start(self._finish, unit, unit.process)

    def _finish(self, unit: Unit, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        with process.stdout:
            while block := os.read(process.stdout.fileno(), 65536):
                unit.update(unit.state, unit.detail, block)
        status = process.wait()
        if unit.state != 4:
            unit.update(3 if status else 2, f"exit status {status}")

    def _results(self, sock: socket.socket, name: str, start: int) -> None:
        unit = self._unit(name)
        sock.sendall(f"Streaming results for work unit {name}\n".encode())
        end = start + self.cut_results.pop(0) if self.cut_results else None
        while block := unit.next_output(start, end):
            sock.sendall(block)
            start += len(block)


class FakeFar:
    """The control service of another node, as ``connect`` reaches it: it has one unit."""

    def __init__(self, node: str) -> None:
        self.node = node

    def serve(self, sock: socket.socket, lines: Iterator[bytes]) -> None:
        """Greet, and answer whatever comes with a list of units."""
        sock.sendall(f"Receptor Control, node {self.node}\n".encode())
        unit = Unit("cat", self.node, state=2, detail="exit status 0")
        for _ in lines:
            sock.sendall(json.dumps({"IGv3kQiU": unit.reply()}).encode() + b"\n")
