"""Send a file to another node with progress, and check what arrived.

    python examples/file_transfer.py [FILE]

The receiver tells the sender the SHA-256 of what it has stored, over the same stream: the two directions of a stream
end independently.
"""

import argparse
import hashlib
import os
import socket
import sys
import tempfile
import threading
from pathlib import Path

import receptor
import receptor.testing

CHUNK = 1 << 18


def receive(listener: receptor.Listener, target: Path) -> None:
    with listener.accept(timeout_s=20) as sock, target.open("wb") as file:
        digest = hashlib.sha256()
        try:
            while data := sock.recv(CHUNK):  # A broken stream raises: half a file is never taken for the whole.
                file.write(data)
                digest.update(data)
            sock.sendall(digest.digest())
        except receptor.StreamResetError as error:
            print(f"file_transfer: not received: {error}", file=sys.stderr)


def send(sock: receptor.MeshSocket, source: Path) -> str:
    digest, sent, size = hashlib.sha256(), 0, source.stat().st_size
    with source.open("rb") as file:
        try:
            while data := file.read(CHUNK):
                sock.sendall(data)
                digest.update(data)
                sent += len(data)
                print(f"\r{sent:>12,} of {size:,} bytes ({sent * 100 // size} %)", end="", file=sys.stderr)
        except BaseException:  # Also Ctrl-C. Closing the socket would look like the end of the file.
            sock.abort()
            raise
    print(file=sys.stderr)
    sock.shutdown(socket.SHUT_WR)
    if sock.makefile("rb").read() != digest.digest():
        raise SystemExit("file_transfer: what arrived is not what was sent")
    return digest.hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description="Send a file to another node.")
    parser.add_argument("file", nargs="?", type=Path, help="what to send; 20 MB of random bytes if left out")
    source: Path | None = parser.parse_args().file
    if source is not None and not source.is_file():
        parser.error(f"{source} is not a file")
    with tempfile.TemporaryDirectory() as folder, receptor.testing.mesh("sender", "hub", "receiver") as nodes:
        if source is None:
            source = Path(folder) / "random"
            source.write_bytes(os.urandom(20_000_000))
        with nodes["receiver"].listen("file") as listener:
            thread = threading.Thread(target=receive, args=(listener, Path(folder) / "copy"))
            thread.start()
            with nodes["sender"].connect("receiver", "file") as sock:
                print("sha256", send(sock, source))
            thread.join()


if __name__ == "__main__":
    main()
