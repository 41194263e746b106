"""What a policy answers: what starts where, what gives way, why the rest waits, and when to ask again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import NamedTuple

from ..jobs.job import Job, Placement, Shape


class Token(StrEnum):
    """Why a job waits, as stable tokens in the order in which they are told: the most fundamental first."""

    INFEASIBLE = "Infeasible"
    QUEUE_NOT_FOUND = "QueueNotFound"
    HELD = "Held"
    QUEUE_PAUSED = "QueuePaused"
    BEGIN_TIME = "BeginTime"
    DEPENDENCY = "Dependency"
    DEPENDENCY_NEVER_SATISFIED = "DependencyNeverSatisfied"
    USER_LIMIT = "UserLimit"
    QUOTA_EXCEEDED = "QuotaExceeded"
    PRIORITY = "Priority"
    INSUFFICIENT_GPUS = "InsufficientGPUs"
    INSUFFICIENT_CPUS = "InsufficientCPUs"
    INSUFFICIENT_MEMORY = "InsufficientMemory"
    FRAGMENTED = "Fragmented"
    TOPOLOGY_UNSATISFIED = "TopologyUnsatisfied"
    GPU_TYPE_BUSY = "GpuTypeBusy"
    RESERVED_FOR_OTHER = "ReservedForOther"
    AVOIDS_NODES = "AvoidsNodes"
    NODES_DRAINING = "NodesDraining"
    NODES_UNHEALTHY = "NodesUnhealthy"
    WAITING_FOR_VICTIMS = "WaitingForVictims"
    SCALING_UP = "ScalingUp"

    __hash__ = str.__hash__


class Why(NamedTuple):
    """Why the jobs of one shape wait, with the numbers at the time of the decision.

    Attributes:
        token: the reason.
        needs: GPUs of the whole gang.
        free: GPUs free on nodes that its constraints allow.
        largest: the most whole GPUs free on one such node.
        behind: id of the job that goes first; 0 = none does.
    """

    token: Token
    needs: float = 0.0
    free: float = 0.0
    largest: int = 0
    behind: int = 0


Lane = tuple[str, ...]
"""Whose turn it is, as far as the policy tells jobs apart: () = nobody's in particular, (queue,) or (queue, user)."""


class Line(NamedTuple):
    """Waiting jobs that wait for one reason: those of one lane that ask for the same."""

    lane: Lane
    shape: Shape


class Start(NamedTuple):
    """One gang to start, whole."""

    job: Job
    placement: Placement


class Reservation(NamedTuple):
    """The room that is kept for a job which waits, from its promised start on.

    Attributes:
        shape: what the job asks for.
        start: when it starts at the latest, in seconds. end: when it is said to have ended.
        placement: where; empty where only counts matter.
        first: the first start that it was promised, before others ran longer than they were said to.
    """

    shape: Shape
    start: float
    end: float
    placement: Placement
    first: float


class Preemption(NamedTuple):
    """A running job that is told to give its GPUs back.

    Attributes:
        job: the victim.
        claimant: id of the job that gets them; 0 = nobody in particular.
    """

    job: Job
    claimant: int = 0


@dataclass(slots=True)
class Plan:
    """A policy's answer for one moment. The engine checks it and does all of it or refuses it.

    Attributes:
        starts: gangs to start, in this order.
        preemptions: running jobs whose GPUs are taken back (grace first).
        waiting: for each line (lane and shape) that was looked at and could not start, why. Lines not named keep
            their last reason.
        promises: for each job that is promised a start, when at the latest, in seconds; only new and changed ones.
        reserved: the room behind the promises, new or changed; None = it is given up. The queue keeps it.
        kept: places that are kept for jobs that were moved, and for those that they were moved for, by job: on the way
            back to the queue or in it, such a job goes there before anybody else does; None = it is given up.
        wake_at: ask again then even if nothing happens; None = no need.
    """

    starts: list[Start] = field(default_factory=list)
    waiting: dict[Line, Why] = field(default_factory=dict)
    preemptions: Sequence[Preemption] = ()
    promises: dict[int, float] = field(default_factory=dict)
    reserved: dict[int, Reservation | None] = field(default_factory=dict)
    kept: dict[int, Start | None] = field(default_factory=dict)
    wake_at: float | None = None


start_of: Callable[[tuple[Job, Placement]], Start] = partial(tuple.__new__, Start)
"""A Start from its fields as one tuple, for the hot path."""


class Decision(NamedTuple):
    """One line of the journal's other half: what was decided at one moment, by whom, on what, and why not the others.

    Attributes:
        time: seconds on the engine's clock.
        policy: name and version, such as "binpack/1".
        waiting_jobs: jobs in the queue when it was asked.
        free_gpus: whole GPUs free when it was asked.
        starts: ids of the jobs started.
        preemptions: ids of the jobs told to give way.
        waiting: (line, why) for each line whose reason is new or changed.
        promises: (job id, latest start in seconds) for each promise that is new or changed.
    """

    time: float
    policy: str
    waiting_jobs: int
    free_gpus: int
    starts: tuple[int, ...]
    preemptions: tuple[int, ...]
    waiting: tuple[tuple[Line, Why], ...]
    promises: tuple[tuple[int, float], ...] = ()


decision_of: Callable[
    [
        tuple[
            float,
            str,
            int,
            int,
            tuple[int, ...],
            tuple[int, ...],
            tuple[tuple[Line, Why], ...],
            tuple[tuple[int, float], ...],
        ]
    ],
    Decision,
] = partial(tuple.__new__, Decision)
"""A Decision from its fields as one tuple, for the hot path."""
