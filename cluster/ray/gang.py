"""One attempt on Ray, from its placement group to its end: all ranks start, and one's end is everybody's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import ray
from ray.exceptions import ActorUnavailableError, GetTimeoutError, RayActorError, RayError, RayTaskError
from ray.util.placement_group import (
    PlacementGroup,
    placement_group,
    placement_group_table,
    remove_placement_group,
)
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from . import ranks
from .keeper import Dirty, Keeper
from .reports import Reports
from .results import Result, by_memory_monitor, finished_data, first_failed
from .runner import HELD, NAMESPACE, Runner
from .terms import SupersededError

READY_WITHIN = 3.0
"""Seconds for a placement group. A free cluster takes milliseconds; just after a removal Ray judges by a stale view and
takes one second more."""
RUNNERS_WITHIN = 60.0
"""Seconds for the Runners to answer: a worker process a node."""
FAILED_GRACE = 10.0
"""Seconds that the others get at most when one rank failed: they could only wait for it."""


class Cluster(Protocol):
    """What a gang needs from the gateway."""

    owner: str
    scratch: str
    files: dict[str, str]
    address: str
    term: int
    keeper: Keeper

    async def still_leads(self) -> None:
        """Raises SupersededError if another control plane has taken over. After a step, never before it."""
        ...

    async def call(self, function: Callable[..., Any], *args: Any, within: float = 30.0) -> Any:  # noqa: ANN401 - as the function returns
        """Run a blocking Ray call in a thread."""
        ...

    def node_id(self, name: str) -> str | None:
        """Ray's present NodeID of a node; None when it isn't there."""
        ...

    def node_name(self, node_id: str) -> str:
        """Our name of a node, also of one that is gone."""
        ...

    def node_alive(self, node_id: str) -> bool:
        """Whether Ray counts the node as alive."""
        ...

    def node_gone(self, node_id: str) -> asyncio.Event:
        """Set once Ray counts the node as dead."""
        ...

    async def archive(self, path: str | None) -> Any:  # noqa: ANN401 - an ObjectRef, which Ray does not type
        """The workdir in Ray's object store; None = there is none."""
        ...

    async def outcome(self, job: int, attempt: int) -> dict[int, dict[str, Any]]:
        """Results by rank that the nodes have on disk."""
        ...

    def emit(self, kind: str, job: int, attempt: int, data: dict[str, Any]) -> None:
        """Report an event to the control plane."""
        ...


class RefusedError(Exception):
    """The cluster could not place the gang as planned; nothing ran."""


