"""What can go wrong in the process around a node, in every Python that this machine has, newest first.

Each hazard is a small program that a fresh interpreter runs with warnings as errors. ``make exits`` repeats the
exits under load as often as a release wants them.
"""

import asyncio
import gc
import os
import re
import shutil
import signal
import subprocess
import warnings
from collections.abc import Sequence
from pathlib import Path

import pytest
from pythons import interpreters

import receptor
from receptor import _library
from receptor._aio_session import owned

SOURCES = Path(receptor.__file__).parents[1]
EXITS = int(os.environ.get("RECEPTOR_EXITS", "5"))

pytestmark = pytest.mark.skipif(
    not os.path.exists(_library.PATH), reason=f"{os.path.basename(_library.PATH)} is not built"
)


PYTHONS = interpreters()


@pytest.fixture(params=PYTHONS)
def python(request: pytest.FixtureRequest) -> "Interpreter":
    return Interpreter(request.param)


class Interpreter:
    """One of the Pythons."""

    def __init__(self, version: str) -> None:
        self.path = PYTHONS[version]
        self.version = tuple(map(int, re.findall(r"\d+", version)[:2]))

    def run(
        self, code: str, *options: str, sources: Path = SOURCES, under: Sequence[str] = ()
    ) -> "subprocess.CompletedProcess[str]":
        command = [
            *under,
            self.path,
            "-W",
            "error",
            "-W",
            "ignore:This process:DeprecationWarning",
            *options,
            "-c",
            code,
        ]
        environ = {**os.environ, "PYTHONPATH": str(sources)}
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


