"""Each published format is read with its quirks handled and counted. The samples are written here, in each layout."""

import gzip
import io
import sys

import pytest

from gpusched.jobs.errors import TraceError
from gpusched.jobs.job import Shape
from gpusched.jobs.traces.catalog import FORMATS, read_trace, recognise
from gpusched.jobs.traces.source import Source

HELIOS = """\
job_id,user,vc,gpu_num,cpu_num,node_num,state,submit_time,start_time,end_time,duration,queue
11,ada,vc1,8,32,1,COMPLETED,2021-05-03 10:00:00,2021-05-03 10:01:00,2021-05-03 11:01:00,3600,60
12,ben,vc1,0,4,1,COMPLETED,2021-05-03 10:00:10,2021-05-03 10:00:11,2021-05-03 10:00:21,10,1
13,ben,vc2,16,64,2,FAILED,2021-05-03 10:00:30,,,42,
14,cy,vc2,6,8,4,CANCELLED,2021-05-03 10:02:00,,2021-05-03 10:03:00,60,0
15,cy,vc2,6,8,4,CANCELLED,2021-05-03 10:02:00,2021-05-03 10:02:05,2021-05-03 10:03:05,60,5
"""

KALOS = """\
job_id,user,node_num,gpu_num,cpu_num,type,state,submit_time,start_time,end_time,duration,queue,gpu_time
a1,u1,2,16,32,Other,FAILED,2023-05-17 11:00:00+00:00,2023-05-17 11:10:00+00:00,2023-05-17 11:10:30+00:00,630,600,0
a2,u1,1,8,16,Other,FAILED,2023-05-17 19:05:00+08:00,2023-05-17 19:05:00+08:00,2023-05-17 19:06:00+08:00,60,0,480
"""

PHILLY = """\
timestamp,duration,num_gpus,gpu_time,cluster
2017-10-09 07:01:55,66.0,1,66.0,vc1
2017-10-09 06:13:03,2951.5,4,11806.0,vc2
2017-10-09 06:13:03,2951.5,4,11806.0,vc2
2017-10-09 09:00:00,5.0,1,5.0,vc1
"""

PHILLY_LOG = """\
[
 {"status": "Pass", "vc": "v", "jobid": "j1", "submitted_time": "2017-10-07 01:00:00", "user": "u", "attempts": [
   {"start_time": "2017-10-07 01:00:30", "end_time": "2017-10-07 01:01:30",
    "detail": [{"ip": "m1", "gpus": ["gpu0", "gpu1"]}, {"ip": "m2", "gpus": ["gpu0", "gpu1"]}]},
   {"start_time": "2017-10-07 01:02:00", "end_time": "None", "detail": [{"ip": "m1", "gpus": ["gpu0"]}]},
   {"start_time": "2017-10-07 01:05:00", "end_time": "2017-10-07 01:05:40", "detail": []}]},
 {"status": "Killed", "vc": "v", "jobid": "j2", "submitted_time": "2017-10-07 02:00:00", "user": "u", "attempts": []},
 {"status": "Killed", "vc": "v", "jobid": "j3", "submitted_time": "2017-10-07 02:00:00", "user": "u", "attempts": [
   {"start_time": null, "end_time": "", "detail": [{"ip": "m1", "gpus": ["gpu0"]}]}]}
]
"""

ITP = """\
job_id,submission_time,duration,num_gpu
6a,4000,1183,1
6b,4001,1215,64
"""

OPENB = """\
name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos,pod_phase,creation_time,deletion_time,scheduled_time
p0,12000,16384,1,1000,,LS,Running,0,1000,10
p1,6000,12288,1,460,V100M16|V100M32|V100M32,BE,Failed,50,250,50
p2,6000,12288,0,0,,BE,Running,60,90,60
p3,96000,65536,8,1000,T4,LS,Pending,70,170,
p4,1000,1024,1,200,,BE,Pending,80,80,
"""

