"""Functions of a program as work types."""

import asyncio
import functools
import gc
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import types
import weakref
from collections.abc import AsyncIterator, Iterator
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import pytest
from meshes import Mesh

import receptor
from receptor._fds import receive
from receptor._session import Descriptor
from receptor.errors import ProtocolError

resource_tracker.ensure_running()  # It lives as long as this process, once a child was spawned.


def shout(unit: receptor.WorkContext) -> bytes:
    return unit.stdin.read().upper()


def much(unit: receptor.WorkContext) -> bytes:
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))  # Of the function's own process.
    return b"x" * (3 << 20)


def own_process(unit: receptor.WorkContext) -> str:
    unit.progress("running")
    return f"{os.getpid()} {unit.params.get('who', '')}"


cached = functools.lru_cache(own_process)


class Kind:
    @classmethod
    def kind(cls, unit: receptor.WorkContext) -> str:
        return cls.__name__


class Derived(Kind): ...


def stuck(unit: receptor.WorkContext) -> None:
    unit.stdout.write(b"%d\n" % os.getpid())
    time.sleep(600)


class Mute(Exception):
    def __str__(self) -> str:
        return str(1 // 0)


def crash_leaving_a_child(unit: receptor.WorkContext) -> None:
    child = os.fork()
    if child == 0:
        signal.pause()
    unit.stdout.write(b"%d" % child)
    os.kill(os.getpid(), signal.SIGKILL)


def forks(unit: receptor.WorkContext) -> str:
    """The child comes back as well, and its parent waits for it."""
    child = os.fork()
    if child == 0:
        match unit.params["how"]:
            case "return":
                return "the child's"
            case "raise":
                raise ValueError("the child's")
            case "exit":
                sys.exit(3)
    return f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])} {unit.params['how']}"


class Cut(Exception):
    def __str__(self) -> str:
        raise KeyboardInterrupt


class Called:
    def method(self, unit: receptor.WorkContext) -> None: ...


class CalledLater:
    async def __call__(self, unit: receptor.aio.AsyncWorkContext) -> bytes:
        return await unit.read()


def prints(unit: receptor.WorkContext) -> None:
    print("printed")


def yields(unit: receptor.WorkContext) -> Iterator[bytes]:
    yield b"never asked for"


async def yields_later(unit: receptor.WorkContext) -> AsyncIterator[bytes]:
    yield b"never asked for"


def crash(unit: receptor.WorkContext) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_function_is_work_for_others(nodes: Mesh) -> None:
    a, b = nodes.pair()
    with b.work.offer("shout", shout):
        with a.work.submit("b", "shout", "hello") as unit:
            assert b"".join(unit.stdout(timeout_s=60)) == b"HELLO"
            assert unit.wait(timeout_s=60).exit_code == 0
        with pytest.raises(receptor.AddressInUse, match="already registered"):
            b.work.offer("shout", shout)
        offers = [offer.worktype for ad in b.status().advertisements if ad.node == "b" for offer in ad.work]
        assert "shout" in offers
    with pytest.raises(receptor.WorkTypeError):
        b.work.submit("b", "shout")


