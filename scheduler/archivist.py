"""Now and then moves old history into files, beside everything else: a thread that waits most of the time."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from ..jobs.errors import ConflictError, StoreError
from .settings import ArchivePolicy
from .store.archive import Archive

log = logging.getLogger("gpusched.archivist")


class Archivist:
    """Archives by a policy, while this control plane leads.

    Args:
        archive: what is written.
        policy: what goes, and how often is looked.
        leading: whether this process may write.
        now: UTC seconds.

    Attributes:
        trouble: why the last run went wrong; empty = it did not.
    """

    def __init__(
        self, archive: Archive, policy: ArchivePolicy, leading: Callable[[], bool], now: Callable[[], float]
    ) -> None:
        self.archive = archive
        self.policy = policy
        self.trouble = ""
        self._leading = leading
        self._now = now
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="archivist", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, within: float = 5.0) -> None:
        """End between two steps; the next control plane goes on where this one was."""
        self._end.set()
        if self._thread.is_alive():
            self._thread.join(within)

    def _run(self) -> None:
        while not self._end.wait(max(self.policy.every, 1.0)):
            if self._leading():
                self.turn()

    def turn(self) -> int:
        """One run; how many rows went."""
        try:
            moved = self.archive.compact(
                self.policy, self._now(), stop=lambda: self._end.is_set() or not self._leading()
            )
        except ConflictError:
            return 0  # somebody asked for it by hand
        except StoreError as error:
            if str(error) != self.trouble:
                log.warning("the history is not archived: %s", error)
            self.trouble = str(error)
            return 0
        except Exception as error:
            log.exception("a run of the archivist failed")
            self.trouble = repr(error)
            return 0
        self.trouble = ""
        if moved:
            log.info("%d rows of the history moved into files", moved)
        return moved
