"""The parts of a study: what may be swept, what a seed and a load change, keys, groups and intervals."""

from __future__ import annotations

from dataclasses import replace

import pytest

from builders import cluster, job, trace
from gpusched.jobs.errors import TraceError
from gpusched.jobs.traces.generate import generate
from gpusched.scheduler.sweep.case import Case, Extra, Keys, PolicyInput, Setup, TraceInput
from gpusched.scheduler.sweep.combine import Group, figures_of, grouped, leaders
from gpusched.scheduler.sweep.grid import SweepError, parse, points
from gpusched.scheduler.sweep.show import figure_text, swept_text
from gpusched.scheduler.sweep.study import Study, by_chance
from gpusched.scheduler.sweep.vary import at_load, at_rate, generator_options, offered_load, resampled

# What may be swept ------------------------------------------------------------------------------------------------


def test_a_range_has_both_ends_and_decimal_steps():
    (values,) = parse(["load=0.7:1.3:0.1"]).values()
    assert values == (0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3)


def test_every_combination_is_a_point_and_seeds_are_none_of_it():
    swept = parse(["load=0.5,1", "estimates=exact,none", "seed=3,4"])
    assert points(swept) == [
        (("load", 0.5), ("estimates", "exact")),
        (("load", 0.5), ("estimates", "none")),
        (("load", 1.0), ("estimates", "exact")),
        (("load", 1.0), ("estimates", "none")),
    ]
    assert swept["seed"] == (3, 4)
    assert points({}) == [()]


def test_durations_options_of_policies_and_of_made_up_traces_can_be_swept():
    swept = parse(["start-up=0s,2m", "policy.depth=1:3:1", "generate.mix=gavel,helios"])
    assert swept == {"start_up": (0, 120), "policy.depth": ("1", "2", "3"), "generate.mix": ("gavel", "helios")}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("speed=1", "--sweep speed: cannot be swept"),
        ("load", "is not KEY=VALUES"),
        ("load=", "is not KEY=VALUES"),
        ("load=0", "'0' cannot be"),
        ("load=inf", "'inf' cannot be"),
        ("load=high", "'high' cannot be"),
        ("load=1:2", "is no range"),
        ("load=2:1:0.1", "is no range"),
        ("load=0.7:1.3:0", "is no range"),
        ("load=a:b:c", "is no range"),
        ("load=0:1:0.0000001", "10,000,001 values"),
        ("seed=-1", "'-1' cannot be"),
        ("estimates=guess", "'guess' cannot be"),
        ("start_up=5", "'5' cannot be"),
        ("generate.colour=red", "made-up traces have no 'colour'"),
    ],
)
def test_what_cannot_be_swept_is_said(text, said):
    with pytest.raises(SweepError, match=said.replace("(", r"\(")) as error:
        parse([text])
    assert error.value.hint


def test_an_unknown_key_is_answered_with_those_that_there_are():
    with pytest.raises(SweepError) as error:
        parse(["speed=1"])
    for key in ("load", "rate", "seed", "estimates", "start_up", "generate.OPTION", "policy.OPTION"):
        assert key in error.value.hint


def test_two_keys_that_say_the_same_are_refused():
    with pytest.raises(SweepError, match="both say how fast jobs arrive"):
        parse(["load=1", "rate=2"])
    with pytest.raises(SweepError, match="given twice"):
        parse(["load=1", "load=2"])


# Loads ------------------------------------------------------------------------------------------------------------

DAY = trace(*(job(f"{g} GPUs for {100 * g} s", at=at) for g, at in ((1, 0), (2, 40), (4, 40), (1, 100), (16, 200))))


def test_offered_load_is_gpu_time_asked_for_over_gpu_time_while_jobs_arrive():
    """100 + 400 + 1600 + 100 GPU-seconds on 8 GPUs for 200 s; the job of 16 GPUs is rejected and does not count."""
    assert offered_load(DAY.jobs, 8) == 2200 / 1600
    assert offered_load(DAY.jobs, 16) == (2200 + 25600) / 3200
    assert offered_load(DAY.jobs[1:3], 8) is None, "all at once"


