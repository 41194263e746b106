"""Backfill against the textbook, written once more: slow, by counts alone, second by second."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import Ask, cluster, trace
from gpusched.jobs.job import Shape
from gpusched.policies.backfill import Backfill
from gpusched.policies.greedy import Greedy
from gpusched.policies.order import ORDERS
from gpusched.policies.place import PLACERS
from gpusched.scheduler.simulate import trial

GPUS = 8
FOREVER = 600
"""Seconds after which every profile is empty."""


@dataclass
class Row:
    """A job of the reference."""

    at: int
    gpus: int
    runs: int
    says: int
    start: int | None = None

    def holds(self, second: int) -> int:
        """GPUs that this running job holds at a later second, by its estimate."""
        assert self.start is not None
        return self.gpus if second < self.start + self.says else 0


def easy(rows: list[Row], *, shortest: bool = False) -> list[int | None]:
    """EASY as Lifka has it, and shortest candidates first if asked: starts by job."""
    for now in range(FOREVER):
        running = [row for row in rows if row.start is not None and now < row.start + row.runs]
        waiting = [row for row in rows if row.start is None and row.at <= now]
        free = GPUS - sum(row.gpus for row in running)
        while waiting and waiting[0].gpus <= free:
            head = waiting.pop(0)
            head.start = now
            running.append(head)
            free -= head.gpus
        if not waiting:
            continue
        head = waiting.pop(0)
        shadow = next(second for second in range(now, FOREVER) if free_at(running, second) >= head.gpus)
        extra = free_at(running, shadow) - head.gpus
        if shortest:
            waiting.sort(key=lambda row: row.says)
        for row in waiting:
            if row.gpus > free:
                continue
            if now + row.says > shadow:
                if row.gpus > extra:
                    continue
                extra -= row.gpus
            row.start = now
            free -= row.gpus
    return [row.start for row in rows]


def free_at(running: list[Row], second: int) -> int:
    """GPUs free at a later second if all that runs ends as estimated."""
    return GPUS - sum(row.holds(second) for row in running)


def promising(rows: list[Row], depth: float) -> list[int | None]:
    """The first `depth` that cannot start have reservations, which only ever move to an earlier start."""
    promised: dict[int, int] = {}
    for now in range(FOREVER):
        moved = True
        while moved:
            moved = False
            for number, row in enumerate(rows):
                if row.start is not None or row.at > now:
                    continue
                earliest = earliest_hole(rows, promised, number, now)
                if earliest == now:
                    row.start = now
                    moved |= promised.pop(number, now) > now
                elif number in promised and earliest < promised[number]:
                    promised[number] = earliest
                    moved = True
                elif number not in promised and len(promised) < depth:
                    promised[number] = earliest
    return [row.start for row in rows]


def earliest_hole(rows: list[Row], promised: dict[int, int], number: int, now: int) -> int:
    """The first second from which on the job fits for as long as it says, beside all else that is promised."""
    free = [GPUS] * (2 * FOREVER)
    for other, row in enumerate(rows):
        start = row.start if row.start is not None else promised.get(other)
        if other == number or start is None or (row.start is not None and now >= row.start + row.runs):
            continue
        for second in range(max(start, now), min(start + row.says, 2 * FOREVER)):
            free[second] -= row.gpus
    row = rows[number]
    second = now
    while True:
        wrong = next((at for at in range(second, second + row.says) if free[at] < row.gpus), None)
        if wrong is None:
            return second
        second = wrong + 1


def ours(rows: list[Row], rule: Backfill) -> list[float | None]:
    """What the policy does with the same jobs on one node, on two and on eight: by counts it must not matter."""
    asks = [Ask(Shape(0, row.gpus), row.runs, row.at, estimate=row.says) for row in rows]
    policy = Greedy("backfill", order=ORDERS["arrival"], place=PLACERS["count"], blocking=rule)
    starts = []
    for words in (f"1x{GPUS}", f"2x{GPUS // 2}", f"{GPUS}x1"):
        run = trial(trace(*asks), cluster(words), policy, estimates="trace").run
        starts.append([job.first_start for job in run.jobs])
    assert starts[0] == starts[1] == starts[2]
    return starts[0]


jobs = st.builds(
    lambda at, gpus, runs, more: Row(at, gpus, runs, runs + more),
    st.integers(0, 12),
    st.integers(1, GPUS),
    st.integers(1, 12),
    st.sampled_from([0, 0, 1, 5, 20]),
)
queues = st.lists(jobs, min_size=1, max_size=12).map(lambda rows: sorted(rows, key=lambda row: row.at))


@settings(max_examples=250, deadline=None, derandomize=True)
@given(queues, st.booleans())
def test_easy_starts_every_job_when_the_textbook_does(rows, shortest):
    expected = easy([Row(row.at, row.gpus, row.runs, row.says) for row in rows], shortest=shortest)
    assert ours(rows, Backfill(shortest_first=shortest)) == expected


@settings(max_examples=150, deadline=None, derandomize=True)
@given(queues, st.sampled_from([1, 2, 3, math.inf]))
def test_any_depth_starts_every_job_when_the_slow_profile_does(rows, depth):
    expected = promising([Row(row.at, row.gpus, row.runs, row.says) for row in rows], depth)
    assert ours(rows, Backfill(depth)) == expected


def test_the_two_references_agree_on_easy():
    """Promises that are kept, and a shadow that is found anew each time: the same for one head in order of arrival."""
    rows = [Row(0, 6, 10, 15), Row(0, 4, 10, 10), Row(1, 2, 5, 30), Row(2, 2, 8, 8), Row(3, 8, 2, 4), Row(4, 1, 3, 9)]
    first = easy([Row(row.at, row.gpus, row.runs, row.says) for row in rows])
    assert first == promising([Row(row.at, row.gpus, row.runs, row.says) for row in rows], 1)


@pytest.mark.parametrize("depth", [1, math.inf])
def test_a_reference_that_forgets_the_promise_is_told_apart(depth):
    """The comparison can fail: without any promise a stream of narrow jobs passes the wide one."""
    rows = [Row(0, 6, 10, 10), Row(1, 8, 10, 10), *[Row(number, 2, 9, 9) for number in (2, 3, 11, 12)]]
    assert ours(rows, Backfill(depth))[1] == 10
    assert promising([Row(row.at, row.gpus, row.runs, row.says) for row in rows], 0)[1] != 10
