"""Studies on the command line: tables, resuming, failures, and what is refused before the first run."""

from __future__ import annotations

import csv
import io
import json
import re
import signal
import time
from pathlib import Path

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


def test_traces_clusters_and_policies_are_combined(at):
    words = (
        "simulate",
        "t.csv",
        "u.csv",
        "--nodes",
        "1x8",
        "--nodes",
        "2x8",
        "--policy",
        "fifo",
        "--policy",
        "binpack",
    )
    found = groups(at(*words, "-o", "json"))
    assert [(one["trace"], one["cluster"], one["policy"]) for one in found] == [
        (trace, nodes, policy)
        for trace in ("t.csv", "u.csv")
        for nodes in ("1x8", "2x8")
        for policy in ("fifo", "binpack")
    ]
    table = at(*words).stdout
    assert "2 traces on 2 clusters: 8 runs" in table
    assert "JCT mean" in table


def test_a_run_of_a_study_gives_the_figures_of_a_simulation_of_its_own(at):
    single = json.loads(at("simulate", "t.csv", "--nodes", "1x8", "--policy", "gang", "-o", "json").stdout)["runs"][0]
    (group,) = groups(at("simulate", "t.csv", "--nodes", "1x8", "--policy", "gang", "-o", "json", "-j", "1"))
    assert group["figures"]["jct_mean"]["mean"] == single["jct"]["mean"]
    assert group["figures"]["makespan"]["mean"] == single["makespan"]


def test_a_study_is_the_same_whatever_the_number_of_processes(at):
    words = ("simulate", "generate:jobs=80", "t.csv", "--nodes", "2x8", "--seeds", "3", "--sweep", "load=0.7:1.3:0.3")
    one, three = (at(*words, "-o", "json", "-j", count, "--results", f"out{count}").stdout for count in ("1", "3"))
    assert one == three
    timing = {"replay_seconds", "jobs_per_second", "decision_p50", "decision_p99", "decisions_per_second"}
    kept = [
        sorted(
            ({k: v for k, v in row.items() if k not in timing} for row in rows(at, name)), key=lambda row: row["key"]
        )
        for name in ("out1", "out3")
    ]
    assert kept[0] == kept[1]
    assert len(kept[0]) == 3 * (3 * 3 + 3), "three policies; nothing in t.csv is left to chance"


def test_intervals_come_with_seeds_that_change_something_and_only_then(at):
    made_up = at("simulate", "generate:jobs=60", "--nodes", "1x8", "--seeds", "3", "--policy", "fifo").stdout
    assert re.search(r"fifo +│ .* ± ", made_up)
    assert "a seed changes the jobs and arrivals of the made-up trace" in made_up
    file = at("simulate", "t.csv", "--nodes", "1x8", "--seeds", "3", "--policy", "fifo").stdout
    assert "±" not in file
    assert "nothing is left to chance, so one run stands for all 3 seeds" in file


def test_figures_over_seeds_are_those_of_the_single_runs(at):
    words = ("simulate", "generate:jobs=60", "--nodes", "1x8", "--policy", "fifo", "-o", "json")
    singles = [json.loads(at(*words, "--seed", str(seed)).stdout)["runs"][0]["jct"]["mean"] for seed in (5, 6)]
    (group,) = groups(at(*words, "--seed", "5", "--seeds", "2"))
    assert group["seeds"] == [5, 6]
    figure = group["figures"]["jct_mean"]
    assert figure["mean"] == pytest.approx(sum(singles) / 2)
    assert figure["half"] == pytest.approx(12.7062 * abs(singles[0] - singles[1]) / 2, rel=1e-4), "t(1) s / sqrt(2)"


def test_the_load_swept_is_the_load_offered(at):
    done = at("simulate", "t.csv", "--nodes", "1x8", "--policy", "fifo", "--sweep", "load=0.5,2", "-o", "csv")
    found = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [float(row["swept_load"]) for row in found] == [0.5, 2]
    assert [float(row["offered_load"]) for row in found] == pytest.approx([0.5, 2], rel=0.01)


# Kept results -----------------------------------------------------------------------------------------------------


