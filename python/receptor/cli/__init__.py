"""The command ``receptorctl``: texts, options and exit statuses that scripts rely on.

Every command that prints data has ``--json``: one document on stdout, to whose objects keys are only ever added.

====================  =================================================================================================
``status``            the daemon's own reply
``work list``         the daemon's own reply, with or without ``--json``: unit ID to status
``ping``              ``{"node", "sent", "received", "replies": [{"success", "from", "time_ns", "error"}]}``
``traceroute``        ``{"node", "reached", "hops": [{"hop", "from", "time_ns", "error"}]}``
``version``           ``{"receptorctl", "receptor"}``
``work submit``       ``{"unit", "result", "released"}``
``work cancel``       ``{"units": [{"unit", "result"}], "error"}``, result ``cancelled`` or ``cancel pending``
``work release``      the same, result ``released`` or ``release pending``
====================  =================================================================================================

``from``, ``time_ns`` and ``error`` are null where there is none; of a ping without an answer, for instance.

Exit statuses: 0 done, 1 failed (usage errors included), 2 a ping was lost, 3 to 5 reload refused, 101 work refused,
130 interrupted.
"""

from receptor.cli._connect import connect
from receptor.cli._mesh import ping, reload, status, traceroute, version
from receptor.cli._root import cli, run
from receptor.cli._work import cancel, list_units, release, results, submit, work

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
