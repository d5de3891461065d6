"""Receptor: an overlay mesh with remote work on top, with a node inside your process.

::

    import receptor

    with receptor.Node("web-1", peers=["tcp://hub:2222"]) as node:
        node.wait_route("db-1", timeout_s=10)
        print(node.ping("db-1").rtt)
        with node.work.submit("db-1", "backup", payload=b"...") as unit:
            for chunk in unit.stdout():
                print(chunk)

Blocking code uses :class:`Node`, asyncio code ``receptor.aio.Node`` with the same methods. All public names are here
and in ``receptor.aio``. ``receptor.connect`` and ``receptor.aio.connect`` talk to a daemon that runs elsewhere, with
the types of ``receptor.control``. Importing this package loads no native library, starts no thread, and reads modules
as their names are used.
"""

TYPE_CHECKING = False  # What typing.TYPE_CHECKING is, without the time to import typing.
if TYPE_CHECKING:
    from typing import Any

    from . import aio as aio
    from . import control as control
    from ._plugin import BUFFER_PAYLOAD, BYTES_PAYLOAD, FILE_PAYLOAD, plugin_export
    from .control import Client, connect
    from .errors import (
        AddressInUse,
        ClosedError,
        ConfigError,
        ControlError,
        ForkedProcessError,
        MeshTimeout,
        NativeLibraryError,
        PayloadTooLarge,
        ProtocolError,
        ReceptorError,
        StreamResetError,
        UnitNotFound,
        Unreachable,
        UnreachableReason,
        WorkCancelled,
        WorkError,
        WorkFailed,
        WorkTypeError,
    )
    from .node import DatagramSocket, EventStream, Listener, MeshSocket, Node, Proxy
    from .types import (
        TLS,
        Address,
        Advertisement,
        BackendID,
        BoundListener,
        Connection,
        DatagramStatus,
        Event,
        EventKind,
        EventsLost,
        Hop,
        LinkListener,
        LogLevel,
        LogRecord,
        Peer,
        PeerDown,
        PeerUp,
        PingResult,
        Route,
        RoutesChanged,
        ServiceGone,
        ServiceSeen,
        ServiceType,
        Status,
        StreamState,
        StreamStatus,
        TLSProfile,
        Topology,
        UnitStatus,
        WorkChanged,
        WorkCommand,
        WorkOffer,
        WorkResult,
        WorkState,
    )
    from .work import Offer, Unit, Work, WorkContext

    __version__: str

__all__ = [
    "BUFFER_PAYLOAD",
    "BYTES_PAYLOAD",
    "FILE_PAYLOAD",
    "TLS",
    "Address",
    "AddressInUse",
    "Advertisement",
    "BackendID",
    "BoundListener",
    "Client",
    "ClosedError",
    "ConfigError",
    "Connection",
    "ControlError",
    "DatagramSocket",
    "DatagramStatus",
    "Event",
    "EventKind",
    "EventStream",
    "EventsLost",
    "ForkedProcessError",
    "Hop",
    "LinkListener",
    "Listener",
    "LogLevel",
    "LogRecord",
    "MeshSocket",
    "MeshTimeout",
    "NativeLibraryError",
    "Node",
    "Offer",
    "PayloadTooLarge",
    "Peer",
    "PeerDown",
    "PeerUp",
    "PingResult",
    "ProtocolError",
    "Proxy",
    "ReceptorError",
    "Route",
    "RoutesChanged",
    "ServiceGone",
    "ServiceSeen",
    "ServiceType",
    "Status",
    "StreamResetError",
    "StreamState",
    "StreamStatus",
    "TLSProfile",
    "Topology",
    "Unit",
    "UnitNotFound",
    "UnitStatus",
    "Unreachable",
    "UnreachableReason",
    "Work",
    "WorkCancelled",
    "WorkChanged",
    "WorkCommand",
    "WorkContext",
    "WorkError",
    "WorkFailed",
    "WorkOffer",
    "WorkResult",
    "WorkState",
    "WorkTypeError",
    "__version__",
    "aio",
    "connect",
    "control",
    "plugin_export",
]

# Modules that are read when one of their names is first used. What is none of their names is in errors or types.
_MODULES = {
    "node": ("DatagramSocket", "EventStream", "Listener", "MeshSocket", "Node", "Proxy"),
    "control": ("Client", "connect"),
    "work": ("Offer", "Unit", "Work", "WorkContext"),
    "_plugin": ("BUFFER_PAYLOAD", "BYTES_PAYLOAD", "FILE_PAYLOAD", "plugin_export"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}
_SUBMODULES = ("aio", "control", "errors", "node", "testing", "types", "work")


def __getattr__(name: str) -> "Any":  # Any: whatever the name stands for; type checkers read the block above
    from importlib import import_module

    if name in _SUBMODULES:
        return import_module(f".{name}", __name__)
    if name == "__version__":
        from ._version import version

        value: Any = version()
    elif name in __all__:
        module = _MODULE_OF.get(name) or ("errors" if name in import_module(".errors", __name__).__all__ else "types")
        value = getattr(import_module(f".{module}", __name__), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_SUBMODULES})
