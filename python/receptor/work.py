"""Units of work, for blocking code.

::

    with node.work.submit("db-1", "backup", payload=open("in.tar", "rb"), params={"db": "x"}) as unit:
        for chunk in unit.stdout():
            out.write(chunk)
        unit.wait()

A unit outlives the program that submitted it, unless it is released: leaving the ``with`` statement does that.
"""

import socket
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, TypeVar

from . import _ops, _sockets
from ._functions import Function, FunctionMode, Offer, WorkContext, checked, new_pool
from ._making import Making
from ._payload import Payload, chunks
from ._seconds import check_seconds
from ._units import Unit
from .errors import MeshTimeout
from .node import MeshSocket
from .types import Address, UnitStatus, WorkResult

if TYPE_CHECKING:
    from .node import Node

__all__ = ["Offer", "Unit", "Work", "WorkContext"]

F = TypeVar("F", bound=Function)
_READ_BYTES = 64 << 10


class Work:
    """Units of work of a node; see :attr:`Node.work`."""

    __slots__ = ("_node",)

    def __init__(self, node: "Node") -> None:
        self._node = node

    def submit(
        self,
        node: str,
        worktype: str,
        payload: Payload = b"",
        *,
        params: Mapping[str, object] | None = None,
        ttl_s: float | None = None,
        tls: str | None = None,
        sign: bool = False,
    ) -> Unit:
        """Start a unit of ``worktype`` on ``node``, and return once its start is decided.

        node: a node's ID; the own ID or "localhost" runs it here.
        payload: its standard input: bytes, text (sent as UTF-8), a file open in mode "rb" or an iterable of bytes, sent
            as it comes and never held whole in memory.
        params: parameters of the work type; values are sent as text.
        ttl_s: seconds after which a unit that has not started on ``node`` is given up; None means never: while the node
            is not reached, or takes no work, the unit is pending.
        tls: name of the TLS profile for the way to ``node``: units outlive the program, so it is one of the node's own.
        sign: sign the submission, with the key that the node's configuration names.
        The last three are for work on another node: ConfigError where it is this one.

        If this fails or is interrupted, by Ctrl-C or an error of the payload, the unit is released: it never runs with
        half of its payload. Raises WorkTypeError, WorkError, Unreachable or MeshTimeout.
        """
        host = self._node
        making = Making(host, _ops.submit(node, worktype, params, ttl_s, tls, sign, host.timeout_s))
        try:
            unit_id = making.result()
            assert making.sock is not None
            _send(making.sock, payload, host.timeout_s, unit_id)
            host._run(_ops.started(unit_id, host.timeout_s))
            making.sock.close()
            return NodeUnit(unit_id, host)
        except BaseException:
            making.take_back()
            raise

    def offer(
        self,
        worktype: str,
        function: Function,
        *,
        mode: FunctionMode = "thread",
        concurrency: int = 0,
        verify_signature: bool = False,
    ) -> Offer:
        """Make ``function`` the work type ``worktype`` of this node: it does the units that anybody submits.

        function: called with a :class:`WorkContext` for each unit. What it
            returns, bytes or text, is appended to the output. An exception fails the unit: its type and text become the
            detail, the traceback goes to the output; ``SystemExit(3)`` is exit status 3.
        mode: "thread" runs it in a thread of this process, "process" in a process of its own, which is started with
            "spawn" and kept for the next unit: then it must be defined at the top of a module, and what a program does
            must stand under ``if __name__ == "__main__"``.
        concurrency: units that run at once, others wait in order; 0 means any number.
        verify_signature: take only signed submissions, which a configuration file says how to verify.

        Units end with this program: one that runs then fails, and closing the node waits up to two seconds for its
        function. Raises AddressInUse if the node has the type already.
        """
        checked(function, mode, asynchronous=False)
        op = _ops.offer(worktype, concurrency, verify_signature, self._node.timeout_s)
        descriptor, _ = self._node._run_descriptor(op)
        offer = Offer(descriptor, worktype, function, new_pool(mode))
        self._node._offers.add(offer)
        offer.when_closed = self._node._offers.discard
        return offer

    def handler(
        self,
        worktype: str,
        *,
        mode: FunctionMode = "thread",
        concurrency: int = 0,
        verify_signature: bool = False,
    ) -> Callable[[F], F]:
        """:meth:`offer` as a decorator; the function stays as it is.

        ::

            @node.work.handler("shout", concurrency=4)
            def shout(unit: receptor.WorkContext) -> bytes:
                return unit.stdin.read().upper()
        """
        _ops.check_worktype(worktype)  # Not with the function: "@handler" without its name is a mistake.

        def decorate(function: F) -> F:
            self.offer(worktype, function, mode=mode, concurrency=concurrency, verify_signature=verify_signature)
            return function

        return decorate

    def get(self, unit_id: str) -> Unit:
        """A unit that exists, by its ID. Raises UnitNotFound."""
        unit = NodeUnit(unit_id, self._node)
        unit.status()
        return unit

    def list(self) -> dict[str, UnitStatus]:
        """The node's units, those of its own and those it has submitted to other nodes, by ID."""
        return self._node._run(_ops.unit_list(self._node.timeout_s))

    def __repr__(self) -> str:
        return _sockets.described(self, f"of {self._node.id!r}")


