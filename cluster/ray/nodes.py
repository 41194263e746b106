"""The nodes as Ray sees them, under names that last, and an agent on each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, RayActorError, RayError

from .node_agent import NodeAgent
from .runner import NAMESPACE

NAME_LABEL = "gpusched.io/name"
TYPE_LABEL = "ray.io/accelerator-type"
AGENT = "gs:agent:"
MET_WITHIN = 5.0
"""Seconds for an agent to be found, or started."""
OWN_LABELS = "ray.io/"
"""Ray's own labels; policies see them, but not the NodeID, which is new after every restart."""


@dataclass(frozen=True, slots=True)
class RayNode:
    """A node that is alive: Ray's id and what the control plane is told of it."""

    node_id: str
    name: str
    facts: dict[str, Any]


def lasting_name(entry: dict[str, Any]) -> str:
    """A name that a restart of the node does not change.

    The label `gpusched.io/name` if the site sets it; else the host's name, or for a loopback address (several nodes on
    one machine) that address.
    """
    address: str = entry["NodeManagerAddress"]
    host = address if address.startswith("127.") else entry["NodeManagerHostname"] or address
    name: str = entry.get("Labels", {}).get(NAME_LABEL) or host
    return name


def read_nodes(entries: list[dict[str, Any]]) -> dict[str, RayNode]:
    """The nodes that are alive, by name, from `ray.nodes()`. A name that is taken gets the raylet's port behind it."""
    found: dict[str, RayNode] = {}
    for entry in sorted(entries, key=lambda entry: (entry["NodeManagerPort"], entry["NodeID"])):
        if not entry["Alive"]:
            continue
        name = lasting_name(entry)
        if name in found:
            name = f"{name}:{entry['NodeManagerPort']}"
        resources, labels = entry["Resources"], entry.get("Labels", {})
        facts = {
            "name": name,
            "gpus": int(resources.get("GPU", 0)),
            "gpu_type": labels.get(TYPE_LABEL, ""),
            "cpu_milli": int(resources.get("CPU", 0) * 1000),
            "memory": int(resources.get("memory", 0)),
            "labels": {key: value for key, value in labels.items() if key != "ray.io/node-id"},
            "address": entry["NodeManagerAddress"],
        }
        found[name] = RayNode(entry["NodeID"], name, facts)
    return found


class Agents:
    """The node agents: one is kept on each node, and asked for a sample each period.

    Args:
        call: runs a blocking function in a thread.
        send: takes each sample, after the NodeID that it is of.
        period: seconds between samples.
        scratch: the scratch directory, as `runner.rank_folder` takes it.
        limits: of the health checks, as `cluster.health.HealthLimits.plain` gives them.
        after: awaited after each sample, with the NodeID.
    """

    def __init__(  # noqa: PLR0917 - once made, by the gateway
        self,
        call: Callable[..., Awaitable[Any]],
        send: Callable[[str, dict[str, Any]], None],
        period: float,
        scratch: str,
        limits: dict[str, Any],
        after: Callable[[str], Awaitable[None]],
    ) -> None:
        self._call = call
        self._send = send
        self._period = period
        self._scratch = scratch
        self._limits = limits
        self._after = after
        self._agents: dict[str, Any] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def follow(self, nodes: dict[str, RayNode]) -> None:
        """Have an agent on each of these nodes and on no other."""
        ids = {node.node_id: node.name for node in nodes.values()}
        for node_id in self._tasks.keys() - ids.keys():
            self._tasks.pop(node_id).cancel()
            self._agents.pop(node_id, None)
        for node_id in ids.keys() - self._tasks.keys():
            self._tasks[node_id] = asyncio.create_task(self._sample(node_id, ids[node_id]))

    async def _sample(self, node_id: str, name: str) -> None:
        """Keep the agent of one node alive and pass its samples on."""
        while True:
            try:
                agent = self._agents.get(node_id)
                if agent is None:
                    agent = self._agents[node_id] = await self._call(self._ensure, node_id, name)
                call = as_awaitable(agent.sample.remote())
                self._send(node_id, await asyncio.wait_for(asyncio.ensure_future(call), 60))
                await self._after(node_id)
            except (ActorUnavailableError, TimeoutError):
                pass  # Ray does not know yet, or the node is busy: asked again after the period
            except RayActorError:
                self._agents.pop(node_id, None)
            await asyncio.sleep(self._period)

    def _ensure(self, node_id: str, name: str) -> Any:  # noqa: ANN401 - an ActorHandle, which Ray does not type
        agent = self._get(node_id, name)
        if not hasattr(agent, "look"):  # one that an earlier version started
            ray.kill(agent, no_restart=True)
            agent = self._get(node_id, name)
        agent.configure.remote(self._limits)
        return agent

    def _get(self, node_id: str, name: str) -> Any:  # noqa: ANN401 - as above
        return (
            ray.remote(NodeAgent)
            .options(
                name=f"{AGENT}{node_id}",
                namespace=NAMESPACE,
                lifetime="detached",
                get_if_exists=True,
                num_cpus=0,
                max_restarts=-1,
                max_concurrency=4,
                label_selector={"ray.io/node-id": node_id},
            )
            .remote(name, self._scratch, self._limits)
        )

    async def ask(self, node_id: str | None, method: str, *args: Any, within: float = 10.0) -> list[Any]:  # noqa: ANN401 - whatever the method takes
        """Answers of one node's agent, or of all; agents that do not answer in time are left out.

        Those that are only being looked for are waited for: a gateway that has just begun must not take an agent that
        it has not met for one with nothing to say.
        """
        deadline = time.monotonic() + min(within, MET_WITHIN)
        meant = {node_id} if node_id else set(self._tasks)
        while (meant & self._tasks.keys()) - self._agents.keys() and time.monotonic() < deadline:  # noqa: ASYNC110 - no event tells when Ray has found one
            await asyncio.sleep(0.02)
        agents = [self._agents.get(node_id)] if node_id else list(self._agents.values())
        calls = [as_awaitable(getattr(agent, method).remote(*args)) for agent in agents if agent is not None]
        answers = await asyncio.gather(*(asyncio.wait_for(call, within) for call in calls), return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException) and not isinstance(answer, RayError | TimeoutError):
                raise answer
        return [answer for answer in answers if not isinstance(answer, BaseException)]


async def as_awaitable(reference: Any) -> Any:  # noqa: ANN401 - an ObjectRef and what it holds
    """An ObjectRef as a coroutine, which `wait_for` can time."""
    return await reference
