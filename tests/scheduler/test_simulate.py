"""The replay of a trace: what it is given, what it leaves behind, what it refuses."""

from __future__ import annotations

import pytest

from builders import cluster, job, trace
from gpusched.cluster.profile import Profile
from gpusched.jobs.errors import TraceError
from gpusched.jobs.job import FINAL, State
from gpusched.policies.catalog import CATALOG, load
from gpusched.scheduler.report import summarize
from gpusched.scheduler.simulate import simulate, trial


def ends(run) -> dict[int, tuple[str, float | None, float | None]]:
    return {one.id: (str(one.state), one.first_start, one.ended) for one in run.jobs}


def test_jobs_that_fit_no_idle_cluster_are_named_with_the_reason():
    run = simulate(
        trace(
            job("9 GPUs", name="wide"), job("1 GPU"), job("1 H100 GPU", name="typed"), job("1 GPU, 2 CPUs", name="cpus")
        ),
        cluster("2x8:A100"),
        load("fifo"),
    )
    assert [name for name, _ in run.rejected] == ["wide", "typed", "cpus"]
    assert run.rejected[0][1] == "Infeasible: needs 9 GPU"
    assert [one.name for one in run.jobs] == ["job-2"]
    assert summarize(run).submitted == 4


def test_a_cluster_without_nodes_is_said():
    with pytest.raises(TraceError, match="no nodes"):
        simulate(trace(job("1 GPU")), [], load("fifo"))


def test_a_trace_of_which_nothing_fits_gives_an_empty_run():
    run = simulate(trace(job("9 GPUs")), cluster("1x8"), load("fifo"))
    assert (list(run.jobs), len(run.rejected)) == ([], 1)


def test_start_up_time_delays_the_end_and_not_the_start():
    run = simulate(trace(job("1 GPU for 10 s")), cluster("1x8"), load("fifo"), profile=Profile(start_up=3))
    assert ends(run) == {1: ("SUCCEEDED", 0, 13)}


def test_a_job_that_overruns_its_limit_is_stopped_then_and_frees_its_gpus():
    run = simulate(trace(job("8 GPUs for 100 s, limit 30 s"), job("8 GPUs for 5 s")), cluster("1x8"), load("fifo"))
    assert ends(run) == {1: ("TIMEOUT", 0, 30), 2: ("SUCCEEDED", 30, 35)}


def test_a_limit_counts_from_the_end_of_the_start_up():
    run = simulate(
        trace(job("8 GPUs for 100 s, limit 30 s")), cluster("1x8"), load("fifo"), profile=Profile(start_up=3)
    )
    assert ends(run) == {1: ("TIMEOUT", 0, 33)}


def test_a_job_that_ends_at_its_limit_has_succeeded():
    run = simulate(trace(job("8 GPUs for 30 s, limit 30 s")), cluster("1x8"), load("fifo"))
    assert ends(run) == {1: ("SUCCEEDED", 0, 30)}


@pytest.mark.parametrize(("estimates", "order"), [("exact", [1, 3, 2]), ("trace", [1, 2, 3]), ("none", [1, 2, 3])])
def test_what_a_policy_knows_of_run_times(estimates, order):
    """The trace says that job 2 runs 1 s and job 3 runs 90 s; in truth it is 50 s and 5 s."""
    run = simulate(
        trace(
            job("8 GPUs for 10 s"),
            job("8 GPUs for 50 s, estimate 1 s", at=1),
            job("8 GPUs for 5 s, estimate 90 s", at=2),
        ),
        cluster("1x8"),
        load("shortest+first_fit+strict"),
        estimates=estimates,
    )
    assert sorted(ends(run), key=lambda number: ends(run)[number][1]) == order


def test_priorities_of_the_trace_count():
    run = simulate(
        trace(
            job("8 GPUs for 5 s"), job("8 GPUs for 5 s, priority 10", at=1), job("8 GPUs for 5 s, priority 90", at=2)
        ),
        cluster("1x8"),
        load("priority+first_fit+strict"),
    )
    assert ends(run)[3][1] == 5


@pytest.mark.parametrize("policy", [*CATALOG, "shortest+best_fit+skip", "priority+spread+strict"])
def test_a_run_ends_with_everything_given_back_and_everybody_accounted_for(policy):
    words = [
        "1 GPU for 7 s",
        "4 GPUs for 5 s",
        "2x4 GPUs for 9 s, apart",
        "0.5 GPU for 20 s",
        "12 GPUs in total for 3 s",
    ]
    done = trial(
        trace(*[job(words[number % 5], at=number // 3) for number in range(60)]), cluster("2x8 1x4"), load(policy)
    )
    assert done.engine.pool.free == [8, 8, 4]
    assert not done.engine.jobs
    assert all(one.state in FINAL for one in done.run.jobs)
    assert len(done.run.jobs) == 60


def test_progress_is_told_and_ends_at_the_whole():
    told: list[tuple[int, int]] = []
    jobs = [job("1 GPU for 1 s", at=number // 4) for number in range(3000)]
    simulate(trace(*jobs), cluster("1x8"), load("fifo"), progress=lambda done, of: told.append((done, of)))
    assert told == [(1024, 3000), (2048, 3000), (3000, 3000)]


def test_the_trial_keeps_the_decisions_with_their_reasons():
    done = trial(trace(job("8 GPUs for 5 s"), job("4 GPUs for 5 s", at=1)), cluster("1x8"), load("fifo"))
    decisions = [
        (one.time, one.policy, one.starts, [why.token for _, why in one.waiting]) for one in done.store.choices
    ]
    assert decisions == [
        (0, "fifo/1", (1,), []),
        (1, "fifo/1", (), ["InsufficientGPUs"]),
        (5, "fifo/1", (2,), []),
    ]
    assert all(one.state is State.SUCCEEDED for one in done.run.jobs)
