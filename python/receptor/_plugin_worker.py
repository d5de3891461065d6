"""The process that runs a function of a worker plugin for one unit of work.

``receptor-python-worker PLUGIN:FUNCTION UNITDIR CONFIG``, or ``python -m receptor._plugin_worker`` with the same
arguments. PLUGIN is an entry point of the group ``receptor.worker`` and names a module, FUNCTION one of its functions
that :func:`receptor.plugin_export` has marked, CONFIG a JSON object that the function gets. Each object that the
function puts on its queue becomes a line of JSON in the unit's output.

The process plays the runner's part for its unit: it holds ``runner.lock`` and tells there who it is, changes ``status``
under ``status.lock`` and by renaming, and writes the last state when the output is on disk. SIGINT and SIGTERM end it
with ``Killed by signal N``. Whatever happens to the unit, the exit status is 0; it is 1 if there is no unit.
"""

import contextlib
import fcntl
import hashlib
import importlib
import json
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import entry_points
from pathlib import Path
from typing import IO, Any, NoReturn

from receptor._plugin import BUFFER_PAYLOAD, BYTES_PAYLOAD, FILE_PAYLOAD

PENDING, RUNNING, SUCCEEDED, FAILED = range(4)
REPORT_S = 0.1  # A stream of results rewrites the status this often at most.
LOCK_S = 5.0
QUEUE_SIZE = 1000  # Results that wait to be written; a function that is faster waits.
_END = object()

Function = Callable[[Any, dict[str, Any], "queue.Queue[Any]"], object]  # Any: a plugin's payload and results


