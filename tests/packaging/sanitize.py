"""The C library under Go's checks of pointers and under the address sanitizer, driven from Python: ``make sanitize``.

Builds it with GOEXPERIMENT=cgocheck2 and with -asan, and has a program use every kind of descriptor with each.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from building import package_with_library

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


def check(folder: Path, build: dict[str, str], run: dict[str, str]) -> None:
    """Build the library into a copy of the package in ``folder``, and run the program with it."""
    environ = {**os.environ, "PYTHONPATH": str(package_with_library(folder, **build)), **run}
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
