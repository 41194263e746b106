"""Good prices for L5: a quasi-Newton ascent from the prices of the fast machine (L3), on slots cut where it pays."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .instance import SECOND, WHOLE, Instance
from .prices import Demand, Market, answer
from .squashed import smallest_first

if TYPE_CHECKING:
    import numpy as np

FIRST_SLOTS = 64
SLOTS = 512
"""Slots at first and at most. More make the bound a little better and its proof longer."""
ROWS = 4
"""Sets of groups that get prices of their own, besides the whole cluster."""
STEPS = 100
"""Of the ascent on each grid at most; on the last one STEPS x 2."""
MEMORY, TRIES = 20, 12
PATIENCE = 5
ENOUGH = 1e-5
"""Rise of the bound over PATIENCE steps, as a share, below which a grid is done."""


def good_prices(whole: Instance) -> tuple[Market, np.ndarray, np.ndarray, Demand]:
    """(market, edges, prices, demand): slot edges in seconds from the first submission, and prices[row, slot] >= 0."""
    import numpy as np  # noqa: PLC0415 - only bounds need it

    market = Market(whole, scarce(whole))
    if not len(market.release):
        edges, prices = np.array([0.0, 1.0]), np.zeros((len(market.rows), 1))
        return market, edges, prices, answer(market, edges, prices)
    edges = _first_edges(market)
    start = np.zeros((len(market.rows), len(edges) - 1))
    start[0] = _fast_machine(whole, edges)
    prices, found = _best_scale(market, edges, start)
    while True:
        prices, found = _ascend(market, edges, prices, found)
        finer = _cut(market, edges, prices, found)
        if len(finer) == len(edges):
            return market, edges, prices, found
        place = np.searchsorted(edges, finer[:-1], side="right") - 1
        edges, prices = finer, prices[:, place]
        found = answer(market, edges, prices)


def scarce(whole: Instance) -> tuple[tuple[int, ...], ...]:
    """The whole cluster, then the sets of groups to which jobs are bound, those with the most work per GPU first."""
    everything = tuple(range(len(whole.groups)))
    load: dict[tuple[int, ...], float] = {}
    for groups in whole.usable:
        inside = [set(may) <= set(groups) for may in whole.usable]
        work = sum(item.area for item in whole.items if inside[item.may_use])
        load[groups] = work / max(whole.capacity(groups), 1)
    bound = sorted((groups for groups in load if groups != everything), key=lambda groups: (-load[groups], groups))
    return (everything, *bound[:ROWS])


def _first_edges(market: Market) -> np.ndarray:
    """Even slots until all could be done."""
    import numpy as np  # noqa: PLC0415 - only bounds need it

    # When each row alone would be done at the latest, if it never idled after the last submission.
    work = float(np.max((market.pays[:, market.kind] @ market.area) / np.maximum(market.capacity, 1 / WHOLE)))
    end = float(market.release.max() + work + market.length.max())
    return np.ceil(np.linspace(0.0, max(end, FIRST_SLOTS), FIRST_SLOTS + 1))


def _fast_machine(whole: Instance, edges: np.ndarray) -> np.ndarray:
    """By slot, the mean price at which the fast machine's schedule of smallest areas is optimal.

    While it works on a job the price falls by 1 / area a second, and goes over into the price of the job after it; it
    may rise where a job arrives.
    """
    import numpy as np  # noqa: PLC0415 - only bounds need it

    capacity = whole.capacity()
    first = min((item.release for item in whole.items), default=0)
    pieces = list(smallest_first(whole.items, capacity))
    if not pieces:
        return np.zeros(len(edges) - 1)
    scale = 1 / (capacity * SECOND)
    start = np.array([piece[1] for piece in pieces]) * scale - first / SECOND
    end = np.array([piece[2] for piece in pieces]) * scale - first / SECOND
    slope = np.array([1e9 / whole.items[piece[0]].area for piece in pieces])  # 1 / GPU-seconds
    at_end = np.zeros(len(pieces))
    level: dict[int, float] = {}  # of each job: price + slope x time while it runs
    after, begins = 0.0, -1
    for at in range(len(pieces) - 1, -1, -1):
        number, began, ended = pieces[at]
        if number not in level:
            level[number] = (after if begins == ended else 0.0) + slope[at] * end[at]
        at_end[at] = max(level[number] - slope[at] * end[at], 0.0)
        after, begins = at_end[at] + slope[at] * (end[at] - start[at]), began
    spans = end - start
    sums = np.append(0.0, np.cumsum(spans * (at_end + slope * spans / 2)))
    place = np.maximum(np.searchsorted(start, edges, side="right") - 1, 0)
    left = np.clip(end[place] - edges, 0.0, spans[place])
    until = sums[place + 1] - left * (at_end[place] + slope[place] * left / 2)
    return np.asarray(np.maximum(np.diff(until) / np.diff(edges), 0.0))


def _best_scale(market: Market, edges: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, Demand]:
    """The start, or a share of it, or nothing: no prices prove what the jobs' heights do (L2)."""
    tried = [(answer(market, edges, share * start), share) for share in (0.0, 0.25, 0.5, 0.75, 1.0)]
    found, share = max(tried, key=lambda pair: pair[0].value)
    return share * start, found


