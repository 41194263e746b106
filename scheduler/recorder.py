"""What goes on beside the loop at its own pace: samples into the database, roll-ups, old snapshots out."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from ..jobs.errors import StoreError
from ..jobs.job import Job
from .snapshots import ANNOTATION, SnapshotStore
from .store.cluster import gpu_holders
from .store.samples import SampleStore
from .store.sql import SqlStore

log = logging.getLogger("gpusched.recorder")

EVERY = 5.0
"""Seconds between two turns; fewer than a lease lasts, so that who takes over has the workdirs that were taken in."""
ROLL_EVERY = 60.0
CLEAN_EVERY = 600.0
MOST_KEPT = 50_000
"""Samples that wait for a database that cannot be written; older ones are dropped, and that is logged."""


class Recorder:
    """A thread that wakes every few seconds.

    Args:
        store: where samples go.
        samples: those that came since it was asked last: `RayBackend.samples`.
        snapshots: the workdirs.
        leading: whether this process may write.
        now: UTC seconds.
    """

    def __init__(
        self,
        store: SqlStore,
        samples: Callable[[], list[dict[str, Any]]],
        snapshots: SnapshotStore,
        leading: Callable[[], bool],
        now: Callable[[], float],
    ) -> None:
        self._store = store
        self._samples = samples
        self._snapshots = snapshots
        self._leading = leading
        self._now = now
        self._kept: list[dict[str, Any]] = []
        self._recorder: SampleStore | None = None
        self._rolled = self._cleaned = now()
        self._trouble = ""
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, within: float = 5.0) -> None:
        """End after what is going on."""
        self._end.set()
        if self._thread.is_alive():
            self._thread.join(within)

    def _run(self) -> None:
        while not self._end.wait(EVERY):
            try:
                self.turn()
                self._trouble = ""
            except StoreError as error:
                if str(error) != self._trouble:
                    self._trouble = str(error)
                    log.warning("samples wait, they cannot be written: %s", error)
            except Exception:  # samples must not end with one that nobody foresaw
                log.exception("a turn of the recorder failed")
                self._kept = []

    def turn(self) -> None:
        """Write what came, and now and then roll up and clean up.

        Raises:
            StoreError: the database cannot be written; what came is kept for the next turn.
        """
        self._snapshots.follow()
        came = self._samples()
        if not self._leading():
            self._kept = []  # who leads has the same
            return
        self._kept += came
        if len(self._kept) > MOST_KEPT:
            log.warning("%d samples were dropped", len(self._kept) - MOST_KEPT)
            del self._kept[:-MOST_KEPT]
        now = self._now()
        if self._recorder is None:
            self._recorder = SampleStore(self._store, interval=EVERY)
        if self._kept:
            with self._store.reader() as connection:
                holders = gpu_holders(connection)
            self._recorder.add(self._kept, holders)
            self._kept = []
        if now - self._rolled >= ROLL_EVERY:
            self._recorder.roll(now)
            self._rolled = now
        if now - self._cleaned >= CLEAN_EVERY:
            self._cleaned = now
            gone = self._snapshots.collect(lambda: needed(self._store.unfinished()), now)
            if gone:
                log.info("%d snapshots that no job needs any more were deleted", gone)


def needed(jobs: list[Job]) -> set[str]:
    """The snapshots of these jobs."""
    return {job.spec.annotations[ANNOTATION] for job in jobs if job.spec and ANNOTATION in job.spec.annotations}
