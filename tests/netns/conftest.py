"""Says at the end of a run why tests of this folder were skipped, also in quiet runs."""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reasons: dict[str, int] = {}
    for report in terminalreporter.stats.get("skipped", ()):
        if isinstance(report.longrepr, tuple) and Path(report.longrepr[0]).parent == HERE:
            reasons[report.longrepr[2]] = reasons.get(report.longrepr[2], 0) + 1
    for reason, count in reasons.items():
        terminalreporter.write_line(f"{HERE.name}: {count} tests skipped: {reason.removeprefix('Skipped: ')}")
