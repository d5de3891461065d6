"""Descriptors on their way to the program: owned, not inherited, never lost in silence."""

import array
import os
import socket

import pytest

from receptor import _fds, _sockets
from receptor._session import Descriptor
from receptor.errors import ProtocolError


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def test_received_descriptors_are_not_inherited() -> None:
    left, right = socket.socketpair()
    with left, right, open(os.devnull) as file:
        socket.send_fds(left, [b"x"], [file.fileno()] * 3)
        data, descriptors = _fds.receive(right, 100)
        assert data == b"x"
        numbers = [descriptor.detach() for descriptor in descriptors]
        assert len(numbers) == 3
        assert not any(os.get_inheritable(fd) for fd in numbers)
        for fd in numbers:
            os.close(fd)


def test_a_descriptor_that_the_kernel_dropped_is_an_error() -> None:
    read, write = os.pipe()

    class Cut:
        def recvmsg(self, size: int, space: int, flags: int) -> tuple[bytes, list[tuple[int, int, bytes]], int, None]:
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [read]).tobytes())]
            return b"x", ancillary, socket.MSG_CTRUNC, None

    with pytest.raises(ProtocolError, match="limit on open files"):
        _fds.receive(Cut(), 100)  # type: ignore[arg-type]
    assert not is_open(read), "what came beside the lost one must be closed"
    os.close(write)


def test_streams_arrive_in_two_messages() -> None:
    arrivals = _sockets.Arrivals()
    read, write = os.pipe()
    assert arrivals.take(b"+", [Descriptor(read)]) is None
    arrived = arrivals.take(b'{"stream": 3, "peer": {"node": "b", "service": "s"}}', [])
    assert arrived is not None
    stream, peer, descriptor = arrived
    assert (stream, peer) == (3, ("b", "s"))
    assert descriptor is not None
    descriptor.close()
    os.close(write)
    with pytest.raises(ProtocolError, match="did not come"):
        arrivals.take(b'{"stream": 4, "peer": {"node": "b", "service": "s"}}', [])
    arrivals.lose()
    assert arrivals.take(b'{"stream": 5, "peer": {"node": "b", "service": "s"}}', []) == (5, ("b", "s"), None)


def test_a_stream_is_never_that_of_another_whose_second_message_was_lost() -> None:
    arrivals = _sockets.Arrivals()
    first, second = os.pipe()
    arrivals.take(b"+", [Descriptor(first)])
    arrivals.lose()
    arrivals.take(b"+", [Descriptor(second)])
    assert not is_open(first)
    arrived = arrivals.take(b'{"stream": 4, "peer": {"node": "b", "service": "s"}}', [])
    assert arrived is not None
    assert arrived[2] is not None
    assert arrived[2].detach() == second
    os.close(second)


@pytest.mark.parametrize("message", [b"", b"{", b"[]", b'{"stream": "x"}'])
def test_a_stream_that_is_none_closes_what_came(message: bytes) -> None:
    arrivals = _sockets.Arrivals()
    read, write = os.pipe()
    arrivals.take(b"+", [Descriptor(read)])
    with pytest.raises(ProtocolError):
        arrivals.take(message, [])
    assert not is_open(read)
    os.close(write)


def test_what_was_received_in_part_is_closed() -> None:
    arrivals = _sockets.Arrivals()
    read, write = os.pipe()
    arrivals.take(b"+", [Descriptor(read)])
    arrivals.close()
    assert not is_open(read)
    with pytest.raises(ProtocolError, match="whose descriptor did not come"):
        _sockets.Arrivals().take(b"{}", [])
    os.close(write)
