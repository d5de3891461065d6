"""A campaign against the work engine: real daemons, links, runners and commands are killed while units run.

``python tests/work_campaign.py --seed 7 --seconds 60`` or ``make campaign``. Three daemons alpha - hub - edge are
joined by relays that can cut the links. Clients submit units on alpha, for alpha itself, hub (one hop) and edge (two
hops), while everything is killed at random. Then everything is left in peace, and every unit whose ID a client has read
must

* end, and still be listed on alpha: none is stuck or lost;
* have the right bytes as its output if it succeeded, and have been started exactly once;
* say why, by a Reason, if it failed, and have been started once at most;
* have succeeded if it was accepted and neither its runner nor its command was killed, nor a client stopped it, nor the
  daemon that was about to start it killed at that moment;
* never have been started if its client vanished in the middle of the payload.

The same seed makes the same decisions; what they meet depends on the machine.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

from daemons import free_port, units_done_by

READY_S = 60.0
SETTLE_S = 180.0
NODES = ("alpha", "hub", "edge")
HARM = {"daemon killed", "link cut", "runner killed", "command killed"}
TAG = re.compile(r"\bu[0-9]{5,}\b")
SCRIPT = """\
tag=$1 lines=$2 pause=$3
exec 2> /dev/null # Where a shell complains of children that were killed.
echo start >> "$RUNS/$tag"
sum=$(sha256sum) || exit 9
sum=${sum%% *}
i=0
while [ $i -lt "$lines" ]; do
  echo "$tag $i $sum"
  i=$((i + 1))
  [ $((i % 40)) = 0 ] && sleep "$pause"
done
exit 0
"""


class Relay:
    """A TCP relay whose connections can be cut, and that lets none pass for a while."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self.server.getsockname()[1])
        self.up = True
        self.sockets: set[socket.socket] = set()
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self.accept, daemon=True)]
        self.threads[0].start()

    def accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self.server.accept()
                try:
                    far = socket.create_connection(("127.0.0.1", self.target), timeout=5)
                except OSError:
                    near.close()
                    continue
                with self.lock:
                    if not self.up:
                        near.close()
                        far.close()
                        continue
                    self.sockets |= {near, far}
                for a, b in ((near, far), (far, near)):
                    threading.Thread(target=self.copy, args=(a, b), daemon=True).start()

    def copy(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            source.settimeout(None)
            while data := source.recv(1 << 16):
                target.sendall(data)
        self.drop({source, target})

    def drop(self, sockets: set[socket.socket]) -> None:
        with self.lock:
            self.sockets -= sockets
        for each in sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def cut(self) -> None:
        with self.lock:
            self.up = False
            sockets = set(self.sockets)
        self.drop(sockets)

    def mend(self) -> None:
        with self.lock:
            self.up = True

    def close(self) -> None:
        self.server.close()
        self.cut()


@dataclass
class Unit:
    """What the campaign knows of one unit."""

    tag: str
    node: str
    lines: int
    pause: str
    payload: bytes
    vanish: bool
    stop: str = ""  # "cancel", "release" or nothing.
    unit_id: str = ""
    accepted: bool = False
    released: bool = False
    status: dict[str, object] = field(default_factory=dict)

    def expected(self) -> bytes:
        total = hashlib.sha256(self.payload).hexdigest()
        return "".join(f"{self.tag} {i} {total}\n" for i in range(self.lines)).encode()


class Mesh:
    """The daemons and what joins them."""

    def __init__(self, program: str, folder: Path) -> None:
        self.program, self.folder = program, folder
        self.runs = folder / "runs"
        self.runs.mkdir()
        self.data = folder / "data"
        self.script = str(folder / "work.sh")
        Path(self.script).write_text(SCRIPT)
        port = free_port()
        self.relays = [Relay(port), Relay(port)]
        work = ["--work-command", "worktype=sums", "command=sh", f"params={self.script}", "allowruntimeparams=true"]
        peer = [["--tcp-peer", f"address=127.0.0.1:{relay.port}"] for relay in self.relays]
        links = {"alpha": peer[0], "hub": ["--tcp-listener", "bindaddr=127.0.0.1", f"port={port}"], "edge": peer[1]}
        self.arguments = {name: [*links[name], *work] for name in NODES}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.lock = threading.Lock()
        for name in NODES:
            self.start(name)

    def socket_of(self, name: str) -> str:
        return str(self.folder / f"{name}.sock")

    def start(self, name: str) -> None:
        node = ["--node", f"id={name}", f"datadir={self.data}"]
        control = ["--control-service", "service=control", f"filename={self.socket_of(name)}"]
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [self.program, *node, "--log-level", "debug", *self.arguments[name], *control],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "RUNS": str(self.runs)},
                start_new_session=True,
            )

    def quit(self) -> None:
        """End all daemons with their goroutines in their logs."""
        for process in self.processes.values():
            process.send_signal(signal.SIGQUIT)
        for process in self.processes.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(READY_S)

    def kill(self, name: str) -> None:
        self.processes[name].kill()
        self.processes[name].wait()

    def dial(self, name: str) -> socket.socket:
        """A control session of a daemon that may have to start first."""
        end = time.monotonic() + READY_S
        while True:
            client = socket.socket(socket.AF_UNIX)
            client.settimeout(READY_S)
            try:
                client.connect(self.socket_of(name))
                return client
            except OSError:
                client.close()
                if time.monotonic() > end:
                    raise
                time.sleep(0.01)

    def ask(self, name: str, request: str) -> dict[str, object]:
        with self.dial(name) as client, client.makefile("rb") as replies:
            replies.readline()
            client.sendall(request.encode() + b"\n")
            line = replies.readline()
        if not line or line.startswith(b"ERROR"):
            raise OSError(line.decode().strip() or "no answer")
        found: dict[str, object] = json.loads(line)
        return found

    def units_of(self, name: str) -> dict[str, dict[str, object]]:
        return self.ask(name, "work list")  # type: ignore[return-value]

    def results(self, unit_id: str) -> bytes:
        with self.dial("alpha") as client, client.makefile("rb") as replies:
            replies.readline()
            client.sendall(f"work results {unit_id}\n".encode())
            replies.readline()
            return replies.read()

    def close(self) -> None:
        for relay in self.relays:
            relay.close()
        for process in self.processes.values():
            process.kill()
            process.wait()
        for pid, _ in processes_of(self.folder):
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)


