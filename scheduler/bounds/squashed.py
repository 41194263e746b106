"""Bounds on the sum of completion times from one fast machine: the whole cluster as a machine of its total speed.

All arithmetic is in whole numbers. Time is stretched by the capacity M (thousandths of a GPU), so that the machine does
one unit of work (a thousandth of a GPU for a microsecond) in one unit of time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import heappop, heappush, heapreplace

from .instance import Item


def height(items: Sequence[Item]) -> int:
    """L2: no job ends before release + length. The sum of these, in microseconds."""
    return sum(item.release + item.length for item in items)


def squashed_srpt(items: Sequence[Item], capacity: int) -> int:
    """L1: the sum of completion times (microseconds, rounded down) of SRPT on one machine of the cluster's speed.

    In any schedule a job takes the share GPUs / capacity of that machine while it runs, and the shares add up to at
    most 1: it is a schedule of processor sharing with no later completions, and SRPT is the best of these (Schrage
    1968). Jobs without work count with release + length. O(n log n).
    """
    total = height([item for item in items if not item.area])
    ended = 0
    left: list[int] = []  # work left of each released job; which job it is does not matter
    now = 0
    arrivals = sorted((item.release * capacity, item.area) for item in items if item.area)
    for number, (release, area) in enumerate(arrivals):
        now = max(now, release)
        heappush(left, area)
        until = arrivals[number + 1][0] if number + 1 < len(arrivals) else None
        while left and (until is None or now < until):
            if until is not None and now + left[0] > until:
                heapreplace(left, left[0] - (until - now))
                now = until
            else:
                now += heappop(left)
                ended += now
    return total + ended // capacity


def smallest_first(items: Sequence[Item], capacity: int) -> Iterator[tuple[int, int, int]]:
    """The schedule that always works on the released job of the smallest area: (item, from, to) in stretched time."""
    order = sorted((item.release * capacity, number) for number, item in enumerate(items) if item.area)
    waiting: list[tuple[int, int, int]] = []  # area, item, work left
    now = 0
    for place, (release, number) in enumerate(order):
        now = max(now, release)
        heappush(waiting, (items[number].area, number, items[number].area))
        until = order[place + 1][0] if place + 1 < len(order) else None
        while waiting and (until is None or now < until):
            area, first, work = waiting[0]
            if until is not None and now + work > until:
                heapreplace(waiting, (area, first, work - (until - now)))
                yield first, now, until
                now = until
            else:
                heappop(waiting)
                yield first, now, now + work
                now += work


def mean_busy_times(items: Sequence[Item], capacity: int) -> int:
    """L3: the sum of mean busy times of that schedule, plus half of each length (microseconds, rounded down).

    A job's rate is at most 1 / length, so it ends no sooner than half its length after its mean busy time. Squashing
    keeps mean busy times, and among all schedules of the fast machine this one has the least sum of them (Goemans,
    Queyranne, Schulz, Skutella and Wang 2002). Jobs without work count with release + length. O(n log n).
    """
    moments = [0] * len(items)  # twice the integral of t over the time that the job is worked on
    for number, start, end in smallest_first(items, capacity):
        moments[number] += end * end - start * start
    total = height([item for item in items if not item.area])
    twice = 0
    for item, moment in zip(items, moments, strict=True):
        if area := item.area:
            twice += moment // (area * capacity) + item.length
    return total + twice // 2
