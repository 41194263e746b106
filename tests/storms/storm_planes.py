"""Control planes that may be cut off at any point, over what outlives them: a store in memory or a SQLite file."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import event
from storm_cluster import Cluster
from storm_link import Link
from storm_machines import BrokenError

from gpusched.cluster.backend import NodeChange
from gpusched.jobs.errors import StoreError
from gpusched.jobs.events import Event
from gpusched.jobs.job import Job
from gpusched.policies.catalog import load
from gpusched.policies.plan import Decision
from gpusched.scheduler.controller import Controller
from gpusched.scheduler.door import Door
from gpusched.scheduler.engine import Engine
from gpusched.scheduler.guard import Guard
from gpusched.scheduler.inbox import LiveInbox
from gpusched.scheduler.queue_keeper import Asked
from gpusched.scheduler.queues import parse_queues
from gpusched.scheduler.store import MemoryStore
from gpusched.scheduler.store.past import chosen_policy
from gpusched.scheduler.store.sql import SqlStore


class CrashError(BaseException):
    """The process is gone, here and now. Nothing in it may catch this."""


class Gate:
    """Every write and every effect passes here, and may be the last.

    Attributes:
        crash_in: points until the process dies; 0 = it does not.
        sick: writes that will fail. written: whether they are on disk all the same.
        where: the point at which it died.
    """

    def __init__(self) -> None:
        self.crash_in = 0
        self.sick = 0
        self.written = False
        self.where = ""

    def point(self, what: str) -> None:
        """Something is about to happen, or just has."""
        if self.crash_in:
            self.crash_in -= 1
            if not self.crash_in:
                self.where = what
                raise CrashError(what)

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


class File(SqlStore):
    """The SQL store behind the gate; a crash may also come between any two statements of a transaction."""

    def __init__(self, url: str, gate: Gate) -> None:
        super().__init__(url)
        self.gate = gate
        event.listen(self.database.writer, "before_cursor_execute", lambda *_: gate.point("inside a commit"))
        event.listen(self.database.writer, "commit", lambda *_: gate.point("at a commit"))

    def commit(
        self,
        *,
        jobs: Iterable[Job] = (),
        events: Sequence[Event] = (),
        decisions: Sequence[Decision] = (),
        nodes: Sequence[tuple[int, NodeChange]] = (),
    ) -> None:
        """All of it or nothing."""
        write, kept = super().commit, list(jobs)
        self.gate.commit(lambda: write(jobs=kept, events=events, decisions=decisions, nodes=nodes))


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

    def off(self, _utc: float, _steady: float) -> float:
        """The lease's clock is the machine's, the storm's is not: nothing is to be learnt from it."""
        return 0.0

    def set(self, by: float) -> None:
        """As a control plane that follows a clock that was set does it."""
        self.offset += by


class Plane(Protocol):
    """One control plane's process."""

    engine: Engine | None
    inbox: LiveInbox
    door: Door
    link: Link

    def turn(self) -> None:
        """One turn of its loop. Only a crash comes out of it."""
        ...

    def use(self, policy: str) -> None:
        """Have another policy decide."""
        ...

    def use_queues(self, text: str) -> None:
        """Have other queues hold; empty = none."""
        ...


class MemoryPlane:
    """What `Controller` does, on a store in memory: build from the store, turn, and build again on trouble."""

    def __init__(self, disk: Disk, cluster: Cluster, clock: StormClock) -> None:
        self.disk = disk
        self.clock = clock
        self.link = Link(cluster, disk.gate.point)
        self.link.open()
        self.door = Door(self.link, [change for _, change in disk.known_nodes()])
        self.inbox = LiveInbox(clock.now, lambda: None)
        self.guard = Guard(load(disk.policy))
        self.engine: Engine | None = None

    def turn(self) -> None:
        """As `Controller._run` does."""
        try:
            engine = self._build() if self.engine is None else self.engine
            self.engine = engine
            engine.tick(self.clock.now())
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

    def use_queues(self, text: str) -> None:
        """Written, then used."""
        self.disk.queues = text
        if self.engine is not None:
            self.engine.use_tree(parse_queues(text, file="queues") if text else None)


class SqlPlane:
    """The real `Controller`, its loop turned by hand."""

    def __init__(self, store: File, cluster: Cluster, clock: StormClock, policy: str) -> None:
        self.store = store
        self.link = Link(cluster, store.gate.point)
        self.link.open()
        with store.reader() as connection:
            policy = chosen_policy(connection) or policy
        some: Any = clock
        self.controller = Controller(store, self.link, load(policy), clock=some, owner="storm")
        self.inbox = self.controller.inbox
        self.door = self.controller.door
        self.engine: Engine | None = None

    def turn(self) -> None:
        """As `Controller._run` does."""
        controller = self.controller
        try:
            if not controller._lead():
                raise BrokenError("nobody else has the lease, and it cannot be had")
            engine = controller._build() if self.engine is None else self.engine
            self.engine = engine
            controller._turn(engine)
            if controller.policies.fault:
                raise BrokenError(controller.policies.fault)
        except StoreError as error:
            self.engine = None
            self.inbox.fail(error)
            self.inbox.turn_away(error)

    def use(self, policy: str) -> None:
        """As a user asks for it."""
        future = self.controller.use_policy(load(policy), policy)
        self.turn()
        if not isinstance(future.exception(), StoreError | None):
            raise BrokenError(f"policy {policy} was refused: {future.exception()}")

    def use_queues(self, text: str) -> None:
        """As a user asks for it."""
        tree = parse_queues(text, file="queues") if text else None
        future = self.controller.change_queues(Asked(tree, text, "queues", drain=True))
        self.turn()
        if not isinstance(future.exception(), StoreError | None):
            raise BrokenError(f"the queues were refused: {future.exception()}")


def new_file(folder: Path, gate: Gate, name: str = "storm.db") -> tuple[File, str]:
    """A fresh database: the tables are made once a folder, then copied."""
    empty = folder / "empty.db"
    if not empty.exists():
        SqlStore(f"sqlite:///{empty}").close()
    path = folder / name
    for old in folder.glob(f"{name}*"):
        old.unlink()
    shutil.copy(empty, path)
    url = f"sqlite:///{path}"
    return File(url, gate), url
