"""The setuptools commands that build the Go parts: the library into the package, the daemon into the scripts.

Named in pyproject.toml under [tool.setuptools.cmdclass]. The version stands in pyproject.toml; both Go parts get it at
link time. ``RECEPTOR_GO`` names the go program; the toolchain is never downloaded (GOTOOLCHAIN=local).

The library needs glibc: elsewhere (musl), and with ``RECEPTOR_LIBRARY=no``, the wheel holds the daemon only, which is
static, and nodes run as its sidecars.
"""

import os
import platform
import re
import shlex
import shutil
import struct
import subprocess
import sys
import tempfile
import zipfile
from distutils.command.build_scripts import build_scripts  # Setuptools' own; it has no other name for it.
from pathlib import Path
from typing import Any, NoReturn

from setuptools import Command
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build import build
from setuptools.command.sdist import sdist

try:
    from deflate import deflate_compress
except ImportError:  # Not asked of those who build for themselves: it only makes wheels smaller.
    deflate_compress = None  # type: ignore[assignment]

ROOT = Path(__file__).resolve().parents[2]
MODULE = "github.com/pyreceptor/pyreceptor"
DAEMON = "receptor"
LIBRARY = "receptor/_native/libreceptor.so"
SYMVER = Path(__file__).with_name("symver.h")

# A program of this size has a tenth of it from inlining. It is done in what carries bytes, and nowhere else.
INLINED = (
    *(
        "runtime/...",
        "internal/...",
        "sync/...",
        "syscall",
        "io",
        "bufio",
        "bytes",
        "errors",
        "context",
        "slices",
        "time",
    ),
    *("unicode/utf8", "math/bits", "math/rand/...", "encoding/binary", "hash/...", "crypto/...", "golang.org/x/..."),
    *("github.com/quic-go/...", "github.com/minio/highwayhash"),
    *(f"{MODULE}/go/{name}" for name in ("wire", "topology", "link/...", "netceptor/...")),
)
NOT_INLINED = (
    *("crypto/tls", "crypto/x509/...", "crypto/hpke", "crypto/ecdsa", "crypto/rsa", "crypto/elliptic"),
    *("crypto/internal/fips140/rsa", "crypto/internal/fips140/ecdsa", "runtime/pprof"),
    "github.com/quic-go/quic-go/qlog/...",
)
TAGS = "netgo,osusergo,nethttpomithttp2"  # No resolver and no users from C; nothing here speaks HTTP/2.


class Build(build):
    """``build``, with the Go parts among its steps."""

    sub_commands = [*build.sub_commands, ("build_go", None)]

    def finalize_options(self) -> None:
        _make_platform_specific(self.distribution)
        super().finalize_options()

    def run(self) -> None:
        if self.build_lib is not None:
            shutil.rmtree(self.build_lib, ignore_errors=True)  # Modules that are gone must not live on in wheels.
        super().run()


class BuildGo(Command):
    """Build the C library into the package (in an editable install: into the source tree, which git ignores)."""

    description = "build the Go library"
    user_options = [("build-lib=", "d", "directory to build into")]
    editable_mode = False

    def initialize_options(self) -> None:
        self.build_lib: str | None = None

    def finalize_options(self) -> None:
        self.set_undefined_options("build", ("build_lib", "build_lib"))

    def run(self) -> None:
        if not wants_library():
            return
        target = ROOT / "python" / LIBRARY if self.editable_mode else self._built()
        build_library(target, str(self.distribution.get_version()))

    def get_outputs(self) -> list[str]:
        """Files that an install gets."""
        return [] if self.editable_mode or not wants_library() else [str(self._built())]

    def get_output_mapping(self) -> dict[str, str]:
        """Files of the build and the sources they come from, for editable installs: none is a copy of a source."""
        return {}

    def get_source_files(self) -> list[str]:
        """What the source distribution needs to build the Go parts."""
        return sorted(str(path.relative_to(ROOT)) for path in _sources())

    def _built(self) -> Path:
        assert self.build_lib is not None
        return Path(self.build_lib) / LIBRARY


class BuildScripts(build_scripts):
    """Build the daemon where scripts are collected; the stock command would take it for text."""

    def finalize_options(self) -> None:
        _make_platform_specific(self.distribution)
        super().finalize_options()

    def run(self) -> None:
        shutil.rmtree(self.build_dir, ignore_errors=True)  # Programs that are gone must not live on in wheels.
        build_program(DAEMON, Path(self.build_dir) / DAEMON, str(self.distribution.get_version()))

    def get_source_files(self) -> list[str]:
        """None: the stock command would name the daemon."""
        return []


class SourceDistribution(sdist):
    """All that a build needs, and no tests: setuptools would take some of them, without what they need."""

    def make_distribution(self) -> None:
        self.filelist.prune("tests")
        super().make_distribution()


