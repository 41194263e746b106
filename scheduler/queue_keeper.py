"""The queues that hold, and how they change: in the loop's thread, between two ticks, written before they count."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..cluster.pool import bits
from ..jobs.errors import ConflictError, Problem, SpecError, StoreError
from ..jobs.job import WAITING
from ..policies.tree import Tree
from .access.asking import Asking
from .engine import Engine
from .queues import parse_queues
from .queues.compare import Change, beyond, changes, has
from .store.queue_versions import QueueVersion, add_version, newest_version
from .store.sql import SqlStore


@dataclass(frozen=True, slots=True)
class Asked:
    """A change of the queues that somebody asks for.

    Attributes:
        tree: the queues to be; None = none, and any name will do. text, file: as they were written, and where.
        user: who asks. note: what for, if not for the file's sake.
        drain: also if jobs lose their queue. strict: not if quotas add up to more than the cluster has.
        dry_run: only say what would change.
        asking: the request that asks for it; None = no request does.
    """

    tree: Tree | None
    text: str
    file: str
    user: str = ""
    note: str = ""
    drain: bool = False
    strict: bool = False
    dry_run: bool = False
    asking: Asking | None = None


@dataclass(frozen=True, slots=True)
class Displaced:
    """Jobs that a change leaves without a queue: how many of them wait, and how many hold GPUs."""

    waiting: int = 0
    running: int = 0

    def __str__(self) -> str:
        parts = [f"{self.waiting} waiting"] * bool(self.waiting) + [f"{self.running} on GPUs"] * bool(self.running)
        count = self.waiting + self.running
        return f"{count} job{'s' * (count != 1)} ({', '.join(parts)})"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it.

    Attributes:
        version: the number that holds now; 0 = none was ever applied. written: whether it is a new one.
        changes: what is different. warnings: what is odd about it.
        displaced: by queue that goes away, the jobs in it.
    """

    version: int
    written: bool
    changes: list[Change] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    displaced: Mapping[str, Displaced] = field(default_factory=dict)


class QueueKeeper:
    """Keeps the tree that the newest version in the store says.

    Attributes:
        tree: the queues; None = none are configured, and any name will do. Any thread may look.
        version: the version that says so; None = none was ever applied.
    """

    def __init__(self, store: SqlStore) -> None:
        self._store = store
        self.tree: Tree | None = None
        self.version: QueueVersion | None = None

    # In the loop's thread -----------------------------------------------------------------------------------------

    def load(self) -> Tree | None:
        """Read what the store says. Another control plane may have changed it meanwhile.

        Raises:
            StoreError: it cannot be read, or what it holds is no tree for this release.
        """
        with self._store.reader() as connection:
            newest = newest_version(connection)
        if newest != self.version:
            try:
                self.tree = tree_of(newest)
            except SpecError as error:
                raise StoreError(
                    f"version {newest.number if newest else 0} of the queues cannot be read by this release: {error}",
                    hint="the release that wrote it can; `gpusched queues rollback` there",
                ) from error
            self.version = newest
        return self.tree

    def change(self, engine: Engine, asked: Asked, now: float) -> Outcome:
        """Make these queues hold, all or nothing: written first, then decided by.

        Raises:
            ConflictError: jobs would lose their queue, and `drain` was not asked for.
            SpecError: quotas add up to more than the cluster has, and `strict` was asked for.
            StoreError: it could not be written; nothing changed.
        """
        found = changes(self.tree, asked.tree)
        warnings = [] if asked.tree is None else beyond(asked.tree, capacity(engine))
        if asked.strict and warnings:
            raise SpecError([Problem(asked.file, 0, 0, "nominal_quota", warning) for warning in warnings])
        displaced = self._displaced(engine, asked.tree)
        current = self.version.number if self.version else 0
        if asked.dry_run:
            return Outcome(current, written=False, changes=found, warnings=warnings, displaced=displaced)
        if displaced and not asked.drain:
            raise _refused(displaced, asked.tree)
        if self.tree == asked.tree and asked.text == (self.version.text if self.version else ""):
            return Outcome(current, written=False, warnings=warnings)
        self.version = add_version(
            self._store,
            time=now,
            user=asked.user,
            note=asked.note,
            file=asked.file,
            text=asked.text,
            events=[] if asked.asking is None else [asked.asking.event(now)],
        )
        self.tree = asked.tree
        engine.use_tree(asked.tree)
        return Outcome(self.version.number, written=True, changes=found, warnings=warnings, displaced=displaced)

    def _displaced(self, engine: Engine, tree: Tree | None) -> dict[str, Displaced]:
        """Jobs that have a queue now and would have none."""
        if tree is None:
            return {}
        waiting: Counter[str] = Counter()
        running: Counter[str] = Counter()
        homeless: dict[str, bool] = {}
        for job in engine.jobs.values():
            name = job.queue
            if name not in homeless:
                homeless[name] = not tree.home(name) and (self.tree is None or bool(self.tree.home(name)))
            if homeless[name]:
                (waiting if job.state in WAITING else running)[name] += 1
        return {name: Displaced(waiting[name], running[name]) for name in sorted(waiting.keys() | running.keys())}


def tree_of(found: QueueVersion | None) -> Tree | None:
    """The queues of a version. Raises SpecError."""
    return None if found is None or not found.text else parse_queues(found.text, file=found.file or "queues")


def capacity(engine: Engine) -> dict[str, float]:
    """GPUs by type and in all, and CPUs, of the nodes that are there; empty = none is."""
    pool = engine.pool
    return has(pool.nodes[number] for number in bits(pool.present))


def _refused(displaced: Mapping[str, Displaced], tree: Tree | None) -> ConflictError:
    lines = []
    for name, jobs in displaced.items():
        inner = tree is not None and name in tree
        what = "would have queues below it and take no jobs" if inner else "would be gone"
        lines.append(f"queue {name} {what}: {jobs}")
    listed = f"`gpusched ps --queue {next(iter(displaced))}` lists them"
    hint = (
        f"nothing was changed. Keep it with `paused: true` until they are done, or cancel them ({listed}); with --drain"
        " what runs goes on, and what waits keeps waiting until the queue is back"
    )
    return ConflictError("\n".join(lines), hint=hint)
