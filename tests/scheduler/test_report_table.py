"""Summaries for people and for machines."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from gpusched.scheduler.report import summarize
from gpusched.scheduler.report.table import METRICS, best, duration, table, to_csv, to_json


@pytest.fixture
def two(make_run):
    return [summarize(make_run(120)), summarize(make_run(120, policy="skip", skip=True))]


def printed(summaries, *, width=100, **options):
    out = io.StringIO()
    Console(file=out, width=width, **options).print(table(summaries))
    return out.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.25, "0.25s"),
        (1, "1s"),
        (42.4, "42s"),
        (59.6, "1m 00s"),
        (725, "12m 05s"),
        (3599.6, "1h 00m"),
        (11520, "3h 12m"),
        (86399, "1d 00h"),
        (187200, "2d 04h"),
        (-90, "-1m 30s"),
    ],
)
def test_a_duration_is_written_in_its_two_largest_units(seconds, text):
    assert duration(seconds) == text


def test_the_table_marks_the_best_of_each_row_and_nothing_where_all_are_alike(two):
    lines = {line.split("│")[0].strip(): line for line in printed(two).splitlines() if "│" in line}
    assert two[0].jct.mean > two[1].jct.mean
    assert lines["JCT mean"].rstrip().endswith(f"{duration(two[1].jct.mean)} *")
    assert lines["JCT mean"].count("*") == 1
    assert "*" not in lines["finished"]
    assert "120" in lines["finished"]


def test_higher_is_better_for_the_allocation_ratio_only(two):
    by_label = {metric.label: metric for metric in METRICS}
    high, low = replace(two[0], allocation_ratio=0.9), replace(two[1], allocation_ratio=0.5)
    assert best(by_label["allocation ratio"], [high, low]) == {0}
    slow, quick = replace(two[0], makespan=10.0 * 3600), replace(two[1], makespan=3600.0)
    assert best(by_label["makespan"], [slow, quick]) == {1}
    assert best(by_label["makespan"], [quick, replace(quick, makespan=3600.1)]) == frozenset()


def test_the_terminal_table_obeys_no_color(two, monkeypatch):
    assert "\x1b[1;32m" in printed(two, force_terminal=True, color_system="standard")
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[1;32m" not in printed(two, force_terminal=True, color_system="standard")


def test_policies_that_do_not_fit_side_by_side_follow_below(two):
    many = [replace(two[i % 2], policy=f"policy-{i}") for i in range(9)]
    lines = printed(many, width=80).splitlines()
    assert max(map(len, lines)) <= 80
    assert sum("makespan" in line for line in lines) == 2
    shown = [word for line in lines for word in line.split() if word.startswith("policy-")]
    assert shown == [f"policy-{i}" for i in range(9)]
    assert not any("…" in line for line in lines)


def test_markup_in_a_policy_name_is_shown_and_not_obeyed(two):
    assert "[red]mine" in printed([replace(two[0], policy="[red]mine"), two[1]])


def test_machine_formats_do_not_depend_on_the_wall_clock_unless_asked(two):
    later = [replace(summary, seconds=99.0) for summary in two]
    assert to_json(two) == to_json(later)
    assert to_csv(two) == to_csv(later)
    assert "jobs_per_second" not in to_json(two) + to_csv(two)
    assert json.loads(to_json(later, timing=True))["runs"][0]["jobs_per_second"] == 120 / 99
    assert "jobs_per_second" in to_csv(later, timing=True).splitlines()[0]


def test_json_is_versioned_and_in_seconds(two):
    document = json.loads(to_json(two))
    assert document["schema_version"] == 1
    first = document["runs"][0]
    assert first["policy"] == "fifo"
    assert first["jct"] == {
        "mean": two[0].jct.mean,
        "p50": two[0].jct.p50,
        "p90": two[0].jct.p90,
        "p99": two[0].jct.p99,
    }
    assert first["submitted"] == first["finished"] == 120
    assert '"p50": ' + str(int(two[0].jct.p50)) + "," in to_json(two), "a whole number reads as one"


def test_csv_has_one_row_a_run_and_the_header_even_without_any(two):
    rows = list(csv.DictReader(io.StringIO(to_csv(two))))
    assert [row["policy"] for row in rows] == ["fifo", "skip"]
    assert float(rows[0]["jct_mean"]) == two[0].jct.mean
    assert rows[0]["unfinished"] == "0"
    assert to_csv([]) == to_csv(two).splitlines()[0] + "\n"


def test_a_figure_without_meaning_is_empty_in_csv_null_in_json_and_a_dash_in_the_table(two):
    without = [replace(two[0], makespan=None), two[1]]
    assert next(csv.DictReader(io.StringIO(to_csv(without))))["makespan"] == ""
    assert json.loads(to_json(without))["runs"][0]["makespan"] is None
    assert any(line.split()[:3] == ["makespan", "│", "-"] for line in printed(without).splitlines())


def test_a_name_that_a_spreadsheet_would_run_is_defused(two):
    rows = list(csv.DictReader(io.StringIO(to_csv([replace(two[0], policy="=HYPERLINK(1)")]))))
    assert rows[0]["policy"] == "'=HYPERLINK(1)"
