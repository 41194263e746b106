"""A gang that waits for its victims: what comes meanwhile neither takes its room nor costs others theirs."""

from __future__ import annotations

import pytest

from builders import World, cluster, job
from gpusched.jobs.job import HOLDING, State


@pytest.mark.parametrize("policy", ["urgent", "priority+best_fit+skip+preempt"])
def test_a_gang_displaces_once_however_many_like_it_come_while_its_victims_leave(policy):
    world = World(cluster("4x8"), policy)
    world.submit(*[job("8 GPUs, stoppable, priority 10") for _ in range(4)])
    for number in range(1, 5):
        world.started(number)
    world.tick(at=60.0)
    world.submit(job("2x8 GPUs, priority 90"))
    told = [one.id for one in world.jobs.values() if one.state is State.PREEMPTING]
    assert len(told) == 2
    world.submit(job("2x8 GPUs, priority 20"))
    victims = {claimant: len(theirs) for claimant, theirs in world.engine.queue.claimants.items()}
    assert victims == {5: 2, 6: 2}, "the second has victims of its own, and the first no more than it had"
    world.submit(job("2x8 GPUs, priority 15"))
    world.finished(told[0], 143)
    assert world.jobs[5].state is State.QUEUED
    world.finished(told[1], 143)
    assert world.jobs[5].state in HOLDING
    world.check()
