"""What goes to stdout and stderr, and how."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from typing import Any

import click

# Names and texts come from other nodes: their control characters must not reach the terminal.
_UNPRINTABLE = {code: f"\\x{code:02x}" for code in (*range(32), *range(0x7F, 0xA0)) if code not in (9, 10)}


def out(text: str = "") -> None:
    """Print a line that was asked for."""
    click.echo(text.translate(_UNPRINTABLE))


def document(value: Mapping[str, Any]) -> None:  # Any: JSON values
    """Print a JSON document."""
    click.echo(json.dumps(value, indent=4, sort_keys=True))


def error(text: str) -> None:
    """Print an error on stderr, red on a terminal."""
    _to_stderr(f"ERROR: {text}", "red")


def warning(text: str) -> None:
    """Print a warning on stderr, magenta on a terminal."""
    _to_stderr(f"Warning: {text}", "magenta")


def hint(text: str, *, always: bool = False) -> None:
    """Say on stderr what to try next.

    Scripts compare stderr with texts they have known for years, so a pipe gets no more than those, unless ``always``.
    """
    if text and (always or sys.stderr.isatty()):
        _to_stderr(f"hint: {text}", None)


def _to_stderr(text: str, color: str | None) -> None:
    plain = text.translate(_UNPRINTABLE)
    click.echo(plain if color is None or os.environ.get("NO_COLOR") else click.style(plain, fg=color), err=True)
