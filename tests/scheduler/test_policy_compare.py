"""What changes for whom under another policy: by hand, on a trace, on a control plane's own history."""

from __future__ import annotations

import csv
import json

import pytest
from cli_kit import cli  # noqa: F401 - a fixture, found by name

from builders import cluster, job, trace
from gpusched.policies.catalog import load
from gpusched.scheduler.report import Window, summarize
from gpusched.scheduler.report.compare import by, by_size, changes, most, pairs, relative, size
from gpusched.scheduler.simulate import simulate

# On 1x8 by fifo: a 0-100, b 100-150, c 150-180, d 150-160. By sjf: a 0-100, d 100-110, c 100-130, b 130-180.
FOUR = trace(
    job("8 GPUs in total for 100 s, user ann"),
    job("8 GPUs in total for 50 s, user bob", at=10),
    job("4 GPUs in total for 30 s, user ann", at=20),
    job("2 GPUs in total for 10 s, user bob", at=30),
)
CSV = """submit,seconds,gpus,user
0,100,8,ann
10,50,8,bob
20,30,4,ann
30,10,2,bob
"""


@pytest.fixture
def runs():
    return [simulate(FOUR, cluster("1x8"), load(name)) for name in ("fifo", "sjf")]


def test_jobs_are_paired_one_by_one(runs):
    found, unpaired = pairs(*runs)
    assert [(pair.job.id, pair.jct, pair.delay, pair.gain) for pair in found] == [
        (1, (100, 100), (0, 0), 0),
        (2, (140, 170), (90, 120), -30),
        (3, (160, 110), (130, 80), 50),
        (4, (130, 80), (120, 70), 50),
    ]
    assert unpaired == []


def test_who_gains_and_loses_most_comes_first_and_who_does_neither_is_not_named(runs):
    gainers, losers = most(pairs(*runs)[0], 1)
    assert [pair.job.id for pair in gainers] == [3]
    assert [pair.job.id for pair in losers] == [2]
    assert [pair.job.id for pair in most(pairs(*runs)[0], 5)[0]] == [3, 4]


def test_groups_have_their_own_means_and_counts(runs):
    ann, bob = by(pairs(*runs)[0], lambda one: one.user)
    assert (ann.name, ann.jobs, ann.jct, ann.delay, ann.gain, ann.lose) == ("ann", 2, (130, 105), (65, 40), 1, 0)
    assert (bob.jct, bob.gain, bob.lose) == ((135, 125), 1, 1)
    assert ann.share == pytest.approx(105 / 130 - 1)


def test_sizes_are_powers_of_two_in_order(runs):
    assert [(group.name, group.jobs) for group in by_size(pairs(*runs)[0])] == [
        ("2 GPUs", 1),
        ("3-4 GPUs", 1),
        ("5-8 GPUs", 2),
    ]
    words = ("0.5 GPU", "1 GPU", "2 GPUs", "3 GPUs", "5 GPUs", "9 GPUs in total", "no GPU")
    ran = simulate(trace(*(job(f"{word} for 1 s") for word in words)), cluster("4x8+8cpu"), load("fifo"))
    names = {str(one.shape): size(one) for one in ran.jobs}
    assert list(names.values()) == [
        "below 1 GPU", "1 GPU", "2 GPUs", "3-4 GPUs", "5-8 GPUs", "9-16 GPUs", "no GPU",
    ]  # fmt: skip


def test_a_figure_is_better_or_worse_by_its_own_direction(runs):
    found = {change.metric.key: change for change in changes(*map(summarize, runs))}
    assert (found["jct_mean"].before, found["jct_mean"].after) == (132.5, 115)
    assert found["jct_mean"].share == pytest.approx(115 / 132.5 - 1)
    assert found["jct_mean"].better is True
    assert found["makespan"].better is None  # the same
    assert found["offered_load"].better is None  # neither is better
    assert found["finished"].better is None
    shorter = {change.metric.key: change for change in changes(*map(summarize, reversed(runs)))}
    assert shorter["jct_mean"].better is False


@pytest.mark.parametrize(("before", "after", "share"), [(2, 3, 0.5), (0, 0, 0), (0, 1, None), (None, 1, None)])
def test_a_change_from_nothing_has_no_percentage(before, after, share):
    assert relative(before, after) == share


def test_a_window_pairs_its_jobs_alone(runs):
    found, _ = pairs(*runs, Window.parse("steady:1..3"))
    assert [pair.job.id for pair in found] == [2, 3]


# The command ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def offline(cli):  # noqa: F811 - the fixture
    (cli.folder / "t.csv").write_text(CSV)
    return cli


WHERE = ("t.csv", "--nodes", "1x8", "--columns", "submitted=submit,duration=seconds,gpus=gpus,user=user")


