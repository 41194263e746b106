"""Tiresias's experiment: the policies against its rules on plain lists, published results, the files, the command."""

from __future__ import annotations

import csv
import gzip
import json
import os
import random
from pathlib import Path

import pytest
from cli_kit import cli  # noqa: F401 - a fixture, found by name
from tiresias_naive import play

from gpusched.jobs.errors import GpuschedError, NotFoundError, TraceError
from gpusched.jobs.job import Shape
from gpusched.jobs.traces.trace import Trace, TraceJob
from gpusched.scheduler.bench.tiresias import DEFAULT, POLICIES, QUIRKS, Asked, rows, run_all
from gpusched.scheduler.bench.tiresias_files import Machines, read_jobs, read_machines, read_sample
from gpusched.scheduler.bench.tiresias_index import Index

EIGHT = Machines("1x8", 1, 1, 8)
HEADER = "job_id,num_gpu,submit_time,iterations,model_name,duration,interval\n"


def jobs_of(*asked: tuple[int, int, int]) -> Trace:
    """Jobs of (GPUs, submitted, duration)."""
    return Trace(
        [TraceJob(number, f"j{number}", at, runs, Shape(0, gpus)) for number, (gpus, at, runs) in enumerate(asked)],
        "by hand",
        "tiresias",
    )


def times(trace: Trace, policy: str, *, machines: Machines = EIGHT, scheme: str = "count", **more) -> list[tuple]:
    """(start, end, preemptions) of each job."""
    done = run_all(trace, machines, Asked((policy,), (scheme,), **more))[0]
    return [(row["start_time"], row["end_time"], row["preempt"]) for row in done.times()]


# By hand --------------------------------------------------------------------------------------------------------------

STAIRS = ((4, 0, 10), (8, 1, 5), (4, 2, 20))


def test_fifo_blocks_and_fjf_passes_over():
    assert times(jobs_of(*STAIRS), "fifo") == [(0, 10, 0), (10, 15, 0), (15, 35, 0)]
    assert times(jobs_of(*STAIRS), "fjf") == [(0, 10, 0), (22, 27, 0), (2, 22, 0)]


def test_sjf_is_by_gpus_and_stops_the_wider_one():
    wide_first = jobs_of((8, 0, 10), (2, 3, 4))
    assert times(wide_first, "sjf") == [(0, 14, 1), (3, 7, 0)]


def test_shortest_is_by_time_and_shortest_gpu_by_its_product_with_gpus():
    two = jobs_of((8, 0, 10), (1, 2, 9))  # at 2: 8 s x 8 GPUs are left against 9 s x 1 GPU
    assert times(two, "shortest") == [(0, 10, 0), (10, 19, 0)]
    assert times(two, "shortest-gpu") == [(0, 19, 1), (2, 11, 0)]


def test_lpjf_misses_the_job_after_each_that_it_starts():
    four = jobs_of((1, 0, 5), (1, 0, 5), (1, 0, 5), (1, 0, 5))
    assert times(four, "lpjf") == [(0, 5, 0), (5, 10, 0), (0, 5, 0), (10, 15, 0)]
    assert times(four, "lpjf", quirks=frozenset()) == [(0, 5, 0)] * 4


def test_dlas_demotes_by_time_and_dlas_gpu_by_gpu_time():
    two = jobs_of((8, 0, 5000), (8, 10, 100))
    # 8 GPUs have had 3,250 s at 3250 and 3,250 GPU-seconds at 407; at 10 the wake-up is planned in 3240 // 8 s.
    assert times(two, "dlas") == [(0, 5100, 1), (3250, 3350, 0)]
    late = 10 + (3250 - 10) // 8
    assert times(two, "dlas-gpu") == [(0, 5100, 1), (late, late + 100, 0)]
    assert times(two, "dlas-gpu", quirks=frozenset({"kept-places"})) == [(0, 5100, 1), (407, 507, 0)]


def test_dlas_gpu_with_promotion_lets_the_one_that_waited_come_back():
    two = jobs_of((8, 0, 1000), (8, 10, 3000))
    # The first is demoted at 415 and waits from then on; at 830 it has waited as long as it had run. Without promotion
    # it follows in the second queue when the other is demoted, at 415 + 406 + 355, and is not stopped again.
    assert times(two, "dlas-gpu") == [(0, 1176 + 585, 1), (415, 4000, 1)]
    # With it it has to be demoted once more, and the other stands before it in the second queue by then.
    assert times(two, "dlas-gpu-1") == play([(8, 0, 1000), (8, 10, 3000)], 8, "dlas-gpu-1")
    assert times(two, "dlas-gpu-1")[0] > (0, 1176 + 585, 1)


