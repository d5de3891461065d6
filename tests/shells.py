"""Shells that complete command lines, driven as a person does it."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pexpect
import pytest
from daemons import PATIENCE_S

SHELLS = ["bash", "zsh", "fish"]
_OPTIONS = {"bash": ["--norc", "--noprofile"], "zsh": ["-f"]}
_BEFORE = {"bash": "", "zsh": "autoload -Uz compinit; compinit -u; "}


def check_completions(
    shell: str,
    printer: Sequence[str],
    completions: Iterable[tuple[str, str]],
    environment: Mapping[str, str],
    folder: Path,
) -> None:
    """Have ``shell`` complete each line that is typed, with the script that the command ``printer`` prints.

    completions: what is typed, and the whole line after the completion. Skips where the shell is not installed.
    """
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    script = folder / "completion"
    script.write_bytes(subprocess.run(printer, env=environment, capture_output=True, check=True).stdout)
    if shell == "fish":
        for typed, completed in completions:
            asked = ["fish", "--no-config", "-c", f"source {script}; complete --do-complete {shlex.quote(typed)}"]
            done = subprocess.run(
                asked, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=True
            )
            assert [line.split("\t")[0] for line in done.stdout.splitlines()] == [completed.rsplit(" ", 1)[1]]
        return
    child = pexpect.spawn(
        shell, _OPTIONS[shell], env=environment, encoding="utf-8", timeout=PATIENCE_S, dimensions=(24, 300)
    )
    child.sendline(f"{_BEFORE[shell]}. {script}; echo rea''dy")
    child.expect("ready")
    for typed, completed in completions:
        child.send(f"{typed}\t\x01")  # control-A: to the start of the line
        child.sendline("echo It''_is: ")
        child.expect(rf"It_is: {completed}\s")
    child.sendline("exit 0")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
