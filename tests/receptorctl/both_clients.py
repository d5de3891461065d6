"""One way to write a test for the blocking and the asyncio client: as for asyncio, with the blocking one dressed up."""

from __future__ import annotations

import types
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from typing import Any, TypeAlias

import receptor
import receptor.aio
from receptor import control

Connect: TypeAlias = Callable[..., Any]  # Any: what is awaited or entered for a client of either kind


class Dressed:
    """An object of the blocking client with the methods of the asyncio one."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.inner, name)
        if isinstance(value, types.MethodType) and name not in ("unit", "at", "close", "detach", "end"):
            return lambda *args, **keys: Call(lambda: value(*args, **keys))
        if isinstance(value, types.MethodType):
            return lambda *args, **keys: dressed(value(*args, **keys))
        return dressed(value)

    async def __aenter__(self) -> Dressed:
        self.inner.__enter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        self.inner.__exit__(*error)


def dressed(value: Any) -> Any:
    """Return the value, dressed if it is a part of the client."""
    module = type(value).__module__
    return Dressed(value) if module in ("receptor.control", "receptor._control_exec") else value


class Call(Awaitable[Any]):
    """A call that is made when it is awaited, entered or iterated over."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call = call
        self._entered: Any = None
        self._iterator: Iterator[Any] | None = None

    def __await__(self) -> Generator[Any, Any, Any]:
        return dressed(self._call())
        yield  # a generator, as awaiting wants it

    async def __aenter__(self) -> Any:
        self._entered = self._call()
        return dressed(self._entered.__enter__())

    async def __aexit__(self, *error: Any) -> None:
        self._entered.__exit__(*error)

    def __aiter__(self) -> AsyncIterator[Any]:
        return self._all()

    async def _all(self) -> AsyncIterator[Any]:
        for item in self._call():
            yield item


def blocking(address: str, **options: Any) -> Any:
    """Connect with the blocking client."""
    return Call(lambda: receptor.connect(address, **options))


CLIENTS: list[Connect] = [blocking, receptor.aio.connect]
assert control.connect is receptor.connect
