"""`gpusched export`."""

from __future__ import annotations

import gzip
import io
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TextIO

import click

from ...jobs.errors import GpuschedError
from .session import Session, pass_session
from .verb import since_option, verb

EXAMPLES = """
gpusched export history.jsonl.gz --since 30d
gpusched export | gpusched simulate - --nodes 2x8 --policy fifo --policy gang
"""


@verb("export", examples=EXAMPLES)
@click.argument("target", metavar="[FILE]", default="-")
@since_option
@pass_session
def export(session: Session, *, target: str, since: str) -> None:
    """Write the live journal as a trace that `simulate` replays.

    Every job that ran, with its arrival and its true run time. FILE is packed if it ends in .gz; `-` or nothing is
    standard output. A file that could not be written whole is removed.
    """
    lines = session.client().export(since=since)
    if target == "-":
        for line in lines:
            sys.stdout.write(line)
        return
    path = Path(target)
    count = -1  # the first line is the format's mark
    try:
        with ExitStack() as stack:
            file = _opened(path, stack)
            for line in lines:
                file.write(line)
                count += 1
    except OSError as error:
        path.unlink(missing_ok=True)
        raise GpuschedError(
            f"{target}: cannot be written: {error.strerror or error}", hint="check the path and the disk"
        ) from error
    except GpuschedError:
        path.unlink(missing_ok=True)
        raise
    click.echo(f"wrote {max(count, 0):,} jobs to {target}", err=True)


def _opened(path: Path, stack: ExitStack) -> TextIO:
    if path.suffix != ".gz":
        return stack.enter_context(path.open("w", encoding="utf-8", newline=""))
    raw = stack.enter_context(path.open("wb"))
    packed = stack.enter_context(gzip.GzipFile("", "wb", 6, raw, mtime=0))
    return stack.enter_context(io.TextIOWrapper(packed, "utf-8", newline=""))
