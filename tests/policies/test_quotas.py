"""Quotas in force: who may start, who borrows, who gives it back, and that nobody does so in a circle."""

from __future__ import annotations

from random import Random

import pytest

from builders import World, cluster, job
from gpusched.jobs.job import HOLDING, State
from gpusched.policies.plan import Token
from gpusched.policies.tree import GPUS, Limits, PreemptionRules, QueueNode, Quota, Tree
from gpusched.scheduler.explain import explain

EVER = PreemptionRules("lower_priority", "any", "never")


def leaf(name: str, nominal: float, parent: str = "lab", **more: object) -> QueueNode:
    return QueueNode(name, parent, quotas={GPUS: Quota(nominal)}, **more)


class Lab(World):
    """Every submission a second after the last: what has just started has nothing to lose, and is left alone."""

    def submit(self, *asks):
        self.clock.wait(self.now + 1)
        return super().submit(*asks)


def world(tree: Tree, policy: str = "cohort", nodes: str = "2x4") -> World:
    made = Lab(cluster(nodes), policy)
    made.engine.use_tree(tree)
    return made


def running(of: World) -> list[int]:
    return [one.id for one in of.running() if one.state is not State.PREEMPTING]


def reason(of: World, number: int) -> str:
    return of.engine.queue.group_of(of.jobs[number]).why.token


TWO = Tree((QueueNode("lab"), leaf("a", 4), leaf("b", 4)))


def test_a_queue_borrows_what_the_other_leaves_unused():
    lab = world(TWO)
    lab.submit(job("4 GPUs, queue a, stoppable"), job("4 GPUs, queue a, stoppable"), job("1 GPUs, queue a, stoppable"))
    assert running(lab) == [1, 2]
    assert reason(lab, 3) == Token.QUOTA_EXCEEDED
    lab.check()


def test_work_that_cannot_be_stopped_stays_within_the_nominal_quota():
    lab = world(TWO)
    lab.submit(job("4 GPUs, queue a"), job("1 GPUs, queue a"), job("2 GPUs, queue a, stoppable"))
    assert running(lab) == [1, 3]
    assert reason(lab, 2) == Token.QUOTA_EXCEEDED


def test_a_queue_that_may_lets_such_work_borrow_too():
    tree = Tree((QueueNode("lab"), leaf("a", 4, non_preemptible_may_borrow=True), leaf("b", 4)))
    lab = world(tree)
    lab.submit(job("4 GPUs, queue a"), job("4 GPUs, queue a"))
    assert running(lab) == [1, 2]


def test_the_owner_takes_back_what_was_lent_and_starts_when_it_is_free():
    lab = world(TWO)
    lab.submit(job("4 GPUs, queue a, stoppable"), job("4 GPUs, queue a, stoppable"))
    lab.submit(job("3 GPUs, queue b, stoppable"))
    assert lab.states() == {1: "STARTING", 2: "PREEMPTING", 3: "QUEUED"}
    assert reason(lab, 3) == Token.WAITING_FOR_VICTIMS
    assert lab.store.choices[-1].preemptions == (2,)
    lab.finished(2, 143)
    assert running(lab) == [1, 3]
    assert lab.states()[2] == "QUEUED"
    lab.check()


def test_what_the_claimant_waits_for_goes_to_nobody_else():
    lab = world(TWO)
    lab.submit(job("4 GPUs, queue a, stoppable"), job("4 GPUs, queue a, stoppable"))
    lab.submit(job("3 GPUs, queue b, stoppable"))
    lab.submit(job("1 GPUs, queue a, stoppable"), job("1 GPUs, queue b, stoppable"))
    lab.finished(2, 143)
    assert running(lab) == [1, 3, 5]


def test_nothing_is_stopped_if_the_claimant_would_not_fit_then_either():
    lab = world(Tree((QueueNode("lab"), leaf("a", 4), leaf("b", 6))), nodes="2x4")
    lab.submit(job("4 GPUs, queue a, stoppable"), job("2 GPUs, queue a, stoppable"))
    lab.submit(job("6 GPUs, queue b, stoppable"))  # no node has six
    assert running(lab) == [1, 2]
    assert all(not choice.preemptions for choice in lab.store.choices)


