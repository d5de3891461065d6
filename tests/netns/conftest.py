"""The three hosts; and at the end of a run, why tests of this folder were skipped, also in quiet runs."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from netns_hosts import Hosts, Network  # noqa: E402


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reasons: dict[str, int] = {}
    for report in terminalreporter.stats.get("skipped", ()):
        if isinstance(report.longrepr, tuple) and Path(report.longrepr[0]).parent == HERE:
            reasons[report.longrepr[2]] = reasons.get(report.longrepr[2], 0) + 1
    for reason, count in reasons.items():
        terminalreporter.write_line(f"{HERE.name}: {count} tests skipped: {reason.removeprefix('Skipped: ')}")


@pytest.fixture
def hosts(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Hosts]:
    """The mesh; a test may give more arguments of Hosts."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    for program in ("ip", "tc"):
        if shutil.which(program) is None:
            pytest.skip(f"there is no {program} program here: install iproute2")
    with contextlib.ExitStack() as stack:
        network = Network()
        stack.callback(network.close)
        network.lay()
        yield Hosts(network, tmp_path, stack, **getattr(request, "param", {}))