def test_results_are_read_back_with_all_parameters_and_figures(at):
    at(
        "simulate",
        "t.csv",
        "--nodes",
        "1x8",
        "--policy",
        "fifo",
        "--sweep",
        "start_up=0s,5s",
        "--results",
        "out",
        "--per-job",
    )
    table = pq.read_table(at.folder / "out" / "runs.parquet")
    assert table.schema.metadata[b"gpusched.schema_version"] == b"1"
    first, second = sorted(table.to_pylist(), key=lambda row: row["start_up"])
    assert (first["policy"], first["trace"], first["cluster"], first["estimates"]) == ("fifo", "t.csv", "1x8", "exact")
    assert second["start_up"] == 5
    assert second["jct_mean"] > first["jct_mean"]
    assert second["overhead_gpu_seconds"] == 5 * 15
    assert first["seed"] is None
    assert len(first["trace_digest"]) == 64
    jobs = pq.read_table(at.folder / "out" / "jobs").to_pylist()
    assert len(jobs) == 8
    mean = sum(job["ended"] - job["submitted"] for job in jobs if job["key"] == first["key"]) / 4
    assert mean == first["jct_mean"]


def test_what_is_there_is_not_run_again(at):
    words = ("simulate", "t.csv", "--nodes", "1x8", "--policy", "fifo", "--results", "out")
    at(*words)
    before = rows(at)
    (seconds,) = [row["replay_seconds"] for row in before]
    again = at(*words, "--policy", "gang")
    assert "in out already: 1 run" in again.stderr
    after = {row["policy"]: row["replay_seconds"] for row in rows(at)}
    assert after["fifo"] == seconds, "the row is the one that was there"
    assert set(after) == {"fifo", "gang"}
    (at.folder / "t.csv").write_text(TRACE + "500,10,1,a\n")
    assert "already" not in at(*words).stderr
    assert len(rows(at)) == 3


