"""The control protocol without I/O: bytes in, lines and answers out; requests in, bytes out.

A session is lines. The daemon greets with ``Receptor Control, node NODEID``; every request is one line, answered by one
line that is a JSON object or ``ERROR: TEXT``. Three requests change the mode of the connection after their answer:
``connect`` (raw bytes both ways), ``work submit`` (payload up to a half-close, then one more line) and
``work results`` (raw output up to the end of the stream).

Nothing here blocks, opens or closes anything, so a blocking and an asyncio shell can share it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NoReturn

from receptor._control_errors import ControlProtocolError, DisconnectedError, refusal

# A status of a thousand nodes is below 1 MiB, a list of a hundred thousand work units near 30 MiB.
MAX_LINE_BYTES = 128 * 1024 * 1024
# The greeting comes from whoever sits at the address, so it gets far less credit than an answer.
MAX_GREETING_BYTES = 64 * 1024

_GREETING = re.compile(r"Receptor Control, node (.+)")
_CREATED = re.compile(r"Work unit created with ID (.+)\. Send stdin data and EOF\.")
_STREAMING = re.compile(r"Streaming results for work unit (.+)")
_ERROR = "ERROR:"


class LineBuffer:
    r"""Cuts a byte stream into lines and keeps what follows a line for whoever reads next.

    >>> lines = LineBuffer()
    >>> lines.feed(b"Receptor Control, node a\n{")
    >>> lines.next_line(), lines.next_line()
    ('Receptor Control, node a', None)
    """

    def __init__(self) -> None:
        self._data = bytearray()
        self._searched = 0
        self._ended = False

    def feed(self, data: bytes) -> None:
        """Take bytes as they came; empty bytes mean the end of the stream."""
        if data:
            self._data += data
        else:
            self._ended = True

    def next_line(self, max_bytes: int = MAX_LINE_BYTES) -> str | None:
        """Return the next line without its newline and surrounding white space, or None if more bytes are needed.

        Raises ControlProtocolError for a line over ``max_bytes``, DisconnectedError at the end of the stream.
        """
        end = self._data.find(b"\n", self._searched)
        if end > max_bytes or (end < 0 and len(self._data) > max_bytes):
            raise ControlProtocolError(f"the other side sent a line longer than {max_bytes} bytes", hint=_NOT_RECEPTOR)
        if end >= 0:
            line = bytes(self._data[:end])
            del self._data[: end + 1]
            self._searched = 0
            return line.decode("utf-8", "replace").strip()
        self._searched = len(self._data)
        if self._ended:
            raise DisconnectedError(
                "the daemon closed the connection before it answered", hint="see the daemon's log for the reason"
            )
        return None

    def put_back(self, line: str) -> None:
        """Make ``line`` the next one."""
        self._data[:0] = line.encode() + b"\n"
        self._searched = 0

    def holds_more(self) -> bool:
        """Return whether something has arrived after the last line."""
        return bool(self._data)

    def take_rest(self) -> bytes:
        """Return and forget what has arrived after the last line."""
        rest = bytes(self._data)
        self._data.clear()
        self._searched = 0
        return rest


_MAX_SHOWN = 60  # characters of what cannot be sent
_NOT_RECEPTOR = "the address must be that of a control-service in the configuration of a Receptor daemon"


def request_line(text: str) -> bytes:
    """Return the bytes of a request. A newline inside would smuggle in a second request: ValueError."""
    text = text.rstrip("\r\n")
    if "\n" in text:
        raise ValueError("a request is one line and cannot contain a newline")
    return as_given(text) + b"\n"


def as_given(text: str) -> bytes:
    r"""Return ``text`` in UTF-8, and what was no text in arguments or the environment as the bytes that it was.

    >>> as_given("caf\u00e9"), as_given("\udcff")
    (b'caf\xc3\xa9', b'\xff')
    """
    return text.encode("utf-8", "surrogateescape")


def object_line(request: Mapping[str, object]) -> bytes:
    """Return a request in its JSON form, which has no room for bytes that are no text: ValueError."""
    return request_line(json.dumps({_proper(key): _proper(value) for key, value in request.items()}))


def _proper(value: object) -> object:
    if not isinstance(value, str) or value.isascii():
        return value
    try:
        return as_given(value).decode("utf-8")  # Of arguments that were read in a locale which knows less.
    except UnicodeError:
        shown = value if len(value) <= _MAX_SHOWN else value[:_MAX_SHOWN] + "..."
        raise ValueError(f"{shown!r} is not UTF-8 text and cannot be part of a request: send it as payload") from None


def words_line(*words: str) -> bytes:
    r"""Return a text request of words, each of which must be usable as a word: no blank, no newline.

    >>> words_line("work", "cancel", "LWJm6jtg")
    b'work cancel LWJm6jtg\n'
    """
    for word in words:
        if not word or any(c in word for c in " \n\r"):
            raise ValueError(f"{word!r} cannot be used in a request: it is empty or contains a blank or a newline")
    return request_line(" ".join(words))


def connect_line(node: str, service: str, tls_client: str = "") -> bytes:
    """Return the request that turns the connection into a pipe to ``service`` of ``node``.

    Without a TLS client the line ends in a blank, as clients have always sent it.
    """
    words_line(node, service, *([tls_client] if tls_client else []))
    return request_line(f"connect {node} {service} {tls_client}")


def submit_line(
    worktype: str,
    node: str | None = None,
    tls_client: str | None = None,
    ttl: str | None = None,
    sign: bool = False,
    params: Mapping[str, str] | None = None,
) -> bytes:
    """Return the JSON request that creates a work unit. ``ttl`` is a Go duration such as ``1h20m30s``."""
    request: dict[str, str] = {
        "command": "work",
        "subcommand": "submit",
        "node": node or "localhost",
        "worktype": worktype,
    }
    if tls_client:
        request["tlsclient"] = tls_client
    if ttl:
        request["ttl"] = ttl
    if sign:
        request["signwork"] = "true"
    for key, value in (params or {}).items():
        if key in request:
            raise ValueError(f"Duplicate or illegal parameter {key}")
        request[key] = value
    return object_line(request)


def parse_greeting(line: str) -> str:
    """Return the node ID of a greeting line."""
    match = _GREETING.fullmatch(line)
    if match is None:
        raise ControlProtocolError(
            f"this is not a Receptor control service, it greets with {_shown(line)}", hint=_NOT_RECEPTOR
        )
    return match[1]


def parse_reply(line: str) -> dict[str, Any]:  # Any: the values of a JSON object
    """Return the JSON object of a reply line; raises RefusedError for an ``ERROR:`` line."""
    if line.startswith(_ERROR):
        raise refusal(error_text(line))
    try:
        reply = json.loads(line)
    except (ValueError, RecursionError):
        raise ControlProtocolError(f"the daemon answered with something that is not JSON: {_shown(line)}") from None
    if not isinstance(reply, dict):
        raise ControlProtocolError(f"the daemon answered with something that is not a JSON object: {_shown(line)}")
    return reply


def parse_connecting(line: str) -> None:
    """Check the answer to ``connect``."""
    if not line.startswith("Connecting"):
        _refused_or_odd(line, "")


def parse_created(line: str) -> str:
    """Return the unit ID of the answer to ``work submit``, after which the payload is due."""
    match = _CREATED.fullmatch(line)
    if match is None:
        _refused_or_odd(line, "Failed to start work unit: ")
    return match[1]


def parse_started(line: str) -> dict[str, Any]:
    """Return the answer to the payload, with the strings ``result`` and ``unitid``."""
    if line.startswith(_ERROR):
        raise refusal(error_text(line), prefix="Remote error: ERROR: ")
    reply = parse_reply(line)
    if not isinstance(reply.get("result"), str) or not isinstance(reply.get("unitid"), str):
        raise ControlProtocolError(f"the answer to the payload lacks result or unitid: {_shown(line)}")
    return reply


def parse_streaming(line: str) -> str:
    """Return the unit ID of the answer to ``work results``, after which raw output follows."""
    match = _STREAMING.fullmatch(line)
    if match is None:
        _refused_or_odd(line, "Failed to get results: ")
    return match[1]


def error_text(line: str) -> str:
    """Return what an ``ERROR:`` line says."""
    return line[7:]


def _refused_or_odd(line: str, prefix: str) -> NoReturn:
    if line.startswith(_ERROR):
        raise refusal(error_text(line), prefix=prefix)
    raise ControlProtocolError(f"{prefix}unexpected answer {_shown(line)}")


def _shown(line: str) -> str:
    return repr(line if len(line) <= 120 else line[:117] + "...")
