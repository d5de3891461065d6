"""A small node in Python that speaks the session protocol, so that both shells can be tested without the Go library.

All of its nodes live in one :class:`FakeMesh` and reach one another; streams are pumped between real sockets, units run
real commands. It runs on an event loop in a thread of its own. ``hold`` makes an operation wait, for tests of what
happens in the meantime; ``wait_for`` waits until the fake has seen something.
"""

import array
import asyncio
import contextlib
import itertools
import json
import shlex
import socket
import struct
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

VERSION = "0.0.fake"
DATAGRAM_LIMIT = 16_000


class Refusal(Exception):
    """An ``err`` reply."""

    def __init__(self, code: str, msg: str, **facts: Any) -> None:
        super().__init__(msg)
        self.reply = {"code": code, "msg": msg, **facts}


class FakeMesh:
    """All nodes that one test opens."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.nodes: dict[str, FakeNode] = {}
        self.addresses: dict[str, FakeNode] = {}
        self.routed = asyncio.Event()  # Of the next change of routes.
        self.ids = itertools.count(1)
        self.seen: Counter[str] = Counter()  # Operations, and "cancel OP" and "closed" for what ended them.
        self._changed = threading.Condition()
        self._held: dict[str, asyncio.Event] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self.loop.run_forever, name="fake-mesh", daemon=True)
        self._thread.start()

    def open_session(self, environ: Mapping[str, str]) -> socket.socket:
        """What receptor._library.open_session does."""
        ours, theirs = socket.socketpair()
        self.loop.call_soon_threadsafe(self._serve, ours, None)
        return theirs

    def hold(self, op: str) -> Callable[[], None]:
        """Make ``op`` wait until the returned function is called."""
        event = asyncio.Event()
        self._held[op] = event
        return lambda: self.do(event.set)

    def note(self, what: str) -> None:
        with self._changed:
            self.seen[what] += 1
            self._changed.notify_all()

    def wait_for(self, what: str, count: int = 1) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.seen[what] >= count, 60), f"never saw {what}: {self.seen}"

    def do(self, function: Callable[[], Any]) -> Any:
        """Call a function on the fake's loop."""

        async def call() -> Any:
            return function()

        return asyncio.run_coroutine_threadsafe(call(), self.loop).result(60)

    def close(self) -> None:
        self.do(self._stop)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    async def gate(self, op: str) -> None:
        event = self._held.get(op)
        if event is not None:
            await event.wait()

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = self.loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def changed(self) -> None:
        """Routes of every node have changed."""
        self.routed.set()
        self.routed = asyncio.Event()
        for node in self.nodes.values():
            node.event("route", {"ev": "route", "table": {name: name for name in self.nodes if name != node.id}})

    def _serve(self, sock: socket.socket, node: "FakeNode | None") -> None:
        self.spawn(FakeSession(self, sock, node).run())

    async def _stop_tasks(self) -> None:
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _stop(self) -> None:
        for node in list(self.nodes.values()):
            node.close()
        for task in self._tasks:
            task.cancel()


