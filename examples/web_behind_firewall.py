"""A web server that no port leads to, reached through the mesh.

    python examples/web_behind_firewall.py [FOLDER]

The node ``inside`` dials out to ``hub`` and offers the web server of its network as the service "web". The node
``laptop`` opens a local port that leads there: any browser can use it while this program runs. Here ``urllib`` does.
The web server listens on a Unix socket, so there truly is no port.
"""

import argparse
import http.server
import os
import socketserver
import tempfile
import threading
import urllib.request
from contextlib import ExitStack
from functools import partial

import receptor


class UnixHTTPServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """An HTTP server on a Unix socket."""

    daemon_threads = True


class Files(http.server.SimpleHTTPRequestHandler):
    """Shows a folder and stays silent."""

    def address_string(self) -> str:
        return "local"

    def log_message(self, format: str, *args: object) -> None: ...


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve a folder through the mesh.")
    parser.add_argument("folder", nargs="?", default=os.path.dirname(__file__), help="the examples if left out")
    folder: str = parser.parse_args().folder
    if not os.path.isdir(folder):
        parser.error(f"{folder} is not a folder")
    with tempfile.TemporaryDirectory() as scratch:
        path = os.path.join(scratch, "web.sock")
        with UnixHTTPServer(path, partial(Files, directory=folder)) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            through_the_mesh(path)
            server.shutdown()


def through_the_mesh(path: str) -> None:
    """Offer what listens on the socket at ``path``, and use it from another node."""
    with ExitStack() as stack:
        hub = stack.enter_context(receptor.Node("hub"))
        address = hub.add_listener("tcp://127.0.0.1:0").address
        inside = stack.enter_context(receptor.Node("inside", peers=[address]))
        laptop = stack.enter_context(receptor.Node("laptop", peers=[address]))
        laptop.wait_route("inside", timeout_s=20)
        stack.enter_context(inside.expose(f"unix://{path}", "web"))
        proxy = stack.enter_context(laptop.forward("inside", "web"))
        host, port = proxy.host_port
        print(f"open http://{host}:{port}/ (through the mesh to {proxy.service})")
        with urllib.request.urlopen(f"http://{host}:{port}/", timeout=20) as page:
            text = page.read()
        print(f"status {page.status}, {len(text)} bytes")


if __name__ == "__main__":
    main()
