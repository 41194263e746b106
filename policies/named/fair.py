"""Policies for many tenants: fair shares, quotas and priorities that preempt."""

from __future__ import annotations

from ..blocking import Skip
from ..greedy import Greedy, Policy
from ..multifactor import Multifactor, Weights
from ..order import ORDERS
from ..place import PLACERS
from ..reclaim import ByPriority
from ..shares import DominantShare
from .basic import AGE_LIMIT


def cohort() -> Policy:
    """Kueue's order: jobs within their queue's nominal quota first, then by priority, then by arrival; best fit.

    Skipping (Kueue's BestEffortFIFO), with a 24 h age limit. Who gives way to whom is what the site's queues are
    configured with; without configured queues it is plain priority order. No estimates. A job that is stopped pays its
    restart; event by event; ties by arrival, then id.
    """
    return Greedy("cohort", order=ORDERS["priority"], place=PLACERS["best_fit"], blocking=Skip(AGE_LIMIT))


def urgent() -> Policy:
    """Highest priority first, and running preemptible jobs of a lower priority give way to it; best fit.

    Victims: the lowest priority, then the least lost work, then the last started, as few as it takes, and none unless
    the claimant then fits. Skipping, with a 24 h age limit. No estimates. Priorities do not age here, so a steady
    stream of urgent jobs can starve others, as it is meant to. Ties by arrival, then id.
    """
    return Greedy(
        "urgent",
        order=ORDERS["priority"],
        place=PLACERS["best_fit"],
        blocking=Skip(AGE_LIMIT),
        reclaim=ByPriority(),
    )


def drf() -> Policy:
    """Dominant resource fairness among users: whoever holds the smallest dominant share goes first; best fit.

    Shares of GPUs, CPUs and memory that are held now, over the users' weights (Ghodsi et al., NSDI 2011). Skipping, no
    age limit: a wide job waits until enough is free at once. No estimates, nobody is stopped. Ties by name.
    """
    return Greedy("drf", order=DominantShare(by_queue=False), place=PLACERS["best_fit"], blocking=Skip())


def fair() -> Policy:
    """Hierarchical DRF along the site's queues, then users; queues that borrow preempt each other to even shares.

    From the root down the queue with the smallest weighted dominant share goes first (Bhattacharya et al., SoCC 2013),
    jobs within their queue's nominal quota before all others. A queue below its share may take GPUs back from one that
    borrows more, as in Kueue's fair sharing; who may be stopped at all is the queues' own rule. Without configured
    queues: the queues that jobs name, side by side, and nobody is stopped. Skipping, no age limit. No estimates. Ties
    by name.
    """
    return Greedy("fair", order=DominantShare(by_queue=True), place=PLACERS["best_fit"], blocking=Skip(), fair=True)


def multifactor(
    *, age: float = 1000.0, fair_share: float = 10_000.0, size: float = 0.0, priority: float = 2000.0
) -> Policy:
    """Slurm's multifactor priority with Fair Tree: a weighted sum of age, fair share, size and priority; best fit.

    Use decays with a half-life of 7 days, age counts up to 7 days. Skipping, with a 24 h age limit. No estimates,
    nobody is stopped by it. Ties by arrival, then id.
    """
    weights = Weights(age=age, fair_share=fair_share, size=size, priority=priority)
    return Greedy("multifactor", order=Multifactor(weights), place=PLACERS["best_fit"], blocking=Skip(AGE_LIMIT))
