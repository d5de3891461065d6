"""What programs written for the original client import: ``ReceptorControl``, ``socket_interface`` and ``cli``.

    from receptorctl.socket_interface import ReceptorControl

    with ReceptorControl("/run/receptor/receptor.sock") as control:
        print(control.simple_command("ping edge-7"))

New programs have a typed client, ``receptor.connect``, which this one shares its connection code with. Importing
this package costs next to nothing: the parts are loaded when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from receptorctl import _metadata

if TYPE_CHECKING:
    from receptorctl import cli, socket_interface
    from receptorctl.socket_interface import ReceptorControl

_metadata.install()

__all__ = ["ReceptorControl", "cli", "socket_interface"]


def __getattr__(name: str) -> Any:  # Any: modules and a class
    if name in ("cli", "socket_interface"):
        return importlib.import_module(f"receptorctl.{name}")
    if name == "ReceptorControl":
        return importlib.import_module("receptorctl.socket_interface").ReceptorControl
    if name == "__version__":
        return importlib.import_module("receptor._version").version()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