class FakeNode:
    """One node."""

    def __init__(self, mesh: FakeMesh, config: dict[str, Any]) -> None:
        self.mesh = mesh
        self.id = str(config["node"])
        self.config = config
        self.commands = {command["worktype"]: command for command in config.get("work_commands", ())}
        self.sessions: set[FakeSession] = set()
        self.listeners: dict[str, socket.socket] = {}
        self.datagrams: dict[str, socket.socket] = {}
        self.streams: dict[int, End] = {}
        self.units: dict[str, FakeUnit] = {}
        self.backends: dict[int, str] = {}
        self.links: list[str] = []
        if self.id in mesh.nodes:
            raise Refusal("in_use", f"node {self.id!r} exists")
        mesh.nodes[self.id] = self
        for listener in config.get("listeners", ()):
            self.listen(listener)
        for peer in config.get("peers", ()):
            self.dial(peer)
        mesh.changed()

    def listen(self, spec: dict[str, Any]) -> dict[str, Any]:
        backend = next(self.mesh.ids)
        address = spec["address"]
        if address.endswith(":0"):
            address = f"{address[:-1]}{40_000 + backend}"
        if address in self.mesh.addresses:
            raise Refusal("in_use", f"listen {address}: address already in use")
        self.mesh.addresses[address] = self
        self.backends[backend] = address
        return {"backend": backend, "address": address}

    def dial(self, spec: dict[str, Any]) -> dict[str, Any]:
        backend = next(self.mesh.ids)
        self.backends[backend] = ""
        other = self.mesh.addresses.get(spec["address"])
        if other is not None:
            self.link(other, spec.get("cost", 1.0))
            other.link(self, spec.get("cost", 1.0))
        return {"backend": backend}

    def link(self, other: "FakeNode", cost: float) -> None:
        self.links.append(other.id)
        self.event("peer", {"ev": "peer", "kind": "up", "node": other.id, "cost": cost})

    def event(self, kind: str, event: dict[str, Any]) -> None:
        for session in self.sessions:
            if kind in session.kinds:
                session.event(event)

    def close(self, err: dict[str, Any] | None = None) -> None:
        if self.mesh.nodes.get(self.id) is not self:
            return
        del self.mesh.nodes[self.id]
        self.mesh.addresses = {at: node for at, node in self.mesh.addresses.items() if node is not self}
        for end in list(self.streams.values()):
            end.reset(remote=False, code=0)
        for sock in [*self.listeners.values(), *self.datagrams.values()]:
            self.mesh.loop.remove_reader(sock)
            sock.close()
        for session in list(self.sessions):
            if err is not None:
                session.send_soon({"ev": "closed", "err": err})
            session.end_soon()
        self.mesh.changed()
        self.mesh.note(f"node {self.id} closed")


