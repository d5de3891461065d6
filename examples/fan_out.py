"""Run a Python function on five nodes and take the results as they complete.

    python examples/fan_out.py [NUMBER]

Counts the primes below NUMBER: each of five workers offers the function as a work type, and the program, itself a node
of the mesh, submits a range to each and prints what comes back, fastest first.
"""

import argparse
from concurrent.futures import ThreadPoolExecutor, as_completed

import receptor
import receptor.testing

WORKERS = [f"worker{i}" for i in range(5)]


def count_primes(unit: receptor.WorkContext) -> str:
    """The primes of the range that the parameters name."""
    start, stop = int(unit.params["start"]), int(unit.params["stop"])
    found = 0
    for number in range(max(start, 2), stop):
        unit.check_cancelled()
        if all(number % divisor for divisor in range(2, int(number**0.5) + 1)):
            found += 1
    return str(found)


def ask(node: receptor.Node, worker: str, start: int, stop: int) -> tuple[str, int, int, int]:
    with node.work.submit(worker, "primes", params={"start": start, "stop": stop}) as unit:
        answer = b"".join(unit.stdout(timeout_s=60))
        unit.wait(timeout_s=60)
    return worker, start, stop, int(answer)


def main() -> None:
    parser = argparse.ArgumentParser(description="Count primes on five nodes.")
    parser.add_argument("number", nargs="?", type=int, default=20_000, help="count those below; 20000 if left out")
    limit: int = parser.parse_args().number
    step = limit // len(WORKERS)
    # The mesh is closed first, which ends what waits in the pool: Ctrl-C need not see the counting through.
    with ThreadPoolExecutor(len(WORKERS)) as pool, receptor.testing.mesh("boss", *WORKERS) as nodes:
        for worker in WORKERS:
            nodes[worker].work.offer("primes", count_primes, concurrency=2)
        asked = [
            pool.submit(ask, nodes["boss"], worker, i * step, (i + 1) * step if i < 4 else limit)
            for i, worker in enumerate(WORKERS)
        ]
        total = 0
        for done in as_completed(asked):
            worker, start, stop, found = done.result()
            total += found
            print(f"{worker}: {found:5} primes from {start} to {stop}")
    print(f"{total} primes below {limit}")


if __name__ == "__main__":
    main()
