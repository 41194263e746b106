"""The verbs on queues: what holds, what a file would change, and the change itself."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any, NamedTuple

from sqlalchemy import Connection

from ..jobs.errors import NotFoundError
from ..jobs.job import HOLDING
from ..policies.quota import Usage
from ..policies.tree import GPUS, QueueNode, Tree
from .access.asking import ASKING
from .cluster_verbs import ClusterVerbs
from .queue_keeper import Asked, Outcome, tree_of
from .queues import parse_queues, write_queues
from .queues.admission import missing
from .queues.writing import entry_of
from .store.cluster import held_gpus, list_nodes
from .store.queries import QueueLoad, load_by_queue
from .store.queue_versions import QueueVersion, list_versions, newest_version, version
from .views import JSON, iso

UNCONFIGURED = "no queues are configured: a job may name any queue"


class QueueVerbs(ClusterVerbs):
    """Queues as configuration.

    Attributes:
        user: who asks, where a request names nobody.
    """

    user: str

    async def queues(self) -> JSON:
        """Every queue with its settings and what is in it; without configuration, those that unfinished jobs name."""

        def ask(connection: Connection) -> tuple[Any, ...]:
            return newest_version(connection), load_by_queue(connection), held_gpus(connection), list_nodes(connection)

        newest, loads, held, nodes = await self.read(ask)
        tree = await asyncio.to_thread(tree_of, newest)
        kinds = {info.node.name: info.node.gpu_type for info in nodes}
        used: Counter[tuple[str, str]] = Counter()
        for piece in held:
            if kind := kinds.get(piece.node):
                used[piece.queue, kind] += piece.piece.gpus + piece.piece.gpu_milli / 1000
        now = _Now(loads, used)
        about = {"configured": tree is not None, "version": 0 if newest is None else newest.number}
        if tree is None:
            names = sorted({load.queue for load in loads})
            rows = [_row(QueueNode(name), None, now, [name], None) for name in names]
            return {**about, "default_queue": "default", "queues": rows}
        members = _members(tree, {load.queue for load in loads})
        usage = now.usage(tree)
        rows = [_row(node, tree, now, members[node.name], usage) for node in _in_order(tree)]
        return {
            **about,
            "default_queue": tree.default,
            "queues": rows,
            "lost": {name: now.jobs([name]) for name in members[""]},
        }

    async def queue(self, name: str) -> JSON:
        """One queue.

        Raises:
            NotFoundError: there is none of this name.
        """
        found = await self.queues()
        row: JSON | None = next((row for row in found["queues"] if row["name"] == name), None)
        if row is None:
            tree = self.controller.queues.tree
            raise (
                NotFoundError(f"no unfinished job names queue {name!r}", hint=UNCONFIGURED)
                if tree is None
                else (missing(tree, name))
            )
        return row

    async def queue_file(self, number: int | None = None) -> JSON:
        """The queue file of a version, as it was written and in the form that `export` writes.

        Raises:
            NotFoundError: there is no such version, or it has no queues.
        """
        found = await self.read(
            lambda connection: newest_version(connection) if number is None else version(connection, number)
        )
        if found is None and number:
            raise NotFoundError(
                f"there is no version {number} of the queues", hint="`gpusched queues history` lists them"
            )
        tree = await asyncio.to_thread(tree_of, found)
        if found is None or tree is None:
            raise NotFoundError(UNCONFIGURED, hint="`gpusched queues apply FILE` configures them; see docs/queues.md")
        return {**version_view(found), "text": found.text, "yaml": write_queues(tree)}

    async def queue_history(self) -> list[JSON]:
        """Every version, the newest first."""
        return [version_view(found) for found in await self.read(list_versions)]

    async def apply_queues(
        self,
        text: str,
        *,
        file: str = "queues.yaml",
        by: str = "",
        drain: bool = False,
        strict: bool = False,
        dry_run: bool = False,
    ) -> JSON:
        """Have the queues of a file hold, all or nothing, or only say what that would change.

        Raises:
            SpecError: anything in the file is wrong, or `strict` and quotas add up to more than the cluster has.
            ConflictError: jobs would lose their queue, and `drain` was not asked for.
            StoreError: it could not be written; nothing changed.
        """
        tree = await asyncio.to_thread(parse_queues, text, file=file)
        asked = Asked(
            tree, text, file, by or self.user, drain=drain, strict=strict, dry_run=dry_run, asking=ASKING.get()
        )
        return await self._change_queues(asked)

    async def roll_back_queues(self, number: int, *, by: str = "", drain: bool = False, dry_run: bool = False) -> JSON:
        """Have an earlier version hold again, as a new version; 0 = no queues.

        Raises:
            NotFoundError: there is no such version.
        """
        found = await self.read(lambda connection: version(connection, number)) if number else None
        if number and found is None:
            raise NotFoundError(
                f"there is no version {number} of the queues", hint="`gpusched queues history` lists them"
            )
        tree = await asyncio.to_thread(tree_of, found)
        text, file = ("", "") if found is None else (found.text, found.file)
        note = f"rollback to {number}"
        asked = Asked(tree, text, file, by or self.user, note, drain=drain, dry_run=dry_run, asking=ASKING.get())
        return await self._change_queues(asked)

    async def _change_queues(self, asked: Asked) -> JSON:
        outcome = await asyncio.wrap_future(self.controller.change_queues(asked))
        self._picture = None
        return outcome_view(outcome)


def outcome_view(outcome: Outcome) -> JSON:
    """What came of a change."""
    return {
        "version": outcome.version,
        "written": outcome.written,
        "changes": [
            {"queue": change.queue, "key": change.key, "old": change.old, "new": change.new, "text": str(change)}
            for change in outcome.changes
        ],
        "warnings": outcome.warnings,
        "displaced": {
            name: {"waiting": jobs.waiting, "running": jobs.running} for name, jobs in outcome.displaced.items()
        },
    }


def version_view(found: QueueVersion) -> JSON:
    """A version without its text."""
    return {
        "version": found.number,
        "time": iso(found.time),
        "user": found.user,
        "note": found.note,
        "file": found.file,
    }


def _members(tree: Tree, named: set[str]) -> dict[str, list[str]]:
    """For each queue the names under which jobs are in it or below it; under "" those that no queue has."""
    members: dict[str, list[str]] = {"": [], **{node.name: [] for node in tree.queues}}
    for name in sorted(named):
        home = tree.home(name)
        if not home:
            members[""].append(name)
            continue
        for node in tree.path(home):
            members[node.name].append(name)
    return members


def _in_order(tree: Tree, above: str = "") -> list[QueueNode]:
    """Every queue after the one above it."""
    return [node for child in tree.children(above) for node in (child, *_in_order(tree, child.name))]


class _Now(NamedTuple):
    """What is in the queues at present: counts by the name that jobs give, and GPUs held by (name, GPU type)."""

    loads: list[QueueLoad]
    used: Counter[tuple[str, str]]

    def jobs(self, names: list[str]) -> JSON:
        """Jobs that name any of these."""
        chosen = [load for load in self.loads if load.queue in names]
        return {
            "waiting": sum(load.jobs for load in chosen if load.state not in HOLDING),
            "running": sum(load.jobs for load in chosen if load.state in HOLDING),
        }

    def held(self, names: list[str]) -> dict[str, float]:
        """GPUs held by jobs that name any of these, in all and by type."""
        gpus = sum(load.gpus for load in self.loads if load.queue in names and load.state in HOLDING)
        kinds = sorted({kind for _, kind in self.used})
        return {GPUS: gpus} | {kind: total for kind in kinds if (total := sum(self.used[name, kind] for name in names))}

    def usage(self, tree: Tree) -> Usage:
        """The same as quotas count it."""
        usage = Usage(tree)
        flavours = {flavour.lower(): flavour for flavour in tree.flavours}
        for load in self.loads:
            if load.state in HOLDING and (home := tree.home(load.queue)):
                usage.add(home, GPUS, load.gpus)
        for (name, kind), gpus in self.used.items():
            if (home := tree.home(name)) and kind.lower() in flavours:
                usage.add(home, flavours[kind.lower()], gpus)
        return usage


def _row(node: QueueNode, tree: Tree | None, now: _Now, names: list[str], usage: Usage | None) -> JSON:
    """A queue as listings show it: what it and the queues below it may have, and what they hold."""
    flavours = () if tree is None else tree.flavours
    over = {} if usage is None else {flavour: usage.over_nominal(node.name, flavour) for flavour in flavours}
    return {
        "name": node.name,
        "parent": node.parent,
        "depth": 0 if tree is None else len(tree.path(node.name)) - 1,
        "takes_jobs": tree is None or tree.takes_jobs(node.name),
        "default": tree is not None and tree.default == node.name,
        "weight": node.weight,
        "paused": tree is not None and bool(tree.paused(node.name)),
        "nominal": {flavour: quota.nominal for flavour, quota in node.quotas.items()},
        "borrowing_limit": {flavour: quota.borrowing_limit for flavour, quota in node.quotas.items()},
        "lending_limit": {flavour: quota.lending_limit for flavour, quota in node.quotas.items()},
        "used": now.held(names),
        "borrowed": {flavour: amount for flavour, amount in over.items() if amount},
        **now.jobs(names),
        "submit": None if tree is None or (found := tree.submitters(node.name)) is None else list(found[1]),
        "settings": entry_of(node),
    }
