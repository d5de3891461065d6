"""The Pythons of this machine."""

import re
import shutil
import subprocess
import sys
from pathlib import Path


def interpreters() -> dict[str, str]:
    """Version to path of each Python from 3.11 on: this one, those in PATH, and those of pyenv."""
    candidates = [sys.executable, *(path for n in range(11, 20) if (path := shutil.which(f"python3.{n}")))]
    candidates += map(str, Path.home().glob(".pyenv/versions/*/bin/python3"))
    found: dict[str, str] = {}
    for path in candidates:
        told = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
        match = re.fullmatch(r"Python (3\.(\d+)\S*)\n", told.stdout)
        if match and int(match[2]) >= 11:
            found.setdefault(match[1], path)
    newest = sorted(found, key=lambda version: [int(n) for n in re.findall(r"\d+", version)], reverse=True)
    return {version: found[version] for version in newest}