def test_the_table_tells_figures_jobs_and_groups(offline):
    said = offline("policy", "compare", "fifo", "sjf", *WHERE).stdout
    assert said.startswith("t.csv: 4 jobs on 1x8")
    assert "fifo -> sjf" in said
    assert "4 jobs under both: 2 end sooner, 1 later, 1 at the same time" in said
    rows = {line.split()[0]: line.split() for line in said.splitlines() if line}
    assert rows["ann"] == ["ann", "2", "2m", "10s", "1m", "45s", "-19.2%", "1m", "05s", "40s", "1", "0"]
    assert "-13.2%  better" in said
    assert "30s later" in said


def test_json_and_the_rows_of_jobs_have_numbers(offline):
    done = offline("policy", "compare", "fifo", "sjf", "easy", *WHERE, "-o", "json", "--per-job", "jobs.csv")
    document = json.loads(done.stdout)
    assert document["source"] == "trace"
    assert [run["policy"] for run in document["runs"]] == ["fifo", "sjf", "easy"]
    one = document["comparisons"][0]
    assert (one["before"], one["after"], one["paired"], one["sooner"], one["later"]) == ("fifo", "sjf", 4, 2, 1)
    assert one["figures"]["jct_mean"] == {
        "before": 132.5,
        "after": 115,
        "change": pytest.approx(-0.13208, abs=1e-5),
        "better": True,
    }
    assert [row["gain"] for row in one["gain_most"]] == [50, 50]
    with (offline.folder / "jobs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8
    assert [float(row["gain"]) for row in rows[:4]] == [0, -30, 50, 50]


def test_csv_has_a_row_a_figure(offline):
    rows = list(csv.DictReader(offline("policy", "compare", "fifo", "sjf", *WHERE, "-o", "csv").stdout.splitlines()))
    found = {row["figure"]: row for row in rows}
    assert (found["jct_mean"]["value_before"], found["jct_mean"]["better"]) == ("132.5", "true")


def test_without_a_control_plane_it_is_the_shipped_example_and_says_so(cli):  # noqa: F811 - the fixture
    said = cli("policy", "compare", "fifo", "sjf").stdout
    assert said.startswith("the shipped example (no control plane is running on this machine): 2,000 jobs on 54x8")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["fifo"], 2, "name two policies or more"),
        (["fifo", "t.csv", "--nodes", "1x8"], 2, "name two policies or more"),
        (["fifo", "sjf", "t.csv"], 2, "say on which cluster"),
        (["fifo", "sjf", "gone.csv", "--nodes", "1x8"], 3, "gone.csv: no such file, and no policy"),
        (["fifo", "sjff"], 3, "no policy named 'sjff'"),
        (["fifo", "sjf", "--history"], 7, "no control plane is running"),
        (["fifo", "sjf", "t.csv", "--history", "--nodes", "1x8"], 2, "give TRACE or --history, not both"),
        (["fifo", "sjf", "--nodes", "1x8", "--nodes", "2x8"], 2, "give one cluster"),
        (["fifo", "sjf", *WHERE, "--window", "steady:9..12"], 2, "the run has only 4 jobs"),
    ],
)
def test_a_mistake_gets_one_clear_message(offline, arguments, code, said):
    assert said in offline("policy", "compare", *arguments, code=code).stderr


def test_a_control_planes_own_history_is_replayed_on_its_nodes(cli, plane):  # noqa: F811 - the fixture
    at = cli.at(plane)
    assert "has no job that has ended yet" in at("policy", "compare", "fifo", "sjf").stdout
    assert "has no job that has ended yet" in at("policy", "compare", "fifo", "sjf", "--history", code=3).stderr
    for one in [plane.submit("sleep 0.2", resources={"accelerators": gpus}) for gpus in (4, 2, 1)]:
        plane.wait(one["id"])
    said = at("policy", "compare", "fifo", "sjf").stdout
    assert said.startswith("this control plane's history: 3 jobs on 2x4")
    document = json.loads(at("policy", "compare", "fifo", "sjf", "--history", "-o", "json", "--nodes", "1x4").stdout)
    assert (document["source"], document["runs"][0]["cluster"]) == ("history", "1x4")
    assert document["comparisons"][0]["paired"] == 3


def test_history_from_before_the_queues_were_configured_is_compared_without_them_and_that_is_said(cli, plane):  # noqa: F811 - the fixture
    at = cli.at(plane)
    plane.wait(plane.submit("true")["id"])
    queues = "queues: [{name: lab, nominal_quota: 4}]\n"
    assert plane.post("/v1/queues", {"text": queues}).status == 200
    said = at("policy", "compare", "fifo", "sjf", "--history").stdout
    assert "without its queues (1 of the jobs named some that there are not now)" in said
