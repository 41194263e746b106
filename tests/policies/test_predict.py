"""QSSF: run times foretold from like jobs of the past."""

from __future__ import annotations

import pytest

from builders import World, cluster, job
from gpusched.jobs.job import Job, Shape, State
from gpusched.policies.catalog import load
from gpusched.policies.predict import History, stem
from gpusched.policies.testing import check_policy


def ran(book: History, seconds: float, *, user: str = "ann", name: str = "train", gpus: int = 1, executed: float = 0.0):
    one = Job(1, Shape(1, gpus), 0.0, user=user, name=name, state=State.SUCCEEDED)
    one.executed = executed
    book.ended(one, seconds)


def asks(user: str = "ann", name: str = "train", gpus: int = 1) -> Job:
    return Job(2, Shape(1, gpus), 0.0, user=user, name=name)


def test_qssf_keeps_the_laws():
    check_policy("qssf", examples=60)


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ("resnet-lr0.1-7", "resnet-lr0.25-112", True),
        ("Train-003", "train-4", True),
        ("job-5f2ab91c", "job-00fe12aa", True),
        ("resnet", "bert", False),
    ],
)
def test_names_are_alike_but_for_their_numbers(one, other, alike):
    assert (stem(one) == stem(other)) is alike


def test_the_most_alike_jobs_that_ended_foretell():
    book = History()
    assert book.predicted(asks()) == 1.0  # nothing is known: the size decides
    ran(book, 500, user="bob", gpus=4)
    assert book.predicted(asks()) == 500  # of all jobs
    ran(book, 300, user="bob")
    assert book.predicted(asks()) == 300  # of all with as many GPUs
    ran(book, 200, name="other")
    assert book.predicted(asks()) == 200  # of hers with as many GPUs
    ran(book, 100, name="train-17")
    assert book.predicted(asks(name="train-18")) == 100  # of hers with a like name


def test_the_newest_runs_count_most():
    book = History(newest=0.2)
    for seconds in (100, 200):
        ran(book, seconds)
    assert book.predicted(asks()) == 150  # the first ones count alike
    for _ in range(50):
        ran(book, 1000)
    assert 990 < book.predicted(asks()) < 1000


def test_work_of_earlier_attempts_counts_and_an_attempt_that_goes_on_does_not():
    book = History()
    ran(book, 40, executed=60)
    assert book.predicted(asks()) == 100
    again = asks()
    again.state = State.QUEUED
    book.ended(again, 5)
    assert book.predicted(asks()) == 100


def test_the_shortest_predicted_service_goes_first_and_the_first_that_does_not_fit_holds_up_all():
    world = World(cluster("1x8"), "qssf")
    for seconds, words in ((100, "8 GPUs, user ann"), (10, "8 GPUs, user bob")):
        (new,) = world.submit(job(words))
        world.started(new.id)
        world.tick(at=world.now + seconds)
        world.finished(new.id)
    world.submit(job("8 GPUs, user eve"))
    world.submit(job("8 GPUs, user ann"), job("8 GPUs, user bob"), job("1 GPU, user ann"))
    assert [one.id for one in world.engine.queue.in_order()] == [6, 5, 4]
    world.finished(3)
    assert world.states()[6] == "STARTING"
    assert {world.states()[number] for number in (4, 5)} == {"QUEUED"}


def test_a_job_keeps_the_prediction_that_was_made_when_it_came():
    world = World(cluster("1x8"), "qssf")
    world.submit(job("8 GPUs, user ann"))
    world.submit(job("2 GPUs, user eve"), job("4 GPUs, user bob"))
    order = [one.id for one in world.engine.queue.in_order()]
    assert order == [2, 3]
    world.tick(at=5)
    world.submit(job("8 GPUs, user ann, held"))
    world.started(1)
    world.tick(at=50)
    world.submit(job("1 GPU, user bob"))
    assert [one.id for one in world.engine.queue.in_order()] == [5, 2, 3]
    plan = world.engine.foresee([], world.now)
    assert not plan.starts
    world.finished(1)
    assert {number for number, state in world.states().items() if state == "STARTING"} == {2, 3, 5}


def test_another_policy_takes_over_the_queue_as_it_stands():
    world = World(cluster("1x8"), "qssf")
    world.submit(job("8 GPUs"), job("4 GPUs"), job("2 GPUs"))
    world.engine.use(load("srtf"))
    world.engine.use(load("qssf"))
    world.tick()
    assert [one.id for one in world.engine.queue.in_order()] == [3, 2] or world.states()[3] == "STARTING"
