"""A wrong trace gives one clear message that names file, row, column and fix; never a traceback."""

import gzip

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpusched.jobs.errors import TraceError
from gpusched.jobs.traces.catalog import FORMATS, read_trace

HEADER = "job_id,submit_time,num_gpus,duration\n"
GOOD = HEADER + "".join(f"{i},{i * 10},1,100\n" for i in range(2000))


@pytest.fixture
def fault(tmp_path):
    """The message and hint of the TraceError that reading a content gives, without the folder's name."""

    def _fault(content, **options):
        path = tmp_path / "trace.csv"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        with pytest.raises(TraceError) as caught:
            read_trace(path, **options)
        assert "\n" not in caught.value.message
        assert caught.value.exit_code == 4
        return caught.value.message.replace(f"{tmp_path}/", ""), caught.value.hint

    return _fault


@pytest.mark.parametrize(
    ("row", "message", "hint"),
    [
        ("7,10,1,-5", "trace.csv, row 3, column 'duration': '-5' is negative", "mend or delete"),
        ("7,10,1,nan", "trace.csv, row 3, column 'duration': 'nan' is not a number", "finite number"),
        ("7,10,1,inf", "trace.csv, row 3, column 'duration': 'inf' is not a number", "finite number"),
        ("7,10,1,1_000", "trace.csv, row 3, column 'duration': '1_000' is not a number", "finite number"),
        ("7,10,1,", "trace.csv, row 3, column 'duration': is empty", "give a number"),
        ("7,10,1,1e18", "trace.csv, row 3, column 'duration': '1e18' seconds is over a century", "milliseconds"),
        ("7,soon,1,5", "trace.csv, row 3, column 'submit_time': 'soon' is not a time", "2026-01-31"),
        ("7,2026-13-01,1,5", "trace.csv, row 3, column 'submit_time': '2026-13-01' is not a time", "2026-01-31"),
        ("7,1700000000000,1,5", "trace.csv, row 3, column 'submit_time': '1700000000000' is too large", "by 1000"),
        ("7,-3,1,5", "trace.csv, row 3, column 'submit_time': '-3' is negative", "first submission"),
        ("7,10,1.5,5", "trace.csv, row 3, column 'num_gpus': '1.5' GPUs cannot be asked for", "fraction of one"),
        ("7,10,two,5", "trace.csv, row 3, column 'num_gpus': 'two' is not a number", "finite number"),
        ("7,10,-2,5", "trace.csv, row 3, column 'num_gpus': '-2' is negative", "0 or more"),
        ("7,10,9999999999,5", "trace.csv, row 3, column 'num_gpus': '9999999999' is absurdly large", "1,000,000"),
        ("7,10,1", "trace.csv, row 3: has 3 fields, the header has 4", "cut off"),
        ("7,10,1,5,6", "trace.csv, row 3: has 5 fields, the header has 4", "quotes"),
        ("1,10,1,5", "trace.csv, row 3: the id '1' is that of row 2 too, and the rows differ", "id of its own"),
    ],
)
def test_a_bad_row_is_named_with_its_column_and_the_fix(row, message, hint, fault):
    said, advice = fault(HEADER + "1,0,1,100\n" + row + "\n")
    assert said.startswith(message)
    assert hint in advice


def test_the_row_is_the_line_of_the_file_below_blank_lines_and_quoted_line_feeds(fault):
    message, _ = fault(HEADER + '\n"a\nb",0,1,5\nc,1,1,x\n')
    assert message.startswith("trace.csv, row 5, column 'duration'")


def test_a_missing_column_is_named_with_those_that_there_are(fault):
    message, hint = fault("job_id,submit_time,gpu_count,duration\n1,0,1,5\n", format="csv")
    assert message == (
        "trace.csv, row 1: no column 'num_gpus' or 'gpus' or 'num_gpu' or 'gpu_num'; "
        "the columns are job_id, submit_time, gpu_count, duration"
    )
    assert "--columns gpus=COLUMN" in hint


def test_a_near_miss_in_the_column_map_is_suggested(fault):
    message, hint = fault(HEADER + "1,0,1,5\n", columns="submitted=submit_tme")
    assert message.startswith("trace.csv, row 1: no column 'submit_tme'")
    assert hint.startswith("did you mean 'submit_time'?")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ("submitted", "'submitted' is not FIELD=COLUMN"),
        ("submited=a", "there is no field 'submited'"),
        ("gpus=a,gpus=b", "'gpus' is given twice"),
        ("", "'' is not FIELD=COLUMN"),
    ],
)
def test_a_wrong_column_map_is_refused(columns, message, tmp_path):
    path = tmp_path / "trace.csv"
    path.write_text(GOOD)
    with pytest.raises(TraceError, match=message):
        read_trace(path, columns=columns)


