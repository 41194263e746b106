"""The page as text and the data in it; test_report_browser.py looks at it drawn."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from gpusched.cluster.backend import Node
from gpusched.jobs.events import Event, Kind
from gpusched.jobs.job import Job, Piece, Shape, State
from gpusched.scheduler.report import Run, summarize
from gpusched.scheduler.report.gantt import HEAT_BINS, heat, holds, pack, size_class
from gpusched.scheduler.report.page import page
from gpusched.scheduler.report.page_data import page_data, quantiles, series, steps

DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
EVIL = "</script><img src=x onerror=alert(1)><!--"


def unpack(text):
    numbers, value, shift = [], 0, 0
    for digit in map(DIGITS.index, text):
        value |= (digit & 31) << shift
        shift += 5
        if digit < 32:
            numbers.append(-(value >> 1) if value & 1 else value >> 1)
            value = shift = 0
    return numbers


def drawn(*runs, **options):
    return page(runs, [summarize(run) for run in runs], **options)


class Elements(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.seen = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))


def test_packed_numbers_read_back():
    numbers = [0, 1, -1, 15, 16, -16, 511, 512, 123_456_789, -987_654_321, 2**40]
    assert unpack(pack(numbers)) == numbers
    assert pack([0, 15, -15]) == "Aef", "one character each"


def test_the_same_runs_give_the_same_bytes(make_run):
    assert drawn(make_run(80)) == drawn(make_run(80))
    assert drawn(make_run(80)) == drawn(replace(make_run(80), seconds=7.0))
    assert "jobs/s" in drawn(make_run(80), timing=True)


def test_the_page_asks_nothing_of_anyone(make_run):
    text = drawn(make_run(50), make_run(50, policy="skip", skip=True))
    assert set(re.findall(r"https?://[\w./-]*", text)) == {"http://www.w3.org/2000/svg"}, "a namespace is not fetched"
    elements = Elements(text).seen
    assert [attrs.get("href") for tag, attrs in elements if tag == "link"] == ["data:,"]
    assert not [tag for tag, attrs in elements if "src" in attrs or tag in {"img", "iframe", "object", "base", "form"}]


def test_only_the_script_that_is_hashed_may_run(make_run):
    text = drawn(make_run(10))
    policy = next(attrs["content"] for tag, attrs in Elements(text).seen if attrs.get("http-equiv"))
    script = text[text.rindex("<script>") + len("<script>") : text.rindex("</script>")]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy


def test_names_of_strangers_do_not_become_markup(make_run):
    run = make_run(30)
    for job in run.jobs:
        job.name, job.user = f"{EVIL}{job.id}", EVIL
    hostile = replace(
        run,
        policy=EVIL,
        trace=EVIL.replace("/", "\\"),
        cluster=[replace(node, name=EVIL, gpu_type=EVIL) for node in run.cluster],
        rejected=[(EVIL, EVIL)],
        notes=[EVIL],
    )
    text = drawn(hostile)
    tags = [tag for tag, _ in Elements(text).seen]
    assert tags.count("script") == 2
    assert "img" not in tags
    assert text.count("</script>") == 2
    data = json.loads(text[text.index('id="data">') + 10 : text.index("</script>")])
    assert data["tables"][0]["names"][0] == f"{EVIL}1", "and they still read as what they are"


def test_every_figure_of_the_summary_stands_in_the_page_without_a_script(make_run):
    run = make_run(60)
    figures = summarize(run)
    text = drawn(run)
    table = text[text.index('<table id="summary">') : text.index("</table>")]
    for label in ("p99", "makespan", "allocation ratio", "fragmentation", "preemptions", "unfinished", "rejected"):
        assert label in table
    assert f"{100 * figures.allocation_ratio:.1f}%" in table


def test_what_a_reader_must_know_is_written_above_the_figures(make_run):
    run = make_run(20)
    waiting = [Job(100 + i, Shape(0, 99), 5, name=f"stuck-{i}") for i in range(20)]
    text = drawn(
        replace(
            run, jobs=[*run.jobs, *waiting], rejected=[("huge", "needs 999")], notes=["skipped 1,204 CPU-only jobs"]
        )
    )
    assert "skipped 1,204 CPU-only jobs" in text
    assert "20 jobs had not ended and are in no JCT: 100 stuck-0 (QUEUED)" in text
    assert "and 8 more" in text
    assert "1 jobs were rejected: huge (needs 999)" not in text
    assert "1 job was rejected: huge (needs 999)" in text


def test_a_page_needs_a_run_and_its_summary(make_run):
    run = make_run(5)
    with pytest.raises(ValueError, match="one summary a run"):
        page([run], [])
    with pytest.raises(ValueError, match="at least one"):
        page([], [])


def test_a_run_without_jobs_has_a_page():
    empty = Run("fifo", "empty", [Node("a", 8)], [], [])
    assert '"runs":[{' in drawn(empty)


def test_a_short_series_is_exact_and_a_long_one_keeps_its_area_and_its_extremes():
    points = list(steps([(0, 2), (5, 1), (5, 1), (10, -4)], 20))
    assert points == [(0, 2), (5, 4), (10, 0), (20, 0)]
    assert series(points, 20) == {"t": [0, 5, 10, 20], "v": [2, 4, 0, 0]}
    binned = series(points, 20, most=3)
    width = binned["bin"]
    assert sum(v * width for v in binned["v"]) == pytest.approx(2 * 5 + 4 * 5, rel=1e-3)
    assert (max(binned["hi"]), min(binned["lo"])) == (4, 0)
    assert binned["lo"][0] == 2


def test_series_of_a_run_begin_and_end_with_an_empty_queue(make_run):
    run = make_run(100, load=1.5)
    data = page_data([run])
    drawn_run = data["runs"][0]
    assert drawn_run["waiting"]["v"][-1] == 0
    assert drawn_run["allocated"]["v"][-1] == 0
    assert max(drawn_run["waiting"]["v"]) > 5
    assert max(drawn_run["allocated"]["v"]) <= 64
    area = sum(
        v * (b - a)
        for v, a, b in zip(
            drawn_run["allocated"]["v"], drawn_run["allocated"]["t"], drawn_run["allocated"]["t"][1:], strict=False
        )
    )
    assert area == pytest.approx(sum(job.gpu_seconds for job in run.jobs), rel=1e-3)


def test_quantiles_keep_both_ends():
    assert quantiles([3, 1, 2]) == [1, 2, 3]
    many = quantiles(list(range(10_000)))
    assert (len(many), many[0], many[-1]) == (301, 0, 9999)


def test_the_map_of_nodes_holds_the_gpu_time_of_the_jobs(make_run):
    run = make_run(150)
    attempts = holds(run)
    span = max(hold.end for hold in attempts)
    cells = heat(attempts, run.cluster, span)
    assert cells["rows"] == 8
    assert len(cells["cells"]) == 8 * HEAT_BINS
    busy = sum(map(DIGITS.index, cells["cells"])) / 63 * 8 * span / HEAT_BINS
    assert busy == pytest.approx(sum(job.gpu_seconds for job in run.jobs), rel=0.02)


def test_many_nodes_share_rows_of_the_map():
    nodes = [Node(f"n{i}", 0 if i % 2 else 4) for i in range(1000)]
    assert heat([], nodes, 10)["perRow"] == 4
    assert heat([], nodes, 10)["rows"] == 125


def test_each_bar_of_the_gantt_reads_back_with_its_job_node_and_times(make_run):
    run = make_run(40)
    data = page_data([run])
    table, numbers = data["tables"][0], unpack(data["runs"][0]["bars"])
    ids, number = [], 0
    for difference in unpack(table["ids"]):
        number += difference
        ids.append(number)
    bars, start, job = set(), 0, 0
    for i in range(0, len(numbers), 5):
        start, job = start + numbers[i], job + numbers[i + 1]
        bars.add((ids[job], numbers[i + 3], start, start + numbers[i + 2], numbers[i + 4] // 2))
    first = min(job.submitted for job in run.jobs)
    until = {job.id: job.ended for job in run.jobs}
    expected = {
        (event.job, node, event.time - first, until[event.job] - first, gpus)
        for event in run.journal
        if event.kind is Kind.PLACED
        for node, gpus, *_ in event.data["pieces"]
    }
    assert bars == expected


def test_a_shared_gpu_and_a_job_that_still_runs_have_bars():
    half = Job(1, Shape(1, 0, 500), 0, state=State.RUNNING)
    half.first_start = 1
    whole = Job(2, Shape(1, 2), 0, state=State.SUCCEEDED)
    whole.first_start, whole.ended = 1, 9
    journal = [
        Event(1, Kind.PLACED, 1, 1, (Piece(0, 0, 500, 3),)),
        Event(1, Kind.PLACED, 2, 1, (Piece(0, 2),)),
        Event(9, Kind.SUCCEEDED, 2, 1),
    ]
    data = page_data([Run("p", "t", [Node("a", 4)], [half, whole], journal)])
    assert data["unit"] == 0.001
    assert unpack(data["runs"][0]["bars"]) == [1000, 0, 8000, 0, 1001, 3, 0, 1, 8000, 0, 4]


def test_runs_of_one_trace_on_one_cluster_share_what_they_have_in_common(make_run):
    data = page_data([make_run(30), make_run(30, policy="skip", skip=True), make_run(30, seed=2)])
    assert len(data["tables"]) == 2
    assert [run["jobs"] for run in data["runs"]] == [0, 0, 1]
    assert data["runs"][1]["nodes"] is None


def test_bars_cost_few_bytes_and_are_left_out_of_a_page_that_they_would_make_heavy(make_run, monkeypatch):
    run = make_run(3000, named=False, nodes=20)
    data = page_data([run])
    pieces = sum(len(event.data["pieces"]) for event in run.journal if event.kind is Kind.PLACED)
    assert len(data["runs"][0]["bars"]) / pieces < 10  # with 220,000 of them the page stays below 3 MB
    monkeypatch.setattr("gpusched.scheduler.report.page_data.BARS", 100)
    data = page_data([run])
    assert (data["tables"], data["runs"][0]["bars"]) == ([], None)


def test_size_classes_cover_every_size():
    assert [size_class(gpus) for gpus in (0, 0.5, 1, 2, 3, 4, 8, 9, 64, 65, 4096)] == [0, 1, 2, 3, 4, 4, 5, 6, 8, 9, 9]
