"""What can go wrong in the process around a node, in every Python that this machine has, newest first.

Each hazard is a small program that a fresh interpreter runs with warnings as errors. ``make exits`` repeats the
exits under load as often as a release wants them.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import receptor
from receptor import _library

SOURCES = Path(receptor.__file__).parents[1]
EXITS = int(os.environ.get("RECEPTOR_EXITS", "5"))

pytestmark = pytest.mark.skipif(
    not os.path.exists(_library.PATH), reason=f"{os.path.basename(_library.PATH)} is not built"
)


def interpreters() -> dict[str, str]:
    """Version to path of each Python from 3.11 on: this one, those in PATH, and those of pyenv."""
    candidates = [sys.executable, *(path for n in range(11, 20) if (path := shutil.which(f"python3.{n}")))]
    candidates += map(str, Path.home().glob(".pyenv/versions/*/bin/python3"))
    found: dict[str, str] = {}
    for path in candidates:
        told = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
        match = re.fullmatch(r"Python (3\.(\d+)\S*)\n", told.stdout)
        if match and int(match[2]) >= 11:
            found.setdefault(match[1], path)
    newest = sorted(found, key=lambda version: [int(n) for n in re.findall(r"\d+", version)], reverse=True)
    return {version: found[version] for version in newest}


PYTHONS = interpreters()


@pytest.fixture(params=PYTHONS)
def python(request: pytest.FixtureRequest) -> "Interpreter":
    return Interpreter(request.param)


class Interpreter:
    """One of the Pythons."""

    def __init__(self, version: str) -> None:
        self.path = PYTHONS[version]
        self.version = tuple(map(int, re.findall(r"\d+", version)[:2]))

    def run(self, code: str, *options: str) -> "subprocess.CompletedProcess[str]":
        command = [self.path, "-W", "error", "-W", "ignore:This process:DeprecationWarning", *options, "-c", code]
        environ = {**os.environ, "PYTHONPATH": str(SOURCES)}
        return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=300, check=False)

    def prints(self, expected: str, code: str, *options: str) -> None:
        done = self.run(code, *options)
        assert (done.returncode, done.stdout) == (0, expected), done.stderr or done.stdout


def test_load_and_echo(python: Interpreter) -> None:
    python.prints(
        "b'HELLO'\n",
        "import receptor, threading\n"
        "with receptor.Node('a') as node, node.listen('up') as listener:\n"
        "    def serve():\n"
        "        with listener.accept() as sock: sock.sendall(sock.recv(10).upper())\n"
        "    thread = threading.Thread(target=serve); thread.start()\n"
        "    with node.connect('a', 'up') as sock:\n"
        "        sock.sendall(b'hello'); print(sock.recv(10))\n"
        "    thread.join()\n",
    )


def test_a_forked_child_ends_and_is_told(python: Interpreter) -> None:
    python.prints(
        "told\nexit status of the child: 0\n",
        "import receptor, os, sys, gc, time\n"
        "node = receptor.Node('a')\n"
        "listener = node.listen('x')\n"
        "sock = node.connect('a', 'x')\n"
        "far = listener.accept()\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    try: node.status()\n"
        "    except receptor.ForkedProcessError: print('told', flush=True)\n"
        "    del node, sock, far, listener; gc.collect()\n"
        "    sys.exit()\n"
        "print('exit status of the child:', os.waitpid(pid, 0)[1], flush=True)\n"
        "node.close(); sock.close(); far.close(); listener.close()\n",
    )


@pytest.mark.parametrize("mode", ["in-process", "sidecar"])
def test_close_reaches_the_peer_although_a_child_lives(python: Interpreter, mode: str) -> None:
    """Also of a stream that was accepted right before the fork."""
    python.prints(
        "b''\n" * 20,
        "import receptor, os, signal\n"
        f"with receptor.Node('a', mode='{mode}') as node, node.listen('x') as listener:\n"
        "    for _ in range(20):\n"
        "        near = node.connect('a', 'x')\n"
        "        far = listener.accept()\n"
        "        pid = os.fork()\n"
        "        if pid == 0: signal.pause()\n"
        "        try:\n"
        "            far.close()\n"
        "            near.settimeout(60)\n"
        "            print(near.recv(1), flush=True)\n"
        "            near.close()\n"
        "        finally: os.kill(pid, 9); os.waitpid(pid, 0)\n",
    )


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_nodes_in_child_processes(python: Interpreter, method: str, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import receptor, multiprocessing\n"
        "def work(name):\n"
        "    with receptor.Node(name) as node: return node.status().node\n"
        "if __name__ == '__main__':\n"
        f"    with multiprocessing.get_context('{method}').Pool(2) as pool: print(pool.map(work, ['a', 'b', 'c']))\n"
    )
    environ = {**os.environ, "PYTHONPATH": str(SOURCES)}
    done = subprocess.run([python.path, program], env=environ, capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout == "['a', 'b', 'c']\n", done.stderr


def test_prefork_servers(python: Interpreter) -> None:
    """The parent imports the application and forks workers, each of which opens its own node, as gunicorn does."""
    python.prints(
        "[0, 0, 0]\n",
        "import receptor, receptor.aio, os, sys\n"
        "children = []\n"
        "for n in range(3):\n"
        "    pid = os.fork()\n"
        "    if pid == 0:\n"
        "        with receptor.Node(f'worker-{n}') as node: sys.exit(0 if node.status().node else 1)\n"
        "    children.append(pid)\n"
        "print([os.waitpid(pid, 0)[1] for pid in children])\n",
    )


def test_a_broken_pipe_does_not_kill(python: Interpreter) -> None:
    program = (
        "import receptor, sys, os\n"
        "with receptor.Node('a', log_level='debug') as node:\n"
        "    for _ in range(100): node.status()\n"
        "    try:\n"
        "        for _ in range(100_000): print('chatty', flush=True)\n"
        "    except BrokenPipeError:\n"
        "        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)\n"
        "        sys.stderr.write('went on')\n"
    )
    command = f'{python.path} -c "$CODE" 2>$ERR | head -1; echo ${{PIPESTATUS[0]}}'
    err = Path(os.environ.get("TMPDIR", "/tmp")) / f"receptor-err-{os.getpid()}"
    environ = {**os.environ, "PYTHONPATH": str(SOURCES), "CODE": program, "ERR": str(err)}
    done = subprocess.run(
        ["bash", "-c", command], env=environ, capture_output=True, text=True, timeout=300, check=False
    )
    try:
        assert done.stdout == "chatty\n0\n"
        assert err.read_text() == "went on"
    finally:
        err.unlink()


def test_ctrl_c_is_quick(python: Interpreter) -> None:
    done = python.run(
        "import receptor, os, signal, threading\n"
        "def notice(number, frame):\n"
        "    global noticed\n"
        "    if not noticed:\n"
        "        noticed = True\n"
        "        raise KeyboardInterrupt\n"
        "def press():\n"  # Again if it was missed: Python does when it comes in the moment before a wait.
        "    while not over.wait(0.2): os.kill(os.getpid(), signal.SIGINT)\n"
        "signal.signal(signal.SIGINT, notice)\n"
        "slow = receptor.WorkCommand('slow', 'sleep', '60')\n"
        "with receptor.Node('a', work_commands=[slow]) as node, node.listen('s') as listener:\n"
        "    sock, far = node.connect('a', 's'), listener.accept()\n"
        "    unit, inbox, events = node.work.submit('a', 'slow'), node.datagram('y'), node.events('peer')\n"
        "    def send():\n"
        "        while True: sock.sendall(bytes(1 << 20))\n"
        "    for wait in (\n"
        "        lambda: node.wait_route('b'), listener.accept, inbox.recv_from, events.get,\n"
        "        lambda: sock.recv(1), send, unit.wait, lambda: list(unit.stdout()),\n"
        "    ):\n"
        "        noticed, over, presser = False, threading.Event(), threading.Thread(target=press)\n"
        "        try:\n"
        "            presser.start()\n"
        "            wait()\n"
        "        except KeyboardInterrupt: print(True)\n"
        "        over.set()\n"
        "        presser.join()\n"
        "    unit.release(force=True)\n",
        "-W",
        "ignore::ResourceWarning",
    )
    assert done.stdout == "True\n" * 8, done.stderr


def test_faulthandler_before_the_library(python: Interpreter) -> None:
    python.prints(
        "a\n",
        "import receptor\nwith receptor.Node('a') as node: print(node.status().node)\n",
        "-X",
        "faulthandler",
    )


EXIT_PROGRAMS = {
    "streams": (
        "import receptor, threading\n"
        "node = receptor.Node('a', log_level='debug')\n"
        "listener = node.listen('sink')\n"
        "def serve():\n"
        "    for sock in listener:\n"
        "        read = lambda sock=sock: [0 for _ in iter(lambda: sock.recv(65536), b'')]\n"
        "        threading.Thread(target=read, daemon=True).start()\n"
        "def load():\n"
        "    sock = node.connect('a', 'sink')\n"
        "    while True: sock.sendall(bytes(65536))\n"
        "def events():\n"
        "    for event in node.events('peer', 'route', 'service', 'work', 'log'): pass\n"
        "for target in (serve, load, load, events): threading.Thread(target=target, daemon=True).start()\n"
        "threading.Thread(target=lambda: [node.status() for _ in iter(int, 1)], daemon=True).start()\n"
        "for _ in range(20): node.ping('a')\n"
    ),
    "units": (
        "import receptor, threading\n"
        "if __name__ == '__main__':\n"
        "    node = receptor.Node('a')\n"
        "    node.work.offer('thread', lambda unit: None, concurrency=4)\n"
        "    node.work.offer('process', print, mode='process', concurrency=1)\n"
        "    def load(worktype):\n"
        "        while True:\n"
        "            with node.work.submit('a', worktype) as unit: unit.wait(check=False)\n"
        "            done[worktype].release()\n"
        "    done = {'thread': threading.Semaphore(0), 'process': threading.Semaphore(0)}\n"
        "    for worktype in ('thread', 'thread', 'process'):\n"
        "        threading.Thread(target=load, args=(worktype,), daemon=True).start()\n"
        "    for _ in range(10): done['thread'].acquire(); done['process'].acquire()\n"
    ),
    "asyncio": (
        "import receptor.aio, asyncio, sys\n"
        "async def main():\n"
        "    node = await receptor.aio.Node('a', log_level='debug')\n"
        "    async def echo(reader, writer):\n"
        "        while data := await reader.read(65536): writer.write(data); await writer.drain()\n"
        "    server = await node.start_server(echo, 'echo')\n"
        "    async def streams():\n"
        "        reader, writer = await node.open_connection('a', 'echo')\n"
        "        while True: writer.write(bytes(65536)); await writer.drain(); await reader.read(65536)\n"
        "    async def datagrams():\n"
        "        sock = await node.datagram('d')\n"
        "        while True: await sock.send_to(bytes(1000), ('a', 'd')); await sock.recv_from()\n"
        "    async def units():\n"
        "        while True:\n"
        "            async with node.work.submit('a', 'f') as unit: await unit.wait()\n"
        "            done.release()\n"
        "    done = asyncio.Semaphore(0)\n"
        "    await node.work.offer('f', lambda unit: None, concurrency=4)\n"
        "    tasks = [asyncio.ensure_future(load()) for load in (streams, streams, datagrams, units, units)]\n"
        "    for _ in range(20): await done.acquire()\n"
        "    assert not [task for task in tasks if task.done()]\n"
        "    sys.exit()\n"
        "asyncio.run(main())\n"
    ),
}


@pytest.mark.parametrize("load", EXIT_PROGRAMS)
def test_exits_under_load(python: Interpreter, load: str, tmp_path: Path) -> None:
    """Daemon threads and tasks may still say that their node is closed; the process must end in good order."""
    program = tmp_path / "program.py"  # A file: processes for functions import it.
    program.write_text(EXIT_PROGRAMS[load])
    environ = {**os.environ, "PYTHONPATH": str(SOURCES)}
    for _ in range(EXITS):
        command = [python.path, "-W", "ignore", str(program)]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr


def test_subinterpreters(python: Interpreter) -> None:
    if python.version < (3, 12):
        pytest.skip("subinterpreters with a lock of their own came with 3.12")
    module = "_interpreters" if python.version >= (3, 13) else "_xxsubinterpreters"
    run = "run_string" if python.version < (3, 13) else "exec"
    code = 'import receptor\nwith receptor.Node("a") as node: print(node.mode, node.status().node, flush=True)\n'
    done = python.run(
        f"import {module} as i\nid = i.create()\nfailed = i.{run}(id, '''{code}''')\nprint(failed or 'well')\n"
    )
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"(in-process|sidecar) a\nwell\n", done.stdout), done.stdout + done.stderr


def test_the_environment_is_what_the_program_says(python: Interpreter) -> None:
    python.prints(
        "changed given\n",
        "import receptor, os\n"
        "os.environ['ONE'] = 'changed'\n"
        "command = receptor.WorkCommand('env', 'sh', '-c \"echo $ONE $TWO\"')\n"
        "with receptor.Node('a', work_commands=[command], environ={**os.environ, 'TWO': 'given'}) as node:\n"
        "    with node.work.submit('a', 'env') as unit: print(b''.join(unit.stdout()).decode(), end='')\n",
    )


@pytest.mark.parametrize("mode", ["in-process", "sidecar"])
def test_commands_under_a_host_that_reaps_and_blocks(python: Interpreter, mode: str) -> None:
    """Their signal mask is empty and their exit status is theirs, whatever the host does with its children."""
    python.prints(
        "0000000000000000 3\n" * 2,
        "import receptor, os, signal, threading\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGUSR1])\n"
        "def reap():\n"
        "    while True:\n"
        "        try: os.waitpid(-1, 0)\n"
        "        except ChildProcessError: threading.Event().wait(0.001)\n"
        "threading.Thread(target=reap, daemon=True).start()\n"
        "command = receptor.WorkCommand('mask', 'sh', '-c \"grep SigBlk /proc/self/status; exit 3\"')\n"
        "for ignored in (False, True):\n"
        "    if ignored: signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
        f"    with receptor.Node('a', work_commands=[command], mode='{mode}') as node:\n"
        "        with node.work.submit('a', 'mask') as unit:\n"
        "            mask = b''.join(unit.stdout()).split()[1].decode()\n"
        "            print(mask, unit.wait(check=False).exit_code, flush=True)\n",
    )


def test_out_of_descriptors(python: Interpreter) -> None:
    """Every call that needs one says so, and the node goes on when there are some again."""
    python.prints(
        "refused\nworks\n",
        "import receptor, resource\n"
        "hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]\n"
        "with receptor.Node('a') as node, node.listen('x', backlog=100) as listener:\n"
        "    resource.setrlimit(resource.RLIMIT_NOFILE, (40, hard))\n"
        "    held = []\n"
        "    try:\n"
        "        for _ in range(100): held.append(node.connect('a', 'x', timeout_s=5))\n"
        "    except (receptor.ReceptorError, OSError) as error: print('refused')\n"
        "    for sock in held: sock.close()\n"
        "    resource.setrlimit(resource.RLIMIT_NOFILE, (1000, hard))\n"
        "    while True:\n"
        "        try:\n"
        "            with node.connect('a', 'x', timeout_s=5) as sock: break\n"
        "        except (receptor.ReceptorError, OSError): pass\n"
        "    assert node.status().node == 'a'; print('works')\n",
    )


def test_threads_and_descriptors_come_back(python: Interpreter) -> None:
    python.prints(
        "True True\n",
        "import receptor, os, time\n"
        "def count(): return len(os.listdir('/proc/self/fd')), len(os.listdir('/proc/self/task'))\n"
        "def use():\n"
        "    with receptor.Node('a') as node, node.listen('x', backlog=400) as listener:\n"
        "        pairs = [(node.connect('a', 'x'), listener.accept()) for _ in range(300)]\n"
        "        for near, far in pairs: near.sendall(b'x'); far.recv(1); near.close(); far.close()\n"
        "use(); use()\n"
        "first = count()\n"
        "for _ in range(3): use()\n"
        "end = time.monotonic() + 60\n"
        "while count()[0] > first[0] and time.monotonic() < end: time.sleep(0.01)\n"
        "last = count()\n"
        "print(last[0] <= first[0], last[1] <= first[1] + 8)\n",
    )


def test_2000_calls_at_once(python: Interpreter) -> None:
    """The session's socket is full long before; what does not fit waits in the program."""
    python.prints(
        "2000\n",
        "import receptor.aio, asyncio\n"
        "async def main():\n"
        "    async with receptor.aio.Node('a') as node:\n"
        "        print(len(await asyncio.gather(*(node.status() for _ in range(2000)))))\n"
        "asyncio.run(main())\n",
    )


def test_signals_of_the_host_stay_its_own(python: Interpreter) -> None:
    python.prints(
        "15 10 1\n",
        "import receptor, signal, os, time\n"
        "got = []\n"
        "for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):\n"
        "    signal.signal(number, lambda number, frame: got.append(number))\n"
        "with receptor.Node('a') as node:\n"
        "    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):\n"
        "        os.kill(os.getpid(), number); node.status()\n"
        "print(*map(int, got))\n",
    )


def test_an_unhandled_signal_ends_the_process(python: Interpreter) -> None:
    done = python.run(
        "import receptor, os, signal\n"
        "with receptor.Node('a') as node: os.kill(os.getpid(), signal.SIGTERM); signal.pause()\n"
    )
    assert done.returncode == -signal.SIGTERM
