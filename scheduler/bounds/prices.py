"""L5: what a price of GPU time over time proves about the sum of completion times.

Each job buys its run time where that is cheapest: a unit of time at t costs it t / length + GPUs x price(t). What all
jobs pay at least, less the price of the whole capacity, plus half of each length, is a lower bound, whatever the prices
(Lagrange's, of the relaxation in which a job may run at any rate up to 1 while the GPUs in use never exceed capacity).
This module computes it quickly, in floating point; `verify` proves it again, exactly and by other code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .instance import SECOND, WHOLE, Instance

if TYPE_CHECKING:
    import numpy as np

CLOSE = 1e-9
"""Share of its length by which a job's time may be missed in the search. The bound holds whatever that is."""
STEPS = 60


class Market:
    """The jobs as arrays, and what is scarce: rows, each a set of groups of nodes with its capacity.

    A job pays the prices of all rows that hold every group which it may use: with one kind of node there is one row.

    Attributes:
        release, length, gpus: by job, in seconds from the first submission, seconds and GPUs.
        kind: by job, which set of groups it may use.
        rows: the rows' groups; capacity: GPUs of each.
        pays: pays[row, kind] = whether such jobs pay that row's price.
    """

    def __init__(self, whole: Instance, rows: tuple[tuple[int, ...], ...]) -> None:
        import numpy as np  # noqa: PLC0415 - only bounds need it

        items = [item for item in whole.items if item.area]
        first = min((item.release for item in whole.items), default=0)
        self.release = np.array([(item.release - first) / SECOND for item in items])
        self.length = np.array([item.length / SECOND for item in items])
        self.gpus = np.array([item.gpus / WHOLE for item in items])
        self.kind = np.array([item.may_use for item in items], dtype=np.int64)
        self.area = self.gpus * self.length
        self.rows = rows
        self.capacity = np.array([whole.capacity(groups) / WHOLE for groups in rows])
        self.pays = np.array([[set(may) <= set(groups) for may in whole.usable] for groups in rows], dtype=float)


@dataclass(frozen=True, slots=True)
class Demand:
    """How the jobs answer prices.

    Attributes:
        value: what the prices prove beyond the jobs' lengths: sum of JCT >= value + sum of lengths, in seconds.
        surplus: [row, slot]: GPU time asked for less capacity, the slope of value by price.
        job, begin, used: what is bought: by (job, slot) the job, from when on in the slot, and how many seconds.
    """

    value: float
    surplus: np.ndarray
    job: np.ndarray
    begin: np.ndarray
    used: np.ndarray


def answer(market: Market, edges: np.ndarray, prices: np.ndarray) -> Demand:
    """How the jobs answer prices[row, slot] over slots between `edges` (seconds from the first submission)."""
    import numpy as np  # noqa: PLC0415 - only bounds need it

    slots = len(edges) - 1
    supply = np.outer(market.capacity, np.diff(edges))
    cost_of_all = float(np.sum(prices * supply))
    if not len(market.release):
        nothing = np.zeros(0)
        return Demand(-cost_of_all, -supply, nothing.astype(np.int64), nothing, nothing)
    starts = edges
    widths = np.append(np.diff(edges), np.inf)  # after the last edge time is free
    asked = np.hstack([market.pays.T @ prices, np.zeros((market.pays.shape[1], 1))])  # [kind, slot]
    release, length, area, kind = market.release, market.length, market.area, market.kind

    # No job runs later than when it would run at once: the slots until then are all that need a look.
    first = np.searchsorted(edges, release, side="right") - 1
    at_once = np.maximum(np.searchsorted(edges, release + length, side="left") - 1, first)
    latest = length + area * _range_max(asked, kind, first, at_once)
    last = np.maximum(np.searchsorted(edges, release + latest, side="left") - 1, first)
    counts = last - first + 1
    job = np.repeat(np.arange(len(counts)), counts)
    slot = np.arange(len(job)) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(first, counts)
    wait = np.maximum(starts[slot] - release[job], 0.0)
    cost = wait + area[job] * asked[kind[job], slot]
    room = np.where(slot == first[job], starts[slot] + widths[slot] - release[job], widths[slot])
    keep = (cost < latest[job]) | (slot == first[job])
    job, slot, cost, room = job[keep], slot[keep], cost[keep], room[keep]
    heads = np.searchsorted(job, np.arange(len(counts)))

    level = _levels(job, heads, cost=cost, room=room, length=length, latest=latest)
    deep = level[job] - cost
    used = np.clip(deep, 0.0, room)
    # Any level gives a bound (it is a dual of the job's own knapsack); the right one gives the best.
    gain = np.where(deep > room, used * (deep - used / 2), used * used / 2)
    value = float(np.sum(level - np.add.reduceat(gain, heads) / length - length / 2))
    bought = np.bincount(
        kind[job] * (slots + 1) + slot, market.gpus[job] * used, minlength=(slots + 1) * market.pays.shape[1]
    ).reshape(-1, slots + 1)[:, :slots]
    begin = np.maximum(starts[slot], release[job])
    return Demand(value - cost_of_all, market.pays @ bought - supply, job, begin, used)


