"""``python -m receptorctl``."""

from receptorctl.cli import run

run()
