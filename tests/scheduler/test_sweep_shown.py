"""Studies on the command line: pages, figures, queues, profiles, windows and bounds."""

from __future__ import annotations

import csv
import io
import json

import pyarrow.parquet as pq
import pytest
from cli_kit import cli  # noqa: F401 - a fixture, found by name

TRACE = "submitted,duration,gpus,user\n0,100,4,a\n10,50,8,b\n20,30,1,a\n400,10,2,b\n"


@pytest.fixture
def at(cli):  # noqa: F811 - the fixture
    (cli.folder / "t.csv").write_text(TRACE)
    (cli.folder / "u.csv").write_text(TRACE.replace("100", "200"))
    return cli


def groups(done):
    return json.loads(done.stdout)["groups"]


def rows(cli, name="out"):  # noqa: F811 - no fixture here
    return pq.read_table(cli.folder / name / "runs.parquet").to_pylist()


# Pages and figures ------------------------------------------------------------------------------------------------


def test_curves_against_the_load_and_a_page_are_the_same_each_time(at):
    words = (
        "simulate",
        "generate:jobs=40",
        "--nodes",
        "2x8",
        "--seeds",
        "2",
        "--sweep",
        "load=0.5,1",
        "--policy",
        "fifo",
    )
    for name in ("a", "b"):
        done = at(*words, "--figures", name, "--html", f"{name}.html", "--results", "out")
        assert f"wrote {name}.html" in done.stderr
    names = sorted(path.name for path in (at.folder / "a").iterdir())
    assert {"study-jct-mean-by-load.png", "study-jct-mean-by-load.svg"} <= set(names)
    for name in names:
        assert (at.folder / "a" / name).read_bytes() == (at.folder / "b" / name).read_bytes(), name
    svg = (at.folder / "a" / "study-jct-mean-by-load.svg").read_text()
    for words in ("offered load", "JCT mean (", "band: 95% interval over 2 seeds", "fifo"):
        assert f"<!-- {words}" in svg, words
    page = (at.folder / "a.html").read_text()
    assert page == (at.folder / "b.html").read_text()
    assert page.count("<img ") == len(names) / 2
    assert "://" not in page.replace("http://www.w3.org", ""), "it loads nothing from anywhere"


def test_without_a_number_on_the_axis_there_is_a_dot_for_each(at):
    at(
        "simulate",
        "t.csv",
        "u.csv",
        "--nodes",
        "1x8",
        "--sweep",
        "estimates=exact,none",
        "--figures",
        "f",
        "--policy",
        "fifo",
    )
    svg = (at.folder / "f" / "study-jct-mean.svg").read_text()
    assert "t.csv on 1x8, estimates none" in svg


def test_one_trace_on_one_cluster_is_drawn_too(at):
    done = at("simulate", "t.csv", "--nodes", "1x8", "--policy", "fifo", "--policy", "binpack", "--figures", "f")
    names = {path.name for path in (at.folder / "f").iterdir()}
    assert {"jct-cdf.png", "jct-cdf.svg", "allocation.svg"} <= names
    assert f"wrote {len(names)} files of figures to f" in done.stderr


def test_names_in_a_page_are_text_and_no_markup(at):
    name = "<b>x.csv"
    (at.folder / name).write_text(TRACE)
    at("simulate", name, "--nodes", "1x8", "-j", "1", "--policy", "fifo", "--html", "p.html")
    assert "<b>x" not in (at.folder / "p.html").read_text()


# Queues, profiles, windows and bounds, in one run and in many ------------------------------------------------------


@pytest.mark.parametrize("many", [(), ("-j", "1")])
def test_queues_windows_profiles_and_bounds_hold_in_one_run_as_in_many(at, many):
    (at.folder / "q.yaml").write_text("queues: [{name: default, nominal_quota: 7}]\n")
    (at.folder / "p.yaml").write_text("start_up: 10s\n")

    def figures(*words):
        done = at("simulate", "t.csv", "--nodes", "1x8", "--policy", "binpack", *words, *many, "-o", "csv")
        (row,) = csv.DictReader(io.StringIO(done.stdout))
        return row

    assert float(figures("--queues", "q.yaml")["rejected"]) == 1, "8 GPUs are more than the queue can ever have"
    (at.folder / "much.yaml").write_text("queues: [{name: default, nominal_quota: 9}]\n")
    said = at("simulate", "t.csv", "--nodes", "1x8", "--policy", "binpack", "--queues", "much.yaml", *many).stderr
    assert "warning: nominal quotas add up to 9 GPUs, and the cluster has 8" in said
    slow = figures("--profile", "p.yaml")
    assert float(slow["overhead_gpu_seconds"]) == 10 * 15
    assert float(figures("--profile", "p.yaml", "--start-up", "20s")["overhead_gpu_seconds"]) == 20 * 15
    assert float(figures("--window", "steady:0..2")["submitted"]) == 2
    bounded = figures("--bounds")
    assert float(bounded["jct_bound"]) <= float(bounded["jct_mean"])
    assert float(bounded["makespan_bound"]) <= float(bounded["makespan"])


def test_bounds_are_computed_once_for_all_policies_and_kept_with_their_proof(at):
    words = (
        "simulate",
        "t.csv",
        "--nodes",
        "1x8",
        "--sweep",
        "load=0.5,1",
        "--sweep",
        "estimates=exact,none",
        "--bounds",
    )
    done = at(*words, "--results", "out")
    assert "above the clairvoyant preemptive bound" in done.stdout
    kept = sorted(path.name.partition(".")[2] for path in (at.folder / "out" / "bounds").iterdir())
    assert kept == ["certificate.json"] * 2 + ["json"] * 2, "one for each load"
    assert all(row["jct_bound"] <= row["jct_mean"] * (1 + 1e-9) for row in rows(at))


def test_a_run_whose_jobs_fail_has_no_bounds_and_says_why(at):
    (at.folder / "p.yaml").write_text("failures: {jobs: {probability: 1}, retries: 0}\n")
    words = ("simulate", "t.csv", "--nodes", "1x8", "--policy", "fifo", "--profile", "p.yaml", "--bounds")
    for more in ((), ("--seeds", "2")):
        said = at(*words, *more).stdout
        assert "no lower bounds for fifo: 4 jobs did not do all of their work" in said
        assert "above the clairvoyant" not in said


def test_the_seed_of_a_profile_with_failures_changes_the_runs(at):
    (at.folder / "p.yaml").write_text("failures: {jobs: {probability: 0.5}, retries: 3}\n")
    words = ("simulate", "t.csv", "--nodes", "1x8", "--policy", "fifo", "--profile", "p.yaml", "-o", "json")
    (group,) = groups(at(*words, "--seeds", "6"))
    assert group["figures"]["jct_mean"]["half"] > 0
    single = json.loads(at(*words, "--seed", "4").stdout)["runs"][0]["jct"]["mean"]
    assert single != json.loads(at(*words, "--seed", "5").stdout)["runs"][0]["jct"]["mean"]


def test_options_of_policies_can_be_swept(at):
    done = at("simulate", "t.csv", "--nodes", "1x8", "--policy", "easy", "--sweep", "policy.depth=1,2", "-o", "json")
    assert [one["swept"] for one in groups(done)] == [{"policy.depth": "1"}, {"policy.depth": "2"}]
