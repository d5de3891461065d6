"""The C library under Go's checks of pointers and under the address sanitizer, driven from Python: ``make sanitize``.

Builds it with GOEXPERIMENT=cgocheck2 and with -asan, and has a program use every kind of descriptor with each.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import receptor, receptor._library as library, threading
for _ in range(3):
    with receptor.Node("a") as node, node.listen("up") as listener, node.datagram("d") as datagrams:
        def serve():
            with listener.accept() as sock: sock.sendall(sock.recv(100).upper())
        thread = threading.Thread(target=serve); thread.start()
        with node.connect("a", "up") as sock:
            sock.sendall(b"hello")
            assert sock.recv(100) == b"HELLO"
        thread.join()
        datagrams.send_to(b"hi", ("a", "d"))
        assert datagrams.recv_from(timeout_s=30)[0] == b"hi"
        with node.work.offer("up", lambda unit: unit.stdin.read().upper()):
            with node.work.submit("a", "up", "work") as unit:
                assert b"".join(unit.stdout()) == b"WORK"
        assert "goroutine" in library.dump()
for config in (b"", b"{", b'{"abi": 2}'):
    buffer = library._load()
    import ctypes
    error = ctypes.create_string_buffer(5)
    assert buffer.receptor_open(config, len(config), error, len(error)) < 0
print("well")
"""


def commands() -> ModuleType:
    spec = importlib.util.spec_from_file_location("receptor_build_commands", ROOT / "python" / "build" / "commands.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    import setuptools  # noqa: F401  # makes "distutils" importable

    spec.loader.exec_module(module)
    return module


def check(folder: Path, build: dict[str, str], run: dict[str, str]) -> None:
    """Build the library into a copy of the package in ``folder``, and run the program with it."""
    shutil.copytree(ROOT / "python" / "receptor", folder / "receptor", ignore=shutil.ignore_patterns("_native"))
    (folder / "pyreceptor-0.dist-info").mkdir()
    (folder / "pyreceptor-0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: pyreceptor\nVersion: 0\n")
    os.environ.update(build)
    commands().build_library(folder / "receptor" / "_native" / "libreceptor.so", "0")
    for name in build:
        del os.environ[name]
    environ = {**os.environ, "PYTHONPATH": str(folder), **run}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environ, capture_output=True, text=True, check=False)
    if done.returncode != 0 or done.stdout != "well\n":
        raise SystemExit(f"sanitize: {build}: status {done.returncode}\n{done.stderr}")
    print("well with", *(f"{name}={value}" for name, value in build.items()))


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="receptor-sanitize-") as scratch:
        check(Path(scratch) / "cgocheck", {"GOEXPERIMENT": "cgocheck2"}, {})
        compiler = os.environ.get("CC", "gcc")
        found = subprocess.run([compiler, "-print-file-name=libasan.so"], capture_output=True, text=True, check=True)
        asan = Path(found.stdout.strip()).resolve()
        check(
            Path(scratch) / "asan",
            {"GOFLAGS": "-asan"},
            {"LD_PRELOAD": str(asan), "ASAN_OPTIONS": "detect_leaks=0", "PYTHONMALLOC": "malloc"},
        )


if __name__ == "__main__":
    main()
