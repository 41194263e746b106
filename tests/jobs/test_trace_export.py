"""Our own format loses nothing, in either style, and says what is wrong with a file of it."""

import gzip
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpusched.jobs.errors import TraceError
from gpusched.jobs.job import Shape, TopologyWish
from gpusched.jobs.traces.catalog import read_trace
from gpusched.jobs.traces.export import COLUMNS, write_export
from gpusched.jobs.traces.trace import TraceJob

JOB = TraceJob(0, "train", 0, 60, Shape(num_nodes=2, gpus=8, gpu_types=("H100", "A100"), labels=(("rack", "a"),)))

words = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0"), max_size=12)
times = st.one_of(st.integers(1, 10**9), st.floats(0.001, 1e9))
shapes = st.builds(
    Shape,
    num_nodes=st.integers(0, 100),
    gpus=st.integers(0, 1000),
    gpu_milli=st.integers(0, 999),
    gpu_types=st.lists(st.sampled_from(["H100", "A100", "V100"]), unique=True).map(tuple),
    cpu_milli=st.integers(0, 10**9),
    memory=st.integers(0, 2**62),
    labels=st.dictionaries(words, words, max_size=2).map(lambda labels: tuple(sorted(labels.items()))),
    distinct=st.booleans(),
    topology=st.none()
    | st.builds(TopologyWish, st.sampled_from(["required", "preferred", "balanced"]), st.sampled_from(["rack", "a/b"])),
)
jobs = st.builds(
    TraceJob,
    id=st.just(0),
    name=words,
    submitted=times,
    duration=times,
    shape=shapes,
    user=words,
    queue=words.filter(bool),
    priority=st.integers(0, 100),
    estimate=st.none() | times,
    state=words,
    limit=st.none() | times,
    attempts=st.integers(0, 1000),
)


def in_order(drawn):
    """The jobs as a trace holds them: by submission, from 0, numbered."""
    rows = sorted(drawn, key=lambda job: job.submitted)
    return [job._replace(id=i, submitted=job.submitted if i else 0) for i, job in enumerate(rows)]


@given(drawn=st.lists(jobs, min_size=1, max_size=8), style=st.sampled_from(["csv", "jsonl"]), packed=st.booleans())
@settings(max_examples=200, deadline=None)
def test_what_is_written_is_read_back_equal(drawn, style, packed, tmp_path_factory):
    written = in_order(drawn)
    path = tmp_path_factory.getbasetemp() / ("export.gz" if packed else "export")
    assert write_export(path, written, epoch=1.5, style=style) == len(written)
    trace = read_trace(path)
    assert trace.jobs == written
    assert trace.epoch == 1.5
    assert trace.format == "export"
    assert trace.remarks() == []


@pytest.mark.parametrize("style", ["csv", "jsonl"])
def test_an_export_is_read_as_written_whatever_the_options(style, tmp_path):
    cpu_only = JOB._replace(id=1, shape=Shape(cpu_milli=4000, memory=1 << 30))
    write_export(tmp_path / "x", [JOB, cpu_only], style=style)
    assert read_trace(tmp_path / "x", gang="nodes").jobs == [JOB, cpu_only]


def test_an_export_may_start_late_and_its_epoch_moves_along(tmp_path):
    write_export(tmp_path / "x", [JOB._replace(submitted=100), JOB._replace(id=1, submitted=160)], epoch=1000)
    trace = read_trace(tmp_path / "x")
    assert [job.submitted for job in trace.jobs] == [0, 60]
    assert trace.epoch == 1100


def test_the_same_jobs_give_the_same_bytes_packed_too(tmp_path):
    for name in ("a.gz", "b.gz"):
        write_export(tmp_path / name, [JOB])
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()


def test_an_open_file_is_written_too():
    file = io.StringIO()
    write_export(file, [JOB])
    assert file.getvalue().splitlines() == [
        "#gpusched-export v1",
        ",".join(COLUMNS),
        '0,train,0,60,2,8,0,H100|A100,0,0,"{""rack"":""a""}",0,,default,50,,,,1',
    ]