class Gang:
    """One attempt.

    Args:
        cluster: the gateway.
        request: what the backend asked for, see `backend.start_request`; after `attach` only job, attempt, grace.
    """

    def __init__(self, cluster: Cluster, request: dict[str, Any]) -> None:
        self.cluster = cluster
        self.request = request
        self.job: int = request["job"]
        self.attempt: int = request["attempt"]
        self.name = group_name(cluster.owner, (self.job, self.attempt))
        self.group: PlacementGroup | None = None
        self.runners: list[Any] = []
        self.facts: list[dict[str, Any]] = []
        self.stop_grace: float | None = None
        self.over = False
        self.begun = False  # processes of it may run
        self.halted = False  # it was found half started
        self.last: tuple[str, dict[str, Any]] | None = None
        self.short_of_memory: set[int] = set()  # ranks whose Runner Ray's memory monitor killed
        self.reports = Reports(lambda kind, words: cluster.emit(kind, self.job, self.attempt, words))

    # ---- starting

    async def launch(self) -> None:
        """Place it, start every rank, and see it to its end.

        Raises:
            SupersededError: another control plane leads; what this one had reserved is free again.
        """
        try:
            await self._reserve()
            await self._start_runners()
            started = await self._start_ranks()
        except SupersededError:
            await self._dissolve()
            raise
        except (RefusedError, RayError, TimeoutError, OSError, ValueError) as error:
            if self.begun:
                await self._release({})
            else:
                await self._dissolve()
            if self.stop_grace is not None:
                self._end("finished", {"exit_code": 143, "failed_rank": None, "message": "stopped before it started"})
            elif isinstance(error, FileNotFoundError):
                found = {"cause": "start", "which": "workdir", "cause_detail": "its workdir is missing"}
                told = {"exit_code": 126, "failed_rank": 0, "message": f"cannot start: {error}"}
                self._end("finished", {**told, **found})
            else:
                self._end("refused", {"message": first_line(error), **self._refused_by(error)})
            return
        if started:
            self._emit("started", self._started_data())
        await self._watch()

    def _refused_by(self, error: Exception) -> dict[str, str]:
        """The node that did not start what it had room for, where there is only one that it can be."""
        nodes = set(self.request["nodes"])
        if isinstance(error, RefusedError) or len(nodes) > 1:
            return {}
        return {"cause": "start", "which": "node", "node": nodes.pop()}

    async def _reserve(self) -> None:
        """The placement group: each bundle on its node, all or nothing, soon or not at all."""
        names = self.request["nodes"]
        node_ids = [self.cluster.node_id(name) for name in names]
        if None in node_ids:
            raise RefusedError(f"node {names[node_ids.index(None)]} is not in the cluster")
        await self.cluster.keeper.quiet({node_id for node_id in node_ids if node_id is not None})
        self.group = await self.cluster.call(
            lambda: placement_group(
                self.request["bundles"],
                name=self.name,
                lifetime="detached",
                bundle_label_selector=[{"ray.io/node-id": node_id} for node_id in node_ids],
            )
        )
        if not await self.cluster.call(self.group.wait, READY_WITHIN):
            table = await self.cluster.call(placement_group_table, self.group)
            why = table.get("stats", {}).get("scheduling_state", "PENDING")
            raise RefusedError(f"Ray has no room for it on {', '.join(names)} ({why})")

    async def _start_runners(self) -> None:
        """One Runner a bundle, all at once, and what each of them says of its place."""
        self.runners = await self.cluster.call(self._create_runners)
        describe = [runner.describe.remote() for runner in self.runners]
        self.facts = list(await asyncio.wait_for(asyncio.gather(*describe), RUNNERS_WITHIN))
        for facts in self.facts:
            objection = self.cluster.keeper.objection(facts["node_id"], [int(gpu) for gpu in facts["gpus"]])
            if objection:
                raise RefusedError(f"node {self.cluster.node_name(facts['node_id'])}: {objection}")

    def _create_runners(self) -> list[Any]:
        actor = ray.remote(Runner)
        runners = []
        for rank, bundle in enumerate(self.request["bundles"]):
            options = actor.options(
                name=f"{self.name}:{rank}",
                namespace=NAMESPACE,
                lifetime="detached",
                num_cpus=bundle.get("CPU", 0),
                num_gpus=bundle.get("GPU", 0),
                memory=bundle.get("memory"),
                max_restarts=0,
                scheduling_strategy=PlacementGroupSchedulingStrategy(self.group, rank),
            )
            runners.append(
                options.remote(
                    self.cluster.owner,
                    (self.job, self.attempt),
                    rank,
                    self.cluster.scratch,
                    self.cluster.files,
                    self.request["env"]["GPUSCHED_JOB_NAME"],
                )
            )
        return runners

    async def _start_ranks(self) -> bool:
        """Start every rank's command. False = one could not; its Runner then has the reason as its result."""
        if self.stop_grace is not None:
            raise RefusedError("stopped before it started")
        archive = await self.cluster.archive(self.request.get("snapshot"))
        assert self.group is not None
        await self.cluster.still_leads()  # the placement group is there: see terms.py
        orders = ranks.orders(self.request, self.facts, self.cluster.address, self.group.id.hex())
        orders = [{**order, "patience": self.cluster.keeper.patience} for order in orders]
        self.begun = True
        answers = await asyncio.wait_for(
            asyncio.gather(
                *(runner.start.remote(order, archive) for runner, order in zip(self.runners, orders, strict=True))
            ),
            RUNNERS_WITHIN,
        )
        for facts, answer in zip(self.facts, answers, strict=True):
            facts["started"] = None if "error" in answer else answer
        if self.stop_grace is not None:
            await self._stop_ranks(self.stop_grace)
        return all(facts["started"] for facts in self.facts)

    # ---- running

    async def _watch(self) -> None:
        """Wait for every rank. The first failure, or the first rank that is lost, ends the others too."""
        waits = {asyncio.create_task(self._result(rank)): rank for rank in range(len(self.runners))}
        listeners = [asyncio.create_task(self._listen(rank)) for rank in range(len(self.runners))]
        results: dict[int, Result] = {}
        died: dict[int, float] = {}
        lost: list[int] = []
        failed = False
        while waits:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                rank = waits.pop(task)
                result = task.result()
                if result is None:
                    lost.append(rank)
                else:
                    results[rank] = result
                    died[rank] = time.monotonic() - result.get("ago", 0.0)
                    if "checkpoint" in result:
                        self.reports.saved(result["checkpoint"], result["ended"])
                    failed |= bool(result["exit_code"])
            if waits and (lost or failed):
                await self._stop_ranks(min(FAILED_GRACE, self.request["grace"]))
        for listener in listeners:
            listener.cancel()
        self.reports.close()
        if lost:
            await self._wait_for_trees(lost)
        saved = {"checkpoint": self.reports.checkpoint} if self.reports.checkpoint else {}
        saved.update(await self._release(results))
        if lost or self.halted:
            self._end("vanished", {**self._lost(lost), **saved})
        else:
            first = first_failed(results, died)
            self._end("finished", {**finished_data(results, first, self._node_of(first)), **saved})

    async def _listen(self, rank: int) -> None:
        """Hear what a rank's processes report, as long as there is a Runner."""
        seen: dict[str, str] = {}
        while (runner := self.runners[rank]) is not None:
            if not hasattr(runner, "news"):  # one that an earlier version started
                return
            try:
                found = await runner.news.remote(seen)
            except RayActorError:  # it hands over, or is gone: `_result` finds out
                await asyncio.sleep(0.5)
            else:
                seen = found["files"]
                self.reports.heard(seen, found["now"])

    async def _result(self, rank: int) -> dict[str, Any] | None:
        """A rank's result once its last process is gone; None when its Runner or node is gone."""
        while True:
            if self.runners[rank] is None:
                return None
            try:
                return await self._wait_for(rank)
            except ActorUnavailableError:  # Ray does not know yet; it will say "died" once it does
                await asyncio.sleep(0.5)
            except RayActorError as error:
                if by_memory_monitor(error):
                    self.short_of_memory.add(rank)
                self.runners[rank] = await self.cluster.call(find_runner, f"{self.name}:{rank}{HELD}")

    async def _wait_for(self, rank: int) -> dict[str, Any] | None:
        """What the Runner answers; None when Ray gives its node up before it does.

        A call to an actor on such a node fails only when its process does not hold the connection any more, and a node
        that was cut off, or whose raylet stands still, may have it hold for long.
        """
        call = asyncio.ensure_future(answer(self.runners[rank].wait.remote()))
        if rank < len(self.facts):
            gone = asyncio.ensure_future(self.cluster.node_gone(self.facts[rank]["node_id"]).wait())
            await asyncio.wait({call, gone}, return_when=asyncio.FIRST_COMPLETED)
            gone.cancel()
            if not call.done():
                call.cancel()
                return None
        found: dict[str, Any] = await call
        return found

    async def _wait_for_trees(self, lost: list[int]) -> None:
        """Where a Runner died but its node lives, the supervisor ends the rank: keep the GPUs until it has."""
        deadline = time.monotonic() + self.request["grace"] + 5
        waiting = set(lost) if self.facts else set()
        while time.monotonic() < deadline:
            # Ray tells of a dead actor before it tells of its dead node.
            waiting = {rank for rank in waiting if self.cluster.node_alive(self.facts[rank]["node_id"])}
            if waiting:
                waiting -= set(await self.cluster.outcome(self.job, self.attempt))
            if not waiting:
                return
            await asyncio.sleep(0.2)

    def _node_of(self, rank: int | None) -> str:
        """Name of a rank's node; empty = it is not known."""
        return "" if rank is None or not self.facts else self.cluster.node_name(self.facts[rank]["node_id"])

    def _lost(self, lost: list[int]) -> dict[str, Any]:
        """Why it vanished: its node, or what held the rank."""
        if self.halted:
            return {"message": "the connection to Ray was lost while its ranks were being started", "cause": "lost"}
        where = {rank: self.facts[rank]["node_id"] for rank in lost if self.facts}
        gone = {self.cluster.node_name(node) for node in where.values() if not self.cluster.node_alive(node)}
        if gone:
            return {"message": f"node {', '.join(sorted(gone))} is gone", "cause": "node_lost", "node": min(gone)}
        numbers = ", ".join(map(str, sorted(lost)))
        found = {"node": self._node_of(lost[0]), "failed_rank": lost[0]} if where else {}
        if self.short_of_memory.intersection(lost):
            words = f"out of memory: Ray's memory monitor killed what held rank {numbers}"
            return {"message": words, "cause": "oom", "cause_detail": words, **found}
        return {"message": f"the Runner of rank {numbers} is gone", "cause": "lost", **found}

    # ---- ending

    def repeat(self) -> None:
        """Report again what was reported last: the control plane asked a second time."""
        if self.last is not None:
            self.cluster.emit(self.last[0], self.job, self.attempt, self.last[1])

    async def stop(self, grace: float) -> None:
        """Begin to end it; a later stop with less grace brings the end forward."""
        self.stop_grace = grace
        if self.facts:
            await self._stop_ranks(grace)

    async def _stop_ranks(self, grace: float) -> None:
        calls = [
            # One that an earlier version started knows no terms.
            runner.stop.remote(grace, self.cluster.term) if hasattr(runner, "obey") else runner.stop.remote(grace)
            for runner in self.runners
            if runner is not None
        ]
        if not calls:
            return
        # A Runner that cannot be told is seen by whoever waits for its result.
        await asyncio.wait([asyncio.ensure_future(quiet(call)) for call in calls], timeout=5)

    @property
    def gpus(self) -> set[tuple[str, int]]:
        """The GPUs that it holds: (Ray's NodeID, index)."""
        return {(facts["node_id"], int(gpu)) for facts in self.facts for gpu in facts["gpus"]}

    async def _release(self, results: dict[int, dict[str, Any]]) -> dict[str, Any]:
        """Give back its resources when nothing of it is left on them. GPUs that are not clean are fenced before.

        Args:
            results: of the ranks that have one.

        Returns:
            What the end of the attempt is to say of it: `dirty`, the GPUs that stay away, as [node, index, why].
        """
        places: dict[str, set[int]] = {}
        stuck: dict[str, set[int]] = {}
        for rank, facts in enumerate(self.facts):
            node_id = facts["node_id"]
            if self.cluster.node_alive(node_id):
                places.setdefault(node_id, set()).update(int(gpu) for gpu in facts["gpus"])
                stuck.setdefault(node_id, set()).update(results.get(rank, {}).get("stuck", ()))
        dirty: Dirty = await self.cluster.keeper.seen_gone((self.job, self.attempt), places, stuck)
        await self._dissolve()
        await self.cluster.keeper.settled(dirty)
        rows = [
            [self.cluster.node_name(node_id), index, why]
            for node_id, soiled in dirty.items()
            for index, why in sorted(soiled.items())
        ]
        return {"dirty": rows} if rows else {}

    async def _dissolve(self) -> None:
        """Remove the placement group, and with it the Runners; return when its resources are free."""
        if self.group is not None:
            await self.cluster.call(remove_and_wait, self.group)
        self.group = None

    def _end(self, kind: str, data: dict[str, Any]) -> None:
        self.over = True
        self._emit(kind, data)

    def _emit(self, kind: str, data: dict[str, Any]) -> None:
        self.last = (kind, data)
        self.cluster.emit(kind, self.job, self.attempt, data)

    def _started_data(self) -> dict[str, Any]:
        return {
            "ranks": [
                {
                    "rank": rank,
                    "node": self.cluster.node_name(facts["node_id"]),
                    "address": facts["address"],
                    "gpus": [int(gpu) for gpu in facts["gpus"]],
                    "pid": facts["started"]["main"],
                    "log": facts["log"],
                    "actor": facts["actor"],
                    "group": self.name,
                    "supervisor": facts["started"]["pid"],
                }
                for rank, facts in enumerate(self.facts)
            ],
            "started": max(facts["started"]["time"] for facts in self.facts),
        }

    # ---- taking up what an earlier gateway started

    async def attach(self, group: PlacementGroup | None, runners: list[Any], *, began: bool) -> None:
        """Find out how it stands and go on from there; never starts anything.

        Args:
            group: its placement group; None when there is none.
            runners: its Runners by rank, None where one is missing.
            began: the control plane has seen it run (else it may never have been started).
        """
        self.group = group
        self.runners = runners
        if group is None:
            await self._bury(began=began)
            return
        described = await asyncio.gather(*(self._describe(rank) for rank in range(len(runners))))
        if not all(facts and (facts["started"] or facts["result"]) for facts in described):
            described = await self._halt(described)
        seen = [facts for facts in described if facts is not None]
        if not any(facts["started"] or facts["result"] for facts in seen):
            await self._dissolve()
            if began:
                self._end("vanished", {"message": "its Runners are gone"})
            else:
                self._end("refused", {"message": "the connection to Ray was lost while it was being placed"})
            return
        if len(seen) == len(runners):
            self.facts = seen
        if self.facts and not self.halted and all(facts["started"] for facts in seen):
            self._emit("started", self._started_data())
            if self.stop_grace is not None:
                await self._stop_ranks(self.stop_grace)
        else:  # in part: what was not started never will be
            for rank, facts in enumerate(described):
                if facts is None or not (facts["started"] or facts["result"]):
                    self.runners[rank] = None
        await self._watch()

    async def _halt(self, described: list[dict[str, Any] | None]) -> list[dict[str, Any] | None]:
        """It was being started, and perhaps still is, by an older gateway: once told, Runners start nothing."""
        self.halted = True
        await self._stop_ranks(self.request["grace"])
        again = await asyncio.gather(*(self._describe(rank) for rank in range(len(described))))
        for before, now in zip(described, again, strict=True):
            if now is not None and not now["started"] and not (before and before["result"]):
                now["result"] = None  # it is only that it was told
        return again

    async def _describe(self, rank: int) -> dict[str, Any] | None:
        while self.runners[rank] is not None:
            try:
                if hasattr(self.runners[rank], "obey"):
                    await self.runners[rank].obey.remote(self.cluster.term)
                facts: dict[str, Any] = await self.runners[rank].describe.remote()
            except ActorUnavailableError:
                await asyncio.sleep(0.5)
            except RayActorError:
                self.runners[rank] = await self.cluster.call(find_runner, f"{self.name}:{rank}{HELD}")
            else:
                return facts if facts["owner"] == self.cluster.owner else None
        return None

    async def clear(self, group: PlacementGroup, runners: list[Any]) -> None:
        """End what runs for nobody and remove it; nothing is reported."""
        self.group, self.runners = group, runners
        await self._stop_ranks(self.request["grace"])
        await asyncio.gather(*(self._result(rank) for rank in range(len(runners))))
        await self._dissolve()

    async def abandon(self, message: str) -> None:
        """End it whatever state it is in: its ranks get the grace by their supervisors once the Runners are gone."""
        await self._stop_ranks(self.request["grace"])
        await asyncio.gather(*(self._result(rank) for rank in range(len(self.runners))), return_exceptions=True)
        await self._release({})
        self._end("vanished", {"message": message})

    async def read_log(self, rank: int, offset: int, limit: int) -> tuple[bytes, int]:
        """A part of a rank's output, and its size, from its Runner."""
        part: tuple[bytes, int] = await self.runners[rank].read_log.remote(offset, limit)
        return part

    async def _bury(self, *, began: bool) -> None:
        """Nothing of it is in Ray any more: it ended, or never began. The nodes may have its results on disk."""
        results = await self.cluster.outcome(self.job, self.attempt)
        if results and len(results) == next(iter(results.values())).get("ranks", len(results)):
            failed = first_failed(results, {rank: one.get("died", one["ended"]) for rank, one in results.items()})
            for result in results.values():
                if "checkpoint" in result:
                    self.reports.saved(result["checkpoint"], result["ended"])
            self.reports.close()
            saved = {"checkpoint": self.reports.checkpoint} if self.reports.checkpoint else {}
            self._end("finished", {**finished_data(results, failed), **saved})
        elif began or results:
            self._end("vanished", {"message": "nothing of it was found on the cluster"})
        else:
            self._end("refused", {"message": "it was never placed"})


