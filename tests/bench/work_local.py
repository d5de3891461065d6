"""Units of work on the node that they are submitted to: the engine alone, as a Go program has it."""

from support import Row, go_bench

PACKAGE = "./go/workceptor"


def local_figures(rounds: int) -> list[Row]:
    """Latency, units a second, the runner, and 10,000 units on disk."""
    return [*_latency(rounds), *_clients(), *_runner(), *_many()]


def _latency(rounds: int) -> list[Row]:
    figures = {
        unit: go_bench(PACKAGE, "LocalSubmit", unit, "-benchtime", f"{10 * rounds}x", rounds=1)["LocalSubmit"]
        for unit in ("ms-first", "ms-finished", "ms-p99")
    }
    median, worst = figures["ms-finished"], figures["ms-p99"]
    return [
        ("submit to first output byte, Go, local", f"{figures['ms-first']:.1f} ms", "cat of 1 KiB"),
        ("submit to finished, Go, local", f"{median:.1f} ms", f"99 % in {worst:.1f} ms"),
    ]


def _clients() -> list[Row]:
    found = go_bench(PACKAGE, "Clients", "units/s", "-benchtime", "1s", rounds=5)
    rows = []
    for clients in (1, 16, 64):
        units, bare = found[f"Clients/Units{clients}"], found[f"Clients/Bare{clients}"]
        compared = f"{units / bare:.0%} of bare fork and exec ({bare:,.0f})"
        rows.append((f"units a second, local, {clients} clients", f"{units:,.0f}", compared))
    return rows


def _runner() -> list[Row]:
    new, following, memory = (
        go_bench(PACKAGE, "RunnerCost", unit, "-benchtime", "50x", rounds=1)["RunnerCost"]
        for unit in ("ms-new", "ms-next", "MB-RSS")
    )
    compared = f"until the node hears of its end; {following:.1f} ms with a runner that waits; {memory:.1f} MB RSS"
    return [("a new runner, beyond the command itself", f"{new:.1f} ms", compared)]


def _many() -> list[Row]:
    start, listing, idle, alone = (
        go_bench(PACKAGE, "TenThousand", unit, "-benchtime", "3x", rounds=1)["TenThousand"]
        for unit in ("ms-start", "ms-list", "ms-idle-per-s", "ms-alone-per-s")
    )
    return [
        (
            "start with 10,000 units on disk",
            f"{start:.0f} ms",
            f"idle afterwards: {idle:.1f} ms of CPU a second; without an engine the process takes {alone:.1f}",
        ),
        ("list of 10,000 units", f"{listing:.1f} ms", "from memory, without JSON"),
    ]


def bulk_figures() -> list[Row]:
    """Throughput. What it writes keeps the disk busy for a while."""
    found = go_bench(PACKAGE, "LocalPayload|LocalOutput|BareOutput", "MB/s", "-benchtime", "1x", rounds=7)
    return [
        ("payload of 256 MiB, local", f"{found['LocalPayload']:.0f} MB/s", "stored, then read by dd"),
        (
            "output of 1 GiB, local",
            f"{found['LocalOutput']:.0f} MB/s",
            f"head of /dev/zero, read as it comes; the command alone writes {found['BareOutput']:.0f} MB/s into a file",
        ),
    ]
