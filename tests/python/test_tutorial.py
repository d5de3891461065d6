"""The tutorial, typed line by line."""

import doctest
import os
from pathlib import Path

import pytest

from receptor import _daemon, _library

TUTORIAL = Path(__file__).resolve().parents[2] / "python" / "README.md"


@pytest.mark.skipif(not os.path.exists(_library.PATH), reason=f"{os.path.basename(_library.PATH)} is not built")
def test_tutorial(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = os.path.dirname(_daemon.require("the tutorial"))
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    failed, tried = doctest.testfile(str(TUTORIAL), module_relative=False, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert tried > 40
    assert failed == 0
