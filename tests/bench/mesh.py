"""Links, forwarding and streams."""

import os
import socket
import statistics
import subprocess
import tempfile
import time
from contextlib import ExitStack, closing, suppress
from pathlib import Path

from support import READY_S, Row, connect, daemon, go_bench, program, sink, throughput

MEGABYTES = 1000
TRIES = 3


def figures(rounds: int) -> list[Row]:
    return stream_figures() + proxy_figures() + packet_figures()


def stream_figures() -> list[Row]:
    """Streams in one Go process: two hops over loopback TCP links, against what they are made of."""
    names = "StreamTwoHops|StreamOneHop|QUICInMemory|QUICPlain|RawTCP"
    speed = go_bench("./go/netceptor", names, "MB/s", "-benchtime", "2000x")
    quic, tcp = speed["QUICPlain"], speed["RawTCP"]
    batched = speed["QUICInMemory"]
    rows: list[Row] = [
        ("raw loopback TCP (Go)", f"{tcp:.0f} MB/s", ""),
        ("quic-go over a packet connection in memory", f"{quic:.0f} MB/s", ""),
        ("the same, packets handed over in runs", f"{batched:.0f} MB/s", f"{batched / quic:.0%}; as our sockets do"),
    ]
    for name, text in (("StreamOneHop", "stream, one hop"), ("StreamTwoHops", "stream, two hops")):
        value = speed[name]
        ratio = f"{value / quic:.0%} of quic-go in memory, {value / tcp:.1%} of TCP"
        rows.append((f"{text} (Go, one process)", f"{value:.0f} MB/s", ratio))
    return rows


def quic_in_memory() -> float:
    """MB/s, as the machine is now."""
    return go_bench("./go/netceptor", "QUICPlain", "MB/s", "-benchtime", "2000x", rounds=3)["QUICPlain"]


def proxy_figures() -> list[Row]:
    """Streams between daemons, TCP proxy to TCP proxy; all daemons and both ends share the machine.

    How fast that is changes by the minute, so each is compared to what was measured just before it and just after.
    """
    server, _ = sink()
    with closing(server), tempfile.TemporaryDirectory() as folder:
        port = server.getsockname()[1]
        raw = []
        for _ in range(TRIES):
            with connect(port) as plain:
                raw.append(throughput(plain, MEGABYTES))
        tcp = statistics.median(raw)
        rows: list[Row] = [("raw loopback TCP (Python)", f"{tcp:.0f} MB/s", "")]
        make_certificates(Path(folder))
        before = quic_in_memory()
        for tls in (False, True):
            for hops in (1, 2, 4):
                speed, cpu = through_daemons(Path(folder), port, hops, tls)
                after = quic_in_memory()
                quic, before = (before + after) / 2, after
                distance, links = "1 hop" if hops == 1 else f"{hops} hops", "TLS" if tls else "plain"
                ratios = f"{speed / quic:.0%} of quic-go in memory ({quic:.0f}), {speed / tcp:.1%} of TCP"
                against = f"{ratios}; {cpu:.1f} CPU s/GB"
                rows.append((f"stream between daemons, {distance}, {links} links", f"{speed:.0f} MB/s", against))
    return rows


def make_certificates(folder: Path) -> None:
    """A certificate authority and one certificate for all daemons."""
    ca = [f"outcert={folder}/ca.crt", f"outkey={folder}/ca.key"]
    request = [f"outreq={folder}/hop.csr", f"outkey={folder}/hop.key"]
    signing = [f"req={folder}/hop.csr", f"cacert={folder}/ca.crt", f"cakey={folder}/ca.key"]
    for arguments in (
        ["--cert-init", "commonname=bench", "bits=2048", *ca],
        ["--cert-makereq", "commonname=hop", "bits=2048", "ipaddress=127.0.0.1", *request],
        ["--cert-signreq", *signing, f"outcert={folder}/hop.crt", "verify=true"],
    ):
        subprocess.run([program(), *arguments], check=True, stdout=subprocess.DEVNULL)


def through_daemons(folder: Path, sink_port: int, hops: int, tls: bool) -> tuple[float, float]:
    """MB/s from the first daemon of a chain to the last, and the CPU seconds per GB of all of them."""
    server = [
        "--tls-server",
        "name=srv",
        f"cert={folder}/hop.crt",
        f"key={folder}/hop.key",
        "skipreceptornamescheck=true",
    ]
    client = ["--tls-client", "name=cli", "cert=", "key=", f"rootcas={folder}/ca.crt", "skipreceptornamescheck=true"]
    entry, *ports = free_ports(hops + 1)
    with ExitStack() as stack:
        processes = []
        for i in range(hops + 1):
            directives = [*server, *client] if tls else []
            if i < hops:
                listener = ["--tcp-listener", "bindaddr=127.0.0.1", f"port={ports[i]}"]
                directives += [*listener, "tls=srv"] if tls else listener
            if i > 0:
                peer = ["--tcp-peer", f"address=127.0.0.1:{ports[i - 1]}"]
                directives += [*peer, "tls=cli"] if tls else peer
            if i == 0:
                far = [f"remotenode=d{hops}", "remoteservice=sink"]
                directives += ["--tcp-server", "bindaddr=127.0.0.1", f"port={entry}", *far]
            if i == hops:
                directives += ["--tcp-client", "service=sink", f"address=127.0.0.1:{sink_port}"]
            processes.append(stack.enter_context(daemon(folder, f"d{i}", *directives))[0])
        await_path(entry)
        speeds, costs = [], []
        for _ in range(TRIES):
            before = sum(map(cpu_seconds, processes))
            with connect(entry) as stream:
                speeds.append(throughput(stream, MEGABYTES))
            costs.append((sum(map(cpu_seconds, processes)) - before) / (MEGABYTES / 1000))
    return statistics.median(speeds), statistics.median(costs)


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [probe.getsockname()[1] for probe in probes]


def await_path(entry: int) -> None:
    """Until bytes get through: the proxy resets its connections while there is no route."""
    give_up = time.monotonic() + READY_S
    while time.monotonic() < give_up:
        with suppress(OSError), connect(entry) as stream:
            stream.shutdown(socket.SHUT_WR)
            if stream.recv(1) == b"!":
                return
        time.sleep(0.02)
    raise SystemExit(f"bench: no path through the daemons after {READY_S:.0f} s")


def cpu_seconds(process: "subprocess.Popen[str]") -> float:
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def packet_figures() -> list[Row]:
    """What a relay forwards, and how fast streams open."""
    cost = go_bench("./go/netceptor", "Forward|Relay|OpenStream|QUICConnections", "ns/op")
    forward, relay = cost["Forward"], cost["Relay"]
    shared, own, bare = cost["OpenStream/shared"], cost["OpenStream/own"], cost["QUICConnections"]
    return [
        ("a relay's own work for a packet of 1 KiB", f"{forward:.0f} ns", f"{1e9 / forward:,.0f} a second"),
        ("datagrams of 1 KiB, sender to relay to receiver", f"{1e9 / relay:,.0f} a second", "three nodes, one process"),
        ("streams opened, one hop, between two of ours", f"{1e9 / shared:,.0f} a second", f"{own / shared:.0f} times"),
        (
            "streams opened, one hop, to an existing node",
            f"{1e9 / own:,.0f} a second",
            f"{bare / own:.0%} of bare connections",
        ),
        ("QUIC connections in memory, with a stream each", f"{1e9 / bare:,.0f} a second", "sixteen at a time"),
    ]
