"""Releases for machines that this one is not, run in emulation."""

import os
import platform
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

import receptor

ROOT = Path(__file__).resolve().parents[2]
MACHINE = "aarch64"
PATIENCE_S = 240.0  # Only what hangs takes as long.

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which(os.environ.get("RECEPTOR_GO") or "go") is None, reason="needs Go"),
    pytest.mark.skipif(shutil.which("make") is None, reason="needs make"),
    pytest.mark.skipif(platform.machine() == MACHINE, reason="this is the other machine"),
]


@pytest.fixture(scope="module")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command that runs the released daemon for arm64 here."""
    emulator = shutil.which(f"qemu-{MACHINE}-static") or shutil.which(f"qemu-{MACHINE}")
    if emulator is None:
        pytest.skip(f"needs qemu-{MACHINE}: install qemu-user-static")
    folder = tmp_path_factory.mktemp("release") / "dist"
    arguments = [f"RELEASE={folder}", "PLATFORMS=linux/arm64", f"GO={os.environ.get('RECEPTOR_GO') or 'go'}"]
    made = subprocess.run(["make", "release", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    for command in ("sha256sum -c --strict receptor_*_checksums.txt", "tar -xzf receptor_*_linux_arm64.tar.gz"):
        subprocess.run(["sh", "-c", command], cwd=folder, check=True, capture_output=True)
    return [emulator, str(folder / "receptor")]


def test_the_release_for_arm64_is_in_one_mesh_with_this_machine(emulated: list[str], tmp_path: Path) -> None:
    """Packets, streams in both directions, and what a status says, between two kinds of processor."""
    said = subprocess.run([*emulated, "--version"], capture_output=True, text=True, timeout=PATIENCE_S, check=True)
    assert said.stdout.strip()
    data = os.urandom(65_536)
    with (
        receptor.Node("here") as here,
        here.events("service") as services,
        socket.create_server(("127.0.0.1", 0)) as sink,
    ):
        port = here.add_listener().address.rsplit(":", 1)[1]
        echo = f"address=127.0.0.1:{sink.getsockname()[1]}"
        command = [*emulated, "--node", "id=there", f"datadir={tmp_path}", "--tcp-peer", f"address=127.0.0.1:{port}"]
        with (tmp_path / "log").open("wb") as log:
            daemon = subprocess.Popen([*command, "--tcp-client", "service=sink", echo], stdout=log, stderr=log)
        try:
            here.wait_route("there", timeout_s=PATIENCE_S)
            while services.get(timeout_s=PATIENCE_S) != receptor.ServiceSeen("there", "sink"):
                pass  # Another service, or one of this node.
            assert here.ping("there", timeout_s=PATIENCE_S).from_node == "there"
            near = here.connect("there", "sink", timeout_s=PATIENCE_S)
            sink.settimeout(PATIENCE_S)
            far, _ = sink.accept()
            with near, far:
                for one, other in ((near, far), (far, near)):
                    one.settimeout(PATIENCE_S)
                    other.settimeout(PATIENCE_S)
                    one.sendall(data)
                    assert receive(other, 65_536) == data
                near.shutdown(socket.SHUT_WR)
                assert far.recv(1) == b""
        finally:
            daemon.terminate()
            assert daemon.wait(PATIENCE_S) == 0, (tmp_path / "log").read_text()


def receive(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (some := sock.recv(size - len(data))):
        data += some
    return data
