"""The process of a Python work type, from inside; package workceptor's tests run it as a node does."""

import hashlib
import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from receptor._plugin_worker import FAILED, RUNNING, Worker


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    (tmp_path / "status").write_text(json.dumps({"State": RUNNING}))
    (tmp_path / "stdin").touch()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    worker = Worker("demo:f", str(tmp_path), "{}")
    yield worker
    worker._lock.close()
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_f224_output_that_a_signal_kept_from_being_counted_is_in_the_last_state(worker: Worker) -> None:
    with (worker.unit / "stdout").open("ab", buffering=0) as output:
        worker._write(output, "counted")
        output.write(b'"not counted"\n"nor th')  # As a signal, or a full disk, leaves it.
    worker._finish(FAILED, "Killed by signal 2", "killed")
    status = json.loads((worker.unit / "status").read_bytes())
    written = b'"counted"\n"not counted"\n"nor th'
    assert (worker.unit / "stdout").read_bytes() == written
    assert status["StdoutSize"] == len(written)
    assert status["StdoutSHA256"] == hashlib.sha256(written).hexdigest()


def test_f224_a_unit_that_ends_before_any_output_has_none(worker: Worker) -> None:
    worker._finish(FAILED, "Error loading worker", "plugin")
    status = json.loads((worker.unit / "status").read_bytes())
    assert (status["StdoutSize"], status["StdoutSHA256"]) == (0, hashlib.sha256(b"").hexdigest())
