"""Check a wheel as its users meet it: ``python tests/packaging/check_wheel.py dist``.

The wheel is built a second time, from the source distribution and in another place, and must be the same bytes; then it
is installed into a clean environment of each Python of this machine, where every example runs, warnings being errors.
"""

import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pythons import interpreters

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SIZE_BUDGET_BYTES = 10_000_000


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def only(folder: Path, pattern: str) -> Path:
    found = list(folder.glob(pattern))
    if len(found) != 1:
        raise SystemExit(f"check_wheel: {folder} has {len(found)} files {pattern}, want one")
    return found[0]


def run(*command: object, cwd: Path) -> str:
    """What a command prints. PYTHONPATH would hide what is installed."""
    environ = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "RECEPTOR_DAEMON")}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environ, capture_output=True, text=True, timeout=600, check=False
    )
    if done.returncode != 0:
        raise SystemExit(f"check_wheel: {' '.join(map(str, command))}: status {done.returncode}\n{done.stderr}")
    return done.stdout


def check_reproducible(wheel: Path, sdist: Path, scratch: Path) -> None:
    with tarfile.open(sdist) as archive:
        archive.extractall(scratch / "source", filter="data")
    source = only(scratch / "source", "*")
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", scratch]
    run(sys.executable, "-m", "pip", "wheel", *options, ".", cwd=source)
    again = only(scratch, "*.whl")
    if again.name != wheel.name or digest(again) != digest(wheel):
        raise SystemExit(f"check_wheel: built from the source distribution it is another {wheel.name}")
    print(f"reproducible  sha256 {digest(wheel)}")


def check_installed(wheel: Path, version: str, interpreter: str, scratch: Path) -> None:
    home = scratch / f"environment-{version}"
    run(interpreter, "-m", "venv", home, cwd=scratch)
    python = home / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", wheel, cwd=scratch)
    said = run(home / "bin" / "receptor", "--version", cwd=scratch).strip()
    print("installed     version", said, "for Python", version)
    run(home / "bin" / "receptorctl", "--help", cwd=scratch)
    for example in sorted(EXAMPLES.glob("*.py")):
        if example.name.startswith("test_"):
            continue  # Needs pytest, which the package does not.
        run(python, "-W", "error", example, cwd=scratch)
        print("example      ", example.name)


def main() -> None:
    dist = Path(sys.argv[1]).resolve()
    wheel, sdist = only(dist, "*.whl"), only(dist, "*.tar.gz")
    size = wheel.stat().st_size
    if size > SIZE_BUDGET_BYTES:
        raise SystemExit(f"check_wheel: {wheel.name} has {size:,} bytes; {SIZE_BUDGET_BYTES:,} are allowed")
    with tempfile.TemporaryDirectory(prefix="receptor-wheel-") as folder:
        scratch = Path(folder)
        check_reproducible(wheel, sdist, scratch)
        for version, interpreter in interpreters().items():
            check_installed(wheel, version, interpreter, scratch)


if __name__ == "__main__":
    main()
