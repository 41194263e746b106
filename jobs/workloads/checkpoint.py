"""Checkpoints in a folder: each whole or absent, the newest found again, and none from an attempt that is over."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

from gpusched import job

from .errors import WorkloadError
from .files import write_whole

_NAME = re.compile(r"step-([0-9]{8})\.pt")


class SupersededError(WorkloadError):
    """A later attempt of the job owns the checkpoints; this one must end."""


class Checkpoints:
    """The checkpoints of one job.

    A machine that lost its network may go on training while the job has been started again elsewhere. Both see one
    folder, so the attempt that came last writes its number there, and an earlier one may not write any more. Inside
    gpusched that number is on the disk before the attempt starts, and there is one for each job that uses the folder.

    Args:
        folder: where they are; made if need be.
        attempt: number of this attempt, rising; 0 = there is only ever one, or gpusched keeps the number.
        keep: how many of the newest stay.

    Raises:
        SupersededError: the folder belongs to a later attempt already.
    """

    def __init__(self, folder: Path, attempt: int, keep: int = 2) -> None:
        self.folder = folder
        self._attempt = attempt
        self._keep = keep
        self._owner = folder / "attempt"
        self._check_owner()
        if attempt:
            write_whole(self._owner, lambda file: file.write(str(attempt).encode()))

    def save(self, step: int, state: dict[str, Any]) -> Path:
        """Write the state after so many steps, then remove the oldest.

        Raises:
            SupersededError: a later attempt has taken over.
        """
        self._check_owner()
        path = self.folder / f"step-{step:08d}.pt"
        if not write_whole(path, lambda file: torch.save(state, file), job.commit):
            self._check_owner()
        for _, old in self._found()[self._keep :]:
            old.unlink(missing_ok=True)
        return path

    def newest(self) -> tuple[Path, dict[str, Any]] | None:
        """The newest checkpoint that can be read, on the CPU; None = there is none."""
        for _, path in self._found():
            try:
                # weights_only: a file from elsewhere must not run code.
                return path, torch.load(path, map_location="cpu", weights_only=True)
            except Exception as error:  # noqa: BLE001 - a damaged file raises a dozen kinds; the one before may be whole
                print(f"{path} cannot be read ({error}); trying the one before", flush=True)
        return None

    def _found(self) -> list[tuple[int, Path]]:
        """(step, file), newest first."""
        files = self.folder.iterdir() if self.folder.is_dir() else ()
        return sorted(((int(match[1]), path) for path in files if (match := _NAME.fullmatch(path.name))), reverse=True)

    def _check_owner(self) -> None:
        if job.superseded():
            raise SupersededError(f"a later attempt of this job has taken over {self.folder}")
        try:
            owner = int(self._owner.read_text())
        except FileNotFoundError:
            return
        if 0 < self._attempt < owner:
            raise SupersededError(f"attempt {owner} has taken over {self.folder}; this is attempt {self._attempt}")
