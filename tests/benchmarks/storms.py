"""Ten thousand storms: the engine and its stores while everything goes wrong (tests/storms says how).

    python tests/benchmarks/storms.py [--seeds 10000] [--first 0] [--sqlite-every 10] [--postgres-every 100]
                                      [--processes 2] [--go-on]
    python tests/benchmarks/storms.py --replay SEED [--store memory|sqlite|postgres]

Every seed is a storm on the memory store, every tenth one on a SQLite file as well, every hundredth on a PostgreSQL
that each process starts for itself. Progress goes to standard error. The first storm that breaks something ends the
run: it prints what, and the line that repeats it; `--go-on` finds the others too. `--replay` tells one storm as a
story. Exit code 1 = something broke.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
from collections.abc import Iterator
from multiprocessing import Pool
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve()
sys.path[:0] = [str(HERE.parents[2] / ".src"), str(HERE.parents[1]), str(HERE.parents[1] / "storms")]

from storm_replay import databases, line_for, replay, weather

CHUNK = 20


class Chunk(NamedTuple):
    """Seeds from `first` up to `last`, and every how many of them are run on a database too; 0 = none."""

    first: int
    last: int
    sqlite: int
    postgres: int

    def storms(self) -> Iterator[tuple[int, str]]:
        """(seed, store) of each, those on PostgreSQL last."""
        seeds = range(self.first, self.last)
        yield from ((seed, "memory") for seed in seeds)
        yield from ((seed, "sqlite") for seed in seeds if self.sqlite and seed % self.sqlite == 0)
        yield from ((seed, "postgres") for seed in seeds if self.postgres and seed % self.postgres == 0)


def run(chunk: Chunk) -> tuple[int, list[str]]:
    """How many storms these were, and what broke, in words."""
    logging.disable(logging.CRITICAL)  # thousands of crashes would be told of
    found = []
    storms = list(chunk.storms())
    with tempfile.TemporaryDirectory() as folder, databases(storms[-1][1]) as new:
        for seed, store in storms:
            broken = weather(seed, store, Path(folder), new_database=new)
            if broken is not None:
                found.append(f"{line_for(seed, store)}\n    {type(broken).__name__}: {broken}")
    return len(storms), found


def main() -> None:
    """Run them all, and say how it goes."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--sqlite-every", type=int, default=10)
    parser.add_argument("--postgres-every", type=int, default=100)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--go-on", action="store_true")
    parser.add_argument("--replay", type=int)
    parser.add_argument("--store", default="memory")
    given = parser.parse_args()
    if given.replay is not None:
        raise SystemExit(not replay(given.replay, given.store))
    begun, last = time.perf_counter(), given.first + given.seeds
    chunks = [
        Chunk(at, min(at + CHUNK, last), given.sqlite_every, given.postgres_every)
        for at in range(given.first, last, CHUNK)
    ]
    seeds = storms = broken = 0
    with Pool(given.processes) as pool:
        for ran, found in pool.imap(run, chunks):
            seeds, storms, broken = min(seeds + CHUNK, given.seeds), storms + ran, broken + len(found)
            for words in found:
                print(words, flush=True)
            rate = seeds / (time.perf_counter() - begun)
            told = f"\r{seeds:,} of {given.seeds:,} seeds, {storms:,} storms, {rate:.1f} seeds/s, {broken} broken "
            print(told, end="", file=sys.stderr)
            if broken and not given.go_on:
                break
    took = time.perf_counter() - begun
    print(f"\n{seeds:,} seeds, {storms:,} storms in {took:,.0f} s: {broken} broke something", flush=True)
    raise SystemExit(broken > 0)


if __name__ == "__main__":
    main()
