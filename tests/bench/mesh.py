"""Links, forwarding and streams."""

from support import Row, go_bench


def figures(rounds: int) -> list[Row]:
    return stream_figures() + packet_figures()


def stream_figures() -> list[Row]:
    """Streams in one Go process: two hops over loopback TCP links, against what they are made of."""
    speed = go_bench("./go/netceptor", "StreamTwoHops|StreamOneHop|QUICInMemory|RawTCP", "MB/s", "-benchtime", "2000x")
    quic, tcp = speed["QUICInMemory"], speed["RawTCP"]
    rows: list[Row] = [
        ("raw loopback TCP (Go)", f"{tcp:.0f} MB/s", ""),
        ("quic-go over packets in memory", f"{quic:.0f} MB/s", ""),
    ]
    for name, text in (("StreamOneHop", "stream, one hop"), ("StreamTwoHops", "stream, two hops")):
        value = speed[name]
        ratio = f"{value / quic:.0%} of quic-go in memory, {value / tcp:.1%} of TCP"
        rows.append((f"{text} (Go, one process)", f"{value:.0f} MB/s", ratio))
    return rows


def packet_figures() -> list[Row]:
    """What a relay forwards, and how fast streams open."""
    cost = go_bench("./go/netceptor", "Forward|Relay|OpenStream", "ns/op")
    forward, relay = cost["Forward"], cost["Relay"]
    shared, own = cost["OpenStream/shared"], cost["OpenStream/own"]
    return [
        ("a relay's own work for a packet of 1 KiB", f"{forward:.0f} ns", f"{1e9 / forward:,.0f} a second"),
        ("datagrams of 1 KiB, sender to relay to receiver", f"{1e9 / relay:,.0f} a second", "three nodes, one process"),
        ("streams opened, two hops, between two of ours", f"{1e9 / shared:,.0f} a second", f"{own / shared:.0f} times"),
        ("streams opened, two hops, to an existing node", f"{1e9 / own:,.0f} a second", "a connection each"),
    ]
