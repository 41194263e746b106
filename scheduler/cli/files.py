"""Files that a command writes: found to be writable before the work, written after it."""

from __future__ import annotations

from pathlib import Path

from ...jobs.errors import GpuschedError


def check_writable(file: str) -> None:
    """A file that cannot be written must be known before the work, not after.

    Raises:
        GpuschedError: it cannot be.
    """
    path = Path(file)
    was_there = path.exists()
    try:
        with path.open("ab"):
            pass
        if not was_there:
            path.unlink()
    except OSError as error:
        raise unwritable(file, error) from error


def check_folder(folder: str) -> None:
    """The same of a folder, which is made if it is not there.

    Raises:
        GpuschedError: it cannot be made or written to.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error
    check_writable(str(Path(folder) / ".gpusched"))


def write_text(file: str, text: str) -> None:
    """Write a file of text.

    Raises:
        GpuschedError: it cannot be written.
    """
    try:
        Path(file).write_text(text, encoding="utf-8")
    except OSError as error:
        raise unwritable(file, error) from error


def unwritable(path: str, error: OSError) -> GpuschedError:
    """What is said of a file that cannot be written."""
    return GpuschedError(f"{path}: cannot be written: {error.strerror or error}", hint="check the path and the disk")
