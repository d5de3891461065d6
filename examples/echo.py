"""Echo over two hops: three nodes in a line, a stream from one end to the other.

    python examples/echo.py [TEXT ...]

Prints what came back. The nodes live in this process; with addresses of other machines the program is the same.
"""

import sys
import threading

import receptor


def serve(listener: receptor.Listener) -> None:
    """Send back whatever comes, one stream after another, until the listener is closed."""
    for sock in listener:
        with sock:
            while data := sock.recv(65536):
                sock.sendall(data)


def main() -> None:
    with (
        receptor.Node("left") as left,
        receptor.Node("middle") as middle,
        receptor.Node("right") as right,
    ):
        middle.add_peer(left.add_listener("tcp://127.0.0.1:0").address)
        right.add_peer(middle.add_listener("tcp://127.0.0.1:0").address)
        with right.listen("echo") as listener:
            thread = threading.Thread(target=serve, args=(listener,))
            thread.start()
            left.wait_route("right", timeout_s=20)
            print("route:", " -> ".join(hop.from_node for hop in left.traceroute("right")))
            with left.connect("right", "echo") as sock, sock.makefile("rw") as lines:
                for word in sys.argv[1:] or ["hello", "mesh"]:
                    print(word, file=lines, flush=True)
                    print("echo: ", lines.readline().strip())
        thread.join()


if __name__ == "__main__":
    main()
