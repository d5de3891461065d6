"""Follow a log file on another node, line by line, as it is written.

    python examples/log_tail.py [LINES]

The node ``server`` offers ``tail -f`` of its log as work; the node ``desk`` reads the output of the unit while it runs,
and cancels it when it has seen enough. A lost link would only make it wait: the output goes on at the exact byte.
"""

import argparse
import tempfile
import threading
from pathlib import Path

import receptor


def write_log(path: Path, ended: threading.Event) -> None:
    """What a busy server does."""
    with path.open("a") as log:
        number = 0
        while not ended.wait(0.01):
            number += 1
            print(f"request {number} answered", file=log, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Follow a log of another node.")
    parser.add_argument("lines", nargs="?", type=int, default=5, help="how many to print; 5 if left out")
    wanted: int = parser.parse_args().lines
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "server.log"
        path.touch()
        tail = receptor.WorkCommand("tail", "tail", f"-f -n 0 {path}")
        ended = threading.Event()
        writer = threading.Thread(target=write_log, args=(path, ended))
        with receptor.Node("desk") as desk:
            address = desk.add_listener("tcp://127.0.0.1:0").address
            with receptor.Node("server", peers=[address], work_commands=[tail]) as server:
                desk.wait_route("server", timeout_s=20)
                server.wait_route("desk", timeout_s=20)
                writer.start()
                try:
                    with desk.work.submit("server", "tail") as unit, unit.open_stdout() as sock:
                        with sock.makefile() as lines:
                            for _, line in zip(range(wanted), lines, strict=False):
                                print("server:", line, end="", flush=True)
                        unit.cancel()
                finally:
                    ended.set()
                    writer.join()


if __name__ == "__main__":
    main()
