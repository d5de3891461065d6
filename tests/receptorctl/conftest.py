"""Fixtures: the fake daemon, a real one, certificates, and a way to run the command."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
if importlib.util.find_spec("receptor") is None:  # not installed: test the source tree
    sys.path.insert(0, str(HERE.parents[1] / "python"))

from click.testing import CliRunner, Result  # noqa: E402
from fake_daemon import FakeDaemon  # noqa: E402
from receptorctl_support import Certificates, Invoke  # noqa: E402

import receptorctl  # noqa: E402
from receptorctl.cli import cli  # noqa: E402

# What this process imports, the commands it starts import too.
PACKAGES = os.path.dirname(receptorctl.__path__[0])
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [PACKAGES, os.environ.get("PYTHONPATH")]))


@pytest.fixture(autouse=True)
def _no_settings_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SOCKET", "CONFIG", "TLSCLIENT"):
        monkeypatch.delenv(f"RECEPTORCTL_{name}", raising=False)


@pytest.fixture
def invoke() -> Invoke:
    """Run the command line in this process."""

    def run(*args: str, stdin: bytes | None = None) -> Result:
        return CliRunner().invoke(cli, list(args), input=stdin, prog_name="receptorctl")

    return run


@pytest.fixture
def fake() -> Iterator[FakeDaemon]:
    """A control service in this process, not listening yet."""
    with FakeDaemon() as daemon:
        yield daemon


@pytest.fixture
def fake_socket(fake: FakeDaemon, tmp_path: Path) -> str:
    """The address of the fake daemon, which listens."""
    return fake.listen_unix(tmp_path / "gamma.sock")


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Make certificates for ``localhost``; skips where there is no openssl command."""
    if shutil.which("openssl") is None:
        pytest.skip("the openssl command is not installed")
    directory = tmp_path_factory.mktemp("tls")
    new = ["openssl", "req", "-x509", "-days", "2", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]

    def make(name: str, *more: str) -> None:
        files = ["-keyout", f"{name}.key", "-out", f"{name}.crt", "-subj", f"/CN={name}"]
        subprocess.run([*new, *files, *more], cwd=directory, check=True, capture_output=True)

    make("ca", "-addext", "keyUsage=critical,keyCertSign")
    issued = ["-CA", "ca.crt", "-CAkey", "ca.key", "-addext", "basicConstraints=critical,CA:FALSE"]
    make("server", *issued, "-addext", "subjectAltName=DNS:localhost")
    make("alpha-client", *issued, "-addext", "extendedKeyUsage=clientAuth")
    return Certificates(directory)


@pytest.fixture(scope="session")
def daemon(receptor: Path) -> Path:
    """The path of the real daemon."""
    return receptor
