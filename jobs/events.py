"""What can happen to a job, and what it does to the job's state.

`MOVES` is the one table: for each state, the events that may happen in it, the state they lead to and why that edge
exists. An event that has no row for the job's state is not an error of the engine: late and repeated news
(a `started` that arrives after the cancel, a second `finished`) is recorded nowhere and changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from functools import partial
from typing import Any, NamedTuple

from .job import State


class Kind(StrEnum):
    """What happened. The first block comes from users, the second from the engine, the third from the backend."""

    SUBMITTED = "submitted"
    HELD = "held"
    RELEASED = "released"
    CANCELLED = "cancelled"  # a user asked; what runs is stopped first

    PLACED = "placed"  # the plan starts it: written before the backend is told
    PREEMPTED = "preempted"  # the plan takes its GPUs back: grace, then gone
    EXPIRED = "expired"  # over its max_duration

    STARTED = "started"  # every rank's process runs
    REFUSED = "refused"  # the cluster could not place it as planned; nothing ran, nothing counts
    FINISHED = "finished"  # every process is gone; data: exit_code, signal, failed_rank
    VANISHED = "vanished"  # a Runner, raylet or node went away: the attempt is lost
    CHECKPOINTED = "checkpointed"  # the job says that its work is saved; data: step, time
    PROGRESSED = "progressed"  # the job says how far it is; data: fraction, 0 to 1

    NODE = "node"  # of the cluster, not of a job (job 0): a node came, went, was cordoned...; data: node, what, by

    # What FINISHED and VANISHED mean for the job, resolved by `outcome` from its state and its retry rule.
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    RETRIED = "retried"
    REQUEUED = "requeued"
    STOPPED = "stopped"
    TIMED_OUT = "timed_out"
    LOST = "lost"

    # About the cluster: their job is 0.
    PLANE = "plane"  # of the control plane itself: who took over, a clock that was set, a Ray begun anew; data: what
    AUDIT = "audit"  # somebody asked for a change; data: user, role, token, from, verb, on, outcome

    __hash__ = str.__hash__


NOTES = frozenset({Kind.CHECKPOINTED, Kind.PROGRESSED})
"""What a job says of itself. It moves no state, so `MOVES` has no row for it; taken while the job holds GPUs."""


class Event(NamedTuple):
    """One line of the journal.

    Attributes:
        time: seconds on the engine's clock, when it happened.
        kind: what happened.
        job: the job's id.
        attempt: the attempt that it is about; 0 = the job as a whole.
        data: JSON-able details as a dict (exit code, node names, GPU indices, the words of an error); None = no
            details. Two kinds carry a value instead: SUBMITTED the Job itself, PLACED its Placement.
    """

    time: float
    kind: Kind
    job: int
    attempt: int = 0
    data: Any = None


event_of: Callable[[tuple[float, Kind, int, int, Any]], Event] = partial(tuple.__new__, Event)
"""An Event from its five fields as one tuple: a replay makes four a job, and this takes half the time of Event(...)."""


class Move(NamedTuple):
    """One edge of the table."""

    to: State
    why: str


_ENDS: dict[Kind, Move] = {
    Kind.SUCCEEDED: Move(State.SUCCEEDED, "every rank exited with 0"),
    Kind.FAILED: Move(State.FAILED, "a rank failed and the retry rule is used up or does not cover it"),
    Kind.RETRIED: Move(State.QUEUED, "the attempt failed or was lost, and the retry rule grants another"),
    Kind.REQUEUED: Move(State.QUEUED, "the job asked for it (exit 75); it does not count"),
    Kind.LOST: Move(State.LOST, "the node or Runner went away and the retry rule is used up"),
}

MOVES: dict[State, dict[Kind, Move]] = {
    State.HELD: {
        Kind.RELEASED: Move(State.QUEUED, "the user released it"),
        Kind.CANCELLED: Move(State.CANCELLED, "cancelled before it ever ran"),
    },
    State.QUEUED: {
        Kind.HELD: Move(State.HELD, "the user holds it back"),
        Kind.CANCELLED: Move(State.CANCELLED, "cancelled while it waited"),
        Kind.PLACED: Move(State.STARTING, "the policy gave it nodes"),
    },
    State.STARTING: {
        Kind.STARTED: Move(State.RUNNING, "every rank's process runs"),
        Kind.REFUSED: Move(State.QUEUED, "the cluster could not place it as planned; nothing ran"),
        Kind.CANCELLED: Move(State.STOPPING, "cancelled while it started"),
        Kind.PREEMPTED: Move(State.PREEMPTING, "its GPUs go to another job"),
        **_ENDS,
    },
    State.RUNNING: {
        Kind.CANCELLED: Move(State.STOPPING, "cancelled while it ran"),
        Kind.PREEMPTED: Move(State.PREEMPTING, "its GPUs go to another job"),
        Kind.EXPIRED: Move(State.STOPPING, "over its time limit"),
        **_ENDS,
    },
    State.PREEMPTING: {
        Kind.CANCELLED: Move(State.STOPPING, "cancelled while it was being preempted"),
        Kind.SUCCEEDED: Move(State.SUCCEEDED, "it finished within the grace"),
        Kind.REQUEUED: Move(State.QUEUED, "its processes are gone; it waits for another turn"),
    },
    State.STOPPING: {
        Kind.STOPPED: Move(State.CANCELLED, "its processes are gone, as the user asked"),
        Kind.TIMED_OUT: Move(State.TIMEOUT, "its processes are gone, as its time limit asked"),
    },
    State.SUCCEEDED: {},
    State.FAILED: {},
    State.CANCELLED: {},
    State.TIMEOUT: {},
    State.LOST: {},
}
