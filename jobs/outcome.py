"""What the end of an attempt means for its job: done, failed, tried again, or stopped as asked."""

from __future__ import annotations

from typing import Any, NamedTuple

from .causes import End, end_of
from .events import Kind
from .job import Job, RetryRule, Rule, State, Tried

REQUEUE_ME = 75
"""Exit code by which a job says "checkpointed, requeue me" (EX_TEMPFAIL of sysexits.h); it does not count as failed."""

GOES_ON = frozenset({Kind.REQUEUED, Kind.RETRIED})
"""Ends after which there is another attempt."""

BACK_OFF = (5.0, 300.0)
"""Seconds before the second attempt of a job that failed, doubled each time, and the most it grows to."""

MOST_REQUEUES = 10
"""Requeues in a row that count nothing though the job got nowhere. The next one counts as a retry."""

PLATFORM: tuple[Rule, ...] = (
    Rule(("node_lost",), "requeue"),
    Rule(("start:node",), "requeue", elsewhere=True),
)
"""What is nobody's fault counts nothing where the job is retried at all: after its own rules, before its `on`."""


class Verdict(NamedTuple):
    """What an end means, and what follows.

    Attributes:
        kind: SUCCEEDED, FAILED, RETRIED, REQUEUED, STOPPED, TIMED_OUT or LOST.
        end: its cause; None where it needs none: a success, or an end that was asked for.
        why: what was decided, in words; empty = as the table of moves says.
        pause: seconds before the next attempt.
        elsewhere: whether the next attempt shall avoid the nodes on which this one failed.
        tried: what to remember of retries from now on; None = nothing new.
    """

    kind: Kind
    end: End | None = None
    why: str = ""
    pause: float = 0.0
    elsewhere: bool = False
    tried: Tried | None = None


_SUCCEEDED, _REQUEUED = Verdict(Kind.SUCCEEDED), Verdict(Kind.REQUEUED)  # made once: most ends are one of these


def outcome(job: Job, kind: Kind, data: dict[str, Any] | None) -> Kind:
    """The kind of `judge`'s verdict."""
    return judge(job, kind, data).kind


def judge(job: Job, kind: Kind, data: dict[str, Any] | None) -> Verdict:
    """What a FINISHED or VANISHED of the job's current attempt means, from its state and its retry rules.

    The job's own rules come first, in their order; then what the platform is to blame for; then `on` with `limit`.
    Attempts that count never exceed `limit`, and requeues that do not count end when the job gets nowhere
    (MOST_REQUEUES). Only a job that asks for it itself, by exit code 75, may do so for ever.
    """
    code = (data or {}).get("exit_code", 0)
    if job.state is State.STOPPING:
        return Verdict(Kind.TIMED_OUT if job.stop_cause == Kind.EXPIRED else Kind.STOPPED)
    if job.state is State.PREEMPTING:
        return _SUCCEEDED if kind is Kind.FINISHED and code == 0 else _REQUEUED
    if kind is Kind.FINISHED and code == 0:
        return _SUCCEEDED
    if kind is Kind.FINISHED and code == REQUEUE_ME:
        return _REQUEUED
    rule = rule_of(job)
    end = end_of(kind, data, rule)
    over = Verdict(Kind.FAILED if kind is Kind.FINISHED else Kind.LOST, end)
    return over if rule is None else _by_rule(job, rule, data or {}, over)


def rule_of(job: Job) -> RetryRule | None:
    """What is tried again of a job; None = nothing."""
    return job.retry if job.spec is None else job.spec.retry.rule()


def _by_rule(job: Job, rule: RetryRule, data: dict[str, Any], over: Verdict) -> Verdict:
    """The first rule that names the cause decides; `over` is the verdict without another attempt."""
    assert over.end is not None, "an end that a rule is for has a cause"
    causes = over.end.tokens
    for number, one in enumerate(rule.rules):
        if not causes.isdisjoint(one.on):
            return _done(job, rule, (number, one), data, over)
    if rule.limit:
        for one in PLATFORM:
            if not causes.isdisjoint(one.on) and (over.kind is Kind.FAILED or "lost" in rule.on):
                return _done(job, rule, (-1, one), data, over)
    if causes.isdisjoint(rule.on):
        return over
    return _done(job, rule, (-1, Rule(tuple(rule.on), "retry")), data, over)


