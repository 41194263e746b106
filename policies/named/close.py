"""Policies that care how close together a gang lies."""

from __future__ import annotations

from ...jobs.job import Job
from ..blocking import Skip
from ..consolidate import Consolidate
from ..greedy import Greedy, Policy
from ..hived import Hived
from ..options import Duration
from ..order import ORDERS, Fixed
from ..place import PLACERS, best_fit
from ..placers.ladder import MINUTE, Ladder
from ..plan import Lane
from .basic import AGE_LIMIT


def topology() -> Policy:
    """Each gang in the smallest part of the cluster that holds it: machine, NVLink domain, rack, rail unit, pod.

    Arrival order, skipping, with a 24 h age limit. Inside the part as few of the next smaller ones as possible, then
    best fit; of equal parts the tightest, then the first. Levels are node labels; see `gpusched.cluster.topology`. No
    estimates, nobody is stopped, event by event; ties by id.
    """
    return Greedy("topology", order=ORDERS["arrival"], place=PLACERS["topology"], blocking=Skip(AGE_LIMIT))


def ladder(
    *,
    node: tuple[Duration, ...] = (2 * MINUTE, 10 * MINUTE),
    rack: tuple[Duration, ...] = (10 * MINUTE, 30 * MINUTE),
    sizes: tuple[int, ...] = (8,),
) -> Policy:
    """The consolidation ladder (Philly): one node, after `node` seconds of waiting one rack, `rack` later anywhere.

    Arrival order, skipping, with a 24 h age limit. The times are by size: for gangs of up to `sizes` GPUs, and for
    larger ones. A job that is stopped begins at the bottom again. No estimates, nobody is stopped; it decides at events
    and when a patience ends; ties by id.
    """
    place = Ladder(best_fit, node=node, rack=rack, sizes=sizes)
    return Greedy("ladder", order=ORDERS["arrival"], place=place, blocking=Skip(AGE_LIMIT))


def hived() -> Policy:
    """HiveD: tenants own cells (GPUs, machines, racks) that are theirs whenever they call; others run there meanwhile.

    A queue's `cells` say what it owns. A job within its tenant's cells gets them at once, and opportunistic jobs give
    way, the least lost work first, after their minimum run time; jobs beyond their cells run opportunistically if they
    can be preempted, else they wait for cells. Those that cannot go first, then the others, each by arrival; skipping,
    no age limit; best fit inside cells and without tenants. No estimates; a job that is stopped pays its restart; event
    by event; ties by id. See `gpusched.policies.cells`.
    """
    rule = Hived()
    return Greedy("hived", order=ByKind(), place=rule, blocking=Skip(), reclaim=rule)


class ByKind(Fixed):
    """Jobs that cannot be preempted before those that can, each by arrival; the two are told apart where they wait."""

    def __init__(self) -> None:
        super().__init__(lambda job: (job.preemptible, job.submitted))
        self.lane = _kind


def _kind(job: Job) -> Lane:
    return ("preemptible",) if job.preemptible else ()


def consolidating(*, moves: int = 8, gangs: int = 4) -> Policy:
    """As `topology`, and preemptible jobs are moved where that makes room for a gang, each to a place kept for it.

    At most `moves` jobs for one gang, those that lose the least work since their last checkpoint, after their minimum
    run time, for at most `gangs` gangs at one event. A move costs a restart. See `gpusched.policies.consolidate`.
    """
    return Greedy(
        "consolidating",
        order=ORDERS["arrival"],
        place=PLACERS["topology"],
        blocking=Skip(AGE_LIMIT),
        reclaim=Consolidate(moves=moves, gangs=gangs),
    )
