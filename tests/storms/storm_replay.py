"""A storm again, or a short one that breaks in the same way.

    python tests/storms/storm_replay.py --seed 17 [--store sqlite|postgres] [--keep 3,9,12] [--shrink] [-v]

`-v` tells what happens as it happens, with the lines of the journal. `--keep` leaves out all other actions. `--shrink`
finds out which are needed.
"""

from __future__ import annotations

import argparse
import logging
import re
import sys
import tempfile
import traceback
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).absolute().parents[2] / ".src"), str(Path(__file__).absolute().parents[1])]

from storm import STEPS, Storm


def line_for(seed: int, store: str, keep: Collection[int] | None = None) -> str:
    """The command that repeats a storm."""
    kept = "" if keep is None else f" --keep {','.join(map(str, sorted(keep)))}"
    return f"python tests/storms/storm_replay.py --seed {seed} --store {store}{kept} -v"


def weather(
    seed: int,
    store: str,
    folder: Path,
    keep: Collection[int] | None = None,
    *,
    say: Callable[[str], None] = lambda _line: None,
    new_database: Callable[[], str] = str,
) -> Exception | None:
    """Run one storm; what broke, if anything did. `new_database` makes one on PostgreSQL, for storms on that."""
    try:
        Storm(seed, store, folder, say, new_database).run(keep)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what was looked for
        return error
    return None


def shrink(seed: int, store: str, folder: Path, broken: Exception, new_database: Callable[[], str] = str) -> list[int]:
    """A few of the storm's actions that break it in the same way: halves, then smaller parts, are left out."""
    keep = list(range(STEPS[store]))
    size = len(keep) // 2
    while size:
        at = 0
        while at < len(keep):
            fewer = keep[:at] + keep[at + size :]
            found = weather(seed, store, folder, fewer, new_database=new_database)
            if found is not None and _same(found, broken):
                keep = fewer
            else:
                at += size
        size //= 2
    return keep


def _same(one: Exception, other: Exception) -> bool:
    """Whether two storms broke in the same way, whatever the numbers."""
    said = [re.sub(r"[\d\[\](){}'., ]+", " ", f"{type(error).__name__} {error}") for error in (one, other)]
    return said[0].split()[:6] == said[1].split()[:6]


@contextmanager
def databases(store: str) -> Iterator[Callable[[], str]]:
    """What makes a new database for each storm, while it is needed."""
    if store != "postgres":
        yield str
        return
    from postgres_server import PostgresServer  # noqa: PLC0415 - starts a server, for storms on one only

    server = PostgresServer()
    try:
        yield server.migrated_database
    finally:
        server.stop()


def replay(seed: int, store: str, keep: list[int] | None = None, *, shorten: bool = False, aloud: bool = True) -> bool:
    """Repeat one storm, or shorten it first; whether everything held."""
    logging.disable(logging.CRITICAL)  # each crash would be told of
    with tempfile.TemporaryDirectory() as folder, databases(store) as new:
        if shorten:
            broken = weather(seed, store, Path(folder), new_database=new)
            if broken is not None:
                keep = shrink(seed, store, Path(folder), broken, new)
                sys.stdout.write(line_for(seed, store, keep) + "\n")
        say = print if aloud else lambda _line: None
        broken = weather(seed, store, Path(folder), keep, say=say, new_database=new)
    if broken is None:
        sys.stdout.write(f"seed {seed} on {store}: everything held\n")
        return True
    traceback.print_exception(broken)
    return False


def main() -> None:
    """Repeat one storm, or shorten it."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--store", choices=list(STEPS), default="memory")
    parser.add_argument("--keep", default="")
    parser.add_argument("--shrink", action="store_true")
    parser.add_argument("-v", "--verbose", action="store_true")
    given = parser.parse_args()
    keep = [int(number) for number in given.keep.split(",")] if given.keep else None
    raise SystemExit(not replay(given.seed, given.store, keep, shorten=given.shrink, aloud=given.verbose))


if __name__ == "__main__":
    main()
