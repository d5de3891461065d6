"""What can go wrong, as a tree of exceptions.

::

    ReceptorError
     +-- ConfigError           (ValueError)             a setting or an argument cannot be used
     +-- ClosedError                                    the node or the object is closed
     +-- ForkedProcessError    (RuntimeError)           used in a child of the process that opened it
     +-- NativeLibraryError    (ImportError)            the node's library cannot be used here
     +-- ProtocolError                                  the two sides of a session disagree: a fault of ours
     +-- MeshTimeout           (TimeoutError)           no answer in the time given
     +-- Unreachable           (ConnectionError)        the mesh does not reach the node or the service
     +-- StreamResetError      (ConnectionResetError)   a stream ended without its end of file
     +-- PayloadTooLarge       (ValueError)             a datagram or a request is over its limit
     +-- AddressInUse          (OSError)                a service name or an address is taken
     +-- ControlError                                   a daemon refused a control command, or there is none
     +-- WorkError                                      anything about a unit of work
          +-- UnitNotFound     (LookupError)            no such unit
          +-- WorkTypeError    (ValueError)             unknown work type, or one that refuses its parameters
          +-- WorkFailed                                the unit ended, and failed
          +-- WorkCancelled                             the unit was cancelled

Each inherits the builtin a caller would already catch, so ``except TimeoutError`` and ``except OSError`` do what they
say. Facts are attributes: ``code`` is stable and for programs, ``str()`` is for people and may change.
"""

import errno
from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from .types import WorkResult

__all__ = [
    "AddressInUse",
    "ClosedError",
    "ConfigError",
    "ControlError",
    "ForkedProcessError",
    "MeshTimeout",
    "NativeLibraryError",
    "PayloadTooLarge",
    "ProtocolError",
    "ReceptorError",
    "StreamResetError",
    "UnitNotFound",
    "Unreachable",
    "UnreachableReason",
    "WorkCancelled",
    "WorkError",
    "WorkFailed",
    "WorkTypeError",
]


class ReceptorError(Exception):
    """Whatever this package raises on purpose.

    code: a stable name of what happened, for programs ("no_route").
    node: the mesh node it is about, where there is one.
    """

    code: str = "internal"
    _errno: ClassVar[int | None] = None  # For the classes that are also an OSError.

    def __init__(self, message: str, *, code: str | None = None, node: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code
        self.node = node
        _set_errno(self, self._errno)


class ConfigError(ReceptorError, ValueError):
    """A setting or an argument cannot be used; the text says which one, and where it stands in a file."""

    code = "config"


class ClosedError(ReceptorError):
    """The node or the object was closed: by this program, or because the node ended (then ``__cause__`` says why).

    node: the node that is closed, where it is one.
    """

    code = "closed"


class ForkedProcessError(ReceptorError, RuntimeError):
    """The object belongs to the process ``opened_in``, and this is its forked child ``used_in``.

    A node lives in threads, and a fork copies none of them. Open the node after the fork, or start the children with
    ``multiprocessing.get_context("spawn")`` or ``"forkserver"``. Where both need a node, one of the two
    has ``mode="sidecar"``.
    """

    code = "forked"

    def __init__(self, message: str, *, opened_in: int = 0, used_in: int = 0) -> None:
        super().__init__(message)
        self.opened_in = opened_in
        self.used_in = used_in


class NativeLibraryError(ReceptorError, ImportError):
    """The library that holds the node cannot be used in this process; the text says why and what helps."""

    code = "library"


class ProtocolError(ReceptorError):
    """The two sides of a session disagree. A fault of ours, or parts of two versions were mixed."""

    code = "protocol"


class MeshTimeout(ReceptorError, TimeoutError):
    """No answer in the time given. What was asked for was given up, here and in the node."""

    code = "timeout"
    _errno = errno.ETIMEDOUT


class UnreachableReason(StrEnum):
    """Why a node or a service was not reached."""

    NO_ROUTE = "no_route"  # No path to the node is known now; a retry may succeed.
    SERVICE_UNKNOWN = "service_unknown"  # The node is there and nothing listens on the service.
    EXPIRED = "expired"  # The packet ran out of hops.
    FIREWALL = "firewall"  # A firewall rule on the way rejected it.
    REFUSED = "refused"  # The far side answered and refused.


class Unreachable(ReceptorError, ConnectionError):
    """The mesh does not reach ``node`` or its ``service``; ``reason`` says why."""

    code = "no_route"
    _errno = errno.EHOSTUNREACH

    def __init__(
        self, message: str, *, code: str | None = None, node: str | None = None, service: str | None = None
    ) -> None:
        super().__init__(message, code=code, node=node)
        self.service = service

    @property
    def reason(self) -> UnreachableReason:
        """Why, for programs."""
        return UnreachableReason(self.code)


class StreamResetError(ReceptorError, ConnectionResetError):
    """The stream was broken off; what was read from it may be incomplete.

    remote: the far side did it (else this side, or the way between them was lost).
    error_code: what the side that did it gave as its reason; 0 if it gave none.
    """

    code = "reset"
    _errno = errno.ECONNRESET

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        node: str | None = None,
        remote: bool = False,
        error_code: int = 0,
    ) -> None:
        super().__init__(message, code=code, node=node)
        self.remote = remote
        self.error_code = error_code