class BdistWheel(bdist_wheel):
    """A wheel for any Python 3 on one platform: the library is reached through ctypes."""

    def finalize_options(self) -> None:
        _make_platform_specific(self.distribution)
        super().finalize_options()
        self.root_is_pure = False

    def run(self) -> None:
        super().run()
        for _, _, wheel in self.distribution.dist_files:
            _compress(Path(wheel))

    def get_tag(self) -> tuple[str, str, str]:
        """``py3-none-PLATFORM``, where PLATFORM says the oldest glibc that the library loads on."""
        _, _, plat = super().get_tag()
        library = Path(self.get_finalized_command("build").build_lib) / LIBRARY
        if plat.startswith("linux_") and not wants_library() and not self.plat_name_supplied:
            machine = platform.machine()
            return "py3", "none", f"manylinux_2_17_{machine}.musllinux_1_1_{machine}"  # A static program runs on both.
        if plat.startswith("linux_") and library.exists() and not self.plat_name_supplied:
            plat = platform_tag(library) or plat
        return "py3", "none", plat


def wants_library() -> bool:
    """Whether a wheel for this system holds the library."""
    return platform.libc_ver()[0] == "glibc" and os.environ.get("RECEPTOR_LIBRARY") != "no"


def build_library(target: Path, version: str) -> None:
    """Build the C library into ``target``."""
    go = find_go()
    environ = _environ(cgo=True)
    compiler = shlex.split(environ.get("CC") or _run([go, "env", "CC"], environ))
    if not compiler or shutil.which(compiler[0]) is None:
        _fail(f"no C compiler ({' '.join(compiler) or 'CC'} not found): the library needs one; install gcc, or set CC")
    flags = [environ.get("CGO_CFLAGS", ""), "-O2", "-g0", f"-DRECEPTOR_VERSION={version}"]
    if platform.libc_ver()[0] == "glibc":
        flags += ["-include", str(SYMVER)]
        environ["CGO_LDFLAGS"] = f"{environ.get('CGO_LDFLAGS', '')} -Wl,--no-as-needed -l:libpthread.so.0".strip()
    environ["CGO_CFLAGS"] = " ".join(flags).strip()
    with tempfile.TemporaryDirectory() as scratch:
        built = Path(scratch) / "libreceptor.so"
        _go_build(go, built, "./capi", version, environ, "-buildmode=c-shared", *_inlining(INLINED))
        clear_relocated(built)
        _install(built, target)


def clear_relocated(library: Path) -> None:
    """Put zeros where the loader writes addresses: GNU ld leaves them there as well, and they hardly compress.

    The loader takes them from the table of relocations, where that has them (RELA; on every 64-bit machine).
    """
    data = bytearray(library.read_bytes())
    if data[:6] != b"\x7fELF\x02\x01":  # 64 bits, little endian
        return
    (machine,), (first,), (count,) = (
        struct.unpack_from(*field) for field in (("<H", data, 18), ("<Q", data, 40), ("<H", data, 60))
    )
    relative = {62: 8, 183: 1027}.get(machine)  # R_X86_64_RELATIVE, R_AARCH64_RELATIVE
    sections = [struct.unpack_from("<IIQQQQ", data, first + 64 * i) for i in range(count)]  # name, type, ..., size
    held = [(address, at, size) for _, kind, _, address, at, size in sections if address and kind not in (0, 8)]
    for _, kind, _, _, table, length in sections:
        for entry in range(table, table + length, 24) if kind == 4 else ():  # SHT_RELA
            place, what, addend = struct.unpack_from("<QQq", data, entry)
            for address, at, size in held if what == relative else ():
                here = at + place - address
                if address <= place < address + size and struct.unpack_from("<q", data, here) == (addend,):
                    struct.pack_into("<q", data, here, 0)
    library.write_bytes(data)


def build_program(name: str, target: Path, version: str) -> None:
    """Build the program ``name`` into ``target``: a static binary that runs on any system of this kind."""
    with tempfile.TemporaryDirectory() as scratch:
        built = Path(scratch) / name
        _go_build(find_go(), built, f"./go/cmd/{name}", version, _environ(cgo=False), *_inlining(INLINED))
        _install(built, target)


def find_go() -> str:
    """The go program, checked to be new enough for go.mod."""
    if not sys.platform.startswith("linux"):
        _fail(f"Linux is needed, and this is {sys.platform}: the package does not run here")
    name = os.environ.get("RECEPTOR_GO") or "go"
    found = shutil.which(name)
    wanted = _wanted_go()
    if found is None:
        _fail(f"Go is missing ({name} not found): install Go {wanted} or newer, or set RECEPTOR_GO to its go program")
    version = _run([found, "env", "GOVERSION"], _environ(cgo=False), cwd=tempfile.gettempdir())
    if _numbers(version) < _numbers(wanted):
        _fail(f"{found} is {version}, and Go {wanted} or newer is needed: set RECEPTOR_GO to the go program of one")
    return found


