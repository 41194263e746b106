"""Aggregates over seeds: means, confidence intervals and their table."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace

import pytest
from rich.console import Console

from gpusched.scheduler.report import Estimate, combine, summarize
from gpusched.scheduler.report.aggregate import student_t
from gpusched.scheduler.report.metric import METRICS
from gpusched.scheduler.report.table import aggregate_table

BY_KEY = {metric.key: metric for metric in METRICS}


@pytest.mark.parametrize(
    ("freedom", "t"),
    [(1, 12.7062), (2, 4.30265), (3, 3.18245), (4, 2.77645), (9, 2.26216), (10, 2.22814), (29, 2.04523), (99, 1.98422)],
)
def test_student_s_t_is_that_of_the_tables(freedom, t):
    assert student_t(freedom) == pytest.approx(t, rel=1e-5)


def test_an_estimate_is_the_mean_and_the_half_width_by_student_s_t():
    found = Estimate.of([1, 2, 3, 4])
    assert found.mean == 2.5
    assert found.half == pytest.approx(3.182446 * math.sqrt(5 / 3 / 4), rel=1e-6)
    assert (found.n, found.least, found.most) == (4, 1, 4)
    assert Estimate.of([7]) == Estimate(7, None, 1, 7, 7)
    assert Estimate.of([]) is None


def test_a_figure_prints_alike_whether_it_came_from_a_run_or_from_a_file_of_results():
    fresh, read_back = Estimate.of([3, 5]), Estimate.of([3.0, 5.0])
    assert repr(fresh) == repr(read_back)


def test_seeds_are_combined_metric_by_metric_over_those_that_have_it(make_run):
    seeds = [summarize(make_run(40, seed=seed)) for seed in (1, 2, 3)]
    seeds[1] = replace(seeds[1], makespan=None)
    whole = combine(seeds, label="fifo at 0.9")
    jct = whole.estimate(BY_KEY["jct_mean"])
    assert jct.mean == pytest.approx(sum(summary.jct.mean for summary in seeds) / 3)
    assert whole.estimate(BY_KEY["makespan"]).n == 2
    assert "(n = 2)" in whole.text(BY_KEY["makespan"])
    assert whole.text(BY_KEY["jct_above_bound"]) == "-"
    figures = whole.to_dict()
    assert (figures["label"], figures["seeds"], figures["confidence"]) == ("fifo at 0.9", 3, 0.95)
    assert figures["figures"]["jct_mean"]["half"] == jct.half
    json.dumps(figures, allow_nan=False)


def test_the_table_shows_mean_and_half_width_and_names_the_number_of_seeds(make_run):
    slow = combine([summarize(make_run(40, seed=seed)) for seed in (1, 2, 3)])
    quick = combine([summarize(make_run(40, seed=seed, policy="skip", skip=True)) for seed in (1, 2, 3)])
    out = io.StringIO()
    Console(file=out, width=120).print(aggregate_table([slow, quick]))
    text = out.getvalue()
    jct = next(line for line in text.splitlines() if line.startswith("JCT mean"))
    assert jct.count("±") == 2
    assert jct.count("*") == 1
    assert "fifo (n = 3)" in text
    assert "skip (n = 3)" in text
    finished = next(line for line in text.splitlines() if line.startswith("finished"))
    assert "±" not in finished, "all seeds show the same"


def test_runs_that_differ_in_more_than_the_seed_are_not_mixed(make_run):
    with pytest.raises(ValueError, match="differ in more"):
        combine([summarize(make_run(5)), summarize(make_run(5, policy="other"))])
    with pytest.raises(ValueError, match="at least one"):
        combine([])
