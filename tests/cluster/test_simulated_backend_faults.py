"""Failures from a seed: they come at the right rate, to everybody alike, and whatever else happens."""

from __future__ import annotations

import itertools
import statistics

import pytest

from builders import cluster
from gpusched.cluster.backend import NodeChange
from gpusched.cluster.chance import exponential, uniform
from gpusched.cluster.faults import NodeFaults
from gpusched.cluster.profile import Failures, NodeLife, Overruns, Profile
from gpusched.cluster.simulated_backend import QUIET, SimulatedBackend
from gpusched.jobs.events import Event, Kind
from gpusched.jobs.job import Job, RetryRule, Shape, State

DAY = 86_400.0


def changes(nodes: str, failures: Failures, *, seed: int = 0, until: float) -> list[NodeChange]:
    faults = NodeFaults(cluster(nodes), failures, seed)
    found = []
    while faults.due <= until:
        found.append(faults.take())
    return found


def attempt(backend: SimulatedBackend, number: int, lasts: float, *, gpus: int = 1) -> Job:
    """A job in its first attempt on n0, from now 0 on."""
    job = Job(number, Shape(1, gpus), 0.0)
    job.attempt, job.state, job.retry = 1, State.RUNNING, RetryRule(3, ("failure", "lost"))
    backend.expect(number, lasts)
    backend.start(job, ("n0",), 0)
    return job


def ends(profile: Profile, *, jobs: int, lasts: float, seed: int = 0, gpus: int = 1) -> list[Event]:
    """How the first attempts of so many jobs end."""
    backend = SimulatedBackend(cluster("1x8"), profile=profile, seed=seed)
    for number in range(1, jobs + 1):
        attempt(backend, number, lasts, gpus=gpus)
    found = []
    while (due := backend.next_time()) is not None:
        found += backend.poll(due).events
    return [event for event in found if event.kind is not Kind.STARTED]


# Chance -----------------------------------------------------------------------------------------------------------


def test_chance_depends_on_its_names_alone():
    assert uniform(1, "node", "n0", 3) == uniform(1, "node", "n0", 3)
    others = [uniform(2, "node", "n0", 3), uniform(1, "node", "n1", 3), uniform(1, "node", "n0", 4), uniform(1, "node")]
    assert len({uniform(1, "node", "n0", 3), *others}) == 5


def test_names_do_not_run_together():
    assert uniform(0, "a", "bc") != uniform(0, "ab", "c")
    assert uniform(1, 2) != uniform(12)


def test_chance_is_the_same_on_every_machine():
    assert uniform(0, "node", "n0", 0) == 0.039857128259641605
    assert exponential(1000.0, 0, "node", "n0", 0) == 40.673


def test_chance_is_spread_evenly():
    drawn = sorted(uniform(0, number) for number in range(10_000))
    assert all(abs(value - rank / 10_000) < 0.02 for rank, value in enumerate(drawn))
    assert drawn[0] >= 0
    assert drawn[-1] < 1


# Nodes ------------------------------------------------------------------------------------------------------------


def test_nodes_fail_as_often_as_their_mean_says_and_are_away_for_the_repair():
    found = changes("50x8", Failures(NodeLife(10 * DAY, DAY)), until=1100 * DAY)
    gone = sum(change.gone for change in found)
    assert gone == pytest.approx(50 * 1100 / 11, rel=0.03)
    last: dict[str, NodeChange] = {}
    for change in found:
        before = last.get(change.node.name)
        assert change.gone == (before is None or not before.gone), "they go and come back in turns"
        if before is not None and before.gone:
            assert change.time == pytest.approx(before.time + DAY)
        last[change.node.name] = change
    assert [change.time for change in found] == sorted(change.time for change in found)


