"""Log records of a node, in Python's logging."""

import logging

from .types import LogRecord

LOGGER = "receptor.node"

_LEVELS = {"error": logging.ERROR, "warning": logging.WARNING, "info": logging.INFO, "debug": logging.DEBUG}


def emit(record: LogRecord, node: str) -> None:
    """Hand one record to the logger ``receptor.node``.

    The record has the attributes ``node`` and ``attrs`` (the record's keys and values), and the node's own time.
    """
    logger = logging.getLogger(LOGGER)
    level = _LEVELS.get(record.level, logging.INFO)
    if not logger.isEnabledFor(level):
        return
    text = " ".join([record.message, *(f"{key}={value}" for key, value in record.attrs.items())])
    extra = {"node": node, "attrs": dict(record.attrs)}
    entry = logger.makeRecord(LOGGER, level, "(node)", 0, text, (), None, extra=extra)
    if record.time is not None:
        entry.created = record.time.timestamp()
        entry.msecs = record.time.microsecond / 1000
    logger.handle(entry)
