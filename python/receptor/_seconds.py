"""Seconds to wait, as programs give them. Small, for what must start at once."""

from .errors import ConfigError

MAX_SECONDS = 1e9  # Clocks do not reach much further.


def check_seconds(name: str, seconds: float | None) -> None:
    """Refuse what is no time to wait: raises ConfigError."""
    if seconds is None:
        return
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 <= seconds <= MAX_SECONDS:
        raise ConfigError(f"{name}={seconds!r}: want seconds, 0 or more, up to {MAX_SECONDS:g}")