def test_gittins_as_published_prefers_the_low_index_and_can_be_turned_around():
    sample = (*[10] * 50, *[100_000] * 50)  # who has had more than 10 GPU-seconds is there for long
    jobs = jobs_of((8, 0, 100), (8, 20, 5))
    assert times(jobs, "gittins", sample=sample) == [(0, 100, 0), (100, 105, 0)]
    right = frozenset(QUIRKS) - {"lowest-index-first"}
    assert times(jobs, "gittins", sample=sample, quirks=right) == [(0, 105, 1), (20, 25, 0)]


def test_an_index_is_the_chance_to_end_over_what_is_used():
    index = Index([100, 200, 10_000, 20_000])
    # At 0: two of four end within 3,250; used are 100 + 200 + 2 x 3250 over 4 = 1700. 0.5 x 10^6 / 1700 = 294.1176.
    assert index.of(0) == 294.1176
    # From 100 on: one of three; (200 + 2 x 3250) // 3 = 2233; 0.33333 x 10^6 / 2233.
    assert index.of(100) == round(333_330 / 2233, 4)
    assert index.of(20_000) == 0


def test_yarn_keeps_a_job_on_one_switch_and_a_small_one_on_one_node():
    machines = Machines("two switches", 2, 2, 4)
    three = jobs_of((3, 0, 10), (3, 0, 10), (8, 1, 5))  # the second switch is idle
    assert times(three, "fifo", machines=machines, scheme="yarn")[2] == (1, 6, 0)
    spread = jobs_of((8, 0, 10), (2, 0, 10), (8, 1, 5))  # 6 GPUs are left on the second switch, and 8 nowhere together
    assert times(spread, "fjf", machines=machines, scheme="yarn")[2] == (10, 15, 0)
    alone = jobs_of((2, 0, 10), (3, 0, 10), (3, 0, 10), (3, 0, 10), (4, 1, 5))  # 5 GPUs are free, on no node 4
    assert times(alone, "fjf", machines=machines, scheme="yarn")[4] == (10, 15, 0)
    assert times(alone, "fjf", machines=machines)[4] == (1, 6, 0)


def test_a_job_wider_than_a_switch_is_left_out_and_told():
    machines = Machines("two switches", 2, 1, 4)
    done = run_all(jobs_of((8, 0, 10), (4, 0, 10)), machines, Asked(("fifo",), ("yarn",)))
    assert rows(done)[0]["left_out"] == 1
    assert [name for name, _ in done[0].run.rejected] == ["j0"]


