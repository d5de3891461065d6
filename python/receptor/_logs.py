"""Log records of a node, in Python's logging."""

import logging

from .types import LogRecord

LOGGER = "receptor.node"

_LEVELS = {"error": logging.ERROR, "warning": logging.WARNING, "info": logging.INFO, "debug": logging.DEBUG}


def emit(record: LogRecord, node: str) -> None:
    """Hand one record to the logger ``receptor.node``.

    The record has the attributes ``node`` and ``attrs`` (the record's keys and values), and the node's own time. What
    a handler or a filter of the program's raises is told as logging tells of failed handlers, and does no further harm.
    """
    logger = logging.getLogger(LOGGER)
    level = _LEVELS.get(record.level, logging.INFO)
    if not logger.isEnabledFor(level):
        return
    text = " ".join([record.message, *(f"{key}={value}" for key, value in record.attrs.items())])
    entry = logger.makeRecord(LOGGER, level, "(node)", 0, text, (), None)
    entry.__dict__.update(node=node, attrs=dict(record.attrs))  # Not as "extra": a program's own records may have them.
    if record.time is not None:
        entry.created = record.time.timestamp()
        entry.msecs = record.time.microsecond / 1000
    try:
        logger.handle(entry)
    except Exception:
        logging.NullHandler().handleError(entry)
