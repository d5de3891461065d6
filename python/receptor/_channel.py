"""A session over a blocking socket, for one thread at a time."""

from __future__ import annotations

import errno
import os
import select
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from . import _fds, _sockets
from ._seconds import check_seconds
from ._session import Descriptor, Op, Reply, Session
from .errors import ClosedError, MeshTimeout, ReceptorError

if TYPE_CHECKING:
    from .types import JSON, Event

_TAKE_BACK_S = 0.25  # What the answer to a request that was given up may take.
_READ_BYTES = 64 << 10
T = TypeVar("T")


class Deadline:
    """A point in time that a call must not outlast."""

    __slots__ = ("_end", "text", "timeout_s")

    def __init__(self, timeout_s: float | None, text: str, grace_s: float = 0.0) -> None:
        check_seconds("timeout_s", timeout_s)
        self.timeout_s = timeout_s
        self.text = text
        self._end = None if timeout_s is None else time.monotonic() + timeout_s + grace_s

    def wait(self, sock: socket.socket, event: int) -> None:
        """Wait for an event of ``select.poll``, or for the end of ``sock``, whose own time-out is not touched.

        A time-out of 0 is for what is there already.
        """
        left = self.left()
        if left == 0 and self.timeout_s != 0:
            raise self.error()
        if sock.fileno() < 0:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        poll = select.poll()
        poll.register(sock, event)
        if not poll.poll(None if left < 0 else left * 1000) and self.timeout_s == 0:
            raise self.error()

    def left(self) -> float:
        """Seconds until it has passed, as ``Lock.acquire`` takes them: -1 for no limit."""
        return -1 if self._end is None else max(self._end - time.monotonic(), 0)

    def error(self) -> MeshTimeout:
        """What to raise when it has passed."""
        return MeshTimeout(f"{self.text}: no answer within {self.timeout_s:g} s")


def deadline_of(op: Op[T]) -> Deadline:
    """The deadline of a request that starts now."""
    return Deadline(op.timeout_s, op.name, op.grace_s)


class Channel:
    """One session socket and its state. An interrupted call leaves it closed: half a frame may have passed."""

    def __init__(self, sock: socket.socket, session: Session) -> None:
        self.session = session
        self.events: deque[Event] = deque()
        self._sock = sock
        self._unsent = bytearray()
        self._frame_by_frame = False

    def call(self, op: Op[T], deadline: Deadline | None = None, *, lasting: bool = False) -> Reply:
        """Send a request and wait for its reply; a reply that is an error is returned, not raised.

        A timeout, an interrupt or a lost session closes the channel, which is what cancels the request in the node. One
        that would have to be undone if the node has done it already is cancelled before that.

        deadline: None is that of the request.
        lasting: the channel stays open after a timeout; the node hears that the request was given up with the next one.
        """
        deadline = deadline or deadline_of(op)
        request_id = 0
        try:
            request_id, frame = self.session.request(op.name, op.keys)
            self._send(frame, deadline)
            return self._answer(request_id, op, deadline)
        except BaseException as error:
            if lasting and isinstance(error, MeshTimeout):
                self._unsent += self.session.abandon(request_id)
            else:
                try:
                    if op.undo is not None:
                        self._take_back(request_id, op.undo)
                finally:
                    self.close()
            raise

    def _answer(self, request_id: int, op: Op[T], deadline: Deadline) -> Reply:
        probe_id = 0  # Of the probe under way.
        while True:
            try:
                items = self._receive(deadline)
            except MeshTimeout:
                if probe_id or not op.watched:
                    raise
                deadline = deadline_of(op)
                probe_id, frame = self.session.request(op.probe.name, op.probe.keys)
                self._send(frame, deadline)
                continue
            reply: Reply | None = None
            for item in items:  # To the end: events may have come behind the reply.
                if not isinstance(item, Reply):
                    self.events.append(item)
                elif item.id == request_id:
                    reply = item
                elif item.id == probe_id:
                    probe_id, deadline = 0, deadline_of(op)
            if reply is not None:
                return reply

    def _take_back(self, request_id: int, undo: Callable[[JSON], Op[Any]]) -> None:
        """Give a request up, and undo what the node has done where its reply was on the way already."""
        deadline = Deadline(_TAKE_BACK_S, "cancel")
        try:
            self._send(self.session.abandon(request_id, undo), deadline)
            while self.session.abandoned:
                self._receive(deadline)
                self._send(self.session.amends(), deadline)
        except ReceptorError:
            pass  # What made us give it up is the error to tell.

    def greeting(self, deadline: Deadline) -> None:
        """Wait for the greeting of a new session."""
        try:
            while self.session.hello is None:
                self._receive(deadline)
        except BaseException:
            self.close()
            raise

    def read_frame_by_frame(self) -> None:
        """Take no more off the socket than what is asked for, so that it is readable whenever there is more."""
        self._frame_by_frame = True

    def fileno(self) -> int:
        """The number of the socket, -1 once closed."""
        return self._sock.fileno()

    def next_event(self, deadline: Deadline) -> Event:
        """The next event. A timeout raises MeshTimeout and does no harm; the end of the session raises."""
        while not self.events:
            self.events.extend(item for item in self._receive(deadline) if not isinstance(item, Reply))
        return self.events.popleft()

    def wake(self) -> None:
        """Make a wait in another thread end, with ClosedError. Safe at any time."""
        _sockets.wake(self._sock)

    def close(self) -> None:
        """Close the socket; the node drops what this session has asked for. Safe to call twice."""
        self._sock.close()
        self.session.close()

    def _send(self, frame: bytes, deadline: Deadline) -> None:
        self._unsent += frame
        try:
            while self._unsent:
                try:
                    del self._unsent[: self._sock.send(self._unsent, _fds.AT_ONCE)]
                except BlockingIOError:
                    deadline.wait(self._sock, select.POLLOUT)
        except MeshTimeout:
            raise
        except OSError as error:
            raise self._ended() from error

    def _receive(self, deadline: Deadline) -> list[Reply | Event]:
        size = min(self.session.missing(), _READ_BYTES) if self._frame_by_frame else _READ_BYTES
        try:
            data, descriptors = next_on(self._sock, size, deadline)
        except MeshTimeout:
            raise
        except OSError as error:
            raise self._ended() from error
        if not data:
            raise self.session.eof()
        return self.session.receive(data, descriptors)

    def _ended(self) -> ClosedError:
        try:
            while data := self._sock.recv(_READ_BYTES, socket.MSG_DONTWAIT):
                self.session.receive(data)  # What the node said last is why it ended.
        except OSError:
            pass
        error = self.session.eof()
        return error if isinstance(error, ClosedError) else ClosedError(str(error))


def next_on(sock: socket.socket, size: int, deadline: Deadline) -> tuple[bytes, list[Descriptor]]:
    """What comes next on ``sock``, as :func:`_fds.receive` has it.

    The socket itself stays without a time-out: to set one is a system call more, and threads may share it.
    """
    while True:
        deadline.wait(sock, select.POLLIN)
        try:
            return _fds.receive(sock, size, _fds.AT_ONCE)
        except BlockingIOError:
            pass


def from_descriptor(fd: int, session: Session) -> Channel:
    """A channel over a session's descriptor."""
    os.set_blocking(fd, True)
    return Channel(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, fileno=fd), session)