def test_how_a_function_can_end(nodes: Mesh) -> None:
    node = nodes.node("a")

    @node.work.handler("end")
    def end(unit: receptor.WorkContext) -> Any:
        unit.stdout.write(b"out\n")
        match unit.params["how"]:
            case "raise":
                raise ValueError("no such image")
            case "exit":
                raise SystemExit(3)
            case "exit 300":
                sys.exit(300)
            case "exit with words":
                sys.exit("nothing to do")
            case "wrong":
                return 42
            case "coroutine":
                return asyncio.sleep(0)
            case "every second byte":
                return memoryview(b"yXeXsX")[::2]
            case "odd progress":
                unit.progress(b"half")  # type: ignore[arg-type]
            case "interrupt":
                raise KeyboardInterrupt
            case "mute":
                raise Mute
            case "odd text":
                raise ValueError("\udcff")
            case "much text":
                unit.progress("\N{GRINNING FACE}" * 9000)
                raise ValueError("\N{GRINNING FACE}" * 9000)
            case "closed":
                unit.stdout.close()
        return "text"

    def run(how: str) -> tuple[receptor.WorkResult, bytes]:
        with node.work.submit("a", "end", params={"how": how}) as unit:
            result = unit.wait(timeout_s=60, check=False)
            return result, b"".join(unit.stdout())

    result, output = run("return")
    assert (result.state, output) == (receptor.WorkState.SUCCEEDED, b"out\ntext")
    result, output = run("raise")
    assert (result.state, result.detail) == (receptor.WorkState.FAILED, "ValueError: no such image")
    frames = [line for line in output.splitlines() if line.startswith(b"  File ")]
    assert output.startswith(b"out\nTraceback")
    assert len(frames) == 1, "the traceback begins with the function"
    assert b"in end" in frames[0]
    assert run("exit")[0].exit_code == 3
    assert run("exit 300")[0].exit_code == 300 % 256, "as of a process"
    result, output = run("exit with words")
    assert (result.exit_code, output) == (1, b"out\nnothing to do\n")
    assert "returns bytes, str or None, not int" in run("wrong")[0].detail
    assert "offer one that is made with async def" in run("coroutine")[0].detail
    assert run("every second byte")[1] == b"out\nyes"
    assert run("odd progress")[0].detail == "ConfigError: text=b'half': want a str"
    assert run("interrupt")[0].detail == "KeyboardInterrupt"
    assert run("mute")[0].detail == "Mute: its text cannot be told, because of ZeroDivisionError"
    result, output = run("odd text")
    assert result.detail.startswith("ValueError: ")
    assert output.endswith(b"ValueError: \\udcff\n")
    assert run("much text")[0].detail.startswith("ValueError: \N{GRINNING FACE}")
    result, output = run("closed")
    assert (result.detail, output) == ("ValueError: I/O operation on closed file", b"out\n")


def test_a_function_hears_that_its_unit_is_cancelled(nodes: Mesh) -> None:
    node = nodes.node("a")
    heard = threading.Event()

    @node.work.handler("patient")
    def patient(unit: receptor.WorkContext) -> None:
        unit.progress("waiting")
        while not unit.cancelled:
            time.sleep(0.001)
        heard.set()
        unit.check_cancelled()

    with node.events("work") as events, node.work.submit("a", "patient") as unit:
        for event in events:
            assert isinstance(event, receptor.WorkChanged)
            if event.status.detail == "waiting":
                break
        unit.cancel()
        with pytest.raises(receptor.WorkCancelled):
            unit.wait(timeout_s=60)
    assert heard.wait(60)


def test_units_wait_for_their_turn(nodes: Mesh) -> None:
    node = nodes.node("a")
    lock, running, most = threading.Lock(), 0, 0
    both = threading.Barrier(2)

    @node.work.handler("few", concurrency=2)
    def few(unit: receptor.WorkContext) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        both.wait(60)
        with lock:
            running -= 1

    units = [node.work.submit("a", "few") for _ in range(10)]
    for unit in units:
        unit.wait(timeout_s=60)
        unit.release()
    assert most == 2


def test_an_offer_that_was_closed_is_forgotten(nodes: Mesh) -> None:
    node = nodes.node("a")
    offer = node.work.offer("shout", shout)
    left = weakref.ref(offer)
    offer.close()
    del offer
    gc.collect()
    assert left() is None


def test_an_offer_that_nobody_has_closed_is_kept(nodes: Mesh) -> None:
    node = nodes.node("a")
    offer = node.work.offer("shout", shout)
    left = weakref.ref(offer)
    offer._sock.shutdown(socket.SHUT_RDWR)
    offer._thread.join()
    del offer
    gc.collect()
    assert left() is not None, "nobody would end its processes"


class Losing:
    """A recvmsg that loses the descriptors of the first unit, as at the limit on open files."""

    def __init__(self) -> None:
        self.lost = False

    def __call__(self, sock: socket.socket, size: int) -> tuple[bytes, list[Descriptor]]:
        data, descriptors = receive(sock, size)
        if len(descriptors) == 3 and not self.lost:
            self.lost = True
            for descriptor in descriptors:
                descriptor.close()
            raise ProtocolError("a descriptor was lost on its way")
        return data, descriptors


