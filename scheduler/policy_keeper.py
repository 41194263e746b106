"""Which policy decides: the one that was asked for, as long as it does no wrong; else the last one that did none."""

from __future__ import annotations

import logging
from pathlib import Path

from ..jobs.errors import ConflictError, GpuschedError, StoreError
from ..jobs.job import Job, Shape
from ..policies.catalog import CATALOG, DEFAULT, load
from ..policies.greedy import Policy
from .access.asking import Asking
from .engine import Engine
from .guard import Guard
from .store.archive import Archive
from .store.past import choose_policy, last_policy, past_attempts
from .store.sql import SqlStore

log = logging.getLogger("gpusched.policy")

MEMORY = 28 * 86400.0
"""Seconds of the past that a policy is told of when it begins."""
MOST = 100_000
"""Attempts of the past that it is told of at most."""


class PolicyKeeper:
    """Holds the policy. Used by the loop's thread; `policy`, `wanted` and `fault` may be read by any.

    Args:
        store: the database, for what ran before and who decided last.
        wanted: the policy that was asked for.

    Attributes:
        guard: the policy that decides, held so that no fault of it does harm.
        wanted: the one that was asked for last.
        fault: what was wrong with the one that was asked for; empty = it decides.
    """

    def __init__(self, store: SqlStore, wanted: Policy) -> None:
        self._store = store
        self._good: Policy | None = None
        self.guard = Guard(wanted)
        self.wanted = wanted
        self.fault = ""

    @property
    def policy(self) -> Policy:
        """The policy that decides now."""
        return self.guard.policy

    def recall(self, wanted: Policy) -> None:
        """Before the engine is built: this one decides, as another control plane was told meanwhile."""
        if (wanted.name, wanted.version) != (self.wanted.name, self.wanted.version):
            self.guard, self.wanted, self.fault = Guard(wanted), wanted, ""

    def begin(self, engine: Engine, now: float) -> None:
        """Tell the engine's policy what ran before this process."""
        if engine.queue.books:
            engine.remember(self._past(now - MEMORY))

    def _past(self, since: float) -> list[tuple[Job, float]]:
        """Attempts that ended since then, the oldest first; of archived jobs too."""
        archive = Archive(self._store, Path())
        try:
            with archive.reading_since(since) as connections:
                past = [one for connection in connections for one in past_attempts(connection, since, MOST)]
        except StoreError as error:
            log.warning("what is archived does not count in the policy's books: %s", error)
            with self._store.reader() as connection:
                return past_attempts(connection, since, MOST)
        past.sort(key=lambda one: (one[1], one[0].id))
        return past[-MOST:]

    def turned(self, engine: Engine, now: float) -> bool:
        """After a turn: put another policy in the place of one that did wrong. True = one was."""
        if not self.guard.fault:
            return False
        self.replace(self.guard.fault)
        engine.use(self.guard)
        self.begin(engine, now)
        return True

    def replace(self, fault: str) -> None:
        """The policy is refused: the last good one decides from now on."""
        bad = self.guard
        fallback = self._fallback(bad.policy)
        self.fault = fault
        log.error("policy %s/%s is refused: %s; %s decides from now on", bad.name, bad.version, fault, fallback.name)
        self.guard = Guard(fallback)

    def use(self, engine: Engine, policy: Policy, name: str, now: float, asking: Asking | None = None) -> None:
        """Another policy decides from the next turn on, if it answers well to the question of this moment.

        Args:
            engine: between two turns.
            policy: the one to be.
            name: as the user named it: it is chosen again after a restart.
            now: seconds.
            asking: the request that asks for it.

        Raises:
            ConflictError: its plan for this moment is at fault; the present one goes on.
            StoreError: the choice cannot be written; the same.
        """
        trial = Guard(policy)
        engine.rehearse(trial, now)
        if not trial.fault:  # nobody may wait just now: what would it do with a job of one GPU?
            probe = Job(0, Shape(gpus=1), now)
            trial.order(probe)
            with engine.pool.trial():
                trial.place(probe.shape, engine.pool, (1 << len(engine.pool.nodes)) - 1)
        if trial.fault:
            raise ConflictError(
                f"policy {trial.name}/{trial.version} is refused: {trial.fault}",
                hint=f"{self.guard.name} goes on deciding; `gpusched.policies.testing.check_policy` finds such faults",
            )
        choose_policy(self._store, name, [] if asking is None else [asking.event(now, f"policy {name}")])
        if not self.guard.fault:
            self._good = self.guard.policy
        self.guard = Guard(policy)
        self.wanted, self.fault = policy, ""
        engine.use(self.guard)
        self.begin(engine, now)
        log.info("policy %s/%s decides from now on", policy.name, policy.version)

    def _fallback(self, bad: Policy) -> Policy:
        """The one before it, if it did no wrong; else the last to decide by the journal; else the default."""
        if self._good is not None and self._good is not bad:
            return self._good
        try:
            with self._store.reader() as connection:
                name = last_policy(connection)
            if name in CATALOG and name != bad.name:
                return load(name)
        except GpuschedError as error:
            log.warning("who decided last cannot be read: %s", error)
        return load(DEFAULT)
