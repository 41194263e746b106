"""The table of attempts, derived from the events in the commit that brings them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, case, func, literal_column
from sqlalchemy.engine import Dialect

from ...cluster.backend import Node
from ...jobs.causes import end_of
from ...jobs.events import Event, Kind
from ...jobs.job import Placement
from .bulk import Bulk, Row, given, insert_bulk, table_of, update_bulk
from .rows import encode, gpus_of, pieces, text
from .tables import AttemptRow

STOPS = frozenset({Kind.CANCELLED, Kind.PREEMPTED, Kind.EXPIRED})
"""Events that tell an attempt to end."""

ENDS = frozenset(
    {
        Kind.REFUSED,
        Kind.FINISHED,
        Kind.VANISHED,
        Kind.SUCCEEDED,
        Kind.FAILED,
        Kind.RETRIED,
        Kind.REQUEUED,
        Kind.STOPPED,
        Kind.TIMED_OUT,
        Kind.LOST,
    }
)
"""Events after which an attempt holds nothing any more."""

_FAILED = frozenset({Kind.FAILED, Kind.RETRIED, Kind.LOST})

_PLACED = ("job", "attempt", "gpus", "gpu_type", "placed", "pieces")
_FRESH = {
    "started": None,
    "stopping": None,
    "stop_cause": "",
    "ended": None,
    "result": "",
    "exit_code": None,
    "message": "",
    "ranks": None,
    "checkpoint": None,
    "lost_work": None,
    "cause": "",
    "cause_detail": "",
    "failed_node": "",
}


class Attempts:
    """Writes what events mean for attempts.

    An attempt is placed, started, told to stop and ended in this order, so the rows of many are written together, kind
    by kind. Only what still comes for an attempt that has ended has to wait until that is written.
    """

    def __init__(self, dialect: Dialect) -> None:
        columns = (*_PLACED, *_FRESH)
        # A refused attempt may be placed again under its number: then all begins anew.
        self._place = insert_bulk(dialect, AttemptRow, columns, change=columns[2:])
        attempts = table_of(AttemptRow).c
        this = (
            attempts.job == given("for_job", AttemptRow, "job"),
            attempts.attempt == given("for_attempt", AttemptRow, "attempt"),
        )
        self._start = update_bulk(
            dialect,
            AttemptRow,
            {"started": given("time", AttemptRow, "started"), "ranks": given("ranks", AttemptRow, "ranks")},
            this,
            ("time", "ranks", "for_job", "for_attempt"),
        )
        self._stop = update_bulk(
            dialect,
            AttemptRow,
            {
                "stopping": given("time", AttemptRow, "stopping"),
                "stop_cause": given("told_by", AttemptRow, "stop_cause"),
            },
            (*this, attempts.ended.is_(None)),
            ("time", "told_by", "for_job", "for_attempt"),
        )
        preempted = attempts.stop_cause == literal_column(f"'{Kind.PREEMPTED.value}'")
        self._end = update_bulk(
            dialect,
            AttemptRow,
            {
                "ended": given("time", AttemptRow, "ended"),
                "result": case(
                    (preempted, given("after_preemption", AttemptRow, "result")),
                    else_=given("result", AttemptRow, "result"),
                ),
                "exit_code": func.coalesce(given("exit_code", AttemptRow, "exit_code"), attempts.exit_code),
                "message": func.coalesce(given("message", AttemptRow, "message"), attempts.message),
                "checkpoint": func.coalesce(given("checkpoint", AttemptRow, "checkpoint"), attempts.checkpoint),
                "lost_work": func.coalesce(
                    given("lost_work", AttemptRow, "lost_work"),
                    given("lost", AttemptRow, "lost_work") * attempts.gpus,
                    attempts.lost_work,
                ),
                "cause": given("failed_by", AttemptRow, "cause"),
                "cause_detail": given("failed_why", AttemptRow, "cause_detail"),
                "failed_node": given("failed_on", AttemptRow, "failed_node"),
            },
            this,
            (
                "time",
                "after_preemption",
                "result",
                "exit_code",
                "message",
                "checkpoint",
                "lost_work",
                "lost",
                "failed_by",
                "failed_why",
                "failed_on",
                "for_job",
                "for_attempt",
            ),
        )
        self._save = update_bulk(
            dialect,
            AttemptRow,
            {"checkpoint": given("checkpoint", AttemptRow, "checkpoint")},
            this,
            ("checkpoint", "for_job", "for_attempt"),
        )

    def write(self, connection: Connection, events: Sequence[Event], nodes: Mapping[int, Node]) -> None:
        """Bring attempts up to date with these events."""
        order = (self._place, self._start, self._save, self._stop, self._end)
        rows: dict[Bulk, list[Row]] = {bulk: [] for bulk in order}
        over: set[tuple[int, int]] = set()
        for event in events:
            time, kind, job, attempt, data = event
            if (job, attempt) in over:
                self._flush(connection, rows)
                over.clear()
            if kind is Kind.PLACED:
                rows[self._place].append(_placed(event, nodes))
            elif kind is Kind.STARTED:
                ranks = (data or {}).get("ranks")
                rows[self._start].append((time, None if ranks is None else encode(ranks), job, attempt))
            elif kind is Kind.CHECKPOINTED:
                rows[self._save].append((_checkpoint(data), job, attempt))
            elif kind in STOPS and attempt:
                rows[self._stop].append((time, kind.value, job, attempt))
            elif kind in ENDS:
                rows[self._end].append(_ended(event))
                over.add((job, attempt))
        self._flush(connection, rows)

    def _flush(self, connection: Connection, rows: dict[Bulk, list[Row]]) -> None:
        for bulk, waiting in rows.items():
            bulk.run(connection, waiting)
            waiting.clear()


def _placed(event: Event, nodes: Mapping[int, Node]) -> Row:
    placement: Placement = event.data or ()
    # A gang keeps to one type of GPU, so the first node's is that of all.
    node = nodes.get(placement[0].node) if placement else None
    kind = "" if node is None else node.gpu_type
    where = encode(pieces(placement, nodes))
    return (event.job, event.attempt, gpus_of(placement), kind, event.time, where, *_FRESH.values())


def _ended(event: Event) -> Row:
    kind, data = event.kind, event.data or {}
    return (
        event.time,
        Kind.PREEMPTED.value if kind is Kind.REQUEUED else kind.value,
        kind.value,
        data.get("exit_code"),
        text(data["message"]) if data.get("message") else None,
        _checkpoint(data.get("checkpoint")),
        data.get("lost_work"),
        data.get("lost"),
        *_cause(kind, data),
        event.job,
        event.attempt,
    )


def _cause(kind: Kind, data: Mapping[str, Any]) -> tuple[str, str, str]:
    """The cause of a failure as a token and in words, and its node; empty for any other end."""
    if kind not in _FAILED and not (kind is Kind.REQUEUED and data.get("cause")):
        return "", "", ""
    end = end_of(Kind.FINISHED if "exit_code" in data else Kind.VANISHED, data)
    return end.cause, text(end.detail), text(data.get("node") or "")


def _checkpoint(told: object) -> str | None:
    """A checkpoint in words: what CHECKPOINTED says of it, or a name that a backend gave it."""
    if told is None:
        return None
    return f"step {told['step']}" if isinstance(told, dict) else text(told)
