"""doctor: why can this node not reach that one? Everything on the way is looked at, and each trouble has a remedy."""

from __future__ import annotations

import difflib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import click

from receptor.cli import _show
from receptor.cli._remedies import (
    NO_ROUTE,
    REFUSAL_REMEDIES,
    backend_remedy,
    certificate_trouble,
    connect_remedy,
    edge_trouble,
)
from receptor.cli._root import Failure, Session, cli, completing, own_version, pass_session
from receptor.cli._units import seconds_since
from receptor.control import Backend, Client, ControlClientError, Links, NotOfferedError, RefusedError, Topology

OK, WARNING, FAILED, SKIPPED = "ok", "warning", "failed", "skipped"
_BEFORE_A_LINK = ("refused", "unreachable", "name", "timeout")  # Kinds of trouble that a standing link has overcome.
_RECENT_S = 120.0  # older failures of a listener that works are history
_SKEW_S = 2.0  # less does no harm to certificates and signatures, and networks make up as much

_CLOCKS = (
    "let both machines take the time from the network (chrony, systemd-timesyncd): certificates and signatures fail"
)


@dataclass(frozen=True)
class Check:
    """One thing looked at: what it is, how it is, and what to do about it."""

    check: str
    result: str
    text: str
    remedy: str = ""


@cli.command(
    help="Find out why a node cannot be reached: every link, cost, certificate, clock, firewall, service and work type "
    "on the way is checked, and for each trouble there is a remedy. Without NODE only the node itself is looked at.",
    example="receptorctl doctor edge-7 --worktype backup",
    data=True,
)
@click.argument("node", required=False, shell_complete=completing("nodes"))
@click.option("--service", default="control", show_default=True, help="Service of the node that is to be reached")
@click.option("--worktype", help="Work type that is to run there")
@click.option(
    "--tls-client", default="", help="TLS client entry of the daemon to use for the connection to the service"
)
@click.option("--timeout", default=10.0, show_default=True, help="Seconds to wait for each answer of the other node")
@pass_session
def doctor(
    session: Session, node: str | None, service: str, worktype: str | None, tls_client: str, timeout: float
) -> None:
    """Check, print, and fail if a check did."""
    patient = _Patient(session.client, node, service, worktype, tls_client, timeout)
    done: list[Check] = []
    for check in _until_it_ends(patient.examine()):
        done.append(check)
        if _show.form() == "table":
            _print(check)
    failed = [check for check in done if check.result == FAILED]
    if _show.form() != "table":
        checks = [vars(check) for check in done]
        _show.document({"from": session.client.node, "to": node, "ok": not failed, "checks": checks})
    if failed:
        raise Failure(f"{len(failed)} of {len(done)} checks failed")


def _until_it_ends(checks: Iterator[Check]) -> Iterator[Check]:
    """Yield the checks, and as the last one what went wrong with the examination itself."""
    known = False
    try:
        for check in checks:
            known = True
            yield check
    except ControlClientError as e:
        if not known:
            raise  # the daemon itself cannot be reached, and the error says why
        yield Check("examination", FAILED, str(e), e.hint or "see the log of the daemon, and try again")


def _print(check: Check) -> None:
    colour = {OK: "green", WARNING: "yellow", FAILED: "red"}.get(check.result, "")
    word = f"{check.result:<8}"
    _show.out(
        f"{_show.styled(word, fg=colour) if colour else word} {check.check}: {_show.clean(check.text)}", ours=True
    )
    if check.remedy:
        _show.out(f"         -> {check.remedy}")


