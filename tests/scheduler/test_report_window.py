"""Windows: which jobs are measured, over which span, and what is said when a window is not what its name promises."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from gpusched.cluster.backend import Node
from gpusched.jobs.events import Event, Kind
from gpusched.jobs.job import Job, Piece, Shape, State
from gpusched.scheduler.report import Run, Window, WindowError, summarize
from gpusched.scheduler.report.table import to_json

HOUR = 3600


def line(count, *, every, lasts, gpus=1, first=0):
    """One node of `gpus` GPUs, jobs of one GPU each `every` seconds, served one after the other by each GPU."""
    free = [0.0] * gpus
    jobs, journal = [], []
    for i in range(count):
        job = Job(i + 1, Shape(1, 1), first + i * every)
        place = min(range(gpus), key=free.__getitem__)
        job.first_start = job.placed = max(free[place], job.submitted)
        job.ended = free[place] = job.first_start + lasts
        job.state, job.attempt, job.gpu_seconds = State.SUCCEEDED, 1, lasts
        jobs.append(job)
        journal += [
            Event(job.submitted, Kind.SUBMITTED, job.id),
            Event(job.first_start, Kind.PLACED, job.id, 1, (Piece(0, 1),)),
            Event(job.ended, Kind.SUCCEEDED, job.id, 1),
        ]
    order = {Kind.SUCCEEDED: 0, Kind.SUBMITTED: 1, Kind.PLACED: 2}
    journal.sort(key=lambda event: (event.time, order[event.kind]))
    return Run("fifo", "line", [Node("a", gpus)], jobs, journal)


@pytest.mark.parametrize(
    ("text", "kind", "start", "stop"),
    [
        ("full", "full", 0, math.inf),
        ("batch", "batch", 0, math.inf),
        ("batch:1d..5d", "batch", 86400, 5 * 86400),
        ("batch:..90m", "batch", -math.inf, 5400),
        ("batch: 1.5h .. 2h", "batch", 5400, 7200),
        ("batch:12h..", "batch", 12 * HOUR, math.inf),
        ("steady:1000..5000", "steady", 1000, 5000),
        ("steady:1000..", "steady", 1000, math.inf),
        ("batch:1970-01-02..1970-01-02T12:00", "batch", 86400, 86400 + 12 * HOUR),
    ],
)
def test_a_window_is_read_from_its_text(text, kind, start, stop):
    window = Window.parse(text)
    assert (window.kind, window.start, window.stop) == (kind, start, stop)
    assert window.dated == ("1970" in text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("half", "'half' is no window"),
        ("steady:5..5", "empty window"),
        ("batch:2d..1d", "empty window"),
        ("steady:a..5", "'a' is no job number"),
        ("batch:1..5", "1 has no unit"),
        ("batch:2020-01-01..5d", "mixes a date with a duration"),
        ("steady:1000", "is no window"),
    ],
)
def test_a_text_that_is_no_window_is_refused_with_the_way_to_write_it(text, says):
    with pytest.raises(WindowError, match=says) as refused:
        Window.parse(text)
    assert refused.value.hint


def test_the_full_window_measures_everything_and_changes_no_figure():
    run = line(40, every=10, lasts=8)
    assert summarize(run, Window.parse("full")) == summarize(run)
    assert summarize(run).notes == ()


def test_a_batch_window_measures_the_jobs_submitted_in_it_with_their_drain():
    run = line(10, every=10, lasts=25, gpus=2, first=1000)
    figures = summarize(run, Window.parse("batch:20s..50s"))
    chosen = run.jobs[2:5]
    assert figures.submitted == figures.measured == 3
    assert figures.jct.mean == pytest.approx(sum(job.ended - job.submitted for job in chosen) / 3)
    assert figures.makespan == max(job.ended for job in chosen) - 1020
    # Two GPUs, both held from 1020 on (jobs 1 and 2 hold the first of them) until the last of the batch ends.
    assert figures.allocation_ratio == pytest.approx(1)
    assert figures.window == "batch:20s..50s"
    assert any("3 jobs of 10 are measured" in note for note in figures.notes)


def test_a_steady_window_counts_jobs_by_number_and_looks_at_the_cluster_while_they_arrive():
    run = line(100, every=10, lasts=5)
    figures = summarize(run, Window.parse("steady:20..60"))
    assert (figures.submitted, figures.jct.mean) == (40, 5)
    assert figures.allocation_ratio == pytest.approx(0.5), "from the arrival of job 20 to that of job 60: no drain"
    assert figures.offered_load == pytest.approx(0.5)
    assert not [note for note in figures.notes if "overload" in note or "arrivals stopped" in note]


def test_arrivals_that_stop_before_the_window_has_drained_are_said_to():
    run = line(100, every=10, lasts=9)
    figures = summarize(run, Window.parse("steady:50..100"))
    assert any("arrivals stopped while 1 job of it was still waiting or running" in note for note in figures.notes)
    assert not [note for note in summarize(run, Window.parse("steady:40..90")).notes if "arrivals stopped" in note]


def test_overload_is_named_by_load_and_by_the_growing_queue():
    run = line(200, every=10, lasts=15)
    figures = summarize(run, Window.parse("steady:20..100"))
    growth, load = (note for note in figures.notes if note.startswith("overload"))
    assert "1.50 times the cluster's GPU time" in load
    assert "under fifo the queue keeps growing" in growth
    assert "overload" in to_json([figures])
    assert any(note.startswith("overload: the jobs ask for 1.5") for note in summarize(run).notes)


def test_a_few_jobs_that_came_at_once_are_no_overload():
    assert summarize(line(10, every=1, lasts=100)).notes == ()
    assert summarize(line(10, every=0, lasts=100)).notes == ()


def test_jobs_of_a_window_that_have_not_ended_are_named():
    run = line(20, every=10, lasts=5)
    late = Job(21, Shape(1, 1), 85, name="late")
    figures = summarize(replace(run, jobs=[*run.jobs, late]), Window.parse("steady:5..15"))
    assert figures.unfinished == ("21 late (QUEUED)",)
    assert figures.submitted == figures.finished + 1 == 10
    assert any("arrivals stopped" in note for note in figures.notes)


def test_a_window_that_the_run_does_not_have_is_refused():
    run = line(20, every=10, lasts=5)
    with pytest.raises(WindowError, match="the run has only 20 jobs"):
        summarize(run, Window.parse("steady:10..30"))
    with pytest.raises(WindowError, match="no job was submitted in it"):
        summarize(run, Window.parse("batch:1d..2d"))
    with pytest.raises(WindowError, match="are not dates"):
        summarize(run, Window.parse("batch:2020-03-01.."))


def test_dates_select_on_a_clock_that_has_an_epoch():
    run = replace(line(48, every=HOUR, lasts=60), epoch=1583020800.0)  # 2020-03-01T00:00Z
    figures = summarize(run, Window.parse("batch:2020-03-01T06:00..2020-03-01T09:00"))
    assert figures.submitted == 3
    zoned = summarize(run, Window.parse("batch:2020-03-01T07:00+01:00..2020-03-01T10:00+01:00"))
    assert zoned.jct == figures.jct
    assert zoned.submitted == 3


def test_rejected_jobs_are_in_no_window_and_in_every_account():
    run = replace(line(20, every=10, lasts=5), rejected=[("huge", "needs 999")])
    figures = summarize(run, Window.parse("steady:5..15"))
    assert figures.submitted == figures.finished + len(figures.unfinished) + len(figures.rejected) == 11


def test_the_speed_of_a_replay_counts_every_job_that_it_replayed():
    run = replace(line(100, every=10, lasts=5), seconds=2.0)
    assert summarize(run, Window.parse("steady:20..60")).jobs_per_second == summarize(run).jobs_per_second == 50