# Against the rules on plain lists -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(40))
def test_every_policy_meets_the_rules_on_plain_lists_to_the_second(seed):
    draw = random.Random(seed)  # noqa: S311 - the same cases each time
    scale, at = draw.choice([1, 10, 1000]), draw.choice([0, 11, 5000])
    asked = []
    for _ in range(draw.choice([5, 12, 40])):
        at += draw.choice([0, 1, 3, 10]) * max(1, scale // 10)
        asked.append((draw.choice([1, 1, 2, 3, 4, 8]), at, draw.randint(1, 12) * scale + draw.choice([0, 0, 7])))
    sample = tuple(int(draw.expovariate(1 / 5000)) + 1 for _ in range(70))
    for policy in (*POLICIES, "dlas-gpu-1", "dlas-gpu-4"):
        assert times(jobs_of(*asked), policy, sample=sample) == play(asked, 8, policy, list(sample)), policy


# The published results ------------------------------------------------------------------------------------------------

FOLDER = Path(os.environ.get("GPUSCHED_REFERENCE") or ".")
THEIRS = {
    "fifo_strict": "fifo",
    "fifo_skip": "fjf",
    "srtf": "shortest",
    "srsf": "shortest-gpu",
    "smallest_gpus_first": "sjf",
    "dlas_gpu": "dlas-gpu",
}
"""Policies of the results that the simulator has."""


def cases() -> list[dict[str, str]]:
    if not os.environ.get("GPUSCHED_REFERENCE"):
        return []
    with (FOLDER / "summary.csv").open() as file:
        return [
            row
            for row in csv.DictReader(file)
            if row["per_job_file"]
            and row["policy"] in THEIRS
            and row["placement"] in {"count", "first_fit"}
            and (row["trace"] == "t60" or row["placement"] == "count")
        ]


@pytest.mark.parametrize("case", cases(), ids=lambda case: case["per_job_file"].removesuffix(".csv.gz"))
def test_the_command_meets_a_published_result_job_by_job(case, cli, tmp_path):  # noqa: F811 - the fixture
    with (FOLDER / "traces" / f"{case['trace']}.csv").open() as file:
        written = [
            f"{row['job_id']},{row['num_gpus']},{row['submit_time']},100,vgg16,{row['duration']},0\n"
            for row in csv.DictReader(file)
        ]
    (tmp_path / "jobs.csv").write_text(HEADER + "".join(written))
    (tmp_path / "cluster.csv").write_text(
        "num_switch,num_node_p_switch,num_gpu_p_node,num_cpu_p_node,mem_p_node\n"
        f"1,{case['nodes']},{case['gpus_per_node']},128,256\n"
    )
    policy, scheme = THEIRS[case["policy"]], "yarn" if case["placement"] == "first_fit" else "count"
    done = cli(
        "bench", "tiresias", str(tmp_path / "jobs.csv"), str(tmp_path / "cluster.csv"),
        "--schedule", policy, "--scheme", scheme, "--per-job", str(tmp_path / "times.csv"), "-o", "json", "-q",
    )  # fmt: skip
    with (tmp_path / "times.csv").open() as file:
        found = {row["job_id"]: (int(row["start_time"]), int(row["end_time"])) for row in csv.DictReader(file)}
    with gzip.open(FOLDER / "expected" / case["per_job_file"], "rt") as file:
        expected = {row["job_id"]: (int(row["start"]), int(row["end"])) for row in csv.DictReader(file)}
    assert found == expected
    row = json.loads(done.stdout)["policies"][0]
    assert row["jct_mean"] == pytest.approx(float(case["avg_jct"]), abs=1e-3)
    assert (row["jct_median"], row["jct_p99"]) == (float(case["median_jct"]), float(case["p99_jct"]))
    assert row["makespan"] == float(case["makespan"])
    assert row["first_start_delay_mean"] == pytest.approx(float(case["avg_first_start_delay"]), abs=1e-3)
    if case["preemptions"]:
        assert row["preemptions"] == int(case["preemptions"])


# The files ------------------------------------------------------------------------------------------------------------


def written(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def test_jobs_are_in_order_of_submission_and_times_stay_the_files_own(tmp_path):
    found = read_jobs(written(tmp_path, "j.csv", HEADER + "b,2,30,1,vgg19,12.9,0\na,1,7,1,vgg19,5,0\nc,4,7,1,x,6,0\n"))
    assert [(job.name, job.submitted, job.duration, job.shape.gpus) for job in found.jobs] == [
        ("a", 7, 5, 1),
        ("c", 7, 6, 4),
        ("b", 30, 12, 2),
    ]


def test_a_txt_file_is_parted_by_blanks(tmp_path):
    found = read_jobs(written(tmp_path, "j.txt", "job_id num_gpu submit_time duration\n1 2 0 30\n"))
    assert [job.duration for job in found.jobs] == [30]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("job_id,gpus,submit_time,duration\n1,1,0,5\n", "no column 'num_gpu'"),
        (HEADER + "1,0,0,1,vgg19,5,0\n", "row 2, column 'num_gpu': is 0"),
        (HEADER + "1,1,0,1,vgg19,0.5,0\n", "row 2, column 'duration': is 0"),
        (HEADER + "1,1,0,1,vgg19,5,0\n2,1,x,1,vgg19,5,0\n", "row 3, column 'submit_time': 'x' is not a number"),
        (HEADER + "1,1,-4,1,vgg19,5,0\n", "row 2, column 'submit_time': '-4' is negative"),
        (HEADER, "has no job"),
        (HEADER + "1,1\n", "row 2: has 2 fields, the header has 7"),
    ],
)
def test_a_bad_job_file_is_named_with_row_and_column(tmp_path, text, message):
    with pytest.raises(TraceError, match=r"j\.csv") as found:
        read_jobs(written(tmp_path, "j.csv", text))
    assert message in found.value.message


def test_a_cluster_is_a_file_or_words(tmp_path):
    spec = "num_switch,num_node_p_switch,num_gpu_p_node,num_cpu_p_node,mem_p_node\n2,3,4,40,256"
    found = read_machines(written(tmp_path, "n6g4.csv", spec))
    assert [(node.name, node.gpus) for node in found.inventory()][2:4] == [("s0n2", 4), ("s1n0", 4)]
    assert len(read_machines("15x4").inventory()) == 15


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("num_switch,num_gpu_p_node\n1,8\n", "no column 'num_node_p_switch'"),
        ("num_switch,num_node_p_switch,num_gpu_p_node\n", "has 0 rows"),
        ("num_switch,num_node_p_switch,num_gpu_p_node\n1,4,0\n", "a cluster without GPUs"),
        ("num_switch,num_node_p_switch,num_gpu_p_node\n1,4,x\n", "column 'num_gpu_p_node'"),
    ],
)
def test_a_bad_cluster_file_is_named(tmp_path, text, message):
    with pytest.raises(TraceError, match=r"n\.csv") as found:
        read_machines(written(tmp_path, "n.csv", text))
    assert message in found.value.message


