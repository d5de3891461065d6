"""What all tests share."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPO / "tests"))

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # A shell ignores it for what it runs in the background.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def receptor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The daemon: that of ``RECEPTOR_DAEMON``, or one built from this tree."""
    if given := os.environ.get("RECEPTOR_DAEMON"):
        return Path(given)
    if shutil.which("go") is None:
        pytest.skip("RECEPTOR_DAEMON is not set and there is no Go to build a daemon")
    binary = tmp_path_factory.mktemp("bin") / "receptor"
    build = subprocess.run(
        ["go", "build", "-o", str(binary), "./go/cmd/receptor"],
        cwd=REPO,
        env={**os.environ, "CGO_ENABLED": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert build.returncode == 0, f"the daemon does not build:\n{build.stderr}"
    return binary
