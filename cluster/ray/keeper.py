"""Gives an attempt's GPUs back only when they are seen clean, and keeps jobs from those that are not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from .vitals import Ward

if TYPE_CHECKING:
    from .fences import Fences

LOOK_EVERY = (0.05, 0.5)
"""Seconds between the first two looks at a node that is not clean yet, and the most they grow to."""
ANSWER_WITHIN = 5.0
SETTLE_WITHIN = 8.0
HEARD_WITHIN = 2.0
RECOVER_EVERY = 60.0
QUIET_WITHIN = 5.0
CLOCK_EVERY = 6
"""Samples from one comparison of the clocks to the next."""

Dirty = dict[str, dict[int, str]]
"""By Ray's NodeID and index: why a GPU is not clean."""


class Asks(Protocol):
    """Asks the agents, as `nodes.Agents.ask` does."""

    async def ask(self, node_id: str | None, method: str, *args: Any, within: float = 10.0) -> list[Any]:  # noqa: ANN401 - whatever the method takes
        """Answers of one node's agent, or of all; those that do not come in time are left out."""
        ...


class Keeper:
    """The gateway's keeper of the GPUs.

    Args:
        owner: the control plane.
        limits: of the health checks, as `cluster.health.HealthLimits.plain` gives them.
        agents: to ask the nodes.
        fences: to hold GPUs.
        holders: what each attempt that is not over holds: its (job, attempt), and (NodeID, index) of each GPU.
        tell: the nodes are not as they were: report them now.
    """

    def __init__(  # noqa: PLR0917 - the parts of one machine
        self,
        owner: str,
        limits: Mapping[str, Any],
        agents: Asks,
        fences: Fences,
        holders: Callable[[], Iterable[tuple[tuple[int, int], set[tuple[str, int]]]]],
        tell: Callable[[], None],
    ) -> None:
        self.ward = Ward(limits)
        self.judging = False  # only once it is known which attempts there are
        self._recovered = time.monotonic()
        self._owner = owner
        self.patience: float = limits["patience"]
        self._agents = agents
        self._fences = fences
        self._holders = holders
        self._tell = tell
        self._real: set[str] = set()  # nodes whose GPUs are seen by NVML
        self._samples: dict[str, int] = {}

    # ---- what the nodes say

    def sampled(self, node_id: str, sample: dict[str, Any]) -> None:
        """An agent's sample; what it says of health is taken out of it."""
        health = sample.pop("health", None)
        if sample["gpus"]:
            self._real.add(node_id)
        before = self.ward.fenced(node_id)
        self.ward.sampled(node_id, health, self._held_or_unknown, time.monotonic())
        if self.ward.fenced(node_id) != before:
            self._tell()

    def _held_or_unknown(self, node_id: str, index: int) -> bool:
        return not self.judging or any((node_id, index) in gpus for _key, gpus in self._holders())

    async def compare_clocks(self, node_id: str) -> None:
        """Now and then: how far the node's clock is from ours, by one round trip."""
        turn = self._samples[node_id] = self._samples.get(node_id, -1) + 1
        if turn % CLOCK_EVERY > 1:  # twice in a row, so that a fault is seen twice soon
            return
        sent = time.time()
        for remote in await self._agents.ask(node_id, "clock", within=ANSWER_WITHIN):
            self.ward.told_time(node_id, remote, sent, time.time())

    # ---- the node as it is reported

    async def recover(self) -> None:
        """Find the fences that are up, whoever put them up."""
        for node_id, gpus in (await self._fences.recover()).items():
            for index, why in gpus.items():
                self.ward.fence(node_id, index, why)
        self._recovered = time.monotonic()

    async def heard(self, node_ids: set[str]) -> None:
        """Wait, not for long, until these nodes have said how they are: an ill one must not look well for a moment."""
        deadline = time.monotonic() + HEARD_WITHIN
        while time.monotonic() < deadline:
            if all(self.ward.nodes[node_id].heard for node_id in node_ids & self.ward.nodes.keys()):
                return
            await asyncio.sleep(0.02)

    async def begin(self) -> None:
        """It is known which attempts there are, and that this control plane leads: judge, and change what is fenced."""
        if not self.judging:
            await self.recover()  # who led before may have put some up since
            self.judging = True
            self._tell()

    def follow(self, node_ids: set[str]) -> None:
        """These nodes are in the cluster."""
        self.ward.follow(node_ids, time.monotonic())
        self._fences.forget(node_ids)
        self._real &= node_ids

    def facts(self, node_id: str, facts: Mapping[str, Any]) -> dict[str, Any]:
        """A node as it is to be reported: without the GPUs that are fenced, and whether it can take work."""
        fenced = self._fenced(node_id)
        found = {**facts, "gpus": max(0, facts["gpus"] - len(fenced)), "fenced": sorted(fenced.items())}
        why = self.ward.why(node_id, time.monotonic())
        return {**found, "schedulable": False, "why": why} if why else found

    def _fenced(self, node_id: str) -> dict[int, str]:
        """Those that should be, and those that still are."""
        still = dict.fromkeys(self._fences.held(node_id), "it is about to be given back")
        return {**still, **self.ward.fenced(node_id)}

    async def settle(self, node_ids: Iterable[str]) -> None:
        """Put up and take down fences where they are not as they should be."""
        if not self.judging:
            return
        if time.monotonic() - self._recovered > RECOVER_EVERY:
            self._recovered = time.monotonic()
            await self._fences.check()
        wrong = [node_id for node_id in node_ids if self.ward.fenced(node_id).keys() != self._fences.held(node_id)]
        if wrong:
            await asyncio.gather(*(self._fences.settle(node_id, self.ward.fenced(node_id)) for node_id in wrong))
            self._tell()

    async def forgive(self, node_id: str) -> None:
        """An administrator trusts the node again."""
        await self._agents.ask(node_id, "forgive")
        self.ward.forgive(node_id)
        await self.settle([node_id])

    # ---- an attempt begins

    async def quiet(self, node_ids: set[str]) -> None:
        """Wait while GPUs of these nodes are being fenced."""
        await self._fences.quiet(node_ids, QUIET_WITHIN)

    def objection(self, node_id: str, gpus: Sequence[int]) -> str:
        """Why an attempt that was given these GPUs by Ray must not run on them; empty = it may."""
        fenced = self._fenced(node_id)
        return next((f"GPU {index} is fenced: {fenced[index]}" for index in gpus if index in fenced), "")

    # ---- an attempt ends

    async def seen_gone(
        self, key: tuple[int, int], places: Mapping[str, set[int]], stuck: Mapping[str, set[int]]
    ) -> Dirty:
        """Wait until nothing of an attempt is left on its nodes, for as long as the patience lasts.

        Args:
            key: job and attempt.
            places: its GPUs by NodeID; nodes that are gone are not among them.
            stuck: by NodeID, processes that its supervisors could not kill.

        Returns:
            The GPUs that are not clean; they are fenced, and the nodes were reported without them.
        """
        found = await asyncio.gather(
            *(self._look(key, node_id, gpus, stuck.get(node_id, set())) for node_id, gpus in places.items())
        )
        dirty = {node_id: soiled for node_id, soiled in zip(places, found, strict=True) if soiled}
        for node_id, soiled in dirty.items():
            for index, why in soiled.items():
                self.ward.fence(node_id, index, why)
        if dirty:
            self._tell()
        return dirty

    async def _look(self, key: tuple[int, int], node_id: str, gpus: set[int], stuck: set[int]) -> dict[int, str]:
        others = {gpu for other, held in self._holders() if other != key for gpu in held}
        shared = sorted(index for index in gpus if (node_id, index) in others)
        mine = sorted(gpus - set(shared))
        deadline = time.monotonic() + self.patience
        pause = LOOK_EVERY[0]
        while True:
            answers = await self._agents.ask(
                node_id, "look", self._owner, key, sorted(gpus), shared, within=ANSWER_WITHIN
            )
            late = time.monotonic() >= deadline
            if answers:
                seen = {name: answers[0][name] for name in ("alive", "dirt", "broken", "told")}
                waiting = seen["alive"] or seen["dirt"].keys() - seen["broken"].keys()
                if late or not waiting:
                    return await self._verdict(node_id, mine, {*seen["alive"], *stuck}, seen)
            elif late:
                # A GPU of which nothing was ever seen is a number only; there is nothing on it to look for.
                why = "its node's agent did not say whether it is clean"
                return dict.fromkeys(mine, why) if node_id in self._real else {}
            await asyncio.sleep(pause)
            pause = min(LOOK_EVERY[1], 2 * pause)

    async def _verdict(self, node_id: str, mine: list[int], stuck: set[int], seen: dict[str, Any]) -> dict[int, str]:
        """What of an attempt's own GPUs is to be fenced. One that others have a part of is judged when they go."""
        found = {index: why for index, why in {**seen["dirt"], **seen["broken"]}.items() if index in mine}
        blind = [index for index in mine if index not in seen["told"]]
        if stuck and blind:
            await self._agents.ask(node_id, "hold", blind, sorted(stuck))
            pids = ", ".join(map(str, sorted(stuck)))
            found.update(dict.fromkeys(blind, f"process {pids} of an ended attempt cannot be killed"))
        return found

    async def settled(self, node_ids: Iterable[str]) -> None:
        """Have the fences of these nodes up, if that can be soon; until they are, `objection` keeps attempts away."""
        deadline = time.monotonic() + SETTLE_WITHIN
        for node_id in node_ids:
            while self.ward.fenced(node_id).keys() - self._fences.held(node_id) and time.monotonic() < deadline:
                await self.settle([node_id])
                await asyncio.sleep(LOOK_EVERY[0])
