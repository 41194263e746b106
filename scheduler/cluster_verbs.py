"""The verbs on the cluster as a whole: nodes, usage, the live picture, the status."""

from __future__ import annotations

import asyncio
from typing import cast, get_args

from ..jobs.errors import GpuschedError
from ..jobs.job import FINAL, State
from ..policies.catalog import load
from .desk import RequestError
from .node_verbs import FRESH, NodeVerbs
from .store import queries
from .store.cluster import latest_gpus, latest_jobs, list_nodes
from .store.queries import JobFilter
from .store.usage import By, total, usage
from .views import JSON, gpu_view, iso


class ClusterVerbs(NodeVerbs):
    """Figures, status; nodes by `NodeVerbs`."""

    async def use_policy(self, name: str) -> JSON:
        """Have another policy decide from the next turn on.

        Args:
            name: as on the command line; files and modules are those of the control plane's machine.

        Raises:
            NotFoundError: there is none of this name, or it cannot be loaded.
            ConflictError: its plan for this moment is at fault; the present one goes on.
        """
        policy = await asyncio.to_thread(load, name)
        await asyncio.wrap_future(self.controller.use_policy(policy, name))
        self._picture = None
        found: JSON = (await self.status())["policy"]
        return found

    async def usage(self, by: str, since: float, until: float | None = None) -> JSON:
        """GPU-hours held and used, by user, queue, job or GPU type."""
        if by not in get_args(By):
            raise RequestError(f"usage by {by!r} is not known", hint=f"one of {', '.join(get_args(By))}")
        end = self.now() if until is None else until
        rows = await self.read_all(
            since, end, lambda found: total(row for one in found for row in usage(one, cast("By", by), since, end))
        )
        return {
            "by": by,
            "since": iso(since),
            "until": iso(end),
            "rows": [
                {
                    "key": row.key,
                    "jobs": row.jobs,
                    "gpu_hours_allocated": row.allocated / 3600,
                    "gpu_hours_used": None if row.used is None else row.used / 3600,
                    "gpu_hours_idle": None if row.idle is None else row.idle / 3600,
                    "gpu_hours_lost": row.lost / 3600,
                    "utilization": 100 * (row.used or 0.0) / row.measured if row.measured else None,
                }
                for row in rows
            ],
        }

    async def top(self) -> JSON:
        """Nodes, GPUs and jobs as they are now."""
        now = self.now()
        gpus, loads, counts = await self.read(
            lambda connection: (
                latest_gpus(connection, now - FRESH),
                latest_jobs(connection, now - FRESH),
                queries.count_by_state(connection, JobFilter(active=True)),
            )
        )
        nodes = await self.nodes()
        rows, _ = await self.jobs(JobFilter(active=True, descending=False))
        for row in rows:
            measured = [gpu.utilization for gpu in gpus if gpu.job == row["id"] and gpu.utilization is not None]
            load = [load for load in loads if (load.job, load.attempt) == (row["id"], row["attempt"])]
            cpus = [one.cpu for one in load if one.cpu is not None]
            memory = [one.memory for one in load if one.memory is not None]
            row["utilization"] = 100 * sum(measured) / len(measured) if measured else None
            row["cpu"] = sum(cpus) if cpus else None
            row["memory"] = sum(memory) if memory else None
        used = [gpu.utilization for gpu in gpus if gpu.utilization is not None]
        return {
            "time": iso(now),
            "gpus": {
                "total": sum(node["gpus"] for node in nodes),
                "allocated": sum(job["gpus"] for node in nodes for job in node["jobs"]),
                "used": sum(used) if used else None,
            },
            "queue": {state.value: number for state, number in counts.items()},
            "nodes": nodes,
            "gpu": [gpu_view(gpu) for gpu in gpus],
            "jobs": rows,
        }

    async def status(self) -> JSON:
        """How the control plane is. It answers whatever else does not."""
        figures, queues = self.controller.figures, self.controller.queues
        policies = self.controller.policies
        counts: dict[State, int] | None = None
        error = figures.store_error
        try:
            counts = await self.read(lambda connection: queries.count_by_state(connection, JobFilter(active=True)))
            nodes = await self.read(list_nodes)
        except GpuschedError as trouble:
            nodes, error = [], error or str(trouble)
        picture = await self.picture()
        return {
            "time": iso(self.now()),
            "database": self.store.database.name,
            "leader": figures.leader,
            "standby": figures.standby,
            "leader_url": figures.leader_url,
            "policy": {
                "name": policies.policy.name,
                "version": policies.policy.version,
                "wanted": policies.wanted.name,
                "error": policies.fault,
            },
            "queues": {
                "version": 0 if queues.version is None else queues.version.number,
                "configured": 0 if queues.tree is None else len(queues.tree),
            },
            "ready": bool(picture.free),
            "cluster": {
                "nodes": len(nodes),
                "gpus": sum(info.node.gpus for info in nodes),
                "free": sum(free[0] for free in picture.free.values()),
            },
            "jobs": None if counts is None else {s.value: counts.get(s, 0) for s in State if s not in FINAL},
            "engine": {
                "ticks": figures.ticks,
                "tick_ms": round(figures.tick_ms, 3),
                "worst_ms": round(figures.worst_ms, 3),
                "rebuilds": figures.rebuilds,
                "store_error": error,
            },
            **self.facts(),
        }