def test_the_times_between_failures_are_exponential():
    times = [change.time for change in changes("1x8", Failures(NodeLife(1000, 0)), until=5_000_000) if change.gone]
    gaps = [late - early for early, late in itertools.pairwise(times)]
    assert statistics.fmean(gaps) == pytest.approx(1000, rel=0.05)
    assert statistics.stdev(gaps) == pytest.approx(1000, rel=0.05)


def test_node_types_have_lives_of_their_own():
    failures = Failures(NodeLife(1000, 10), {"A100": NodeLife(100, 10), "H100": NodeLife()})
    found = changes("1x8 1x8:A100 1x8:H100", failures, until=300_000)
    counts = {name: sum(change.gone and change.node.name == name for change in found) for name in ("n0", "n1", "n2")}
    assert counts["n0"] == pytest.approx(297, rel=0.2)
    assert counts["n1"] == pytest.approx(2727, rel=0.1)
    assert counts["n2"] == 0


def test_a_seed_gives_the_same_failures_and_another_seed_others():
    failures = Failures(NodeLife(1000, 10))
    assert changes("4x8", failures, seed=1, until=10_000) == changes("4x8", failures, seed=1, until=10_000)
    assert changes("4x8", failures, seed=1, until=10_000) != changes("4x8", failures, seed=2, until=10_000)


def test_one_more_node_changes_nothing_for_the_others():
    failures = Failures(NodeLife(1000, 10))
    few, more = changes("2x8", failures, until=20_000), changes("3x8", failures, until=20_000)
    assert few == [change for change in more if change.node.name != "n2"]


def test_a_node_that_fails_takes_all_that_runs_on_it():
    backend = SimulatedBackend(cluster("2x8"), profile=Profile(failures=Failures(NodeLife(1000, 60))))
    fail = changes("2x8", Failures(NodeLife(1000, 60)), until=20_000)[0]
    number = int(fail.node.name[1:])
    job = Job(1, Shape(2, 8), 0.0)
    alone, elsewhere = Job(2, Shape(1, 1), 0.0), Job(3, Shape(1, 1), 0.0)
    for one, nodes in ((job, ("n0", "n1")), (alone, (f"n{number}",)), (elsewhere, (f"n{1 - number}",))):
        one.attempt = 1
        backend.expect(one.id, 10**6)
        backend.start(one, nodes, 0)
    backend.poll(0)
    assert backend.next_time() == fail.time
    news = backend.poll(fail.time)
    assert news.nodes == [fail]
    vanished = [event for event in news.events if event.kind is Kind.VANISHED]
    assert [(event.job, event.time) for event in vanished] == [(1, fail.time), (2, fail.time)]
    assert vanished[0].data == {
        "message": f"node {fail.node.name} failed",
        "kept": fail.time,
        "lost": 0,
        "overhead": 0,
    }


def test_what_ends_at_the_very_moment_of_a_failure_has_ended():
    profile = Profile(failures=Failures(NodeLife(1000, 60)))
    first = changes("1x8", profile.failures, until=20_000)[0].time
    for lasts, kind in ((first, Kind.FINISHED), (first + 0.001, Kind.VANISHED)):
        backend = SimulatedBackend(cluster("1x8"), profile=profile)
        attempt(backend, 1, lasts)
        assert [event.kind for event in backend.poll(first).events] == [Kind.STARTED, kind]


def test_a_start_on_a_node_that_is_down_is_refused():
    profile = Profile(failures=Failures(NodeLife(1000, 60)))
    first = changes("1x8", profile.failures, until=20_000)[0].time
    backend = SimulatedBackend(cluster("1x8"), profile=profile)
    backend.poll(first)
    job = Job(1, Shape(1, 1), 0.0)
    job.attempt = 1
    backend.expect(1, 10)
    backend.start(job, ("n0",), first + 1)
    assert [(event.kind, event.job) for event in backend.poll(first + 1).events] == [(Kind.REFUSED, 1)]


