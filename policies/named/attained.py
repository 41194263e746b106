"""Least attained service: nothing has to be known of run times, running jobs give way to those that had less.

They decide at arrivals, ends, and when a job crosses a limit, without ticks; a start is free, what a restart costs is
the cluster's (or the profile's) affair. Best fit; jobs that do not fit are passed over. What counts is what a job's
attempts have held, start-up and lost work included. In a level, jobs that ran before go first, by first start, then the
others by arrival, then id. See `attained`.
"""

from __future__ import annotations

from typing import Literal

from .. import orders
from ..blocking import Skip
from ..greedy import Greedy, Policy
from ..options import Duration
from ..order import KeyOf, Order
from ..place import PLACERS
from ..reclaim import ByOrder


def las(*, step: Duration = orders.HOUR, promote: float = 0.0) -> Policy:
    """LAS: the least wall time held first, compared in steps of an hour; running jobs that had more give way.

    The step is the hysteresis: two jobs take turns of an hour. Best fit, skipping, no estimates.
    """
    return _preemptive("las", orders.las(step=step, promote=promote))


def las_2d(*, step: Duration = orders.NODE_HOUR, promote: float = 0.0) -> Policy:
    """2D-LAS: the least GPU time held first, compared in steps of 8 GPU-hours; running jobs that had more give way.

    Best fit, skipping, no estimates.
    """
    return _preemptive("las-2d", orders.las_2d(step=step, promote=promote))


def tiresias(
    *,
    limits: tuple[Duration, ...] = orders.QUEUE_LIMITS,
    promote: float = 0.0,
    wake: Literal["crossing", "tiresias-artifact"] = "crossing",
) -> Policy:
    """Tiresias-L: GPU time held, in queues with limits of 3,250 and 7,200 GPU-seconds (the original repository's).

    Best fit, skipping, no estimates; jobs of a lower queue give way. `promote` is the paper's knob P: a job that
    waited P times as long as it has executed is back in the first queue; 0 = never. `wake=tiresias-artifact` demotes
    when the published simulator does, which is later than the limit for some gangs.
    """
    return _preemptive("tiresias", orders.tiresias(limits=limits, promote=promote, wake=wake))


def tiresias_5h() -> Policy:
    """Tiresias-L with one limit of 5 GPU-hours, as Pollux's comparison has it; else as `tiresias`."""
    return _preemptive("tiresias-5h", orders.tiresias(limits=(5 * orders.HOUR,)))


def tiresias_16h() -> Policy:
    """Tiresias-L with one limit of 16 GPU-hours, as later comparisons have it; else as `tiresias`."""
    return _preemptive("tiresias-16h", orders.tiresias(limits=(16 * orders.HOUR,)))


def gittins(
    *,
    limits: tuple[Duration, ...] = orders.QUEUE_LIMITS,
    delta: Duration = orders.DELTA,
    step: Duration = orders.RANK_STEP,
    promote: float = 0.0,
) -> Policy:
    """Tiresias-G: as `tiresias`, and inside a queue by the Gittins index over what ended jobs needed in all.

    The index says who is likely to end within the next `delta` GPU-seconds (inf: within the best time to look) for
    what it would cost. It is learnt from the jobs that ended; until ten did, it is `tiresias`. A running job is ranked
    anew at `step` GPU-seconds and each time that they have doubled; a waiting one keeps its rank.
    """
    return _preemptive("gittins", orders.gittins(limits=limits, delta=delta, step=step, promote=promote))


def _preemptive(name: str, order: Order | KeyOf) -> Policy:
    return Greedy(name, order=order, place=PLACERS["best_fit"], blocking=Skip(), reclaim=ByOrder())
