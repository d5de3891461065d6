"""Functions of this program as work types: what a function gets, and how its end becomes the end of the unit."""

import asyncio
import inspect
import io
import json
import os
import socket
import sys
import threading
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, TypeAlias

from . import _process, _sockets
from ._closing import Closable
from ._fds import receive
from ._payload import flat
from ._session import Descriptor
from .errors import ConfigError, ProtocolError, WorkCancelled

if TYPE_CHECKING:
    from types import TracebackType

    from _typeshed import ReadableBuffer

    from ._worker import Pool

FunctionMode: TypeAlias = Literal["thread", "process"]

_MESSAGE_BYTES = 64 << 10
_TEXT_CHARS = 8192  # Of an error's text; the whole is in the output.


class WorkContext:
    """The unit that a function is to do.

    unit, worktype: its ID and type. params: what the submitter gave.
    stdin: the payload, a file open for reading. stdout: the output, an unbuffered file: clients see at once what is
    written. Both are files of bytes.
    """

    def __init__(
        self,
        unit: Mapping[str, Any],  # Any: JSON
        stdin: BinaryIO,
        stdout: BinaryIO,
        say: Callable[[dict[str, str]], object],
        cancelled: Callable[[], bool],
    ) -> None:
        self.unit = str(unit.get("unit", ""))
        self.worktype = str(unit.get("worktype", ""))
        self.params: Mapping[str, str] = unit.get("params") or {}
        self.stdin = stdin
        self.stdout = stdout
        self._say = say
        self._cancelled = cancelled

    def progress(self, text: str) -> None:
        """Say how far the work is; submitters see it as the unit's detail."""
        if not isinstance(text, str):
            raise ConfigError(f"text={text!r}: want a str")
        self._say({"progress": text[:_TEXT_CHARS]})

    @property
    def cancelled(self) -> bool:
        """The unit is to end: nobody wants its output any more. Look at it in long loops (a process is just ended)."""
        return self._cancelled()

    def check_cancelled(self) -> None:
        """Raise WorkCancelled if the unit is to end."""
        if self.cancelled:
            raise WorkCancelled(f"unit {self.unit} was cancelled")

    def __repr__(self) -> str:
        return _sockets.described(self, f"unit {self.unit} of {self.worktype!r}")