def test_where_cpus_or_memory_could_run_out_it_is_told():
    jobs = jobs_of((64, 0, 5))
    assert list(Machines("big", 1, 8, 8, 64, 256).remarks(jobs)) == []
    tight = list(Machines("tight", 1, 8, 8, 40, 64).remarks(jobs))
    assert ["CPUs" in tight[0], "memory" in tight[1]] == [True, True]


def test_a_sample_of_gpu_times_has_to_have_values(tmp_path):
    assert read_sample(written(tmp_path, "s.csv", "duration\n7\n5\n")) == [7, 5]
    with pytest.raises(TraceError, match="has 1 values"):
        read_sample(written(tmp_path, "s.csv", "duration\n7\n"))


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        ({"policies": ("fifo", "sjfx")}, NotFoundError),
        ({"schemes": ("greedy",)}, NotFoundError),
        ({"quirks": frozenset({"late"})}, NotFoundError),
        ({"limits": (7200.0, 3250.0)}, GpuschedError),
    ],
)
def test_what_there_is_not_is_refused_with_what_there_is(asked, error):
    with pytest.raises(error) as found:
        Asked(**asked)
    assert found.value.hint


# The command ----------------------------------------------------------------------------------------------------------


def test_without_files_it_runs_a_sample_in_which_policies_differ(cli):  # noqa: F811 - the fixture
    done = cli("bench", "tiresias", "-o", "json")
    document = json.loads(done.stdout)
    assert [row["schedule"] for row in document["policies"]] == list(DEFAULT)
    assert len({row["jct_mean"] for row in document["policies"]}) == len(DEFAULT)
    assert cli("bench", "tiresias", "-o", "json").stdout == done.stdout


def test_without_quirks_the_catalogue_decides(cli):  # noqa: F811 - the fixture
    done = cli("bench", "tiresias", "--quirks", "none", "-o", "json", "--schedule", "lpjf,shortest,dlas,dlas-gpu-2")
    assert [row["decided_by"] for row in json.loads(done.stdout)["policies"]] == [
        "arrival+count+strict",
        "srtf+count+skip+preempt",
        "tiresias by time+count+skip+preempt",
        "tiresias?promote=2+count+skip+preempt",
    ]


def test_it_writes_jobs_a_page_and_figures(cli):  # noqa: F811 - the fixture
    done = cli(
        "bench", "tiresias", "--schedule", "fifo,dlas-gpu", "--scheme", "count,yarn", "-o", "csv",
        "--per-job", "j.csv", "--html", "p.html", "--figures", "f",
    )  # fmt: skip
    assert [line.split(",")[:2] for line in done.stdout.splitlines()[1:]] == [
        ["fifo", "count"], ["dlas-gpu", "count"], ["fifo", "yarn"], ["dlas-gpu", "yarn"],
    ]  # fmt: skip
    assert len((cli.folder / "j.csv").read_text().splitlines()) == 1 + 4 * 160
    assert "dlas-gpu (yarn)" in (cli.folder / "p.html").read_text()
    assert list((cli.folder / "f").glob("*.svg"))


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["jobs.csv"], 2, "give both JOB_FILE and CLUSTER_FILE"),
        (["missing.csv", "4x8"], 4, "missing.csv: no such file"),
        (["--schedule", "fifos"], 3, "there is no 'fifos'"),
        (["--limits", "a,b"], 2, "no list of seconds"),
        (["--html", "no/such/folder/x.html"], 1, "cannot be written"),
    ],
)
def test_a_mistake_gets_one_clear_message(cli, arguments, code, said):  # noqa: F811 - the fixture
    assert said in cli("bench", "tiresias", *arguments, code=code).stderr


def test_the_help_and_the_notes_name_every_policy_and_quirk(cli):  # noqa: F811 - the fixture
    told = "".join(cli("bench", "tiresias", "--help").stdout.split())  # lines break at hyphens too
    notes = (Path(__file__).parents[2] / "docs" / "bench.md").read_text()
    for name in (*POLICIES, *QUIRKS):
        assert name in told, name
        assert f"`{name}`" in notes, name