SACCT = """\
JobID|User|Account|Partition|Submit|Eligible|Start|End|Elapsed|Timelimit|ReqTRES|NNodes|State
100|ada|lab|gpu|2026-01-05T09:00:00|2026-01-05T09:00:00|2026-01-05T09:10:00|2026-01-06T10:10:05|1-01:00:05|2-00:00:00|\
billing=8,cpu=16,gres/gpu:a100=8,gres/gpu=8,mem=128G,node=2|2|COMPLETED
100.batch|||||||2026-01-06T10:10:05|1-01:00:05||||COMPLETED
101|ben|lab|cpu|2026-01-05T09:00:01|2026-01-05T09:00:01|2026-01-05T09:10:00|2026-01-05T09:10:09|00:00:09|UNLIMITED|\
cpu=4,mem=4G,node=1|1|COMPLETED
102_7|ben|lab|gpu|2026-01-05T09:00:02|2026-01-05T09:30:00|2026-01-05T10:00:00|2026-01-05T10:00:30|00:00:30|10:00|\
cpu=4,gres/gpu=1,mem=4G,node=1|1|CANCELLED by 1000
102_[8-20%4]|ben|lab|gpu|2026-01-05T09:00:02|Unknown|Unknown|Unknown|00:00:00|10:00|gres/gpu=1,node=1|1|PENDING
103|ben|lab|gpu|2026-01-05T09:00:03|2026-01-05T09:00:03|2026-01-05T10:00:00|Unknown|02:00:00|10:00|gres/gpu=1|1|RUNNING
"""

SACCT_TEXT = """\
JobID           Partition              Submit    Elapsed                        ReqTRES      State
------------ ------------ ------------------- ---------- ------------------------------ ----------
100                   gpu 2026-01-05T09:00:00   00:10:00             cpu=4,gres/gpu=2    COMPLETED
100.batch                 2026-01-05T09:10:00   00:10:00                                 COMPLETED
101                   gpu 2026-01-05T09:00:05   00:00:07             cpu=4,gres/gpu=1    CANCELLED+
"""

SLURM_CSV = """\
,job_unique_id,submit_time,partition_id_x,account_id,req_tres,alloc_nodes,state,elapsed_time,time_limit,time_limit_sec
7,58,2021-05-01 04:22:19,55,184,"billing=4,cpu=20,gres/gpu=4,mem=193024M,node=1",1,TIMEOUT,9527,3 days 00:00:00,259200
"""

SWF = """\
; Version: 2.2
; UnixStartTime: 1000000000
      1        0    100     60   30  60    -1   32    120    -1  1   7   1  -1 2  1 -1 -1
      2       10      5     -1    8  -1    -1    8    600    -1 -1   5   1  -1 -1  1 -1 -1
      3       20      5     40    8  40    -1   -1     -1    -1  0  -1   1  -1 -1  1 -1 -1
      4       30      5     10    8  10    -1   -1     -1    -1  2  -1   1  -1 -1  1 -1 -1
"""

REFERENCE = """\
job_id,submit_time,num_gpus,duration
0,0,1,164
1,30,8,147
"""


@pytest.fixture
def read(tmp_path):
    """Reads a text as a trace file of no telling name."""

    def _read(text, **options):
        path = tmp_path / "trace"
        path.write_text(text)
        return read_trace(path, **options)

    return _read


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (HELIOS, "helios"), (KALOS, "helios"), (PHILLY, "philly"), (PHILLY_LOG, "philly-log"), (ITP, "itp"),
        (OPENB, "openb"), (SACCT, "slurm"), (SACCT_TEXT, "slurm"), (SLURM_CSV, "slurm"), (SWF, "swf"),
        (REFERENCE, "csv"), ("#gpusched-export v1\n" + "{}\n", "export"),
    ],
)  # fmt: skip
def test_a_format_is_told_by_its_content(text, name, tmp_path):
    path = tmp_path / "trace"
    path.write_text(text)
    with Source(path) as source:
        assert recognise(source) == name