def processes_of(folder: Path) -> list[tuple[int, list[str]]]:
    """Every process that one of the daemons has started, with its arguments: all have its environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if os.fsencode(folder) in (path / "environ").read_bytes():
                line = (path / "cmdline").read_bytes().decode(errors="replace")
                found.append((int(path.name), line.split("\0")))
    return found


def stop_process(pid: int) -> bool:
    """Stop all threads of a process; False if it has ended."""
    try:
        os.kill(pid, signal.SIGSTOP)
        while True:
            stats = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/stat")]
            states = {stat.rpartition(")")[2].split()[0] for stat in stats}
            if states <= {"T"}:
                return bool(states)
            if states & {"Z", "X"}:
                return False
            time.sleep(0.0005)
    except OSError:
        return False


class Campaign:
    """One run from one seed."""

    def __init__(self, mesh: Mesh, seed: int) -> None:
        self.mesh = mesh
        self.random = random.Random(seed)
        self.units: list[Unit] = []
        self.harmed: set[str] = set()
        self.done: Counter[str] = Counter()
        self.problems: list[str] = []
        self.lock = threading.Lock()
        self.over = threading.Event()

    # Clients

    def client(self, seed: int) -> None:
        choose = random.Random(seed)
        while not self.over.is_set():
            unit = self.next_unit(choose)
            try:
                self.submit(unit)
                if unit.stop and unit.unit_id:
                    time.sleep(choose.random() / 2)
                    self.mesh.ask("alpha", f"work {unit.stop} {unit.unit_id}")
                    unit.released = unit.stop == "release"
            except (OSError, ValueError):
                pass  # The daemon was killed: what was told counts.

    def next_unit(self, choose: random.Random) -> Unit:
        with self.lock:
            tag = f"u{len(self.units):05d}"
            unit = Unit(
                tag=tag,
                node=choose.choice(("localhost", "hub", "edge", "edge")),
                lines=choose.choice((0, 1, 10, 200, 1000)),
                pause=choose.choice(("0", "0.01", "0.05", "0.2")),
                payload=choose.randbytes(choose.choice((0, 1, 1000, 200_000))),
                vanish=choose.random() < 0.1,
                stop=choose.choices(("", "cancel", "release"), (8, 1, 1))[0],
            )
            self.units.append(unit)
        return unit

    def submit(self, unit: Unit) -> None:
        request = {"command": "work", "subcommand": "submit", "node": unit.node, "worktype": "sums"}
        request["params"] = f"{unit.tag} {unit.lines} {unit.pause}"
        with self.mesh.dial("alpha") as client, client.makefile("rb") as replies:
            client.settimeout(90)
            replies.readline()
            client.sendall(json.dumps(request).encode() + b"\n")
            prompt = replies.readline().decode()
            if not prompt.startswith("Work unit created with ID ") or not prompt.endswith("\n"):
                return
            unit.unit_id = prompt.split(" ID ")[1].split(".")[0]
            if unit.vanish:
                client.sendall(unit.payload[: len(unit.payload) // 2])
                return
            client.sendall(unit.payload)
            client.shutdown(socket.SHUT_WR)
            answer = replies.readline()
            unit.accepted = answer.endswith(b"\n") and b'"result"' in answer

    # What is done to them

    def harm(self) -> None:
        kind = self.random.choices(("daemon", "link", "runner", "command"), (3, 4, 3, 3))[0]
        if kind == "runner":
            if done := self.kill_runner():
                self.done[done] += 1
            return
        if kind == "daemon":
            name = self.random.choice(NODES)
            self.mesh.kill(name)
            time.sleep(self.random.choice((0, 0, 0.1, 1)))
            self.mesh.start(name)
        elif kind == "link":
            relay = self.random.choice(self.mesh.relays)
            relay.cut()
            time.sleep(self.random.choice((0, 0.2, 1.5)))
            relay.mend()
        elif kind == "command" and not self.kill_command():
            return
        self.done[f"{kind} killed" if kind != "link" else "link cut"] += 1

    def kill_command(self) -> bool:
        found = []
        for pid, arguments in processes_of(self.mesh.folder):
            if self.mesh.script in arguments:
                found.append((pid, arguments))
        if not found:
            return False
        pid, arguments = self.random.choice(sorted(found))
        self.harmed |= set(TAG.findall(" ".join(arguments)))
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)
        return True

    def kill_runner(self) -> str:
        """Kill a runner, one that does a unit if there is any; it is stopped before, to be sure of the unit."""
        runners = [pid for pid, arguments in processes_of(self.mesh.folder) if "--command-runner" in arguments]
        busy = [pid for pid in runners if units_done_by(pid, self.mesh.data)]
        if not runners:
            return ""
        pid = self.random.choice(sorted(busy or runners))
        if not stop_process(pid):
            return ""
        units = units_done_by(pid, self.mesh.data)
        for unit in units:
            with suppress(OSError):  # It has been released.
                self.harmed |= set(TAG.findall((unit / "status").read_text()))
        os.kill(pid, signal.SIGKILL)
        return "runner killed" if units else "idle runner killed"

    # Judgement

    def settle(self) -> None:
        """Wait until every unit on alpha is complete."""
        end = time.monotonic() + SETTLE_S
        while True:
            listed = self.mesh.units_of("alpha")
            waiting = {i for i, s in listed.items() if s["State"] not in (2, 3, 4)}
            if not waiting:
                break
            if time.monotonic() > end:
                for unit_id in sorted(waiting):
                    self.problems.append(f"stuck: {unit_id} {json.dumps(listed[unit_id])}")
                break
            time.sleep(0.2)
        self.listed = listed

    def judge(self, unit: Unit) -> str:
        status = self.listed.get(unit.unit_id)
        starts = (self.mesh.runs / unit.tag).read_text().count("start") if (self.mesh.runs / unit.tag).exists() else 0
        if starts > 1:
            self.blame(unit, f"doubled: started {starts} times")
        if unit.vanish and starts and unit.payload:
            self.blame(unit, "started although its client had vanished")
        if status is None:
            if unit.stop != "release":
                self.blame(unit, "lost: not listed any more")
            return "released"
        unit.status = status
        reason = str(status.get("Reason", ""))
        if status["State"] == 2:
            got = self.mesh.results(unit.unit_id)
            if got != unit.expected():
                self.blame(unit, f"wrong output: {len(got)} bytes, expected {len(unit.expected())}")
            if starts != 1:
                self.blame(unit, f"succeeded and was started {starts} times")
            return "succeeded"
        if status["State"] == 4 or (unit.stop and reason == "canceled"):
            if not unit.stop:
                self.blame(unit, "cancelled by nobody")
            return "cancelled"
        if not reason:
            self.blame(unit, "failed without a Reason")
        # A daemon that is killed before it could start a unit cannot tell whether it did.
        if unit.accepted and unit.tag not in self.harmed and not unit.stop and reason != "restart":
            self.blame(unit, "failed although it was accepted and left alone")
        return f"failed: {reason}"

    def blame(self, unit: Unit, text: str) -> None:
        where = f"{unit.tag} {unit.unit_id} on {unit.node}"
        self.problems.append(
            f"{where}: {text}; accepted {unit.accepted}, stop {unit.stop!r}, {json.dumps(unit.status)}"
        )

    def release_all(self) -> None:
        """Units that are released leave nothing on the node that ran them, except what was never handed over whole."""
        for unit_id in self.mesh.units_of("alpha"):
            with suppress(OSError):
                self.mesh.ask("alpha", f"work release {unit_id}")
        end = time.monotonic() + READY_S
        while left := self.mesh.units_of("alpha"):
            if time.monotonic() > end:
                self.problems.append(f"cannot be released: {json.dumps(left)}")
                return
            time.sleep(0.1)
        for name in ("hub", "edge"):
            for unit_id, status in self.mesh.units_of(name).items():
                if status.get("Reason") not in ("payload", "restart"):
                    self.problems.append(f"left on {name}: {unit_id} {json.dumps(status)}")

    def run(self, seconds: float, clients: int, units: int) -> dict[str, int]:
        threads = [
            threading.Thread(target=self.client, args=(self.random.getrandbits(32),), daemon=True)
            for _ in range(clients)
        ]
        for thread in threads:
            thread.start()
        end = time.monotonic() + seconds
        limit = end + SETTLE_S
        while time.monotonic() < end or sum(unit.accepted for unit in self.units) < units or HARM - set(self.done):
            if time.monotonic() > limit:
                text = f"not {units} units accepted, or not each kind of harm done, in {seconds + SETTLE_S:.0f} s"
                self.problems.append(f"{text}: {dict(self.done)}")
                break
            time.sleep(self.random.random() * 0.6)
            self.harm()
        self.over.set()
        for thread in threads:
            thread.join(timeout=SETTLE_S)
        counts: Counter[str] = Counter()
        try:
            self.settle()
            counts.update(self.judge(unit) for unit in self.units if unit.unit_id)
            self.release_all()
        except OSError as error:
            states = {name: process.poll() for name, process in self.mesh.processes.items()}
            self.problems.append(f"a daemon does not answer: {error!r}, exit statuses {states}")
            self.mesh.quit()
        told = sum(bool(unit.unit_id) for unit in self.units)
        accepted = sum(unit.accepted for unit in self.units)
        return {"told": told, "accepted": accepted, **dict(sorted(counts.items())), **dict(sorted(self.done.items()))}


def run(
    program: str, seed: int, seconds: float, clients: int = 8, units: int = 0, keep: bool = False
) -> tuple[dict[str, int], list[str]]:
    """Kill for ``seconds``, and until ``units`` units were accepted and each kind of harm was done.

    Returns counts, and what went wrong with the ends of the logs behind it.
    """
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="campaign-"))
        if not keep:
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
        mesh = Mesh(program, folder)
        stack.callback(mesh.close)
        for name in NODES:
            mesh.dial(name).close()
        campaign = Campaign(mesh, seed)
        counts = campaign.run(seconds, clients, units)
        problems = campaign.problems
        if problems:
            problems.insert(0, f"seed {seed}, {folder}")
            for name in NODES:
                tail = (folder / f"{name}.log").read_text(errors="replace").splitlines()[-60:]
                problems.extend([f"--- {name}", *tail])
    return counts, problems


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--program", default=os.environ.get("RECEPTOR_DAEMON") or shutil.which("receptor") or "receptor"
    )
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(16))
    parser.add_argument("--seconds", type=float, default=60.0, help="how long everything is killed (default 60)")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=1, help="so many campaigns, with seed, seed+1 ...")
    parser.add_argument("--keep", action="store_true", help="leave data and logs where they are")
    options = parser.parse_args()
    failed = False
    for seed in range(options.seed, options.seed + options.rounds):
        counts, problems = run(options.program, seed, options.seconds, options.clients, keep=options.keep)
        print(f"seed {seed}: " + ", ".join(f"{n} {what}" for what, n in counts.items()), flush=True)
        for line in problems:
            print(line, flush=True)
        failed = failed or bool(problems)
    sys.exit(failed)


if __name__ == "__main__":
    main()
