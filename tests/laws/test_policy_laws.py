"""The laws on every policy of the catalogue, and on what can be composed of its parts."""

from __future__ import annotations

import itertools

import pytest

from gpusched.policies.blocking import Earmark, Skip, Strict
from gpusched.policies.catalog import CATALOG
from gpusched.policies.greedy import Greedy
from gpusched.policies.named.basic import AGE_LIMIT
from gpusched.policies.order import ORDERS
from gpusched.policies.place import PLACERS
from gpusched.policies.placers import SCORED
from gpusched.policies.testing import Promises, check_policy

PROMISES = {
    "fifo": Promises(strict=True, patience=0.0),
    "binpack": Promises(never_splits=True, patience=AGE_LIMIT),
    "priority": Promises(never_splits=True, patience=AGE_LIMIT),  # among equals; higher ones may pass for a while
    "gang": Promises(never_splits=True, patience=0.0),
}
"""What these promise beyond the laws; of the others the parts that they are made of say it."""

UNSCORED = [name for name in PLACERS if name not in SCORED]
"""Those by score have their laws in tests/policies/test_scores.py."""


@pytest.mark.parametrize("name", CATALOG)
def test_a_policy_of_the_catalogue_keeps_the_laws_and_its_promises(name):
    check_policy(name, promises=PROMISES.get(name), examples=80)


@pytest.mark.parametrize("name", ["+".join(parts) for parts in itertools.product(ORDERS, UNSCORED, ["strict", "skip"])])
def test_a_composition_keeps_the_laws(name):
    check_policy(name, examples=25)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("place", ["best_fit", "spread"])
def test_earmarks_keep_the_laws_under_every_order(order, place):
    check_policy(lambda: Greedy("earmark", order=ORDERS[order], place=PLACERS[place], blocking=Earmark()), examples=60)


@pytest.mark.parametrize("limit", [0.0, 60.0, 3600.0])
def test_an_age_limit_ends_every_wait(limit):
    """Arrival order: only under it does a job that blocks stand before all that come later."""
    check_policy(
        lambda: Greedy("aging", order=ORDERS["arrival"], place=PLACERS["first_fit"], blocking=Skip(limit)),
        promises=Promises(patience=limit),
        examples=80,
    )


def test_shortest_first_is_strict_in_its_own_order():
    """No job starts while one that is said to be shorter waits and could run."""
    check_policy(
        lambda: Greedy("sjf", order=ORDERS["shortest"], place=PLACERS["best_fit"], blocking=Strict()),
        promises=Promises(strict=True, never_splits=True),
        examples=150,
    )
