"""Many nodes: a simulated mesh, and real daemons side by side."""

import json
import os
import random
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from support import PROJECT, READY_S, Row, program

SIMULATED = (100, 400, 1000)
COLD, IDLE, IDLE_S = 50, 100, 20.0
TRIES = 3
# What the existing implementation was measured to take for the same, elsewhere.
QUOTED = "existing implementation, as quoted"
EXISTING = {"cold": "6.6 s", "kill": "8 to 10 s", "memory": "33 MB", "cpu": "1.7 to 2.7 ms"}


def figures(rounds: int) -> list[Row]:
    return [*simulation_figures(), *start_figures(), *kill_figures(), *idle_figures()]


def simulation_figures() -> list[Row]:
    """A random mesh of degree 3, all nodes in one process, a millisecond from node to node."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        binary = f"{folder}/simulation"
        subprocess.run(["go", "build", "-o", binary, "./examples/simulation"], cwd=PROJECT, check=True)
        for count in SIMULATED:
            run = subprocess.run(
                [binary, "-nodes", str(count), "-delay", "1ms"], capture_output=True, text=True, check=True
            )
            for step, text in (("cold start", "cold start"), (r"cut \S+ - \S+", "one link cut")):
                found = re.search(rf"^{step}\s+(\S+)\s+(\d+)\s+\d+\s+\d+\s+([\d.]+)$", run.stdout, re.MULTILINE)
                if found is None:
                    raise SystemExit(f"bench: the simulation did not report {text}:\n{run.stdout}")
                took, messages, cpu = found[1], int(found[2]), float(found[3])
                ratio = f"{messages / count**2:.1f} N²" if text == "cold start" else f"{messages / count:.1f} N"
                detail = f"{messages:,} messages, {ratio}; {took} simulated"
                rows.append((f"simulated mesh of {count:,} nodes, {text}", f"{cpu:.2f} CPU s", detail))
            memory = re.search(r"^memory: (\d+) MiB$", run.stdout, re.MULTILINE)
            used = f"{memory[1]} MiB" if memory else "?"
            rows.append((f"simulated mesh of {count:,} nodes, torn in two and healed", used, "memory of the process"))
    return rows


class Member:
    """One daemon of a mesh."""

    def __init__(self, folder: Path, name: str, *directives: str) -> None:
        self.name, self.socket = name, folder / f"{name}.sock"
        node = ["--node", f"id={name}", f"datadir={folder}", "--log-level", "error"]
        self.command = [program(), *node, *directives, "--control-service", f"filename={self.socket}"]

    def start(self) -> None:
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL)

    def ask(self, command: str) -> dict[str, object]:
        """The answer to one command; empty while the daemon does not answer."""
        with socket.socket(socket.AF_UNIX) as connection, suppress(OSError, ValueError):
            connection.settimeout(READY_S)
            connection.connect(str(self.socket))
            connection.sendall(command.encode() + b"\n")
            connection.shutdown(socket.SHUT_WR)
            with connection.makefile("rb") as answer:
                answer.readline()
                reply: dict[str, object] = json.loads(answer.readline())
                return reply
        return {}

    def routes(self) -> dict[str, str]:
        """The next node on the way to each node."""
        table = self.ask("status").get("RoutingTable")
        return table if isinstance(table, dict) else {}

    def links(self) -> set[tuple[str, str]]:
        """Node and neighbour, for each end of a link that is known."""
        known = self.ask("status").get("KnownConnectionCosts")
        return {(node, peer) for node, peers in known.items() for peer in peers} if isinstance(known, dict) else set()

    def reaches(self, target: str) -> bool:
        return self.ask(f"ping {target}").get("Success") is True


@contextmanager
def mesh(edges: list[tuple[int, int, int]], nodes: int) -> Iterator[list[Member]]:
    """Daemons that are ready to be started: the second node of an edge dials the first at the given cost."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        probes = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(nodes)]
        ports = [probe.getsockname()[1] for probe in probes]
        stack.close()
        directives: list[list[str]] = []
        for i in range(nodes):
            costs = json.dumps({f"n{b}": cost for a, b, cost in edges if a == i})
            directives.append(["--tcp-listener", "bindaddr=127.0.0.1", f"port={ports[i]}", f"nodecost={costs}"])
        for a, b, cost in edges:
            directives[b] += ["--tcp-peer", f"address=127.0.0.1:{ports[a]}", f"cost={cost}"]
        members = [Member(Path(name), f"n{i}", *directives[i]) for i in range(nodes)]
        try:
            yield members
        finally:
            started = [member.process for member in members if hasattr(member, "process")]
            for process in started:
                process.terminate()
            for process in started:
                process.wait(READY_S)


def random_edges(nodes: int) -> list[tuple[int, int, int]]:
    """A connected mesh of degree 3, the same each time."""
    draw = random.Random(1)
    pairs = {(draw.randrange(i), i) for i in range(1, nodes)}
    while len(pairs) < nodes * 3 // 2:
        a, b = sorted(draw.sample(range(nodes), 2))
        pairs.add((a, b))
    return [(a, b, 1) for a, b in sorted(pairs)]


