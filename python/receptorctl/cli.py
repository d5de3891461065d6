"""The command ``receptorctl``, under the names that existing programs import. The real thing is ``receptor.cli``."""

from typing import TYPE_CHECKING, Any

import receptor.cli
from receptor.cli import cli, run

if TYPE_CHECKING:
    from receptor.cli import (
        cancel,
        connect,
        list_units,
        ping,
        release,
        reload,
        results,
        status,
        submit,
        traceroute,
        version,
        work,
    )

main = run

__all__ = [
    "cancel",
    "cli",
    "connect",
    "list_units",
    "main",
    "ping",
    "release",
    "reload",
    "results",
    "run",
    "status",
    "submit",
    "traceroute",
    "version",
    "work",
]


def __getattr__(name: str) -> Any:  # Any: commands
    if name in __all__:
        return getattr(receptor.cli, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
