"""A worker plugin that does not let itself be interrupted."""

import signal
import subprocess
import time

import receptor

for each in (signal.SIGINT, signal.SIGTERM):
    signal.signal(each, signal.SIG_IGN)


@receptor.plugin_export(payload_type=receptor.BYTES_PAYLOAD)
def bears(payload, config, results):
    children = [
        subprocess.Popen(["sh", "-c", "trap '' INT TERM; exec sleep 300"], start_new_session=True),
        subprocess.Popen(["sleep", "300"], start_new_session=True),
    ]
    results.put([child.pid for child in children])
    time.sleep(300)
