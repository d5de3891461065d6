"""completion: the script that makes a shell complete receptorctl, and what is completed from the mesh."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import click
from click.shell_completion import CompletionItem, get_completion_class

from receptor.cli import _show
from receptor.cli._root import COMPLETE_VARIABLE, Failure, Session, cli

_SHELLS = ("bash", "zsh", "fish")
_PATIENCE_S = 1.0  # somebody waits with a finger on the key


@cli.command(
    help="Print the script that makes a shell complete commands, options, nodes, units and work types.",
    example="receptorctl completion bash > /etc/bash_completion.d/receptorctl",
)
@click.argument("shell", type=click.Choice(_SHELLS))
def completion(shell: str) -> None:
    """Print a completion script."""
    kind = get_completion_class(shell)
    if kind is None:
        raise Failure(f"this version of click has no completion for {shell}")
    script = kind(cli, {}, "receptorctl", COMPLETE_VARIABLE)
    _show.out(script.source_template % script.source_vars(), ours=True)


def nodes(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the name of a node."""
    return _items(ctx, incomplete, lambda status: status.get("KnownConnectionCosts") or {})


def worktypes(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete a work type."""
    return _items(ctx, incomplete, lambda status: sorted(set(_offers(status, ctx.params.get("node")))))


def services(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete a service of the node that was named."""
    node = ctx.params.get("node")
    return _items(
        ctx,
        incomplete,
        lambda status: sorted(
            {ad["Service"] for ad in status.get("Advertisements") or () if node in (None, ad["NodeID"])}
        ),
    )


def units(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the ID of a unit; its state and type stand beside it where the shell shows that."""
    from receptor.cli._units import state, worktype

    found = _ask(ctx, "work list")
    return [
        CompletionItem(unit, help=f"{state(status)} {worktype(status)}")
        for unit, status in found.items()
        if unit.startswith(incomplete)
    ]


def _offers(status: dict[str, Any], node: object) -> Iterable[str]:  # Any: JSON values
    for ad in status.get("Advertisements") or ():
        if node in (None, "", "localhost", ad["NodeID"]):
            yield from (offer["WorkType"] for offer in ad.get("WorkCommands") or ())


def _items(
    ctx: click.Context, incomplete: str, names: Callable[[dict[str, Any]], Iterable[str]]
) -> list[CompletionItem]:
    return [CompletionItem(name) for name in names(_ask(ctx, "status")) if name.startswith(incomplete)]


def _ask(ctx: click.Context, command: str) -> dict[str, Any]:
    """Return a reply of the daemon, empty if there is none soon: completion must not complain."""
    session = Session.from_options(ctx.find_root().params)
    try:
        return session.client_within(_PATIENCE_S).command(command, timeout_s=_PATIENCE_S)
    except Exception:
        return {}
    finally:
        session.close()
