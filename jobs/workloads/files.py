"""Files that are either whole or not there, whatever happens while they are written."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import IO

from gpusched import job

from .errors import WorkloadError


def rename(draft: Path, path: Path) -> bool:
    """Give a file its name; True."""
    draft.replace(path)
    return True


def write_whole(path: Path, write: Callable[[IO[bytes]], object], place: Callable[[Path, Path], bool] = rename) -> bool:
    """Write a file under a name of this process's own, bring it to the disk, then give it its name.

    Args:
        path: the file; its folder is made if need be.
        write: is called with the open file.
        place: gives it its name, and says whether it did: `job.commit` does not for an attempt that is over.

    Returns:
        What `place` said.

    Raises:
        OSError: the disk is full, or the folder cannot be written. The file at `path` is as it was before.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with draft.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        return place(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def write_result(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """`write_whole`, for what only the newest attempt of a job may replace.

    Raises:
        WorkloadError: a later attempt has begun; the file at `path` is as it was.
        OSError: as `write_whole`.
    """
    if not write_whole(path, write, job.commit):
        raise WorkloadError(f"a later attempt of this job has begun: {path} was not written")