class _Killed(BaseException):
    """A signal that asks for the end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class _Failure(Exception):
    """What the function, or the way to it, came to grief with."""

    def __init__(self, what: str, error: BaseException) -> None:
        super().__init__(f"{what}: {error!r}")


class Worker:
    """One unit and the function that does its work."""

    def __init__(self, function: str, unit: str, config: str) -> None:
        self.plugin, separator, self.function = function.partition(":")
        if not separator or not self.plugin or not self.function:
            raise ValueError(f"{function!r} is not PLUGIN:FUNCTION")
        self.unit = Path(unit)
        for name in ("status", "stdin"):
            if not (self.unit / name).is_file():
                raise ValueError(f"{self.unit} has no file {name}")
        self.config: dict[str, Any] = json.loads(config)
        if not isinstance(self.config, dict):
            raise ValueError("the configuration is not a JSON object")  # noqa: TRY004  # as for all of these
        self._lock = self._become_runner()
        # How much of the output is counted, and its digest: one value, because a signal may come between any two.
        self._counted = (0, hashlib.sha256())
        self._reported = 0

    def run(self) -> None:
        """Do the work of the unit, once: one that has ended or runs already is left alone."""
        if not self._report(PENDING, "Starting Python worker plugin"):
            return
        try:
            function = self._load()
            self._report(RUNNING, "Running", Started=_now())
            self._collect(function)
        except _Failure as failure:
            self._finish(FAILED, str(failure), "plugin")
        except OSError as error:
            self._finish(FAILED, f"Error running worker: {error!r}", "disk")
        except _Killed as killed:
            self._finish(FAILED, f"Killed by signal {killed.number}", "killed")
            _end_children()
        else:
            self._finish(SUCCEEDED, "Complete", "")

    def _load(self) -> Function:
        try:
            found = next(iter(entry_points(group="receptor.worker", name=self.plugin)), None)
            if found is None:
                raise ValueError(f"Plugin {self.plugin} not found")
            module = importlib.import_module(found.module)
            function = getattr(module, self.function, None)
            if function is None:
                raise ValueError(f"Function {self.function} does not exist in {self.plugin}")
            if not getattr(function, "receptor_export", False):
                raise ValueError(f"Not allowed to call non-exported {self.function} in {self.plugin}")
        except (Exception, SystemExit) as error:
            traceback.print_exc()
            raise _Failure("Error loading worker", error) from error
        loaded: Function = function
        return loaded

    def _payload(self, kind: str) -> Any:  # Any: bytes, a file or a path, as the function asked for
        stdin = self.unit / "stdin"
        if kind == BYTES_PAYLOAD:
            return stdin.read_bytes()
        if kind == BUFFER_PAYLOAD:
            return stdin.open("rb")
        if kind == FILE_PAYLOAD:
            return str(stdin)
        raise ValueError("Unknown plugin action method")

    def _collect(self, function: Function) -> None:
        """Write what the function puts on its queue. The main thread does that, so that it can hear signals."""
        results: queue.Queue[Any] = queue.Queue(QUEUE_SIZE)
        errors: list[BaseException] = []

        def call() -> None:
            try:
                payload = self._payload(getattr(function, "payload_type", BYTES_PAYLOAD))
                function(payload, self.config, results)
            except BaseException as error:
                traceback.print_exc()
                errors.append(error)
            results.put(_END)

        threading.Thread(target=call, name="plugin", daemon=True).start()
        descriptor = os.open(self.unit / "stdout", os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "ab", buffering=0) as output:
            while (item := self._next(results)) is not _END:
                self._write(output, item)
            os.fsync(output.fileno())
        if errors:
            raise _Failure("Error running worker", errors[0])

    def _next(self, results: "queue.Queue[Any]") -> Any:  # Any: a plugin's results
        """The next result; the status is brought up to date when none comes for a while."""
        if self._reported < self._counted[0]:
            try:
                return results.get(timeout=REPORT_S)
            except queue.Empty:
                self._report(RUNNING, "Running")
        return results.get()

    def _write(self, output: IO[bytes], item: object) -> None:
        try:
            line = json.dumps(item).encode() + b"\n"
        except Exception as error:
            raise _Failure("Error running worker", error) from error
        rest = memoryview(line)
        while rest:
            rest = rest[output.write(rest) :]
        self._count(line)

    def _count(self, output: bytes) -> None:
        size, digest = self._counted
        digest = digest.copy()
        digest.update(output)
        self._counted = (size + len(output), digest)

    def _count_rest(self) -> None:
        """Count what was written before a signal came or the disk was full, and was not counted any more."""
        with contextlib.suppress(OSError), (self.unit / "stdout").open("rb") as output:
            output.seek(self._counted[0])
            while rest := output.read(1 << 16):
                self._count(rest)
            os.fsync(output.fileno())

    def _finish(self, state: int, detail: str, reason: str) -> None:
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_IGN)  # It is over.
        self._count_rest()
        keys = {"Finished": _now(), "StdoutSHA256": self._counted[1].hexdigest()}
        if reason:
            keys["Reason"] = reason
        self._report(state, detail, **keys)

    def _report(self, state: int, detail: str, **keys: str) -> bool:
        """Change the status; False if the unit has ended already."""
        size = self._counted[0]
        with _locked(self.unit / "status.lock"):
            status = json.loads((self.unit / "status").read_bytes())
            if status.get("State", 0) > RUNNING:
                return False
            status.update(State=state, Detail=detail, StdoutSize=size, **keys)
            fresh = self.unit / "status.tmp"
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                file.write(json.dumps(status))
                if state > RUNNING:
                    file.flush()
                    os.fsync(file.fileno())
            fresh.replace(self.unit / "status")
        self._reported = size
        return True

    def _become_runner(self) -> IO[str]:
        """Tell the node who does the work, as long as this process lives."""
        lock = _locked(self.unit / "runner.lock")
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        stat = Path("/proc/self/stat").read_text()
        start = stat[stat.rindex(")") + 1 :].split()[19]
        lock.truncate(0)
        lock.write(f"boot {boot}\nrunner {os.getpid()} {start}\nprogram {os.getpid()} {start}\n")
        lock.flush()
        return lock


def _now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def _locked(path: Path) -> IO[str]:
    """An open file that is locked for this process. Nobody keeps such a lock for long, so the wait has an end."""
    file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+")
    limit = time.monotonic() + LOCK_S
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > limit:
                file.close()
                raise TimeoutError(f"{path}: lock is held by another process") from None
            time.sleep(0.001)
        else:
            return file


def _end_children() -> None:
    """End what the function has started, if it is in this process's own group."""
    if os.getpgrp() == os.getpid():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.killpg(os.getpid(), signal.SIGTERM)


def _kill(number: int, _frame: object) -> NoReturn:
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    raise _Killed(number)


def main() -> int:
    """Run as the command line says. The process ends here: a plugin's thread may not want to."""
    if len(sys.argv) != 4:
        print("Invalid command line usage")
        return 1
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, _kill)
    try:
        worker = Worker(*sys.argv[1:])
    except (Exception, _Killed) as error:
        print(f"Error initializing worker object: {error}")
        return 1
    worker.run()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
