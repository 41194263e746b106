"""First come first served in three tempers, and priorities that age."""

from __future__ import annotations

from ..blocking import Earmark, Skip, Strict
from ..greedy import Greedy, Policy
from ..order import ORDERS
from ..place import PLACERS

AGE_LIMIT = 24 * 3600.0
"""Seconds in the queue after which a job that was passed over under `binpack` blocks those it competes with."""


def fifo() -> Policy:
    """Strict FIFO: arrival order, first fit, and nobody ever overtakes, even if the head leaves GPUs idle."""
    return Greedy("fifo", order=ORDERS["arrival"], place=PLACERS["first_fit"], blocking=Strict())


def binpack() -> Policy:
    """Best-effort FIFO with bin packing: arrival order, best fit, jobs that do not fit are passed over.

    A job that waited 24 h blocks all that compete with it for nodes, so none starves.
    """
    return Greedy("binpack", order=ORDERS["arrival"], place=PLACERS["best_fit"], blocking=Skip(AGE_LIMIT))


def priority() -> Policy:
    """Highest priority first, each point worth an hour of waiting; best fit; jobs that do not fit are passed over.

    Without priorities it is `binpack`. Age counts, so a steady stream of urgent jobs starves nobody; a job that waited
    24 h blocks those behind it that compete with it for nodes. The live default.
    """
    return Greedy("priority", order=ORDERS["aged_priority"], place=PLACERS["best_fit"], blocking=Skip(AGE_LIMIT))


def gang() -> Policy:
    """Arrival order, best fit, strict within a size class; wide gangs are not starved by narrow jobs.

    The rule, exactly. A gang's size class is its number of GPUs rounded up to a power of two. In one pass, in order of
    arrival: (1) a job whose class is blocked waits; (2) a job is placed by best fit on nodes that nobody has
    earmarked; (3) a job that does not fit blocks its class for this pass, and earmarks the nodes closest to holding it:
    of those that could hold a part of it and that nobody has earmarked, the ones with the most GPUs free, lowest number
    first, as many as would hold it when idle. Later arrivals of every class start on other nodes only.

    So a narrow job overtakes a wide one only where that cannot delay it. No gang starves: the oldest waiting gang's
    earmarked nodes get no new work, so their free GPUs only grow as running jobs end; a node enters the
    set only by having more free than the one it replaces; hence the set drains and the gang starts.
    """
    return Greedy("gang", order=ORDERS["arrival"], place=PLACERS["best_fit"], blocking=Earmark())
