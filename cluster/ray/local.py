"""A Ray of our own on this machine, and how to find one that runs already. Imports no Ray: runs its command."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class LocalRay:
    """A Ray head that `start` started.

    Attributes:
        address: what drivers connect to, `ip:port`.
        dashboard: URL of its dashboard; empty when it has none.
        gpus: GPUs that it offers; logical: they are numbers only, the machine has none.
        pids: the processes that belong to it, each with its start time in clock ticks since boot (guards against
            reuse of a pid).
    """

    address: str
    dashboard: str
    gpus: int
    logical: bool
    pids: dict[int, int]


def find() -> str | None:
    """Address of a Ray cluster that runs on this machine or that RAY_ADDRESS names; None when there is none."""
    raise NotImplementedError


def start(
    state: Path, *, gpus: int | None = None, dashboard: bool = True, say: Callable[[str], None] = lambda _line: None
) -> LocalRay:
    """Start a head on this machine; blocks until it answers (5 to 15 s).

    Args:
        state: directory that records what was started (`ray.json`), for `stop` in another process.
        gpus: GPUs to offer; None = those of the machine, or 2 logical ones when it has none (`say` is told so).
        dashboard: with Ray's dashboard.
        say: called with one line of progress at a time, at least every 5 seconds.

    Raises:
        GpuschedError: Ray did not come up; the message carries the end of its output.
    """
    raise NotImplementedError


def running(state: Path) -> LocalRay | None:
    """What `start` recorded there, if it still runs."""
    raise NotImplementedError


def stop(state: Path) -> int:
    """End exactly the processes that `start` recorded there, and those below them. Returns how many were ended."""
    raise NotImplementedError
