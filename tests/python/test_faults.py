"""Faults of the library's own, in the process that has loaded it: a library that breaks on demand, in every Python.

Its hooks are those of the Go tests of the session.
"""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from building import ROOT, package_with_library
from test_hazards import Interpreter, python

__all__ = ["python"]  # The fixture.

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which(os.environ.get("RECEPTOR_GO") or "go") is None, reason="needs Go"),
    pytest.mark.skipif(importlib.util.find_spec("setuptools") is None, reason="needs setuptools"),
]

CALL = (
    "import receptor, signal, sys\n"
    "from receptor import Address\n"
    "from receptor._session import Op\n"
    "def call(node, hook): return node._run(Op('test.' + hook, {}, lambda ok: ok, 60))\n"
)


@pytest.fixture(scope="module")
def breakable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to import a package from whose library has the hooks."""
    folder = tmp_path_factory.mktemp("breakable")
    session = ROOT / "go" / "session"
    overlay = folder / "overlay.json"
    overlay.write_text(json.dumps({"Replace": {str(session / "with_hooks.go"): str(session / "hooks_test.go")}}))
    return package_with_library(folder, GOFLAGS=f"-overlay={overlay}")


@pytest.mark.parametrize("handler", [(), ("-X", "faulthandler")])
def test_a_panic_is_an_error_and_an_event(python: Interpreter, breakable: Path, handler: tuple[str, ...]) -> None:
    done = python.run(
        CALL + "def refused(hook):\n"
        "    try: call(node, hook)\n"
        "    except receptor.ReceptorError as error: print(error)\n"
        "with receptor.Node('a') as node, node.events('log') as events:\n"
        "    told = (event for event in events if event.message == 'internal fault')\n"
        "    for hook in ('panic', 'nil'):\n"
        "        refused(hook)\n"
        "        print(next(told).attrs['err'])\n"
        "    call(node, 'goroutine')\n"
        "    print(next(told).attrs['err'])\n"
        "    descriptor, stream = node._run_descriptor(Op('test.stream', {}, lambda ok: ok['stream'], 60))\n"
        "    sock = receptor.MeshSocket(descriptor, stream, Address('b', 's'), Address('a', 'x'), node)\n"
        "    try: print('clean end', sock.recv(10))\n"
        "    except receptor.StreamResetError as error: print('reset', error)\n"
        "    print(next(told).attrs['err'])\n"
        "    sock.close()\n"
        "    print(node.status().node)\n"
        "with receptor.Node('b') as node, node.events('peer') as events:\n"
        "    try: call(node, 'link')\n"
        "    except receptor.ClosedError: pass\n"  # The node may be gone before it has answered.
        "    try: events.get(timeout_s=60)\n"
        "    except receptor.ClosedError as error: print(error)\n"
        "    try: node.status()\n"
        "    except receptor.ClosedError: print('closed')\n"
        "with receptor.Node('c') as node: print(node.status().node)\n",
        *handler,
        sources=breakable,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "internal fault in test.panic; the log has the details",
        "an operation",
        "internal fault in test.nil; the log has the details",
        "runtime error: invalid memory address or nil pointer dereference",
        "a goroutine",
        "reset stream to b:s: internal fault: a pump",
        "a pump",
        "a",
        "node 'b' ended: internal fault: a link",
        "closed",
        "c",
    ], done.stderr
    assert done.stderr == "", "the library writes to standard error"


@pytest.mark.parametrize("wanted", [False, True])
def test_a_pipe_that_the_library_finds_broken(python: Interpreter, breakable: Path, wanted: bool) -> None:
    """It does not end the program, as nothing of Python's does, unless the program has asked for that."""
    program = CALL + (
        "if sys.argv[1] == 'wanted': signal.signal(signal.SIGPIPE, signal.SIG_DFL)\n"
        "with receptor.Node('a') as node:\n"
        "    sys.stdin.read()\n"  # Until the reader of standard error is gone.
        "    print(call(node, 'print')['err'], flush=True)\n"
        "    print(node.status().node, flush=True)\n"
    )
    command = [python.path, "-c", program, "wanted" if wanted else ""]
    environ = {**os.environ, "PYTHONPATH": str(breakable)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, env=environ, text=True, **pipes) as process:  # type: ignore[call-overload]
        process.stderr.close()
        process.stdin.close()
        said = process.stdout.read()
    if wanted:
        assert (process.returncode, said) == (-signal.SIGPIPE, "")
    else:
        assert (process.returncode, said) == (0, "write /dev/stderr: broken pipe\na\n")