def test_a_study_that_was_killed_goes_on_where_it_stopped(at):
    """Killed with -9 in the middle: what was finished is not run again, and nothing is lost or there twice."""
    log = at.folder / "log"
    (at.folder / "slow.py").write_text(
        "import os, time\n"
        "from gpusched.policies.catalog import load\n"
        "def Slow():\n"
        "    policy = load('fifo')\n"
        "    if 'sweep-' in __file__:\n"  # in a worker, not where the command line looks at the policy
        f"        open({str(log)!r}, 'a').write('run\\n')\n"
        f"        while os.path.getsize({str(log)!r}) > 4 * 7 and not os.path.exists({str(at.folder / 'go')!r}):\n"
        "            time.sleep(0.05)\n"
        "    return policy\n"
    )
    words = ("simulate", "generate:jobs=30", "--nodes", "2x8", "--policy", "slow.py:Slow", "--seeds", "12", "-j", "2",
             "--results", "out")  # fmt: skip
    process = at.start(*words)
    parts = at.folder / "out" / "parts"
    deadline = time.monotonic() + 30
    while len(list(parts.glob("[!.]*.parquet")) if parts.exists() else []) < 5 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = {path.stem for path in parts.glob("[!.]*.parquet")}
    assert 5 <= len(done) < 12
    (at.folder / "go").touch()
    # The workers end by themselves when their parent is gone: what they write now is nobody's.
    deadline = time.monotonic() + 20
    while workers_of(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    log.write_text("")
    second = at(*words)
    assert len(log.read_text().split()) == 12 - len(done), "those that were missing, each once"
    assert f"in out already: {len(done)} runs" in second.stderr
    kept = rows(at)
    assert len(kept) == len({row["key"] for row in kept}) == 12
    assert done <= {row["key"] for row in kept}
    assert not list(parts.iterdir())


def workers_of(parent):
    """Processes of a sweep that a process started, told by the folder they work in."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            stat = (entry / "stat").read_text().rpartition(")")[2].split()
        except (OSError, IndexError):
            continue
        if (
            b"gpusched.scheduler.sweep.worker" in words
            and int(stat[3]) == int(entry.name)
            and int(stat[1]) in {parent, 1}
        ):
            found.append(int(entry.name))
    return found


def test_an_interrupted_study_says_what_is_kept(at):
    process = at.start(
        "simulate", "generate:jobs=400", "--nodes", "2x8", "--seeds", "400", "-j", "2", "--results", "out"
    )
    parts = at.folder / "out" / "parts"
    deadline = time.monotonic() + 30
    while not (parts.exists() and list(parts.glob("[!.]*.parquet"))) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert re.search(r"interrupted: \d+ runs? kept in out: the same command goes on from there", said)
    assert "Traceback" not in said


def test_a_part_of_no_worth_is_named(at):
    words = ("simulate", "t.csv", "--nodes", "1x8", "--policy", "fifo", "--results", "out")
    at(*words)
    (at.folder / "out" / "runs.parquet").write_bytes(b"PAR1 and no more")
    assert "runs.parquet: cannot be read" in at(*words, code=1).stderr


# Failures ---------------------------------------------------------------------------------------------------------

BROKEN = """
import os
from gpusched.policies.catalog import load

def Raises():
    policy = load("fifo")
    def place(shape, pool, nodes):
        raise ValueError("boom")
    object.__setattr__(policy, "place", place)
    policy.name = "raises"
    return policy

def Dies():
    if "sweep-" in __file__:
        os.kill(os.getpid(), 9)
    policy = load("fifo")
    policy.name = "dies"
    return policy
"""


@pytest.mark.parametrize(("policy", "why"), [("Raises", "ValueError: boom"), ("Dies", "ended by SIGKILL, 2 times")])
def test_a_run_that_fails_is_named_and_takes_no_other_down(at, policy, why):
    (at.folder / "broken.py").write_text(BROKEN)
    words = ("simulate", "t.csv", "u.csv", "--nodes", "1x8", "--policy", f"broken.py:{policy}", "--policy", "fifo")
    done = at(*words, "-o", "json", "--results", "out", code=1)
    assert "2 of 4 runs failed" in done.stderr
    assert why in done.stderr
    told = json.loads(done.stdout)
    assert [one["policy"] for one in told["groups"]] == ["fifo", "fifo"]
    assert [one["run"] for one in told["failed"]] == [f"{policy.lower()}, {name} on 1x8" for name in ("t.csv", "u.csv")]
    assert len(rows(at)) == 2, "what failed is tried again by the next command"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["t.csv", "--nodes", "1x8", "--sweep", "speed=1"], 2, "--sweep speed: cannot be swept"),
        (["t.csv", "--nodes", "1x8", "--sweep", "seed=1,2", "--seeds", "3"], 2, "both say which seeds"),
        (["t.csv", "t.csv", "--nodes", "1x8"], 2, "TRACE 't.csv' is given twice"),
        (["t.csv", "--nodes", "1x8", "--nodes", "1x8"], 2, "cluster '1x8' is given twice"),
        (["t.csv", "gone.csv", "--nodes", "1x8"], 4, "gone.csv: no such file"),
        (["t.csv", "bad.csv", "--nodes", "1x8"], 4, "bad.csv, row 3"),
        (["t.csv", "--nodes", "1x8", "--seeds", "0"], 2, "0 is not in the range"),
        (["t.csv", "--nodes", "1x8", "--per-job"], 2, "give --results FOLDER"),
        (["t.csv", "--nodes", "1x8", "--sweep", "generate.mix=gavel"], 2, "t.csv is a file, not a made-up trace"),
        (["generate:jobs=x", "--nodes", "1x8", "--seeds", "2"], 4, "jobs 'x' is no number"),
        (["generate:mix=x", "--nodes", "1x8"], 4, "--mix is 'x'"),
        (["t.csv", "--nodes", "1x8", "--bootstrap", "0s"], 2, "above 0"),
        (["t.csv", "--nodes", "1x8", "--results", "t.csv"], 1, "t.csv: cannot be written"),
        (["t.csv", "--nodes", "1x8", "--html", "gone/page.html"], 1, "gone/page.html: cannot be written"),
        (["t.csv", "--nodes", "1x8", "--figures", "t.csv"], 1, "t.csv: cannot be written"),
        (["t.csv", "--nodes", "1x8", "-j", "2", "--ray-address", "x:1"], 2, "not both"),
        (["t.csv", "--nodes", "1x8", "--policy", "gone", "--seeds", "2"], 3, "no policy named 'gone'"),
        (["t.csv", "--nodes", "1x8", "--profile", "gone.yaml", "--seeds", "2"], 4, "gone.yaml"),
        (["t.csv", "--nodes", "1x8", "--window", "half", "--seeds", "2"], 2, "is no window"),
    ],
)
def test_mistakes_are_one_clear_message_before_the_first_run(at, words, code, said):
    (at.folder / "bad.csv").write_text("submitted,duration,gpus\n0,10,1\n5,-3,1\n")
    done = at("simulate", *words, code=code)
    assert said in done.stderr
    assert not done.stdout
    assert not (at.folder / "gone").exists()


def test_two_studies_do_not_write_to_one_folder(at):
    import fcntl  # noqa: PLC0415 - here alone

    (at.folder / "out").mkdir()
    with (at.folder / "out" / ".lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = at("simulate", "t.csv", "--nodes", "1x8", "--results", "out", code=1)
    assert "out: another sweep writes there" in done.stderr
    assert not list((at.folder / "out" / "parts").iterdir())


def test_a_page_that_cannot_be_written_fails_before_the_replay(at):
    at("trace", "generate", "big.csv", "--jobs", "200000", "--gpus", "16")
    begun = time.monotonic()
    done = at("simulate", "big.csv", "--nodes", "2x8", "--html", "gone/x.html", code=1)
    assert "cannot be written" in done.stderr
    assert time.monotonic() - begun < 1.5, "the replay would take longer"
