"""Receiving bytes together with file descriptors, for sessions and listeners."""

import array
import os
import socket

from ._session import Descriptor
from .errors import ProtocolError

_MAX_AT_ONCE = 16
_SPACE = socket.CMSG_SPACE(_MAX_AT_ONCE * array.array("i").itemsize)
_CTRUNC = int(socket.MSG_CTRUNC)  # As a number: operators of flags cost a microsecond.
_CLOEXEC: int = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
AT_ONCE = int(socket.MSG_DONTWAIT)


def receive(sock: socket.socket, size: int, how: int = 0) -> tuple[bytes, list[Descriptor]]:
    """One recvmsg of at most ``size`` bytes, with the flags ``how``. Empty bytes mean the end of file.

    Raises ProtocolError if the kernel had to cut descriptors off, for example at the limit on open files.
    """
    received: list[tuple[bytes, list[tuple[int, int, bytes]], int, object]] = []
    try:
        # In one step: an interrupt, which may come behind any call, finds what was received in the list.
        received.extend(map(sock.recvmsg, (size,), (_SPACE,), (_CLOEXEC | how,)))
        data, ancillary, flags, _ = received.pop()
    except BaseException:
        for _, ancillary, _, _ in received:
            for fd in _numbers(ancillary):
                os.close(fd)
        raise
    if not ancillary and not flags & _CTRUNC:
        return data, []
    descriptors = [Descriptor(fd) for fd in _numbers(ancillary)]
    if flags & _CTRUNC:
        for descriptor in descriptors:
            descriptor.close()
        raise ProtocolError("a descriptor was lost on its way: the limit on open files is reached (ulimit -n)")
    return data, descriptors


def _numbers(ancillary: list[tuple[int, int, bytes]]) -> "array.array[int]":
    numbers = array.array("i")
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            numbers.frombytes(payload[: len(payload) - len(payload) % numbers.itemsize])
    return numbers
