"""Keeps single GPUs out of Ray's hands: a small detached actor holds each that is fenced, and Ray gives it to nobody.

Ray chooses the index that an actor gets, so actors are started on the node until one of them has the one that is
meant; those with others are ended at once. Named `gs:fence:<node-id>:<letters>`, they are found again by a later
gateway and counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import ray
from ray.exceptions import RayError

from .runner import NAMESPACE

PREFIX = "gs:fence:"
HELD_WITHIN = 10.0
"""Seconds for the actors of one try to start: a worker process each."""
ROOM_EVERY = 1.0


class Fence:
    """Holds one GPU and does nothing."""

    def __init__(self, why: str) -> None:
        self.why = why

    def describe(self) -> dict[str, Any]:
        """Which GPU it holds, where, and why."""
        context = ray.get_runtime_context()
        gpus = [int(gpu) for gpu in context.get_accelerator_ids().get("GPU", [])]
        return {"node_id": context.get_node_id(), "gpus": gpus, "why": self.why}


class Fences:
    """The fence actors of the cluster.

    Args:
        call: runs a blocking function in a thread.
    """

    def __init__(self, call: Callable[..., Awaitable[Any]]) -> None:
        self._call = call
        self._held: dict[str, dict[int, Any]] = {}  # by node, by index: the actor
        self._busy: dict[str, asyncio.Event] = {}  # nodes on which actors are being tried; set when it is over

    def held(self, node_id: str) -> set[int]:
        """Indices that are held on a node."""
        return set(self._held.get(node_id, ()))

    def forget(self, node_ids: set[str]) -> None:
        """Only these nodes are left: an actor dies with its node."""
        for gone in self._held.keys() - node_ids:
            del self._held[gone]

    async def quiet(self, node_ids: set[str], within: float) -> None:
        """Wait until no actors are being tried on these nodes: meanwhile Ray may have no room there for a moment."""
        waits = [self._busy[node_id].wait() for node_id in node_ids if node_id in self._busy]
        if waits:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.gather(*waits), within)

    async def recover(self) -> dict[str, dict[int, str]]:
        """Find the fences that are up, also those of an earlier gateway. By node and index, with why."""
        found: dict[str, dict[int, str]] = {}
        for actor, facts in await self._find(PREFIX):
            for index in facts["gpus"]:
                found.setdefault(facts["node_id"], {})[index] = facts["why"]
                self._held.setdefault(facts["node_id"], {})[index] = actor
        return found

    async def check(self) -> None:
        """An actor that died, of whatever, holds nothing any more."""
        known = {node_id: dict(gpus) for node_id, gpus in self._held.items() if gpus}
        if not known:
            return
        up = {(facts["node_id"], index) for _, facts in await self._find(PREFIX) for index in facts["gpus"]}
        for node_id, gpus in known.items():
            for index, actor in gpus.items():
                now = self._held.get(node_id, {})
                if (node_id, index) not in up and now.get(index) is actor:
                    del now[index]

    async def settle(self, node_id: str, wanted: Mapping[int, str]) -> None:
        """Bring what is held on one node closer to what should be. Called again and again until it is the same."""
        held = self._held.setdefault(node_id, {})
        if node_id in self._busy or held.keys() == wanted.keys():
            return
        over = self._busy[node_id] = asyncio.Event()
        try:
            for index in held.keys() - wanted.keys():
                await self._call(end, held[index])
                del held[index]
            missing = {index: why for index, why in wanted.items() if index not in held}
            if missing:
                await self._seize(node_id, missing, held)
        finally:
            del self._busy[node_id]
            over.set()

    async def _seize(self, node_id: str, missing: dict[int, str], held: dict[int, Any]) -> None:
        """Take all that is free there, keep what is meant, give the rest back."""
        for actor, facts in await self._find(f"{PREFIX}{node_id}:"):
            self._keep(actor, facts, missing, held)
        room = int(await self._call(free_gpus, node_id)) if missing else 0
        if not room:
            return  # somebody has them: the attempt that is ending, or another user of Ray
        why = "; ".join(dict.fromkeys(missing.values()))
        actors = [await self._call(create, node_id, why) for _ in range(room)]
        described = [asyncio.ensure_future(described_by(actor)) for actor in actors]
        await asyncio.wait(described, timeout=HELD_WITHIN)
        spare = []
        for actor, answer in zip(actors, described, strict=True):
            fact = answer.result() if answer.done() else None
            if fact is None or not self._keep(actor, fact, missing, held):
                answer.cancel()
                spare.append(actor)
        for actor in spare:
            await self._call(end, actor)

    @staticmethod
    def _keep(actor: Any, facts: dict[str, Any], missing: dict[int, str], held: dict[int, Any]) -> bool:  # noqa: ANN401 - an ActorHandle, which Ray does not type
        meant = [index for index in facts["gpus"] if index in missing]
        for index in meant:
            held[index] = actor
            del missing[index]
        return bool(meant)

    async def _find(self, prefix: str) -> list[tuple[Any, dict[str, Any]]]:
        actors = await self._call(named, prefix)
        facts = await asyncio.gather(*(described_by(actor) for actor in actors))
        return [(actor, fact) for actor, fact in zip(actors, facts, strict=True) if fact is not None]


async def described_by(actor: Any) -> dict[str, Any] | None:  # noqa: ANN401 - an ActorHandle, which Ray does not type
    """What a fence says of itself; None = it is gone, or does not start."""
    try:
        facts: dict[str, Any] = await asyncio.wait_for(asyncio.ensure_future(_answer(actor)), HELD_WITHIN)
    except (RayError, TimeoutError):
        return None
    return facts


async def _answer(actor: Any) -> Any:  # noqa: ANN401 - an ActorHandle and what it answers
    return await actor.describe.remote()


def create(node_id: str, why: str) -> Any:  # noqa: ANN401 - an ActorHandle, which Ray does not type
    """Start a fence on a node. Blocks for milliseconds."""
    return (
        ray.remote(Fence)
        .options(
            name=f"{PREFIX}{node_id}:{uuid.uuid4().hex[:8]}",
            namespace=NAMESPACE,
            lifetime="detached",
            num_cpus=0,
            num_gpus=1,
            max_restarts=0,
            label_selector={"ray.io/node-id": node_id},
        )
        .remote(why)
    )


def end(actor: Any) -> None:  # noqa: ANN401 - an ActorHandle, which Ray does not type
    """Give its GPU back to Ray. Blocks."""
    ray.kill(actor, no_restart=True)


def named(prefix: str) -> list[Any]:
    """Actors whose name begins so. Blocks."""
    found = []
    for name in ray.util.list_named_actors():
        if name.startswith(prefix):
            with contextlib.suppress(ValueError):  # it went meanwhile
                found.append(ray.get_actor(name, namespace=NAMESPACE))
    return found


def free_gpus(node_id: str) -> float:
    """GPUs of a node that Ray could give away now; what it says may be a second old. Blocks."""
    from ray._private.state import available_resources_per_node  # noqa: PLC0415 - Ray has no public call for it

    gpus: float = available_resources_per_node().get(node_id, {}).get("GPU", 0.0)
    return gpus
