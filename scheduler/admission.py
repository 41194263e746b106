"""What may come into the queue, and what would become of it: feasibility at submit, and `--dry-run`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ..jobs.errors import InfeasibleError
from ..jobs.job import Job, Shape
from ..policies.plan import Line, Token
from ..policies.reasons import never
from .engine import Engine
from .explain import explain, names_of
from .shortage import never_words, why_words


@dataclass(frozen=True, slots=True)
class Verdict:
    """What would become of a job that was submitted now.

    Attributes:
        verdict: it starts now, waits, or never fits. why: in words; reason: the token, empty when it starts.
        nodes: where it would go. position: place in the queue from 1; None = it starts, or cannot be told.
    """

    verdict: Literal["start", "wait", "never"]
    why: str
    reason: str = ""
    nodes: tuple[str, ...] = ()
    position: int | None = None


class Feasibility:
    """Which shapes the cluster could never hold, worked out once for each shape and layout of the cluster."""

    MOST = 10_000

    def __init__(self) -> None:
        self._layout: tuple[int, int] = (0, 0)
        self._known: dict[Shape, str] = {}

    def missing(self, shapes: set[Shape], layout: tuple[int, int]) -> set[Shape]:
        """Those not known for this layout (number of the engine, layout of its pool)."""
        if layout != self._layout or len(self._known) > self.MOST:
            self._layout, self._known = layout, {}
        return {shape for shape in shapes if shape not in self._known}

    def learn(self, found: dict[Shape, str]) -> None:
        """What `impossible` answered."""
        self._known |= found

    def check(self, jobs: Sequence[Job]) -> None:
        """Refuse all if one can never run.

        Raises:
            InfeasibleError: names each such job with its numbers.
        """
        bad = [(job, words) for job in jobs if (words := self._known.get(job.shape, ""))]
        if not bad:
            return
        shown = [f"{job.name}: {words}" if len(jobs) > 1 else words for job, words in bad[:10]]
        if len(bad) > len(shown):
            shown.append(f"and {len(bad) - len(shown)} more like these")
        raise InfeasibleError(
            "\n".join(shown), hint="nothing was queued; --queue-anyway queues it until the cluster has grown"
        )


def impossible(engine: Engine, shapes: set[Shape]) -> dict[Shape, str]:
    """For each shape why this cluster could never hold it, in words; empty = it could, or no node is known yet."""
    pool = engine.pool
    if not pool.present:
        return dict.fromkeys(shapes, "")
    found = {}
    for shape in shapes:
        token = never(shape, pool, engine.policy.place)
        found[shape] = never_words(token, shape, pool) if token is Token.INFEASIBLE else ""
    return found


def foresee(engine: Engine, jobs: Sequence[Job], now: float) -> list[Verdict]:
    """What would become of these jobs if they were submitted now, together. Leaves no trace."""
    pool = engine.pool
    first = max(engine.jobs, default=0) + 1
    for number, job in enumerate(jobs, first):
        job.id, job.submitted, job.queued = number, now, now
        if engine.closings.active:
            job.shape, _ = engine.closings.foresee(job, now)
    if not pool.present:
        return [Verdict("wait", "the cluster has no nodes yet: it is starting", Token.SCALING_UP.value) for _ in jobs]
    plan = engine.foresee(jobs, now)
    starts = {start.job.id: start.placement for start in plan.starts}
    verdicts = []
    for job in jobs:
        if job.id in starts:
            nodes = tuple(names_of(starts[job.id], pool))
            verdicts.append(Verdict("start", f"would start now on {', '.join(dict.fromkeys(nodes))}", nodes=nodes))
            continue
        said = explain(engine, job, now)
        group = engine.queue.group_of(job)
        why = plan.waiting.get(Line((), job.shape) if group is None else group.line)
        if said.reasons and said.reasons[0].token is Token.INFEASIBLE:
            verdicts.append(Verdict("never", said.reasons[0].message, Token.INFEASIBLE.value))
        elif why is not None and not (said.reasons and why.token is said.reasons[0].token):
            verdicts.append(Verdict("wait", why_words(why, job.shape), why.token.value, position=len(engine.queue) + 1))
        elif said.reasons:
            reason = said.reasons[0]
            verdicts.append(Verdict("wait", reason.message, reason.token.value, position=len(engine.queue) + 1))
        else:
            verdicts.append(Verdict("wait", "the policy does not start it now", position=len(engine.queue) + 1))
    return verdicts