class FakeSession:
    """One session socket."""

    def __init__(self, mesh: FakeMesh, sock: socket.socket, node: FakeNode | None) -> None:
        sock.setblocking(False)
        self.mesh = mesh
        self.sock = sock
        self.node = node
        self.main = node is None
        self.kinds: set[str] = set()
        self.running: dict[int, tuple[str, asyncio.Task[None]]] = {}
        self.lost = 0
        self.events: asyncio.Queue[tuple[dict[str, Any] | None, int]] = asyncio.Queue()
        if node is not None:
            node.sessions.add(self)

    async def run(self) -> None:
        writer = self.mesh.spawn(self._write())
        self.send_soon({"ev": "hello", "protocol": 1, "version": VERSION, "mode": "fake", "features": []})
        try:
            while True:
                (length,) = struct.unpack(">I", await self._exactly(4))
                self._frame(json.loads(await self._exactly(length)))
        except (EOFError, OSError):
            pass
        finally:
            for op, task in list(self.running.values()):
                self.mesh.note(f"cancel {op}")
                task.cancel()
            writer.cancel()
            self.sock.close()
            self.mesh.note("closed")
            if self.node is not None:
                self.node.sessions.discard(self)
                if self.main:
                    self.node.close()

    def event(self, event: dict[str, Any]) -> None:
        if self.events.qsize() > 1000:
            self.lost += 1
            return
        if self.lost:
            self.send_soon({"ev": "lost", "n": self.lost})
            self.lost = 0
        self.send_soon(event)

    def send_soon(self, frame: dict[str, Any], fd: int = -1) -> None:
        self.events.put_nowait((frame, fd))

    def end_soon(self) -> None:
        self.events.put_nowait((None, -1))

    async def _write(self) -> None:
        while True:
            frame, fd = await self.events.get()
            if frame is None:
                self.sock.shutdown(socket.SHUT_RDWR)
                return
            body = json.dumps(frame).encode()
            data = struct.pack(">I", len(body)) + body
            try:
                if fd >= 0:  # Alone with the first byte: our copy is gone before anybody can act on the frame.
                    await self._send_descriptor(data[:1], fd)
                    data = data[1:]
                await self.mesh.loop.sock_sendall(self.sock, data)
            except OSError:
                return

    async def _send_descriptor(self, first: bytes, fd: int) -> None:
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))]
        try:
            while True:
                try:
                    self.sock.sendmsg([first], ancillary)
                    return
                except BlockingIOError:
                    await writable(self.mesh.loop, self.sock)
        finally:
            socket.close(fd)

    async def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = await self.mesh.loop.sock_recv(self.sock, size - len(data))
            if not more:
                raise EOFError
            data += more
        return data

    def _frame(self, request: dict[str, Any]) -> None:
        op = request["op"]
        if op == "cancel":
            found = self.running.get(request["target"])
            if found is not None:
                self.mesh.note(f"cancel {found[0]}")
                found[1].cancel()
            return
        self.running[request["id"]] = (op, self.mesh.spawn(self._answer(request)))

    async def _answer(self, request: dict[str, Any]) -> None:
        reply: dict[str, Any] = {"id": request["id"]}
        fd = -1
        self.mesh.note(request["op"])
        try:
            await self.mesh.gate(request["op"])
            if self.node is None and request["op"] not in ("open", "events"):
                raise Refusal("closed", "no node is open")
            ok = await getattr(self, "op_" + request["op"].replace(".", "_"))(request)
            if isinstance(ok, tuple):
                ok, end = ok
                fd = end.detach()
                reply["fd"] = True
            reply["ok"] = ok
        except Refusal as refusal:
            reply["err"] = refusal.reply
        except AttributeError as error:
            reply["err"] = {"code": "bad_request", "msg": str(error)}
        except asyncio.CancelledError:
            reply["err"] = {"code": "cancelled", "msg": "cancelled"}
        finally:
            self.running.pop(request["id"], None)
        self.send_soon(reply, fd)

    # Operations.

    @property
    def here(self) -> FakeNode:
        assert self.node is not None
        return self.node

    async def op_open(self, request: dict[str, Any]) -> Any:
        config = request["config"]
        if config.get("file"):
            raise Refusal("config", f"{config['file']}: line 1: no such directive")
        self.node = FakeNode(self.mesh, config)
        self.node.sessions.add(self)
        return {"node": self.node.id, "version": VERSION, "epoch": 1}

    async def op_session_new(self, request: dict[str, Any]) -> Any:
        ours, theirs = socket.socketpair()
        self.mesh._serve(ours, self.here)
        return {}, theirs

    async def op_close(self, request: dict[str, Any]) -> Any:
        self.mesh.loop.call_soon(self.here.close)
        return {}

    async def op_status(self, request: dict[str, Any]) -> Any:
        return {
            "NodeID": self.here.id,
            "Version": VERSION,
            "Connections": [{"NodeID": name, "Cost": 1} for name in self.here.links] or None,
            "RoutingTable": {name: name for name in self.mesh.nodes if name != self.here.id},
            "KnownConnectionCosts": {},
            "Advertisements": [
                {
                    "NodeID": node.id,
                    "Service": service,
                    "Time": "2026-11-21T20:56:30.352625983Z",
                    "ConnType": 1,
                    "Tags": None,
                    "WorkCommands": [{"WorkType": name, "Secure": False} for name in node.commands] or None,
                }
                for node in self.mesh.nodes.values()
                for service in node.listeners
            ],
            "SystemCPUCount": 2,
            "SystemMemoryMiB": 1024,
        }

    def _target(self, name: str) -> FakeNode:
        if name not in self.mesh.nodes:
            raise Refusal("no_route", f'no route to node "{name}"', node=name)
        return self.mesh.nodes[name]

    async def op_ping(self, request: dict[str, Any]) -> Any:
        if request["node"] == "void":
            await asyncio.sleep(request["timeout"])
            raise Refusal("timeout", f"ping {request['node']}: timeout")
        return {"from": self._target(request["node"]).id, "rtt_ns": 1_500_000}

    async def op_traceroute(self, request: dict[str, Any]) -> Any:
        hops: list[dict[str, Any]] = [{"hop": 0, "from": self.here.id, "rtt_ns": 1000}]
        if request["node"] in self.mesh.nodes:
            hops.append({"hop": 1, "from": request["node"], "rtt_ns": 2000})
        else:
            hops = [{"hop": 0, "from": "", "rtt_ns": 0, "err": {"code": "no_route", "msg": "no route to node"}}]
        return {"hops": hops}

    async def op_route_wait(self, request: dict[str, Any]) -> Any:
        deadline = self.mesh.loop.time() + request.get("timeout", 1e6)
        while request["node"] not in self.mesh.nodes:
            try:
                async with asyncio.timeout_at(deadline):
                    await self.mesh.routed.wait()
            except TimeoutError:
                raise Refusal("timeout", f"no route to {request['node']}") from None
        return {"next_hop": request["node"], "cost": 1.0}

    async def op_peer_add(self, request: dict[str, Any]) -> Any:
        return self.here.dial(request)

    async def op_listen_add(self, request: dict[str, Any]) -> Any:
        return self.here.listen(request)

    async def op_backend_remove(self, request: dict[str, Any]) -> Any:
        if self.here.backends.pop(request["backend"], None) is None:
            raise Refusal("bad_request", f"backend: unknown {request['backend']}")
        return {}

    async def op_events(self, request: dict[str, Any]) -> Any:
        self.kinds = set(request["kinds"])
        if "log" in self.kinds:
            at = "2026-11-21T20:56:30.352625983Z"
            log = {"ev": "log", "level": "warning", "time": at, "msg": "link lost", "attrs": {"peer": "b"}}
            self.mesh.loop.call_soon(self.send_soon, log)
        return {}

    async def op_stream_connect(self, request: dict[str, Any]) -> Any:
        target = self._target(request["node"])
        listener = target.listeners.get(request["service"])
        if listener is None:
            raise Refusal(
                "service_unknown",
                f"{request['node']}: {request['service']}: service unknown",
                node=request["node"],
                service=request["service"],
            )
        near, near_fd = End.make(self.here)
        far, far_fd = End.make(target)
        near.peer, far.peer = far, near
        local = {"node": self.here.id, "service": f"eph{near.number}"}
        message = json.dumps({"stream": far.number, "peer": local}).encode()
        socket.send_fds(listener, [b"+"], [far_fd.fileno()])
        far_fd.close()
        listener.send(message)
        near.start()
        far.start()
        return {"stream": near.number, "local": local}, near_fd

    async def op_stream_listen(self, request: dict[str, Any]) -> Any:
        name = request.get("service") or f"any{next(self.mesh.ids)}"
        if name in self.here.listeners:
            raise Refusal("in_use", f"service {name!r}: service is already listening")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        node = self.here
        node.listeners[name] = ours
        if request.get("advertise", True):
            for other in self.mesh.nodes.values():
                other.event("service", {"ev": "service", "kind": "seen", "node": node.id, "service": name})

        def heard() -> None:
            if ours.recv(1):
                return  # A stream was accepted.
            self.mesh.loop.remove_reader(ours)
            ours.close()
            node.listeners.pop(name, None)
            self.mesh.note(f"listener {name} closed")

        self.mesh.loop.add_reader(ours, heard)
        return {"service": name}, theirs

    def _end(self, request: dict[str, Any]) -> "End":
        end = self.here.streams.get(request["stream"])
        if end is None:
            raise Refusal("closed", f"no stream {request['stream']}")
        return end

    async def op_stream_status(self, request: dict[str, Any]) -> Any:
        return self._end(request).status()

    async def op_stream_abort(self, request: dict[str, Any]) -> Any:
        end = self._end(request)
        end.reset(remote=False, code=request.get("error_code", 0))
        return {}

    async def op_datagram_open(self, request: dict[str, Any]) -> Any:
        name = request.get("service") or f"dg{next(self.mesh.ids)}"
        node = self.here
        if name in node.datagrams:
            raise Refusal("in_use", f"service {name!r}: service is already listening")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        node.datagrams[name] = ours
        self.mesh.loop.add_reader(ours, self._datagram, node, name, ours)
        return {"service": name}, theirs

    def _datagram(self, node: FakeNode, name: str, sock: socket.socket) -> None:
        message = sock.recv(1 << 17)
        if not message:
            self.mesh.loop.remove_reader(sock)
            sock.close()
            node.datagrams.pop(name, None)
            self.mesh.note(f"datagram {name} closed")
            return
        n = message[2]
        to, k = message[3 : 3 + n].decode(), message[3 + n]
        service, payload = message[4 + n : 4 + n + k].decode(), message[4 + n + k :]
        if len(payload) > DATAGRAM_LIMIT:
            text = json.dumps({"code": "too_large", "msg": f"payload of {len(payload)} bytes"}).encode()
            sock.send(datagram(2, to, service, text))
            return
        target = self.mesh.nodes[to].datagrams.get(service) if to in self.mesh.nodes else None
        if target is None:
            sock.send(datagram(1, to, service, b"service unknown"))
            return
        with contextlib.suppress(BlockingIOError):  # A slow reader loses datagrams.
            target.send(datagram(0, node.id, name, payload))

    # Work.

    async def op_work_submit(self, request: dict[str, Any]) -> Any:
        ours, theirs = socket.socketpair()
        unit = FakeUnit(self.here, request, ours)
        self.here.units[unit.id] = unit
        return {"unit": unit.id}, theirs

    def _unit(self, request: dict[str, Any]) -> "FakeUnit":
        unit = self.here.units.get(request["unit"])
        if unit is None:
            raise Refusal("unit_unknown", f"unknown work unit {request['unit']}", unit=request["unit"])
        return unit

    async def op_work_started(self, request: dict[str, Any]) -> Any:
        unit = self._unit(request)
        await unit.payload_done.wait()
        return {"result": unit.start()}

    async def op_work_status(self, request: dict[str, Any]) -> Any:
        return self._unit(request).status()

    async def op_work_list(self, request: dict[str, Any]) -> Any:
        return {name: unit.status() for name, unit in self.here.units.items()}

    async def op_work_results(self, request: dict[str, Any]) -> Any:
        unit = self._unit(request)
        end, theirs = End.make(self.here)
        self.mesh.spawn(unit.copy_output(end, request.get("offset", 0)))
        return {"stream": end.number}, theirs

    async def op_work_wait(self, request: dict[str, Any]) -> Any:
        unit = self._unit(request)
        try:
            await asyncio.wait_for(unit.done.wait(), request.get("timeout"))
        except TimeoutError:
            raise Refusal("timeout", f"unit {unit.id}: timeout") from None
        return unit.status()

    async def op_work_cancel(self, request: dict[str, Any]) -> Any:
        self._unit(request).cancel()
        return {"pending": False}

    async def op_work_release(self, request: dict[str, Any]) -> Any:
        self._unit(request).cancel()
        del self.here.units[request["unit"]]
        return {"pending": False}


