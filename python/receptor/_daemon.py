"""Finding the ``receptor`` program that came with this package: nodes run their work commands through it."""

import os
from collections.abc import Iterator
from functools import lru_cache

from ._version import version
from .errors import ConfigError

NAME = "receptor"
VARIABLE = "RECEPTOR_DAEMON"


def find() -> str | None:
    """Absolute path of the daemon of this version, None if it is not installed.

    Looked for in: ``RECEPTOR_DAEMON`` (a path, taken as it is), the scripts directory of this Python, that of the
    user's scheme, ``PATH``. A program of the same name that is not ours or of another version is passed over.
    Raises ConfigError if ``RECEPTOR_DAEMON`` names no program.
    """
    given = os.environ.get(VARIABLE)
    if given:
        path = os.path.abspath(given)
        if not _executable(path):
            raise ConfigError(
                f"{VARIABLE}={given}: no program there; unset it, or give the path of the receptor daemon"
            )
        return path
    for path in _candidates():
        if _executable(path) and _version_of(path)[0] == version():
            return path
    return None


def require(purpose: str) -> str:
    """Like :func:`find`, for callers who cannot go on without it."""
    path = find()
    if path is None:
        others = ", ".join(_passed_over())
        raise ConfigError(
            f"{purpose}: needs the receptor daemon {version()}, which is neither in the scripts directory of this "
            f"Python nor in PATH{others and f' (there is {others})'}; reinstall the package, or set {VARIABLE} to its "
            "path"
        )
    return path


def _passed_over() -> Iterator[str]:
    """The programs of that name which are not the daemon of this version, and what they are."""
    for path in _candidates():
        if _executable(path):
            said, why = _version_of(path)
            yield f"{path}, {f'which {why}' if said is None else f'version {said[:40]!r}'}"


def _candidates() -> Iterator[str]:
    import sysconfig

    seen = set()
    directories = [sysconfig.get_path("scripts")]
    user = sysconfig.get_preferred_scheme("user")
    directories.append(sysconfig.get_path("scripts", user))
    directories += os.environ.get("PATH", os.defpath).split(os.pathsep)
    for directory in directories:
        path = os.path.abspath(os.path.join(directory, NAME))
        if directory and path not in seen:
            seen.add(path)
            yield path


def _executable(path: str) -> bool:
    return os.path.isfile(path) and os.access(path, os.X_OK)


def _version_of(path: str) -> tuple[str | None, str]:
    """The version that a program says it has; None and the reason if it says none."""
    import subprocess

    try:
        return _ask_version(path, os.stat(path).st_mtime_ns), ""
    except OSError as error:
        return None, f"cannot be run: {error.strerror}"
    except subprocess.CalledProcessError as error:
        said = (error.stderr.strip().splitlines() or ["nothing"])[0]
        return None, f"ended with status {error.returncode} when it was asked for its version, and said: {said[:200]}"
    except (subprocess.SubprocessError, UnicodeDecodeError):
        return None, "does not say its version"


@lru_cache(maxsize=32)  # Of answers. What went wrong may have been out of descriptors or memory, and is tried again.
def _ask_version(path: str, _modified_ns: int) -> str:
    import subprocess

    done = subprocess.run(
        [path, "--version"], stdin=subprocess.DEVNULL, capture_output=True, timeout=10, check=True, text=True
    )
    return done.stdout.strip()
