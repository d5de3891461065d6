"""The command ``receptorctl``, under the names that existing programs import. The real thing is ``receptor.cli``."""

from receptor.cli import (
    cancel,
    cli,
    connect,
    list_units,
    ping,
    release,
    reload,
    results,
    run,
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