def min_glibc(library: Path) -> tuple[int, int] | None:
    """The newest version of glibc that ``library`` asks for; None if it asks for none, or objdump cannot tell."""
    try:
        listing = _run(["objdump", "-T", str(library)], dict(os.environ))
    except (OSError, SystemExit):
        return None
    versions = [(int(major), int(minor)) for major, minor in re.findall(r"\(?GLIBC_(\d+)\.(\d+)", listing)]
    return max(versions, default=None)


def platform_tag(library: Path) -> str | None:
    """The manylinux tag that ``library`` keeps, None if it keeps none."""
    needed = min_glibc(library)
    if needed is None:
        return None
    major, minor = max(needed, (2, 17))  # manylinux tags begin with 2.17 on the machines that Go builds for here.
    return f"manylinux_{major}_{minor}_{platform.machine()}"


def _go_build(go: str, output: Path, package: str, version: str, environ: dict[str, str], *flags: str) -> None:
    linker = f"-s -w -buildid= -X {MODULE}/go/daemon.Version={version} -X main.version={version}"
    mode = "vendor" if (ROOT / "vendor").is_dir() else "readonly"
    command = [go, "build", f"-mod={mode}", "-trimpath", "-buildvcs=false", "-tags", TAGS, "-ldflags", linker, *flags]
    done = subprocess.run([*command, "-o", str(output), package], cwd=ROOT, env=environ, check=False)
    if done.returncode != 0:
        _fail(f"go build {package} failed, see above; without network it needs the modules of go.sum in Go's cache")


def _inlining(packages: tuple[str, ...]) -> list[str]:
    """The flags that leave inlining on in ``packages`` only; the last pattern that fits a package decides."""
    hot = [f"-gcflags={package}=" for package in packages]
    return ["-gcflags=all=-l", *hot, *(f"-gcflags={package}=-l" for package in NOT_INLINED)]


def _environ(*, cgo: bool) -> dict[str, str]:
    return {**os.environ, "GOTOOLCHAIN": "local", "CGO_ENABLED": "1" if cgo else "0"}


def _install(built: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".new")
    shutil.copyfile(built, partial)
    partial.chmod(0o755)
    partial.replace(target)  # A process may have the old one mapped.


def _compress(wheel: Path) -> None:
    """Pack ``wheel`` again as small as its format allows: libdeflate, where it is installed, saves 4 % over zlib."""
    packed = wheel.with_name(wheel.name + ".new")
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(packed, "w") as new:
        for entry in old.infolist():
            data = old.read(entry)
            if deflate_compress is None:
                new.writestr(entry, data, zipfile.ZIP_DEFLATED, compresslevel=9)
                continue
            entry.compress_type = zipfile.ZIP_DEFLATED
            with new.open(entry, "w") as member:
                setattr(member, "_compressor", _Smallest())  # noqa: B010  # The one way in; a test notices if it closes.
                member.write(data)
    packed.replace(wheel)


class _Smallest:
    """The compressor of a member of a zip file that takes it whole."""

    def __init__(self) -> None:
        self._data = bytearray()

    def compress(self, data: bytes) -> bytes:
        self._data += data
        return b""

    def flush(self) -> bytes:
        return bytes(deflate_compress(self._data, 12))


def _make_platform_specific(distribution: Any) -> None:  # Any: its stubs know neither of the two
    distribution.has_ext_modules = lambda: True
    distribution.scripts = [DAEMON]  # Makes setuptools run build_scripts and install_scripts.


def _sources() -> list[Path]:
    files = [ROOT / "go.mod", ROOT / "go.sum"]
    for directory in ("go", "capi"):
        for folder, names, found in os.walk(ROOT / directory):
            names[:] = [name for name in names if name not in ("testdata", "__pycache__")]
            files += [Path(folder) / name for name in found if not name.endswith("_test.go")]
    files += (ROOT / "python" / "build").glob("*.*")
    return [path for path in files if path.is_file()]


def _wanted_go() -> str:
    found = re.search(r"^go (\S+)$", (ROOT / "go.mod").read_text(), re.MULTILINE)
    assert found is not None
    return found.group(1)


def _numbers(version: str) -> tuple[int, ...]:
    found = re.search(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in found.group().split(".")) if found else ()


def _run(command: list[str], environ: dict[str, str], cwd: str | None = None) -> str:
    done = subprocess.run(command, env=environ, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        _fail(f"{shlex.join(command)}: {done.stderr.strip() or done.returncode}")
    return done.stdout.strip()


def _fail(text: str) -> NoReturn:
    raise SystemExit(f"receptor build: {text}")
