"""A process that makes one run after the other: the setup comes first over its line, then tasks, and runs go back."""

from __future__ import annotations

import sys
from multiprocessing.connection import Connection

from .child import listen
from .work import Bench


def main() -> None:
    """Work until the other side is gone."""
    line = Connection(int(sys.argv[1]))
    heard = listen(line)
    bench = Bench(heard.get())
    while True:
        line.send(bench.make(heard.get()))


if __name__ == "__main__":
    main()
