"""What the package does to its process: imports, forks, exits, the library's checks, finding the daemon."""

import copy
import doctest
import errno
import gc
import importlib
import multiprocessing
import os
import pickle
import pkgutil
import shutil
import signal
import socket
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable
from multiprocessing import resource_tracker
from pathlib import Path

import pytest
from meshes import Mesh

import receptor
from receptor import _daemon, _library

resource_tracker.ensure_running()  # It lives as long as this process, once a child was spawned.

SOURCES = Path(receptor.__file__).parents[1]


def python(code: str, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a fresh interpreter, warnings being errors."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": str(SOURCES), **environ},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_the_import_is_light() -> None:
    done = python(
        "import sys, threading; before = set(sys.modules)\n"
        "import receptor\n"
        "print(sorted(set(sys.modules) - before))\n"
        "assert threading.active_count() == 1\n"
        "maps = open('/proc/self/maps').read(); assert 'libreceptor' not in maps\n"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "['receptor']\n"


def test_no_module_loads_the_library_or_starts_a_thread() -> None:
    done = python(
        "import os, pkgutil, importlib, receptor\n"
        "for module in pkgutil.walk_packages(receptor.__path__, 'receptor.'): importlib.import_module(module.name)\n"
        "for name in receptor.__all__: getattr(receptor, name)\n"
        "print(len(os.listdir('/proc/self/task')), 'libreceptor' in open('/proc/self/maps').read())\n"
    )
    assert done.stdout == "1 False\n", done.stderr


def test_a_blocking_node_needs_neither_asyncio_nor_ctypes() -> None:
    done = python(
        "import sys; before = set(sys.modules); import receptor; receptor.Node\n"
        "heavy = {'asyncio', 'ctypes', 'logging', 'dataclasses', 'inspect', 'importlib.metadata', 'receptor.types'}\n"
        "print(heavy & (set(sys.modules) - before))\n"
    )
    assert done.stdout == "set()\n", done.stderr


def test_public_names() -> None:
    assert sorted(receptor.__all__) == sorted(set(receptor.__all__))
    for name in receptor.__all__:
        assert getattr(receptor, name) is not None, name
    promised = set(receptor.__all__)
    for module in ("errors", "types", "node", "work"):
        names = set(importlib.import_module(f"receptor.{module}").__all__)
        assert names <= promised, f"{module} has public names that the package does not export: {names - promised}"
    assert promised <= set(dir(receptor))
    for name in receptor.aio.__all__:
        assert getattr(receptor.aio, name) is not None, name
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        receptor.nonsense  # noqa: B018


def test_both_nodes_have_the_same_methods() -> None:
    blocking = {name for name in dir(receptor.Node) if not name.startswith("_")}
    asynchronous = {name for name in dir(receptor.aio.Node) if not name.startswith("_")}
    assert asynchronous - blocking == {"open_connection", "open_socket", "start", "start_server"}
    assert blocking - asynchronous == {"connect"}


def test_the_examples_in_the_docs() -> None:
    for module in pkgutil.iter_modules([str(SOURCES / "receptor")], "receptor."):
        failed, _ = doctest.testmod(importlib.import_module(module.name), optionflags=doctest.IGNORE_EXCEPTION_DETAIL)
        assert failed == 0, module.name


def test_exceptions_can_be_pickled() -> None:
    result = receptor.WorkResult("u", receptor.WorkState.FAILED, "exit status 3", 3, 0)
    for error in (
        receptor.Unreachable("x", code="firewall", node="b", service="s"),
        receptor.StreamResetError("x", remote=True, error_code=3),
        receptor.WorkFailed("x", result=result),
        receptor.ForkedProcessError("x", opened_in=1, used_in=2),
    ):
        copy = pickle.loads(pickle.dumps(error))
        assert type(copy) is type(error)
        assert (str(copy), vars(copy)) == (str(error), vars(error))


def test_a_forked_child_is_told(mesh: Mesh) -> None:
    a, b = mesh.pair()
    with b.listen("x") as listener:
        sock = a.connect("b", "x")
        far = listener.accept(timeout_s=60)
        reader, writer = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Forking with threads, from Python 3.12 on.
            child = os.fork()
        if child == 0:
            told = []
            calls: list[Callable[[], object]] = [a.status, listener.accept, lambda: sock.recv(1)]
            if mesh.mode == "in-process":
                calls.append(lambda: receptor.Node("c"))
            for call in calls:
                try:
                    call()
                    told.append("nothing")
                except receptor.ForkedProcessError as error:
                    told.append(f"{error.opened_in == os.getppid()} {error.used_in == os.getpid()}")
                except BaseException as error:
                    told.append(repr(error))
            a.close()
            os.write(writer, "\n".join(told).encode())
            signal.pause()  # Stays until the parent has seen the stream end.
        try:
            os.close(writer)
            told = os.read(reader, 10_000).decode().split("\n")
            assert set(told) == {"True True"}
            sock.close()
            far.settimeout(60)
            assert far.recv(1) == b"", "the child keeps the stream open"
        finally:
            os.close(reader)
            os.kill(child, 9)
            os.waitpid(child, 0)
            far.close()
        assert a.status().node == "a"


def test_what_belongs_to_a_process_is_neither_copied_nor_pickled(mesh: Mesh) -> None:
    a, b = mesh.pair()
    with b.listen("x") as listener, a.connect("b", "x") as sock, a.datagram() as datagrams, a.events() as events:
        listener.accept(timeout_s=60).close()
        for one in (a, listener, sock, datagrams, events):
            for way in (copy.copy, copy.deepcopy, pickle.dumps):
                with pytest.raises(TypeError, match="cannot copy or pickle <.*: (open one in the|another) process"):
                    way(one)
        gc.collect()
    assert a.ping("b").from_node == "b"


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # Forking with threads, from Python 3.12 on.
@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_another_process_takes_a_stream_as_its_dup(nodes: Mesh, method: str) -> None:
    a, b = nodes.pair()
    with b.listen("x") as listener, a.connect("b", "x") as sock, listener.accept(timeout_s=60) as far:
        far.settimeout(60)
        with sock.dup() as plain:
            child = multiprocessing.get_context(method).Process(  # type: ignore[attr-defined]  # BaseContext has one
                target=socket.socket.sendall, args=(plain, b"from the child")
            )
            child.start()
        sock.close()
        child.join(60)
        assert child.exitcode == 0
        child.close()
        assert far.makefile("rb").read() == b"from the child"


NEEDS_LIBRARY = pytest.mark.skipif(
    not os.path.exists(_library.PATH), reason=f"{os.path.basename(_library.PATH)} is not built: pip install -e ."
)


@NEEDS_LIBRARY
@pytest.mark.parametrize(
    "program",
    [
        "import receptor; node = receptor.Node('a'); listener = node.listen('x'); listener._sock.detach()",
        "import receptor; node = receptor.Node('a', log_level='debug')",
        "import receptor, threading\n"
        "node = receptor.Node('a')\n"
        "def wait():\n"
        "    try: node.wait_route('b')\n"
        "    except receptor.ClosedError: pass\n"
        "threading.Thread(target=wait, daemon=True).start()\n",
        "import receptor, asyncio\n"
        "async def main():\n"
        "    global node\n"
        "    node = await receptor.aio.Node('a')\n"
        "asyncio.run(main())\n",
    ],
)
def test_open_nodes_do_not_disturb_the_exit(program: str) -> None:
    done = python(program)
    assert (done.returncode, done.stderr) == (0, "")


@NEEDS_LIBRARY
def test_ctrl_c_ends_a_program() -> None:
    program = (
        "import receptor, os, signal, threading, time\n"
        "def press():\n"  # Again if it was missed: Python does when it comes in the moment before a wait.
        "    while True:\n"
        "        time.sleep(0.5)\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "with receptor.Node('a') as node:\n"
        "    threading.Thread(target=press, daemon=True).start()\n"
        "    node.wait_route('nowhere')\n"
    )
    done = python(program)
    assert done.returncode in (-2, 130)
    assert "KeyboardInterrupt" in done.stderr


@NEEDS_LIBRARY
def test_a_node_opened_after_the_fork_works() -> None:
    done = python(
        "import receptor, multiprocessing\n"
        "def work(name):\n"
        "    with receptor.Node(name) as node: return node.status().node\n"
        "with multiprocessing.get_context('fork').Pool(2) as pool: print(pool.map(work, ['a', 'b']))\n"
    )
    assert done.stdout == "['a', 'b']\n", done.stderr


# The library's checks.

FAKE_C = """
#include <stdint.h>
int32_t receptor_abi(void) { return ABI; }
const char *receptor_build_info(void) { return "{\\"version\\": \\"" VERSION "\\"}"; }
int32_t receptor_open(const char *c, int64_t n, char *e, int64_t k) { e[0] = 'n'; e[1] = 'o'; e[2] = 0; return -2; }
int32_t receptor_dump(char *b, int64_t n) { return 0; }
"""


@pytest.fixture
def unloaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A library yet to be loaded, at a path of the test's own."""
    monkeypatch.setattr(_library, "_loaded", None)
    monkeypatch.setattr(_library, "PATH", tmp_path / "libreceptor.so")
    return tmp_path / "libreceptor.so"


def compile_c(target: Path, abi: int, version: str, source: str = FAKE_C) -> None:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    (target.parent / "fake.c").write_text(source)
    define = [f"-DABI={abi}", f'-DVERSION="{version}"']
    subprocess.run([compiler, "-shared", "-fPIC", *define, "-o", target, target.parent / "fake.c"], check=True)


def test_a_missing_library(unloaded: Path) -> None:
    with pytest.raises(receptor.NativeLibraryError, match="is missing: .* pip install") as caught:
        receptor.Node("a")
    assert isinstance(caught.value, ImportError)


def test_a_file_that_is_no_library(unloaded: Path) -> None:
    unloaded.write_text("nonsense")
    with pytest.raises(receptor.NativeLibraryError, match="cannot be loaded"):
        receptor.Node("a")


def test_a_library_of_another_abi(unloaded: Path) -> None:
    compile_c(unloaded, 2, receptor.__version__)
    with pytest.raises(receptor.NativeLibraryError, match="ABI 2, this package wants 1"):
        receptor.Node("a")


def test_a_library_of_another_version(unloaded: Path) -> None:
    compile_c(unloaded, 1, "0.0.1")
    with pytest.raises(receptor.NativeLibraryError, match=r"version 0\.0\.1, this package of"):
        receptor.Node("a")


def test_a_package_without_its_metadata(tmp_path: Path) -> None:
    """A tree that somebody copied: nothing says which version it is."""
    shutil.copytree(SOURCES / "receptor", tmp_path / "receptor", ignore=shutil.ignore_patterns("*.so", "bin"))
    done = python(
        "import sys; sys.path[:] = [path for path in sys.path if not path.endswith('-packages')]\n"
        "import receptor\n"
        "try: receptor.__version__\n"
        "except receptor.NativeLibraryError as error: print(error)\n",
        PYTHONPATH=str(tmp_path),
    )
    assert f"{tmp_path} has no pyreceptor-*.dist-info" in done.stdout, done.stderr
    assert "--copy-metadata" in done.stdout


def test_a_package_in_an_archive(tmp_path: Path) -> None:
    """As in a zipapp: no library can be loaded, and the daemon is found where it is."""
    archive = tmp_path / "app.pyz"
    with zipfile.ZipFile(archive, "w") as app:
        for module in (SOURCES / "receptor").rglob("*.py"):
            app.write(module, module.relative_to(SOURCES))
        app.writestr("pyreceptor-7.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: pyreceptor\nVersion: 7.0\n")
    done = python(
        "import receptor, receptor._daemon\n"
        "print(receptor.__version__, receptor._daemon.find())\n"
        "try: receptor.Node('a', mode='in-process')\n"
        "except receptor.NativeLibraryError as error: print(error)\n",
        PYTHONPATH=str(archive),
        PATH=str(program(tmp_path / "bin" / "receptor", "7.0").parent) + os.pathsep + os.environ["PATH"],
        RECEPTOR_DAEMON="",
    )
    assert done.returncode == 0, done.stderr
    found, refusal = done.stdout.splitlines()
    assert found == f"7.0 {tmp_path}/bin/receptor"
    assert "is in an archive" in refusal


def test_a_library_that_is_none_of_ours(unloaded: Path) -> None:
    compile_c(unloaded, 1, "", "int x;")
    with pytest.raises(receptor.NativeLibraryError, match="not a library of this package"):
        receptor.Node("a")


def test_a_library_that_opens_no_session(unloaded: Path) -> None:
    compile_c(unloaded, 1, receptor.__version__)
    with pytest.raises(receptor.ReceptorError, match="opened no session: no"):
        receptor.Node("a")


def test_musl_is_told_apart(unloaded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There a node is a sidecar, and who insists on the library is told why it cannot be."""
    assert _library.expected() == (sys.platform == "linux")
    monkeypatch.setattr("sysconfig.get_config_var", lambda name: {"HOST_GNU_TYPE": "x86_64-pc-linux-musl"}.get(name))
    assert not _library.expected()
    unloaded.write_text("nonsense")
    with pytest.raises(
        receptor.NativeLibraryError, match=r'do not work on musl.* glibc, or Node\(\.\.\., mode="sidecar"\)'
    ):
        receptor.Node("a", mode="in-process")


def test_too_little_address_space() -> None:
    """The Go runtime would end the process. A node in a child does that to the child alone."""
    done = python(
        "import resource, receptor\n"
        "from receptor import _modes\n"
        "resource.setrlimit(resource.RLIMIT_AS, (1 << 30, resource.RLIM_INFINITY))\n"
        "print(_modes.resolve('auto'))\n"
        "try:\n"
        "    receptor.Node('a', mode='in-process')\n"
        "except receptor.NativeLibraryError as error:\n"
        "    print(error)\n"
        "resource.setrlimit(resource.RLIMIT_AS, (3 << 30, resource.RLIM_INFINITY))\n"
        "print(_modes.resolve('auto'))\n"
        "with receptor.Node('a', mode='in-process') as node:\n"
        "    print(node.ping('a').from_node)\n"
    )
    mode, refusal, better, answer = done.stdout.splitlines() or [done.stderr, "", "", ""]
    assert mode == better == "sidecar"
    assert "(ulimit -v) leaves 10" in refusal
    assert 'mode="sidecar"' in refusal
    assert answer == "a"


# The daemon.


def program(path: Path, version: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho {version}\n")
    path.chmod(0o755)
    return path


def test_the_daemon_is_found_by_its_version(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RECEPTOR_DAEMON", raising=False)
    monkeypatch.setattr("sysconfig.get_path", lambda name, scheme=None: str(tmp_path / "scripts"))
    foreign = program(tmp_path / "one" / "receptor", "1.4.9")
    ours = program(tmp_path / "two" / "receptor", receptor.__version__)
    monkeypatch.setenv("PATH", f"{foreign.parent}:{ours.parent}:{os.environ['PATH']}")
    assert _daemon.find() == str(ours)
    assert _daemon.find() == str(ours)
    monkeypatch.setenv("PATH", f"{foreign.parent}:/bin")
    assert _daemon.find() is None
    with pytest.raises(receptor.ConfigError, match="work command 'cat': needs the receptor daemon") as refusal:
        receptor.Node("a", work_commands=[receptor.WorkCommand("cat", "cat")])
    assert f"(there is {foreign}, version '1.4.9')" in str(refusal.value)
    foreign.write_text("#!/bin/sh\necho out of memory >&2; echo more >&2; exit 2\n")
    with pytest.raises(receptor.ConfigError, match=r"one/receptor, which ended with status 2 .* said: out of memory\)"):
        _daemon.require("this")
    installed = program(tmp_path / "scripts" / "receptor", receptor.__version__)
    assert _daemon.find() == str(installed)
    monkeypatch.setenv("RECEPTOR_DAEMON", str(foreign))
    assert _daemon.find() == str(foreign)
    monkeypatch.setenv("RECEPTOR_DAEMON", str(tmp_path / "nothing"))
    with pytest.raises(receptor.ConfigError, match="RECEPTOR_DAEMON="):
        _daemon.find()


def test_the_daemon_is_found_when_it_can_be_run_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Out of descriptors or memory for a moment is not "no daemon" for the rest of the program."""
    monkeypatch.delenv("RECEPTOR_DAEMON", raising=False)
    monkeypatch.setattr("sysconfig.get_path", lambda name, scheme=None: str(tmp_path))
    ours = program(tmp_path / "receptor", receptor.__version__)

    def out_of_descriptors(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as moment:
        moment.setattr("subprocess.run", out_of_descriptors)
        with pytest.raises(receptor.ConfigError, match=r"receptor, which cannot be run: Too many open files"):
            _daemon.require("this")
    assert _daemon.find() == str(ours)
