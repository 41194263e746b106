"""The rules of Tiresias's published simulator, played on plain lists: what the bench command is held against.

GPUs are counted, nodes do not matter. Every list, sort and tie is spelled out, and nothing is fast.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal

LIMITS = (3250, 7200)
DELTA = 3250


@dataclass
class One:
    number: int
    gpus: int
    submitted: int
    duration: int
    runs: bool = False
    executed: int = 0
    counted: int = 0
    waited: int = 0
    level: int = 0
    rank: float = 0.0
    start: int | None = None
    end: int | None = None
    stops: int = 0

    @property
    def left(self) -> int:
        return self.duration - self.executed


def play(rows: list[tuple[int, int, int]], gpus: int, policy: str, sample: list[int] = ()) -> list[tuple]:
    """(start, end, preemptions) of each (gpus, submitted, duration), in the order of the rows."""
    jobs = [One(number, *row) for number, row in enumerate(rows)]
    arrivals = sorted(jobs, key=lambda one: one.submitted)
    if policy in {"fifo", "fjf", "lpjf"}:
        _wait_in_line(arrivals, gpus, policy)
    else:
        _take_turns(arrivals, gpus, policy, sorted(sample))
    return [(one.start, one.end, one.stops) for one in jobs]


def _wait_in_line(arrivals: list[One], gpus: int, policy: str) -> None:
    pending: list[One] = []
    running: list[One] = []
    coming = list(arrivals)
    while coming or running:
        now = min([one.submitted for one in coming[:1]] + [one.end for one in running])
        running = [one for one in running if one.end != now]
        while coming and coming[0].submitted == now:
            pending.append(coming.pop(0))
        free = gpus - sum(one.gpus for one in running)
        at = 0
        while at < len(pending):
            one = pending[at]
            if one.gpus <= free:
                free -= one.gpus
                one.start, one.end = now, now + one.duration
                running.append(pending.pop(at))
                at += policy == "lpjf"  # a list that shrinks while it is gone through: the next one is missed
            elif policy == "fjf":
                at += 1
            else:
                break


def _take_turns(arrivals: list[One], gpus: int, policy: str, sample: list[int]) -> None:  # noqa: C901, PLR0912, PLR0915 - one loop
    coming = list(arrivals)
    there: list[One] = []
    queues: list[list[One]] = [[] for _ in range(len(LIMITS) + 1)]
    indices = [gittins(sample, value - 1) for value in sample]
    now, wake, tick = 0, math.inf, DELTA
    last = policy.rpartition("-")[2]
    promote = int(last) if last.isdecimal() else 0
    while coming or there:
        ends = min([now + one.left for one in there if one.runs], default=math.inf)
        arrives = coming[0].submitted if coming else math.inf
        before, now = now, min(ends, arrives, wake if policy.startswith("dlas") else math.inf)
        if policy == "gittins" and now > tick:
            now = tick
        for one in there:
            one.executed += (now - before) * one.runs
            one.counted += (now - before) * one.runs
            one.waited += (now - before) * (not one.runs and one.counted > 0)
        if now == ends:
            for one in [one for one in there if one.runs and not one.left]:
                one.end = now
                there.remove(one)
                for queue in queues:
                    if one in queue:
                        queue.remove(one)
        if now == arrives:
            while coming and coming[0].submitted == now:
                there.append(coming[0])
                queues[0].append(coming.pop(0))
        by_gpus = policy != "dlas"
        if policy.startswith("dlas"):
            for one in there:
                attained = one.counted * (one.gpus if by_gpus else 1)
                to = one.level
                if one.runs and one.level < len(LIMITS) and attained >= LIMITS[one.level]:
                    to += 1
                elif not one.runs and promote and one.level and one.counted and one.waited >= one.counted * promote:
                    one.counted = one.waited = attained = to = 0
                if to != one.level:
                    queues[one.level].remove(one)
                    queues[to].append(one)
                    one.level = to
                one.rank = rank(sample, indices, attained) if sample else 0
            if policy == "dlas-gpu-gittins":
                for queue in queues:
                    queue.sort(key=lambda one: (one.rank, -one.submitted), reverse=True)
        elif policy == "gittins":
            for one in there:
                one.rank = rank(sample, indices, one.executed * (one.gpus if one.runs else 1))
            there.sort(key=lambda one: one.rank)
        elif policy == "sjf":
            there.sort(key=lambda one: one.gpus)
        else:
            there.sort(key=lambda one: one.left * (one.gpus if policy == "shortest-gpu" else 1))
        free = gpus
        for one in [one for queue in queues for one in queue] if policy.startswith("dlas") else there:
            fits = one.gpus <= free
            free -= one.gpus * fits
            one.stops += one.runs and not fits
            one.runs = fits
            if fits and one.start is None:
                one.start = now
        for queue in queues:
            queue.sort(key=lambda one: not one.runs)
        waits = [
            (LIMITS[one.level] - one.counted) // (one.gpus if by_gpus else 1)
            for one in there
            if one.runs and one.level < len(LIMITS)
        ]
        if promote:
            rising = [one for one in there if not one.runs and one.level and one.counted]
            waits += [wait for one in rising if (wait := one.counted * promote - one.waited) > 0]
        wake = now + min(waits, default=math.inf)
        tick += now


def rank(sample: list[int], indices: list[float], attained: int) -> float:
    if attained > sample[-1]:
        return 0.0
    at = bisect_right(sample, attained)
    return indices[at] if at < len(indices) else 0.0


def gittins(sample: list[int], attained: int) -> float:
    """Gittins index as the published simulator rounds it, in Python 2: quotients of whole numbers are cut."""
    number, last = len(sample), sample[-1] - 1
    first = bisect_right(sample, attained)
    following = attained + DELTA
    beyond = number - 1 if following > last else bisect_right(sample, following)
    share = _round((beyond - first) / (number - first), 5)
    cost = (sum(sample[first:beyond]) + DELTA * (number - beyond)) // (number - first)
    return _round(share * 1_000_000 / cost, 4)


def _round(value: float, digits: int) -> float:
    return float(Decimal(value).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP))