def _done(job: Job, rule: RetryRule, found: tuple[int, Rule], data: dict[str, Any], over: Verdict) -> Verdict:
    """What a rule does. `found` is its place among the job's own rules (-1 = it is none of them) and the rule."""
    failed = over.kind is Kind.FAILED  # else it was lost, which is nothing that went wrong in the job
    number, one = found
    said = f"by rule {number + 1} of its `retry`" if number >= 0 else ""
    if one.do == "fail":
        return over._replace(why=f"not tried again, {said}")
    tried, got_on = _with_progress(job, data)
    first, most = one.backoff or rule.backoff or BACK_OFF
    paused = one.backoff is not None or rule.backoff is not None
    elsewhere = one.elsewhere or one.do == "retry_elsewhere"
    place = " on another node" if elsewhere else ""
    if one.do == "requeue":
        in_a_row = 0 if got_on else tried.fruitless + 1
        bound = MOST_REQUEUES if one.limit is None else one.limit
        if in_a_row <= bound:
            # The first times at once where nothing of the job's own went wrong: others are not to blame for it.
            times = in_a_row if paused or failed else in_a_row - 2
            pause = grown(times, first, most) if times > 0 else 0.0
            why = f"queued again{place}, which does not count{_given(said)}"
            return Verdict(Kind.REQUEUED, over.end, why, pause, elsewhere, tried._replace(fruitless=in_a_row))
        said = f"after {bound} requeues in a row that got nowhere"
    elif one.limit is not None:
        used = tried.of_rule(number)
        if used >= one.limit:
            return over._replace(why=f"not tried again: {used} of {one.limit} retries are used up{_given(said)}")
        tried = tried.with_rule(number)
    if job.failures >= rule.limit:
        return over._replace(why=f"not tried again: {job.failures} of {rule.limit} retries are used up")
    count = job.failures + 1
    pause = grown(count, first, most) if paused or failed else 0.0
    why = f"retry {count} of {rule.limit}{place}{_given(said)}"
    return Verdict(Kind.RETRIED, over.end, why, pause, elsewhere, tried)


def _given(said: str) -> str:
    return f", {said}" if said else ""


def _with_progress(job: Job, data: dict[str, Any]) -> tuple[Tried, bool]:
    """What was tried so far, and whether this attempt got further than all before it: a later step was saved.

    A backend that knows how much work was kept says so itself.
    """
    tried = job.tried
    step = (data.get("checkpoint") or {}).get("step", 0.0)
    further = step > tried.step
    return (tried._replace(step=float(step)) if further else tried), further or data.get("kept", 0.0) > 0


def account(job: Job, kind: Kind, time: float, data: dict[str, Any] | None) -> dict[str, Any] | None:
    """Details of the end of an attempt that another follows, with the seconds of its run that are `kept` and `lost`.

    Kept is what the next attempt need not repeat: from the start to the last checkpoint, as far as the job said so
    (`report_checkpoint`). A job that leaves with code 75 says that it has just saved. One that was preempted and never
    said anything counts as having lost all; of one that failed by itself nothing is said then. What the backend knows
    better is left as it is: a simulated one tells `kept` itself.

    Args:
        job: as it was until now.
        kind: one of GOES_ON.
        time: when the attempt ended, on the engine's clock.
        data: details of the end, as the backend gave them.
    """
    told = data or {}
    if "kept" in told or job.started is None:
        return data
    saved = max(job.saved, (told.get("checkpoint") or {}).get("time", 0.0))
    if told.get("exit_code") == REQUEUE_ME:
        saved = time
    elif kind is Kind.RETRIED and saved < job.started:
        return data
    kept = max(0.0, min(saved, time) - job.started)
    return {**told, "kept": kept, "lost": max(0.0, time - job.started - kept)}


def back_off(failures: int) -> float:
    """Seconds to wait before the next attempt after so many failures, where the job does not say otherwise."""
    return grown(failures, *BACK_OFF)


def grown(times: int, first: float, most: float) -> float:
    """`first` seconds, doubled each time after the first, and never more than `most`."""
    return min(first * 2.0 ** min(times - 1, 60), most)