class _Patient:
    """The node we are connected to, and the one it is to reach."""

    def __init__(
        self, client: Client, node: str | None, service: str, worktype: str | None, tls_client: str, timeout_s: float
    ) -> None:
        self._client = client
        self._node = node
        self._service = service
        self._worktype = worktype
        self._tls_client = tls_client
        self._timeout_s = timeout_s
        self._links: Links | None = None
        self._far: Client | None = None

    def examine(self) -> Iterator[Check]:
        """Yield the checks in an order in which the first failure is the most likely cause."""
        yield self._daemon()
        mesh = self._client.topology()
        yield from self._own_links(mesh)
        yield from self._certificates()
        if self._node is None:
            yield from self._all_costs(mesh)
            return
        if self._node.lower() == "localhost":
            self._node = mesh.node
        yield from self._route(mesh, self._node)
        reached = True
        for check in self._probe(self._node):
            reached = reached and check.result != FAILED
            yield check
        if reached and any(known.node == self._node for known in mesh.nodes):
            yield self._advertised(mesh, self._node)
        if reached:
            try:
                yield from self._reach(self._node)
            finally:
                if self._far is not None:
                    self._far.close()
        else:
            yield Check("connection", SKIPPED, f"{self._node} does not answer")
        if self._worktype is not None:
            yield from self._work(mesh, self._node, self._worktype)

    def _daemon(self) -> Check:
        about = self._client.about()
        text = f"node {about.node} runs {about.implementation or 'Receptor'} {about.version}".rstrip()
        if about.clock_skew is not None and abs(about.clock_skew.total_seconds()) > _SKEW_S:
            skew = _show.span(abs(about.clock_skew.total_seconds()))
            return Check("daemon", WARNING, f"{text}; its clock is {skew} away from that of this machine", _CLOCKS)
        if about.implementation and about.version != own_version():
            return Check("daemon", OK, f"{text}, this client is {own_version()}")
        return Check("daemon", OK, text)

    def _own_links(self, mesh: Topology) -> Iterator[Check]:
        try:
            self._links = self._client.links()
        except NotOfferedError:
            count = sum(mesh.node in (edge.a, edge.b) for edge in mesh.edges)
            result = OK if count or self._node in (None, mesh.node) else FAILED
            text = f"{mesh.node} has {count} links; it does not tell why others failed"
            yield Check("links", result, text, "" if result == OK else "look into the log of its daemon")
            return
        for link in self._links.links:
            quiet = link.heard is not None and link.heard.total_seconds() > 15
            heard = "" if link.heard is None else f", heard {_show.span(link.heard.total_seconds())} ago"
            text = f"{link.node} over {link.link}, cost {link.cost:g}{heard}"
            yield Check(
                "link", WARNING if quiet else OK, text, "nothing came lately: is that node busy?" if quiet else ""
            )
        alone = not self._links.links and self._node not in (None, mesh.node)
        if not self._links.backends and not self._links.links:
            remedy = "give it a tcp-peer or a tcp-listener" if alone else ""
            yield Check("link", FAILED if alone else OK, f"{mesh.node} has no links and none configured", remedy)
        reachable = {known.node for known in mesh.nodes if known.reachable}
        for backend, raw in zip(self._links.backends, self._links.raw.get("backends") or (), strict=True):
            yield from self._backend(backend, raw.get("last_error") or {}, alone, self._node in reachable)

    def _backend(self, backend: Backend, error: Mapping[str, Any], alone: bool, reached: bool) -> Iterator[Check]:
        """A dialer or listener. Its trouble is a failure if it can be why the node is not reached."""
        listener = backend.kind == "listener"
        if not backend.error:
            if listener and not backend.peers:
                yield Check("backend", WARNING if alone else OK, f"{backend.backend} listens, nobody is connected")
            return
        age_s = seconds_since(error.get("time"))
        if (listener or backend.peers) and (age_s is None or age_s > _RECENT_S):
            return
        if backend.error_kind == "already linked" and (not listener or self._dials(error.get("peer"))):
            yield Check("backend", OK, f"{backend.backend} ({backend.state}): {error.get('peer')} is linked already")
            return
        if backend.peers and not listener and backend.error_kind in _BEFORE_A_LINK:
            ago = "" if age_s is None else f", {_show.span(age_s)} ago"
            yield Check("backend", OK, f"{backend.backend} is up; before that{ago}: {backend.error}")
            return
        about_it = self._node is not None and error.get("peer") == self._node
        cause = about_it or (not backend.peers and (alone or (self._node is None and not listener)))
        text = f"{backend.backend} ({backend.state}): {backend.error}"
        remedy = backend_remedy(backend.error_kind, backend.error or "")
        yield Check("backend", FAILED if cause and not reached else WARNING, text, remedy)

    def _dials(self, peer: str | None) -> bool:
        """The link to ``peer`` was made by this node, so one that the peer makes as well is spare."""
        backends = self._links.backends if self._links else ()
        return any(peer in backend.peers for backend in backends if backend.kind == "dialer")

    def _certificates(self) -> Iterator[Check]:
        if self._links is None:
            return
        for profile in self._links.raw.get("tls") or ():
            name = f"TLS {'server' if profile.get('server') else 'client'} {profile.get('name')}"
            trouble, remedy = certificate_trouble(profile, time.time())
            yield Check(
                "certificate",
                FAILED if "expired" in trouble else WARNING if trouble else OK,
                f"{name}: {trouble or 'valid'}",
                remedy,
            )

    def _all_costs(self, mesh: Topology) -> Iterator[Check]:
        bad = [edge for edge in mesh.edges if edge.state != "ok"]
        for edge in bad:
            yield Check("cost", WARNING, *edge_trouble(edge))
        if mesh.edges and not bad:
            yield Check("cost", OK, f"both ends of each link of the mesh agree ({len(mesh.edges)})")

    def _route(self, mesh: Topology, node: str) -> Iterator[Check]:
        nodes = {known.node: known for known in mesh.nodes}
        if node not in nodes:
            near = difflib.get_close_matches(node, nodes, 3)
            meant = f"; did you mean {' or '.join(near)}?" if near else ""
            yield Check("route", FAILED, f"{mesh.node} has never heard of {node}{meant}", NO_ROUTE)
        elif nodes[node].reachable:
            target = nodes[node]
            via = f" via {target.via}" if target.via else ""
            cost = "" if target.cost is None else f", cost {target.cost:g}, {target.hops} hop{'s' * (target.hops != 1)}"
            yield Check("route", OK, f"{mesh.node} has a route to {node}{via}{cost}")
        else:
            heard = nodes[node].heard
            ago = "" if heard is None else f"; it was heard {_show.span(heard.total_seconds())} ago"
            yield Check("route", FAILED, f"{node} is known, and no path leads there{ago}", NO_ROUTE)
        yield from self._border(mesh, node)

    def _border(self, mesh: Topology, node: str) -> Iterator[Check]:
        """The links that would lead on, were there nothing wrong with them."""
        inside = {known.node for known in mesh.nodes if known.reachable}
        for edge in mesh.edges:
            if edge.state != "ok" and ((edge.a in inside) != (edge.b in inside) or node in (edge.a, edge.b)):
                result = WARNING if node in inside else FAILED
                yield Check("cost" if edge.state == "costs differ" else "link", result, *edge_trouble(edge))

    def _probe(self, node: str) -> Iterator[Check]:
        try:
            pong = self._client.ping(node, timeout_s=15)
        except RefusedError as e:
            text, remedy = e.text, REFUSAL_REMEDIES.get(e.code, "")
            yield Check("firewall" if e.code == "firewall" else "ping", FAILED, f"{node}: {text}", remedy)
            yield from self._where(node)
        else:
            yield Check("ping", OK, f"{pong.from_node} answers in {_show.span(pong.rtt.total_seconds())}")
            yield from self._dropped()

    def _where(self, node: str) -> Iterator[Check]:
        hops = self._client.traceroute(node, timeout_s=self._timeout_s * 3)
        passed = [hop.from_node for hop in hops if hop.error is None]
        if hops and hops[-1].error is not None and passed and passed[-1] != self._client.node:
            text = f"probes get as far as {passed[-1]}, then: {hops[-1].error}"
            yield Check("path", FAILED, text, f"look at that place: receptorctl doctor {node}, run on {passed[-1]}")

    def _dropped(self) -> Iterator[Check]:
        firewall = (self._links.raw.get("firewall") if self._links else None) or {}
        for rule in firewall.get("rules") or ():
            if rule.get("packets") and not str(rule.get("rule", "")).startswith("action: accept"):
                text = f"rule {rule.get('rule')} of {self._client.node} has met {rule['packets']} packets"
                yield Check("firewall", WARNING, text, "compare it with the nodes and services you use")

    def _advertised(self, mesh: Topology, node: str) -> Check:
        found = [service for service in mesh.services if service.node == node]
        names = sorted({service.service for service in found})
        for service in found:
            if service.service == self._service:
                secure = service.connection == "stream-tls"
                if secure and not self._tls_client:
                    text = f"{self._service} of {node} wants TLS, and no TLS client was named"
                    return Check("service", WARNING, text, "use --tls-client NAME, a tls-client of this daemon")
                return Check("service", OK, f"{node} advertises {self._service} ({service.connection})")
        offered = (
            f"{node} advertises {', '.join(names)}, not {self._service}" if names else f"{node} advertises nothing"
        )
        remedy = (
            f"is {self._service} in its configuration? Not all services are advertised, and those are once a minute"
        )
        return Check("service", WARNING, offered, remedy)

    def _reach(self, node: str) -> Iterator[Check]:
        if node == self._client.node:
            return
        if self._service != "control":
            yield self._connects(node)
            return
        try:
            self._far = far = self._client.at(node, tls_client=self._tls_client)
            about = far.about(timeout_s=self._timeout_s)
        except ControlClientError as e:
            yield Check("connection", FAILED, f"control service of {node}: {e}", connect_remedy(str(e), e.code))
            return
        yield Check(
            "connection", OK, f"{node} answers as {about.implementation or 'Receptor'} {about.version}".rstrip()
        )
        if about.clock_skew is not None:
            here = self._client.about().clock_skew
            skew_s = abs((about.clock_skew - here).total_seconds()) if here is not None else 0
            text = f"those of {self._client.node} and {node} are {_show.span(skew_s)} apart"
            yield Check(
                "clocks",
                FAILED if skew_s > 60 else WARNING if skew_s > _SKEW_S else OK,
                text,
                _CLOCKS if skew_s > _SKEW_S else "",
            )
        yield self._back(far, node)

    def _connects(self, node: str) -> Check:
        try:
            self._client.connect(
                node, self._service, tls_client=self._tls_client, timeout_s=self._timeout_s + 35
            ).close()
        except ControlClientError as e:
            return Check("connection", FAILED, f"{self._service} of {node}: {e}", connect_remedy(str(e), e.code))
        return Check("connection", OK, f"{self._service} of {node} accepts connections")

    def _back(self, far: Client, node: str) -> Check:
        try:
            far.ping(self._client.node, timeout_s=15)
        except RefusedError as e:
            remedy = REFUSAL_REMEDIES.get(e.code, "")
            return Check("way back", FAILED, f"{node} does not reach {self._client.node}: {e.text}", remedy)
        return Check("way back", OK, f"{node} reaches {self._client.node}")

    def _work(self, mesh: Topology, node: str, worktype: str) -> Iterator[Check]:
        offers: dict[str, bool] = {}
        for service in mesh.services:
            if service.node == node:
                offers |= service.work
        if worktype not in offers:
            known = ", ".join(sorted(offers)) or "none"
            others = sorted({service.node for service in mesh.services if worktype in service.work})
            elsewhere = f"; {', '.join(others)} does" if others else ""
            remedy = f"add a work-command with worktype {worktype} to the configuration of {node}, or name another node"
            yield Check("work type", FAILED, f"{node} offers {known}, not {worktype}{elsewhere}", remedy)
            return
        yield Check("work type", OK, f"{node} offers {worktype}")
        if not offers[worktype]:
            yield Check("signature", OK, f"{worktype} wants none")
            return
        yield self._signing(worktype)

    def _signing(self, worktype: str) -> Check:
        remedy = f"give {self._client.node} a work-signing with the private key, and submit with --signwork"
        try:
            directives = {directive["directive"] for directive in self._client.config()}
        except (NotOfferedError, RefusedError):
            return Check(
                "signature", WARNING, f"{worktype} wants signed work; whether this daemon can sign is not told", remedy
            )
        if "work-signing" in directives:
            return Check(
                "signature", OK, f"{worktype} wants signed work, and this daemon can sign: submit with --signwork"
            )
        return Check(
            "signature", FAILED, f"{worktype} wants signed work, and this daemon has no key to sign with", remedy
        )