class AsyncWorkContext(WorkContext):
    """The unit that an asyncio function is to do; when the unit is cancelled, so is the function's task.

    ``stdin`` and ``stdout`` are ordinary files; the methods here read and write them in a thread.
    """

    async def read(self, size: int = -1) -> bytes:
        """At most ``size`` bytes of the payload, -1 for all; empty at its end."""
        return await asyncio.to_thread(self.stdin.read, size)

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append to the output."""
        await asyncio.to_thread(self.stdout.write, data)


class Output(io.FileIO):
    """The output of a unit. It writes all that it is given, or raises.

    The system writes as much as fits where a disk or a limit on files is nearly full, and never more than 2 GiB.
    """

    def __init__(self, file: int | str) -> None:
        super().__init__(file, "ab")

    def write(self, data: "ReadableBuffer", /) -> int:
        left = flat(data)
        size = len(left)
        while left:
            left = left[super().write(left) :]
        return size


Function: TypeAlias = Callable[[WorkContext], object]
AsyncFunction: TypeAlias = Callable[[AsyncWorkContext], Awaitable[object]]


class Task:
    """One unit, from its arrival to the verdict about it."""

    def __init__(self, message: bytes, descriptors: Sequence[Descriptor]) -> None:
        try:
            self.about: dict[str, Any] = json.loads(message)
        except ValueError as error:
            raise ProtocolError(f"offer sent something else than a unit: {error}") from error
        stdin, stdout, control = descriptors
        self.stdin: BinaryIO = open(stdin.detach(), "rb")  # noqa: SIM115  # closed by finish
        self.stdout: BinaryIO = Output(stdout.detach())
        self.control = _sockets.socket_of(control, socket.SOCK_SEQPACKET)

    def context(self, kind: type[WorkContext] = WorkContext) -> WorkContext:
        """What the function gets."""
        return kind(self.about, self.stdin, self.stdout, self.say, self.cancelled)

    def say(self, verdict: dict[str, Any]) -> None:
        """Tell the node; without effect if nobody listens any more."""
        try:
            self.control.send(encode(verdict))
        except OSError:
            pass

    def cancelled(self) -> bool:
        """The node has said that the unit is to end, or is gone."""
        try:
            self.control.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True

    def finish(self, verdict: dict[str, Any]) -> None:
        """Say the verdict and close everything."""
        self.say(verdict)
        for file in (self.stdin, self.stdout, self.control):
            file.close()

    def run(self, function: Function, pool: "Pool | None") -> None:
        """Do it, in this thread or in a process of ``pool``."""
        verdict: dict[str, Any] = {"err": "the function was broken off"}
        try:
            if pool is None:
                verdict = judged(lambda: function(self.context()), self.stdout)
            else:
                files = self.stdin.fileno(), self.stdout.fileno()
                verdict = pool.run(function, self.about, files, self.control)
        except Exception as error:  # Of the pool: there is no process for the function.
            verdict = judge(error, self.stdout)
        finally:
            self.finish(verdict)


class Units:
    """Puts the messages of an offer together. Not for several threads at once."""

    def __init__(self) -> None:
        self._descriptors: list[Descriptor] = []
        self._lost = False

    def lose(self) -> None:
        """Note that descriptors came and could not be received. Their unit has failed: its socket is closed."""
        self._lost = True

    def take(self, message: bytes, descriptors: list[Descriptor]) -> Task | None:
        """Take a message; the unit once all of it is known."""
        if descriptors:
            self._descriptors = descriptors
            return None
        if self._lost:
            self._lost = False
            return None
        descriptors, self._descriptors = self._descriptors, []
        if len(descriptors) != 3:
            raise ProtocolError(f"unit came with {len(descriptors)} descriptors instead of three")
        return Task(message, descriptors)


class Offer(_process.Local, Closable):
    """A function as a work type, until it is closed or the node is."""

    def __init__(self, descriptor: Descriptor, worktype: str, function: Function, pool: "Pool | None") -> None:
        self.worktype = worktype
        self._sock = _sockets.socket_of(descriptor, socket.SOCK_SEQPACKET)
        self._function = function
        self._pool = pool
        self._pid = os.getpid()
        self._thread = threading.Thread(target=self._serve, name=f"receptor-work-{worktype}", daemon=True)
        self.when_closed: Callable[[Offer], None] | None = None
        _process.track(self)
        self._thread.start()

    def close(self) -> None:
        """Take the work type back; units that run go on. Safe to call twice."""
        if os.getpid() != self._pid:
            return
        _sockets.wake(self._sock)
        if self._thread is not threading.current_thread():
            self._thread.join()
        if self._pool is not None:
            self._pool.close()
        if self.when_closed is not None:
            self.when_closed(self)

    def _serve(self) -> None:
        units = Units()
        with self._sock:
            while True:
                try:
                    message, descriptors = receive(self._sock, _MESSAGE_BYTES)
                except ProtocolError:  # At the limit on open files.
                    units.lose()
                    continue
                except OSError:
                    return
                if not message:
                    return
                task = units.take(message, descriptors)
                if task is not None:
                    name = f"work-{self.worktype}-{task.about.get('unit')}"
                    threading.Thread(target=task.run, args=(self._function, self._pool), name=name, daemon=True).start()

    def _abandon_after_fork(self) -> None:
        self._sock.close()

    def __repr__(self) -> str:
        return _sockets.described(self, repr(self.worktype), closed=self._sock.fileno() < 0)


def new_pool(mode: FunctionMode) -> "Pool | None":
    """The processes of an offer, None for threads."""
    if mode == "thread":
        return None
    from ._worker import Pool

    return Pool()


def judged(call: Callable[[], object], stdout: BinaryIO) -> dict[str, Any]:
    """Make the call of a function and return the verdict about its unit."""
    given_to = os.getpid()
    try:
        result = call()
        leave_fork(given_to)
        write_result(stdout, result)
    except BaseException as error:
        leave_fork(given_to, error)
        return judge(error, stdout)
    return {"ok": True}


def leave_fork(given_to: int, error: BaseException | None = None) -> None:
    """End this process if it is not the one ``given_to``, but its child, which a function has forked and not ended.

    Only one of the two may speak for the unit, and take the next. error: what the function raised in the child.
    """
    if os.getpid() == given_to:
        return
    status = 0
    if error is not None:
        stderr = io.FileIO(2, "wb", closefd=False)
        if isinstance(error, SystemExit):
            status = _exit_status(error, stderr)
        else:
            status = 1
            _tell(stderr, _trace(error))
    flush_streams()
    os._exit(status)


def flush_streams() -> None:
    """Write what was printed: a process that is ended writes nothing any more."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):  # It is None, broken or closed.
            pass


