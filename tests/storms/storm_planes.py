"""A control plane that may be cut off at any point, over a store in memory that outlives it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, replace
from typing import Protocol

from storm_cluster import Cluster
from storm_link import Link
from storm_machines import BrokenError

from gpusched.cluster.backend import NodeChange
from gpusched.jobs.errors import ConflictError, NotFoundError, StoreError
from gpusched.jobs.events import Event
from gpusched.jobs.job import Job
from gpusched.policies.catalog import load
from gpusched.policies.plan import Decision
from gpusched.scheduler.door import Door
from gpusched.scheduler.engine import Engine
from gpusched.scheduler.guard import Guard
from gpusched.scheduler.inbox import LiveInbox
from gpusched.scheduler.node_orders import Window
from gpusched.scheduler.poison import BY, Rule
from gpusched.scheduler.queues import parse_queues
from gpusched.scheduler.store import MemoryStore

INSIDE = frozenset({"inside a commit", "at a commit"})
"""Points inside of a transaction. Who is frozen there holds locks: that is tried on real processes elsewhere."""


class CrashError(BaseException):
    """The process is gone, here and now. Nothing in it may catch this."""


class Gate:
    """Every write and every effect passes here, and may be the last.

    Attributes:
        crash_in: points until the process dies; 0 = it does not.
        sick: writes that will fail. written: whether they are on disk all the same.
        freeze_in: points until the process is frozen; 0 = it is not. freeze_at: how those that count begin.
        frozen: what goes on in the world meanwhile.
        sever_in: points until the database is made to cut the connection; sever: cuts it.
    """

    def __init__(self) -> None:
        self.crash_in = 0
        self.sick = 0
        self.written = False
        self.freeze_in = 0
        self.freeze_at = ""
        self.frozen: Callable[[str], None] = lambda _where: None
        self.sever_in = 0
        self.sever: Callable[[], None] = lambda: None

    def point(self, what: str) -> None:
        """Something is about to happen, or just has."""
        if self.crash_in:
            self.crash_in -= 1
            if not self.crash_in:
                raise CrashError(what)
        if self.freeze_in and what not in INSIDE and what.startswith(self.freeze_at):
            self.freeze_in -= 1
            if not self.freeze_in:
                self.frozen(what)
        if self.sever_in:
            self.sever_in -= 1
            if not self.sever_in:
                self.sever()

    def calm(self) -> None:
        """Nothing happens here any more."""
        self.crash_in = self.sick = self.freeze_in = self.sever_in = 0

    def commit(self, write: Callable[[], None]) -> None:
        """A write that may fail, or be the last thing that happens."""
        self.point("before a commit")
        fails, self.sick = self.sick > 0, max(self.sick - 1, 0)
        if fails and not self.written:
            raise StoreError("the disk is full")
        write()
        self.point("after a commit")
        if fails:
            raise StoreError("the connection to the database was lost in the commit")


class Disk(MemoryStore):
    """The memory store as something that outlives its process: it keeps copies, and hands out copies."""

    def __init__(self, gate: Gate) -> None:
        super().__init__()
        self.gate = gate
        self.policy = ""
        self.queues = ""
        self.windows: tuple[Window, ...] = ()

    def commit(
        self,
        *,
        jobs: Iterable[Job] = (),
        events: Sequence[Event] = (),
        decisions: Sequence[Decision] = (),
        nodes: Sequence[tuple[int, NodeChange]] = (),
    ) -> None:
        """All of it or nothing."""
        kept = [copy(job) for job in jobs]
        write = super().commit
        self.gate.commit(lambda: write(jobs=kept, events=events, decisions=decisions, nodes=nodes))

    def unfinished(self) -> list[Job]:
        """Copies, as another process would get them."""
        return [copy(job) for job in super().unfinished()]


@dataclass(slots=True)
class StormClock:
    """The control plane's wall clock: the cluster's real time, and how far it is off."""

    cluster: Cluster
    offset: float = 0.0

    def now(self) -> float:
        """What the clock on the wall shows."""
        return self.cluster.time + self.offset

    def wait(self, until: float | None) -> None:
        """Time is moved by the storm."""

    def wake(self) -> None:
        """There is always another turn."""


class Plane(Protocol):
    """One control plane's process."""

    engine: Engine | None
    inbox: LiveInbox
    door: Door
    link: Link
    gate: Gate

    @property
    def offset(self) -> float:
        """Seconds that its clock is ahead of the real time."""
        ...

    def turn(self) -> None:
        """One turn of its loop. Only a crash comes out of it."""
        ...

    ticked: float
    """When its engine ticked last, by its own clock."""

    def use(self, policy: str) -> None:
        """Have another policy decide."""
        ...

    def cordon(self, name: str) -> None:
        """No new work there."""
        ...

    def drain(self, name: str, within: float | None) -> None:
        """No new work there, and none at all after so many seconds."""
        ...

    def resume(self, name: str) -> None:
        """Work may go there again."""
        ...

    def windows(self) -> Sequence[Window]:
        """What is planned."""
        ...

    def change_windows(self, windows: Sequence[Window]) -> None:
        """Plan what is new among these, and call off what is not among them."""
        ...

    def use_queues(self, text: str) -> None:
        """Have other queues hold; empty = none."""
        ...


