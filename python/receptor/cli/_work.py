"""The commands about work units, except those that carry payload or output."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import click

from receptor.cli import _show, _units
from receptor.cli._root import Failure, Group, Session, cli, completing, fail_usage, pass_session
from receptor.control import Client, RefusedError

Units = dict[str, dict[str, Any]]  # Any: JSON values; a status by the ID of its unit
MODULES = {"_exec": ("exec",), "_output": ("logs", "results"), "_submit": ("submit",)}


@cli.group(cls=Group, later=MODULES, help="Submit, look at and end units of work.", example="receptorctl work list")
def work() -> None:
    """Group the work commands."""


def _filters(function: Callable[..., Any]) -> Callable[..., Any]:  # Any: click passes options by keyword
    states = click.option(
        "--state",
        "states",
        multiple=True,
        type=click.Choice(_units.STATES, case_sensitive=False),
        help="Only units in this state; may be repeated",
    )
    types = click.option("--type", "types", multiple=True, help="Only units of this work type; may be repeated")
    nodes = click.option("--on", "nodes", multiple=True, help="Only units that run on this node; may be repeated")
    return states(types(nodes(function)))


@work.command("list", help="Show work units and how they stand.", example="receptorctl work list --quiet", data=True)
@click.option("--quiet", "-q", is_flag=True, help="Only print the IDs of the units")
@click.option(
    "--node",
    shell_complete=completing("nodes"),
    help="Node whose units to show; default is this one",
)
@click.option("--unit_id", "--unit-id", "unit", help="Only show this unit")
@click.option("--tls-client", default="", help="TLS client entry of the daemon for the connection to --node")
@_filters
@click.option("--watch", "-w", is_flag=True, help="Show them again after every change, until Ctrl-C")
@pass_session
def list_units(
    session: Session,
    quiet: bool,
    node: str | None,
    unit: str | None,
    tls_client: str,
    states: tuple[str, ...],
    types: tuple[str, ...],
    nodes: tuple[str, ...],
    watch: bool,
) -> None:
    """Print the units of a node."""
    client = session.client_at(node, tls_client)
    wanted = _units.Filter(states, types, nodes)
    if watch:
        from receptor.cli._watch import watch_units

        watch_units(client, wanted, unit, quiet)
        return
    units = wanted.apply(client.command(f"work list {unit}" if unit else "work list"))
    if quiet:
        for name in units:
            _show.out(name)
    elif _show.form("json") == "table":
        for line in _units.table(units, client.node):
            _show.out(line)
    else:
        _show.document(units)


@work.command(
    "status",
    help="Show how units of work stand, or wait until they are complete.",
    example="receptorctl work status --wait LWJm6jtg",
    data=True,
)
@click.argument("unit_ids", nargs=-1, required=True, shell_complete=completing("units"))
@click.option("--wait", is_flag=True, help="Wait until all are complete; exit status 1 if one did not succeed")
@click.option("--timeout", type=float, help="Seconds to wait; then exit status 1")
@pass_session
def unit_status(session: Session, unit_ids: tuple[str, ...], wait: bool, timeout: float | None) -> None:
    """Print the status of units."""
    if timeout is not None and not wait:
        fail_usage("--timeout is for --wait")
    client = session.client
    units: Units = {}
    bad = []
    for unit_id in unit_ids:
        unit = client.work.unit(unit_id)
        if wait:
            result = unit.wait(timeout_s=timeout, check=False)
            units[unit_id] = dict(result.raw)
            if result.state.name != "SUCCEEDED":
                bad.append(f"{unit_id} {units[unit_id].get('StateName', result.state.name)}: {result.detail}")
        else:
            units[unit_id] = dict(unit.status().raw)
    if _show.form() != "table":
        _show.document(units)
    else:
        for number, (unit_id, raw) in enumerate(units.items()):
            for line in [""] * bool(number) + _units.details(unit_id, raw):
                _show.out(line)
    if bad:
        raise Failure("; ".join(bad))


@work.command(help="Stop units of work. Their output stays.", example="receptorctl work cancel LWJm6jtg", data=True)
@click.argument("unit_ids", nargs=-1, shell_complete=completing("units"))
@pass_session
def cancel(session: Session, unit_ids: tuple[str, ...]) -> None:
    """Stop units."""
    _end_units(session.client, "cancel", unit_ids)


@work.command(
    help="Stop units of work and delete their output.",
    example="receptorctl work release --failed --older-than 7d",
    data=True,
)
@click.argument("unit_ids", nargs=-1, shell_complete=completing("units"))
@click.option("--force", is_flag=True, help="Delete here even if the node that runs the unit cannot be told")
@click.option("--all", "everything", is_flag=True, help="Release all units of the node")
@click.option("--failed", is_flag=True, help="Release the units that failed")
@click.option("--older-than", metavar="AGE", help="Release the units that ended so long ago (90s, 45m, 12h, 7d, 1h30m)")
@click.option("--dry-run", is_flag=True, help="Only say which units it would be")
@pass_session
def release(
    session: Session,
    unit_ids: tuple[str, ...],
    force: bool,
    everything: bool,
    failed: bool,
    older_than: str | None,
    dry_run: bool,
) -> None:
    """Delete units."""
    chosen = failed or older_than is not None
    if chosen + everything + bool(unit_ids) > 1:
        fail_usage("unit IDs, --all, and --failed with --older-than exclude each other")
    if everything:
        unit_ids = tuple(session.client.command("work list"))
    elif chosen:
        unit_ids = _chosen(session.client.command("work list"), failed, older_than)
        if not unit_ids:
            _show.hint("no unit is like that", always=True)
            if _show.form() != "table":
                _show.document({"units": [], "error": None})
            return
    if dry_run:
        for unit in unit_ids:
            _show.out(unit)
        return
    _end_units(session.client, "release", unit_ids, force=force)


def _chosen(units: Units, failed: bool, older_than: str | None) -> tuple[str, ...]:
    least_s = None if older_than is None else _span(older_than)
    found, timeless = [], 0
    for unit, status in units.items():
        if failed and status.get("State") != _units.FAILED:
            continue
        if status.get("State") not in _units.COMPLETE:
            continue
        if least_s is not None:
            age_s = _units.seconds_since(status.get("Finished"))
            if age_s is None:
                timeless += 1
                continue
            if age_s < least_s:
                continue
        found.append(unit)
    if timeless:
        _show.warning(f"{timeless} units were left out: the daemon does not tell when they ended")
    return tuple(found)


def _span(text: str) -> float:
    """Return the seconds of a time span such as 7d or 1h30m."""
    units = {"d": 86400, "h": 3600, "m": 60, "s": 1}
    if not re.fullmatch(r"(\d+(\.\d+)?[dhms])+", text):
        raise click.BadParameter(
            f"{text!r} is no time span: write 90s, 45m, 12h, 7d or 1h30m", param_hint="--older-than"
        )
    return sum(float(number) * units[unit] for number, _, unit in re.findall(r"(\d+(\.\d+)?)([dhms])", text))


def _end_units(client: Client, verb: str, units: Iterable[str], *, force: bool = False) -> None:
    units = tuple(units)
    as_data = _show.form() != "table"
    done: list[Mapping[str, str]] = []
    failure = None
    if not units:
        _show.warning("No unit IDs supplied: Not doing anything")
    elif not as_data:
        _show.out("Cancelled:" if verb == "cancel" else "Released:")
    for name in units:
        unit = client.work.unit(name)
        try:
            word = ending_word(verb, unit.cancel() if verb == "cancel" else unit.release(force=force))
        except RefusedError as e:
            failure = Failure(f"{name}: ERROR: {e.text}", hint=e.hint)
            break
        done.append({"unit": name, "result": word})
        if not as_data:
            _show.out(f"({name}, {word})")
    if as_data:
        _show.document({"units": done, "error": failure.message if failure else None})
    if failure is not None:
        raise failure


def ending_word(verb: str, confirmed: bool) -> str:
    """Return what the daemon said: ``released`` or ``release pending``, and the like."""
    done = {"cancel": "cancelled", "release": "released"}
    return done[verb] if confirmed else f"{verb} pending"


__all__ = ["cancel", "ending_word", "list_units", "release", "unit_status", "work"]
