"""Units of work of an asyncio node."""

import asyncio
import socket
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Self

from . import _ops, _sockets
from ._aio_session import Opening, Pollable, within
from ._aio_streams import MeshSocket
from ._payload import AsyncPayload, async_chunks
from ._session import Descriptor, Op
from ._units import AsyncUnit
from .errors import ReceptorError
from .types import Address, UnitStatus, WorkResult

if TYPE_CHECKING:
    from .aio import Node

_READ_BYTES = 64 << 10
_CLEANUP_S = 5.0  # What a cancelled submit may take to take its unit back.


class Work:
    """Units of work of a node; see :attr:`Node.work`."""

    __slots__ = ("_node",)

    def __init__(self, node: "Node") -> None:
        self._node = node

    def submit(
        self,
        node: str,
        worktype: str,
        payload: AsyncPayload = b"",
        *,
        params: Mapping[str, object] | None = None,
        ttl_s: float | None = None,
        tls: str | None = None,
        sign: bool = False,
    ) -> Opening["NodeUnit"]:
        """Start a unit of ``worktype`` on ``node``; to be awaited, or entered with ``async with``.

        node: a node's ID; the own ID or "localhost" runs it here.
        payload: its standard input: bytes, text (sent as UTF-8), a file open in mode "rb", an iterable or an
            asynchronous iterable of bytes, sent as it comes and never held whole in memory. Files and iterables are
            read in a thread.
        params: parameters of the work type; values are sent as text.
        ttl_s: seconds after which a unit that has not started on ``node`` is given up; None means never.
        tls: name of the TLS profile for the way to ``node``: units outlive the program, so it is one of the node's own.
        sign: sign the submission, with the key that the node's configuration names.

        If this fails or is cancelled, the unit is released: it never runs with half of its payload. Raises
        WorkTypeError, WorkError, Unreachable or MeshTimeout.
        """
        op = _ops.submit(node, worktype, params, ttl_s, tls, sign, self._node.timeout_s)
        return Opening(self._submit(op, payload))

    async def get(self, unit_id: str) -> "NodeUnit":
        """A unit that exists, by its ID. Raises UnitNotFound."""
        unit = NodeUnit(unit_id, self._node)
        await unit.status()
        return unit

    async def list(self) -> dict[str, UnitStatus]:
        """The node's units, those of its own and those it has submitted to other nodes, by ID."""
        return await self._node._run(_ops.unit_list(self._node.timeout_s))

    async def _submit(self, op: Op[str], payload: AsyncPayload) -> "NodeUnit":
        # The request itself is not cancelled: once made, a unit has to be taken back by its ID.
        request = self._node._spawn(self._node._run_descriptor(op))
        try:
            descriptor, unit_id = await asyncio.shield(request)
        except asyncio.CancelledError:
            request.add_done_callback(self._take_back_late)
            raise
        unit = NodeUnit(unit_id, self._node)
        sock = _sockets.socket_of(descriptor, socket.SOCK_STREAM)
        sock.setblocking(False)
        try:
            await self._send(sock, payload, unit_id)
            await self._node._run(_ops.started(unit_id))
        except BaseException:
            await self._take_back(unit, sock)
            raise
        finally:
            sock.close()
        return unit

    async def _send(self, sock: socket.socket, payload: AsyncPayload, unit_id: str) -> None:
        loop = asyncio.get_running_loop()
        text = f"payload of unit {unit_id}"
        try:
            async for chunk in async_chunks(payload):
                await within(self._node.timeout_s, text, loop.sock_sendall(sock, chunk))
            sock.shutdown(socket.SHUT_WR)
        except (BrokenPipeError, ConnectionResetError):
            pass  # The node stopped reading; the reply of work.started says why.

    async def _take_back(self, unit: "NodeUnit", sock: socket.socket) -> None:
        """Release ``unit`` before its payload's socket closes, which could pass for its end."""
        if not self._node.closed:
            await asyncio.shield(self._node._spawn(unit._take_back(sock)))

    def _take_back_late(self, request: "asyncio.Task[tuple[Descriptor, str]]") -> None:
        if request.cancelled() or request.exception() is not None or self._node.closed:
            return
        descriptor, unit_id = request.result()
        sock = _sockets.socket_of(descriptor, socket.SOCK_STREAM)
        self._node._spawn(NodeUnit(unit_id, self._node)._take_back(sock))


