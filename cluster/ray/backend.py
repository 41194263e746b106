"""Our side of the pipe to Ray: a `Backend` whose every call returns at once. Imports no Ray."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from ...jobs.job import Job
from ..backend import News


class RayBackend:
    """Runs attempts on a Ray cluster through a gateway process, which it starts, watches and starts again.

    Args:
        address: the cluster's address, such as `10.0.0.1:6379`; None = not connected yet, see `connect`.
        state: directory of this control plane's own; the gateway's log and the cluster-wide identity live there.
        snapshot: path of the local tar.gz of a job's workdir, None when it has none. Called in `start`; must not block.
        on_news: called from another thread whenever `poll` would return something; wakes the clock.
        scratch: directory on every node for workdirs and logs; empty = `gpusched-<uid>` in the node's temporary files.
    """

    def __init__(
        self,
        address: str | None,
        state: Path,
        *,
        snapshot: Callable[[Job], Path | None] = lambda _job: None,
        on_news: Callable[[], None] = lambda: None,
        scratch: str = "",
    ) -> None:
        raise NotImplementedError

    def connect(self, address: str) -> None:
        """Use the cluster at this address from now on. Returns at once; `alive` says when it answers."""
        raise NotImplementedError

    def poll(self, now: float) -> News:
        """What happened since the last poll."""
        raise NotImplementedError

    def next_time(self) -> float | None:
        """Not known: the backend wakes the clock by `on_news`."""
        raise NotImplementedError

    def start(self, job: Job, nodes: tuple[str, ...], now: float) -> None:
        """Start `job.attempt`, piece i on node `nodes[i]`."""
        raise NotImplementedError

    def stop(self, job: Job, grace: float, now: float) -> None:
        """SIGTERM, `grace` seconds, then the whole tree is killed."""
        raise NotImplementedError

    def adopt(self, jobs: list[Job], now: float) -> None:
        """Find again what runs for these jobs; stop what runs for none."""
        raise NotImplementedError

    def close(self) -> None:
        """End the gateway. What runs goes on."""
        raise NotImplementedError

    def read_log(
        self,
        job_id: int,
        attempt: int,
        rank: int,
        offset: int,
        limit: int = 1 << 20,
        *,
        node: str = "",
    ) -> Future[tuple[bytes, int]]:
        """A rank's output from byte `offset` on, at most `limit` bytes.

        Args:
            job_id: the job.
            attempt: its attempt.
            rank: 0 to pieces - 1.
            offset: first byte; negative counts from the end.
            limit: most bytes to return.
            node: name of the node it runs or ran on (STARTED's `ranks[i]["node"]`); needed once the attempt has ended.

        Returns:
            A future of (bytes, size of the whole log in bytes). It fails with UnreachableError when Ray does not answer
            in time, with NotFoundError when there is no such log (yet), or its node is gone.
        """
        raise NotImplementedError

    def samples(self) -> list[dict[str, Any]]:
        """The node agents' raw samples that came since the last call, oldest first."""
        raise NotImplementedError

    def links(self) -> dict[str, str]:
        """Where Ray's own pages are: `dashboard`, `job` (this control plane in the Jobs page); empty = not known."""
        raise NotImplementedError

    def alive(self) -> str:
        """How the connection stands, in words: empty = it works."""
        raise NotImplementedError
