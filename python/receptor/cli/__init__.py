"""The command ``receptorctl``: texts, options and exit statuses that scripts rely on.

Every command that prints data has ``--json`` and ``--output json|yaml|table``: one document on stdout (one object a
line from what goes on), to whose objects keys are only ever added.

====================  =================================================================================================
``status``            the daemon's own reply
``work list``         the daemon's own reply, with or without ``--json``: unit ID to status
``work status``       the same, of the units that were asked for
``ping``              ``{"node", "sent", "received", "replies": [{"success", "from", "time_ns", "error"}]}``
``traceroute``        ``{"node", "reached", "hops": [{"hop", "from", "time_ns", "error"}]}``
``path``              ``{"from", "to", "reachable", "cost", "hops": [{"hop", "node", "cost", "time_ns", "error"}]}``
``version``           ``{"receptorctl", "receptor"}``
``reload``            ``{"success", "error", "code", "changes"}``
``topology``          the reply of the control command ``topology``; a daemon without it: the keys that ``status`` tells
``events``            a line for each event, as the daemon sends it
``links``             the daemon's own reply; so do ``config`` and ``metrics``
``doctor``            ``{"from", "to", "ok", "checks": [{"check", "result", "text", "remedy"}]}``, result ``ok``,
                      ``warning``, ``failed`` or ``skipped``
``top``               ``{"node", "version", "links", "nodes", "routes", "units", "states"}``, a line for each refresh
``work submit``       ``{"unit", "result", "released"}``
``work results``      lines ``{"offset", "text"}``, ``{"offset", "base64"}`` for what is not UTF-8, and as last line
                      ``{"unit", "state", "detail", "exit_code", "size"}``; so does ``work logs``
``work cancel``       ``{"units": [{"unit", "result"}], "error"}``, result ``cancelled`` or ``cancel pending``
``work release``      the same, result ``released`` or ``release pending``
====================  =================================================================================================

``from``, ``time_ns`` and ``error`` are null where there is none; of a ping without an answer, for instance.

Exit statuses: 0 done, 1 failed (usage errors included), 2 a ping was lost, 3 to 5 reload refused, 101 work refused,
130 interrupted. ``work exec`` ends as its command did, by a signal N as 128 + N.
"""

import importlib
from typing import TYPE_CHECKING, Any

from receptor.cli._root import cli, run

if TYPE_CHECKING:
    from receptor.cli._connect import connect
    from receptor.cli._mesh import ping, reload, status, traceroute, version
    from receptor.cli._output import results
    from receptor.cli._submit import submit
    from receptor.cli._work import cancel, list_units, release, work

__all__ = [
    "cancel",
    "cli",
    "connect",
    "list_units",
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

_MODULES = {
    "_connect": ("connect",),
    "_mesh": ("ping", "reload", "status", "traceroute", "version"),
    "_output": ("results",),
    "_submit": ("submit",),
    "_work": ("cancel", "list_units", "release", "work"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:  # Any: commands
    if name in _MODULE_OF:
        return getattr(importlib.import_module(f"receptor.cli.{_MODULE_OF[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
