"""Requests of blocking code that make something in a node, which goes again if whoever asked is interrupted.

Python raises an interrupt in the main thread, and there between any two steps. So a passing thread makes the request
for the main thread: the answer cannot be lost, which names what is to be taken back.
"""

from __future__ import annotations

import _thread
import socket
import threading
from typing import TYPE_CHECKING, Generic, TypeVar

from . import _sockets
from ._channel import Channel, deadline_of
from ._session import Op, Reply
from .errors import ReceptorError

if TYPE_CHECKING:
    from .node import Node

_TAKE_BACK_S = 5.0  # What it may take to take back what is not wanted any more.
T = TypeVar("T")


class Making(Generic[T]):
    """One such request. Whoever makes one calls :meth:`take_back` on any exception, until what it made has an owner.

    op: it has an ``undo``. sock: of the descriptor that came with what was made, if one did.
    """

    def __init__(self, node: Node, op: Op[T]) -> None:
        self._node = node
        self._op = op
        self.sock: socket.socket | None = None
        self._reply: Reply | None = None
        self._error: BaseException | None = None
        self._over = threading.Lock()  # Released at the end of the request.
        self._over.acquire()
        self._lock = threading.Lock()  # Guards the rest.
        self._begun = self._ended = self._unwanted = False
        self._channel: Channel | None = None  # While the request is under way.

    def result(self) -> T:
        """Make the request and wait for what comes of it."""
        if threading.get_ident() != threading.main_thread().ident:
            self._run()
        else:
            try:
                _thread.start_new_thread(self._run, ())  # At half the cost of a threading.Thread.
            except RuntimeError:  # As in Node._grow.
                self._run()
            else:
                self._over.acquire()
        error, self._error = self._error, None
        if error is not None:
            raise error
        assert self._reply is not None
        return self._op.decode(self._reply.result())

    def take_back(self) -> None:
        """End the request if it is under way, and undo what it has done. ``sock`` is closed after that."""
        with self._lock:
            self._unwanted = True
            under_way = self._begun and not self._ended
            if self._channel is not None:
                self._channel.wake()
        if under_way:
            self._over.acquire()  # Its thread goes on if this is interrupted too.
        else:
            self._undo()

    def _run(self) -> None:
        try:
            self._reply = reply = self._exchange()
            if reply is not None and reply.fd is not None:
                self.sock = _sockets.socket_of(reply.fd, socket.SOCK_STREAM)
        except BaseException as error:  # Raised where the result is asked for.
            self._error = error
        with self._lock:
            self._ended = True
        try:
            if self._unwanted:
                self._undo()
        finally:
            self._over.release()

    def _exchange(self) -> Reply | None:
        deadline = deadline_of(self._op)
        channel = self._node._acquire(deadline)
        with self._lock:
            self._begun = True
            if not self._unwanted:
                self._channel = channel
        try:
            reply = channel.call(self._op, deadline) if self._channel is not None else None
        finally:
            self._node._busy.discard(channel)
            with self._lock:
                self._channel = None
        if self._unwanted:
            channel.close()  # It was woken.
        else:
            self._node._keep(channel)
        return reply

    def _undo(self) -> None:
        reply, self._reply = self._reply, None
        if reply is None:
            return
        if reply.error is None and self._op.undo is not None:
            try:
                self._node._call(self._op.undo(reply.ok)._replace(timeout_s=_TAKE_BACK_S))
            except ReceptorError:
                pass  # What made us take it back is the error to tell.
        if self.sock is not None:
            self.sock.close()