class NodeUnit(Unit):
    """A unit that a node of this process has."""

    def __init__(self, unit_id: str, node: "Node") -> None:
        super().__init__(unit_id)
        self._node = node

    @property
    def _home(self) -> str:
        return self._node.id

    def stdout(self, offset: int = 0, *, timeout_s: float | None = None) -> Iterator[bytes]:
        check_seconds("timeout_s", timeout_s)
        chunks = _read(self.open_stdout(offset), timeout_s, f"output of unit {self._id}")
        next(chunks)  # From here on it closes its socket, also if nobody ever reads.
        return chunks

    def open_stdout(self, offset: int = 0) -> MeshSocket:
        descriptor, stream = self._node._run_descriptor(_ops.results(self._id, offset, self._node.timeout_s))
        here = Address(self._node.id, "")
        return MeshSocket(descriptor, stream, Address(self._node.id, f"unit {self._id}"), here, self._node)

    def status(self) -> UnitStatus:
        return self._node._run(_ops.unit_status(self._id, self._node.timeout_s))

    def wait(self, *, timeout_s: float | None = None, check: bool = True) -> WorkResult:
        result = self._node._run(_ops.unit_wait(self._id, timeout_s))
        return _ops.check(result) if check else result

    def cancel(self) -> bool:
        return self._node._run(_ops.cancel(self._id, self._node.timeout_s))

    def release(self, *, force: bool = False) -> bool:
        confirmed = self._node._run(_ops.release(self._id, force, self._node.timeout_s))
        self._detached = True
        return confirmed


def _send(sock: socket.socket, payload: Payload, timeout_s: float | None, unit_id: str) -> None:
    """Send the payload and its end. What the payload raises is raised, also what a socket could have raised."""
    sock.settimeout(timeout_s)
    for chunk in chunks(payload):
        try:
            sock.sendall(chunk)
        except TimeoutError:
            raise MeshTimeout(f"payload of unit {unit_id}: the node took nothing for {timeout_s:g} s") from None
        except (BrokenPipeError, ConnectionResetError):
            return  # The node stopped reading; the reply of work.started says why.
    sock.shutdown(socket.SHUT_WR)


def _read(sock: MeshSocket, timeout_s: float | None, what: str) -> Iterator[bytes]:
    with sock:
        sock.settimeout(timeout_s)
        yield b""
        while True:
            try:
                chunk = sock.recv(_READ_BYTES)
            except (TimeoutError, BlockingIOError):
                raise MeshTimeout(f"{what}: nothing came for {timeout_s:g} s") from None
            if not chunk:
                return
            yield chunk
