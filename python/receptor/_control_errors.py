"""What can go wrong while talking to a daemon's control service: the errors of ``receptor.errors``, with more facts.

    ControlClientError (ReceptorError, RuntimeError)
     +-- AddressError          (ConfigError)                  the socket address cannot be understood or does not exist
     +-- OptionsError          (ConfigError)                  options that contradict each other, an unusable file
     +-- ConnectError          (ConnectionError, ValueError)  nobody answers at the address
     +-- DisconnectedError     (ClosedError, ConnectionError) the daemon went away in mid-conversation
     +-- ControlProtocolError  (ProtocolError, ValueError)    the other side does not speak the control protocol
     +-- ControlTimeout        (MeshTimeout)                  no answer in the time given
     +-- RefusedError          (ControlError)                 the daemon understood the request and said no
          +-- NotOfferedError                                 it does not have the command: not ours, or older

A refusal is also the error that a node of this package would raise for it: ``UnitNotFound``, ``WorkTypeError``,
``Unreachable`` or ``MeshTimeout``, so ``except UnitNotFound`` serves both. All are ``RuntimeError``, which programs
written for the original client catch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from receptor.errors import (
    ClosedError,
    ConfigError,
    ControlError,
    MeshTimeout,
    ProtocolError,
    ReceptorError,
    UnitNotFound,
    Unreachable,
    WorkTypeError,
)


class ControlClientError(ReceptorError, RuntimeError):
    """Base of everything that the control client raises about a daemon.

    code: stable name of the kind of failure; REFUSAL_CODES has those of refusals.
    hint: one line saying what to try next, or "". It is not in the text, which is what programs compare; a traceback
        shows it as a note.
    """

    code = "control"

    def __init__(self, text: str, *, hint: str = "", code: str | None = None) -> None:
        super().__init__(text, code=code)
        self.hint = hint
        if hint:
            self.add_note(f"hint: {hint}")


class AddressError(ControlClientError, ConfigError):
    """The address of the control socket is malformed, or names a path that does not exist."""

    code = "address"


class OptionsError(ControlClientError, ConfigError):
    """Connection options exclude each other, or a file that they name cannot be used."""

    code = "config"


class ConnectError(ControlClientError, ConnectionError, ValueError):
    """No connection to the daemon: nobody listens, no permission, or the TLS handshake failed (see ``__cause__``)."""

    code = "connect"


class DisconnectedError(ControlClientError, ClosedError, ConnectionError):
    """The connection ended while an answer was due."""

    code = "closed"


class ControlProtocolError(ControlClientError, ProtocolError, ValueError):
    """What arrived is not the control protocol. The connection is of no further use."""

    code = "protocol"


class ControlTimeout(ControlClientError, MeshTimeout):
    """No answer within ``timeout_s``. The connection is dropped; the next request opens a new one."""

    code = "timeout"


class RefusedError(ControlClientError, ControlError):
    """The daemon answered with an error.

    text: the daemon's own words, without what this client puts in front of them.
    reply: the JSON reply that carried the error; empty when it was an ``ERROR:`` line.
    """

    code = "refused"

    def __init__(self, text: str, *, prefix: str = "", reply: Mapping[str, Any] | None = None, hint: str = "") -> None:
        code = refusal_code(text)
        super().__init__(prefix + text, hint=hint or hint_for(text, code), code=code)
        self.text = text
        self.reply = reply or {}  # Any: JSON as it came


class NotOfferedError(RefusedError):
    """The daemon does not have ``command``: it is of another project, or older than this client."""

    def __init__(self, text: str, *, hint: str = "", command: str = "") -> None:
        super().__init__(text, hint=hint)
        self.code = "not_offered"
        self.command = command


class _UnitNotFound(RefusedError, UnitNotFound):
    pass


class _WorkTypeError(RefusedError, WorkTypeError):
    pass


class _Unreachable(RefusedError, Unreachable):
    pass


class _MeshTimeout(RefusedError, MeshTimeout):
    pass


# How refusals begin, and the code each gets. The codes are those of the session protocol (go/session/README.md),
# and "signature" for what concerns signed work.
REFUSAL_CODES: tuple[tuple[str, str], ...] = (
    ("unknown work unit", "unit_unknown"),
    ("unknown work type", "work_type"),
    ("extra params provided but not allowed", "work_type"),
    ("no route to node", "no_route"),
    ("INTERNAL_ERROR (local): no route to node", "no_route"),
    ("timeout", "timeout"),
    ("service unknown", "service_unknown"),
    ("context canceled", "service_unknown"),
    ("message expired", "expired"),
    ("blocked by firewall", "firewall"),
    ("could not verify signature", "signature"),
    ("work type did not expect a signature", "signature"),
    ("unknown TLS config", "config"),
    ("Unknown command", "bad_request"),
    ("bad command", "bad_request"),
    ("not allowed:", "not_allowed"),
)

_BY_CODE: dict[str, type[RefusedError]] = {
    "unit_unknown": _UnitNotFound,
    "work_type": _WorkTypeError,
    "no_route": _Unreachable,
    "service_unknown": _Unreachable,
    "expired": _Unreachable,
    "firewall": _Unreachable,
    "timeout": _MeshTimeout,
}

_HINTS = {
    "unit_unknown": "list the units that the node knows with: receptorctl work list",
    "work_type": "see which node offers which work types with: receptorctl status",
    "no_route": "see which nodes are reachable with: receptorctl status",
    "config": "the name must be a tls-client entry of the daemon's own configuration",
}


def hint_for(text: str, code: str = "") -> str:
    """Return one line of what to try against an error of a daemon, "" if nothing is known."""
    if "insecure connection to secure service" in text:
        return "the service wants TLS: name a tls-client entry of the daemon's own configuration, with --tls-client"
    return _HINTS.get(code, "")


def refusal_code(text: str) -> str:
    """Return the stable code for a daemon's error text; ``"refused"`` for one that has no code of its own."""
    for beginning, code in REFUSAL_CODES:
        if text.startswith(beginning):
            return code
    return "refused"


UNSAID = "the daemon did not say why"


def refusal(text: str, *, prefix: str = "", reply: Mapping[str, Any] | None = None) -> RefusedError:
    """Return the error for a daemon's refusal, of the class that fits its text.

    >>> isinstance(refusal("unknown work unit LWJm6jtg"), UnitNotFound)
    True
    """
    return _BY_CODE.get(refusal_code(text), RefusedError)(text or UNSAID, prefix=prefix, reply=reply)
