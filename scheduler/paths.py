"""Where a control plane keeps its things: one directory, for its owner's eyes only. Light: every verb imports it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ..jobs.errors import GpuschedError


def state_directory() -> Path:
    """`$GPUSCHED_HOME`, else `$XDG_STATE_HOME/gpusched`, else `~/.local/state/gpusched`. Not made yet."""
    home = os.environ.get("GPUSCHED_HOME")
    if home:
        return Path(home).expanduser().absolute()
    base = os.environ.get("XDG_STATE_HOME")
    # The XDG specification has relative paths ignored.
    if base and Path(base).is_absolute():
        return Path(base) / "gpusched"
    try:
        return Path.home() / ".local" / "state" / "gpusched"
    except RuntimeError:
        raise GpuschedError("there is no home directory to keep state in", hint="set GPUSCHED_HOME") from None


@dataclass(frozen=True, slots=True)
class Paths:
    """The files of one state directory.

    Attributes:
        root: the directory itself.
    """

    root: Path

    @classmethod
    def default(cls) -> Paths:
        """Those of `state_directory`."""
        return cls(state_directory())

    @property
    def database(self) -> Path:
        """The SQLite file of a control plane that was given no other database."""
        return self.root / "gpusched.db"

    @property
    def control_plane(self) -> Path:
        """Who serves: URL, pid, start time, token, version. Mode 0600."""
        return self.root / "control-plane.json"

    @property
    def control_plane_log(self) -> Path:
        """What the control plane says."""
        return self.root / "control-plane.log"

    @property
    def lock(self) -> Path:
        """Held by a running control plane, so that a directory has one at most."""
        return self.root / "control-plane.lock"

    @property
    def start_lock(self) -> Path:
        """Held while a control plane is being started or stopped."""
        return self.root / "start.lock"

    @property
    def snapshots(self) -> Path:
        """Workdirs of jobs, `SHA256.tar.gz` each."""
        return self.root / "snapshots"

    @property
    def archive(self) -> Path:
        """History that moved into Parquet files, unless settings.yaml names another place."""
        return self.root / "archive"

    @property
    def settings(self) -> Path:
        """What an administrator set: limits, archive."""
        return self.root / "settings.yaml"

    def make(self) -> None:
        """Make the directory, for its owner only.

        Raises:
            GpuschedError: it cannot be made or written to.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise GpuschedError(
                f"cannot make the state directory {self.root}: {error.strerror or error}",
                hint="set GPUSCHED_HOME to a directory that you may write to",
            ) from error
        if not os.access(self.root, os.W_OK | os.X_OK):
            raise GpuschedError(
                f"cannot write to the state directory {self.root}",
                hint="set GPUSCHED_HOME to a directory that you may write to",
            )
