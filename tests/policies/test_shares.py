"""Dominant resource fairness, flat and along queues: the papers' own examples, weights, and order among equals."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from builders import World, cluster, job
from gpusched.policies.shares import DominantShare, Shares, asks
from gpusched.policies.tree import QueueNode, Tree


def who_runs(lab: World) -> Counter[str]:
    return Counter(one.user or one.queue for one in lab.running())


def test_the_example_of_the_paper():
    """9 CPUs and 18 GB: a user who asks for <1 CPU, 4 GB> gets three, one who asks for <3 CPUs, 1 GB> two."""
    lab = World(cluster("1x0+9cpu+18gb"), "drf")
    lab.submit(*[job("no GPU, 1 CPUs, 4 GB, user ann")] * 9, *[job("no GPU, 3 CPUs, 1 GB, user bob")] * 9)
    assert who_runs(lab) == {"ann": 3, "bob": 2}


def test_one_who_came_first_gets_no_more():
    lab = World(cluster("1x8"), "drf")
    lab.submit(*[job("1 GPUs, user ann")] * 20, *[job("1 GPUs, user bob")] * 2, *[job("1 GPUs, user cid")] * 20)
    assert who_runs(lab) == {"ann": 3, "bob": 2, "cid": 3}


def test_whoever_holds_least_gets_what_becomes_free():
    lab = World(cluster("1x4"), "drf")
    lab.submit(*[job("1 GPUs, user ann")] * 8)
    lab.submit(*[job("1 GPUs, user bob")] * 8)
    assert who_runs(lab) == {"ann": 4}
    for number in (1, 2):
        lab.finished(number)
    assert who_runs(lab) == {"ann": 2, "bob": 2}
    lab.finished(3)
    assert who_runs(lab) == {"ann": 1, "bob": 3} or who_runs(lab) == {"ann": 2, "bob": 2}


def test_among_the_jobs_of_one_user_the_urgent_goes_first():
    lab = World(cluster("1x1"), "drf")
    lab.submit(job("1 GPUs, user ann"), job("1 GPUs, user ann"), job("1 GPUs, user ann, priority 90"))
    lab.finished(3)
    assert lab.states() == {1: "STARTING", 2: "QUEUED", 3: "SUCCEEDED"}


WEIGHTED = Tree((QueueNode("org"), QueueNode("a", "org", weight=3.0), QueueNode("b", "org", users={"cid": 2.0})))


def test_weights_of_queues_and_users_count():
    lab = World(cluster("1x12"), "fair")
    lab.engine.use_tree(WEIGHTED)
    lab.submit(
        *[job("1 GPUs, queue a, user ann")] * 20,
        *[job("1 GPUs, queue b, user bob")] * 20,
        *[job("1 GPUs, queue b, user cid")] * 20,
    )
    assert who_runs(lab) == {"ann": 9, "bob": 1, "cid": 2}


def test_users_who_want_different_things_do_not_cost_each_other_their_share():
    """The paper's reason to rescale: one user of n2 takes GPUs and the other CPUs; n2 still gets half of the CPUs."""
    lab = World(cluster("1x10+10cpu"), "fair")
    lab.engine.use_tree(Tree((QueueNode("n1"), QueueNode("n2"))))
    lab.submit(
        *[job("1 GPUs, queue n2, user gpu")] * 12,
        *[job("no GPU, 1 CPUs, queue n1, user left")] * 10,
        *[job("no GPU, 1 CPUs, queue n2, user right")] * 10,
    )
    assert who_runs(lab) == {"gpu": 10, "left": 5, "right": 5}


def test_one_who_can_get_no_more_does_not_hold_its_siblings_share_down():
    """The paper's reason to leave blocked nodes out: n3's CPUs are all it gets, its GPUs count as they grow."""
    lab = World(cluster("1x9+3cpu"), "fair")
    lab.engine.use_tree(Tree((QueueNode("n1"), QueueNode("n2"), QueueNode("n3"))))
    lab.submit(
        *[job("no GPU, 1 CPUs, queue n1, user a")] * 5,
        *[job("1 GPUs, queue n2, user b")] * 9,
        *[job("no GPU, 1 CPUs, queue n3, user c")] * 5,
        *[job("1 GPUs, queue n3, user d")] * 9,
    )
    held = who_runs(lab)
    assert (held["b"], held["d"]) in {(5, 4), (4, 5)}


def test_what_somebody_holds_who_wants_no_more_counts_in_full():
    lab = World(cluster("1x10+10cpu"), "fair")
    lab.engine.use_tree(Tree((QueueNode("n1"), QueueNode("n2"))))
    lab.submit(*[job("1 GPUs, queue n2, user gpu")] * 10)
    lab.submit(
        *[job("no GPU, 1 CPUs, queue n1, user left")] * 10,
        *[job("no GPU, 1 CPUs, queue n2, user right")] * 10,
    )
    assert who_runs(lab) == {"gpu": 10, "left": 10}


def test_without_a_tree_the_queues_that_jobs_name_stand_side_by_side():
    lab = World(cluster("1x8"), "fair")
    lab.submit(
        *[job("1 GPUs, queue a, user ann")] * 8,
        *[job("1 GPUs, queue b, user bob")] * 8,
        *[job("1 GPUs, queue b, user cid")] * 8,
    )
    assert who_runs(lab) == {"ann": 4, "bob": 2, "cid": 2}


@pytest.mark.parametrize("seed", range(20))
def test_shares_are_even_to_within_one_job_where_all_ask_for_the_same(seed):
    """The law of progressive filling: nobody who waits holds more than one job less than anybody else."""
    draw = Random(f"shares {seed}")  # noqa: S311 - a test's world, no secret
    lab = World(cluster("2x8"), "drf")
    users = ["ann", "bob", "cid", "dan"]
    for _ in range(80):
        lab.submit(job(f"1 GPUs, user {draw.choice(users)}"))
        holding = lab.running()
        if len(holding) == 16:
            for one in holding:
                lab.finished(one.id)
    held = who_runs(lab)
    waiting = {one.user for one in lab.engine.queue.in_order()}
    lab.check_pool()
    if waiting:
        assert max(held.values()) - min(held[user] for user in waiting) <= 1 + 16 // 4


def test_the_book_forgets_what_is_no_longer_held():
    book = Shares()
    lab = World(cluster("1x8+8cpu"), "drf")
    jobs = lab.submit(job("2 GPUs, 4 CPUs, user ann"), job("0.5 GPU, user ann"))
    for one in jobs:
        book.started(one)
    assert book.held == {("default", "ann"): (2.5, 4000.0, 0.0)}
    assert asks(jobs[0]) == (2.0, 4000.0, 0.0)
    for one in jobs:
        book.ended(one, 5.0)
    assert book.held == {}


def test_jobs_of_different_users_do_not_share_a_line():
    order = DominantShare(by_queue=False)
    lab = World(cluster("1x8"), "drf")
    ann, bob = lab.submit(job("2 GPUs, user ann"), job("2 GPUs, user bob"))
    assert order.lane(ann) != order.lane(bob)
