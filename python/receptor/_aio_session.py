"""Sessions and descriptors on an asyncio event loop."""

import asyncio
import contextvars
import functools
import os
import socket
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Generator
from types import TracebackType
from typing import Any, Protocol, TypeVar

from . import _fds, _process
from ._closing import AsyncClosable
from ._seconds import check_seconds
from ._session import Descriptor, Op, Reply, Session
from .errors import ConfigError, MeshTimeout, ReceptorError
from .types import Event

_READ_BYTES = 64 << 10
_READS_AT_ONCE = 16  # Then the other tasks of the loop have their turn.
T = TypeVar("T")


async def within(timeout_s: float | None, text: str, awaitable: Awaitable[T], grace_s: float = 0.0) -> T:
    """Await with a time limit; raises MeshTimeout where it is this limit that ran out."""
    try:
        check_seconds("timeout_s", timeout_s)
    except ConfigError:
        if asyncio.iscoroutine(awaitable):
            awaitable.close()
        raise
    limit = None if timeout_s is None else timeout_s + grace_s
    try:
        async with asyncio.timeout(limit) as scope:
            return await awaitable
    except TimeoutError:
        if scope.expired():
            raise MeshTimeout(f"{text}: no answer within {timeout_s:g} s") from None
        raise


def owned(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:  # Any: as elsewhere
    """A task of a node's: if it is left when its loop goes, asyncio need not complain, as the node does so for all."""
    task = loop.create_task(coroutine)
    try:
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # What asyncio sets for the tasks of a gather.
    except AttributeError:
        pass  # A Python without it complains; that is all.
    weakref.finalize(task, _dismiss, coroutine)  # Python 3.12.1 crashes when asked for that of an eager task.
    return task


def _dismiss(coroutine: Any) -> None:  # Any: what a task may have instead
    """Close a coroutine that never began, as one whose loop ended in that moment, or Python complains of it."""
    if not getattr(coroutine, "cr_running", True) and not getattr(coroutine, "cr_suspended", True):
        coroutine.close()


def in_thread(function: Callable[..., T], *arguments: Any) -> asyncio.Future[T]:  # Any: the function's own
    """Call ``function`` in a thread; in this one where there are no others any more, as at the exit of Python."""
    loop = asyncio.get_running_loop()
    call = functools.partial(contextvars.copy_context().run, function, *arguments)
    try:
        return loop.run_in_executor(None, call)
    except RuntimeError:
        future: asyncio.Future[T] = loop.create_future()
    try:
        future.set_result(call())
    except Exception as error:
        future.set_exception(error)
    return future


def check_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Raise RuntimeError, as asyncio does, unless this is ``loop``."""
    try:
        here = asyncio.get_running_loop()
    except RuntimeError:  # None runs in this thread.
        here = None
    if here is not loop:
        raise RuntimeError(
            "opened on one event loop, used on another: open a node for each loop, or have the call made on the node's "
            "with asyncio.run_coroutine_threadsafe"
        )


def check_asyncio() -> None:
    """Raise RuntimeError where no event loop of asyncio runs."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        raise RuntimeError(
            "receptor.aio needs a running event loop of asyncio: with another, as of trio, use receptor.Node, and a "
            "thread for what waits"
        ) from None


def _wake(waiters: set[asyncio.Future[None]]) -> None:
    for future in waiters:
        if not future.done():
            future.set_result(None)


