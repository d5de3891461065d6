"""Units of work of an asyncio node."""

import asyncio
import os
import socket
import threading
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Self, TypeAlias, TypeVar, cast

from . import _ops, _process, _sockets
from ._aio_session import Opening, Pollable, owned, within
from ._aio_streams import MeshSocket
from ._closing import AsyncClosable
from ._functions import (
    AsyncFunction,
    AsyncWorkContext,
    Function,
    FunctionMode,
    Task,
    Units,
    checked,
    is_coroutine_function,
    judge,
    leave_fork,
    new_pool,
    write_result,
)
from ._payload import AsyncPayload, async_chunks
from ._session import Descriptor, Op
from ._units import AsyncUnit
from .errors import ClosedError, ProtocolError, ReceptorError
from .types import Address, UnitStatus, WorkResult

if TYPE_CHECKING:
    from ._worker import Pool
    from .aio import Node

AnyFunction: TypeAlias = Function | AsyncFunction
F = TypeVar("F", bound=AnyFunction)

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
        ttl_s: seconds after which a unit that has not started on ``node`` is given up; None means never: while the node
            is not reached, or takes no work, the unit is pending.
        tls: name of the TLS profile for the way to ``node``: units outlive the program, so it is one of the node's own.
        sign: sign the submission, with the key that the node's configuration names.
        The last three are for work on another node: ConfigError where it is this one.

        If this fails or is cancelled, the unit is released: it never runs with half of its payload. Raises
        WorkTypeError, WorkError, Unreachable or MeshTimeout.
        """
        op = _ops.submit(node, worktype, params, ttl_s, tls, sign, self._node.timeout_s)
        return Opening(self._submit(op, payload))

    async def offer(
        self,
        worktype: str,
        function: "AnyFunction",
        *,
        mode: FunctionMode = "thread",
        concurrency: int = 0,
        verify_signature: bool = False,
    ) -> "Offer":
        """Make ``function`` the work type ``worktype`` of this node: it does the units that anybody submits.

        function: called with a :class:`WorkContext` for each unit; an asyncio function with an
            :class:`AsyncWorkContext`, in a task of this loop that is cancelled with the unit. What it
            returns, bytes or text, is appended to the output. An exception fails the unit: its type and text become the
            detail, the traceback goes to the output; ``SystemExit(3)`` is exit status 3.
        mode: "thread" runs it in a thread of this process, "process" in a process of its own, which is started with
            "spawn" and kept for the next unit: then it must be defined at the top of a module, and what a program does
            must stand under ``if __name__ == "__main__"``.
            It is about functions that are not asyncio's.
        concurrency: units that run at once, others wait in order; 0 means any number.
        verify_signature: take only signed submissions, which a configuration file says how to verify.

        Units end with this program: one that runs then fails, and closing the node waits up to two seconds for its
        function. Raises AddressInUse if the node has the type already.
        """
        checked(function, mode, asynchronous=True)
        op = _ops.offer(worktype, concurrency, verify_signature, self._node.timeout_s)
        descriptor, _ = await self._node._run_descriptor(op)
        return Offer(descriptor, worktype, function, new_pool(mode), self._node)

    def handler(
        self,
        worktype: str,
        *,
        mode: FunctionMode = "thread",
        concurrency: int = 0,
        verify_signature: bool = False,
    ) -> Callable[[F], F]:
        """:meth:`offer` as a decorator; the function stays as it is.

        On a node that has not started, the offer is made when it starts; on one that runs, soon: await :meth:`offer` to
        know when.

        ::

            @node.work.handler("shout", concurrency=4)
            async def shout(unit: receptor.aio.AsyncWorkContext) -> bytes:
                return (await unit.read()).upper()
        """
        _ops.check_worktype(worktype)  # Not with the function: "@handler" without its name is a mistake.

        def decorate(function: F) -> F:
            checked(function, mode, asynchronous=True)
            self._node._later(
                lambda: self.offer(
                    worktype, function, mode=mode, concurrency=concurrency, verify_signature=verify_signature
                )
            )
            return function

        return decorate

    async def get(self, unit_id: str) -> "NodeUnit":
        """A unit that exists, by its ID. Raises UnitNotFound."""
        unit = NodeUnit(unit_id, self._node)
        await unit.status()
        return unit

    async def list(self) -> dict[str, UnitStatus]:
        """The node's units, those of its own and those it has submitted to other nodes, by ID."""
        return await self._node._run(_ops.unit_list(self._node.timeout_s))

    def __repr__(self) -> str:
        return _sockets.described(self, f"of {self._node.id!r}")

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
            await self._until_closed(self._send(sock, payload, unit_id))
            await self._node._run(_ops.started(unit_id, self._node.timeout_s))
        except BaseException:
            await self._take_back(unit, sock)
            raise
        sock.close()
        return unit

    async def _until_closed(self, sending: Coroutine[Any, Any, None]) -> None:  # Any: what coroutines say to their loop
        """Await ``sending``, which may wait for the program's payload for ever, while the node is open."""
        task = self._node._spawn(sending)
        try:
            await task
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if self._node.closed and current is not None and not current.cancelling():
                raise self._node._host.closed() from None
            raise

    async def _send(self, sock: socket.socket, payload: AsyncPayload, unit_id: str) -> None:
        """Send the payload and its end. What the payload raises is raised, also what a socket could have raised."""
        loop = asyncio.get_running_loop()
        text = f"payload of unit {unit_id}"
        async for chunk in async_chunks(payload):
            try:
                await within(self._node.timeout_s, text, loop.sock_sendall(sock, chunk))
            except (BrokenPipeError, ConnectionResetError):
                return  # The node stopped reading; the reply of work.started says why.
        sock.shutdown(socket.SHUT_WR)

    async def _take_back(self, unit: "NodeUnit", sock: socket.socket) -> None:
        """Release ``unit`` before its payload's socket closes, which could pass for its end.

        This goes on where whoever waits for it is cancelled once more.
        """
        if self._node.closed:
            sock.close()
        else:
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
        return Output(self, offset, timeout_s)

    async def open_stdout(self, offset: int = 0) -> MeshSocket:
        descriptor, stream = await self._node._run_descriptor(_ops.results(self._id, offset, self._node.timeout_s))
        here = Address(self._node.id, "")
        return MeshSocket(descriptor, stream, Address(self._node.id, f"unit {self._id}"), here, self._node)

    async def status(self) -> UnitStatus:
        return await self._node._run(_ops.unit_status(self._id, self._node.timeout_s))

    async def wait(self, *, timeout_s: float | None = None, check: bool = True) -> WorkResult:
        result = await self._node._run(_ops.unit_wait(self._id, timeout_s))
        return _ops.check(result) if check else result

    async def cancel(self) -> bool:
        return await self._node._run(_ops.cancel(self._id, self._node.timeout_s))

    async def release(self, *, force: bool = False) -> bool:
        confirmed = await self._node._run(_ops.release(self._id, force, self._node.timeout_s))
        self._detached = True
        return confirmed

    async def _take_back(self, payload: socket.socket) -> None:
        with payload:
            try:
                await self._node._run(_ops.release(self._id, True, _CLEANUP_S))
            except ReceptorError:
                pass  # What made us take it back is the error to tell.


