"""A worker plugin for the tests of Python work."""

import os
import subprocess
import sys
import time

import receptor


@receptor.plugin_export(payload_type=receptor.BYTES_PAYLOAD)
def as_bytes(payload, config, results):
    results.put({"payload": payload.decode(), "config": config})
    results.put(["é", None])


@receptor.plugin_export(payload_type=receptor.BUFFER_PAYLOAD)
def as_buffer(payload, config, results):
    for line in payload:
        results.put(line.decode().strip())


@receptor.plugin_export(payload_type=receptor.FILE_PAYLOAD)
def as_file(payload, config, results):
    results.put(open(payload).read())


@receptor.plugin_export(payload_type="tape")
def as_tape(payload, config, results):
    results.put("not reached")


@receptor.plugin_export(payload_type=receptor.BYTES_PAYLOAD)
def fails(payload, config, results):
    results.put("before")
    raise KeyError("no such key")


@receptor.plugin_export(payload_type=receptor.BYTES_PAYLOAD)
def waits(payload, config, results):
    results.put("waiting")
    time.sleep(300)


@receptor.plugin_export(payload_type=receptor.BYTES_PAYLOAD)
def bears(payload, config, results):
    """Work that hears a signal, and has a child in a session of its own that does not."""
    child = subprocess.Popen(["sh", "-c", "trap '' INT TERM; exec sleep 300"], start_new_session=True)
    results.put([child.pid])
    time.sleep(300)


@receptor.plugin_export(payload_type=receptor.BYTES_PAYLOAD)
def exits(payload, config, results):
    results.put("before")
    sys.exit(4)


@receptor.plugin_export(payload_type=receptor.BYTES_PAYLOAD)
def dies(payload, config, results):
    os._exit(4)


@receptor.plugin_export(payload_type=receptor.BYTES_PAYLOAD)
def nested(payload, config, results):
    item = []
    for _ in range(100_000):
        item = [item]
    results.put(item)


def private(payload, config, results):
    results.put("not reached")
