"""The published traces, read whole, have the counts and sums of their publishers. GPUSCHED_TRACES names the folder."""

import os
from pathlib import Path

import pytest

from gpusched.jobs.traces.catalog import read_trace

ROOT = Path(os.environ.get("GPUSCHED_TRACES", ""))
pytestmark = pytest.mark.skipif("GPUSCHED_TRACES" not in os.environ, reason="GPUSCHED_TRACES names no folder of traces")

VENUS = "helios-venus-2020/venus_gpu_jobs_2020-03-18_2020-06-30.csv.gz"
SLICE = "helios-venus-2020/venus_slice_2020-05-27_2020-06-17.csv.gz"
NO_RUN = "jobs without a run time"


@pytest.mark.parametrize(
    ("file", "name", "jobs", "gpu_hours", "skipped"),
    [
        (VENUS, "helios", 54803, 1087341, {}),
        (SLICE, "helios", 10796, 358608, {"CPU-only jobs": 4204}),
        ("philly-2017/philly.csv.gz", "philly", 63360, 514024, {}),
        ("alibaba-openb-2023/openb_pod_list_default.csv.gz", "openb", 7063, 51499, {"CPU-only jobs": 1088, NO_RUN: 1}),
        (
            "alibaba-openb-2023/openb_pod_list_gpuspec33.csv.gz",
            "openb",
            7063,
            51499,
            {"CPU-only jobs": 1088, NO_RUN: 1},
        ),
        ("alliance-graham-2021/jobs_graham_gpu.csv.gz", "slurm", 12591, 90441, {}),
        ("alliance-graham-2021/jobs_graham_2021-05-17.csv.gz", "slurm", 14, 1420, {"CPU-only jobs": 915}),
        ("swf/hpc2n.swf.gz", "swf", 3145, 139621, {NO_RUN: 25}),
    ],
)
def test_a_published_trace_has_its_jobs_and_gpu_hours(file, name, jobs, gpu_hours, skipped):
    trace = read_trace(ROOT / file)
    assert (trace.format, len(trace.jobs), round(trace.gpu_hours()), trace.skipped) == (name, jobs, gpu_hours, skipped)
    assert [job.id for job in trace.jobs] == list(range(jobs))
    assert all(a.submitted <= b.submitted for a, b in zip(trace.jobs, trace.jobs[1:], strict=False))
    assert all(isinstance(job.submitted, int) and isinstance(job.duration, int) for job in trace.jobs)


def test_the_seven_itp_clusters_have_their_jobs_and_gpu_hours():
    traces = [read_trace(path) for path in sorted((ROOT / "microsoft-itp-2021").glob("*.csv.gz"))]
    assert [trace.format for trace in traces] == ["itp"] * 7
    assert sum(len(trace.jobs) for trace in traces) == 29716
    assert round(sum(trace.gpu_hours() for trace in traces)) == 521236
    assert max(job.shape.gpus for trace in traces for job in trace.jobs) == 64


def test_the_quirks_of_the_published_traces_are_counted():
    assert read_trace(ROOT / VENUS).notes == [
        "1,009 jobs run exactly 172,800 s: clamped by the publisher, they ran longer"
    ]
    assert read_trace(ROOT / "philly-2017/philly.csv.gz").notes == [
        "50 exact duplicate rows kept",
        "sorted by submission: 35,999 rows came before the row above, first row 3",
    ]
    assert read_trace(ROOT / "alibaba-openb-2023/openb_pod_list_default.csv.gz").notes == [
        "861 pods that never were scheduled kept, with their whole life as run time"
    ]
    assert (
        read_trace(ROOT / "format-samples/acme_trace_kalos.csv").notes[0].startswith("2 run times taken as end - start")
    )


def test_the_pods_of_openb_share_gpus_and_name_types():
    default = read_trace(ROOT / "alibaba-openb-2023/openb_pod_list_default.csv.gz").jobs
    assert sum(job.shape.gpu_milli > 0 for job in default) == 3077  # and one of no life
    typed = read_trace(ROOT / "alibaba-openb-2023/openb_pod_list_gpuspec33.csv.gz").jobs
    assert sum(job.shape.gpu_types != () for job in typed) == 2388
    assert len(read_trace(ROOT / "alibaba-openb-2023/openb_pod_list_default.csv.gz", resources="all").jobs) == 8151


def test_the_samples_of_formats_are_read():
    for file, name, jobs in (
        ("helios_cluster_log.csv", "helios", 3),
        ("acme_trace_seren.csv", "helios", 2),
        ("acme_trace_kalos.csv", "helios", 2),
        ("philly_cluster_job_log.json", "philly-log", 2),
    ):
        trace = read_trace(ROOT / "format-samples" / file)
        assert (trace.format, len(trace.jobs)) == (name, jobs)


def test_a_table_that_is_no_known_format_is_read_by_a_column_map():
    trace = read_trace(
        ROOT / "format-samples/spot_job_info_df.csv",
        columns="id=job_name,user=organization,gpu_type=gpu_model,gpus_per_node=gpu_request,num_nodes=worker_num,queue=job_type",
    )
    assert [job.shape.gpus for job in trace.jobs][:2] == [1, 1]
    assert {job.queue for job in trace.jobs} == {"HP", "Spot"}
