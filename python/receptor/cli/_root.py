"""The command itself: global options, the connection all sub-commands share, and how errors end."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeVar

import click

from receptor._control_socket import choose_tls
from receptor.cli import _show
from receptor.control import Client, ControlClientError, TLSOptions

CONNECT_TIMEOUT_S = 30.0
INTERRUPTED = 130
COMPLETE_VARIABLE = "_RECEPTORCTL_COMPLETE"  # by which the scripts of receptorctl completion ask
_DIST_INFO = re.compile(r"pyreceptor-(.+)\.dist-info")


class Failure(click.ClickException):
    """Ends the command with a text of its own and an exit status. goes_on: what is said also where hints are not."""

    def __init__(self, text: str, status: int = 1, *, hint: str = "", goes_on: str = "") -> None:
        super().__init__(text)
        self.status = status
        self.hint = hint
        self.goes_on = goes_on


class Interrupted(click.ClickException):
    """Ctrl-C, at a moment when there is something to say about what goes on without us."""

    exit_code = INTERRUPTED


class _Ending(click.Command):
    """Gives every command, however it is started, the error texts and exit statuses of receptorctl."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,  # Any: as click has it
    ) -> Any:
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        try:
            result = super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        except Exception as e:
            sys.exit(_end(e))
        except KeyboardInterrupt:
            sys.exit(INTERRUPTED)
        sys.exit(result if isinstance(result, int) else 0)


def _end(e: Exception) -> int:
    """Print what there is to print and return the exit status."""
    if isinstance(e, click.Abort):
        return INTERRUPTED
    if isinstance(e, Interrupted):
        _show.hint(e.message, always=True)
        return e.exit_code
    if isinstance(e, click.UsageError) and type(e).__name__ == "NoArgsIsHelpError":  # new in click 8.2
        click.echo(e.message)
        return 0
    if isinstance(e, BrokenPipeError):
        _forget_stdout()
        return 1
    _show.error(_text_of(e))
    _show.hint(_hint_of(e))
    if not isinstance(e, Failure):
        return 1
    _show.hint(e.goes_on, always=True)
    return e.status


def _text_of(e: Exception) -> str:
    if isinstance(e, OSError) and e.strerror and str(e).startswith("[Errno"):
        about = "" if e.filename is None else f": {e.filename}"
        return f"{e.strerror}{about}"  # without the number, which is for programs
    return str(e) or type(e).__name__


def _hint_of(e: Exception) -> str:
    if isinstance(e, click.UsageError):
        return f"try: {e.ctx.command_path} --help" if e.ctx else ""
    return e.hint if isinstance(e, (Failure, ControlClientError)) else ""


def _forget_stdout() -> None:
    """Keep the interpreter from complaining at exit that the reader of stdout has left."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


class Command(_Ending):
    """A sub-command, with an example at the end of its help.

    data: it prints data, and has the options that choose the form. ``_show.form`` returns the choice.
    """

    def __init__(
        self, *args: Any, example: str = "", data: bool = False, **kwargs: Any
    ) -> None:  # Any: as click has it
        if example:
            kwargs["epilog"] = f"\b\nExample: {example}"
        super().__init__(*args, **kwargs)
        if data:
            self.params += [_JSON, _OUTPUT]


def _choose_form(ctx: click.Context, param: click.Parameter, value: object) -> None:
    if value:
        ctx.meta[_show.FORM] = value if isinstance(value, str) else "json"


_JSON = click.Option(
    ["--json"], is_flag=True, expose_value=False, callback=_choose_form, help="Print as JSON", is_eager=True
)
_OUTPUT = click.Option(
    ["--output"],
    type=click.Choice(["table", "json", "yaml"]),
    expose_value=False,
    callback=_choose_form,
    help="Print in this form",
)


class Group(Command, click.Group):
    """A command with sub-commands. later: modules that define sub-commands, loaded when one is asked for."""

    command_class = Command
    group_class = type

    def __init__(self, *args: Any, later: Mapping[str, Sequence[str]] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._module_of = {name: module for module, names in (later or {}).items() for name in names}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*self.commands, *self._module_of})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.commands and cmd_name in self._module_of:
            importlib.import_module(f"receptor.cli.{self._module_of[cmd_name]}")
        return self.commands.get(cmd_name)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if "--help" in args:
            ctx.meta[_HELP_ONLY] = True
        return super().parse_args(ctx, args)


_HELP_ONLY = "receptor.cli.help_only"
_SOCKET_HINT = "give --socket PATH or set RECEPTORCTL_SOCKET"


@dataclass
class Session:
    """The options that concern the connection, and the client made of them at first use."""

    socket: str | None = None
    config: str | None = None
    tls_client: str | None = None
    rootcas: str | None = None
    key: str | None = None
    cert: str | None = None
    insecureskipverify: bool = False
    _client: Client | None = field(default=None, repr=False)
    _daemon_version: str | None = None

    @classmethod
    def from_options(cls, given: Mapping[str, Any]) -> Session:  # Any: as the global options are declared
        """Return the session of the global options, those that were given."""
        names = ("socket", "config", "tls_client", "rootcas", "key", "cert", "insecureskipverify")
        return cls(**{name: given[name] for name in names if given.get(name) is not None})

    @classmethod
    def from_environment(cls) -> Session:
        """Return the session of a sub-command that is run on its own, without the global options."""
        read = os.environ.get
        return cls(read("RECEPTORCTL_SOCKET"), read("RECEPTORCTL_CONFIG"), read("RECEPTORCTL_TLSCLIENT"))

    @property
    def client(self) -> Client:
        """The client, made when first asked for. Its connection is made by the first request."""
        return self.client_within(CONNECT_TIMEOUT_S)

    def client_within(self, timeout_s: float) -> Client:
        """Return the client; one made now gives a daemon so long to answer a connection."""
        if self._client is None:
            if not self.socket:
                raise Failure("Missing parameter: socket", hint=_SOCKET_HINT)
            self._client = Client(self.socket, tls=self._tls(), timeout_s=timeout_s)
        return self._client

    def client_at(self, node: str | None, tls_client: str = "") -> Client:
        """Return the client, or one of another node's control service that the daemon leads to."""
        if not node:
            return self.client
        far = self.client.at(node, tls_client=tls_client)
        click.get_current_context().call_on_close(far.close)
        return far

    @property
    def daemon_version(self) -> str:
        """The version that the daemon reports."""
        if self._daemon_version is None:
            self._daemon_version = self.client.version(timeout_s=CONNECT_TIMEOUT_S)
        return self._daemon_version

    def close(self) -> None:
        """Close the client's connection."""
        if self._client is not None:
            self._client.close()

    def check_version(self) -> None:
        """Warn if the daemon is of another version than we are."""
        if self.daemon_version != own_version():
            _show.warning("receptorctl and receptor are different versions, they may not be compatible")

    def _tls(self) -> TLSOptions | None:
        given = TLSOptions(self.rootcas, self.key, self.cert, self.insecureskipverify)
        return choose_tls(self.config, self.tls_client, given)