def test_a_queue_within_its_own_loses_nothing():
    lab = world(TWO)
    lab.submit(job("4 GPUs, queue a, stoppable"), job("4 GPUs, queue b, stoppable"))
    lab.submit(job("4 GPUs, queue b, stoppable, priority 100"), job("1 GPUs, queue a, stoppable"))
    assert running(lab) == [1]  # in its own queue the urgent one takes the place of the other
    assert lab.states()[2] == "PREEMPTING"
    lab.finished(2, 143)
    assert running(lab) == [1, 3]


def test_victims_are_those_that_lose_the_least_and_no_more_than_it_takes():
    lab = world(TWO, nodes="1x8")
    lab.submit(job("2 GPUs, queue a, stoppable"))
    lab.clock.wait(10)
    lab.submit(job("2 GPUs, queue a, stoppable"))
    lab.clock.wait(20)
    lab.submit(job("1 GPUs, queue a, stoppable"), job("3 GPUs, queue a, stoppable"))
    lab.clock.wait(30)
    lab.submit(job("2 GPUs, queue b, stoppable"))
    # 3 lost 10 GPU-seconds, 4 lost 30, 2 lost 40: 3 goes first, then 4, and then 3 need not go.
    assert lab.store.choices[-1].preemptions == (4,)


def test_a_job_runs_its_minimum_before_it_is_stopped():
    tree = Tree((QueueNode("lab", min_runtime=60.0), leaf("a", 4), leaf("b", 4)))
    lab = world(tree)
    lab.submit(job("4 GPUs, queue a, stoppable"), job("4 GPUs, queue a, stoppable"))
    lab.submit(job("4 GPUs, queue b"))
    assert running(lab) == [1, 2]
    due = lab.engine.next_time()
    assert due == 61.0
    lab.tick(at=due)
    assert len(running(lab)) == 1


def test_jobs_of_a_queue_that_is_gone_keep_waiting_and_are_told_so():
    lab = world(TWO)
    lab.submit(job("4 GPUs, queue a"), job("4 GPUs, queue gone"))
    assert reason(lab, 2) == Token.QUEUE_NOT_FOUND
    lab.engine.use_tree(Tree((QueueNode("lab"), leaf("a", 4), leaf("gone", 4))))
    lab.tick()
    assert running(lab) == [1, 2]
    lab.engine.use_tree(None)
    lab.tick()
    lab.check()


def test_a_paused_queue_starts_nothing():
    lab = world(Tree((QueueNode("lab", paused=True), leaf("a", 4), QueueNode("free"))))
    lab.submit(job("1 GPUs, queue a"), job("1 GPUs, queue free"))
    assert running(lab) == [2]
    assert reason(lab, 1) == Token.QUEUE_PAUSED


@pytest.mark.parametrize(
    ("limits", "starts", "says"),
    [
        (Limits(running_jobs=2), [1, 2, 5], Token.QUOTA_EXCEEDED),
        (Limits(user_gpus=2), [1, 2, 4, 5], Token.USER_LIMIT),
        (Limits(user_running_jobs=1), [1, 4, 5], Token.USER_LIMIT),
        (Limits(job_gpus=0.5), [5], Token.QUOTA_EXCEEDED),
    ],
)
def test_limits_hold_for_users_and_queues(limits, starts, says):
    tree = Tree((QueueNode("lab"), QueueNode("a", "lab", limits=limits), QueueNode("b", "lab")))
    lab = world(tree, nodes="1x8")
    lab.submit(
        job("1 GPUs, queue a, user ann"),
        job("1 GPUs, queue a, user ann"),
        job("1 GPUs, queue a, user ann"),
        job("1 GPUs, queue a, user bob"),
        job("1 GPUs, queue b, user ann"),
    )
    assert running(lab) == starts
    assert reason(lab, 3) == says


def test_quotas_by_type_send_work_to_the_type_that_is_left():
    quotas = {"H100": Quota(4, 0.0), "A100": Quota(4, 0.0)}
    tree = Tree((QueueNode("a", quotas=quotas),))
    lab = world(tree, nodes="1x8:H100 1x8:A100")
    lab.submit(*[job("2 H100|A100 GPUs, queue a")] * 5)
    kinds = [lab.engine.pool.nodes[one.placement[0].node].gpu_type for one in lab.running()]
    assert kinds == ["H100", "H100", "A100", "A100"]
    assert reason(lab, 5) == Token.QUOTA_EXCEEDED