class End:
    """The node's side of one stream."""

    def __init__(self, node: FakeNode, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.node = node
        self.sock = sock
        self.number = next(node.mesh.ids)
        self.peer: End | None = None
        self.err: dict[str, Any] | None = None
        self.finished = 0
        self.bytes_in = self.bytes_out = 0
        node.streams[self.number] = self

    @classmethod
    def make(cls, node: FakeNode) -> "tuple[End, socket.socket]":
        ours, theirs = socket.socketpair()
        return cls(node, ours), theirs

    def start(self) -> None:
        self.node.mesh.spawn(self._pump())

    def status(self) -> dict[str, Any]:
        state = "reset" if self.err else "closed" if self.finished == 2 else "open"
        status: dict[str, Any] = {"state": state, "bytes_in": self.bytes_in, "bytes_out": self.bytes_out}
        return {**status, "err": self.err} if self.err else status

    def reset(self, *, remote: bool, code: int) -> None:
        if self.err is not None or self.finished == 2:
            return
        who = "the far side" if remote else "this side"
        self.err = {"code": "reset", "msg": f"stream was reset by {who}", "remote": remote, "error_code": code}
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        if self.peer is not None:
            self.peer.reset(remote=not remote, code=code)

    def finish(self) -> None:
        self.finished += 1
        if self.finished == 2:
            self.sock.close()

    async def _pump(self) -> None:
        """Carry what this end's client writes to the other end."""
        assert self.peer is not None
        loop, far = self.node.mesh.loop, self.peer
        try:
            while data := await loop.sock_recv(self.sock, 1 << 16):
                self.bytes_out += len(data)
                try:
                    await loop.sock_sendall(far.sock, data)
                except OSError:
                    self.reset(remote=True, code=0)
                    return
                far.bytes_in += len(data)
            if self.err is None:
                far.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.reset(remote=False, code=0)
        finally:
            self.finish()
            far.finish()


class FakeUnit:
    """A unit of work that runs a command."""

    def __init__(self, node: FakeNode, request: dict[str, Any], payload: socket.socket) -> None:
        payload.setblocking(False)
        self.node = node
        self.id = f"unit{next(node.mesh.ids):04d}"
        self.request = request
        self.payload = bytearray()
        self.payload_done = asyncio.Event()
        self.done = asyncio.Event()
        self.grown = asyncio.Condition()
        self.state, self.detail = 0, "Waiting for Input Data"
        self.output = bytearray()
        self.process: subprocess.Popen[bytes] | None = None
        self._sock = payload
        node.mesh.spawn(self._take_payload())

    def status(self) -> dict[str, Any]:
        names = ("Pending", "Running", "Succeeded", "Failed", "Canceled")
        return {
            "State": self.state,
            "StateName": names[self.state],
            "Detail": self.detail,
            "StdoutSize": len(self.output),
            "WorkType": self.request["worktype"],
            "ExtraData": None,
        }

    def start(self) -> str:
        name = self.request["node"]
        here = name in ("localhost", self.node.id)
        executor = self.node if here else self.node.mesh.nodes.get(name)
        if executor is None:
            raise Refusal("no_route", f'no route to node "{name}"', node=name)
        command = executor.commands.get(self.request["worktype"])
        if command is None:
            self._finish(3, "unknown work type")
            raise Refusal("work_type", f"unknown work type {self.request['worktype']}", unit=self.id)
        line = f"{command['command']} {command['params']} {self.request.get('params', {}).get('params', '')}"
        self.process = subprocess.Popen(
            shlex.split(line), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        self.state, self.detail = 1, f"Running: PID {self.process.pid}"
        threading.Thread(target=self._feed, args=(self.process,), daemon=True).start()
        threading.Thread(target=self._drain, args=(self.process,), daemon=True).start()
        return "Job Started" if here else "Job Submitted"

    def cancel(self) -> None:
        if self.process is not None and not self.done.is_set():
            self.process.kill()
        self._finish(4, "Canceled")

    async def copy_output(self, end: End, offset: int) -> None:
        try:
            while True:
                async with self.grown:
                    while len(self.output) <= offset and not self.done.is_set():
                        await self.grown.wait()
                chunk = bytes(self.output[offset:])
                if not chunk:
                    break
                await self.node.mesh.loop.sock_sendall(end.sock, chunk)
                offset += len(chunk)
        except OSError:
            self.node.mesh.note("output closed")
        finally:
            end.finish()
            end.finish()

    async def _take_payload(self) -> None:
        loop = self.node.mesh.loop
        try:
            while data := await loop.sock_recv(self._sock, 1 << 18):
                self.payload += data
        finally:
            self._sock.close()
        self.node.mesh.note("payload end")
        self.payload_done.set()

    def _feed(self, process: "subprocess.Popen[bytes]") -> None:
        assert process.stdin is not None
        with contextlib.suppress(OSError), process.stdin:
            process.stdin.write(self.payload)

    def _drain(self, process: "subprocess.Popen[bytes]") -> None:
        assert process.stdout is not None
        loop = self.node.mesh.loop
        with process.stdout as pipe:
            while data := pipe.read1(1 << 16):  # type: ignore[attr-defined]  # it is a BufferedReader
                loop.call_soon_threadsafe(self._grow, data)
        code = process.wait()
        state, detail = (2, "exit status 0") if code == 0 else (3, f"exit status {code}")
        with contextlib.suppress(RuntimeError):  # The mesh was closed meanwhile.
            loop.call_soon_threadsafe(self._finish, state, detail)

    def _grow(self, data: bytes) -> None:
        self.output += data
        self.node.mesh.spawn(self._tell())

    def _finish(self, state: int, detail: str) -> None:
        if not self.done.is_set():
            self.state, self.detail = state, detail
            self.done.set()
            self.node.event("work", {"ev": "work", "unit": self.id, "status": self.status()})
        self.node.mesh.spawn(self._tell())

    async def _tell(self) -> None:
        async with self.grown:
            self.grown.notify_all()


def datagram(kind: int, node: str, service: str, payload: bytes) -> bytes:
    """A message of a datagram socket, as the node sends it."""
    name, port = node.encode(), service.encode()
    return bytes((1, kind, len(name))) + name + bytes((len(port),)) + port + payload


async def writable(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
    """Wait until ``sock`` takes more."""
    future = loop.create_future()
    loop.add_writer(sock, future.set_result, None)
    try:
        await future
    finally:
        loop.remove_writer(sock)