def test_a_forked_child_of_an_asyncio_program_is_told(python: Interpreter) -> None:
    """And neither reads what is its parent's nor takes anything out of the parent's loop."""
    python.prints(
        "told\n" * 7 + "exit status of the child: 0\nb'x'\n",
        "import receptor, receptor.aio, asyncio, os, sys\n"
        "def told(coroutine):\n"
        "    try: coroutine.send(None)\n"
        "    except receptor.ForkedProcessError: print('told', flush=True)\n"
        "async def main():\n"
        "    async with (\n"
        "        receptor.aio.Node('a') as node, node.listen('x') as listener, node.datagram('d') as inbox,\n"
        "        node.events('peer') as events,\n"
        "    ):\n"
        "        reader, writer = await node.open_connection('a', 'x')\n"
        "        waiting = asyncio.ensure_future(listener.accept())\n"
        "        far = await waiting\n"
        "        waiting = asyncio.ensure_future(listener.accept())\n"
        "        await asyncio.sleep(0)\n"
        "        pid = os.fork()\n"
        "        if pid == 0:\n"
        "            told(node.status()); told(listener.accept()); told(inbox.recv_from()); told(events.get())\n"
        "            told(inbox.send_to(b'', ('a', 'd'))); told(far.status()); told(node.start())\n"
        "            await node.close(); listener.close(); inbox.close(); events.close()\n"
        "            os._exit(0)\n"
        "        print('exit status of the child:', os.waitpid(pid, 0)[1], flush=True)\n"
        "        with await node.open_socket('a', 'x'), await waiting: pass\n"
        "        writer.write(b'x')\n"
        "        print(await asyncio.get_running_loop().sock_recv(far, 10))\n"
        "        writer.close(); far.close()\n"
        "asyncio.run(main())\n",
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


def test_prefork_servers_whose_parent_has_a_node(python: Interpreter) -> None:
    """Its workers are told how they can have one too, and end theirs as every program does."""
    done = python.run(
        "import receptor, os, sys\n"
        "parent = receptor.Node('parent')\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    try: receptor.Node('worker')\n"
        "    except receptor.ForkedProcessError as error: print(error, flush=True)\n"
        "    node = receptor.Node('worker', mode='sidecar')\n"
        "    print(node.status().node, flush=True)\n"
        "    sys.exit()\n"
        "print('exit status of the child:', os.waitpid(pid, 0)[1])\n"
    )
    told, *rest = done.stdout.splitlines()
    assert 'open one of the two with Node(..., mode="sidecar")' in told
    assert rest == ["worker", "exit status of the child: 0"]
    assert (done.returncode, done.stderr) == (0, "")


def test_a_broken_pipe_does_not_kill(python: Interpreter, tmp_path: Path) -> None:
    """As in ``python app.py 2>&1 | head -1``, of a program that prints what its node logs."""
    program = tmp_path / "app.py"
    program.write_text(
        "import receptor, logging, os, sys\n"
        "logging.basicConfig(level=logging.DEBUG)\n"
        "logging.raiseExceptions = False\n"
        "with receptor.Node('a', log_level='debug') as node:\n"
        "    try:\n"
        "        while True:\n"
        "            print('chatty', node.status().node, flush=True)\n"
        "            node.remove(node.add_listener())\n"
        "    except BrokenPipeError:\n"
        "        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)\n"
        "    with open(sys.argv[1], 'w') as file: file.write(node.status().node + ' went on')\n"
    )
    last = tmp_path / "last"
    command = f"{python.path} {program} {last} 2>&1 | head -1; echo ${{PIPESTATUS[0]}}"
    environ = {**os.environ, "PYTHONPATH": str(SOURCES)}
    done = subprocess.run(
        ["bash", "-c", command], env=environ, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.stdout.splitlines()[1:] == ["0"]
    assert last.read_text() == "a went on"


def test_ctrl_c_ends_every_wait(python: Interpreter, tmp_path: Path) -> None:
    """Also those for a node, or for one to begin, that does nothing any more."""
    idle = tmp_path / "idle"
    idle.write_text("#!/bin/sh\nexec cat <&3 >/dev/null\n")
    idle.chmod(0o755)
    done = python.run(
        "import receptor, os, signal, socket, threading\n"
        "def notice(number, frame):\n"
        "    global noticed\n"
        "    if not noticed:\n"
        "        noticed = True\n"
        "        raise KeyboardInterrupt\n"
        "def press():\n"  # Again if it was missed: Python does when it comes in the moment before a wait.
        "    while not over.wait(0.2): os.kill(os.getpid(), signal.SIGINT)\n"
        "signal.signal(signal.SIGINT, notice)\n"
        "def for_ever(call):\n"
        "    while True: call()\n"
        "slow = receptor.WorkCommand('slow', 'sleep', '1000')\n"
        "with (\n"
        "    socket.socket(socket.AF_UNIX) as deaf, receptor.Node('a', work_commands=[slow]) as node,\n"
        "    receptor.Node('b', mode='sidecar', peers=[node.add_listener().address]) as b,\n"
        "    node.listen('s') as listener, node.connect('a', 's') as sock, listener.accept() as far,\n"
        "    node.work.submit('a', 'slow') as unit,\n"
        "    node.datagram('y') as inbox, node.datagram('z') as quiet,\n"
        "    receptor.Node('alone') as alone, alone.events() as events,\n"
        "):\n"
        f"    deaf.bind('{tmp_path}/s'); deaf.listen()\n"
        f"    os.environ['RECEPTOR_DAEMON'] = '{idle}'\n"
        "    for wait in (\n"
        "        lambda: node.ping('b', timeout_s=None), lambda: list(node.traceroute('b', timeout_s=None)),\n"
        "        lambda: node.connect('b', 'x', timeout_s=None), lambda: node.work.submit('b', 'x'),\n"
        "        lambda: for_ever(lambda: inbox.send_to(bytes(10_000), ('b', 'x'))),\n"
        "        lambda: for_ever(lambda: inbox.send_to(bytes(10_000), ('b', 'x'), timeout_s=1000)),\n"
        "        lambda: alone.wait_route('c'), listener.accept, lambda: listener.accept(timeout_s=1000),\n"
        "        quiet.recv_from, lambda: quiet.recv_from(timeout_s=1000),\n"
        "        events.get, lambda: events.get(timeout_s=1000),\n"
        "        lambda: sock.recv(1), sock.makefile().read, lambda: for_ever(lambda: sock.sendall(bytes(1 << 20))),\n"
        "        unit.wait, lambda: list(unit.stdout()), lambda: list(unit.stdout(timeout_s=1000)),\n"
        f"        lambda: receptor.Node.attach('{tmp_path}/s', timeout_s=None),\n"
        "        lambda: receptor.Node('c', mode='sidecar', timeout_s=None),\n"
        "        lambda: b.listen('x'), lambda: b.close(1000),\n"
        "    ):\n"
        "        node.wait_route('b')\n"
        "        os.kill(b._sidecar.pid, signal.SIGSTOP)\n"  # Its link lives on for some seconds.
        "        os.waitid(os.P_PID, b._sidecar.pid, os.WSTOPPED)\n"
        "        noticed, over, presser = False, threading.Event(), threading.Thread(target=press)\n"
        "        try:\n"
        "            presser.start()\n"
        "            wait()\n"
        "        except KeyboardInterrupt: print('interrupted')\n"
        "        else: print(wait.__code__.co_firstlineno, 'ended by itself')\n"
        "        finally:\n"
        "            over.set()\n"
        "            presser.join()\n"
        "            os.kill(b._sidecar.pid, signal.SIGCONT)\n",
        "-W",
        "ignore::ResourceWarning",
    )
    assert (done.returncode, done.stdout) == (0, "interrupted\n" * 23), done.stderr


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


@pytest.mark.parametrize("mode", ["in-process", "sidecar"])
@pytest.mark.parametrize("face", ["blocking", "asyncio"])
def test_a_program_uses_its_node_while_it_ends(python: Interpreter, face: str, mode: str) -> None:
    """When Python calls what is registered with atexit, some of them give no new threads any more."""
    program = {
        "blocking": (
            "import receptor, atexit\n"
            f"node = receptor.Node('a', work_commands=[receptor.WorkCommand('cat', 'cat')], mode='{mode}')\n"
            "@atexit.register\n"
            "def last():\n"
            "    with node, node.events('peer'):\n"
            "        with node.work.submit('a', 'cat', b'last') as unit: print(*unit.stdout())\n"
        ),
        "asyncio": (
            "import receptor.aio, asyncio, atexit\n"
            "async def main():\n"
            f"    async with receptor.aio.Node('a', mode='{mode}', work_commands=[cat]) as node:\n"
            "        async with node.work.submit('a', 'cat', iter([b'last'])) as unit:\n"
            "            print(*[chunk async for chunk in unit.stdout()])\n"
            "cat = receptor.WorkCommand('cat', 'cat')\n"
            "atexit.register(lambda: asyncio.run(main()))\n"
        ),
    }[face]
    python.prints("b'last'\n", program)


@pytest.mark.parametrize("way", ["run", "left", "closed", "in a thread"])
def test_an_asyncio_node_that_is_left_open_is_quiet(python: Interpreter, way: str) -> None:
    """However its loop ends, or goes on, when the program does: asyncio has no lost tasks to complain of."""
    program = (
        "import receptor.aio, asyncio, threading\n"
        "async def main():\n"
        "    global kept\n"
        "    node = await receptor.aio.Node('a', log_level='debug')\n"
        "    async def echo(reader, writer):\n"
        "        while data := await reader.read(100): writer.write(data)\n"
        "    server = await node.start_server(echo, 'echo')\n"
        "    reader, writer = await node.open_connection('a', 'echo')\n"
        "    writer.write(b'x'); print(await reader.read(1))\n"
        "    started = asyncio.Event()\n"
        "    async def endless(unit):\n"
        "        started.set()\n"
        "        await asyncio.Event().wait()\n"
        "    await node.work.offer('endless', endless)\n"
        "    unit = await node.work.submit('a', 'endless')\n"
        "    await started.wait()\n"
        "    kept = reader, writer, node, server, unit\n"
        f"way = '{way}'\n"
        "if way == 'run': asyncio.run(main())\n"
        "else:\n"
        "    loop, ready = asyncio.new_event_loop(), threading.Event()\n"
        "    def go_on(): loop.run_until_complete(main()); ready.set(); loop.run_forever()\n"
        "    if way == 'in a thread': threading.Thread(target=go_on, daemon=True).start(); ready.wait()\n"
        "    else: loop.run_until_complete(main())\n"
        "    if way == 'closed': loop.close()\n"
    )
    command = [python.path, "-c", program]  # With the warnings that a user sees.
    environ = {**os.environ, "PYTHONPATH": str(SOURCES)}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "b'x'\n", "")


def test_eager_tasks(python: Interpreter) -> None:
    if python.version < (3, 12):
        pytest.skip("this Python has none")
    python.prints(
        "b'said' b'X'\n",
        "import receptor.aio, asyncio\n"
        "async def main():\n"
        "    asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)\n"
        "    async def shout(unit): return (await unit.read()).upper()\n"
        "    async def say(reader, writer): writer.write(b'said')\n"
        "    async with receptor.aio.Node('a') as node, await node.start_server(say, 's'):\n"
        "        await node.work.offer('shout', shout)\n"
        "        reader, writer = await node.open_connection('a', 's')\n"
        "        async with node.work.submit('a', 'shout', b'x') as unit:\n"
        "            print(await reader.read(), *[chunk async for chunk in unit.stdout()])\n"
        "        writer.close()\n"
        "        await writer.wait_closed()\n"
        "asyncio.run(main())\n",
    )


def test_private_names_of_asyncio_do_not_matter(python: Interpreter) -> None:
    """A Python that calls them otherwise is one in which streams and tasks do what they do in this one."""
    python.prints(
        "b'abc' b'de\\n' b'fg' b'hi' b'j'\nFalse True\n",
        "import asyncio, asyncio.streams as streams, inspect, re, sys\n"
        "source = re.sub(r'(?<!sys[.])\\b_([a-z])', r'_other_\\1', inspect.getsource(streams))\n"
        "exec(compile(source, streams.__file__, 'exec'), streams.__dict__)\n"
        "for name in streams.__all__: setattr(asyncio, name, getattr(streams, name))\n"
        "class Task(asyncio.Task):\n"
        "    def __setattr__(self, name, value):\n"
        "        ours = 'receptor' in sys._getframe(1).f_code.co_filename\n"
        "        if name.startswith('_') and ours: raise AttributeError(name)\n"
        "        super().__setattr__(name, value)\n"
        "import receptor.aio\n"
        "async def main():\n"
        "    loop = asyncio.get_running_loop()\n"
        "    loop.set_task_factory(lambda loop, coroutine, **options: Task(coroutine, loop=loop, **options))\n"
        "    async with receptor.aio.Node('a') as node, node.listen('x') as listener:\n"
        "        reader, near = await node.open_connection('a', 'x')\n"
        "        _, far = await (await listener.accept()).streams()\n"
        "        waits = asyncio.create_task(reader.read(3))\n"
        "        await asyncio.sleep(0)\n"
        "        far.write(b'abcde\\nfghi')\n"
        "        print(await waits, await reader.readline(), await reader.readexactly(2), end=' ')\n"
        "        print(await reader.read(9), end=' ')\n"
        "        waits = asyncio.create_task(reader.read())\n"
        "        await asyncio.sleep(0)\n"
        "        far.write(b'j'); far.write_eof()\n"
        "        print(await waits)\n"
        "        sides = []\n"
        "        async def start_tls(*_, server_side=False, **options): sides.append(server_side); raise OSError\n"
        "        loop.start_tls = start_tls\n"
        "        for writer in near, far:\n"
        "            try: await writer.start_tls(None)\n"
        "            except OSError: writer.close()\n"
        "        print(*sides)\n"
        "asyncio.run(main())\n",
    )


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
        "1\nchanged given\n",
        "import receptor, os, tempfile\n"
        "os.environ['ONE'] = 'changed'\n"
        "command = receptor.WorkCommand('env', 'sh', '-c \"echo $ONE $TWO\"')\n"
        "with tempfile.TemporaryDirectory() as folder:\n"
        "    os.environ['TMPDIR'] = folder\n"
        "    with receptor.Node('a', work_commands=[command]) as node, node.work.submit('a', 'env'):\n"
        "        print(len(os.listdir(folder)))\n"
        "    del os.environ['TMPDIR']\n"
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
        "refused\n" * 8 + "works\n" * 8,
        "import receptor, resource, os\n"
        "cat = receptor.WorkCommand('cat', 'cat')\n"
        "with receptor.Node('a', work_commands=[cat]) as node, node.listen('x', backlog=100) as listener:\n"
        "    def stream():\n"
        "        with node.connect('a', 'x', timeout_s=5), listener.accept(): pass\n"
        "    def unit():\n"
        "        with node.work.submit('a', 'cat', b'x') as unit: assert b''.join(unit.stdout()) == b'x'\n"
        "    def subscriptions():\n"  # There is a session for the first.
        "        with node.events(), node.events(): pass\n"
        "    calls = (\n"
        "        stream, unit,\n"
        "        lambda: node.listen().close(), lambda: node.datagram().close(), subscriptions,\n"
        "        lambda: node.work.offer('f', print).close(), lambda: node.remove(node.add_listener()),\n"
        "        lambda: receptor.Node('b').close(),\n"
        "    )\n"
        "    for call in calls: call()\n"  # What is read or made once is there.
        "    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)\n"
        "    resource.setrlimit(resource.RLIMIT_NOFILE, (60, hard))\n"
        "    held = []\n"
        "    for call in calls:\n"
        "        try:\n"
        "            while True: held.append(os.open('/dev/null', os.O_RDONLY))\n"
        "        except OSError: pass\n"
        "        try: call()\n"
        "        except (receptor.ReceptorError, OSError) as error: print('refused')\n"
        "    for fd in held: os.close(fd)\n"
        "    for call in calls: call(); print('works')\n",
    )


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="needs root to give up, and setpriv")
def test_more_is_under_way_than_the_kernel_allows(python: Interpreter) -> None:
    """Descriptors that a user has sent and not received are limited (ETOOMANYREFS), for all but a root with its powers.

    A stream that cannot be handed to the program is reset and never ends as if in good order; later ones are taken.
    """
    powers = "-sys_resource,-sys_admin"
    done = python.run(
        "import receptor, resource, socket\n"
        "_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)\n"
        "with (\n"
        "    receptor.Node('a') as node, node.listen('x') as listener, node.events('log') as log,\n"
        "    receptor.Node('b', mode='sidecar', peers=[node.add_listener().address]) as b,\n"
        "):\n"
        "    b.wait_route('a')\n"
        "    def under_way():\n"
        "        one, other = socket.socketpair()\n"
        "        with one, other: socket.send_fds(left, [b'+'], [one.fileno()])\n"
        "    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
        "    resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))\n"
        "    try:\n"
        "        while True: under_way()\n"
        "    except OSError as error: print(error.strerror)\n"
        "    with b.connect('a', 'x') as sock:\n"
        "        try: print('clean end', sock.recv(1))\n"
        "        except receptor.StreamResetError: print('reset')\n"
        "    print(next(event.message for event in log if 'refused' in event.message))\n"
        "    left.close(); right.close()\n"
        "    while True:\n"
        "        with b.connect('a', 'x') as sock:\n"
        "            try: far = listener.accept(timeout_s=1)\n"
        "            except TimeoutError: continue\n"  # The kernel has yet to see that what was under way is gone.
        "            with far: far.sendall(b'x'); print(sock.recv(1)); break\n",
        under=["setpriv", "--bounding-set", powers, "--inh-caps", powers],
    )
    assert done.stdout.splitlines() == [
        "Too many references: cannot splice",
        "reset",
        "stream refused: it cannot be handed to the program",
        "b'x'",
    ], done.stderr


