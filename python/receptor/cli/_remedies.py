"""What helps against what: for each kind of trouble that a node or an edge can have, one line of advice."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from receptor.cli import _show
from receptor.control import TopologyEdge

_SOON_S = 14 * 86400

NO_ROUTE = "is its daemon running, and does one of its links lead to this mesh? Run receptorctl doctor on that node too"

# By the kind of a backend's last error (the control command links).
BACKEND_REMEDIES = {
    "refused": "nobody listens there: is the daemon on that machine up, with a listener on that port?",
    "unreachable": "the machine cannot be reached: check the address, the network and the machine's own firewall",
    "name": "the host name is not known: check its spelling, or DNS on this machine",
    "timeout": "no answer: a firewall between the two machines drops packets to that port, or the address is wrong",
    "tls": "compare tls-client here with tls-server there: CA, expiry, and the host name or node ID in the certificate",
    "rejected": "receptorctl links, run on the node that refused, says why; often the two ends have different costs",
    "cost": "set the same cost for this link in both configurations",
    "not allowed": "add the ID of the refused node to allowedpeers of the end that refuses, or take the list away",
    "own id": "two nodes have one name: give each its own node id",
    "already linked": "the two are linked by another entry, which can stay alone; or two nodes have one name",
    "silent": "nothing came over the link any more: look at the network, and at the load of the other node",
    "closed": "the other node closed the link: it was stopped, or its log says why",
}

# By what the text of a failed TLS handshake has in it, the first that fits.
_TLS_REMEDIES = (
    (
        ("expired or is not yet valid", "certificate has expired", "expired certificate"),
        "put a new certificate in the place of the expired one, or set the clock that is wrong",
    ),
    (
        ("doesn't contain any IP SANs", "is valid for", "is not valid for any names", "certificate is for"),
        "dial the node by a name of its certificate, or give it one with the name (or IP address) that is dialled",
    ),
    (
        ("unknown authority", "unknown certificate authority"),
        "the end that refuses must trust the CA of the other: rootcas of tls-client, clientcas of tls-server",
    ),
    (
        ("first record does not look like a TLS handshake", "server gave HTTP response"),
        "one of the two ends has no TLS: give both a TLS profile, or neither",
    ),
    (
        ("certificate required", "didn't provide a certificate", "certificate missing"),
        "the listener wants a certificate: give the tls-client cert and key",
    ),
    (("pinned fingerprint",), "another certificate than the pinned one is in use: pin its fingerprint"),
    (("remote error",), "the other end ended the handshake: receptorctl doctor, run there, says why"),
)

# By the code of a refusal.
REFUSAL_REMEDIES = {
    "no_route": NO_ROUTE,
    "timeout": "no answer: a firewall rule with the action drop on the way, a node that hangs, or a link that is dead",
    "service_unknown": "the node is there and that service is not: see its configuration",
    "expired": "the packet went in a circle or over more than 30 hops: routes have just changed, try again",
    "firewall": "a firewallrules entry on the way rejects it: see the rules of the nodes on receptorctl path NODE",
}


def edge_trouble(edge: TopologyEdge) -> tuple[str, str]:
    """Return what is wrong with a link, and what helps."""
    a, b = _show.clean(edge.a), _show.clean(edge.b)
    if edge.state == "costs differ":
        return (
            f"{a} says the link to {b} costs {edge.cost_ab:g}, {b} says {edge.cost_ba:g}: it is not used",
            BACKEND_REMEDIES["cost"],
        )
    teller, other = (a, b) if edge.cost_ab is not None else (b, a)
    if edge.state == "one-sided":
        text = f"{teller} says that it is linked to {other}, and {other} does not"
        return text, "the link is just being made or lost; if it stays so, look at the log of both"
    return (
        f"{teller} says that it is linked to {other}, which was never heard",
        f"is {other} older or behind a firewall?",
    )


def certificate_trouble(profile: Mapping[str, Any], now: float) -> tuple[str, str]:  # Any: JSON values
    """Return what is wrong with a TLS profile, "" if nothing, and what helps."""
    if profile.get("error"):
        return f"changed files are not used: {profile['error']}", "mend the files; they are read again when they change"
    if isinstance(expiry := profile.get("expiry"), str):
        left_s = datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", expiry)).timestamp() - now
        if left_s < 0:
            return f"the certificate expired {_show.span(-left_s)} ago", "put a new certificate in its place"
        if left_s < _SOON_S:
            return f"the certificate expires in {_show.span(left_s)}", "put a new certificate in its place soon"
    refused = profile.get("refused")
    if refused and profile.get("server"):
        text = f"{refused} handshakes were refused"
        return text, "who dials has no certificate of the right CA, or one without its node ID; see the daemon's log"
    if refused:
        text = f"the certificates of servers were refused {refused} times"
        return text, "the backend, or the connection to a service, that failed says which and why"
    return "", ""


def backend_remedy(kind: str, text: str) -> str:
    """Return what helps against the last error of a backend. kind: its word in the reply to ``links``."""
    if kind == "tls":
        for words, remedy in _TLS_REMEDIES:
            if any(word in text for word in words):
                return remedy
    return BACKEND_REMEDIES.get(kind, "look into the logs of the daemons at both ends")


def connect_remedy(text: str, code: str) -> str:
    """Return what helps against an error of a connection to a service."""
    if "insecure connection to secure service" in text:
        return "the service wants TLS: use --tls-client NAME, a tls-client of this daemon"
    if "unknown TLS config" in text:
        return "the name must be a tls-client in the configuration of the daemon you are connected to"
    if "unknown authority" in text:
        return (
            "the certificate of the service is of another CA than rootcas of that tls-client, or the service has no TLS"
        )
    if "expired" in text and "certificate" in text:
        return "put a new certificate in its place, or set the clock right"
    if "CRYPTO_ERROR" in text:
        return "the certificate of that node must carry its node ID, and be signed by rootcas of the tls-client used"
    if "timeout" in text:
        return REFUSAL_REMEDIES["timeout"]
    return REFUSAL_REMEDIES.get(code, "")
