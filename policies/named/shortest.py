"""Shortest first: by the run time, by the remaining run time, by its product with the GPUs, or by the GPUs alone.

Estimates are what a job says (`estimated_duration`); in a simulation that is an oracle unless it is told otherwise.
They are event-driven: they decide at arrivals and ends. A start is free; what a restart costs is the cluster's (or the
profile's) affair, and `margin` is how much of it the policy reckons with. Best fit; jobs that do not fit are passed
over, without an age limit: `aging` is the guard against starving.
"""

from __future__ import annotations

from ..blocking import Skip, Strict
from ..greedy import Greedy, Policy
from ..options import Duration
from ..place import PLACERS
from ..predict import Predicted
from ..reclaim import ByOrder
from ..remaining import Remaining, fewest_gpus


def sjf(*, aging: float = 0.0) -> Policy:
    """SJF: the shortest estimated run first, nobody is stopped; best fit; jobs that do not fit are passed over.

    Ties by arrival, then id; jobs without an estimate last. `aging`: seconds that a second of waiting is worth.
    """
    return Greedy("sjf", order=Remaining(aging=aging), place=PLACERS["best_fit"], blocking=Skip())


def srtf(*, margin: Duration = 0.0, aging: float = 0.0, preempt: bool = True) -> Policy:
    """SRTF: the least remaining run time first, running jobs included; best fit; what does not fit is passed over.

    A running job with more left gives way, the one with the most left first. With a `margin`, only if it has that much
    more left: set it to what a restart costs. `aging`: seconds that a second since the submission is worth.
    `preempt=no` stops nobody. Ties: what waited longer, then id; jobs without an estimate last.
    """
    order = Remaining(margin=margin, aging=aging)
    reclaim = ByOrder() if preempt else None
    return Greedy("srtf", order=order, place=PLACERS["best_fit"], blocking=Skip(), reclaim=reclaim)


def srsf(*, margin: Duration = 0.0, aging: float = 0.0, preempt: bool = True) -> Policy:
    """SRSF: the least remaining run time x GPUs first, running jobs included; best fit; else as `srtf`.

    A `margin` counts for each GPU of the running job; `aging` is in GPU-seconds per second.
    """
    order = Remaining(by_gpus=True, margin=margin, aging=aging)
    reclaim = ByOrder() if preempt else None
    return Greedy("srsf", order=order, place=PLACERS["best_fit"], blocking=Skip(), reclaim=reclaim)


def smallest(*, preempt: bool = True) -> Policy:
    """The fewest GPUs first, running jobs included (`sjf` in Tiresias's simulator); best fit; skipping.

    No estimates. Wider running jobs give way, the widest first, the last come first. Ties by arrival, then id.
    """
    reclaim = ByOrder() if preempt else None
    return Greedy("smallest", order=fewest_gpus, place=PLACERS["best_fit"], blocking=Skip(), reclaim=reclaim)


def qssf() -> Policy:
    """QSSF (Helios): the least predicted run time x GPUs first, strictly, nobody is stopped; best fit.

    The prediction is the rolling mean of the same user's ended jobs with a like name and as many GPUs, made when a job
    joins the queue; see `predict`. No estimates of users. Blocking: the first that does not fit holds up all others.
    Ties by arrival, then id.
    """
    return Greedy("qssf", order=Predicted(), place=PLACERS["best_fit"], blocking=Strict())
