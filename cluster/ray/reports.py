"""What a job reports of itself while it runs: its ranks' words made one, and handed on now and then."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from .supervisor import CHECKPOINT, report_of

PROGRESS = "progress.json"
TELL_EVERY = 10.0
"""Seconds from one report of a job to the next, at least: each is a line of the journal."""
PROGRESS_STEP = 0.01
"""How much more must be done before progress is told again, so that an attempt has at most a hundred such lines."""


class Reports:
    """The newest checkpoint and the progress of one attempt.

    The first is told at once. What comes sooner than `every` seconds after is told when these are over; of several only
    the newest. Times of other machines are turned into our own by how long ago they were.

    Args:
        tell: called with `checkpointed` and {"step", "time"}, or `progressed` and {"fraction"}.
        every: seconds between two calls for the same kind.
    """

    def __init__(self, tell: Callable[[str, dict[str, Any]], None], every: float = TELL_EVERY) -> None:
        self.checkpoint: dict[str, Any] | None = None
        self._tell = tell
        self._every = every
        self._progress = 0.0
        self._told: dict[str, dict[str, Any]] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def heard(self, files: dict[str, str], now: float) -> None:
        """A rank's reports changed. `files`: their texts by name; `now`: the time on its machine."""
        saved = report_of(CHECKPOINT, files.get(CHECKPOINT, ""))
        if saved is not None:
            self.saved(saved, now)
        done = report_of(PROGRESS, files.get(PROGRESS, ""))
        if done is not None and done["fraction"] > self._progress:
            self._progress = done["fraction"]
            self._due("progressed")

    def saved(self, report: dict[str, Any], now: float) -> None:
        """A rank says that it saved, at `report["time"]` on its clock, which shows `now` at present."""
        at = time.time() - max(0.0, now - report["time"])
        if self.checkpoint is None or report["step"] != self.checkpoint["step"]:
            if self.checkpoint is not None and at < self.checkpoint["time"]:
                return
            self.checkpoint = {"step": report["step"], "time": at}
            self._due("checkpointed")

    def close(self) -> None:
        """Tell no more."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _due(self, kind: str) -> None:
        if kind not in self._timers:
            self._fire(kind)

    def _fire(self, kind: str) -> None:
        """Tell what is new of this kind, and be silent about it for a while."""
        self._timers.pop(kind, None)
        words = self.checkpoint if kind == "checkpointed" else {"fraction": self._progress}
        told = self._told.get(kind)
        if words is None or words == told:
            return
        if kind == "progressed" and told and words["fraction"] < min(1.0, told["fraction"] + PROGRESS_STEP):
            return
        self._told[kind] = words
        self._tell(kind, words)
        self._timers[kind] = asyncio.get_running_loop().call_later(self._every, self._fire, kind)
