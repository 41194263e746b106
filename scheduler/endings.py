"""What the ends of attempts mean for their jobs and for the nodes that they were on.

The verdicts are pure (jobs/outcome.py), and so is the evidence against nodes (poison.py). Here both meet the engine's
jobs and nodes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..cluster.pool import Pool, bits
from ..jobs.causes import MAY_POINT_AT_NODE, POINTS_AT_NODE, Cause
from ..jobs.events import Event, Kind, event_of
from ..jobs.job import Job
from ..jobs.outcome import GOES_ON, Verdict, account, judge
from .poison import BY, Evidence, Poison, Rule

if TYPE_CHECKING:
    from .store.ends import Ended

MOST_AVOIDED = 16
"""Nodes that a job avoids at most; of more, and where the others could not hold it, those that failed last."""


class Endings:
    """Judges the ends of attempts.

    Args:
        pool: the nodes.

    Attributes:
        poison: the evidence against nodes.
        cordons: (node, why) to be cordoned, once it is written why.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.poison = Poison()
        self.cordons: list[tuple[str, str]] = []

    def judge(self, job: Job, event: Event) -> tuple[Event, Verdict]:
        """What a FINISHED or VANISHED of the job's current attempt means, as an event with all its details."""
        time, kind, job_id, attempt, data = event
        verdict = judge(job, kind, data)
        if verdict.end is not None:
            data = self._told(job, verdict, data)
            job.cause = verdict.end.cause
            self._witness(job, verdict, time, data or {})
        else:
            job.cause = ""
            if verdict.kind is Kind.SUCCEEDED and self.poison.doubts(job_id):
                self.poison.succeeded(job_id, self._nodes(job))
        if verdict.kind in GOES_ON:
            data = account(job, verdict.kind, time, data)
        return event_of((time, verdict.kind, job_id, attempt, data)), verdict

    def refused(self, job: Job, event: Event) -> None:
        """An attempt could not be placed: that may be the node's fault, too."""
        data = event.data or {}
        if data.get("cause") == Cause.START and data.get("node"):
            words = data.get("cause_detail") or data.get("message") or "it could not be started"
            found = Evidence(data["node"], job.id, event.attempt, event.time, "start:node", words)
            self.poison.failed(found, points=True)

    def returns(self, job: Job, verdict: Verdict, time: float, data: dict[str, Any] | None) -> None:
        """The job goes back to the queue: what is counted, the pause, and the nodes to be avoided."""
        if verdict.tried is not None:
            job.tried = verdict.tried
        if verdict.kind is Kind.RETRIED:
            job.failures += 1
        if verdict.pause > 0:
            job.not_before = time + verdict.pause
        names = (data or {}).get("avoid")
        if names:
            avoid = {*job.shape.avoid, *names}
            shape = replace(job.shape, avoid=tuple(sorted(avoid)))
            if len(avoid) > MOST_AVOIDED or self._pool.avoided(shape) & self._pool.reach(shape):
                # The others could not hold it: better not to meet again those that failed last.
                shape = replace(job.shape, avoid=tuple(sorted(names)))
            job.shape = shape

    def sentences(self, now: float) -> list[Event]:
        """What is found about nodes since it was asked last, for the journal; `cordons` has what follows from it."""
        pool = self._pool
        up = [pool.nodes[number].name for number in bits(pool.up)]
        ours = sum(by_us(pool.nodes[number].orders) for number in bits(pool.present & ~pool.up))
        events = []
        for found in self.poison.sentences(now, up, pool.present.bit_count(), ours + len(self.cordons)):
            data = {
                "node": found.node,
                "what": "suspected" if found.spared else "poisoned",
                "by": BY,
                "reason": found.why,
                "evidence": [one.to_json() for one in found.evidence],
            }
            events.append(Event(now, Kind.NODE, 0, 0, {**data, "spared": found.spared} if found.spared else data))
            if not found.spared:
                self.cordons.append((found.node, found.why))
        return events

    def heard(self, events: Iterable[Event]) -> None:
        """What the journal says of nodes: of one that is resumed all is forgotten."""
        for event in events:
            if event.kind is Kind.NODE and event.data.get("what") == "resumed":
                self.poison.forget(event.data["node"], event.time)

    def recall(self, rule: Rule, ends: Iterable[Ended]) -> None:
        """After a restart: the evidence of before, as the store has it."""
        self.poison = Poison(rule)
        for one in ends:
            if not one.job:
                self.poison.forget(one.nodes[0], one.time)
            elif not one.cause:
                self.poison.succeeded(one.job, one.nodes)
            elif one.cause.partition(":")[0] not in {Cause.NODE_LOST, Cause.LOST}:
                found = Evidence(one.nodes[0], one.job, one.attempt, one.time, one.cause, one.detail)
                told = {one.cause, one.cause.partition(":")[0]}
                points, hints = (not told.isdisjoint(some) for some in (POINTS_AT_NODE, MAY_POINT_AT_NODE))
                self.poison.failed(found, points=points, hints=hints)

    # ---- details

    def _told(self, job: Job, verdict: Verdict, data: dict[str, Any] | None) -> dict[str, Any] | None:
        """The details with the cause in full, where the backend told it, and with the nodes to be avoided."""
        assert verdict.end is not None, "only a failure has a cause"
        if not ((data or {}).get("cause") or verdict.elsewhere):
            return data
        cause, _, which = verdict.end.cause.partition(":")
        told: dict[str, Any] = {**(data or {}), "cause": cause, "cause_detail": verdict.end.detail}
        told.pop("which", None)
        if which:
            told["which"] = which
        node = self._failing(job, told)
        if node:
            told["node"] = node
        if verdict.why:
            told["verdict"] = verdict.why
        if verdict.elsewhere:
            told["avoid"] = [node] if node else self._nodes(job)
        return told

    def _failing(self, job: Job, data: dict[str, Any]) -> str:
        """The node of the rank that failed first; empty = nobody knows."""
        where, rank = job.placement, data.get("failed_rank")
        if data.get("node"):
            return str(data["node"])
        if len(where) == 1:
            return self._pool.nodes[where[0].node].name
        if isinstance(rank, int) and 0 <= rank < len(where):
            return self._pool.nodes[where[rank].node].name
        return ""

    def _nodes(self, job: Job) -> list[str]:
        return sorted({self._pool.nodes[piece.node].name for piece in job.placement})

    def _witness(self, job: Job, verdict: Verdict, time: float, data: dict[str, Any]) -> None:
        """A failure, as evidence. A node that is gone, or a Runner, says nothing of what a node does to jobs."""
        end = verdict.end
        assert end is not None, "only a failure has a cause"
        node = self._failing(job, data)
        if node and "failure" in end.tokens and not end.tokens.intersection((Cause.NODE_LOST, Cause.LOST)):
            found = Evidence(node, job.id, job.attempt, time, end.cause, end.detail)
            points, hints = (not end.tokens.isdisjoint(one) for one in (POINTS_AT_NODE, MAY_POINT_AT_NODE))
            self.poison.failed(found, points=points, hints=hints)


def said(verdict: Verdict, why: str) -> str:
    """An end for people: the cause, and what is done about it. `why` is what the table of moves says."""
    assert verdict.end is not None, "only a failure has a cause"
    return f"{verdict.end.detail}; {verdict.why or why}"


def by_us(orders: dict[str, Any]) -> bool:
    """Whether a node is cordoned because jobs fail there."""
    return bool(orders.get("cordon", {}).get("by") == BY)
