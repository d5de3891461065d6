"""The names that plugins of Receptor's Python worker import from ``receptor``."""

from collections.abc import Callable
from typing import Any, TypeVar

BYTES_PAYLOAD = "bytes"  # The plugin gets the whole payload as bytes.
BUFFER_PAYLOAD = "buffer"  # The plugin gets the payload as an open binary file.
FILE_PAYLOAD = "file"  # The plugin gets the path of the payload's file.

_F = TypeVar("_F", bound=Callable[..., Any])  # Any: a plugin's own signature


def plugin_export(payload_type: str) -> Callable[[_F], _F]:
    """Mark a function as one that the Python worker may call.

    payload_type: how the function wants the payload: ``BYTES_PAYLOAD``, ``BUFFER_PAYLOAD`` or ``FILE_PAYLOAD``.

    >>> @plugin_export(payload_type=BYTES_PAYLOAD)
    ... def resize(payload, config, result_queue):
    ...     result_queue.put(len(payload))
    >>> resize.receptor_export, resize.payload_type
    (True, 'bytes')
    """

    def mark(function: _F) -> _F:
        function.receptor_export = True  # type: ignore[attr-defined]  # the worker looks for these two
        function.payload_type = payload_type  # type: ignore[attr-defined]
        return function

    return mark