def test_a_column_map_and_another_format_do_not_go_together(fault):
    assert "--columns is for the format 'csv'" in fault(GOOD, columns="gpus=num_gpus", format="itp")[0]


def test_an_unknown_format_is_refused_with_the_known_ones(fault):
    message, hint = fault(GOOD, format="heliosphere")
    assert message == "there is no trace format 'heliosphere'"
    assert all(name in hint for name in FORMATS)


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "csv"])
def test_a_file_forced_to_a_wrong_format_is_refused(name, fault):
    fault(GOOD, format=name)


def test_rows_that_are_not_sorted_are_sorted_stably_and_counted(tmp_path):
    path = tmp_path / "trace.csv"
    path.write_text(HEADER + "a,50,1,5\nb,20,2,5\nc,50,3,5\nd,20,4,5\n")
    trace = read_trace(path)
    assert [(job.id, job.name, job.submitted) for job in trace.jobs] == [
        (0, "b", 0), (1, "d", 0), (2, "a", 30), (3, "c", 30)
    ]  # fmt: skip
    assert trace.notes == ["sorted by submission: 2 rows came before the row above, first row 3"]


def test_exact_duplicates_are_kept_and_counted(tmp_path):
    path = tmp_path / "trace.csv"
    path.write_text(HEADER + "a,0,1,5\na,0,1,5\na,0,1,5\nb,0,1,5\n")
    trace = read_trace(path)
    assert len(trace.jobs) == 4
    assert trace.notes == ["2 exact duplicate rows kept"]


def test_ids_that_repeat_in_a_published_format_are_kept_and_counted(tmp_path):
    path = tmp_path / "trace.csv"
    path.write_text("job_id,submission_time,duration,num_gpu\na,0,5,1\na,3,5,1\n")
    trace = read_trace(path)
    assert len(trace.jobs) == 2
    assert trace.notes == ["1 row with the id of a different row kept as jobs of their own"]


def test_jobs_without_a_run_time_are_skipped_and_counted(tmp_path):
    path = tmp_path / "trace.csv"
    path.write_text(HEADER + "a,0,1,0\nb,7,1,5\n")
    trace = read_trace(path)
    assert trace.skipped == {"jobs without a run time": 1}
    assert [(job.id, job.submitted) for job in trace.jobs] == [(0, 0)]


def test_a_trace_of_cpu_jobs_alone_says_so(fault):
    message, hint = fault(HEADER + "a,0,0,5\nb,0,0,5\n")
    assert message == "trace.csv: holds no job that can be replayed (skipped 2 CPU-only jobs)"
    assert "--resources all" in hint


@pytest.mark.parametrize("content", [b"", b"\n\n", gzip.compress(b""), gzip.compress(b" ")])
def test_an_empty_file_is_refused(content, fault):
    assert fault(content)[0] == "trace.csv: is empty"


def test_a_header_alone_is_refused(fault):
    assert fault(HEADER)[0] == "trace.csv: holds no job that can be replayed"


def test_a_header_that_names_a_column_twice_is_refused(fault):
    assert fault("job_id,submit_time,num_gpus,duration,duration\n")[0] == (
        "trace.csv, row 1: two columns are named 'duration'"
    )