def test_a_unit_that_is_lost_at_the_limit_is_the_only_one(nodes: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    node = nodes.node("a")
    monkeypatch.setattr("receptor._functions.receive", Losing())
    node.work.offer("shout", shout)
    with node.work.submit("a", "shout", "hello") as lost, pytest.raises(receptor.WorkFailed, match="without a result"):
        lost.wait(timeout_s=60)
    with node.work.submit("a", "shout", "hello") as unit:
        assert b"".join(unit.stdout(timeout_s=60)) == b"HELLO"


async def test_so_it_is_for_asyncio(nodes: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes.node("hub")
    async with nodes.aio_node("a") as node:
        monkeypatch.setattr("receptor._fds.receive", Losing())
        await node.work.offer("shout", shout)
        async with node.work.submit("a", "shout", "hello") as lost:
            with pytest.raises(receptor.WorkFailed, match="without a result"):
                await lost.wait(timeout_s=60)
        async with node.work.submit("a", "shout", "hello") as unit:
            assert b"".join([chunk async for chunk in unit.stdout()]) == b"HELLO"


def test_functions_in_processes_of_their_own() -> None:
    with receptor.Node("a") as node:
        node.work.offer("pid", own_process, mode="process", concurrency=1)
        pids = set()
        for who in ("x", "y"):
            with node.work.submit("a", "pid", params={"who": who}) as unit:
                pid, said = b"".join(unit.stdout(timeout_s=60)).decode().split()
                unit.wait(timeout_s=60)
                assert said == who
                pids.add(int(pid))
        assert os.getpid() not in pids
        assert len(pids) == 1, "the process was not used again"
        node.work.offer("stuck", stuck, mode="process")
        with node.work.submit("a", "stuck") as unit:
            end = os.pidfd_open(int(next(unit.stdout(timeout_s=60))))
            unit.cancel()
            with pytest.raises(receptor.WorkCancelled):
                unit.wait(timeout_s=60)
        with os.fdopen(end, "rb"):
            assert select.select([end], [], [], 60)[0], "the process goes on"
        node.work.offer("crash", crash, mode="process")
        with node.work.submit("a", "crash") as unit:
            with pytest.raises(receptor.WorkFailed, match="ended by signal SIGKILL"):
                unit.wait(timeout_s=60)
        node.work.offer("leave", crash_leaving_a_child, mode="process")
        with node.work.submit("a", "leave") as unit:
            with pytest.raises(receptor.WorkFailed, match="ended by signal SIGKILL"):
                unit.wait(timeout_s=60)
            os.kill(int(b"".join(unit.stdout(timeout_s=60))), signal.SIGKILL)
        with pytest.raises(receptor.ConfigError, match="top of a module"):
            node.work.offer("lambda", lambda unit: None, mode="process")


def test_a_process_runs_what_was_offered_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    with receptor.Node("a") as node:
        with pytest.raises(receptor.ConfigError, match="own_process cannot be found .* what is wrapped around it"):
            node.work.offer("cached", cached, mode="process")
        node.work.offer("kind", Derived.kind, mode="process")
        with node.work.submit("a", "kind") as unit:
            assert b"".join(unit.stdout(timeout_s=60)) == b"Derived"
        node.work.offer("shout", shout, mode="process")
        monkeypatch.setattr(sys.modules[__name__], "shout", own_process)
        with node.work.submit("a", "shout") as unit:
            with pytest.raises(
                receptor.WorkFailed, match="LookupError: another function than the one that was offered"
            ):
                unit.wait(timeout_s=60)


def test_what_a_function_in_a_process_prints_is_out_when_it_ends(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    with receptor.Node("a") as node:
        node.work.offer("prints", prints, mode="process")
        with node.work.submit("a", "prints") as unit:
            unit.wait(timeout_s=60)
            assert capfd.readouterr().out == "printed\n"


def test_a_process_that_a_function_forks_speaks_for_no_unit() -> None:
    with receptor.Node("a") as node:
        node.work.offer("forks", forks, mode="process", concurrency=1)
        for how, status in [("return", 0), ("raise", 1), ("exit", 3)]:
            with node.work.submit("a", "forks", params={"how": how}) as unit:
                unit.wait(timeout_s=60)
                assert b"".join(unit.stdout(timeout_s=60)).decode() == f"{status} {how}"


def test_a_forked_asyncio_program_speaks_for_no_unit(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import asyncio, os, receptor\n"
        "async def forks(unit):\n"
        "    child = os.fork()\n"
        "    return 'of the child' if child == 0 else str(os.waitpid(child, 0)[1])\n"
        "async def main():\n"
        "    async with receptor.aio.Node('a') as node:\n"
        "        await node.work.offer('x', forks)\n"
        "        async with node.work.submit('a', 'x') as unit:\n"
        "            print((await unit.wait(timeout_s=60)).detail, [chunk async for chunk in unit.stdout()])\n"
        "asyncio.run(main())\n"
    )
    command = [sys.executable, "-W", "ignore::DeprecationWarning", str(program)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert (done.stdout, done.stderr) == ("exit status 0 [b'0']\n", "")


def test_processes_of_a_program_without_a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    with receptor.Node("a") as node:
        node.work.offer("pid", own_process, mode="process")
        with monkeypatch.context() as within:
            within.chdir(gone)
            gone.rmdir()
            with node.work.submit("a", "pid") as unit:
                with pytest.raises(receptor.WorkFailed, match="the working directory of this program has been removed"):
                    unit.wait(timeout_s=60)
        with node.work.submit("a", "pid") as unit:
            unit.wait(timeout_s=60)


def test_a_function_that_another_process_does_not_find(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "if __name__ == '__main__':\n"
        "    import receptor\n"
        "    def hidden(unit): return 'done'\n"
        "    with receptor.Node('a') as node:\n"
        "        node.work.offer('x', hidden, mode='process')\n"
        "        with node.work.submit('a', 'x') as unit: print(unit.wait(timeout_s=60, check=False).detail)\n"
    )
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout.startswith(
        "LookupError: hidden is not there when another process imports the program: define it"
    )
    assert done.stderr == ""
    made = types.ModuleType("made")
    exec("def function(unit): ...", vars(made))
    with receptor.Node("a") as node, pytest.raises(receptor.ConfigError, match="there is no module made to import"):
        node.work.offer("x", made.function, mode="process")


def test_ctrl_c_while_a_process_for_functions_starts_is_not_its_matter(tmp_path: Path) -> None:
    """Every process of a terminal gets it, and the one that starts would tell of its own end."""
    program = tmp_path / "program.py"
    program.write_text(
        "import os, receptor, signal\n"
        "if __name__ == '__mp_main__': os.kill(os.getpid(), signal.SIGINT)\n"
        "def gets_it(unit): return str(signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ()))\n"
        "if __name__ == '__main__':\n"
        "    with receptor.Node('a') as node:\n"
        "        node.work.offer('x', gets_it, mode='process')\n"
        "        with node.work.submit('a', 'x') as unit: print(b''.join(unit.stdout(timeout_s=60)))\n"
    )
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "b'True'\n", "")


async def test_a_function_that_is_offered_while_the_node_closes(caplog: pytest.LogCaptureFixture) -> None:
    """Nobody is left to offer it to, and nothing is left over."""
    for turns in range(4):
        async with receptor.aio.Node("a") as node:
            node.work.handler("x")(shout)
            for _ in range(turns):
                await asyncio.sleep(0)
    gc.collect()
    assert not caplog.records


def test_a_handler_without_its_name_is_a_mistake(nodes: Mesh) -> None:
    def function(unit: object) -> None: ...

    node = nodes.node("a")
    for work in (node.work, nodes.aio_node("b").work):
        with pytest.raises(receptor.ConfigError, match="worktype=<function .*>: want its name"):
            work.handler(function)  # type: ignore[arg-type]


def test_what_cannot_be_offered() -> None:
    async def later(unit: receptor.aio.AsyncWorkContext) -> None: ...

    with receptor.Node("a") as node:
        with pytest.raises(receptor.ConfigError, match=r"offer it on a receptor\.aio\.Node"):
            node.work.offer("x", later)  # type: ignore[arg-type]
        with pytest.raises(receptor.ConfigError, match=r"offer it on a receptor\.aio\.Node"):
            node.work.offer("x", CalledLater())  # type: ignore[arg-type]
        for generator in (yields, functools.partial(yields), yields_later):
            with pytest.raises(receptor.ConfigError, match=r"is a generator function: write to unit\.stdout"):
                node.work.offer("x", generator)
        with pytest.raises(receptor.ConfigError, match="want thread or process"):
            node.work.offer("x", shout, mode="fiber")  # type: ignore[arg-type]
        with pytest.raises(receptor.ConfigError, match="concurrency"):
            node.work.offer("x", shout, concurrency=-1)
        with pytest.raises(receptor.ConfigError, match=r"Called\.method cannot be found .* with its object"):
            node.work.offer("x", Called().method, mode="process")


def test_closing_the_node_does_not_wait_for_a_stubborn_function() -> None:
    started, goes_on = threading.Event(), threading.Event()

    def stubborn(unit: receptor.WorkContext) -> None:
        started.set()
        goes_on.wait(60)

    with receptor.Node("a") as node:
        node.work.offer("stubborn", stubborn)
        node.work.submit("a", "stubborn").detach()
        assert started.wait(60)
    assert node.closed
    goes_on.set()


@pytest.mark.parametrize("given", ["-c", "standard input"])
def test_a_program_in_no_file_cannot_have_processes_for_its_functions(given: str) -> None:
    program = (
        "import receptor\n"
        "def f(unit): return 'done'\n"
        "with receptor.Node('a') as node:\n"
        "    try: node.work.offer('x', f, mode='process')\n"
        "    except receptor.ConfigError as error: print(error)\n"
    )
    command = [sys.executable, "-c", program] if given == "-c" else [sys.executable, "-"]
    done = subprocess.run(command, input=program, capture_output=True, text=True, timeout=60)
    assert "f cannot be found by another process, as this program is in no file" in done.stdout
    assert (done.returncode, done.stderr) == (0, "")


def test_a_program_without_guard_does_not_run_twice(tmp_path: Path) -> None:
    """A worker process reads the program, and must not become a second node of the same name."""
    program = tmp_path / "program.py"
    program.write_text(
        "import receptor\n"
        "def f(unit): return 'done'\n"
        "node = receptor.Node('a')\n"
        "print('opened', flush=True)\n"
        "node.work.offer('x', f, mode='process')\n"
        "with node.work.submit('a', 'x') as unit: print(unit.wait(timeout_s=60, check=False).detail)\n"
    )
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == [
        "opened",
        "the process of the function ended with exit code 1; what it says is on standard error",
    ]
    assert 'put what the program does under: if __name__ == "__main__":' in done.stderr


async def until_waiting(events: receptor.aio.EventStream) -> None:
    """Return once a unit has said that it waits."""
    async for event in events:
        if isinstance(event, receptor.WorkChanged) and event.status.detail == "waiting":
            break


async def test_a_cancelled_function_may_await_while_it_cleans_up(nodes: Mesh) -> None:
    nodes.node("hub")
    cleaned = asyncio.Event()

    async def tidy(unit: receptor.aio.AsyncWorkContext) -> None:
        unit.progress("waiting")
        try:
            await asyncio.Event().wait()
        finally:
            for _ in range(10):
                await asyncio.sleep(0)  # Time for the loop to look at all its sockets again.
            await unit.write(b"cleaned up")
            cleaned.set()

    async with nodes.aio_node("a") as node:
        await node.work.offer("tidy", tidy)
        async with node.events("work") as events, node.work.submit("a", "tidy") as unit:
            await until_waiting(events)
            await unit.cancel()
            with pytest.raises(receptor.WorkCancelled):
                await unit.wait(timeout_s=60)
            assert b"".join([chunk async for chunk in unit.stdout()]) == b"cleaned up"
        assert cleaned.is_set()


async def test_functions_of_asyncio(nodes: Mesh) -> None:
    nodes.node("hub")
    node = nodes.aio_node("a")
    cancelled = asyncio.Event()

    @node.work.handler("shout")
    async def shout_async(unit: receptor.aio.AsyncWorkContext) -> bytes:
        text = await unit.read()
        await unit.write(b"> ")
        return text.upper()

    @node.work.handler("thread")
    def in_a_thread(unit: receptor.WorkContext) -> str:
        return str(threading.current_thread() is not threading.main_thread())

    async def endless(unit: receptor.aio.AsyncWorkContext) -> None:
        unit.progress("waiting")
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async def wrong(unit: receptor.aio.AsyncWorkContext) -> None:
        raise ValueError("no")

    async with node:
        async with node.work.submit("a", "shout", b"hi") as unit:
            assert b"".join([chunk async for chunk in unit.stdout()]) == b"> HI"
        async with node.work.submit("a", "thread") as unit:
            assert b"".join([chunk async for chunk in unit.stdout()]) == b"True"
        await node.work.offer("endless", endless)
        async with node.events("work") as events, node.work.submit("a", "endless") as unit:
            await until_waiting(events)
            await unit.cancel()
            with pytest.raises(receptor.WorkCancelled):
                await unit.wait(timeout_s=60)
        await asyncio.wait_for(cancelled.wait(), 60)
        offer = await node.work.offer("wrong", wrong)
        async with node.work.submit("a", "wrong") as unit:
            with pytest.raises(receptor.WorkFailed, match="ValueError: no"):
                await unit.wait(timeout_s=60)
        offer.close()
        await node.work.offer("pid", own_process, mode="process")
        async with node.work.submit("a", "pid") as unit:
            assert int(b"".join([chunk async for chunk in unit.stdout()])) != os.getpid()


async def test_no_end_of_an_asyncio_function_ends_its_program(nodes: Mesh) -> None:
    nodes.node("hub")
    ends: dict[str, BaseException] = {
        "exit status 3": SystemExit(3),
        "exit status 1": SystemExit("nothing to do"),
        "BaseException: odd": BaseException("odd"),
        "Mute: its text cannot be told, because of ZeroDivisionError": Mute(),
        "Cut: its text cannot be told, because of KeyboardInterrupt": Cut(),
        "cancelled": asyncio.CancelledError(),
    }

    async def end(unit: receptor.aio.AsyncWorkContext) -> None:
        raise ends[unit.params["how"]]

    async with nodes.aio_node("a") as node:
        await node.work.offer("end", end)
        for detail in ends:
            async with node.work.submit("a", "end", params={"how": detail}) as unit:
                assert (await unit.wait(timeout_s=60, check=False)).detail == detail
        await node.work.offer("object", CalledLater())
        async with node.work.submit("a", "object", b"hi") as unit:
            assert b"".join([chunk async for chunk in unit.stdout()]) == b"hi"


def test_a_unit_fails_when_its_program_ends(tmp_path: Path) -> None:
    """The record of a unit outlives the function's process."""
    program = (
        "import receptor, sys, time\n"
        "node = receptor.Node('a', data_dir=sys.argv[1])\n"
        "node.work.offer('x', lambda unit: (unit.progress('on it'), time.sleep(600))[0])\n"
        "with node.events('work') as events:\n"
        "    unit = node.work.submit('a', 'x')\n"
        "    for event in events:\n"
        "        if event.status.detail == 'on it': break\n"
        "print(unit.id, flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        unit_id = process.stdout.readline().strip()
        process.kill()
    with receptor.Node("a", data_dir=tmp_path) as node:
        status = node.work.get(unit_id).status()
        assert status.state is receptor.WorkState.FAILED
        assert "the program that did the work" in status.detail


def test_output_that_does_not_fit_fails_the_unit(nodes: Mesh) -> None:
    """The system writes what fits and says how much that was: half of a result is none."""
    node = nodes.node("a")
    with node.work.offer("much", much, mode="process"):
        with node.work.submit("a", "much") as unit:
            with pytest.raises(receptor.WorkFailed, match="OSError: .*File too large"):
                unit.wait(timeout_s=60)
            assert len(b"".join(unit.stdout())) == 1 << 20
