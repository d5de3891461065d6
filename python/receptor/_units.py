"""What a unit of work is to a program, whether a node of its own has it or a daemon behind a control socket."""

from __future__ import annotations

import socket
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Self

from .errors import ReceptorError, UnitNotFound

if TYPE_CHECKING:
    from .types import UnitStatus, WorkResult


class _Named:
    """The ID, and whether the unit is to outlive the block it was made for."""

    def __init__(self, unit_id: str) -> None:
        self._id = unit_id
        self._detached = False

    @property
    def id(self) -> str:
        """Its ID on the node that has it; ``work.get`` finds it again."""
        return self._id

    @property
    @abstractmethod
    def _home(self) -> str:
        """The ID of the node that has it."""

    def detach(self) -> Self:
        """Keep it beyond the ``with`` statement."""
        self._detached = True
        return self

    def __repr__(self) -> str:
        return f"<{type(self).__module__}.{type(self).__qualname__} {self._id} on {self._home}>"


class Unit(_Named, ABC):
    """A unit of work. As a context manager it is released at the end, whatever its state; see :meth:`detach`."""

    @abstractmethod
    def stdout(self, offset: int = 0, *, timeout_s: float | None = None) -> Iterator[bytes]:
        """Its output from byte ``offset`` on, each chunk as it arrives, until the unit is complete.

        timeout_s: seconds to wait for the next chunk. Raises MeshTimeout, or StreamResetError where output was lost.
        """

    @abstractmethod
    def open_stdout(self, offset: int = 0) -> socket.socket:
        """Its output from byte ``offset`` on as a socket to read from."""

    @abstractmethod
    def status(self) -> UnitStatus:
        """How it stands now."""

    @abstractmethod
    def wait(self, *, timeout_s: float | None = None, check: bool = True) -> WorkResult:
        """Wait until it is complete. Raises MeshTimeout; the unit goes on.

        check: raise WorkFailed or WorkCancelled if it did not succeed; both have the ``result``.
        """

    @abstractmethod
    def cancel(self) -> bool:
        """End it. True if the executing node has confirmed it; else it will be told when it can be reached."""

    @abstractmethod
    def release(self, *, force: bool = False) -> bool:
        """End it and remove all traces. True if the executing node has confirmed it; else it will be told.

        force: remove it here even if the executing node never hears of it.
        """

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._detached:
            return
        try:
            self.release()
        except UnitNotFound:
            pass  # Released by somebody else.
        except ReceptorError:
            if error is None:
                raise


class AsyncUnit(_Named, ABC):
    """A unit of work. ``async with`` releases it at the end, whatever its state; see :meth:`detach`."""

    @abstractmethod
    def stdout(self, offset: int = 0, *, timeout_s: float | None = None) -> AsyncIterator[bytes]:
        """Its output from byte ``offset`` on, for ``async for``: each chunk as it arrives, until it is complete.

        timeout_s: seconds to wait for the next chunk. Raises MeshTimeout, or StreamResetError where output was lost.
        """

    @abstractmethod
    async def open_stdout(self, offset: int = 0) -> socket.socket:
        """Its output from byte ``offset`` on as a socket to read from."""

    @abstractmethod
    async def status(self) -> UnitStatus:
        """How it stands now."""

    @abstractmethod
    async def wait(self, *, timeout_s: float | None = None, check: bool = True) -> WorkResult:
        """Wait until it is complete. Raises MeshTimeout; the unit goes on.

        check: raise WorkFailed or WorkCancelled if it did not succeed; both have the ``result``.
        """

    @abstractmethod
    async def cancel(self) -> bool:
        """End it. True if the executing node has confirmed it; else it will be told when it can be reached."""

    @abstractmethod
    async def release(self, *, force: bool = False) -> bool:
        """End it and remove all traces. True if the executing node has confirmed it; else it will be told.

        force: remove it here even if the executing node never hears of it.
        """

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._detached:
            return
        try:
            await self.release()
        except UnitNotFound:
            pass  # Released by somebody else.
        except ReceptorError:
            if error is None:
                raise
