"""Processes that run functions for units of work: started fresh (never forked), kept for the next unit."""

import importlib
import importlib.util
import inspect
import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from typing import Any

from . import _process
from ._functions import Output, WorkContext, encode, flush_streams, judged
from .errors import ReceptorError


class Pool:
    """Worker processes of one offer. A cancelled unit's process is ended, and another started when one is needed."""

    def __init__(self) -> None:
        self._idle: list[_Process] = []
        self._lock = threading.Lock()
        self._closed = False

    def run(
        self, function: Callable[..., Any], unit: dict[str, Any], files: tuple[int, int], control: socket.socket
    ) -> Any:
        """Run ``function`` in a process and return the verdict about the unit.

        files: descriptors of payload and output. When ``control`` becomes readable, the unit is cancelled.
        """
        check_name(function)
        with self._lock:
            process = self._idle.pop() if self._idle else None
        process = process or _Process()
        try:
            return process.run(function, unit, files, control)
        finally:
            with self._lock:
                keep = process.alive and not self._closed
                if keep:
                    self._idle.append(process)
            if not keep:
                process.kill()

    def close(self) -> None:
        """End the processes that wait; those at work end with their unit."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for process in idle:
            process.kill()


class _Process:
    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, far = context.Pipe()
        self._process = context.Process(target=_serve, args=(far,), daemon=True, name=_process.WORKER)
        try:
            with _without_interrupts():
                self._process.start()
        except OSError as error:
            self._pipe.close()
            raise ReceptorError(f"no process can be started for the function: {_reason(error)}") from error
        finally:
            far.close()
        self.alive = True
        # Its end: a process that the function forked keeps the pipes open, and multiprocessing's own notice with them.
        self._end: list[int] = []
        try:
            self._end.append(os.pidfd_open(self._process.pid or 0))
        except (AttributeError, OSError):
            pass  # A kernel before 5.3: only the pipes tell.

    def run(
        self, function: Callable[..., Any], unit: dict[str, Any], files: tuple[int, int], control: socket.socket
    ) -> Any:
        self.alive = False  # Until it has said its last word.
        stdin, stdout = (f"/proc/{os.getpid()}/fd/{fd}" for fd in files)
        try:
            self._pipe.send((*_name_of(function), unit, stdin, stdout))
            while self._pipe in (ready := wait([self._pipe, control, *self._end])):
                verdict: dict[str, Any] = self._pipe.recv()
                if "progress" not in verdict:
                    self.alive = True
                    return verdict
                control.send(encode(verdict))
            if control in ready:
                return {"err": "cancelled"}
        except (EOFError, OSError):
            pass
        self._join(5)
        end = _end_of(self._process.exitcode)
        return {"err": f"the process of the function {end}; what it says is on standard error"}

    def kill(self) -> None:
        self._pipe.close()
        self._process.terminate()
        self._join(1)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._process.close()
        while self._end:
            os.close(self._end.pop())

    def _join(self, timeout_s: float) -> None:
        if self._end:
            wait(self._end, timeout_s)
        else:
            self._process.join(timeout_s)


def _reason(error: OSError) -> str:
    try:
        os.getcwd()
    except FileNotFoundError:
        return "the working directory of this program has been removed"
    return str(error)


def _end_of(code: int | None) -> str:
    if code is None or code >= 0:
        return f"ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:  # One without a name, as of real time.
        name = str(-code)
    return f"was ended by signal {name}"


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Keep Ctrl-C from a process that is started here until it ignores it itself: it would tell of its own end."""
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # Starting it would let interrupts through again.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def check(function: Callable[..., Any]) -> None:
    """Raise ValueError for a function that another process cannot find."""
    name = getattr(function, "__qualname__", "")
    if not name or "<" in name:
        raise ValueError(
            f"{name or function!r} cannot be found by another process: a function for mode='process' is defined at the "
            "top of a module"
        )
    if inspect.ismethod(function) and not isinstance(function.__self__, type):
        raise ValueError(
            f"{name} cannot be found by another process with its object: a function for mode='process' is defined at "
            "the top of a module"
        )
    main = sys.modules["__main__"]
    path = getattr(main, "__file__", None)
    started_by_name = getattr(main, "__spec__", None) is not None  # python -m
    if not started_by_name and (not os.path.exists(path) if path else function.__module__ == "__main__"):
        raise ValueError(
            f"{name} cannot be found by another process, as this program is in no file: mode='process' needs one that "
            "can be read again, or a function of a module"
        )
    if function.__module__ != "__main__" and not _can_be_imported(function.__module__):
        raise ValueError(
            f"{name} cannot be found by another process: there is no module {function.__module__} to import"
        )
    found = _found(function)
    wrapped = getattr(function, "__wrapped__", None)
    while wrapped is not None and wrapped != found:
        wrapped = getattr(wrapped, "__wrapped__", None)
    if wrapped is not None and found != function:
        raise ValueError(
            f"{name} cannot be found by another process with what is wrapped around it: that is not what {name} is at "
            f"the top of {function.__module__}"
        )


def check_name(function: Callable[..., Any]) -> None:
    """Raise LookupError where another one has the function's name, which another process would take for it."""
    if _found(function) not in (None, function):
        module, name = _name_of(function)
        raise LookupError(f"another function than the one that was offered is {name} in {module} now")


def _name_of(function: Callable[..., Any]) -> tuple[str, str]:
    """The module, and the name in it, under which another process finds a function."""
    if inspect.ismethod(function) and isinstance(kind := function.__self__, type):  # It may have it from another class.
        return kind.__module__, f"{kind.__qualname__}.{function.__name__}"
    return function.__module__, function.__qualname__


def _found(function: Callable[..., Any]) -> object:
    """What has the name of a function here; None if nothing does, or not yet, as where it is being decorated."""
    module, name = _name_of(function)
    found: object = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found


def _can_be_imported(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _serve(pipe: Connection) -> None:
    """What a worker process does: one unit after another, until nobody wants more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the program that started it.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # What the function starts gets it, as elsewhere.
    while True:
        try:
            module, name, unit, stdin_path, stdout_path = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            with open(stdin_path, "rb") as stdin, Output(stdout_path) as stdout:
                context = WorkContext(unit, stdin, stdout, pipe.send, lambda: False)
                verdict = judged(lambda: _find(module, name)(context), stdout)  # noqa: B023  # called at once
                flush_streams()
                pipe.send(verdict)
        except OSError as error:
            pipe.send({"err": f"OSError: {error}"})


def _find(module: str, name: str) -> Callable[..., Any]:
    where = module
    if module == "__main__":
        module, where = "__mp_main__", "the program"  # What a spawned process calls the main module of its parent.
    found: Any = sys.modules.get(module) or importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is None:
        raise LookupError(
            f"{name} is not there when another process imports {where}: define it at the top, and not under "
            "if __name__ == '__main__':"
        )
    function: Callable[..., Any] = found
    return function