def settle(members: list[Member]) -> None:
    """Wait until all have routes to all."""
    give_up = time.monotonic() + READY_S * 3
    for member in members:
        while len(member.routes()) < len(members) - 1:
            if time.monotonic() > give_up:
                raise SystemExit(f"bench: {member.name} knows {len(member.routes())} of {len(members) - 1} nodes")
            time.sleep(0.005)


def learn(members: list[Member], edges: list[tuple[int, int, int]]) -> None:
    """Wait until all know of every link, from both of its ends: a way that is not known yet is not taken."""
    give_up = time.monotonic() + READY_S
    links = {(members[a].name, members[b].name) for edge in edges for a, b in (edge[:2], edge[1::-1])}
    for member in members:
        while not links <= member.links():
            if time.monotonic() > give_up:
                raise SystemExit(f"bench: {member.name} does not know of {links - member.links()}")
            time.sleep(0.005)


def start_figures() -> list[Row]:
    """From the start of the first of many daemons until each has a route to every other."""
    times = []
    for _ in range(TRIES):
        with mesh(random_edges(COLD), COLD) as members:
            started = time.monotonic()
            for member in members:
                member.start()
            settle(members)
            times.append(time.monotonic() - started)
    told = f"{TRIES} times; {QUOTED}: {EXISTING['cold']}"
    return [(f"cold start of {COLD} daemons, degree 3, to all routes", f"{statistics.median(times):.2f} s", told)]


def until_reached(source: Member, target: str, way: str | None = None) -> float:
    """Seconds until a ping is answered, and the next node on its way is the given one."""
    started = time.monotonic()
    while (way and source.routes().get(target) != way) or not source.reaches(target):
        if time.monotonic() - started > READY_S:
            raise SystemExit(f"bench: {source.name} does not reach {target} any more")
    return time.monotonic() - started


def kill_figures() -> list[Row]:
    """Between two nodes lie a cheap way and a dear one, through one node each; the node of the cheap way is killed."""
    reroutes, returns = [], []
    edges = [(0, 1, 1), (0, 2, 5), (1, 3, 1), (2, 3, 5)]
    for _ in range(2 * TRIES):
        with mesh(edges, 4) as members:
            for member in members:
                member.start()
            settle(members)
            learn(members, edges)
            source, middle = members[0], members[1]
            until_reached(source, "n3", "n1")
            middle.process.send_signal(signal.SIGKILL)
            reroutes.append(until_reached(source, "n3", "n2"))
            middle.process.wait(READY_S)
            started = time.monotonic()
            middle.start()
            until_reached(source, "n3", "n1")
            until_reached(members[3], "n0", "n1")
            returns.append(time.monotonic() - started)
    reroute, back = (f"{statistics.median(times) * 1e3:.0f} ms" for times in (reroutes, returns))
    told = f"{2 * TRIES} times; {QUOTED}: {EXISTING['kill']}"
    return [
        ("relay killed, until the answer to a ping comes by another way", reroute, f"{2 * TRIES} times"),
        ("relay started again, until the answers come by it again", back, told),
    ]


def idle_figures() -> list[Row]:
    """What each of many daemons takes of the machine when nothing happens, and what any process would."""
    waking = waking_ms()
    with mesh(random_edges(IDLE), IDLE) as members:
        for member in members:
            member.start()
        settle(members)
        used = cpu_ms([member.process.pid for member in members])
        memory = [resident(member) for member in members]
    size, busy = f"{statistics.median(memory):.1f} MB RSS", f"{used:.2f} ms/s"
    told = f"mean of {IDLE} over {IDLE_S:.0f} s; {QUOTED}: {EXISTING['cpu']}"
    return [
        (f"memory of a daemon among {IDLE}", size, f"{QUOTED}: {EXISTING['memory']}"),
        (f"processor of an idle daemon among {IDLE}", busy, told),
        (
            f"the same of {IDLE} processes that wake once a second and do nothing",
            f"{waking:.2f} ms/s",
            "what this machine takes for that alone",
        ),
    ]


def waking_ms() -> float:
    """Milliseconds of CPU that it takes to wake a process once a second, among as many as there are daemons."""
    program = (
        "import os, time\n"
        f"for _ in range({IDLE}):\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        while True: time.sleep(1 - time.time() % 1)\n"
        "    print(child)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-uc", program], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as parent:
        try:
            assert parent.stdout is not None
            return cpu_ms([int(parent.stdout.readline()) for _ in range(IDLE)])
        finally:
            os.killpg(parent.pid, signal.SIGKILL)


def cpu_ms(pids: list[int]) -> float:
    """Milliseconds of CPU that each process takes a second: the mean of all."""
    before = sum(map(cpu_seconds, pids))
    time.sleep(IDLE_S)
    return (sum(map(cpu_seconds, pids)) - before) / len(pids) / IDLE_S * 1e3


def cpu_seconds(pid: int) -> float:
    """To the nanosecond, which ``/proc/PID/stat`` is not."""
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9


def resident(member: Member) -> float:
    status = Path(f"/proc/{member.process.pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+)", status)
    assert found is not None
    return int(found[1]) / 1024
