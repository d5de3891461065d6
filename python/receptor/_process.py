"""What the life of the process means for open nodes: forks, and the exit."""

import atexit
import os
import sys
import threading
import time
import weakref
from typing import NoReturn, Protocol, SupportsIndex

from .errors import ConfigError, ForkedProcessError, ReceptorError

WORKER = "receptor-worker"  # The name of processes that run functions for units.
EXIT_LIMIT_S = 5.0  # How long the exit of the process may wait for all nodes together.


class Owned(Protocol):
    """Something with descriptors that a forked child must not hold open."""

    def _abandon_after_fork(self) -> None: ...


class Local:
    """Something of this process alone: it cannot be copied or pickled. A copy would close the original at its end."""

    _elsewhere = "open one in the process that needs it"  # What to do instead.

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError(f"cannot copy or pickle {self!r}: {self._elsewhere}")


class Closing(Owned, Protocol):
    """A node, as far as the exit is concerned."""

    def _close_at_exit(self, timeout_s: float) -> None: ...


_owned: weakref.WeakSet[Owned] = weakref.WeakSet()
_nodes: weakref.WeakSet[Closing] = weakref.WeakSet()
_lock = threading.Lock()
_hooked = False


def track(owned: Owned) -> None:
    """Have the descriptors of ``owned`` closed in forked children; otherwise the far side would not see them closed."""
    _hook()
    _owned.add(owned)


def track_node(node: Closing) -> None:
    """Like :func:`track`, and close the node at the exit of the process."""
    track(node)
    _nodes.add(node)


def check(opened_in: int) -> None:
    """Raise ForkedProcessError unless this is the process ``opened_in``."""
    if os.getpid() != opened_in:
        raise ForkedProcessError(
            f"opened in process {opened_in}, used in its forked child {os.getpid()}: a node does not survive a fork; "
            'open it after forking, or start processes with multiprocessing.get_context("spawn"); what a child can '
            "have of it is the dup() of a stream, made before the fork",
            opened_in=opened_in,
            used_in=os.getpid(),
        )


def check_program() -> None:
    """Raise ConfigError in a worker process that reads the main program anew, to find functions in it.

    A program without the usual guard would open all its nodes there a second time.
    """
    multiprocessing = sys.modules.get("multiprocessing.process")
    if multiprocessing is None:
        return
    process = multiprocessing.current_process()
    if process.name == WORKER and getattr(process, "_inheriting", False):
        raise ConfigError(
            "a worker process reads this program to find a function, and must not open its nodes again: put what the "
            'program does under: if __name__ == "__main__":'
        )


def _hook() -> None:
    global _hooked
    with _lock:
        if not _hooked:
            os.register_at_fork(after_in_child=_after_fork)
            atexit.register(_at_exit)
            _hooked = True


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()  # Whoever held it does not exist here.
    for owned in list(_owned):
        owned._abandon_after_fork()
    _owned.clear()
    _nodes.clear()


def _at_exit() -> None:
    end = time.monotonic() + EXIT_LIMIT_S
    for node in list(_nodes):  # Of this process alone: a forked child starts with none.
        try:
            node._close_at_exit(max(end - time.monotonic(), 0.0))
        except (ReceptorError, OSError):
            pass  # The process ends, and the node with it.