class PayloadTooLarge(ReceptorError, ValueError):
    """A datagram or a request is over the size that fits."""

    code = "too_large"


class AddressInUse(ReceptorError, OSError):
    """The service name or the address is taken."""

    code = "in_use"
    _errno = errno.EADDRINUSE


class ControlError(ReceptorError):
    """A daemon refused a control command, and the text is the daemon's; or no daemon is where one was named."""

    code = "control"


class WorkError(ReceptorError):
    """Something about a unit of work; ``unit`` is its ID where there is one."""

    code = "work"

    def __init__(
        self, message: str, *, code: str | None = None, node: str | None = None, unit: str | None = None
    ) -> None:
        super().__init__(message, code=code, node=node)
        self.unit = unit


class UnitNotFound(WorkError, LookupError):
    """The node knows no unit of this ID; it may have been released."""

    code = "unit_unknown"


class WorkTypeError(WorkError, ValueError):
    """The node does not offer the work type, or the work type refuses the parameters."""

    code = "work_type"


class _WorkEnded(WorkError):
    def __init__(self, message: str, *, result: "WorkResult | None" = None) -> None:
        super().__init__(message, unit=result.unit if result is not None else None)
        self._result = result

    @property
    def result(self) -> "WorkResult":
        """How the unit ended."""
        if self._result is None:
            raise AttributeError(f"this {type(self).__name__} was made without a result")
        return self._result


class WorkFailed(_WorkEnded):
    """The unit ended, and failed; ``result`` has the details."""

    code = "work_failed"


class WorkCancelled(_WorkEnded):
    """The unit was cancelled; ``result`` has the details."""

    code = "work_cancelled"


def _set_errno(error: BaseException, number: int | None) -> None:
    if isinstance(error, OSError):
        error.errno = number


# The codes of go/session/README.md, "Error codes", and what they are in Python.
_BY_CODE: dict[str, type[ReceptorError]] = {
    "bad_request": ConfigError,
    "config": ConfigError,
    "closed": ClosedError,
    "cancelled": ReceptorError,
    "timeout": MeshTimeout,
    "no_route": Unreachable,
    "service_unknown": Unreachable,
    "expired": Unreachable,
    "firewall": Unreachable,
    "refused": Unreachable,
    "reset": StreamResetError,
    "too_large": PayloadTooLarge,
    "in_use": AddressInUse,
    "too_many": ReceptorError,
    "unit_unknown": UnitNotFound,
    "work_type": WorkTypeError,
    "work": WorkError,
    "internal": ReceptorError,
}


def from_wire(err: Mapping[str, Any]) -> ReceptorError:  # Any: JSON as it came
    """Turn the ``err`` object of a reply into the exception it stands for.

    >>> from_wire({"code": "no_route", "msg": 'no route to node "edge"', "node": "edge"})
    Unreachable('no route to node "edge"')
    """
    code = str(err.get("code") or "internal")
    message = str(err.get("msg") or code.replace("_", " "))
    kind = _BY_CODE.get(code, ReceptorError)
    facts: dict[str, Any] = {"code": code}
    if isinstance(err.get("node"), str):
        facts["node"] = err["node"]
    if issubclass(kind, StreamResetError):
        facts["remote"] = bool(err.get("remote", False))
        facts["error_code"] = int(err.get("error_code") or 0)
    elif issubclass(kind, Unreachable):
        facts["service"] = err.get("service")
    elif issubclass(kind, WorkError):
        facts["unit"] = err.get("unit")
    return kind(message, **facts)
