"""Tables, JSON and CSV, as they are printed."""

from __future__ import annotations

import csv
import io
import json

import pytest
import yaml

from gpusched.scheduler.cli.job_columns import job_columns
from gpusched.scheduler.output import (
    Column,
    Listing,
    Style,
    UsageError,
    cells,
    fit,
    hours,
    relative,
    render,
    safe,
    size,
    span,
)

NOW = 1_767_225_600.0  # 2026-01-01T00:00:00Z


def job(number=1, **keys):
    return {
        "id": number,
        "uid": f"01ARZ3NDEKTSV4RRFFQ69G5FA{number}",
        "name": "train",
        "user": "ann",
        "queue": "default",
        "priority": 50,
        "kind": "train",
        "state": "QUEUED",
        "reason": "",
        "message": "",
        "position": None,
        "request": "2x8 H100",
        "resources": {"num_nodes": 2, "gpus": 8.0, "gpu_types": ["H100"], "cpus": 1.0, "memory": 0, "labels": {}},
        "gpus": 16.0,
        "labels": {},
        "nodes": [],
        "attempt": 0,
        "failures": 0,
        "exit_code": None,
        "gpu_hours": 0.0,
        "preemptible": False,
        "estimate": None,
        "limit": None,
        "submitted": "2025-12-31T23:00:00.000Z",
        "queued": "2025-12-31T23:00:00.000Z",
        "not_before": None,
        "placed": None,
        "started": None,
        "first_start": None,
        "ended": None,
        **keys,
    }


JOBS = [
    job(7, state="RUNNING", nodes=["n1", "n2"], attempt=1, placed="2025-12-31T23:30:00.000Z",
        started="2025-12-31T23:30:04.000Z", estimate=3600.0, utilization=81.4, gpu_hours=8.0),
    job(12, name="eval", gpus=0.5, request="0.5 GPU", reason="Fragmented", position=1,
        message="needs 2x8 H100; free 11 in pieces 4+4+3",
        queued="2025-12-31T23:59:18.000Z", eta="2026-01-01T00:12:30.000Z"),
    job(13, user="bob", state="FAILED", exit_code=3, message="a rank failed", nodes=["n1", "n1"], attempt=2,
        started="2025-12-31T20:00:00.000Z", ended="2025-12-31T22:07:00.000Z"),
]  # fmt: skip


def listing(rows=JOBS):
    return Listing("jobs", job_columns(NOW), rows)


def test_the_table_of_jobs_reads_as_it_always_did():
    assert render(listing(), Style()) == (
        "ID  NAME   USER  QUEUE    PRI  GPUS  STATE    REASON/NODES                                         "
        "WAIT/ELAPSED  UTIL  ETA\n"
        " 7  train  ann   default   50    16  RUNNING  n1,n2                                                "
        "      29m56s   81%  in 30m04s\n"
        "12  eval   ann   default   50   0.5  QUEUED   Fragmented: needs 2x8 H100; free 11 in pieces 4+4+3  "
        "         42s     -  in 12m30s\n"
        "13  train  bob   default   50    16  FAILED   exit 3, a rank failed                                "
        "       2h07m     -  -\n"
    )


def test_the_json_of_jobs_reads_as_it_always_did():
    document = json.loads(render(listing(), Style("json")))
    assert list(document) == ["schema_version", "jobs"]
    assert document["schema_version"] == 1
    assert document["jobs"] == JOBS


def test_every_machine_form_holds_the_same_values():
    lines = render(listing(), Style("jsonl")).splitlines()
    assert [json.loads(line) for line in lines] == JOBS
    assert yaml.safe_load(render(listing(), Style("yaml")))["jobs"] == JOBS
    rows = list(csv.DictReader(io.StringIO(render(listing(), Style("csv")))))
    assert [row["id"] for row in rows] == ["7", "12", "13"]
    assert rows[0]["gpus"] == "16.0"
    assert rows[0]["started"] == "2025-12-31T23:30:04.000Z"
    assert rows[1]["message"] == "needs 2x8 H100; free 11 in pieces 4+4+3"
    assert render(listing(), Style("name")) == "train\neval\ntrain\n"


