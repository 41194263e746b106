"""How the house's values lie in the tables: compact JSON one way, the same values again the other way."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ...cluster.backend import Node
from ...jobs.arrays import Tasks
from ...jobs.events import Event, Kind
from ...jobs.job import FINAL, UNTRIED, Job, Piece, Placement, Shape, State, TopologyWish, Tried
from ...policies.plan import Decision, Line, Token, Why

if TYPE_CHECKING:
    from ...jobs.spec import JobSpec

encode = json.JSONEncoder(separators=(",", ":")).encode
"""Compact JSON of any plain value; ASCII only, so that no database minds what is in it."""

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = [high + low for high in _CROCKFORD for low in _CROCKFORD]


def ulid(time: float) -> str:
    """A ULID (github.com/ulid/spec): 48 bits of milliseconds, 80 random bits, 26 letters that sort by time."""
    value = (max(0, int(time * 1000)) & (1 << 48) - 1) << 80 | int.from_bytes(os.urandom(10), "big")
    return "".join([_PAIRS[value >> shift & 1023] for shift in range(120, -1, -10)])


def text(words: object) -> str:
    """Words from outside as text that every database takes: no NUL, nothing that is not Unicode."""
    return str(words).replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()


# Shapes ---------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def encode_shape(shape: Shape) -> str:
    """A shape as JSON, what is default left out; equal shapes give equal text."""
    full: dict[str, Any] = {
        "num_nodes": shape.num_nodes,
        "gpus": shape.gpus,
        "gpu_milli": shape.gpu_milli,
        "gpu_types": shape.gpu_types,
        "cpu_milli": shape.cpu_milli,
        "memory": shape.memory,
        "labels": shape.labels,
        "distinct": shape.distinct,
        "topology": shape.topology,
        "avoid": shape.avoid,
    }
    return encode({key: value for key, value in full.items() if value or key in {"num_nodes", "gpus"}})


@lru_cache(maxsize=4096)
def decode_shape(words: str) -> Shape:
    """The shape that `encode_shape` wrote."""
    return shape_of(json.loads(words))


@lru_cache(maxsize=4096)
def encode_line(line: Line) -> str:
    """A line as JSON: its shape alone when it is nobody's lane, else [lane, shape]. Equal lines give equal text."""
    shape = encode_shape(line.shape)
    return f"[{encode(line.lane)},{shape}]" if line.lane else shape


def line_of(found: Any) -> Line:  # noqa: ANN401 - parsed JSON
    """A line from its parsed JSON."""
    return Line(tuple(found[0]), shape_of(found[1])) if isinstance(found, list) else Line((), shape_of(found))


def shape_of(found: Mapping[str, Any]) -> Shape:
    """A shape from its parsed JSON."""
    return Shape(
        **{
            **found,
            "gpu_types": tuple(found.get("gpu_types", ())),
            "labels": tuple((key, value) for key, value in found.get("labels", ())),
            "topology": TopologyWish(*found["topology"]) if found.get("topology") else None,
            "avoid": tuple(found.get("avoid", ())),
        },
    )


# Placements -----------------------------------------------------------------------------------------------------


def pieces(placement: Placement, nodes: Mapping[int, Node]) -> list[list[Any]]:
    """A placement as plain lists: [node's name, node, gpus, gpu_milli, slot] for each piece."""
    return [[nodes[piece.node].name if piece.node in nodes else "", *piece] for piece in placement]


def placement_of(found: Iterable[Sequence[Any]] | None) -> Placement:
    """The placement that `pieces` wrote."""
    return tuple(Piece(*piece[1:]) for piece in found or ())


def gpus_of(placement: Placement) -> float:
    """GPUs that a placement takes, a shared one in part."""
    return sum(piece.gpus + piece.gpu_milli / 1000 for piece in placement)


# Jobs -----------------------------------------------------------------------------------------------------------

JOB_STATIC = ("uid", "user", "spec", "source", "submitted", "array_id", "array_index")
"""Columns of `jobs` that are written once."""

JOB_MUTABLE = (
    "name",
    "queue",
    "priority",
    "state",
    "active",
    "reason",
    "shape",
    "gpus",
    "queued",
    "not_before",
    "placed",
    "started",
    "first_start",
    "ended",
    "attempt",
    "failures",
    "placement",
    "stop_cause",
    "exit_code",
    "gpu_seconds",
    "estimate",
    "limit",
    "preemptible",
    "min_runtime",
    "executed",
    "cause",
    "tried",
    "array_state",
)
"""Columns of `jobs` that change, in the order of `job_mutable`."""


def job_static(job: Job) -> tuple[Any, ...]:
    """The values of JOB_STATIC."""
    spec = job.spec
    if spec is None:
        return (job.uid, text(job.user), None, None, job.submitted, job.array_id or None, job.array_index)
    stored, source = text(spec.to_store()), text(spec.source) or None
    return (job.uid, text(job.user), stored, source, job.submitted, job.array_id or None, job.array_index)


def job_mutable(job: Job, nodes: Mapping[int, Node]) -> tuple[Any, ...]:
    """The values of JOB_MUTABLE."""
    shape = job.shape
    return (
        text(job.name),
        text(job.queue),
        job.priority,
        job.state.value,
        job.state not in FINAL,
        text(job.reason),
        encode_shape(shape),
        shape.total_gpus,
        job.queued,
        job.not_before,
        job.placed,
        job.started,
        job.first_start,
        job.ended,
        job.attempt,
        job.failures,
        encode(pieces(job.placement, nodes)) if job.placement else None,
        job.stop_cause,
        job.exit_code,
        job.gpu_seconds,
        job.estimate,
        job.limit,
        job.preemptible,
        job.min_runtime,
        job.executed,
        job.cause,
        None if job.tried == UNTRIED else encode(job.tried),
        None if job.tasks is None else encode(job.tasks.to_data()),
    )


