"""Completion of the daemon's command line in the shells themselves: what is typed, and what the tab key makes of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from shells import SHELLS, check_completions

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


@pytest.mark.parametrize("shell", SHELLS)
def test_f012_shells_complete(
    shell: str, environment: dict[str, str], completions: list[tuple[str, str]], tmp_path: Path
) -> None:
    check_completions(shell, ["receptor", f"--{shell}-completion"], completions, environment, tmp_path)
