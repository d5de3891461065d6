"""What examples/deploy holds does what it says: the configurations start, the unit and the recipe fit the program."""

# The fixtures are those of the command line's tests.
# ruff: noqa: F401, F811

from __future__ import annotations

import configparser
import json
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from test_daemon_cli import PATIENCE_S, REPO, Daemons, banner, run, start

DEPLOY = REPO / "examples" / "deploy"


def localised(name: str, folder: Path) -> Path:
    """A configuration with its paths below ``folder`` and its port free."""
    text = (DEPLOY / name).read_text()
    for fixed in ("/var/lib/receptor", "/run/receptor/receptor.sock", "/tmp/receptor.sock"):
        text = text.replace(fixed, str(folder / Path(fixed).name))
    path = folder / name
    path.write_text(text.replace("port: 7323", "port: 0\n    bindaddr: 127.0.0.1"))
    path.chmod(0o600)
    return path


@pytest.mark.parametrize("name", ["receptor.conf", "container.conf"])
def test_sample_configurations_start(start: Daemons, tmp_path: Path, name: str) -> None:
    path = localised(name, tmp_path)
    checked = run(start.binary, "--check", "-c", path)
    assert (checked.returncode, checked.stderr) == (0, "")
    daemon = start("-c", path)
    daemon.wait_for("Initialization complete")
    assert banner(tmp_path / "receptor.sock").startswith(b"Receptor Control, node ")
    assert daemon.stop() == 0


def test_systemd_unit(receptor: Path) -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment]
    unit.read(DEPLOY / "receptor.service")
    service = unit["Service"]
    assert service["Type"] == "notify"
    assert service["KillMode"] == "process", "commands of units outlive the node"
    assert service["RestartPreventExitStatus"] == "3"
    drain = re.search(r"draintimeout: (\d+)s", (DEPLOY / "receptor.conf").read_text())
    assert drain is not None
    assert int(service["TimeoutStopSec"].rstrip("s")) > int(drain[1]) + 10
    opened = configparser.ConfigParser(interpolation=None)
    opened.read(DEPLOY / "receptor.socket")
    assert f"port: {opened['Socket']['ListenStream']}\n" in (DEPLOY / "receptor.conf").read_text()
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        return
    verified = subprocess.run(
        [analyze, "verify", DEPLOY / "receptor.service", DEPLOY / "receptor.socket"],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    unknown = [line for line in verified.stderr.splitlines() if "Unknown" in line or "Failed to parse" in line]
    assert unknown == []


def test_f240_container_recipe(receptor: Path) -> None:
    recipe = (DEPLOY / "Containerfile").read_text()
    for source in re.findall(r"^COPY (?!--from)(?:--\S+ )*(.+) \S+$", recipe, re.MULTILINE):
        for path in source.split():
            assert (REPO / path).exists(), f"{path} is copied and is not there"
    assert "FROM scratch" in recipe
    assert "EXPOSE 7323" in recipe
    assert '"/etc/receptor/receptor.conf"' in recipe
    flags = re.search(r"-X (\S+?)=", recipe)
    assert flags is not None
    package, variable = flags[1].rsplit(".", 1)
    folder = REPO / package.removeprefix("github.com/pyreceptor/pyreceptor/")
    assert any(f"var {variable} string" in path.read_text() for path in folder.glob("*.go"))


def container(recipe: str, receptor: Path, root: Path) -> None:
    """Makes below ``root`` what the last stage of the recipe copies, with its owners and modes."""
    (build, stage) = recipe.split("FROM scratch")
    root.chmod(0o755)
    for options, source, target in re.findall(r"^COPY ((?:--\S+ )*)(\S+) (\S+)$", stage, re.MULTILINE):
        path = root / target.removeprefix("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        if "--from" not in options:
            shutil.copy(REPO / source, path)
        elif source == "/out/receptor":
            assert "-o /out/receptor ./go/cmd/receptor" in build
            shutil.copy(receptor, path)
        elif source.startswith("/out/"):
            assert re.search(rf"mkdir -p .*{source}", build), f"{source} is not made"
            path.mkdir(parents=True, exist_ok=True)
        else:
            assert source == "/etc/ssl/certs/ca-certificates.crt"
        if owner := re.search(r"--chown=(\d+):(\d+)", options):
            os.chown(path, int(owner[1]), int(owner[2]))
        if mode := re.search(r"--chmod=(\d+)", options):
            path.chmod(int(mode[1], 8))
    (root / "proc").mkdir()


def test_f240_the_container_runs(receptor: Path, tmp_path: Path) -> None:
    """What the recipe builds, in namespaces of its own: nothing but its files, its user, its command."""
    recipe = (DEPLOY / "Containerfile").read_text()
    root = tmp_path / "root"
    root.mkdir()
    unshare, chroot = shutil.which("unshare"), shutil.which("chroot")
    isolate = ["--fork", "--kill-child", "--pid", "--mount", "--net", "--ipc", f"--mount-proc={root / 'proc'}"]
    if unshare is None or chroot is None or os.getuid() != 0:
        pytest.skip("needs root, unshare and chroot")
    (root / "proc").mkdir()
    if subprocess.run([unshare, *isolate, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("no namespaces may be made here")
    (root / "proc").rmdir()
    container(recipe, receptor, root)
    user = re.search(r"^USER (\S+)$", recipe, re.MULTILINE)
    assert user is not None
    command = [
        word
        for name in ("ENTRYPOINT", "CMD")
        for word in json.loads(recipe.partition(f"\n{name} ")[2].partition("\n")[0])
    ]
    outside = Daemons(Path(unshare))
    daemon = outside(*isolate, "env", "-i", chroot, f"--userspec={user[1]}", root, *command)
    try:
        daemon.wait_for("Initialization complete")
        assert banner(root / "tmp" / "receptor.sock").startswith(b"Receptor Control, node ")
        first = int(Path(f"/proc/{daemon.process.pid}/task/{daemon.process.pid}/children").read_text())
        status = Path(f"/proc/{first}/status").read_text()
        assert re.search(rf"^Uid:\t{user[1].partition(':')[0]}\t", status, re.MULTILINE)
        assert re.search(r"^NSpid:.*\t1$", status, re.MULTILINE), "it is the init of its container"
        os.kill(first, signal.SIGTERM)
        assert daemon.wait() == 0, daemon.output
    finally:
        daemon.close()
    assert not (root / "tmp" / "receptor.sock").exists()


def test_the_binary_is_static(receptor: Path) -> None:
    """A container made from scratch has no library."""
    ldd = shutil.which("ldd")
    if ldd is None:
        pytest.skip("no ldd")
    out = subprocess.run([ldd, receptor], capture_output=True, text=True, check=False)
    assert "not a dynamic executable" in out.stderr + out.stdout or "statically linked" in out.stdout


def test_f241_release_archives() -> None:
    make = shutil.which("make")
    if make is None:
        pytest.skip("no make")
    plan = subprocess.run([make, "-n", "release"], cwd=REPO, capture_output=True, text=True, check=True).stdout
    for text in (
        "linux/amd64 linux/arm64",
        "receptor receptor-kubernetes",
        "CGO_ENABLED=0",
        ".tar.gz",
        "sha256sum",
        "_checksums.txt",
    ):
        assert text in plan