def test_another_load_moves_the_arrivals_and_nothing_else():
    there = at_load(DAY, 8, 2200 / 1600 / 2)
    assert [one.submitted for one in there.jobs] == [0, 80, 80, 200, 400]
    assert [one._replace(submitted=0) for one in there.jobs] == [one._replace(submitted=0) for one in DAY.jobs]
    assert all(isinstance(one.submitted, int) for one in there.jobs), "whole seconds stay whole"
    assert offered_load(there.jobs, 8) == 2200 / 1600 / 2


def test_a_rate_is_a_factor_on_the_speed_of_arrivals():
    assert [one.submitted for one in at_rate(DAY, 2).jobs] == [0, 20, 20, 50, 100]
    assert at_rate(DAY, 1) is DAY


def test_a_trace_without_a_load_cannot_be_scaled():
    with pytest.raises(TraceError, match="cannot be scaled"):
        at_load(trace(job("1 GPU for 5 s"), job("1 GPU for 5 s")), 8, 1.0)


# Seeds ------------------------------------------------------------------------------------------------------------


def test_a_bootstrap_keeps_blocks_whole_and_depends_on_its_seed_alone():
    source = trace(*(job("1 GPU for 5 s", at=at, name=f"j{at}") for at in range(0, 1000, 10)))
    drawn = resampled(source, 100, seed=1)
    assert drawn.jobs == resampled(source, 100, seed=1).jobs
    assert drawn.jobs != resampled(source, 100, seed=2).jobs
    assert [one.id for one in drawn.jobs] == list(range(100))
    assert [one.submitted for one in drawn.jobs] == list(range(0, 1000, 10)), "each place holds a block of ten"
    blocks = [[int(one.name.partition("#")[0][1:]) // 100 for one in drawn.jobs[i : i + 10]] for i in range(0, 100, 10)]
    assert all(len(set(block)) == 1 for block in blocks), "what arrived together arrives together"
    assert len({tuple(block) for block in blocks}) < 10, "some block was drawn twice"
    assert len({one.name for one in drawn.jobs}) == 100


def test_a_bootstrap_of_one_block_is_refused():
    with pytest.raises(TraceError, match="one block"):
        resampled(DAY, 86400, seed=1)


def test_a_made_up_trace_takes_its_size_from_the_cluster_and_its_chance_from_the_seed():
    one, other = (generator_options("generate:jobs=20,mix=helios", 64, seed=seed) for seed in (1, 2))
    assert (one.jobs, one.mix, one.gpus) == (20, "helios", 64)
    assert list(generate(one)) != list(generate(other))
    louder = generator_options("generate:jobs=20,mix=helios,load=0.5", 64, seed=1, load=2)
    jobs, later = list(generate(one)), list(generate(louder))
    assert [(a.duration, a.shape) for a in jobs] == [(a.duration, a.shape) for a in later], "the same jobs"
    assert jobs[-1].submitted > later[-1].submitted


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("generate:jobs=few", "jobs 'few' is no number"),
        ("generate:size=5", "no option 'size'"),
        ("generate:seed=5", "seed is not among its options"),
        ("generate:mix=none", "--mix is 'none'"),
    ],
)
def test_a_made_up_trace_that_cannot_be_is_refused(spec, said):
    with pytest.raises(TraceError, match=said):
        generator_options(spec, 8)


def setup(**more):
    traces = {
        "t.csv": TraceInput("t.csv", "t.csv", b"submitted,duration,gpus\n0,1,1\n"),
        "g": TraceInput("g", "generate:"),
    }
    policies = {"fifo": PolicyInput("fifo", "fifo", "1"), "mine": PolicyInput("a/mine.py:M", "mine", "1", b"code")}
    return Setup(traces, {"1x8": cluster("1x8")}, policies, **more)


def test_what_is_not_left_to_chance_is_run_once_whatever_the_seeds():
    cases = Study(setup(), [()], [0, 1, 2]).cases()
    assert [(case.trace, case.seed, case.policy) for case in cases] == [
        ("t.csv", None, "fifo"),
        ("t.csv", None, "mine"),
        *(("g", seed, policy) for seed in (0, 1, 2) for policy in ("fifo", "mine")),
    ]