def test_every_format_has_a_sample_above():
    assert set(FORMATS) == {
        "helios", "philly", "philly-log", "itp", "openb", "slurm", "swf", "csv", "export"
    }  # fmt: skip


def test_helios_skips_cpu_jobs_and_reads_empty_columns(read):
    trace = read(HELIOS)
    first, second, third = trace.jobs
    assert first == (0, "11", 0, 3600, Shape(num_nodes=0, gpus=8), "ada", "vc1", 50, None, "COMPLETED", None, 1)
    assert (second.submitted, second.duration, second.shape.gpus) == (30, 42, 16)
    assert third.name == "15"
    assert trace.epoch == 1620036000
    assert trace.skipped == {"CPU-only jobs": 1, "jobs that ended before they started to run": 1}
    assert trace.remarks()[0] == "skipped 1 CPU-only job"


def test_helios_asks_for_the_nodes_of_the_trace_where_they_divide_the_gpus(read):
    trace = read(HELIOS, gang="nodes")
    assert [job.shape for job in trace.jobs] == [
        Shape(num_nodes=1, gpus=8),
        Shape(num_nodes=2, gpus=8),
        Shape(num_nodes=0, gpus=6),
    ]
    assert trace.notes == ["1 job whose GPUs do not divide by their nodes left to the placer to split"]


def test_helios_asks_for_cpus_too_when_told_so(read):
    trace = read(HELIOS, resources="all")
    assert trace.skipped == {"jobs that ended before they started to run": 1}
    assert [job.shape for job in trace.jobs] == [
        Shape(num_nodes=1, gpus=8, cpu_milli=32000),
        Shape(num_nodes=1, gpus=0, cpu_milli=4000),
        Shape(num_nodes=2, gpus=8, cpu_milli=32000),
        Shape(num_nodes=0, gpus=6),
    ]


def test_helios_says_when_run_times_were_clamped(read):
    rows = "".join(f"{i},,,1,,,,2020-03-18 04:01:{i:02},,,172800,\n" for i in range(60))
    trace = read(HELIOS.splitlines()[0] + "\n" + rows + "99,,,1,,,,2020-03-18 04:02:00,,,5,\n")
    assert trace.notes == ["60 jobs run exactly 172,800 s: clamped by the publisher, they ran longer"]


def test_acme_run_times_are_end_minus_start_and_zones_are_heeded(read):
    trace = read(KALOS)
    assert [(job.submitted, job.duration) for job in trace.jobs] == [(0, 30), (300, 60)]
    assert len(trace.notes) == 1
    assert trace.notes[0].startswith("1 run time taken as end - start")


def test_philly_table_is_sorted_and_its_duplicates_are_kept(read):
    trace = read(PHILLY)
    assert [(job.id, job.name, job.submitted, job.duration) for job in trace.jobs] == [
        (0, "row-3", 0, 2951.5), (1, "row-4", 0, 2951.5), (2, "row-2", 2932, 66), (3, "row-5", 10017, 5)
    ]  # fmt: skip
    assert all(isinstance(job.duration, int) for job in trace.jobs[2:])
    assert trace.notes == [
        "1 exact duplicate row kept",
        "sorted by submission: 1 row came before the row above, first row 3",
    ]
    assert trace.jobs[0].queue == "vc2"


@pytest.mark.parametrize("block", [3, 64, 1 << 18])
def test_philly_log_sums_attempts_and_survives_missing_times(block, read, monkeypatch):
    monkeypatch.setattr("gpusched.jobs.traces.source._BLOCK", block)
    trace = read(PHILLY_LOG, format="philly-log", gang="nodes")
    (job,) = trace.jobs
    assert (job.name, job.duration, job.shape, job.attempts) == ("j1", 100, Shape(num_nodes=2, gpus=2), 3)
    assert trace.skipped == {"jobs that never ran (no attempt)": 1, "jobs without a run time": 1}
    assert trace.notes == ["2 attempts without a start or an end counted as no run time"]


