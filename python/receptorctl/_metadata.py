"""What ``importlib.metadata`` answers to programs that ask for the distribution ``receptorctl``.

Programs ask ``importlib.metadata.version("receptorctl")`` to learn which client they have. The distribution of that
name is another project's, so the wheel of this one does not pretend to be it: there is no ``receptorctl-*.dist-info``,
no installer or listing sees one, and a requirement of ``receptorctl`` is not met. Instead, once ``receptorctl`` was
imported, a look-up of exactly that name finds the distribution that provides the module, with its own name and version:

    >>> import receptorctl
    >>> from importlib import metadata
    >>> metadata.distribution("receptorctl").metadata["Name"]  # doctest: +SKIP
    'pyreceptor'

Where the other distribution is installed too, it is found first.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

NAME, PROVIDER = "receptorctl", "pyreceptor"


class _Finder:
    """An entry of ``sys.meta_path`` that finds no modules, and one distribution by another name."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        return None

    @staticmethod
    def find_distributions(context: Any = None) -> Iterable[Any]:  # Any: of importlib.metadata, which is slow to load
        if getattr(context, "name", None) != NAME or (context.path is not sys.path and context.path != sys.path):
            return ()
        from importlib import metadata

        return metadata.distributions(name=PROVIDER)


def install() -> None:
    """Answer such questions from now on."""
    if not any(finder is _Finder for finder in sys.meta_path):
        sys.meta_path.append(_Finder)
