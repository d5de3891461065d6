"""Completion of the daemon's command line in the shells themselves: what is typed, and what the tab key makes of it."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pexpect
import pytest
from daemons import PATIENCE_S

# What is typed, and what stands there after the tab key. FOLDER holds one file, mesh.yml.
COMPLETIONS = (
    ("receptor --tcp-p", "receptor --tcp-peer"),
    ("receptor --node id=a --local-o", "receptor --node id=a --local-only"),
    ("receptor --tcp-listener bind", "receptor --tcp-listener bindaddr="),
    ("receptor --tcp-listener port=1 --ws-peer extra", "receptor --tcp-listener port=1 --ws-peer extraheader="),
    ("receptor --log-level level=de", "receptor --log-level level=debug"),
    ("receptor --tcp-peer redial=f", "receptor --tcp-peer redial=false"),
    ("receptor --node id=a --config FOLDER/me", "receptor --node id=a --config FOLDER/mesh.yml"),
    ("receptor -c FOLDER/me", "receptor -c FOLDER/mesh.yml"),
)


@pytest.fixture
def environment(receptor: Path, tmp_path: Path) -> dict[str, str]:
    """An environment in which ``receptor`` is a command."""
    commands = tmp_path / "bin"
    commands.mkdir()
    (commands / "receptor").symlink_to(receptor)
    home = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path), "ZDOTDIR": str(tmp_path)}
    return {**os.environ, **home, "PATH": f"{commands}:{os.environ['PATH']}", "PS1": "$ ", "TERM": "xterm"}


@pytest.fixture
def completions(tmp_path: Path) -> list[tuple[str, str]]:
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "mesh.yml").write_text("")
    return [(typed.replace("FOLDER", str(folder)), done.replace("FOLDER", str(folder))) for typed, done in COMPLETIONS]


def script(shell: str, environment: dict[str, str], folder: Path) -> Path:
    """A file with what ``receptor --SHELL-completion`` prints; skips where that shell is not installed."""
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    path = folder / "completion"
    path.write_bytes(
        subprocess.run(["receptor", f"--{shell}-completion"], env=environment, capture_output=True, check=True).stdout
    )
    return path


@pytest.mark.parametrize(
    ("shell", "options", "before"),
    [
        ("bash", ["--norc", "--noprofile"], ""),
        ("zsh", ["-f"], "autoload -Uz compinit; compinit -u; "),
    ],
)
def test_f012_shells_complete(
    shell: str,
    options: list[str],
    before: str,
    environment: dict[str, str],
    completions: list[tuple[str, str]],
    tmp_path: Path,
) -> None:
    path = script(shell, environment, tmp_path)
    child = pexpect.spawn(shell, options, env=environment, encoding="utf-8", timeout=PATIENCE_S, dimensions=(24, 300))
    child.sendline(f"{before}. {path}; echo rea''dy")
    child.expect("ready")
    for typed, completed in completions:
        child.send(f"{typed}\t\x01")  # control-A: to the start of the line
        child.sendline("echo It''_is: ")
        child.expect(rf"It_is: {completed}\s")
    child.sendline("exit 0")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0


def test_f012_fish_completes(environment: dict[str, str], completions: list[tuple[str, str]], tmp_path: Path) -> None:
    path = script("fish", environment, tmp_path)
    for typed, completed in completions:
        asked = ["fish", "--no-config", "-c", f"source {path}; complete --do-complete {shlex.quote(typed)}"]
        done = subprocess.run(asked, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=True)
        assert [line.split("\t")[0] for line in done.stdout.splitlines()] == [completed.rsplit(" ", 1)[1]]