def test_itp_counts_from_its_own_zero(read):
    trace = read(ITP)
    assert [(job.name, job.submitted, job.duration, job.shape.gpus) for job in trace.jobs] == [
        ("6a", 0, 1183, 1), ("6b", 1, 1215, 64)
    ]  # fmt: skip
    assert trace.epoch is None
    assert trace.remarks() == []


def test_openb_pods_share_gpus_and_name_types(read):
    trace = read(OPENB)
    assert [(job.name, job.submitted, job.duration, job.shape) for job in trace.jobs] == [
        ("p0", 0, 990, Shape(num_nodes=0, gpus=1)),
        ("p1", 50, 200, Shape(gpu_milli=460, gpu_types=("V100M16", "V100M32"))),
        ("p3", 70, 100, Shape(num_nodes=0, gpus=8, gpu_types=("T4",))),
    ]
    assert trace.skipped == {"CPU-only jobs": 1, "jobs without a run time": 1}
    assert trace.notes == [
        "2 pods that never were scheduled kept, with their whole life as run time",
        "1 list of GPU types named one twice; it counts once",
    ]


def test_openb_pods_ask_for_cpus_and_memory_when_told_so(read):
    shapes = [job.shape for job in read(OPENB, resources="all").jobs]
    assert shapes[1] == Shape(gpu_milli=460, gpu_types=("V100M16", "V100M32"), cpu_milli=6000, memory=12288 << 20)
    assert shapes[2] == Shape(gpus=0, cpu_milli=6000, memory=12288 << 20)


def test_sacct_leaves_out_steps_pending_arrays_and_running_jobs(read):
    trace = read(SACCT, gang="nodes")
    first, second = trace.jobs
    assert (first.name, first.duration, first.estimate, first.state) == ("100", 90005, 172800, "COMPLETED")
    assert first.shape == Shape(num_nodes=2, gpus=4, gpu_types=("A100",))
    assert (second.name, second.submitted, second.duration, second.estimate) == ("102_7", 2, 30, 600)
    assert (second.user, second.queue, second.state) == ("ben", "gpu", "CANCELLED")
    assert trace.skipped == {
        "job steps": 1, "CPU-only jobs": 1, "jobs that never started to run": 1, "jobs that had not ended": 1
    }  # fmt: skip
    assert trace.notes == ["1 job that became eligible after they were submitted (dependency, hold or array limit)"]


def test_sacct_output_in_columns_is_read_too(read):
    trace = read(SACCT_TEXT)
    assert [(job.name, job.submitted, job.duration, job.shape.gpus, job.state) for job in trace.jobs] == [
        ("100", 0, 600, 2, "COMPLETED"), ("101", 5, 7, 1, "CANCELLED")
    ]  # fmt: skip
    assert trace.skipped == {"job steps": 1}


def test_sacct_cells_that_were_cut_off_are_refused(read):
    with pytest.raises(TraceError, match=r"row 5, column 'ReqTRES': 'cpu=4,gres/gpu=\+' was cut off") as caught:
        read(SACCT_TEXT.replace("cpu=4,gres/gpu=1 ", "cpu=4,gres/gpu=+ "))
    assert "sacct with -P" in caught.value.hint


def test_old_gres_columns_count_gpus_per_node(read):
    trace = read(
        "JobID|Submit|Elapsed|ReqGRES|NNodes|State|\n"
        "1|2019-01-05T09:00:00|00:01:00|gpu:v100:2|3|COMPLETED|\n"
        "2|2019-01-05T09:00:00|00:01:00|craynetwork:1,gpu:4|1|COMPLETED|\n"
        "3|2019-01-05T09:00:00|00:01:00|gpu|1|COMPLETED|\n"
        "4|2019-01-05T09:00:00|00:01:00||1|COMPLETED|\n"
    )
    assert [(job.shape.gpus, job.shape.gpu_types) for job in trace.jobs] == [(6, ("V100",)), (4, ()), (1, ())]
    assert trace.skipped == {"CPU-only jobs": 1}


