"""Backfill: a promise to those that cannot start, and the room beside it for others."""

from __future__ import annotations

from ..backfill import PATIENCE, Backfill
from ..estimates import LAST, QUANTILE
from ..future import OVERRUN
from ..greedy import Greedy, Policy
from ..options import Duration
from ..order import ORDERS
from ..place import PLACERS

PROMISED = 100
"""Jobs that `conservative` promises a start by default, as many as Slurm's backfill tries by default."""


def easy(
    depth: float = 1,
    *,
    shortest_first: bool = False,
    overrun: float = OVERRUN,
    patience: Duration = PATIENCE,
    last: int = LAST,
    quantile: float = QUANTILE,
) -> Policy:
    """EASY backfill: arrival order, best fit; the first that cannot start is promised when it will at the latest.

    Later jobs start before it only where that delays it not: they end by their estimate before its start, or use what
    it leaves over (Lifka, JSSPP 1995). Estimates are `estimated_duration`, else `max_duration`, else the user's last
    runs. Options: `depth` jobs with a promise, `shortest_first` candidates, `overrun`, `patience`, and `last` and
    `quantile` of a user's runs; `gpusched.policies.backfill.Backfill` says what they mean, and the rule exactly.
    """
    return _backfill("easy", Backfill(depth, shortest_first, overrun, patience, last, quantile))


def sjbf(depth: float = 1) -> Policy:
    """EASY backfill whose candidates go shortest first (SJBF): more of them fit before the promised start.

    As `easy`, with the option `depth`. The order in which jobs are promised a start stays that of arrival.
    """
    return _backfill("sjbf", Backfill(depth, shortest_first=True))


def conservative(depth: float = PROMISED, *, overrun: float = OVERRUN, patience: Duration = PATIENCE) -> Policy:
    """Conservative backfill: arrival order, best fit; the first 100 who wait have promised starts, never made later.

    Whoever ends before its estimate lets the promises move to earlier starts, in order (Mu'alem and Feitelson, IEEE
    TPDS 2001). Those behind the first 100 start where that delays no promise. `depth=all` is the textbook's: a promise
    to everybody. The work of an early end grows with the promises, and with the instants at which somebody ends: on
    clusters of thousands of nodes prefer `easy?depth=5`. Options else as for `easy`.
    """
    return _backfill("conservative", Backfill(depth, overrun=overrun, patience=patience))


def _backfill(name: str, rule: Backfill) -> Policy:
    return Greedy(name, order=ORDERS["arrival"], place=PLACERS["best_fit"], blocking=rule)