class AsyncSession:
    """A session that any number of tasks share: their requests are under way together.

    on_event: called with each event, on the loop.
    """

    def __init__(self, sock: socket.socket, session: Session) -> None:
        sock.setblocking(False)
        self.session = session
        self.sock = sock
        self.on_event: Callable[[Event], None] = lambda event: None
        self.loop = asyncio.get_running_loop()
        self._futures: dict[int, asyncio.Future[Reply]] = {}
        self._unclaimed: dict[int, Reply] = {}  # Of calls that are cancelled and have not heard of it yet.
        self._releases: set[asyncio.Future[None]] = set()  # Of calls that wait until what others gave up is free.
        self._unsent = bytearray()
        self._error: ReceptorError | None = None
        self.loop.add_reader(sock.fileno(), self._on_readable)

    async def call(self, op: Op[T]) -> Reply:
        """Send a request and wait for its reply; a reply that is an error is returned, not raised.

        Cancelling the call, or its timeout, cancels the request in the node; a descriptor that comes all the same is
        closed.
        """
        check_loop(self.loop)
        if op.exclusive and not op.frees and self.session.releasing:
            await within(op.timeout_s, op.name, self._released())
        request_id, future = self.start(op)
        try:
            if op.watched and op.timeout_s is not None:
                await self._watch(op, future)
            return await within(op.timeout_s, op.name, future, op.grace_s)
        except BaseException:
            self._give_up(request_id, future, op)
            raise

    def start(self, op: Op[T]) -> tuple[int, asyncio.Future[Reply]]:
        """Send a request; its reply will be the result of the future."""
        if self._error is not None:
            raise self._error
        request_id, frame = self.session.request(op.name, op.keys)
        future: asyncio.Future[Reply] = self.loop.create_future()
        self._futures[request_id] = future
        self._write(frame)
        return request_id, future

    def close(self, error: ReceptorError | None = None) -> None:
        """End the session; whoever waits for a reply gets ``error``. Safe to call twice."""
        if self._error is not None:
            return
        self._error = error or self.session.whose.closed()
        if not self.loop.is_closed():
            self.loop.remove_reader(self.sock.fileno())
            self.loop.remove_writer(self.sock.fileno())
        self.sock.close()
        self.session.close()
        futures, self._futures = self._futures, {}
        for future in futures.values():
            if not future.done():
                future.set_exception(self._error)
        _wake(self._releases)

    def abandon_after_fork(self) -> None:
        """Close the descriptor and leave the loop alone: its epoll set is the parent's as well."""
        self._error = self.session.whose.closed()
        self.sock.close()
        self.session.close()

    def _give_up(self, request_id: int, future: asyncio.Future[Reply], op: Op[T]) -> None:
        self._futures.pop(request_id, None)
        if self._error is None:
            self._write(self.session.abandon(request_id, op.undo, exclusive=op.exclusive))
        reply = self._unclaimed.pop(request_id, None)
        if future.done() and not future.cancelled() and future.exception() is None:
            reply = future.result()
        if reply is not None:  # It came in the moment in which the call was cancelled.
            if reply.fd is not None:
                reply.fd.close()
            if op.undo is not None and reply.error is None and self._error is None:
                self.session.take_back(op.undo, reply.ok, exclusive=op.exclusive)
                self._write(self.session.amends())

    async def _watch(self, op: Op[T], future: asyncio.Future[Reply]) -> None:
        assert op.timeout_s is not None
        while not (await asyncio.wait([future], timeout=op.timeout_s + op.grace_s))[0]:
            await within(op.timeout_s, op.name, self.call(op.probe), op.grace_s)

    async def _released(self) -> None:
        """Wait until the node has taken back what cancelled calls had asked for: its names would still be in use."""
        while self.session.releasing and self._error is None:
            future: asyncio.Future[None] = self.loop.create_future()
            self._releases.add(future)
            try:
                await future
            finally:
                self._releases.discard(future)

    def _write(self, frame: bytes) -> None:
        if not self._unsent:
            try:
                frame = frame[self.sock.send(frame) :]
            except BlockingIOError:
                pass
            except OSError:
                return  # The reader hears of the end, with what the node said last.
            if frame:
                self.loop.add_writer(self.sock.fileno(), self._on_writable)
        self._unsent += frame

    def _on_writable(self) -> None:
        try:
            del self._unsent[: self.sock.send(self._unsent)]
        except BlockingIOError:
            return
        except OSError:
            self._unsent.clear()
        if not self._unsent:
            self.loop.remove_writer(self.sock.fileno())

    def _on_readable(self) -> None:
        for _ in range(_READS_AT_ONCE):
            try:
                data, descriptors = _fds.receive(self.sock, _READ_BYTES)
                items = self.session.receive(data, descriptors)
            except BlockingIOError:
                return
            except ReceptorError as error:
                self.close(error)
                return
            except OSError:
                data, items = b"", []
            for item in items:
                self._deliver(item)
            if amends := self.session.amends():
                self._write(amends)
            if self._releases and not self.session.releasing:
                _wake(self._releases)
            if not data:
                self.close(self.session.eof())
                return
            if len(data) < _READ_BYTES and not descriptors:
                return

    def _deliver(self, item: Reply | Event) -> None:
        if not isinstance(item, Reply):
            self.on_event(item)
            return
        future = self._futures.pop(item.id, None)
        if future is not None and not future.done():
            future.set_result(item)
        elif future is not None:
            self._unclaimed[item.id] = item