def job_of(row: Mapping[Any, Any], secrets: Mapping[str, str] | None = None) -> Job:
    """The job of a row of `jobs` (shape and placement as text), with the values of its secrets if they are given."""
    spec = None
    if row["spec"] is not None:
        spec = spec_of(row["spec"], row["source"] or "", tuple(sorted(secrets.items())) if secrets else ())
    job = Job(
        row["id"],
        decode_shape(row["shape"]),
        row["submitted"],
        name=row["name"],
        queue=row["queue"],
        user=row["user"],
        priority=row["priority"],
        estimate=row["estimate"],
        limit=row["limit"],
        preemptible=bool(row["preemptible"]),
        spec=spec,
        state=State(row["state"]),
    )
    for key in (
        "uid",
        "reason",
        "queued",
        "not_before",
        "placed",
        "started",
        "first_start",
        "ended",
        "attempt",
        "failures",
        "stop_cause",
        "exit_code",
        "gpu_seconds",
        "min_runtime",
        "executed",
        "cause",
    ):
        setattr(job, key, row[key])
    if row["tried"] is not None:
        fruitless, step, rules = json.loads(row["tried"])
        job.tried = Tried(fruitless, step, tuple(rules))
    job.array_id, job.array_index = row["array_id"] or 0, row["array_index"]
    if row["array_state"] is not None:
        job.tasks = Tasks.of(json.loads(row["array_state"]))
    if row["placement"] is not None:
        job.placement = placement_of(json.loads(row["placement"]))
    return job


@lru_cache(maxsize=1024)
def spec_of(words: str, source: str, secrets: tuple[tuple[str, str], ...]) -> JobSpec:
    """The spec that `to_store` wrote, with its source and secrets. It never changes: jobs submitted alike share it."""
    from ...jobs.spec import JobSpec  # noqa: PLC0415 - it loads pydantic, which a trace does not need

    return JobSpec.from_store(words, dict(secrets), source=source)


# Events ---------------------------------------------------------------------------------------------------------


def encode_data(event: Event, nodes: Mapping[int, Node]) -> str | None:
    """An event's details as JSON: of SUBMITTED the job as it was then, of PLACED its pieces with names of nodes."""
    data: Any = event.data
    if data is None:
        return None
    if isinstance(data, Job):
        # The spec is not repeated here: it never changes, and lies with the job.
        submitted = {
            "uid": data.uid,
            "name": data.name,
            "queue": data.queue,
            "user": data.user,
            "priority": data.priority,
            "state": data.state.value,
            "submitted": data.submitted,
            "estimate": data.estimate,
            "limit": data.limit,
            "preemptible": data.preemptible,
            "min_runtime": data.min_runtime,
        }
        if data.array_id:
            submitted["array"] = [data.array_id, data.array_index, data.tasks and data.tasks.text]
        return f'{encode(submitted)[:-1]},"shape":{encode_shape(data.shape)}}}'
    if event.kind is Kind.PLACED:
        return encode({"pieces": pieces(data, nodes)})
    return encode(data)


def event_of(time: float, kind: str, job: int, attempt: int, data: str | None) -> Event:
    """The event of a row of `events` (data as text). A submitted job comes back as it was then, without its spec."""
    found: Any = None if data is None else json.loads(data)
    what = Kind(kind)
    if found is not None and what is Kind.SUBMITTED and "shape" in found:
        found = _submitted(job, found)
    elif found is not None and what is Kind.PLACED:
        found = placement_of(found["pieces"])
    return Event(time, what, job, attempt, found)


def _submitted(number: int, found: dict[str, Any]) -> Job:
    uid, min_runtime = found.pop("uid"), found.pop("min_runtime", 0.0)
    array, index, words = found.pop("array", (0, None, None))
    job = Job(
        number,
        shape_of(found.pop("shape")),
        found.pop("submitted"),
        state=State(found.pop("state")),
        **found,
    )
    job.uid, job.min_runtime = uid, min_runtime
    job.array_id, job.array_index, job.tasks = array, index, Tasks(words) if words else None
    return job


# Decisions and nodes --------------------------------------------------------------------------------------------


def decision_row(number: int, decision: Decision) -> tuple[Any, ...]:
    """The values of a row of `decisions`, in the order of its columns."""
    waiting = ",".join([f"[{encode_line(line)},{encode(why)}]" for line, why in decision.waiting])
    return (
        number,
        decision.time,
        decision.policy,
        decision.waiting_jobs,
        decision.free_gpus,
        encode(decision.starts),
        encode(decision.preemptions),
        f"[{waiting}]",
        encode(decision.promises) if decision.promises else None,
    )


def decision_of(row: Sequence[Any]) -> Decision:
    """The decision of a row of `decisions` without its number (JSON parsed)."""
    time, policy, waiting_jobs, free_gpus, starts, preemptions, waiting, promises = row
    return Decision(
        time,
        policy,
        waiting_jobs,
        free_gpus,
        tuple(starts),
        tuple(preemptions),
        tuple((line_of(line), Why(Token(why[0]), *why[1:])) for line, why in waiting),
        tuple((job, start) for job, start in promises or ()),
    )


def encode_node(node: Node) -> str:
    """A node as JSON."""
    return encode({key: getattr(node, key) for key in Node.__slots__})


def node_of(found: Mapping[str, Any]) -> Node:
    """The node of its parsed JSON; keys that a newer version wrote are left alone."""
    known = {key: value for key, value in found.items() if key in Node.__slots__}
    return Node(**{**known, "fenced": tuple((index, why) for index, why in known.get("fenced", ()))})
