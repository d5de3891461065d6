"""Every Python example runs as it stands and does what it says."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"

# What each prints; those with a test module of their own are named there.
PRINTS = {
    "echo.py": r"route: left -> middle -> right\necho:  hello\necho:  mesh\n",
    "echo_asyncio.py": r"connected to right:echo\necho: hello\necho: mesh\n",
    "web_behind_firewall.py": r"open http://127\.0\.0\.1:\d+/ .*\nstatus 200, \d+ bytes\n",
    "fan_out.py": r"(worker\d: +\d+ primes from \d+ to \d+\n){5}2262 primes below 20000\n",
    "log_tail.py": r"(server: request \d+ answered\n){5}",
    "file_transfer.py": r"sha256 [0-9a-f]{64}\n",
}
ELSEWHERE = {"two_hops.py": "tests/test_mesh.py"}


@pytest.mark.parametrize("name", sorted(PRINTS))
def test_example(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / name)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(PRINTS[name], done.stdout), done.stdout


@pytest.mark.parametrize("name", ["fan_out.py", "file_transfer.py", "log_tail.py", "web_behind_firewall.py"])
def test_a_wrong_argument_is_told_in_a_line(name: str) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), "none-such"], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 2
    assert re.fullmatch(rf"usage: {name}.*\n{name}: error: .*none-such.*\n", done.stderr), done.stderr


def test_the_example_of_tests() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(EXAMPLES / "test_with_a_mesh.py")],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("..")


def test_no_example_is_forgotten() -> None:
    programs = {path.name for path in EXAMPLES.glob("*.py")}
    assert programs == {*PRINTS, *ELSEWHERE, "test_with_a_mesh.py"}
