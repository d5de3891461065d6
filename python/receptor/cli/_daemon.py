"""links, config and metrics: what the daemon tells of itself, and others than ours do not."""

from __future__ import annotations

from typing import Any

import click

from receptor.cli import _show
from receptor.cli._root import Session, cli, pass_session
from receptor.cli._units import seconds_since

JSON = dict[str, Any]  # Any: JSON values


@cli.command(
    help="Show the node's links, dialers and listeners, and why one has no link.",
    example="receptorctl links",
    data=True,
)
@pass_session
def links(session: Session) -> None:
    """Print links and backends."""
    found = session.client.links()
    if _show.form() != "table":
        _show.document(found.raw)
        return
    rows = [(link.node, link.cost, link.link, _ago(link.heard)) for link in found.links]
    if rows:
        for line in _show.table(("Link", "Cost", "Address", "Heard"), rows):
            _show.out(line)
        _show.out()
    backends = [
        (backend.backend, backend.state, backend.cost, ", ".join(backend.peers), _trouble(raw))
        for backend, raw in zip(found.backends, found.raw.get("backends") or (), strict=True)
    ]
    for line in _show.table(("Backend", "State", "Cost", "Peers", "Last error"), backends):
        _show.out(line)
    firewall: JSON = found.raw.get("firewall") or {}
    rules = [(rule.get("packets"), rule.get("rule")) for rule in firewall.get("rules") or ()]
    if rules:
        _show.out()
        for line in _show.table(("Packets", "Firewall"), [*rules, (firewall.get("default_packets"), "all others")]):
            _show.out(line)


def _ago(heard: Any) -> str:
    return "-" if heard is None else f"{_show.span(heard.total_seconds())} ago"


def _trouble(backend: JSON) -> str:
    error = backend.get("last_error") or {}
    if not error:
        return ""
    age_s = seconds_since(error.get("time"))
    when = "" if age_s is None else f", {_show.span(age_s)} ago"
    retry_s = backend.get("next_try_s")
    again = "" if retry_s is None else f", next try in {_show.span(retry_s)}"
    return f"{error.get('text')} ({error.get('kind')}{when}{again})"


@cli.command(
    help="Show the configuration the daemon runs, secrets hidden.",
    example="receptorctl config --output yaml",
    data=True,
)
@pass_session
def config(session: Session) -> None:
    """Print the directives."""
    reply = session.client.request("config")
    if _show.form() != "table":
        _show.document(reply)
        return
    for directive in reply.get("directives") or ():
        where = f"  # {directive['position']}" if directive.get("position") else ""
        _show.out(f"{directive['directive']}{where}")
        for name, value in sorted((directive.get("parameters") or {}).items()):
            _show.out(f"    {name}: {_plain(value)}")


def _plain(value: object) -> str:
    import json

    return value if isinstance(value, str) and value else json.dumps(value)


@cli.command(
    help="Show the daemon's metrics in the text format of Prometheus, or those whose names begin with NAMES.",
    example="receptorctl metrics receptor_link",
    data=True,
)
@click.argument("names", nargs=-1)
@pass_session
def metrics(session: Session, names: tuple[str, ...]) -> None:
    """Print metrics, all or those whose names begin with one of NAMES."""
    reply = session.client.request("metrics")
    lines = [line for line in str(reply.get("text", "")).splitlines() if not names or _name(line).startswith(names)]
    if _show.form() != "table":
        _show.document({**reply, "text": "".join(f"{line}\n" for line in lines)})
        return
    for line in lines:
        _show.out(line)
    if names and not lines:
        _show.hint("no metric is named like that", always=True)


def _name(line: str) -> str:
    return line.split()[2] if line.startswith("# ") else line