class Output(_process.Local, AsyncClosable):
    """Output of a unit of work, for ``async for`` in one task; ``offset`` counts the bytes taken.

    A cancelled or timed-out wait loses nothing: go on with the same object.
    """

    def __init__(self, unit: NodeUnit, offset: int, timeout_s: float | None) -> None:
        self._unit = unit
        self._timeout_s = timeout_s
        self._sock: MeshSocket | None = None
        self._poll: Pollable | None = None
        self._ended = False
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
        """The next at most ``size`` bytes; empty once the unit is complete and all has been read.

        Raises ClosedError once it was closed before that.
        """
        if self._ended or not size:
            return b""
        if self._sock is None or self._poll is None:
            self._sock = await self._unit.open_stdout(self.offset)
            self._poll = Pollable(self._sock)
        what = f"output of unit {self._unit.id}"
        try:
            chunk, _ = await within(self._timeout_s, what, self._poll.receive(size))
        except ConnectionResetError:
            chunk = b""
        except OSError as error:
            if self._sock.fileno() >= 0:
                raise
            raise ClosedError(f"{what} is closed") from error
        if not chunk:
            if (reset := await self._sock._reset()) is not None:
                raise reset
            self._ended = True
        self.offset += len(chunk)
        return chunk

    def close(self) -> None:
        """Stop reading. Safe to call twice."""
        if self._poll is not None:
            self._poll.close()

    def __del__(self) -> None:
        self.close()

    def __repr__(self) -> str:
        return _sockets.described(self, f"of unit {self._unit.id} from byte {self.offset} on")


