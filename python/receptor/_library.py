"""The C library that holds the node: found, checked, and asked for sessions. The only module that uses ctypes.

Loaded with the first node and never by an import, since a program that has loaded it cannot fork a child that uses it
(the Go runtime inside lives in threads, and fork copies none).
"""

import json
import math
import os
import socket
import sys
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ._version import version
from .errors import ForkedProcessError, NativeLibraryError, ReceptorError

if TYPE_CHECKING:
    import ctypes

ABI = 1
PATH = os.path.join(os.path.dirname(os.path.abspath(__file__)), "_native", "libreceptor.so")

_ERROR_BYTES = 4096
# Where the Go runtime gets no address space it ends the process. Most of the first of these it reserves at once; the
# second leaves room for a busy node and for the threads of the program.
_ADDRESS_BYTES = 1400 << 20
_AMPLE_ADDRESS_BYTES = 4 << 30
_REBUILD = "rebuild it with: pip install --force-reinstall pyreceptor (in a source tree: pip install -e .)"

_lock = threading.Lock()
_loaded: "ctypes.CDLL | None" = None
_loaded_in = 0  # Process that loaded it.


def expected() -> bool:
    """A node can be in this process: the system has glibc, this interpreter ctypes, and this installation a library.

    And the limit on address space leaves ample room.
    """
    if not sys.platform.startswith("linux") or _is_musl() or not os.path.isdir(os.path.dirname(PATH)):
        return False
    if _loaded is None and _address_space_left() < _AMPLE_ADDRESS_BYTES:
        return False
    try:
        import ctypes  # noqa: F401  # Refused by interpreters with a lock of their own in Python 3.12.
    except ImportError:
        return False
    return True


def open_session(environ: Mapping[str, str]) -> socket.socket:
    """A new session: a node that is yet to be opened. Does no network work and returns at once.

    environ: what the node and its work commands see as their environment; a library does not see Python's changes.
    """
    library = _load()
    config = json.dumps({"abi": ABI, "environ": dict(environ)}).encode()
    import ctypes

    error = ctypes.create_string_buffer(_ERROR_BYTES)
    fd: int = library.receptor_open(config, len(config), error, len(error))
    if fd < 0:
        text = error.value.decode("utf-8", "replace") or f"code {-fd}"
        raise ReceptorError(f"the node's library opened no session: {text}")
    os.set_inheritable(fd, False)
    os.set_blocking(fd, True)
    return socket.socket(fileno=fd)


def dump() -> str:
    """The stacks of all goroutines, for a bug report. Empty if the library is not loaded."""
    if _loaded is None:
        return ""
    import ctypes

    library = _load()
    buffer = ctypes.create_string_buffer(1 << 20)
    length: int = library.receptor_dump(buffer, len(buffer))
    return buffer.raw[: max(length, 0)].decode("utf-8", "replace")


def _load() -> "ctypes.CDLL":
    global _loaded, _loaded_in
    if _loaded is not None and os.getpid() != _loaded_in:
        raise ForkedProcessError(
            f"process {_loaded_in} had a node inside it when it forked this one, {os.getpid()}, which can have none "
            'inside: open one of the two with Node(..., mode="sidecar"), or that of the parent after the fork',
            opened_in=_loaded_in,
            used_in=os.getpid(),
        )
    with _lock:
        if _loaded is None:
            _loaded = _open()
            _loaded_in = os.getpid()
        return _loaded


def _open() -> "ctypes.CDLL":
    if not os.path.isdir(os.path.dirname(os.path.abspath(__file__))):
        raise NativeLibraryError(
            f"{PATH} is in an archive, and libraries are loaded from files: unpack it (pip install --target), or use "
            'Node(..., mode="sidecar") with the receptor daemon beside it'
        )
    if not os.path.exists(PATH):
        raise NativeLibraryError(f"{PATH} is missing: this installation has no node library; {_REBUILD}")
    try:
        import ctypes
    except ImportError as error:
        raise NativeLibraryError(f'this interpreter has no ctypes ({error}): use Node(..., mode="sidecar")') from error
    left = _address_space_left()
    if left < _ADDRESS_BYTES:
        raise NativeLibraryError(
            f"the limit on address space (ulimit -v) leaves {int(left) >> 20} MiB for a library that needs "
            f'{_ADDRESS_BYTES >> 20}: raise it, or use Node(..., mode="sidecar"); a cgroup limits memory itself'
        )
    import resource

    files = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        library = ctypes.CDLL(PATH)
        _declare(library)
        abi = library.receptor_abi()
        info = json.loads(library.receptor_build_info())
        if abi == ABI:
            # Enters Go, and so waits until its runtime has started, which is when it raises the limit on open files.
            library.receptor_dump(ctypes.create_string_buffer(64), 64)
    except OSError as error:
        raise NativeLibraryError(_why_not_loaded(error)) from error
    except (AttributeError, ValueError) as error:
        raise NativeLibraryError(f"{PATH} is not a library of this package: {error}; {_REBUILD}") from error
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, files)  # A library has no business changing its host's limits.
    if abi != ABI:
        raise NativeLibraryError(f"{PATH} has ABI {abi}, this package wants {ABI}; {_REBUILD}")
    if info.get("version") != version():
        raise NativeLibraryError(f"{PATH} is of version {info.get('version')}, this package of {version()}; {_REBUILD}")
    return library


def _address_space_left() -> float:
    import resource

    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return math.inf
    try:
        with open("/proc/self/statm") as sizes:
            return limit - int(sizes.read().split()[0]) * resource.getpagesize()
    except (OSError, ValueError):
        return limit


def _declare(library: "ctypes.CDLL") -> None:
    from ctypes import c_char_p, c_int32, c_int64

    library.receptor_abi.restype = c_int32
    library.receptor_abi.argtypes = []
    library.receptor_build_info.restype = c_char_p
    library.receptor_build_info.argtypes = []
    library.receptor_open.restype = c_int32
    library.receptor_open.argtypes = [c_char_p, c_int64, c_char_p, c_int64]
    library.receptor_dump.restype = c_int32
    library.receptor_dump.argtypes = [c_char_p, c_int64]


def _why_not_loaded(error: OSError) -> str:
    if "initial-exec TLS" in str(error) or _is_musl():
        return (
            f"{PATH} cannot be loaded: Go libraries do not work on musl (Alpine). Use an image with glibc, or "
            'Node(..., mode="sidecar"), which runs the node in a child process'
        )
    return f"{PATH} cannot be loaded: {error}; {_REBUILD}"


def _is_musl() -> bool:
    import sysconfig

    return "musl" in (sysconfig.get_config_var("HOST_GNU_TYPE") or "")