def test_a_thousand_streams_leave_nothing(python: Interpreter) -> None:
    """They cost descriptors, and neither threads nor, once over, anything."""
    python.prints(
        "True True\n",
        "import receptor, receptor._library, os, resource, time\n"
        "_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))\n"
        "def threads(): return len(os.listdir('/proc/self/task'))\n"
        "def left(): return len(os.listdir('/proc/self/fd')), receptor._library.dump().count('\\ngoroutine ')\n"
        "def use(count):\n"
        "    with receptor.Node('a') as node, node.listen('x', backlog=1024) as listener:\n"
        "        def pair(): return node.connect('a', 'x', timeout_s=60), listener.accept(timeout_s=60)\n"
        "        before = threads()\n"
        "        pairs = [pair() for _ in range(count)]\n"
        "        for near, far in pairs: near.sendall(b'x'); far.recv(1)\n"
        "        grown = threads() - before\n"
        "        for near, far in pairs: near.close(); far.close()\n"
        "    return grown\n"
        "use(10)\n"
        "empty, grown = left(), use(1000)\n"
        "def back(): return all(map(int.__le__, left(), empty))\n"
        "end = time.monotonic() + 60\n"
        "while not (over := back()) and time.monotonic() < end: time.sleep(0.01)\n"  # One look decides.
        "print(grown <= 16 or grown, over or (left(), empty))\n",
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


def test_the_limit_on_open_files_stays(python: Interpreter) -> None:
    """In the program, in what it starts, and in the work commands of its node."""
    python.prints(
        "256\n" * 3,
        "import receptor, resource, subprocess\n"
        "hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))\n"
        "limit = receptor.WorkCommand('limit', 'sh', '-c \"ulimit -Sn\"')\n"
        "with receptor.Node('a', work_commands=[limit]) as node:\n"
        "    print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])\n"
        "    print(subprocess.check_output('ulimit -Sn', shell=True, text=True), end='')\n"
        "    with node.work.submit('a', 'limit') as unit: print(b''.join(unit.stdout()).decode(), end='')\n",
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


@pytest.mark.parametrize("ours", [False, True])
def test_a_coroutine_whose_loop_ends_before_it_begins_is_quiet(ours: bool) -> None:
    """Where a task is a node's. Python complains of any other."""

    async def nothing() -> None:
        pass

    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda _loop, _context: None)
    task = owned(loop, nothing()) if ours else loop.create_task(nothing())
    loop.close()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        del task
        gc.collect()
    assert [str(warning.message) for warning in said if "never awaited" in str(warning.message)] == (
        [] if ours else [f"coroutine '{nothing.__qualname__}' was never awaited"]
    )
