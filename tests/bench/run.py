"""The figures of the README, measured on this machine: ``make bench``.

Every figure is a median; those that need one come with what they are compared to, measured in the same run. With
``--write`` the tables are put into README.md between its two marker comments.
"""

import argparse
import os

import control
import daemon
import mesh
import node
import scale
import work
from support import PROJECT, Row

README = PROJECT / "README.md"
BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"
TOPICS = {
    "mesh": ("Mesh", mesh.figures),
    "work": ("Work", work.figures),  # Before what uses much memory: a virtual machine gives that back to its host.
    "scale": ("Many nodes", scale.figures),
    "control": ("Control service and client", control.figures),
    "node": ("Node in Python", node.figures),
    "daemon": ("Daemon", daemon.figures),
}


def table(title: str, rows: list[Row]) -> str:
    cells = [(title, "median", "compared to, or of"), ("---", "---", "---"), *rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put the tables into README.md")
    parser.add_argument("--rounds", type=int, default=30, help="units and starts to time (default 30)")
    parser.add_argument("topics", nargs="*", help=f"what to measure (default all): {', '.join(TOPICS)}")
    options = parser.parse_args()
    if unknown := set(options.topics) - TOPICS.keys():
        parser.error(f"no such topic: {', '.join(sorted(unknown))}; there are {', '.join(TOPICS)}")
    if options.write and options.topics:
        parser.error("--write replaces all tables, so it takes no topics")
    tables = []
    for name in options.topics or TOPICS:
        title, figures = TOPICS[name]
        tables.append(table(title, figures(options.rounds)))
        print(tables[-1], end="\n\n", flush=True)
    note = f"Measured with `make bench` on {os.cpu_count()} cores, everything on one machine."
    if options.write:
        text = "\n\n".join([*tables, note])
        before, _, rest = README.read_text().partition(BEGIN)
        _, _, after = rest.partition(END)
        README.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")


if __name__ == "__main__":
    main()