def test_what_a_seed_changes_is_named():
    assert by_chance(setup(), "t.csv") == []
    assert by_chance(setup(bootstrap=5), "t.csv") == ["which blocks of arrivals are drawn"]
    failing = setup(extras={"profile": Extra("p", None, "d", random=True)})
    assert by_chance(failing, "g") == ["the jobs and arrivals of the made-up trace", "the failures of the profile"]


# Keys -------------------------------------------------------------------------------------------------------------


def test_a_key_depends_on_what_results_depend_on_and_on_nothing_else():
    base = setup()
    case = Case("t.csv", "1x8", (("load", 1.0),), 3, "mine")
    key = Keys(base).of(case)
    moved = {"mine": PolicyInput("b/mine.py:M", "mine", "1", b"code"), "fifo": base.policies["fifo"]}
    renamed = {"t.csv": replace(base.traces["t.csv"], source="elsewhere/t.csv")}
    assert Keys(replace(base, policies=moved)).of(case) == key
    assert Keys(replace(base, traces=renamed)).of(case) == key
    others = [
        Keys(base).of(replace(case, seed=4)),
        Keys(base).of(replace(case, point=(("load", 1.1),))),
        Keys(base).of(replace(case, policy="fifo")),
        Keys(replace(base, clusters={"1x8": cluster("1x4")})).of(case),
        Keys(replace(base, traces={"t.csv": TraceInput("t.csv", "t.csv", b"other")})).of(case),
        Keys(replace(base, policies={"mine": replace(moved["mine"], code=b"changed")})).of(case),
        Keys(replace(base, estimates="none")).of(case),
        Keys(replace(base, start_up=5)).of(case),
        Keys(replace(base, bounds=True)).of(case),
        Keys(replace(base, extras={"profile": Extra("p", None, "digest")})).of(case),
    ]
    assert len({key, *others}) == len(others) + 1


# Groups and intervals ---------------------------------------------------------------------------------------------


def rows(policy, *values, seeds=None):
    return Group(
        policy,
        "t",
        "c",
        (),
        [{"seed": seed, "jct_mean": value} for seed, value in zip(seeds or range(9), values, strict=False)],
    )


def test_an_interval_by_hand():
    """Mean 4, deviations -2 0 2, s = 2, t(2) = 4.3027: half = 4.3027 x 2 / sqrt(3)."""
    found = rows("fifo", 2, 4, 6).figure("jct_mean")
    assert found.mean == 4
    assert found.half == pytest.approx(4.30265 * 2 / 3**0.5, rel=1e-5)
    assert figure_text(found, lambda x: f"{x:.2f}") == "4.00 ± 4.97"


def test_one_run_has_no_interval_and_equal_runs_show_none():
    assert rows("fifo", 5).figure("jct_mean").half is None
    assert figure_text(rows("fifo", 5, 5).figure("jct_mean"), str) == "5.0"
    assert figure_text(rows("fifo", None).figure("jct_mean"), str) == "-"


def test_the_best_is_starred_where_it_beats_each_rival_seed_by_seed():
    """Far apart from seed to seed, but always 1 better: the paired interval says so, the two intervals would not."""
    slow, fast = rows("slow", 11, 101, 52), rows("fast", 10, 100, 51)
    assert leaders([slow, fast], "jct_mean", -1) == {1}
    assert leaders([slow, fast], "jct_mean", 1) == {0}
    assert leaders([slow, rows("mixed", 10, 110, 51)], "jct_mean", -1) == set()
    assert leaders([rows("a", 1), rows("b", 2)], "jct_mean", -1) == {0}
    assert leaders([rows("a", 1), rows("b", 1)], "jct_mean", -1) == set()
    assert leaders([slow], "jct_mean", -1) == set()


def test_groups_are_in_the_order_of_the_plan_and_hold_their_seeds():
    made = {
        Case("t", "c", (("load", load),), seed, policy): {"seed": seed, "jct_mean": load + seed}
        for load in (0.5, 1.0)
        for seed in (0, 1)
        for policy in ("b", "a")
    }
    found = grouped(made)
    assert [(group.point[0][1], group.policy, group.seeds) for group in found] == [
        (0.5, "b", [0, 1]),
        (0.5, "a", [0, 1]),
        (1.0, "b", [0, 1]),
        (1.0, "a", [0, 1]),
    ]
    assert figures_of(found) == ["jct_mean"]
    assert swept_text(0.7) == "0.7"