def _ascend(market: Market, edges: np.ndarray, prices: np.ndarray, found: Demand) -> tuple[np.ndarray, Demand]:
    """Steps of limited-memory BFGS (Nocedal 1980) on the prices that are above 0 or want to be, while they help."""
    import numpy as np  # noqa: PLC0415 - only bounds need it

    unit = 1 / np.sqrt(np.outer(market.capacity, np.diff(edges)))  # in which all prices bend the bound about alike
    pairs: deque[tuple[np.ndarray, np.ndarray, float]] = deque(maxlen=MEMORY)
    base = float(market.length.sum())
    reach = 0.1 * max(float(prices.max()), float(np.median(1 / market.area)))  # of the first step
    gained: deque[float] = deque(maxlen=PATIENCE)
    for _ in range(STEPS):
        slope = np.where((prices > 0) | (found.surplus > 0), found.surplus, 0.0) * unit
        if not slope.any():
            break
        step = _direction(slope, pairs)
        step[slope == 0] = 0.0
        if float(np.sum(step * slope)) <= 0:
            pairs.clear()
            step = slope
        share = 1.0 if pairs else reach / float(np.max(np.abs(step * unit)))
        for _ in range(TRIES):
            tried = np.maximum(prices + share * step * unit, 0.0)
            then = answer(market, edges, tried)
            if then.value >= found.value + 1e-4 * float(np.sum(found.surplus * (tried - prices))):
                break
            share /= 3
        else:
            if not pairs:
                break
            pairs.clear()
            continue
        moved, turned = (tried - prices) / unit, (found.surplus - then.surplus) * unit
        curved = float(np.sum(moved * turned))
        if curved > 1e-12 * float(np.sum(turned * turned)):
            pairs.append((moved, turned, curved))
        gained.append(then.value - found.value)
        prices, found = tried, then
        if len(gained) == PATIENCE and sum(gained) <= ENOUGH * (base + max(found.value, 0.0)):
            break
    return prices, found


def _direction(slope: np.ndarray, pairs: Sequence[tuple[np.ndarray, np.ndarray, float]]) -> np.ndarray:
    """The slope times the inverse of the bend that the last steps (moved, slope lost, their product) tell of."""
    import numpy as np  # noqa: PLC0415 - only bounds need it

    step = slope.copy()
    shares = []
    for moved, turned, curved in reversed(pairs):
        share = float(np.sum(moved * step)) / curved
        step -= share * turned
        shares.append(share)
    if pairs:
        _, turned, curved = pairs[-1]
        step *= curved / float(np.sum(turned * turned))
    for (moved, turned, curved), share in zip(pairs, reversed(shares), strict=True):
        step += moved * (share - float(np.sum(turned * step)) / curved)
    return step


def _cut(market: Market, edges: np.ndarray, prices: np.ndarray, found: Demand) -> np.ndarray:
    """More edges: slots with a price are halved, free ones are cut where too much begins and ends to be bought.

    Those come first where halves differ the most in demand, or most is bought beyond capacity, and prices are steep.
    """
    import numpy as np  # noqa: PLC0415 - only bounds need it

    slots = len(edges) - 1
    some = (found.used > 0) & (found.begin < edges[-1])
    job, begin, used = found.job[some], found.begin[some], found.used[some]
    slot = np.searchsorted(edges, begin, side="right") - 1
    middle = np.floor((edges[:-1] + edges[1:]) / 2)
    early = np.clip(middle[slot] - begin, 0.0, used)
    ceiling = max(float(prices.max()), float(np.median(1 / market.area)))
    worth = np.zeros(slots)
    first, last = middle.copy(), middle.copy()
    for row, price in enumerate(prices):
        gpus = market.gpus[job] * market.pays[row, market.kind[job]]
        apart = np.abs(np.bincount(slot, gpus * (2 * early - used), minlength=slots))
        excess, start, end = _excess(edges, begin, used, gpus, float(market.capacity[row]))
        steep = np.maximum(np.abs(np.diff(price, prepend=price[:1])), np.abs(np.diff(price, append=price[-1:])))
        worth += np.where(price > 0, apart, excess) * (np.maximum(steep, 0.1 * price) + 1e-3 * ceiling)
        free = (prices.max(axis=0) == 0) & (excess > 0)
        first[free], last[free] = start[free], end[free]
    most = min(max(slots * 3 // 4, 8), SLOTS - slots)
    chosen = np.argsort(-worth, kind="stable")[: max(most, 0)]
    chosen = chosen[worth[chosen] > 0]
    return np.unique(np.concatenate([edges, first[chosen], last[chosen]]))


def _excess(
    edges: np.ndarray, begin: np.ndarray, used: np.ndarray, gpus: np.ndarray, capacity: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """By slot: GPU time bought beyond capacity at the moment, and when that begins and ends (whole seconds)."""
    import numpy as np  # noqa: PLC0415 - only bounds need it

    times = np.concatenate([begin, begin + used])
    order = np.argsort(times, kind="stable")
    times = times[order]
    over = np.cumsum(np.concatenate([gpus, -gpus])[order]) - capacity
    spans = np.diff(times, append=times[-1:])
    hot = (over > 1 / WHOLE) & (spans > 0)
    times, spans, over = times[hot], spans[hot], over[hot]
    slot = np.minimum(np.searchsorted(edges, times, side="right") - 1, len(edges) - 2)
    start, end = edges[1:].copy(), edges[:-1].copy()
    np.minimum.at(start, slot, times)
    np.maximum.at(end, slot, times + spans)
    start, end = np.floor(start), np.ceil(end)
    whole = (start <= edges[:-1]) & (end >= edges[1:])
    end = np.where(whole, np.floor((edges[:-1] + edges[1:]) / 2), np.minimum(end, edges[1:]))
    return np.bincount(slot, over * spans, minlength=len(edges) - 1), start, end
