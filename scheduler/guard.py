"""A policy that may be anybody's code, held so that no fault of it reaches the engine's books or stops the loop."""

from __future__ import annotations

from collections.abc import Mapping

from ..cluster.pool import Pool
from ..jobs.errors import PlanError
from ..jobs.job import Job, Placement, Shape, State
from ..policies.greedy import Policy
from ..policies.place import best_fit
from ..policies.plan import Plan, Preemption
from ..policies.queue import Book, Key, Queue
from .check import check_whole

FAULTS = (Exception, SystemExit)
"""What a user's code may raise; `sys.exit()` in a policy must not end the scheduler either."""


class Guard:
    """Asks a policy, and checks its plan before the engine sees it. A faulty answer becomes "start nothing".

    Attributes:
        fault: what the policy did wrong first; empty = nothing so far.
        plans: how many of its plans were good.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.name = policy.name
        self.version = policy.version
        self.lane = getattr(policy, "lane", None)
        self.inner = getattr(policy, "inner", None)
        self.timed = getattr(policy, "timed", None)
        self.candidates = getattr(policy, "candidates", None)
        self.fault = ""
        self.plans = 0

    def order(self, job: Job) -> Key:
        """The policy's key; by arrival when it has none."""
        try:
            key = self.policy.order(job)
        except FAULTS as error:  # a user's code may raise anything
            self._blame(f"order() raised {type(error).__name__}: {error}")
            return (job.submitted,)
        if not isinstance(key, tuple):
            self._blame(f"order() returned {type(key).__name__}, not a tuple")
            return (job.submitted,)
        return key

    def books(self) -> Mapping[str, Book]:
        """What the policy asks to have recorded; nothing when it does not say."""
        books = getattr(self.policy, "books", None)
        try:
            return {} if books is None else books()
        except FAULTS as error:  # as above
            self._blame(f"books() raised {type(error).__name__}: {error}")
            return {}

    def place(self, shape: Shape, pool: Pool, nodes: int) -> Placement | None:
        """The policy's placement; when it fails, best fit, so that no job is called infeasible for a policy's fault."""
        try:
            return self.policy.place(shape, pool, nodes)
        except FAULTS as error:  # as above
            self._blame(f"place() raised {type(error).__name__}: {error}")
            return best_fit(shape, pool, nodes)

    def plan(self, now: float, queue: Queue, pool: Pool) -> Plan:
        """The policy's plan if it holds; an empty one, and a fault, if it does not.

        Its starts are left taken in the pool, as the engine's own check expects of a plan that was tried.
        """
        outer = pool.begin()
        try:
            plan = self.policy.plan(now, queue, pool)
        except FAULTS as error:  # as above
            self._blame(f"plan() raised {type(error).__name__}: {error}")
            plan = None
        finally:
            pool.rollback(outer)
        if plan is None or self.fault:
            self._blame("plan() returned nothing")
            return Plan()
        try:
            self._check(plan, pool)
        except FAULTS as error:  # what is in the plan is a user's too
            self._blame(str(error) if isinstance(error, PlanError) else f"its plan is malformed: {error!r}")
            return Plan()
        self.plans += 1
        return plan

    def _check(self, plan: Plan, pool: Pool) -> None:
        by = f"{self.name}/{self.version}"
        seen = set()
        for job, placement in plan.starts:
            if job.id in seen or job.state is not State.QUEUED:
                why = "twice" if job.id in seen else f"which does not wait (it is {job.state})"
                raise PlanError(f"policy {by} starts job {job.id}, {why}")
            seen.add(job.id)
            check_whole(job, placement, pool, by)
            pool.take(job.shape, placement)
        for one in plan.preemptions:
            if not isinstance(one, Preemption) or not isinstance(one.job, Job):
                raise PlanError(f"policy {by} preempts something that is no job: {one!r}")
        if not isinstance(plan.waiting, dict) or not isinstance(plan.wake_at, float | int | None):
            raise PlanError(f"policy {by} returned a plan whose parts are of the wrong types")

    def _blame(self, what: str) -> None:
        self.fault = self.fault or what