def test_columns_are_chosen_by_name_or_heading_and_put_in_that_order():
    assert (
        render(listing(), Style(columns=("gpus", "PRI", "id")))
        == "GPUS  PRI  ID\n  16   50   7\n 0.5   50  12\n  16   50  13\n"
    )
    assert render(listing(), Style("csv", columns=("id",), headers=False)) == "7\n12\n13\n"


def test_an_unknown_column_is_refused_with_those_there_are():
    with pytest.raises(UsageError, match="no column 'gpu'") as refused:
        render(listing(), Style(columns=("gpu",)))
    assert "gpus" in refused.value.hint
    assert refused.value.exit_code == 2
    with pytest.raises(UsageError):
        render(listing(), Style(sort_by="-speed"))


def test_rows_are_sorted_by_value_and_unknown_ones_come_last_both_ways():
    def order(by):
        return render(listing(), Style(columns=("id",), headers=False, sort_by=by)).split()

    assert order("gpus") == ["12", "7", "13"]
    assert order("-gpus") == ["7", "13", "12"]
    assert order("utilization")[0] == order("-utilization")[0] == "7"
    assert order("user") == ["7", "12", "13"]


def test_names_from_strangers_cannot_steer_a_terminal():
    evil = job(1, name="\x1b[2J\x9b31m\nrm\u202e\ud800\x07", message="\r\x00")
    text = render(listing([evil]), Style("wide"))
    assert text.count("\n") == 2
    assert not any(ord(char) < 32 and char != "\n" for char in text)
    assert "\\x1b[2J\\x9b31m\\nrm\\u202e\\ud800\\x07" in text
    assert safe("ünïcode ✓ 日本") == "ünïcode ✓ 日本"


def test_csv_cells_are_no_formulas():
    text = render(listing([job(1, name="=cmd()")]), Style("csv", columns=("name", "id"), headers=False))
    assert text == "'=cmd(),1\n"


def test_a_narrow_terminal_shortens_the_reason_and_nothing_else():
    lines = render(listing(), Style(width=90)).splitlines()
    assert max(map(len, lines)) <= 90
    assert "Fragmented: ..." in lines[2] or "..." in lines[2]
    assert lines[2].endswith("in 12m30s")


def test_wide_characters_are_counted_as_they_are_drawn():
    assert cells("日本") == 4
    assert cells("e\u0301") == 1
    assert fit("日本日本日本", 7) == "日本..."
    rows = [{"a": "日本", "b": 1}, {"a": "ab", "b": 2}]
    columns = (Column("a", lambda row: row["a"]), Column("b", lambda row: row["b"]))
    assert render(Listing("rows", columns, rows), Style(headers=False)) == "日本  1\nab    2\n"


def test_colours_are_there_only_when_asked_for():
    assert "\x1b" not in render(listing(), Style())
    assert "\x1b[32mRUNNING\x1b[0m" in render(listing(), Style(colour=True))


def test_no_rows_make_no_table_and_an_empty_document():
    assert render(listing([]), Style()) == ""
    assert json.loads(render(listing([]), Style("json"))) == {"schema_version": 1, "jobs": []}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (59.9, "59s"),
        (60, "1m00s"),
        (3599, "59m59s"),
        (3600, "1h00m"),
        (86399, "23h59m"),
        (90000, "1d01h"),
        (None, ""),
    ],
)
def test_durations_are_said_in_two_units(seconds, text):
    assert span(seconds) == text


def test_figures_are_said_as_people_say_them():
    assert [size(0), size(1023), size(1536), size(64 << 30), size(None)] == ["0 B", "1023 B", "1.5 KiB", "64 GiB", ""]
    assert [hours(0.0), hours(0.00336), hours(12.345), hours(None)] == ["0", "0.0034", "12.35", ""]
    assert relative("2026-01-01T00:00:05.000Z", NOW) == "in 5s"
    assert relative("2025-12-31T23:58:00.000Z", NOW) == "2m00s ago"
