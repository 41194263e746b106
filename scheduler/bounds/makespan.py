"""Bounds on the last end: the longest job, and what work must be left at each moment for the time after it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .instance import SECOND, Instance, Item
from .weights import Weighing, weighings

if TYPE_CHECKING:
    import numpy as np

FORMS = ("longest", "area", "wide", "nodes")
"""The longest job alone; GPU time; wide gangs rounded up to the cluster; gangs of one node rounded up to their node."""


def makespan_bounds(whole: Instance) -> dict[str, float]:
    """The bounds on last end - first submission, in seconds, by name of FORMS; those that do not apply are left out.

    At any moment t a job can have run for no longer than t - release; what is left of it is work for after t, and the
    cluster does no more than its capacity. So the last end is at least t + work left / capacity, for every t, and for
    all weights that never exceed the capacity (`weights`). It holds too for the jobs alone that may use only a part of
    the cluster, on that part. Moments are found in floating point, the bound at each is exact. O(n log n) a weighing.
    """
    items = whole.items
    if not items:
        return {}
    first = min(item.release for item in items)
    bounds = {"longest": (max(item.release + item.length for item in items) - first) / SECOND}
    best: dict[str, tuple[float, int, Weighing, list[Item]]] = {}
    for groups in dict.fromkeys([tuple(range(len(whole.groups))), *whole.usable]):
        inside = [set(may) <= set(groups) for may in whole.usable]
        some = [item for item in items if inside[item.may_use]]
        for weighing in weighings({item.shape for item in some}, [whole.groups[number] for number in groups]):
            value, moment = _latest(some, weighing)
            if weighing.form not in best or value > best[weighing.form][0]:
                best[weighing.form] = (value, moment, weighing, some)
    for form, (_, moment, weighing, some) in best.items():
        bounds[form] = (_at(some, weighing, moment) - first) / SECOND
    return {form: bounds[form] for form in FORMS if form in bounds}


def _at(items: Sequence[Item], weighing: Weighing, moment: int) -> int:
    """The bound at one moment, in microseconds, rounded down: exact."""
    work = 0
    for item in items:
        left = item.length - max(0, moment - item.release)
        if left > 0:
            work += weighing.weight[item.shape] * left
    return moment + work // weighing.capacity


def _latest(items: Sequence[Item], weighing: Weighing) -> tuple[float, int]:
    """(bound, moment) for the best moment, among all submissions and submissions + lengths."""
    import numpy as np  # noqa: PLC0415 - only bounds need it

    start = np.array([item.release for item in items], dtype=float)
    end = start + np.array([item.length for item in items], dtype=float)
    weight = np.array([weighing.weight[item.shape] for item in items], dtype=float)
    moments = np.unique(np.concatenate([start, end]))
    values = moments + (_after(end, weight, moments) - _after(start, weight, moments)) / weighing.capacity
    best = int(np.argmax(values))
    return float(values[best]), int(moments[best])


def _after(times: np.ndarray, weight: np.ndarray, moments: np.ndarray) -> np.ndarray:
    """For each moment t the sum of weight x (time - t) over the times after t."""
    import numpy as np  # noqa: PLC0415 - only bounds need it

    order = np.argsort(times)
    late, heavy = times[order], weight[order]
    from_here = np.append(np.cumsum((late * heavy)[::-1])[::-1], 0.0)
    weights = np.append(np.cumsum(heavy[::-1])[::-1], 0.0)
    place = np.searchsorted(late, moments, side="right")
    sums: np.ndarray = from_here[place] - moments * weights[place]
    return sums
