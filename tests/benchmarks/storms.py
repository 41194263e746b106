"""Ten thousand storms: the engine and both stores while everything goes wrong (tests/storms says how).

    python tests/benchmarks/storms.py [--seeds 10000] [--first 0] [--sqlite-every 10] [--processes 1]

Every seed is a storm on the memory store, every tenth one on a SQLite file as well. Progress goes to standard error; a
storm that breaks something prints what, and the line that repeats it. Exit code 1 = some did.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
from multiprocessing import Pool
from pathlib import Path

HERE = Path(__file__).resolve()
sys.path[:0] = [str(HERE.parents[2] / ".src"), str(HERE.parents[1]), str(HERE.parents[1] / "storms")]

from storm_replay import line_for, weather

CHUNK = 20


def chunk(asked: tuple[int, int, int]) -> list[str]:
    """Storms of these seeds; what broke, in words."""
    first, last, every = asked
    logging.disable(logging.CRITICAL)  # thousands of crashes would be told of
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(first, last):
            for store in ("memory", "sqlite") if every and seed % every == 0 else ("memory",):
                broken = weather(seed, store, Path(folder))
                if broken is not None:
                    found.append(f"{line_for(seed, store)}\n    {type(broken).__name__}: {broken}")
    return found


def main() -> None:
    """Run them all, and say how it goes."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--sqlite-every", type=int, default=10)
    parser.add_argument("--processes", type=int, default=1)
    given = parser.parse_args()
    begun, last = time.perf_counter(), given.first + given.seeds
    chunks = [(at, min(at + CHUNK, last), given.sqlite_every) for at in range(given.first, last, CHUNK)]
    done = broken = 0
    with Pool(given.processes) as pool:
        for found in pool.imap(chunk, chunks):
            done = min(done + CHUNK, given.seeds)
            broken += len(found)
            for words in found:
                print(words, flush=True)
            rate = done / (time.perf_counter() - begun)
            print(f"\r{done:,} of {given.seeds:,}, {rate:.1f} a second, {broken} broken ", end="", file=sys.stderr)
    took = time.perf_counter() - begun
    print(f"\n{given.seeds:,} seeds in {took:,.0f} s: {broken} storms broke something", flush=True)
    raise SystemExit(broken > 0)


if __name__ == "__main__":
    main()