def group_name(owner: str, attempt: tuple[int, int]) -> str:
    """An attempt's placement group, and how the names of its Runners begin. Other databases' jobs have other owners."""
    return f"gs:{owner}:{attempt[0]}:{attempt[1]}"


def first_line(error: BaseException) -> str:
    """An error in one line for a person."""
    if isinstance(error, TimeoutError | GetTimeoutError):
        return "Ray did not start the Runners in time"
    if isinstance(error, RayTaskError):
        error = error.cause or error  # its own text begins with where, and ends with what
    return str(error).strip().split("\n", 1)[0] or type(error).__name__


async def answer(reference: Any) -> Any:  # noqa: ANN401 - an ObjectRef and what it holds
    """An ObjectRef as a coroutine."""
    return await reference


async def quiet(call: Awaitable[Any]) -> None:
    """Await a call to a Runner that may be gone; who waits for its result finds out."""
    try:
        await call
    except RayActorError:
        return


def find_runner(name: str) -> Any:  # noqa: ANN401 - an ActorHandle, which Ray does not type
    """A Runner by its name; None when there is none. Blocks."""
    try:
        return ray.get_actor(name, namespace=NAMESPACE)
    except ValueError:
        return None


def remove_and_wait(group: PlacementGroup) -> None:
    """Remove a placement group and see it gone. Blocks for milliseconds."""
    remove_placement_group(group)
    deadline = time.monotonic() + READY_WITHIN
    while time.monotonic() < deadline:
        state = placement_group_table(group).get("state", "REMOVED")
        if state == "REMOVED":
            return
        time.sleep(0.002)