def test_a_gzip_that_was_cut_off_is_refused(fault):
    noisy = HEADER + "".join(f"{hash((i, i * i))},{i},1,{i + 1}\n" for i in range(30000))
    packed = gzip.compress(noisy.encode())
    message, hint = fault(packed[: len(packed) * 3 // 4])
    assert message.startswith("trace.csv: the compressed data stops in the middle, after row ")
    assert "download it again" in hint


def test_a_damaged_gzip_is_refused(fault):
    packed = bytearray(gzip.compress(GOOD.encode()))
    packed[200:260] = bytes(60)
    assert "the compressed data is damaged" in fault(bytes(packed))[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (GOOD.encode() + b"\xff\xfe\x00", "trace.csv, row 2002: is not text (UTF-8)"),
        (GOOD.encode() + b"a\x00b", "trace.csv, row 2002: is not text (UTF-8)"),
        (bytes(range(256)) * 100, "trace.csv, row 2: is not text (UTF-8)"),
        (b"BZh91AY&SY", "trace.csv: is bzip2, which is not read"),
        (b"PK\x03\x04....", "trace.csv: is zip, which is not read"),
        (b"PAR1....", "trace.csv: is Parquet, which is not read"),
        (b"\xfd7zXZ\x00", "trace.csv: is xz, which is not read"),
        (b"\x28\xb5\x2f\xfd", "trace.csv: is zstd, which is not read"),
        (b"SQLite format 3\x00", "trace.csv: is an SQLite database, which is not read"),
    ],
)
def test_what_is_no_text_is_refused(content, message, fault):
    assert fault(content)[0] == message


def test_a_line_without_end_is_refused_before_it_fills_the_memory(fault):
    message, _ = fault(gzip.compress(HEADER.encode() + b"1" * 50_000_000))
    assert message.startswith("trace.csv, row ")
    assert message.endswith("the line is longer than 1,048,576 characters")


def test_a_field_beyond_the_limit_of_csv_is_refused(fault):
    assert "row 2: is no CSV: field larger than field limit" in fault(HEADER + "a" * 200_000 + ",0,1,5\n")[0]


def test_a_quote_that_is_never_closed_is_refused(fault):
    assert fault(HEADER + '"a,0,1,5\n' * 3)[0].startswith("trace.csv, row ")


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(TraceError, match="no such file"):
        read_trace(tmp_path / "nothing.csv")
    with pytest.raises(TraceError, match="is a folder"):
        read_trace(tmp_path)


def test_a_list_of_machines_is_told_from_a_trace(fault):
    message, hint = fault("sn,cpu_milli,memory_mib,gpu,model\nn0,64000,262144,2,P100\n")
    assert message == "trace.csv: is a list of machines, not of jobs"
    assert "--nodes" in hint


def test_an_unknown_header_is_refused_with_the_ways_out(fault):
    message, hint = fault("alpha,beta\n1,2\n")
    assert message == "trace.csv, row 1: is like no format that is known; it starts with 'alpha,beta'"
    assert "--columns" in hint


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[{]", "trace.csv, row 1 (entry 1): is no JSON"),
        ('[\n{"attempts": []}, 7]', "trace.csv, row 2 (entry 2), key '': is a int, not an object"),
        ('[{"attempts": []},\n', "trace.csv, row 2 (entry 2): is no JSON: the list stops before it is closed"),
        ('[{"attempts": 5}]', "trace.csv, row 1 (entry 1), key 'attempts': holds 5"),
        ('[{"attempts": [5]}]', "trace.csv, row 1 (entry 1), key 'attempts': holds 5"),
        ("[" * 100_000, "trace.csv, row 1 (entry 1): is no JSON: nested too deep"),
        ('[{"attempts": [{"start_time": "x", "end_time": "y", "detail": []}]}]', "key 'end_time': 'y' is not a time"),
        (
            '[{"attempts": [{"start_time": "2017-10-07 01:00:00", "end_time": "2017-10-06 01:00:00"}]}]',
            "key 'end_time': '2017-10-06 01:00:00' is before start_time",
        ),
        (
            '[{"attempts": [{"start_time": "0", "end_time": "1", "detail": [{"gpus": ["gpu0"]}]}]}]',
            "key 'submitted_time': 'None' is not a time",
        ),
    ],
)
def test_a_broken_philly_log_is_refused_by_entry(text, message, fault):
    assert message in fault(text, format="philly-log")[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("; x\n1 0 0\n", "row 2: has 3 fields, SWF has 18"),
        ("1 0 0 x 4 1 1 4 1 1 1 1 1 1 1 1 1 1\n", "row 1, column 'run time': 'x' is not a number"),
        ("1 0 0 -7 4 1 1 4 1 1 1 1 1 1 1 1 1 1\n", "row 1, column 'run time': '-7' is negative"),
        ("1 -9 0 7 4 1 1 4 1 1 1 1 1 1 1 1 1 1\n", "row 1, column 'submit time': '-9' is negative"),
    ],
)
def test_a_broken_swf_is_refused_by_row(text, message, fault):
    assert message in fault(text, format="swf")[0]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("1|yesterday|00:01:00|gres/gpu=1|COMPLETED", "row 2, column 'Submit': 'yesterday' is not a time"),
        ("1|2026-01-05T09:00:00|later|gres/gpu=1|COMPLETED", "row 2, column 'Elapsed': 'later' is not a length"),
        ("1|2026-01-05T09:00:00|00:01:00|gres/gpu=x|COMPLETED", "row 2, column 'ReqTRES': 'gres/gpu=x' has no number"),
        ("1|2026-01-05T09:00:00|00:01:00|cpu=x,gres/gpu=1|DONE", "row 2, column 'ReqTRES': 'x' is not a number"),
        ("1|2026-01-05T09:00:00|00:01:00|mem=1Q,gres/gpu=1|DONE", "row 2, column 'ReqTRES': '1Q' is not an amount"),
    ],
)
def test_a_broken_sacct_row_is_refused(row, message, fault):
    assert message in fault("JobID|Submit|Elapsed|ReqTRES|State\n" + row + "\n")[0]