def test_quotas_hold_under_every_kind_of_policy():
    for policy in ("fifo", "binpack", "gang", "priority", "drf", "fair", "multifactor", "urgent"):
        lab = world(TWO, policy)
        lab.submit(*[job("1 GPUs, queue a")] * 6, *[job("1 GPUs, queue b")] * 6)
        held = [one.queue for one in lab.running()]
        assert (held.count("a"), held.count("b")) == (4, 4), policy


# Laws -----------------------------------------------------------------------------------------------------------------


def live(seed: int) -> int:
    """A crowded lab with three queues: jobs come, victims go at once, some end. How many were stopped."""
    draw = Random(f"quotas {seed}")  # noqa: S311 - a test's world, no secret
    policy = draw.choice(["cohort", "fair", "urgent", "drf"])
    own = [draw.randint(0, 4) for _ in "abc"]
    lending = draw.choice([None, 2])
    queues = [
        QueueNode(name, "lab", quotas={GPUS: Quota(nominal, None, lending)}, weight=draw.choice([1.0, 2.0]))
        for name, nominal in zip("abc", own, strict=True)
    ]
    lab = world(Tree((QueueNode("lab"), *queues)), policy, draw.choice(["2x4", "1x8"]))
    stopped = 0
    for _ in range(50):
        name, gpus = draw.choice("abc"), draw.choice([1, 1, 2, 3, 4])
        stoppable = ", stoppable" * (draw.random() < 0.8)
        lab.submit(job(f"{gpus} GPUs, queue {name}, priority {draw.choice([0, 50, 100])}{stoppable}"))
        stopped += settle(lab)
        holding = lab.running()
        if holding and draw.random() < 0.3:
            lab.finished(draw.choice(holding).id)
            stopped += settle(lab)
    lab.check()
    return stopped


def settle(lab: World) -> int:
    """Victims go at once, as in a simulation. It must come to an end, and who stopped somebody gets its place."""
    stopped = 0
    while going := [one for one in lab.running() if one.state is State.PREEMPTING]:
        stopped += len(going)
        assert stopped < 50, "they stop one another for ever"
        told = [event for _, event in lab.store.events() if event.kind == "preempted" and event.time == lab.now]
        claimants = {event.data["claimant"] for event in told if event.job in {one.id for one in going}}
        for one in going:
            lab.finished(one.id, 143)
        for number in claimants:
            assert lab.jobs[number].state in HOLDING, f"for job {number} others were stopped for nothing"
    quotas = lab.engine.quotas
    assert quotas.mark() == 0
    for name in "abc":
        held = sum(one.shape.total_gpus for one in lab.running() if one.queue == name)
        assert quotas.usage.of(name, GPUS) == held
        assert held <= quotas.tree.potential(name, GPUS)
    return stopped


def test_no_circle_no_overdraft_and_nobody_is_stopped_for_nothing():
    stopped = sum(live(seed) for seed in range(60))
    assert stopped > 300, "the lives were too quiet to show anything"


def test_a_job_is_told_who_gave_way_to_it():
    lab = world(TWO)
    lab.submit(job("4 GPUs, queue a, stoppable", name="big"), job("4 GPUs, queue a, stoppable"))
    (waits,) = lab.submit(job("3 GPUs, queue b, stoppable"))
    said = explain(lab.engine, waits, lab.now)
    assert [reason.token for reason in said.reasons] == [Token.WAITING_FOR_VICTIMS, Token.INSUFFICIENT_GPUS]
    assert said.reasons[0].message == "job 2 gave way to it; it starts when their processes are gone"
    lab.finished(2, 143)
    assert waits.state is State.STARTING


def test_work_that_was_saved_is_not_lost():
    lab = world(TWO, nodes="1x8")
    first, second = lab.submit(job("4 GPUs, queue a, stoppable"), job("4 GPUs, queue a, stoppable"))
    first.saves_every = 10.0  # 29 s later it has lost 9 s, the other all
    lab.clock.wait(29)
    lab.submit(job("4 GPUs, queue b, stoppable"))
    assert second.saves_every == float("inf")
    assert lab.store.choices[-1].preemptions == (1,)