def own_version() -> str:
    """Return the version of this package, or "unknown" where it was not installed.

    Beside an installed package stands a directory that is named for its version. Looking there is a matter of
    microseconds; importing what reads metadata takes longer than all else that a command does.
    """
    home = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    found = [match[1] for name in os.listdir(home) if (match := _DIST_INFO.fullmatch(name))]
    if len(found) == 1:
        return found[0]
    from receptor._version import version

    try:
        return version()
    except ImportError:  # PackageNotFoundError is one
        return "unknown"


def completing(what: str) -> Callable[[click.Context, click.Parameter, str], list[Any]]:  # Any: CompletionItem
    """Return what completes nodes, units, services or worktypes; its module is loaded when a shell asks."""

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
        from receptor.cli import _complete

        found: list[Any] = getattr(_complete, what)(ctx, param, incomplete)
        return found

    return complete


_F = TypeVar("_F", bound=Callable[..., Any])  # Any: click passes options by keyword


def pass_session(function: _F) -> _F:
    """Give a command the session as its first argument."""

    def called(*args: Any, **kwargs: Any) -> Any:
        ctx = click.get_current_context()
        session = ctx.find_object(Session)
        if session is None:
            session = ctx.obj = Session.from_environment()
            ctx.call_on_close(session.close)
        return function(session, *args, **kwargs)

    called.__name__, called.__doc__ = function.__name__, function.__doc__
    return called  # type: ignore[return-value]  # the same less its first argument, which is click's business


MODULES = {
    "_complete": ("completion",),
    "_connect": ("connect",),
    "_daemon": ("config", "links", "metrics"),
    "_doctor": ("doctor",),
    "_events": ("events",),
    "_mesh": ("ping", "reload", "status", "traceroute", "version"),
    "_top": ("top",),
    "_topology": ("path", "topology"),
    "_work": ("work",),
}


@click.group(
    cls=Group,
    later=MODULES,
    help="Talk to a Receptor daemon: look at the mesh, and submit and follow work.",
    example="receptorctl --socket /run/receptor/receptor.sock status",
)
@click.option(
    "--socket",
    envvar="RECEPTORCTL_SOCKET",
    show_envvar=True,
    help="Control socket: PATH, tcp://HOST:PORT or tls://HOST:PORT.",
)
@click.option(
    "--config",
    "-c",
    envvar="RECEPTORCTL_CONFIG",
    show_envvar=True,
    help="Daemon configuration with the TLS client entry.",
)
@click.option(
    "--tls-client", envvar="RECEPTORCTL_TLSCLIENT", show_envvar=True, help="Name of the TLS client entry in the file."
)
@click.option("--rootcas", help="File of CA certificates to trust, instead of the system's.")
@click.option("--key", help="File of the client's private key.")
@click.option("--cert", help="File of the client's certificate.")
@click.option("--insecureskipverify", type=bool, default=False, help="Accept a certificate for another host name.")
@click.pass_context
def cli(ctx: click.Context, /, **options: Any) -> None:  # Any: as declared above
    """Receive the global options."""
    session = ctx.obj = Session(**options)
    ctx.call_on_close(session.close)
    if session.socket and _HELP_ONLY not in ctx.meta:
        session.check_version()


def run() -> NoReturn:
    """Be the command ``receptorctl``; the entry point of the console script."""
    _open_closed()
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # a locale without "µ" gets an escape, not a traceback
    cli.main(complete_var=COMPLETE_VARIABLE)
    raise AssertionError("unreachable: main exits")


def _open_closed() -> None:
    """Have what is closed of stdin, stdout and stderr be the null device, so that no socket is taken for one of them.

    ``sys.stdin`` stays None: who wants its input is told that there is none.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest that is free
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False)


def fail_usage(text: str) -> NoReturn:
    """End with a usage error of the current command."""
    raise click.UsageError(text, ctx=click.get_current_context(silent=True))


__all__ = [
    "Command",
    "Failure",
    "Group",
    "Interrupted",
    "Session",
    "cli",
    "fail_usage",
    "own_version",
    "pass_session",
    "run",
]
