"""The table of attempts, derived from the events in the commit that brings them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, case, func, literal_column
from sqlalchemy.engine import Dialect

from ..cluster.backend import Node
from ..jobs.events import Event, Kind
from ..jobs.job import Placement
from .rows import encode, gpus_of, pieces, text
from .sql_bulk import Row, given, insert_bulk, table_of, update_bulk
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
}


class Attempts:
    """Writes what events mean for attempts. An attempt's own events come in order, so one pass a kind will do."""

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
                "stop_cause": given("cause", AttemptRow, "stop_cause"),
            },
            (*this, attempts.ended.is_(None)),
            ("time", "cause", "for_job", "for_attempt"),
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
                "lost_work": func.coalesce(given("lost_work", AttemptRow, "lost_work"), attempts.lost_work),
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
                "for_job",
                "for_attempt",
            ),
        )

    def write(
        self,
        connection: Connection,
        events: Sequence[Event],
        nodes: Mapping[int, Node],
    ) -> None:
        """Bring attempts up to date with these events."""
        placed: list[Row] = []
        started: list[Row] = []
        stopping: list[Row] = []
        ended: list[Row] = []
        for time, kind, job, attempt, given_data in events:
            data: Any = given_data
            if kind is Kind.PLACED:
                placement: Placement = data or ()
                node = nodes.get(placement[0].node) if placement else None
                kind_of_gpu = "" if node is None else node.gpu_type
                gpus = gpus_of(placement)
                placed.append(
                    (job, attempt, gpus, kind_of_gpu, time, encode(pieces(placement, nodes)), *_FRESH.values())
                )
            elif kind is Kind.STARTED:
                ranks = (data or {}).get("ranks")
                started.append((time, None if ranks is None else encode(ranks), job, attempt))
            elif kind in STOPS:
                if attempt:
                    stopping.append((time, kind.value, job, attempt))
            elif kind in ENDS:
                ended.append(_end(time, kind, job, attempt, data or {}))
        self._place.run(connection, placed)
        self._start.run(connection, started)
        self._stop.run(connection, stopping)
        self._end.run(connection, ended)


def _end(time: float, kind: Kind, job: int, attempt: int, data: Mapping[str, Any]) -> Row:
    checkpoint = data.get("checkpoint")
    return (
        time,
        Kind.PREEMPTED.value if kind is Kind.REQUEUED else kind.value,
        kind.value,
        data.get("exit_code"),
        text(data["message"]) if data.get("message") else None,
        None if checkpoint is None else text(checkpoint),
        data.get("lost_work"),
        job,
        attempt,
    )