class NodeUnit(AsyncUnit):
    """A unit that a node of this process has."""

    def __init__(self, unit_id: str, node: "Node") -> None:
        super().__init__(unit_id)
        self._node = node

    @property
    def _home(self) -> str:
        return self._node.id

    def stdout(self, offset: int = 0, *, timeout_s: float | None = None) -> "Output":
        """Its output from byte ``offset`` on, for ``async for``: each chunk as it arrives, until it is complete.

        timeout_s: seconds to wait for the next chunk. Raises MeshTimeout, or StreamResetError where output was lost.
        """
        return Output(self, offset, timeout_s)

    async def open_stdout(self, offset: int = 0) -> MeshSocket:
        """Its output from byte ``offset`` on as a socket to read from."""
        descriptor, stream = await self._node._run_descriptor(_ops.results(self._id, offset, self._node.timeout_s))
        here = Address(self._node.id, "")
        return MeshSocket(descriptor, stream, Address(self._node.id, f"unit {self._id}"), here, self._node)

    async def status(self) -> UnitStatus:
        """How it stands now."""
        return await self._node._run(_ops.unit_status(self._id, self._node.timeout_s))

    async def wait(self, *, timeout_s: float | None = None, check: bool = True) -> WorkResult:
        """Wait until it is complete. Raises MeshTimeout; the unit goes on.

        check: raise WorkFailed or WorkCancelled if it did not succeed; both have the ``result``.
        """
        result = await self._node._run(_ops.unit_wait(self._id, timeout_s))
        return _ops.check(result) if check else result

    async def cancel(self) -> bool:
        """End it. True if the executing node has confirmed it; else it will be told when it can be reached."""
        return await self._node._run(_ops.cancel(self._id, self._node.timeout_s))

    async def release(self, *, force: bool = False) -> bool:
        """End it and remove all traces. True if the executing node has confirmed it; else it will be told.

        force: remove it here even if the executing node never hears of it.
        """
        self._detached = True
        return await self._node._run(_ops.release(self._id, force, self._node.timeout_s))

    async def _take_back(self, payload: socket.socket) -> None:
        with payload:
            try:
                await self._node._run(_ops.release(self._id, True, _CLEANUP_S))
            except ReceptorError:
                pass  # What made us take it back is the error to tell.


class Output:
    """Output of a unit of work, for ``async for`` in one task; ``offset`` counts the bytes taken.

    A cancelled or timed-out wait loses nothing: go on with the same object.
    """

    def __init__(self, unit: NodeUnit, offset: int, timeout_s: float | None) -> None:
        self._unit = unit
        self._timeout_s = timeout_s
        self._sock: MeshSocket | None = None
        self._poll: Pollable | None = None
        self.offset = offset

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        chunk = await self.read()
        if not chunk:
            self.close()
            raise StopAsyncIteration
        return chunk

    async def read(self, size: int = _READ_BYTES) -> bytes:
        """The next at most ``size`` bytes; empty once the unit is complete and all has been read."""
        if self._sock is None or self._poll is None:
            self._sock = await self._unit.open_stdout(self.offset)
            self._poll = Pollable(self._sock)
        try:
            chunk, _ = await within(self._timeout_s, f"output of unit {self._unit.id}", self._poll.receive(size))
        except ConnectionResetError:
            chunk = b""
        if not chunk and (error := await self._sock._reset()) is not None:
            raise error
        self.offset += len(chunk)
        return chunk

    def close(self) -> None:
        """Stop reading. Safe to call twice."""
        if self._poll is not None:
            self._poll.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()