class Offer(Pollable):
    """A function as a work type, until it is closed or the node is."""

    def __init__(
        self, descriptor: Descriptor, worktype: str, function: "AnyFunction", pool: "Pool | None", node: "Node"
    ) -> None:
        super().__init__(_sockets.socket_of(descriptor, socket.SOCK_SEQPACKET))
        self.worktype = worktype
        self._node = node
        self._function = function
        self._pool = pool
        try:
            self._serving = node._spawn(self._serve())
        except ClosedError:  # While the offer was made.
            self.close()
            raise

    def close(self) -> None:
        """Take the work type back; units that run go on. Safe to call twice."""
        super().close()
        if self._pool is not None:
            self._pool.close()

    def __repr__(self) -> str:
        return _sockets.described(self, repr(self.worktype), closed=self.fileno() < 0)

    async def _serve(self) -> None:
        units = Units()
        try:
            while True:
                try:
                    message, descriptors = await self.receive(_READ_BYTES)
                except ProtocolError:  # At the limit on open files.
                    units.lose()
                    continue
                if not message:
                    return
                task = units.take(message, descriptors)
                if task is not None:
                    self._node._spawn(self._run(task))
        except OSError:
            pass  # Closed here.
        finally:
            self.close()

    async def _run(self, task: Task) -> None:
        if not is_coroutine_function(self._function):
            in_thread = cast(Function, self._function)
            await _in_thread(lambda: task.run(in_thread, self._pool), f"work-{self.worktype}")
            return
        loop = asyncio.get_running_loop()
        function = cast(Callable[[AsyncWorkContext], Coroutine[Any, Any, object]], self._function)
        work = owned(loop, _judged(function, task))

        def cancelled() -> None:
            loop.remove_reader(task.control.fileno())  # Said once: what the function awaits to clean up goes on.
            work.cancel()

        loop.add_reader(task.control.fileno(), cancelled)
        verdict: dict[str, Any] = {"err": "cancelled"}
        try:
            verdict = await work
        except asyncio.CancelledError:
            work.cancel()
            if (current := asyncio.current_task()) is not None and current.cancelling():
                raise
        finally:
            loop.remove_reader(task.control.fileno())
            task.finish(verdict)


async def _judged(function: Callable[[AsyncWorkContext], Coroutine[Any, Any, object]], task: Task) -> dict[str, Any]:
    """Await a function and return the verdict about its unit: a SystemExit that left its task would end the loop."""
    given_to = os.getpid()
    try:
        result = await function(cast(AsyncWorkContext, task.context(AsyncWorkContext)))
        leave_fork(given_to)
        write_result(task.stdout, result)
    except (asyncio.CancelledError, GeneratorExit, KeyboardInterrupt):  # Of the loop's or the program's own end.
        raise
    except BaseException as error:
        leave_fork(given_to, error)
        return judge(error, task.stdout)
    return {"ok": True}


async def _in_thread(call: Callable[[], None], name: str) -> None:
    """Run ``call`` in a thread of its own, which does not hold up the end of the program."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def finished() -> None:
        if not done.done():
            done.set_result(None)

    def run() -> None:
        try:
            call()
        finally:
            try:
                loop.call_soon_threadsafe(finished)
            except RuntimeError:
                pass  # The loop has ended; nobody waits.

    threading.Thread(target=run, name=name, daemon=True).start()
    await done
