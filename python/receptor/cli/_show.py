"""What goes to stdout and stderr, and how."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import click

# Names and texts come from other nodes: their control characters must not reach the terminal.
_UNPRINTABLE = {code: f"\\x{code:02x}" for code in (*range(32), *range(0x7F, 0xA0)) if code not in (9, 10)}


def out(text: str = "", *, ours: bool = False) -> None:
    """Print a line that was asked for. ours: it has escapes that we put there, and nothing of other nodes unescaped."""
    click.echo(text if ours else text.translate(_UNPRINTABLE))


def clean(text: str) -> str:
    """Return text of other nodes so that a terminal shows it and does nothing else."""
    return text.translate(_UNPRINTABLE).replace("\n", " ")


FORM = "receptor.cli.form"  # where the options that choose a form leave their choice


def form(default: str = "table") -> str:
    """Return how to print: ``table``, ``json`` or ``yaml``."""
    return str(click.get_current_context().meta.get(FORM) or default)


def document(value: object, default: str = "json") -> None:
    """Print data as JSON, or as YAML if that was asked for."""
    if form(default) == "yaml":
        click.echo(_yaml(value), nl=False)
    else:
        click.echo(json.dumps(value, indent=4, sort_keys=True))


def line(value: object) -> None:
    """Print one of many objects: a line of JSON, or a document of a YAML stream."""
    if form("json") == "yaml":
        click.echo("---\n" + _yaml(value), nl=False)
    else:
        click.echo(json.dumps(value, sort_keys=True))


def _yaml(value: object) -> str:
    try:
        import yaml
    except ImportError:
        raise click.ClickException(
            "--output yaml needs PyYAML, which is not installed; install it with: pip install PyYAML"
        ) from None
    return yaml.safe_dump(value, allow_unicode=True, sort_keys=True)


def table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Return lines of columns that are as wide as their widest cell; numbers to the right.

    >>> table(("Node", "Cost"), [("edge-7", 1.5)])
    ['Node   Cost', 'edge-7  1.5']
    """
    shown = [headers, *([_cell(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    right = [n for n, header in enumerate(headers) if header in ("Size", "Cost", "Hops", "Age")]
    return [
        " ".join(
            f"{cell:>{width}}" if n in right else f"{cell:<{width}}"
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in shown
    ]


def _cell(value: object) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, float):
        return f"{value:g}"
    return str(value).translate(_UNPRINTABLE).replace("\n", " ")


def size(count: float) -> str:
    """Return bytes in a few characters.

    >>> [size(n) for n in (999, 2048, 5 << 20)]
    ['999 B', '2.0 KiB', '5.0 MiB']
    """
    if count < 1000:
        return f"{count:.0f} B"
    units = ["KiB", "MiB", "GiB", "TiB"]
    count /= 1024
    while count >= 1000 and len(units) > 1:
        count /= 1024
        del units[0]
    return f"{count:.1f} {units[0]}"


def span(seconds: float) -> str:
    """Return a time span in a few characters.

    >>> [span(n) for n in (0.000203, 0.0025, 0.25, 7, 90, 7300, 200000)]
    ['203us', '2.5ms', '250ms', '7s', '1m30s', '2h01m', '2d07h']
    """
    if seconds < 0.001:
        return f"{max(seconds, 0) * 1e6:.0f}us"
    if seconds < 1:
        return f"{seconds * 1000:.{1 if seconds < 0.01 else 0}f}ms"
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02}h"


def styled(text: str, **style: Any) -> str:  # Any: what click.style takes
    """Return text in colour, if stdout is a terminal and NO_COLOR is not set."""
    if os.environ.get("NO_COLOR") or not sys.stdout.isatty():
        return text
    return click.style(text, **style)


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
