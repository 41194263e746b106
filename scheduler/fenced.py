"""The hands of a leader only: orders to the cluster under a lease that may have run out are not given."""

from __future__ import annotations

from ..cluster.backend import Backend, News
from ..jobs.job import Job
from .store.lease import Lease
from .store.sql import LeaseLostError


class Fenced:
    """A `Backend` that carries nothing out unless the lease was renewed within its time.

    A process that was frozen between a commit and its effect wakes here. It has to look at its lease first; if it still
    leads, its engine is built anew and does again what was not done. The cluster's side refuses orders of an older term
    too (cluster/ray/terms.py), for a process that is frozen one step further.

    Args:
        backend: the cluster.
        lease: the one to go by.
    """

    def __init__(self, backend: Backend, lease: Lease) -> None:
        self._backend = backend
        self._lease = lease

    def _check(self) -> None:
        if not self._lease.sure():
            raise LeaseLostError("this control plane was away for longer than its lease; it looks at it anew")

    def poll(self, now: float) -> News:
        """Passed on."""
        return self._backend.poll(now)

    def next_time(self) -> float | None:
        """Passed on."""
        return self._backend.next_time()

    def start(self, job: Job, nodes: tuple[str, ...], now: float) -> None:
        """Passed on.

        Raises:
            LeaseLostError: another may lead.
        """
        self._check()
        self._backend.start(job, nodes, now)

    def stop(self, job: Job, grace: float, now: float) -> None:
        """Passed on.

        Raises:
            LeaseLostError: another may lead.
        """
        self._check()
        self._backend.stop(job, grace, now)

    def adopt(self, jobs: list[Job], now: float) -> None:
        """Passed on.

        Raises:
            LeaseLostError: another may lead.
        """
        self._check()
        self._backend.adopt(jobs, now)

    def close(self) -> None:
        """Passed on."""
        self._backend.close()
