"""The figures of a run, against figures worked out by hand and against a second-by-second count."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from itertools import pairwise

import pytest

from gpusched.cluster.backend import Node
from gpusched.jobs.events import Event, Kind
from gpusched.jobs.job import Job, Piece, Shape, State
from gpusched.scheduler.report import Distribution, Run, cluster_in_words, rank, summarize
from gpusched.scheduler.report.occupancy import integrate


def ended(number, gpus, submitted, start, end, *, user="", state=State.SUCCEEDED):
    job = Job(number, Shape(0, gpus), submitted, name=f"job-{number}", user=user)
    job.first_start = job.placed = start
    job.ended, job.state, job.attempt = end, state, 1
    job.gpu_seconds = gpus * (end - start)
    return job


def placed(time, job, *pieces, attempt=1):
    return Event(time, Kind.PLACED, job, attempt, tuple(Piece(*piece) for piece in pieces))


def two_nodes():
    return [Node("a", 4), Node("b", 4)]


def hand_made():
    """Two nodes of 4 GPUs: job 1 holds 3 of a for 0..10, job 2 holds 2 of b for 0..20, job 3 all of a for 10..30."""
    jobs = [
        ended(1, 3, 0, 0, 10, user="ann"),
        ended(2, 2, 0, 0, 20, user="bob"),
        ended(3, 4, 5, 10, 30, user="ann"),
    ]
    journal = [
        placed(0, 1, (0, 3)),
        placed(0, 2, (1, 2)),
        Event(10, Kind.SUCCEEDED, 1, 1),
        placed(10, 3, (0, 4)),
        Event(20, Kind.SUCCEEDED, 2, 1),
        Event(30, Kind.SUCCEEDED, 3, 1),
    ]
    return Run("fifo", "hand", two_nodes(), jobs, journal, seconds=0.5)


def test_a_run_worked_out_by_hand_has_these_figures():
    figures = summarize(hand_made())
    assert figures.jct == Distribution(mean=55 / 3, p50=20, p90=25, p99=25)
    assert figures.delay == Distribution(mean=5 / 3, p50=0, p90=5, p99=5)
    assert figures.makespan == 30
    # 3 + 2 GPUs for 10 s, 4 + 2 for 10 s, 4 for 10 s, of 8 GPUs for 30 s.
    assert figures.allocation_ratio == pytest.approx((50 + 60 + 40) / 240)
    # Idle by node: 1 + 2, then 0 + 2, then 0 + 4, ten seconds each.
    assert figures.fragmentation_by_size == pytest.approx({1: 0, 2: (1 / 3) / 3, 4: 2 / 3})
    assert figures.fragmentation == pytest.approx((0 + 1 / 9 + 2 / 3) / 3)
    assert figures.slowdown_mean == pytest.approx((1 + 1 + 25 / 20) / 3)
    assert figures.fairness == pytest.approx((110 + 40) ** 2 / (2 * (110**2 + 40**2)))
    assert (figures.submitted, figures.finished, figures.measured, figures.unfinished) == (3, 3, 3, ())
    assert (figures.preemptions, figures.restarts) == (0, 0)
    assert figures.jobs_per_second == 6
    assert (figures.cluster, figures.nodes, figures.gpus) == ("2x4", 2, 8)


@pytest.mark.parametrize("n", [1, 2, 3, 10, 99, 100, 101, 1511])
def test_percentiles_are_the_nearest_ranks_of_the_reference_results(n):
    values = [7 * i for i in range(n)]
    shuffled = random.Random(n).sample(values, n)  # noqa: S311 - an order, no secret
    spread = Distribution.of(shuffled)
    assert spread.p50 == values[n // 2]
    assert spread.p90 == values[math.ceil(n * 9 / 10) - 1]
    assert spread.p99 == values[math.ceil(n * 99 / 100) - 1]
    assert spread.mean == sum(values) / n


def test_a_rank_is_not_moved_by_the_rounding_of_a_product():
    assert all(rank(100 * k, 99) == 99 * k - 1 for k in range(1, 10_000))


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("skip", [True, False])
def test_integrals_equal_a_count_at_every_second(make_run, seed, skip):
    run = make_run(60, seed=seed, nodes=3, skip=skip, load=1.5)
    figures = summarize(run)
    start = min(job.submitted for job in run.jobs)
    end = max(job.ended for job in run.jobs)
    held = [(event.time, event.job, event.data["pieces"]) for event in run.journal if event.kind is Kind.PLACED]
    until = {job.id: job.ended for job in run.jobs}
    edges = sorted({start, end, *(t for t, _, _ in held), *until.values()})
    allocated = 0.0
    stranded = dict.fromkeys((1, 2, 4, 8), 0.0)
    for left, right in pairwise(edges):
        free = [8] * 3
        for since, job, pieces in held:
            if since <= left < until[job]:
                for node, gpus, *_ in pieces:
                    free[node] -= gpus
        allocated += (24 - sum(free)) * (right - left)
        for k in stranded:
            unfit = sum(idle for idle in free if idle < k)
            stranded[k] += (unfit / sum(free) if sum(free) else 0.0) * (right - left)
    assert figures.allocation_ratio == pytest.approx(allocated / (24 * (end - start)), rel=1e-12)
    assert figures.fragmentation_by_size == pytest.approx({k: s / (end - start) for k, s in stranded.items()}, rel=1e-9)
    assert sum(job.gpu_seconds for job in run.jobs) == pytest.approx(allocated, rel=1e-12)


def test_the_placement_itself_and_its_json_form_read_the_same():
    run = hand_made()
    as_json = [
        event._replace(data={"pieces": [list(piece) for piece in event.data]}) if event.data else event
        for event in run.journal
    ]
    assert summarize(replace(run, journal=as_json)) == summarize(run)


def test_a_journal_nearly_in_order_gives_the_same_figures():
    run = hand_made()
    swapped = [*run.journal[:4], run.journal[5], run.journal[4]]
    assert summarize(replace(run, journal=swapped)) == summarize(run)


def test_preemption_and_retry_count_as_restarts_and_the_first_start_counts_as_the_delay():
    job = ended(1, 2, 0, 5, 100)
    job.attempt, job.gpu_seconds = 3, 2 * 60.0
    journal = [
        placed(5, 1, (0, 2)),
        Event(15, Kind.PREEMPTED, 1, 1),
        Event(20, Kind.REQUEUED, 1, 1),
        placed(40, 1, (1, 2), attempt=2),
        Event(60, Kind.RETRIED, 1, 2),
        placed(75, 1, (0, 2), attempt=3),
        Event(100, Kind.SUCCEEDED, 1, 3),
    ]
    figures = summarize(Run("p", "t", two_nodes(), [job], journal))
    assert (figures.preemptions, figures.restarts) == (1, 2)
    assert (figures.jct.mean, figures.delay.mean) == (100, 5)
    assert figures.allocation_ratio == pytest.approx(2 * (15 + 20 + 25) / 800)
    assert figures.slowdown_mean == pytest.approx(100 / 60)


def test_jobs_that_have_not_ended_are_named_and_are_in_no_jct():
    run = hand_made()
    waiting = Job(4, Shape(0, 8), 1, name="wide")
    running = Job(5, Shape(0, 1), 2, state=State.RUNNING)
    running.first_start = running.placed = 4
    journal = [*run.journal[:2], placed(4, 5, (1, 1)), *run.journal[2:]]
    figures = summarize(
        replace(run, jobs=[*run.jobs, waiting, running], journal=journal, rejected=[("huge", "needs 999")])
    )
    assert figures.unfinished == ("4 wide (QUEUED)", "5 (RUNNING)")
    assert figures.submitted == figures.finished + len(figures.unfinished) + len(figures.rejected) == 6
    assert figures.jct == summarize(run).jct
    assert figures.allocation_ratio == pytest.approx((150 + 26) / 240)


def test_a_job_cancelled_while_it_waits_is_finished_but_not_measured():
    run = hand_made()
    left = Job(4, Shape(0, 8), 1, state=State.CANCELLED)
    left.ended = 12
    journal = [*run.journal[:4], Event(12, Kind.CANCELLED, 4), *run.journal[4:]]
    figures = summarize(replace(run, jobs=[*run.jobs, left], journal=journal))
    assert (figures.finished, figures.measured) == (4, 3)
    assert figures.jct == summarize(run).jct


def test_a_job_that_got_lost_on_the_way_is_not_passed_over():
    run = hand_made()
    with pytest.raises(AssertionError, match="2 jobs are in a final state, the journal tells of 3 ends"):
        summarize(replace(run, jobs=run.jobs[:2]))
    with pytest.raises(AssertionError, match="3 jobs are in a final state, the journal tells of 2 ends"):
        summarize(replace(run, journal=run.journal[:-1]))


def test_a_gpu_given_twice_is_not_passed_over():
    run = hand_made()
    with pytest.raises(AssertionError, match="a is over its capacity"):
        summarize(replace(run, journal=[placed(0, 1, (0, 3)), placed(0, 2, (0, 2)), *run.journal[2:]]))
    with pytest.raises(AssertionError, match="job 1 is placed at 3 while it holds GPUs"):
        summarize(replace(run, journal=[*run.journal[:2], placed(3, 1, (1, 1), attempt=2), *run.journal[2:]]))


def test_a_fraction_counts_as_such_and_the_rest_of_its_gpu_hosts_no_whole_piece():
    journal = [
        placed(0, 1, (0, 0, 500, 0)),
        placed(0, 2, (0, 0, 250, 0)),
        Event(10, Kind.SUCCEEDED, 2, 1),
        Event(20, Kind.SUCCEEDED, 1, 1),
    ]
    over_time = integrate([Node("a", 1), Node("b", 1)], journal, 0, 20)
    assert over_time.allocated == pytest.approx(0.75 * 10 + 0.5 * 10)
    assert over_time.stranded == pytest.approx({1: (0.25 / 1.25 * 10 + 0.5 / 1.5 * 10) / 20})
    with pytest.raises(AssertionError, match="GPU 0 of a is shared beyond its capacity"):
        integrate([Node("a", 1)], [placed(0, 1, (0, 0, 700, 0)), placed(0, 2, (0, 0, 700, 0))], 0, 1)


def test_a_run_without_jobs_has_no_figures_and_no_error():
    figures = summarize(Run("fifo", "empty", two_nodes(), [], []))
    assert figures.jct == Distribution()
    assert (figures.makespan, figures.allocation_ratio, figures.fragmentation) == (None, None, None)
    assert (figures.slowdown_mean, figures.fairness, figures.jobs_per_second) == (None, None, None)


def test_a_path_to_a_trace_is_cut_to_its_file():
    assert summarize(replace(hand_made(), trace="/home/ann/traces/venus.csv.gz")).trace == "venus.csv.gz"


def test_a_cluster_is_said_in_the_words_of_the_command_line():
    nodes = [Node("a", 8, "H100"), Node("b", 4), Node("c", 8, "H100"), Node("d", 0)]
    assert cluster_in_words(nodes) == "2x8:H100,1x4,1x0"