class Pollable(_process.Local, AsyncClosable):
    """A socket from which tasks read by waiting until it is readable: a cancelled wait loses nothing."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._pid = os.getpid()
        self._loop = asyncio.get_running_loop()
        self._waiters: set[asyncio.Future[None]] = set()
        _process.track(self)

    def fileno(self) -> int:
        """The descriptor's number, -1 once closed."""
        return self._sock.fileno()

    def close(self) -> None:
        """Close it; tasks that wait get ClosedError, iterations end. Safe to call twice."""
        if self._sock.fileno() < 0:
            return
        if self._waiters and not self._loop.is_closed():
            self._loop.remove_reader(self._sock.fileno())
            _wake(self._waiters)
        self._sock.close()

    async def receive(self, size: int) -> tuple[bytes, list[Descriptor]]:
        """Wait for data and take it; empty at the end of file."""
        while True:
            _process.check(self._pid)
            try:
                return _fds.receive(self._sock, size)
            except BlockingIOError:
                await self._readable()

    async def _send(self, message: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self._sock, message)

    async def _readable(self) -> None:
        check_loop(self._loop)
        future = self._loop.create_future()
        if not self._waiters:
            self._loop.add_reader(self._sock.fileno(), _wake, self._waiters)
        self._waiters.add(future)
        try:
            await future
        finally:
            self._waiters.discard(future)
            if not self._waiters and self._sock.fileno() >= 0:
                self._loop.remove_reader(self._sock.fileno())

    def _abandon_after_fork(self) -> None:
        self._sock.close()


class _Managed(Protocol):
    async def __aenter__(self) -> Any: ...  # Any: itself

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


_M = TypeVar("_M", bound=_Managed)


class Opening(Coroutine[Any, Any, _M]):  # Any: as below
    """Something that is being opened: ``x = await opening``, or ``async with opening as x``, or a task made of it."""

    def __init__(self, coroutine: Coroutine[Any, Any, _M]) -> None:  # Any: what coroutines say to their loop
        self._coroutine = coroutine
        self._opened: _M | None = None

    def __await__(self) -> Generator[Any, Any, _M]:  # Any: as above
        return self._coroutine.__await__()

    def send(self, value: Any, /) -> Any:  # Any: as above
        """As of a coroutine."""
        return self._coroutine.send(value)

    def throw(self, kind: Any, value: Any = None, trace: Any = None, /) -> Any:  # Any: an exception, or its parts
        """As of a coroutine."""
        if value is None and trace is None:
            return self._coroutine.throw(kind)
        return self._coroutine.throw(kind, value, trace)

    def close(self) -> None:
        """As of a coroutine: nothing is opened."""
        self._coroutine.close()

    async def __aenter__(self) -> _M:
        self._opened = await self._coroutine
        await self._opened.__aenter__()
        return self._opened

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._opened is not None:
            await self._opened.__aexit__(kind, error, trace)
