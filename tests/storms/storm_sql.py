"""The real `Controller` on a database, its loop turned by hand: frozen, followed by another, its connection cut."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from sqlalchemy import Connection, event
from storm_cluster import Cluster
from storm_link import Link
from storm_machines import BrokenError
from storm_planes import Gate

from gpusched.cluster.backend import NodeChange
from gpusched.cluster.clock import WallClock
from gpusched.jobs.errors import StoreError, UnreachableError
from gpusched.jobs.events import Event
from gpusched.jobs.job import Job
from gpusched.policies.catalog import load
from gpusched.policies.plan import Decision
from gpusched.scheduler.controller import Controller
from gpusched.scheduler.engine import Engine
from gpusched.scheduler.node_orders import Window
from gpusched.scheduler.poison import Rule
from gpusched.scheduler.queue_keeper import Asked
from gpusched.scheduler.queues import parse_queues
from gpusched.scheduler.store.lease import Reading
from gpusched.scheduler.store.past import chosen_policy
from gpusched.scheduler.store.sql import SqlStore


class File(SqlStore):
    """The SQL store behind the gate; a crash may also come between any two statements of a transaction."""

    def __init__(self, url: str, gate: Gate) -> None:
        super().__init__(url)
        self.gate = gate
        gate.sever = self.sever
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

    def sever(self) -> None:
        """PostgreSQL ends all our connections, whatever they are in the middle of. A file has none."""
        if self.database.sqlite:
            return
        import psycopg  # noqa: PLC0415 - only storms on PostgreSQL need it

        url = self.database.url.set(drivername="postgresql").render_as_string(hide_password=False)
        ours = "SELECT pg_terminate_backend(pid, 2000) FROM pg_stat_activity WHERE datname = current_database()"
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(ours + " AND pid <> pg_backend_pid()")


class WaitsError(BaseException):
    """The loop would wait now; it is turned again later."""


class Watch(WallClock):
    """A clock of the storm's time. The loop never really waits.

    Args:
        cluster: whose time goes on steadily.
        machine: seconds that the machine's own clock is off, which people set.
    """

    def __init__(self, cluster: Cluster, machine: Callable[[], float]) -> None:
        super().__init__(lambda: cluster.time + machine(), lambda: cluster.time)

    def wait(self, until: float | None) -> None:
        """Time is moved by the storm."""
        raise WaitsError(until)


class SqlPlane:
    """The real `Controller`, its loop turned by hand.

    Args:
        store: its own connection to the database.
        cluster: the cluster.
        machine: seconds that its machine's clock is off.
        policy: who decides, if the database does not say otherwise.
        owner: its name; another one's lease has to run out first.
    """

    def __init__(
        self, store: File, cluster: Cluster, machine: Callable[[], float], policy: str, owner: str = "storm"
    ) -> None:
        self.store = store
        self.gate = store.gate
        self.cluster = cluster
        self.link = Link(cluster, store.gate.point)

        def chosen() -> str:
            with store.reader() as connection:
                return chosen_policy(connection) or policy

        self.clock = Watch(cluster, machine)
        policy_now = load(chosen())
        self.controller = Controller(
            store,
            self.link,
            policy_now,
            clock=self.clock,
            owner=owner,
            chosen=lambda: load(chosen()),
        )
        lease = self.controller.lease
        lease.booted = lambda: ("storm", cluster.time)

        def read_clock(_connection: Connection) -> float:
            utc = self.clock.wall()
            lease.reading = Reading(utc, self.clock.steady())
            return utc

        lease._read_clock = read_clock  # type: ignore[method-assign] # PostgreSQL's own clock is not the storm's
        self.link.term = lambda: self.controller._term
        self.link.open()
        self.inbox = self.controller.inbox
        self.door = self.controller.door
        self.engine: Engine | None = None
        self._held = 0
        self.ticked = -math.inf

    @property
    def offset(self) -> float:
        """Of the clock by which it counts, which follows the machine's when that was set."""
        return self.clock.now() - self.cluster.time

    @property
    def leads(self) -> bool:
        """Whether it says so itself."""
        return self.controller.figures.leader

    def turn(self) -> None:
        """As `Controller._run` does."""
        controller = self.controller
        try:
            try:
                held = controller._lead()
                if not held:
                    self.engine = None
                    return
                if self.engine is None or held != self._held or controller._jumped:
                    self.engine = None
                    self.engine, self._held = controller._build(), held
                    self.engine.endings.poison.rule = Rule(jobs=2, share=0.4)
                self.ticked = self.clock.now()
                controller._turn(self.engine)
                if controller.policies.fault:
                    raise BrokenError(controller.policies.fault)
            except StoreError as error:
                self.engine = None
                controller._pause(error, 0)
        except WaitsError:
            return

    def use(self, policy: str) -> None:
        """As a user asks for it."""
        future = self.controller.use_policy(load(policy), policy)
        self._until_answered(future.done)
        if future.done() and not isinstance(future.exception(), StoreError | UnreachableError | None):
            raise BrokenError(f"policy {policy} was refused: {future.exception()}")

    def use_queues(self, text: str) -> None:
        """As a user asks for it."""
        tree = parse_queues(text, file="queues") if text else None
        future = self.controller.change_queues(Asked(tree, text, "queues", drain=True))
        self._until_answered(future.done)
        if future.done() and not isinstance(future.exception(), StoreError | UnreachableError | None):
            raise BrokenError(f"the queues were refused: {future.exception()}")

    def cordon(self, name: str) -> None:
        """As an administrator asks for it; it is written with the next turn."""
        self._until_answered(self.controller.nodes.cordon(name, "looked at", "ann").done)

    def drain(self, name: str, within: float | None) -> None:
        """As an administrator asks for it; it is written with the next turn."""
        self._until_answered(self.controller.nodes.drain(name, "new disks", "ann", within=within).done)

    def resume(self, name: str) -> None:
        """As an administrator asks for it; it is written with the next turn."""
        self._until_answered(self.controller.nodes.resume(name, "ann").done)

    def windows(self) -> Sequence[Window]:
        """As it goes by them."""
        return self.door.orders.windows

    def change_windows(self, windows: Sequence[Window]) -> None:
        """Plan what is new, call off what is not among them."""
        kept = {window.id for window in windows}
        for window in windows:
            if not window.id:
                self._until_answered(self.controller.nodes.add_window(window).done)
        for old in self.door.orders.windows:
            if old.id not in kept:
                self._until_answered(self.controller.nodes.cancel_window(old.id, "ann").done)

    def _until_answered(self, done: Callable[[], bool]) -> None:
        for _ in range(3):
            self.turn()
            if done():
                return


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
