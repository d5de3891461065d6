"""The address of a service, which is needed before anything else of ``types`` is."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Self


class Address(NamedTuple):
    """A service of a node. Services named at random belong to clients."""

    node: str
    service: str

    def __str__(self) -> str:
        return f"{self.node}:{self.service}"

    @classmethod
    def from_json(cls, raw: Mapping[str, Any] | None) -> Self:
        """Decode ``{"node", "service"}``."""
        raw = raw or {}
        return cls(str(raw.get("node", "")), str(raw.get("service", "")))