def write_result(stdout: BinaryIO, result: object) -> None:
    """Append what a function returned to the output: bytes, text, or nothing."""
    match result:
        case None:
            return
        case str():
            stdout.write(result.encode())
        case bytes() | bytearray() | memoryview():
            stdout.write(result)
        case _ if inspect.iscoroutine(result):
            result.close()  # Or Python tells of it as well.
            raise TypeError("a function for work has returned a coroutine: offer one that is made with async def")
        case _:
            raise TypeError(f"a function for work returns bytes, str or None, not {type(result).__name__}")


def judge(error: BaseException, stdout: BinaryIO) -> dict[str, Any]:
    """The verdict about a unit whose function raised ``error``. The output gets the traceback."""
    if isinstance(error, SystemExit):
        return {"exit": _exit_status(error, stdout)}
    if isinstance(error, (WorkCancelled, asyncio.CancelledError)):
        return {"err": "cancelled"}
    _tell(stdout, _trace(error))
    return {"err": _words(error)[:_TEXT_CHARS]}


def _words(error: BaseException) -> str:
    """The type and the text of ``error``."""
    name = type(error).__name__
    try:
        text = str(error)
    except BaseException as broken:
        text = f"its text cannot be told, because of {type(broken).__name__}"
    return f"{name}: {text}" if text else name


def _exit_status(error: SystemExit, stdout: BinaryIO) -> int:
    """What the status of a process would be; a text goes to the output, as it would to standard error."""
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code & 0xFF
    _tell(stdout, f"{error.code}\n")
    return 1


def _tell(stdout: BinaryIO, text: str) -> None:
    """Append to the output if that is possible: the function may have closed it, and the disk may be full."""
    try:
        stdout.write(text.encode(errors="backslashreplace"))
    except (OSError, ValueError):
        pass


def _trace(error: BaseException) -> str:
    return "".join(traceback.format_exception(type(error), error, _own_frames(error.__traceback__)))


def _own_frames(trace: "TracebackType | None") -> "TracebackType | None":
    """A traceback without the frames of this package above the function."""
    here = os.path.dirname(__file__)
    while trace is not None and os.path.dirname(trace.tb_frame.f_code.co_filename) == here:
        trace = trace.tb_next
    return trace


def encode(verdict: dict[str, Any]) -> bytes:
    """A message on a unit's control socket, which the node takes up to 64 KiB of: no escapes that need not be."""
    return json.dumps(verdict, ensure_ascii=False).encode(errors="backslashreplace")


def is_coroutine_function(function: object) -> bool:
    """Whether calling ``function``, which may be an object with such a method, makes a coroutine."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004


def checked(function: Callable[..., Any], mode: str, *, asynchronous: bool) -> None:
    """Raise ConfigError for a function that cannot serve as ``mode`` says."""
    if mode not in ("thread", "process"):
        raise ConfigError(f"mode {mode!r}: want thread or process")
    if not callable(function):
        raise ConfigError(f"work function {function!r}: want something that can be called with a unit")
    name = getattr(function, "__qualname__", repr(function))
    if is_coroutine_function(function) and not asynchronous:
        raise ConfigError(f"{name} is a coroutine function: offer it on a receptor.aio.Node")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise ConfigError(f"{name} is a generator function: write to unit.stdout what it is to yield")
    if mode == "process":
        from . import _worker

        try:
            _worker.check(function)
        except ValueError as error:
            raise ConfigError(str(error)) from None
