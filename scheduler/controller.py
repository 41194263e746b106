"""The live scheduler: engine + cluster + SQL store + wall clock, in one thread that sleeps until something happens."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

from ..cluster.backend import Backend
from ..cluster.clock import WallClock
from ..jobs.errors import ConflictError, GpuschedError, NotFoundError, StoreError
from ..jobs.events import Event, Kind
from ..jobs.job import Job, State
from ..policies.greedy import Policy
from .access.asking import ASKING
from .changes import AnnouncingStore
from .door import Door
from .engine import Engine
from .fenced import Fenced
from .inbox import LiveInbox
from .limits import Census
from .node_keeper import NodeKeeper
from .poison import BY
from .poison import Rule as Poisoned
from .policy_keeper import PolicyKeeper
from .queue_keeper import Asked, Outcome, QueueKeeper
from .settings import Limits
from .store.clock_set import clock_set
from .store.ends import recent_ends
from .store.lease import Lease, LeaseHeldError, Taken
from .store.sql import LeaseLostError, SqlStore
from .unsealed import Unsealed, missing

log = logging.getLogger("gpusched.controller")

PAUSES = (0.1, 0.5, 1.0, 2.0, 5.0)
"""Seconds until the store is tried again, after so many failures in a row."""

MOST_CRASHES = 5
"""Turns of the loop in a row that may go wrong for an unknown reason before the process gives up."""


SUSPICIOUS = 60.0
"""Seconds within which a second failure of the loop is put down to the policy, whose `order` runs inside it."""


JUMP = 5.0
"""Seconds by which a clock was set, and not just put right, when it is found to be off by more."""


@dataclass(slots=True)
class Figures:
    """How the loop does, for `status`. Written by its thread, read by any.

    Attributes:
        ticks: turns of the loop. tick_ms: how long the last one took, in milliseconds; worst_ms: the longest.
        rebuilds: times that the engine was built anew from the store.
        leader: whether this process holds the lease; standby: who does, if another; leader_url: where that one answers.
        store_error: why the store cannot be written at present; empty = it can.
    """

    ticks: int = 0
    tick_ms: float = 0.0
    worst_ms: float = 0.0
    rebuilds: int = 0
    leader: bool = False
    standby: str = ""
    leader_url: str = ""
    store_error: str = ""


class Controller:
    """Runs the loop. Crash-only: whatever goes wrong, the engine is built again from what the store says.

    Args:
        store: the truth. It stays the caller's to close.
        backend: the cluster. It must call `wake` when it has news.
        policy: who goes next, and where. If it fails, the last good one takes over.
        clock: the wall's.
        owner: this control plane's lasting name: after a crash the same owner takes its lease back at once.
        chosen: the policy to begin with after another led, who may have been told of another one.
        limits: how much may wait.
        poison: when a node on which jobs fail is cordoned.
        on_end: called from the loop's thread when it ends by itself, with the reason.
    """

    def __init__(
        self,
        store: SqlStore,
        backend: Backend,
        policy: Policy,
        *,
        clock: WallClock | None = None,
        owner: str = "",
        chosen: Callable[[], Policy] | None = None,
        limits: Limits | None = None,
        poison: Poisoned | None = None,
        on_end: Callable[[str], None] = lambda _why: None,
    ) -> None:
        limits = limits or Limits()
        self.store = store
        self.clock = clock or WallClock()
        self.figures = Figures()
        self.changes = AnnouncingStore(store, Census(limits))
        self.inbox = LiveInbox(self.clock.now, self.clock.wake, limits.inbox)
        self.lease = Lease(store, owner, now=self.clock.now, steady=self.clock.steady, wall=self.clock.wall)
        self.queues = QueueKeeper(store)
        hands = Fenced(Unsealed(backend, self._hold), self.lease)
        self.door = Door(hands, [change for _, change in store.known_nodes()])
        self.nodes = NodeKeeper(store, self.door, self.inbox, now=self.clock.now, wake=self.clock.wake)
        self.policies = PolicyKeeper(store, policy)
        self._on_end = on_end
        self._poison = poison or Poisoned()
        self._stopping = False
        self._chosen = chosen
        self._crashed = 0.0
        self._term = 0
        self._jumped = 0.0  # seconds that the clock was set by, and nobody was told yet
        self._taken: Taken | None = None  # since the engine was built last
        self._engine: Engine | None = None  # for `layout` only: all else in it is the loop's
        self._thread = threading.Thread(target=self._run, name="controller", daemon=True)

    # From any thread ----------------------------------------------------------------------------------------------

    @property
    def term(self) -> int:
        """The term of the lease under which this process led last."""
        return self._term

    @property
    def layout(self) -> tuple[int, int]:
        """(number of the engine, layout of its pool): what is known of a cluster holds while this stays the same."""
        engine = self._engine
        return (self.figures.rebuilds, 0 if engine is None else engine.pool.layout)

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()

    def stop(self, within: float = 10.0) -> None:
        """End the loop after its present turn, and give the lease back. What runs on the cluster goes on."""
        self._stopping = True
        self.clock.wake()
        if self._thread.is_alive():
            self._thread.join(within)
        self.inbox.close()

    def wake(self) -> None:
        """There is news: take another turn."""
        self.clock.wake()

    def change_queues(self, asked: Asked) -> Future[Outcome]:
        """Have other queues hold, or only say what that would change. Fails as `QueueKeeper.change` does."""

        def change(engine: Engine) -> Outcome:
            now = self.clock.now()
            outcome = self.queues.change(engine, asked, now)
            if outcome.written:
                self.policies.begin(engine, now)  # the engine's queue is a new one
            self.clock.wake()  # decide by them at once
            return outcome

        return self.inbox.question(change)

    def use_policy(self, policy: Policy, name: str) -> Future[None]:
        """Have another policy decide, named so by the user. Fails as `PolicyKeeper.use` does."""
        asking = ASKING.get()

        def use(engine: Engine) -> None:
            self.policies.use(engine, policy, name, self.clock.now(), asking)
            self.clock.wake()  # decide by it at once

        return self.inbox.question(use)

    # The loop -----------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        failures = crashes = 0
        engine: Engine | None = None
        term, why = 0, ""
        while not self._stopping:
            try:
                held = self._lead()
                if not held:
                    engine = None
                    continue
                if engine is None or held != term or self._jumped:
                    engine, term = self._build(), held
                self._turn(engine)
                if failures:
                    log.info("the database can be written again")
                failures = crashes = 0
                self.figures.store_error = ""
                self.clock.wait(self._until(engine))
            except StoreError as error:
                engine = None
                self._pause(error, failures)
                failures += 1
            except Exception as error:
                engine = None
                crashes += 1
                log.exception("the scheduler failed; it goes on from what is stored")
                self.inbox.fail(GpuschedError(f"the scheduler failed: {error!r}", hint="nothing of this was queued"))
                if self.clock.now() - self._crashed < SUSPICIOUS:
                    self.policies.replace(f"the scheduler failed twice: {error!r}")
                self._crashed = self.clock.now()
                if crashes >= MOST_CRASHES:
                    why = f"the scheduler failed {crashes} times in a row: {error!r}"
                    break
        self.inbox.close()
        self._release()
        if not self._stopping:
            self._on_end(why)

    def _turn(self, engine: Engine) -> None:
        figures = self.figures
        begun = time.perf_counter()
        engine.tick(self.clock.now())
        self.door.confirm()
        figures.tick_ms = (time.perf_counter() - begun) * 1000
        figures.worst_ms = max(figures.worst_ms, figures.tick_ms)
        figures.ticks += 1
        if self.policies.turned(engine, self.clock.now()):
            self.clock.wake()
        self.inbox.answer(engine)

    def _build(self) -> Engine:
        """The engine as the store remembers it; the cluster is asked what became of the jobs that hold GPUs."""
        if self._taken is not None:
            self._begin(self._taken)
        if self._jumped:
            clock_set(self.store, self.lease, self.clock.now(), self._jumped)
            log.warning("the clock was set by %.0f s; what runs keeps the time that it has left", self._jumped)
            self.clock.set(self._jumped)
            self._jumped = 0.0
        engine = Engine(store=self.changes, backend=self.door, policy=self.policies.guard, inbox=self.inbox)
        jobs, now = self.store.unfinished(), self.clock.now()
        self.changes.census.begin(jobs)
        holding = engine.recover(jobs, self.store.known_nodes(), now)
        engine.use_tree(self.queues.load())
        self.policies.begin(engine, now)
        with self.store.reader() as connection:
            engine.endings.recall(self._poison, recent_ends(connection, now - self._poison.window))
        engine.cordon = self._cordon
        self.inbox.number_from(self.store.last_job_id())
        self.door.adopt(holding, now)
        self.door.repeat()
        for job in jobs:
            if job.id in self.store.locked and job.state is State.QUEUED:
                self._hold(job)
        self.figures.rebuilds += 1
        self._engine = engine
        if jobs:
            log.info("going on with %d jobs, %d of them on GPUs", len(jobs), len(holding))
        return engine

    def _cordon(self, name: str, why: str, now: float) -> None:
        """A node on which several different jobs failed takes no new work, until somebody resumes it."""
        log.error("node %s is cordoned: %s", name, why)
        try:
            self.door.cordon(name, why, now, by=BY)
        except (NotFoundError, ConflictError) as error:  # it has left meanwhile: then it takes no work either
            log.warning("node %s could not be cordoned: %s", name, error)

    def _hold(self, job: Job) -> None:
        """A job whose secrets cannot be opened waits until somebody has seen to it."""
        why = missing(job, self.store.locked.get(job.id, ""))
        log.error("job %d is held: %s", job.id, why)
        self.inbox.ask(Kind.HELD, job.id, {"by": "gpusched", "message": why})

    def _until(self, engine: Engine) -> float:
        """When to take the next turn if nothing happens: what the engine waits for, or the lease."""
        lease = self.clock.now() + self.lease.due - self.clock.steady()
        due = engine.next_time()
        return lease if due is None else min(due, lease)

    def _pause(self, error: StoreError, failures: int) -> None:
        """The store failed: answer everybody who asks with that, and let some time go by."""
        if isinstance(error, LeaseLostError):
            self._lost(error)
            return
        if str(error) != self.figures.store_error:
            log.error("%s%s", error, f" ({error.hint})" if error.hint else "")
        self.figures.store_error = str(error)
        self._wait_out(error, self.clock.now() + PAUSES[min(failures, len(PAUSES) - 1)])

    # One control plane at a time ----------------------------------------------------------------------------------

    def _lead(self) -> int:
        """Hold the lease; its term, which is another one if somebody else may have written meanwhile.

        0 = another has it; some time went by, and who asked was turned away.
        """
        figures, lease = self.figures, self.lease
        if figures.leader and self.clock.steady() < lease.due:
            return self._term
        if figures.leader and lease.renew():
            self._compare_clocks()
            return self._term
        if figures.leader:
            self._lost(LeaseLostError("this control plane has lost its lease", hint="nothing was written"))
        try:
            self._taken = lease.acquire()
        except LeaseHeldError as error:
            if str(error.holder) != figures.standby:
                log.info("standing by: %s", error.holder)
            figures.standby, figures.leader_url = str(error.holder), error.leader
            pause = min(max(lease.free_at() - self.clock.steady(), 0.0) + 0.01, lease.ttl / 6)
            self._wait_out(error, self.clock.now() + pause)
            return 0
        self._term = self._taken.holder.term
        figures.leader, figures.standby, figures.leader_url = True, "", lease.url
        return self._term

    def _lost(self, error: LeaseLostError) -> None:
        """Another leads, or may: nothing that was begun here goes on; the lease is looked at before the next turn."""
        log.error("%s", error)
        self.figures.leader = False
        self.inbox.fail(error)

    def _begin(self, taken: Taken) -> None:
        """First of a term: what this process remembers may be what another changed meanwhile."""
        reading = self.lease.reading
        assert reading is not None
        self.clock.set(self.clock.off(*reading))
        jump = 0.0 if taken.trace is None else taken.trace.jump(self.clock.now(), self.lease.booted())
        if abs(jump) >= JUMP:
            # By the time of before, so that what is counted by it can be put right.
            self.clock.set(-jump)
            self._jumped = jump
        self.store.refresh()
        self.nodes.recall()
        if taken.before is not None:
            words = f"{taken.holder} took over from {taken.before}"
            log.warning("%s", words)
            self.store.commit(events=[Event(self.clock.now(), Kind.PLANE, 0, 0, {"what": words})])
            if self._chosen is not None:
                self.policies.recall(self._chosen())
        self._taken = None

    def _compare_clocks(self) -> None:
        """Follow the database's clock, on SQLite this machine's: a jump is put right when the engine is built."""
        reading = self.lease.reading
        assert reading is not None
        off = self.clock.off(*reading)
        if abs(off) >= JUMP:
            self._jumped = off
        else:
            self.clock.set(off)

    def _wait_out(self, error: GpuschedError, until: float) -> None:
        """Do nothing until then but tell everybody who asks why."""
        self.inbox.fail(error)
        while not self._stopping:
            self.inbox.turn_away(error)
            if self.clock.now() >= until:
                return
            self.clock.wait(until)

    def _release(self) -> None:
        if not self.figures.leader:
            return
        self.figures.leader = False
        try:
            self.lease.release()
        except StoreError as error:
            log.warning("the lease could not be given back, it runs out by itself: %s", error)
