"""What the proxies of both faces have in common."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Generic, TypeVar

from . import _sockets
from ._address import Address
from .errors import ClosedError, ConfigError

if TYPE_CHECKING:
    from ._modes import AnyNode

N = TypeVar("N", bound="AnyNode")


class AnyProxy(Generic[N]):
    """A bridge between an address outside the mesh and a service in it; it runs until it or the node is closed.

    address: outside the mesh: where it listens, with the port that was found for port 0, or what it dials.
    service: in the mesh: what it dials, or where others reach it.
    """

    def __init__(self, number: int, address: str, service: Address, node: N) -> None:
        self._number = number
        self._node = node
        self._done = False
        self.address = address
        self.service = service

    @property
    def host_port(self) -> tuple[str, int]:
        """The address as ``socket.create_connection`` takes it; ValueError if it is a Unix socket's."""
        return host_port(self.address)

    @contextmanager
    def _ending(self) -> Iterator[None]:
        """Around its end in the node, which is asked for again if it was interrupted."""
        self._done = True
        try:
            yield
        except ConfigError:
            pass  # An end that was interrupted has come to pass.
        except ClosedError:
            raise
        except BaseException:
            self._done = False
            raise

    def __repr__(self) -> str:
        return _sockets.described(self, f"{self.address} {self.service}")


def host_port(address: str) -> tuple[str, int]:
    """The two parts of an address like "tcp://[::1]:8080".

    >>> host_port("tcp://[::1]:8080")
    ('::1', 8080)
    """
    scheme, _, rest = address.rpartition("://")
    host, colon, port = rest.rpartition(":")
    if scheme not in ("", "tcp") or not colon:
        raise ConfigError(f"{address!r} has no host and port")
    return host.removeprefix("[").removesuffix("]"), int(port)