def test_a_csv_of_slurm_accounting_is_read(read):
    (job,) = read(SLURM_CSV).jobs
    assert (job.name, job.duration, job.estimate, job.shape.gpus, job.user) == ("58", 9527, 259200, 4, "184")


def test_swf_takes_processors_as_gpus_and_leaves_out_unknown_run_times(read):
    trace = read(SWF)
    assert [(job.name, job.submitted, job.duration, job.shape.gpus, job.estimate) for job in trace.jobs] == [
        ("1", 0, 60, 32, 120), ("3", 20, 40, 8, None)
    ]  # fmt: skip
    assert (trace.jobs[0].user, trace.jobs[0].queue, trace.jobs[0].state) == ("7", "2", "COMPLETED")
    assert (trace.jobs[1].user, trace.jobs[1].queue, trace.jobs[1].state) == ("", "default", "FAILED")
    assert trace.epoch == 1000000000
    assert trace.skipped == {"jobs without a run time": 1, "lines for parts of a job": 1}
    assert trace.notes == ["processors counted as GPUs: SWF knows no GPUs"]


def test_the_reference_table_needs_no_column_map(read):
    assert read(REFERENCE).jobs[1][:5] == (1, "1", 30, 147, Shape(num_nodes=0, gpus=8))


def test_a_column_map_reads_any_csv(read):
    text = "when;took;cards;who;weight\n2026-01-05 09:00:00;90;0.5;ada;70\n2026-01-05T09:00:01.5Z;1.5;3;ben;\n"
    trace = read(text, columns="submitted=when,duration=took,gpus=cards,user=who,priority=weight")
    assert [(job.name, job.submitted, job.duration, job.user, job.priority) for job in trace.jobs] == [
        ("row-2", 0, 90, "ada", 70), ("row-3", 1.5, 1.5, "ben", 50)
    ]  # fmt: skip
    assert [job.shape for job in trace.jobs] == [Shape(gpu_milli=500), Shape(num_nodes=0, gpus=3)]
    assert trace.epoch == 1767603600


def test_gpus_per_node_and_start_and_end_are_understood(read):
    text = "id,submitted,start,end,gpus_per_node,num_nodes,gpu_type,cpus,memory\na,0,10,25,8,2,H100|H200,4.5,64GB\n"
    (job,) = read(text, columns={"gpus_per_node": "gpus_per_node"}, resources="all").jobs
    assert job.duration == 15
    assert job.shape == Shape(num_nodes=2, gpus=8, gpu_types=("H100", "H200"), cpu_milli=2250, memory=32 * 10**9)


def test_equal_asks_share_one_object(read):
    jobs = read(HELIOS + HELIOS.splitlines()[1].replace("11,", "99,", 1) + "\n").jobs
    assert [job.name for job in jobs[:2]] == ["11", "99"]
    assert jobs[0].shape is jobs[1].shape


def test_gzip_is_told_by_its_content_and_may_be_in_parts(tmp_path):
    path = tmp_path / "trace.csv"
    head, tail = REFERENCE[:20].encode(), REFERENCE[20:].encode()
    path.write_bytes(gzip.compress(head) + gzip.compress(tail))
    assert len(read_trace(path).jobs) == 2


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_dash_reads_standard_input(pack, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(pack(REFERENCE.encode()))))
    assert len(read_trace("-").jobs) == 2


def test_windows_line_ends_blank_lines_and_a_byte_order_mark_do_no_harm(tmp_path):
    path = tmp_path / "trace.csv"
    path.write_bytes(b"\xef\xbb\xbf" + REFERENCE.replace("\n", "\r\n").encode() + b"\r\n\r\n")
    assert [job.duration for job in read_trace(path).jobs] == [164, 147]