def test_columns_may_come_in_another_order_and_with_others_between(tmp_path):
    file = io.StringIO()
    write_export(file, [JOB])
    mark = file.getvalue().splitlines()[0]
    (tmp_path / "x").write_text(f"{mark}\nnote,{','.join(reversed(COLUMNS))}\n")
    with (tmp_path / "x").open("a") as end:
        end.write('mine,1,,,,50,default,,0,"{""rack"":""a""}",0,0,H100|A100,0,8,2,60,0,train,0\n')
    assert read_trace(tmp_path / "x").jobs == [JOB]


def test_jobs_that_never_ran_are_left_out_on_reading_and_counted(tmp_path):
    write_export(tmp_path / "x", [JOB, JOB._replace(id=1, duration=0)])
    assert read_trace(tmp_path / "x").skipped == {"jobs without a run time": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("#gpusched-export v2\nid\n", "row 1: '#gpusched-export v2' is no version"),
        ("#gpusched-export\nid\n", "row 1: '#gpusched-export' is no version"),
        ("#gpusched-export v1 epoch=soon\nid\n", "row 1, column 'epoch': 'soon' is not a number"),
        ("#gpusched-export v1\nid,name\n0,a\n", "row 1: no column 'submitted'"),
        ('#gpusched-export v1\n{"id": 0}\n', "row 2, column 'name': is missing"),
        ('#gpusched-export v1\n{"id": 0\n', "row 2: is no JSON"),
        ("#gpusched-export v1\n{}\n[]\n", "row 2, column 'id': is missing"),
    ],
)
def test_a_wrong_head_is_refused(text, message, tmp_path):
    (tmp_path / "x").write_text(text)
    with pytest.raises(TraceError) as caught:
        read_trace(tmp_path / "x")
    assert message in caught.value.message


@pytest.mark.parametrize("style", ["csv", "jsonl"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": 0}, "column 'id': '0' is the id of row {first} too"),
        ({"submitted": float("nan")}, "column 'submitted': 'nan' is not a time"),
        ({"duration": -1}, "column 'duration': '-1' is negative"),
        ({"priority": 101}, "column 'priority': '101' is absurdly large"),
        ({"shape": Shape(gpu_milli=1000)}, "column 'gpu_milli': '1000' is absurdly large"),
        ({"limit": float("inf")}, "column 'limit': 'inf' is not a number"),
    ],
)
def test_a_wrong_cell_is_refused_by_row(style, change, message, tmp_path):
    write_export(tmp_path / "x", [JOB, JOB._replace(**{"id": 1, **change})], style=style)
    with pytest.raises(TraceError) as caught:
        read_trace(tmp_path / "x")
    first = 3 if style == "csv" else 2
    assert f"x, row {first + 1}, {message.format(first=first)}" in caught.value.message


@pytest.mark.parametrize("labels", ["{", "[1]", "7"])
def test_labels_that_are_no_json_object_are_refused(labels, tmp_path):
    file = io.StringIO()
    write_export(file, [JOB])
    (tmp_path / "x").write_text(file.getvalue().replace('"{""rack"":""a""}"', f'"{labels}"'))
    with pytest.raises(TraceError, match="row 3, column 'labels'"):
        read_trace(tmp_path / "x")


def test_a_gpu_type_that_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(TraceError, match="cannot be written"):
        write_export(tmp_path / "x", [JOB._replace(shape=Shape(gpu_types=("a|b",)))])


def test_a_folder_that_is_missing_is_named(tmp_path):
    with pytest.raises(TraceError, match="missing/x: cannot be written: No such file"):
        write_export(tmp_path / "missing" / "x", [JOB])


def test_a_full_disk_is_named():
    with pytest.raises(TraceError, match="/dev/full: cannot be written: No space left"):
        write_export("/dev/full", [JOB._replace(id=i) for i in range(10000)])


def test_a_cut_off_export_is_refused(tmp_path):
    write_export(tmp_path / "x", [JOB._replace(id=i) for i in range(3)])
    text = (tmp_path / "x").read_text()
    (tmp_path / "x.gz").write_bytes(gzip.compress(text[:-12].encode()))
    with pytest.raises(TraceError, match=r"row 5: has 1[0-9] fields, the header has 19"):
        read_trace(tmp_path / "x.gz")
