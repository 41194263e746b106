"""What the faces ask about the cluster: nodes, who holds which GPU, and what the latest samples saw."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select

from ...cluster.backend import Node
from ...jobs.job import Piece
from .bulk import table_of
from .rows import node_of
from .tables import AttemptRow, GpuRow, GpuSampleRow, HostSampleRow, JobRow, JobSampleRow, NodeRow


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """A node ever seen, under its number in the pool.

    Attributes:
        node: as it was last. present: False = it left the cluster.
        first_seen, changed: UTC seconds.
        host: the agent's latest figures of the machine, and host_time when; None = no agent reported.
    """

    number: int
    node: Node
    present: bool
    first_seen: float
    changed: float
    host: dict[str, Any] | None
    host_time: float | None


@dataclass(frozen=True, slots=True)
class Held:
    """GPUs of one node that a running attempt holds. `indices`: which ones, once the cluster has said so."""

    job: int
    attempt: int
    name: str
    user: str
    queue: str
    state: str
    node: str
    piece: Piece
    since: float
    indices: tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class GpuNow:
    """The latest sample of one GPU. Figures are None where nothing could be measured; job 0 = nobody holds it."""

    node: str
    gpu: int
    time: float
    uuid: str
    model: str
    job: int
    attempt: int
    utilization: float | None
    memory_used: int | None
    memory_total: int | None
    power: float | None
    temperature: float | None
    processes: list[dict[str, Any]] | None


@dataclass(frozen=True, slots=True)
class JobNow:
    """The latest sample of one job's processes on one node: CPUs kept busy, bytes, how many."""

    node: str
    job: int
    attempt: int
    time: float
    cpu: float | None
    memory: int | None
    processes: int | None


def list_nodes(connection: Connection, *, gone: bool = False) -> list[NodeInfo]:
    """Nodes by number; those that left too if `gone`."""
    nodes, hosts = table_of(NodeRow), table_of(HostSampleRow)
    query = (
        select(nodes, hosts.c.data, hosts.c.time)
        .select_from(nodes.outerjoin(hosts, hosts.c.node == nodes.c.id))
        .order_by(nodes.c.id)
    )
    if not gone:
        query = query.where(nodes.c.present.is_(True))
    return [
        NodeInfo(row.id, node_of(row.node), row.present, row.first_seen, row.changed, row.data, row.time)
        for row in connection.execute(query)
    ]


def held_gpus(connection: Connection) -> list[Held]:
    """What every running attempt holds, a line for each of its pieces, oldest first."""
    attempts, jobs = table_of(AttemptRow), table_of(JobRow)
    query = (
        select(attempts, jobs.c.name, jobs.c.user, jobs.c.queue, jobs.c.state)
        .select_from(attempts.join(jobs))
        .where(attempts.c.ended.is_(None))
        .order_by(attempts.c.placed, attempts.c.job)
    )
    found = []
    for row in connection.execute(query):
        indices = {rank["rank"]: tuple(rank["gpus"]) for rank in row.ranks or () if rank.get("gpus") is not None}
        for number, (node, *piece) in enumerate(row.pieces):
            found.append(
                Held(
                    row.job,
                    row.attempt,
                    row.name,
                    row.user,
                    row.queue,
                    row.state,
                    node,
                    Piece(*piece),
                    row.placed,
                    indices.get(number),
                )
            )
    return found


def gpu_holders(connection: Connection) -> dict[tuple[str, int], tuple[int, int]]:
    """(node's name, GPU index) to the (job, attempt) that holds it: what `SampleStore.add` attributes by.

    A GPU that several jobs share is left out: its utilization cannot be told apart.
    """
    found: dict[tuple[str, int], tuple[int, int]] = {}
    shared: set[tuple[str, int]] = set()
    for held in held_gpus(connection):
        for index in held.indices or ():
            key = (held.node, index)
            if key in found:
                shared.add(key)
            found[key] = (held.job, held.attempt)
    for key in shared:
        del found[key]
    return found


def latest_gpus(connection: Connection, since: float) -> list[GpuNow]:
    """The latest sample of every GPU that was sampled since then, by node and index."""
    samples, nodes, gpus = table_of(GpuSampleRow), table_of(NodeRow), table_of(GpuRow)
    query = (
        select(samples, nodes.c.name, gpus.c.uuid, gpus.c.name.label("model"), gpus.c.memory_total)
        .select_from(
            samples.join(nodes, nodes.c.id == samples.c.node).outerjoin(
                gpus, (gpus.c.node == samples.c.node) & (gpus.c.gpu == samples.c.gpu)
            )
        )
        .where(samples.c.time >= since)
        .order_by(samples.c.time)
    )
    latest = {(row.node, row.gpu): row for row in connection.execute(query)}
    return [
        GpuNow(
            row.name,
            row.gpu,
            row.time,
            row.uuid or "",
            row.model or "",
            row.job,
            row.attempt,
            row.utilization,
            row.memory_used,
            row.memory_total,
            row.power,
            row.temperature,
            row.processes,
        )
        for _, row in sorted(latest.items(), key=lambda item: item[0])
    ]


def latest_jobs(connection: Connection, since: float) -> list[JobNow]:
    """The latest sample of every job on every node, of those sampled since then."""
    samples, nodes = table_of(JobSampleRow), table_of(NodeRow)
    query = (
        select(samples, nodes.c.name)
        .select_from(samples.join(nodes, nodes.c.id == samples.c.node))
        .where(samples.c.time >= since)
        .order_by(samples.c.time)
    )
    latest = {(row.job, row.node, row.attempt): row for row in connection.execute(query)}
    return [
        JobNow(row.name, row.job, row.attempt, row.time, row.cpu, row.memory, row.processes)
        for _, row in sorted(latest.items(), key=lambda item: item[0])
    ]