class MemoryPlane:
    """What `Controller` does, on a store in memory: build from the store, turn, and build again on trouble."""

    def __init__(self, disk: Disk, cluster: Cluster, clock: StormClock) -> None:
        self.disk = disk
        self.gate = disk.gate
        self.clock = clock
        self.link = Link(cluster, disk.gate.point)
        self.link.open()
        self.door = Door(self.link, [change for _, change in disk.known_nodes()], disk.windows)
        self.ticked = -math.inf
        self.inbox = LiveInbox(clock.now, lambda: None)
        self.guard = Guard(load(disk.policy))
        self.engine: Engine | None = None

    @property
    def offset(self) -> float:
        """Of the one clock that it has."""
        return self.clock.offset

    def turn(self) -> None:
        """As `Controller._run` does."""
        try:
            engine = self._build() if self.engine is None else self.engine
            self.engine = engine
            self.ticked = self.clock.now()
            engine.tick(self.ticked)
            self.door.confirm()
            if self.guard.fault:
                raise BrokenError(f"policy {self.guard.name}: {self.guard.fault}")
            self.inbox.answer(engine)
        except StoreError as error:
            self.engine = None
            self.inbox.fail(error)
            self.inbox.turn_away(error)

    def _build(self) -> Engine:
        engine = Engine(store=self.disk, backend=self.door, policy=self.guard, inbox=self.inbox)
        now = self.clock.now()
        holding = engine.recover(self.disk.unfinished(), self.disk.known_nodes(), now)
        engine.use_tree(parse_queues(self.disk.queues, file="queues") if self.disk.queues else None)
        engine.endings.poison.rule = Rule(jobs=2, share=0.4)
        engine.cordon = self._poisoned
        self.inbox.number_from(self.disk.last_job_id())
        self.door.adopt(holding, now)
        self.door.repeat()
        return engine

    def use(self, policy: str) -> None:
        """Written, then used."""
        self.disk.policy = policy
        self.guard = Guard(load(policy))
        if self.engine is not None:
            self.engine.rehearse(Guard(load(policy)), self.clock.now())
            self.engine.use(self.guard)

    def _poisoned(self, name: str, why: str, now: float) -> None:
        with suppress(NotFoundError, ConflictError):
            self.door.cordon(name, why, now, by=BY)

    def cordon(self, name: str) -> None:
        """It is written with the next turn."""
        self.door.cordon(name, "looked at", self.clock.now(), by="ann")

    def drain(self, name: str, within: float | None) -> None:
        """It is written with the next turn."""
        now = self.clock.now()
        self.door.drain(name, "new disks", now, by="ann", deadline=None if within is None else now + within)

    def resume(self, name: str) -> None:
        """It is written with the next turn."""
        self.door.resume(name, self.clock.now(), by="ann")

    def windows(self) -> Sequence[Window]:
        """Those of the disk."""
        return self.disk.windows

    def change_windows(self, windows: Sequence[Window]) -> None:
        """Written, then used."""
        last = max((window.id for window in self.disk.windows), default=0)
        self.disk.windows = tuple(replace(one, id=one.id or last + 1) for one in windows)
        self.door.use_windows(self.disk.windows, self.clock.now(), by="ann")

    def use_queues(self, text: str) -> None:
        """Written, then used."""
        self.disk.queues = text
        if self.engine is not None:
            self.engine.use_tree(parse_queues(text, file="queues") if text else None)