def test_nodes_stop_failing_when_there_is_nobody_left():
    backend = SimulatedBackend(cluster("1x8"), profile=Profile(failures=Failures(NodeLife(1000, 60))))
    assert backend.next_time() is None
    attempt(backend, 1, 5)
    assert backend.next_time() is not None
    backend.poll(5)
    assert backend.next_time() is None


def test_who_waits_for_something_that_never_comes_does_not_wait_for_ever():
    backend = SimulatedBackend(cluster("1x8"), profile=Profile(failures=Failures(NodeLife(10 * DAY, DAY))))
    backend.expect(1, 5)
    now = 0.0
    while (due := backend.next_time()) is not None:
        now = due
        backend.poll(now)
    assert QUIET - 100 * DAY < now <= QUIET


# Jobs -------------------------------------------------------------------------------------------------------------


def test_attempts_fail_with_the_given_probability_at_any_moment_alike():
    found = ends(Profile(failures=Failures(probability=0.2)), jobs=4000, lasts=1000)
    failed = [event.time for event in found if event.data["exit_code"] == 1]
    assert len(failed) == pytest.approx(800, rel=0.1)
    assert statistics.fmean(failed) == pytest.approx(500, rel=0.05)
    assert all(event.time == 1000 for event in found if event.data["exit_code"] == 0)


def test_attempts_fail_once_in_their_mean_running_time():
    found = ends(Profile(failures=Failures(mtbf=2000)), jobs=4000, lasts=1000)
    failed = [event for event in found if event.data["exit_code"] == 1]
    assert len(failed) == pytest.approx(4000 * (1 - 2.718281828**-0.5), rel=0.06)


def test_start_up_is_no_running_time():
    found = ends(Profile(start_up=500, failures=Failures(mtbf=100)), jobs=200, lasts=1000)
    assert min(event.time for event in found) > 500


def test_failures_may_depend_on_the_size_of_the_gang():
    profile = Profile(failures=Failures(probability=((8, 1.0),)))
    assert [event.data["exit_code"] for event in ends(profile, jobs=20, lasts=10)] == [0] * 20
    assert [event.data["exit_code"] for event in ends(profile, jobs=20, lasts=10, gpus=8)] == [1] * 20


def test_each_attempt_of_a_job_has_its_own_chance():
    profile = Profile(failures=Failures(probability=0.5))
    outcomes = set()
    for number in range(1, 40):
        backend = SimulatedBackend(cluster("1x8"), profile=profile)
        job = Job(number, Shape(1, 1), 0.0)
        backend.expect(number, 10)
        codes = []
        for job.attempt in (1, 2):
            backend.start(job, ("n0",), 100 * job.attempt)
            codes += [event.data["exit_code"] for event in backend.poll(100 * job.attempt + 50).events if event.data]
            if codes[-1] == 0:
                break
        outcomes.add(tuple(codes))
    assert outcomes == {(0,), (1, 0), (1, 1)}


def test_a_job_meets_the_same_chance_whoever_else_is_there_and_whenever_it_starts():
    profile = Profile(failures=Failures(mtbf=1000))
    alone = ends(profile, jobs=1, lasts=10_000)[0].time
    among = [event.time for event in ends(profile, jobs=50, lasts=10_000) if event.job == 1]
    backend = SimulatedBackend(cluster("1x8"), profile=profile)
    job = Job(1, Shape(1, 1), 0.0)
    job.attempt = 1
    backend.expect(1, 10_000)
    backend.start(job, ("n0",), 777)
    late = [event.time for event in backend.poll(10**6).events if event.kind is Kind.FINISHED]
    assert [alone] == among == [pytest.approx(late[0] - 777)]


def test_some_jobs_overrun_what_everybody_says_of_them():
    found = ends(Profile(overruns=Overruns(0.25, 3)), jobs=2000, lasts=100)
    assert {event.time for event in found} == {100, 300}
    assert sum(event.time == 300 for event in found) == pytest.approx(500, rel=0.12)
