"""A job: what it asks for, where it stands, and the one table of moves that it may make."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from .arrays import Tasks
    from .spec import JobSpec


class State(StrEnum):
    """Where a job stands. The last five are final."""

    HELD = "HELD"
    QUEUED = "QUEUED"
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    PREEMPTING = "PREEMPTING"
    STOPPING = "STOPPING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    TIMEOUT = "TIMEOUT"
    LOST = "LOST"

    # Enum hashes by a Python function; states are keys on the hot path.
    __hash__ = str.__hash__


GRACE = 60.0
"""Seconds between SIGTERM and SIGKILL for a job if neither it nor its queue says."""

WAITING = frozenset({State.HELD, State.QUEUED})
HOLDING = frozenset({State.STARTING, State.RUNNING, State.PREEMPTING, State.STOPPING})
"""States in which a job holds its GPUs."""
FINAL = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED, State.TIMEOUT, State.LOST})


class TopologyWish(NamedTuple):
    """How close to each other the pieces of a gang shall lie, or how far apart.

    Attributes:
        mode: `required`: all below one domain of the level, or the gang waits; `preferred`: below one if that fits now,
            else in the smallest wider subtree; `balanced`: spread evenly over the domains of the level, as evenly as
            the room that is free now allows.
        level: the node label whose values name the domains, such as rack; `node` = each machine is a domain.
    """

    mode: Literal["required", "preferred", "balanced"]
    level: str

    def __str__(self) -> str:
        return f"{self.mode} {self.level}"


@dataclass(frozen=True, slots=True)
class Shape:
    """What a job asks of the cluster, all that placement may know. Jobs of one shape are interchangeable to a placer.

    Attributes:
        num_nodes: pieces of the gang, each whole on one node. 0 = the placer splits `gpus` (then a total): one node
            when it fits there, else whole nodes and one remainder. Traces that give only a total use 0.
        gpus: whole GPUs per piece (or in total when num_nodes is 0).
        gpu_milli: thousandths of one GPU per piece, 1 to 999, for a job that shares a GPU; then gpus is 0.
        gpu_types: types that will do, best first; empty = any.
        cpu_milli: thousandths of a CPU per piece.
        memory: bytes per piece.
        labels: node labels that must hold, as sorted (key, value) pairs.
        distinct: each piece on a node of its own.
        topology: where in the cluster's topology its pieces shall lie; None = anywhere.
        avoid: names of nodes that it shall not be given again, because it failed there, sorted. Given up while the
            others that take work could not hold it (`Pool.allowed`).
        closing: nodes (a bit set of the pool's numbers) that close before it could be gone from there; of the moment,
            set while it waits, and stored nowhere.
        total_gpus: GPUs of the whole gang; a fraction counts as such.
        plain: only whole GPUs matter: no fraction, CPUs, memory, and pieces may share a node.
    """

    num_nodes: int = 1
    gpus: int = 0
    gpu_milli: int = 0
    gpu_types: tuple[str, ...] = ()
    cpu_milli: int = 0
    memory: int = 0
    labels: tuple[tuple[str, str], ...] = ()
    distinct: bool = False
    topology: TopologyWish | None = None
    avoid: tuple[str, ...] = ()
    closing: int = 0
    total_gpus: float = field(init=False, repr=False, compare=False, default=0.0)
    plain: bool = field(init=False, repr=False, compare=False, default=False)
    _hash: int = field(init=False, repr=False, compare=False, default=0)

    def __post_init__(self) -> None:
        fields = (
            self.num_nodes,
            self.gpus,
            self.gpu_milli,
            self.gpu_types,
            self.cpu_milli,
            self.memory,
            self.labels,
            self.distinct,
            self.topology,
            self.avoid,
            self.closing,
        )
        # Derived once: a replay asks for them millions of times.
        object.__setattr__(self, "_hash", hash(fields))
        object.__setattr__(self, "total_gpus", max(self.num_nodes, 1) * (self.gpus + self.gpu_milli / 1000))
        object.__setattr__(self, "plain", not (self.gpu_milli or self.cpu_milli or self.memory or self.distinct))

    def __hash__(self) -> int:
        return self._hash

    def __str__(self) -> str:
        gpus = f"{self.gpu_milli / 1000:g}" if self.gpu_milli else str(self.gpus)
        kind = "|".join(self.gpu_types) or "GPU"
        return f"{gpus} {kind}" if self.num_nodes <= 1 else f"{self.num_nodes}x{gpus} {kind}"


class Piece(NamedTuple):
    """One piece of a gang on one node.

    Attributes:
        node: index of the node in the pool.
        gpus: whole GPUs taken there.
        gpu_milli: thousandths of one shared GPU taken there (then gpus is 0).
        slot: which shared GPU of the node; -1 when none is shared.
    """

    node: int
    gpus: int
    gpu_milli: int = 0
    slot: int = -1


Placement = tuple[Piece, ...]
"""Where a whole gang goes, one Piece for each of its pieces, in rank order."""


class Rule(NamedTuple):
    """What is done about an end by one of these causes.

    Attributes:
        on: tokens of causes, such as `oom` or `exit:3`, see jobs/causes.py.
        do: retry (it counts), retry_elsewhere (it counts, and avoids the nodes that failed), requeue (it does not
            count while the job gets on), fail.
        limit: how often; None = as often as the whole allows. backoff: (first, most) seconds of pause; None = as usual.
        elsewhere: whether a requeue, too, avoids the nodes that failed.
    """

    on: tuple[str, ...]
    do: str
    limit: int | None = None
    backoff: tuple[float, float] | None = None
    elsewhere: bool = False


class RetryRule(NamedTuple):
    """What is tried again of a job. It means what `retry` means in a job file.

    Attributes:
        limit: attempts beyond the first that count. on: causes that are retried where no rule names them: `failure`,
            `exit:N`, `lost` and the others.
        rules: what is done by cause, the first match wins. backoff: (first, most) seconds of pause; None = as usual.
    """

    limit: int
    on: tuple[str, ...]
    rules: tuple[Rule, ...] = ()
    backoff: tuple[float, float] | None = None


class Tried(NamedTuple):
    """What a job's retries have used up.

    Attributes:
        fruitless: requeues in a row after attempts that got nowhere.
        step: the latest step that an attempt had saved when it was over.
        rules: retries granted by each of its rules, by the rule's place; what is missing is 0.
    """

    fruitless: int = 0
    step: float = 0.0
    rules: tuple[int, ...] = ()

    def of_rule(self, number: int) -> int:
        """Retries that a rule has granted."""
        return self.rules[number] if number < len(self.rules) else 0

    def with_rule(self, number: int) -> Tried:
        """One more by this rule."""
        counts = [*self.rules, *[0] * (number + 1 - len(self.rules))]
        counts[number] += 1
        return self._replace(rules=tuple(counts))


UNTRIED = Tried()


class Job:
    """A job as the engine and the policies see it: what it asks for, who asks, and where it stands.

    Mutable, because a replay touches a million of them and a copy a move would cost more than the scheduling; only
    `events.apply` and the engine write to it. Times are seconds on the engine's clock.

    Attributes:
        id: rising number; ties between equal keys are broken by it. uid: the same job's ULID, unique across sites.
        estimate: how long the user or the trace says one attempt runs, in seconds; None = not known.
        limit: max_duration in seconds, after which an attempt is stopped; None = none.
        attempt: number of the current or last attempt; 0 before the first.
        not_before: earliest time of the next start (retry back-off, begin time).
        started: when the current attempt was seen running; first_start: when the first attempt was placed.
        failures: attempts that counted against the retry limit.
        gpu_seconds: GPU time held by attempts that ended.
        executed: seconds of work that earlier attempts did and later ones need not repeat (checkpointed).
        preemptible: whether it may be told to give its GPUs to another job; min_runtime: seconds that an attempt runs
            before that. saves_every: seconds from one checkpoint to the next, as far as is known; infinity = it takes
            none, or nobody knows.
        saved: when it last saved its work, as it said itself; 0 = it never did.
        array_id: the array that it is a task of, or its own id if it is one; 0 = neither. array_index: of a task.
        tasks: how far an array is; None for all that is none.
        spec: what the user wrote, resolved; None for a job from a trace.
        retry: what is tried again of a job without a spec; None = nothing.
        tried: what its retries have used up. cause: token of why its last attempt ended, empty = not by a failure.
    """

    __slots__ = (
        "array_id",
        "array_index",
        "attempt",
        "cause",
        "ended",
        "estimate",
        "executed",
        "exit_code",
        "failures",
        "first_start",
        "gpu_seconds",
        "id",
        "limit",
        "min_runtime",
        "name",
        "not_before",
        "placed",
        "placement",
        "preemptible",
        "priority",
        "queue",
        "queued",
        "reason",
        "retry",
        "saved",
        "saves_every",
        "shape",
        "spec",
        "started",
        "state",
        "stop_cause",
        "submitted",
        "tasks",
        "tried",
        "uid",
        "user",
    )

    def __init__(
        self,
        id: int,  # noqa: A002 - the field's own word
        shape: Shape,
        submitted: float,
        *,
        name: str = "",
        queue: str = "default",
        user: str = "",
        priority: int = 50,
        estimate: float | None = None,
        limit: float | None = None,
        preemptible: bool = False,
        spec: JobSpec | None = None,
        state: State = State.QUEUED,
    ) -> None:
        self.id = id
        self.shape = shape
        self.submitted = submitted
        self.uid = ""
        self.name = name
        self.queue = queue
        self.user = user
        self.priority = priority
        self.estimate = estimate
        self.limit = limit
        self.preemptible = preemptible
        self.spec = spec
        self.retry: RetryRule | None = None
        self.state = state
        self.queued = submitted
        self.attempt = 0
        self.failures = 0
        self.not_before = 0.0
        self.placement: Placement = ()
        self.placed = 0.0
        self.started: float | None = None
        self.first_start: float | None = None
        self.ended: float | None = None
        self.exit_code: int | None = None
        self.stop_cause = ""
        self.reason = ""
        self.gpu_seconds = 0.0
        self.executed = 0.0
        self.min_runtime = 0.0
        self.saved = 0.0
        self.saves_every = math.inf
        self.array_id = 0
        self.array_index: int | None = None
        self.tasks: Tasks | None = None
        self.tried = UNTRIED
        self.cause = ""

    def __repr__(self) -> str:
        return f"<Job {self.id} {self.name or '-'} {self.shape} {self.state}>"