def test_sacct_without_a_needed_column_says_which_to_ask_for(fault):
    message, hint = fault("JobID|Submit|State|ReqTRES\n1|2026-01-05T09:00:00|COMPLETED|gres/gpu=1\n")
    assert "no column 'Start'" in message
    assert "sacct's --format" in hint


def test_a_helios_job_that_ends_before_it_starts_is_refused(fault):
    header = "job_id,user,vc,gpu_num,cpu_num,node_num,state,submit_time,start_time,end_time,duration,queue\n"
    row = "1,u,v,1,1,1,DONE,2021-05-03 10:00:00,2021-05-03 10:00:00,2021-05-03 09:00:00,5,0\n"
    assert "row 2, column 'end_time': '2021-05-03 09:00:00' is before start_time" in fault(header + row)[0]


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ("50,0,", "column 'deletion_time': '50' is before the pod's start"),
        ("x,0,0", "column 'deletion_time': 'x' is not a time"),
    ],
)
def test_a_broken_openb_pod_is_refused(cells, message, fault):
    header = "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,deletion_time,creation_time,scheduled_time\n"
    deletion, _, scheduled = cells.split(",")
    assert message in fault(header + f"p,1,1,1,1000,,{deletion},100,{scheduled}\n")[0]


def test_an_openb_share_of_several_gpus_is_refused(fault):
    header = "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,deletion_time,creation_time,scheduled_time\n"
    assert "column 'gpu_milli': 500 for 2 GPUs makes no sense" in fault(header + "p,1,1,2,500,,9,0,0\n")[0]


SEEDS = [
    GOOD[:200],
    "timestamp,duration,num_gpus,gpu_time,cluster\n2017-10-09 07:01:55,66.0,1,66.0,vc1\n",
    "1 0 100 60 30 60 -1 32 120 -1 1 7 1 -1 2 1 -1 -1\n",
    "JobID|Submit|Elapsed|ReqTRES|State\n1|2026-01-05T09:00:00|1-00:01:00|cpu=4,gres/gpu=1,mem=4G|COMPLETED\n",
    '[{"attempts": [{"start_time": "2017-10-07 01:00:00", "end_time": "2017-10-07 01:00:01"}], "jobid": "j"}]',
    '#gpusched-export v1\n{"id": 0, "name": "a", "submitted": 0, "duration": 1}\n',
]


@given(
    seed=st.sampled_from(SEEDS),
    cuts=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 6), st.text(max_size=4)), max_size=4),
    form=st.sampled_from([None, *FORMATS]),
    packed=st.booleans(),
)
@settings(max_examples=300, deadline=None)
def test_a_mangled_trace_is_read_or_refused_and_nothing_else(seed, cuts, form, packed, tmp_path_factory):
    for place, length, text in cuts:
        at = int(place * len(seed))
        seed = seed[:at] + text + seed[at + length :]
    path = tmp_path_factory.getbasetemp() / "mangled"
    data = seed.encode(errors="surrogatepass")
    path.write_bytes(gzip.compress(data) if packed else data)
    try:
        trace = read_trace(path, format=form)
    except TraceError as error:
        assert str(path) in error.message  # noqa: PT017 - either outcome is right, and each is checked
    else:
        assert trace.jobs[0].submitted == 0
        assert all(job.id == index and job.duration > 0 for index, job in enumerate(trace.jobs))


def test_an_export_that_was_cut_off_before_its_header_is_said_to_be(fault):
    message, hint = fault("#gpusched-export v1\n")
    assert message == "trace.csv: ends before its header line"
    assert "cut off" in hint


def test_a_carriage_return_inside_the_header_is_refused_with_the_file_named(tmp_path):
    file = tmp_path / "mac.csv"
    file.write_bytes(b"job_id,submit_time,num_gpus\rduration\n0,0,1,100\n")
    with pytest.raises(TraceError, match=r"mac\.csv"):
        read_trace(str(file))
