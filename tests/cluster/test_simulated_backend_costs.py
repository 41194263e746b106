"""What an attempt costs under a profile: hand-computed, to the second."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from builders import cluster
from gpusched.cluster.profile import NEVER, ZERO, Checkpoints, Failures, NodeLife, Profile, Rates
from gpusched.cluster.simulated_backend import SimulatedBackend
from gpusched.jobs.events import Event, Kind
from gpusched.jobs.job import Job, Shape, State


class Stage:
    """One job on a cluster of four typed nodes in two racks; each call says what happens when."""

    def __init__(self, profile: Profile, *, lasts: float = 100, gpus: int = 8, model: str = "", limit: int = 0) -> None:
        nodes = cluster("1x8:H100@rack=a 1x8:A100@rack=a 1x8:A100@rack=b 1x8@rack=b")
        self.backend = SimulatedBackend(nodes, profile=profile)
        self.job = Job(1, Shape(0, gpus), 0.0, limit=limit or None)
        self.backend.expect(1, lasts, model)
        self.seen: list[Event] = []

    def start(self, now: float, *nodes: str) -> None:
        self.job.attempt += 1
        self.job.state = State.RUNNING
        self.backend.start(self.job, nodes or ("n0",), now)

    def preempt(self, now: float) -> None:
        self.seen += self.backend.poll(now).events
        self.job.state = State.PREEMPTING
        self.backend.stop(self.job, 60.0, now)

    def until_quiet(self) -> list[Event]:
        while (due := self.backend.next_time()) is not None:
            self.seen += self.backend.poll(due).events
        return self.seen

    def end(self) -> tuple[float, dict[str, Any]]:
        """When the last attempt ended, and with what account."""
        last = [event for event in self.until_quiet() if event.kind is Kind.FINISHED][-1]
        return last.time, last.data


def account(kept: float, lost: float, overhead: float, exit_code: int = 143, **more: float) -> dict[str, float]:
    return {"exit_code": exit_code, "kept": kept, "lost": lost, "overhead": overhead, **more}


# Nothing costs anything -------------------------------------------------------------------------------------------


def test_without_a_profile_what_is_preempted_keeps_all_its_work_and_goes_on_with_the_rest():
    stage = Stage(ZERO)
    stage.start(10)
    stage.preempt(40)
    assert stage.end() == (40, account(30, 0, 0))
    stage.start(50)
    assert stage.end() == (120, None)


def test_whole_seconds_stay_whole_when_an_attempt_is_interrupted():
    stage = Stage(ZERO)
    stage.start(10)
    stage.preempt(40)
    time, data = stage.end()
    assert {type(number) for number in (time, *data.values())} == {int}


def test_what_is_stopped_for_good_has_no_account_without_a_profile():
    stage = Stage(ZERO)
    stage.start(0)
    stage.job.state = State.STOPPING
    stage.backend.stop(stage.job, 60.0, 30)
    assert stage.end() == (30, {"exit_code": 143})


# One cost alone ---------------------------------------------------------------------------------------------------


def test_start_up_is_overhead_of_every_attempt():
    stage = Stage(Profile(start_up=5))
    stage.start(0)
    stage.preempt(35)
    assert stage.end() == (35, account(30, 0, 5))
    stage.start(40)
    assert stage.end() == (115, account(70, 0, 5, 0))


def test_what_is_stopped_while_it_starts_has_done_nothing():
    stage = Stage(Profile(start_up=5))
    stage.start(0)
    stage.preempt(3)
    assert stage.end() == (3, account(0, 0, 3))


def test_restore_is_paid_by_an_attempt_that_goes_on_from_saved_work_and_by_no_other():
    stage = Stage(Profile(restore=7))
    stage.start(0)
    stage.preempt(0)
    assert stage.end() == (0, account(0, 0, 0))
    stage.start(0)
    stage.preempt(30)
    assert stage.end() == (30, account(30, 0, 0))
    stage.start(30)
    assert stage.end() == (107, account(70, 0, 7, 0))


def test_a_job_that_is_stopped_while_it_restores_loses_nothing_that_was_saved():
    stage = Stage(Profile(restore=7))
    stage.start(0)
    stage.preempt(30)
    stage.until_quiet()
    stage.start(30)
    stage.preempt(34)
    assert stage.end() == (34, account(0, 0, 4))
    stage.start(40)
    assert stage.end() == (117, account(70, 0, 7, 0))


def test_a_stopped_job_holds_its_gpus_for_the_grace_and_does_no_work_in_it():
    stage = Stage(Profile(grace=6))
    stage.start(0)
    stage.preempt(97)
    assert stage.backend.poll(102).events == []
    assert stage.end() == (103, account(97, 0, 6))
    stage.start(103)
    assert stage.end() == (106, account(3, 0, 0, 0))


def test_a_second_order_to_stop_does_not_prolong_the_grace():
    stage = Stage(Profile(grace=6))
    stage.start(0)
    stage.preempt(50)
    stage.preempt(53)
    assert stage.end() == (56, account(50, 0, 6))
    assert [event.kind for event in stage.seen].count(Kind.FINISHED) == 1


def test_each_checkpoint_pauses_the_work_and_the_last_piece_needs_none():
    stage = Stage(Profile(checkpoints=Checkpoints(interval=25, cost=2)))
    stage.start(0)
    assert stage.end() == (106, account(100, 0, 6, 0))  # after 25, 50 and 75 s of work


@pytest.mark.parametrize(
    ("stopped", "kept", "lost", "overhead"),
    [
        (24, 0, 24, 0),
        (25, 0, 25, 0),  # the first checkpoint has begun and is not done
        (26, 0, 25, 1),
        (27, 25, 0, 2),
        (40, 25, 13, 2),
        (81, 75, 0, 6),
        (105, 75, 24, 6),
    ],
)
def test_work_since_the_last_whole_checkpoint_is_lost(stopped, kept, lost, overhead):
    stage = Stage(Profile(checkpoints=Checkpoints(interval=25, cost=2)))
    stage.start(0)
    stage.preempt(stopped)
    assert stage.end() == (stopped, account(kept, lost, overhead))


def test_lost_work_is_done_again():
    stage = Stage(Profile(checkpoints=Checkpoints(interval=25)))
    stage.start(0)
    stage.preempt(40)
    assert stage.end() == (40, account(25, 15, 0))
    stage.start(40)
    assert stage.end() == (115, account(75, 0, 0, 0))


def test_a_job_that_never_saves_begins_anew_and_has_nothing_to_restore():
    stage = Stage(Profile(restore=7, checkpoints=Checkpoints(interval=NEVER, cost=2)))
    stage.start(0)
    stage.preempt(60)
    assert stage.end() == (60, account(0, 60, 0))
    stage.start(60)
    assert stage.end() == (160, account(100, 0, 0, 0))


def test_a_checkpoint_before_the_stop_keeps_all_work_if_the_grace_is_long_enough():
    saves = Profile(grace=5, checkpoints=Checkpoints(interval=NEVER, cost=5, before_stop=True))
    for profile, kept in ((saves, 60), (replace(saves, grace=4), 0)):
        stage = Stage(profile)
        stage.start(0)
        stage.preempt(60)
        assert stage.end() == (60 + profile.grace, account(kept, 60 - kept, profile.grace))


@pytest.mark.parametrize(("nodes", "ends"), [(("n0",), 50), (("n1",), 200), (("n3",), 400), (("n0", "n1"), 200)])
def test_a_gang_runs_at_the_rate_of_its_slowest_gpu_type(nodes, ends):
    stage = Stage(Profile(rates=Rates({"H100": 2, "A100": 0.5, "default": 0.25})))
    stage.start(0, *nodes)
    rate = 100 / ends
    assert stage.end() == (ends, account(ends, 0, 0, 0, rate=rate))


def test_a_job_without_gpus_runs_alike_everywhere():
    stage = Stage(Profile(rates=Rates({"H100": 2, "A100": 0.5, "default": 0.25})), gpus=0)
    stage.start(0, "n1")
    assert stage.end() == (100, account(100, 0, 0, 0))


@pytest.mark.parametrize(
    ("nodes", "rate"),
    [(("n0",), 1), (("n0", "n0"), 1), (("n0", "n1"), 0.8), (("n0", "n2"), 0.4), (("n0", "n1", "n2"), 0.25)],
)
def test_a_gang_that_is_spread_runs_slower(nodes, rate):
    """0.8 over two nodes, 0.5 over three, and half of that over two racks."""
    stage = Stage(Profile(rates=Rates(by_nodes=((2, 0.8), (3, 0.5)), by_racks=((2, 0.5),))))
    stage.start(0, *nodes)
    time, data = stage.end()
    assert (time, data.get("rate", 1)) == (100 / rate, rate)


def test_a_model_may_have_rates_of_its_own():
    profile = Profile(rates=Rates(by_nodes=((2, 0.5),)), rates_by_model={"vgg": Rates(by_nodes=((2, 0.25),))})
    for model, ends in (("vgg", 400), ("bert", 200), ("", 200)):
        stage = Stage(profile, model=model)
        stage.start(0, "n0", "n1")
        assert stage.end()[0] == ends


def test_work_at_two_rates_adds_up_to_the_duration():
    stage = Stage(Profile(rates=Rates({"H100": 2, "A100": 0.5, "default": 1})))
    stage.start(0, "n0")
    stage.preempt(20)
    assert stage.end() == (20, account(20, 0, 0, rate=2))
    stage.start(20, "n1")
    assert stage.end() == (140, account(120, 0, 0, 0, rate=0.5))


@pytest.mark.parametrize(("gpus", "ends"), [(1, 100), (2, 110), (7, 110), (8, 130)])
def test_numbers_by_the_size_of_the_gang(gpus, ends):
    stage = Stage(Profile(start_up=((2, 10), (8, 30))), gpus=gpus)
    stage.start(0)
    assert stage.end()[0] == ends


# All together -----------------------------------------------------------------------------------------------------


def test_all_costs_together():
    """Start-up 3, restore 7, grace 4; a checkpoint of 2 s after each 10 s of work; half speed.

    100 s at half speed are 200 s of work. First attempt: begins at 3, stopped at 40: 37 s are three rounds of 12 and 1.
    170 s are left. Second: works from 54 on; 16 checkpoints.
    """
    profile = Profile(3, 7, 4, Checkpoints(10, 2), Rates({"H100": 0.5}))
    stage = Stage(profile)
    stage.start(0)
    stage.preempt(40)
    assert stage.end() == (44, account(30, 1, 13, rate=0.5))
    stage.start(44)
    assert stage.end() == (54 + 170 + 32, account(170, 0, 10 + 32, 0, rate=0.5))
    assert [(event.kind, event.time) for event in stage.seen] == [
        (Kind.STARTED, 3),
        (Kind.FINISHED, 44),
        (Kind.STARTED, 47),
        (Kind.FINISHED, 256),
    ]


def test_a_node_that_fails_in_the_grace_takes_the_unsaved_work_with_it():
    """Found by the seed: n0 is up for the first ten seconds and gone a while later."""
    failures = Failures(nodes_by_type={"H100": NodeLife(mtbf=1000, repair=10)})
    profile = Profile(grace=10_000, checkpoints=Checkpoints(NEVER, 10_000, before_stop=True), failures=failures)
    stage = Stage(profile, lasts=10**6)
    stage.start(0)
    stage.preempt(10)
    (vanished,) = [event for event in stage.until_quiet() if event.kind is Kind.VANISHED]
    assert vanished.time < 10_010
    assert vanished.data == {
        "message": "node n0 failed",
        "kept": 0,
        "lost": 10,
        "overhead": pytest.approx(vanished.time - 10),
    }