def _range_max(asked: np.ndarray, kind: np.ndarray, first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """For each job the highest price from slot `first` to slot `last`, both included."""
    import numpy as np  # noqa: PLC0415 - only bounds need it

    table = [asked]
    span = 1
    while 2 * span <= asked.shape[1]:
        table.append(np.maximum(table[-1][:, : asked.shape[1] - 2 * span + 1], table[-1][:, span:]))
        span *= 2
    power = np.frexp((last - first + 1).astype(float))[1] - 1
    highest: np.ndarray = np.empty(len(kind))
    for level, maxima in enumerate(table):
        of = power == level
        width = 1 << level
        highest[of] = np.maximum(maxima[kind[of], first[of]], maxima[kind[of], last[of] - width + 1])
    return highest


def _levels(
    job: np.ndarray, heads: np.ndarray, *, cost: np.ndarray, room: np.ndarray, length: np.ndarray, latest: np.ndarray
) -> np.ndarray:
    """The level of each job up to which it buys time: sum of clip(level - cost, 0, room) over its slots = length.

    Newton's method on a rising piecewise linear function, kept inside a bracket that it halves when it must.
    """
    import numpy as np  # noqa: PLC0415 - only bounds need it

    level: np.ndarray = cost[heads] + length  # right for a job with one slot
    counts = np.diff(np.append(heads, len(job)))
    open_ = np.flatnonzero(counts > 1)
    wanted = counts[job] > 1
    cost, room = cost[wanted], room[wanted]
    counts = counts[open_]
    low = np.zeros(len(open_))
    high, goal = latest[open_], length[open_]
    now = np.minimum(level[open_], high)
    for _ in range(STEPS):
        if not len(open_):
            break
        starts = np.cumsum(counts) - counts
        deep = np.repeat(now, counts) - cost
        over = np.add.reduceat(np.clip(deep, 0.0, room), starts) - goal
        slope = np.add.reduceat(((deep > 0) & (deep <= room)).astype(float), starts)
        high, low = np.where(over >= 0, now, high), np.where(over <= 0, now, low)
        step = now - over / np.maximum(slope, 1.0)
        after = np.where((step > low) & (step < high) & (slope > 0), step, (low + high) / 2)
        done = np.abs(over) <= CLOSE * goal
        level[open_] = np.where(done, now, after)
        now = after
        if 2 * np.count_nonzero(done) > len(done) or done.all():
            stay = ~done
            entries = np.repeat(stay, counts)
            cost, room = cost[entries], room[entries]
            open_, counts, low, high, goal, now = (x[stay] for x in (open_, counts, low, high, goal, now))
    return level
