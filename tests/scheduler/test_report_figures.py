"""Figures for a paper: which there are, what stands on their axes, the same bytes each time, and names of strangers."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest

from gpusched.jobs.errors import GpuschedError
from gpusched.scheduler.report import Waste, Window, summarize
from gpusched.scheduler.report.charts import chart_data, measured_of
from gpusched.scheduler.report.figures import _drawn, plots_of, write_figures

ALWAYS = [
    *("mean-jct", "makespan", "queue-length", "allocation", "fragmentation", "jct-cdf", "queueing-delay-cdf"),
    *("slowdown-cdf", "rho-cdf", "jct-by-size", "queueing-delay-by-size"),
]
SVG = "{http://www.w3.org/2000/svg}"


def figures_of(runs, summaries):
    data = chart_data(measured_of(runs, summaries), summaries)
    return {plot.name: _drawn(plot, data).axes[0] for plot in plots_of(data)}


@pytest.fixture
def two(make_run):
    runs = [make_run(120), make_run(120, policy="skip", skip=True)]
    return runs, list(map(summarize, runs))


def test_every_figure_is_written_as_png_and_svg(two, tmp_path):
    files = write_figures(*two, tmp_path / "new" / "figures")
    names = [*ALWAYS, "users-rho", "users-queueing-delay"]
    assert [file.name for file in files] == [f"{name}.{form}" for name in names for form in ("png", "svg")]
    for file in files:
        content = file.read_bytes()
        if file.suffix == ".png":
            assert content.startswith(b"\x89PNG")
            assert len(content) > 10_000, f"{file.name} looks blank"
        else:
            assert ET.fromstring(content).tag == f"{SVG}svg"  # noqa: S314 - our own file


def test_the_same_runs_give_the_same_bytes(two, tmp_path):
    first = write_figures(*two, tmp_path / "a")
    second = write_figures(*two, tmp_path / "b")
    assert [file.read_bytes() for file in first] == [file.read_bytes() for file in second]


def test_one_format_alone_can_be_asked_for(two, tmp_path):
    files = write_figures(*two, tmp_path, formats=("svg",))
    assert {file.suffix for file in files} == {".svg"}
    with pytest.raises(ValueError, match="no figures as pdf; there are png, svg"):
        write_figures(*two, tmp_path, formats=("pdf",))
    with pytest.raises(ValueError, match="at least one"):
        write_figures([], [], tmp_path)


def test_every_axis_says_what_it_shows_with_its_unit(two):
    axes = figures_of(*two)
    labels = {name: (one.get_xlabel(), one.get_ylabel()) for name, one in axes.items()}
    assert labels["mean-jct"] == ("mean JCT (hours)", "")
    assert labels["allocation"] == ("hours since the first submission", "GPUs held")
    assert labels["jct-cdf"] == ("JCT (log scale)", "share of jobs")
    assert "1h" in [text.get_text() for text in axes["jct-cdf"].get_xticklabels()]
    assert labels["rho-cdf"][0] == "rho (themis) (log scale)"
    assert labels["jct-by-size"] == ("GPUs of the job", "JCT (log scale)")
    assert all(x for x, _ in labels.values())


def test_lines_of_a_distribution_are_the_page_s(two):
    runs, summaries = two
    lines = {line.get_label(): line for line in figures_of(runs, summaries)["jct-cdf"].get_lines()}
    assert set(lines) == {"fifo", "skip", "run time"}
    xs, ys = (list(map(float, part)) for part in (lines["fifo"].get_xdata(), lines["fifo"].get_ydata()))
    at = ys.index(0.5)
    assert xs[at] <= summaries[0].jct.p50 <= xs[at + 1]
    assert all(run <= jct for run, jct in zip(lines["run time"].get_xdata(), xs, strict=True)), "no policy beats it"


def test_bounds_and_waste_are_drawn_where_they_are_known(two):
    runs, summaries = two
    bare = figures_of(runs, summaries)
    assert "waste" not in bare
    assert not bare["mean-jct"].get_legend_handles_labels()[1]
    known = [replace(summary, jct_bound=60.0, waste=Waste(overhead=3600.0)) for summary in summaries]
    axes = figures_of(runs, known)
    assert axes["mean-jct"].get_legend_handles_labels()[1] == ["clairvoyant preemptive bound"]
    assert axes["waste"].get_legend_handles_labels()[1] == ["overhead"]


def test_the_measured_window_is_tinted(make_run):
    run = make_run(100)
    whole = figures_of([run], [summarize(run)])["queue-length"]
    part = figures_of([run], [summarize(run, Window.parse("steady:10..60"))])["queue-length"]
    assert len(part.patches) == len(whole.patches) + 1


def test_names_of_strangers_are_text_and_nothing_else(make_run, tmp_path):
    evil = "_$x^{$<script>alert(1)</script>--><b>\x07\u4e2d"
    run = make_run(60)
    for job in run.jobs:
        job.user = f"{job.id % 3}{evil}"
    hostile = replace(run, policy=evil)
    files = write_figures([hostile], [summarize(hostile)], tmp_path)
    for file in files:
        if file.suffix == ".svg":
            tags = {element.tag.removeprefix(SVG) for element in ET.parse(file).iter()}  # noqa: S314 - our own file
            assert not tags & {"script", "b", "image", "a"}
    labels = figures_of([hostile], [summarize(hostile)])["jct-cdf"].get_legend_handles_labels()[1]
    assert labels[0].startswith(" _$x^{$"), "a leading _ would hide it from the legend"


def test_a_run_without_jobs_has_figures_and_no_error(make_run, tmp_path):
    empty = make_run(0)
    assert [file.stem for file in write_figures([empty], [summarize(empty)], tmp_path, ("svg",))] == ALWAYS


def test_a_folder_that_cannot_be_written_is_named(two, tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(GpuschedError, match="taken: figures cannot be written there"):
        write_figures(*two, tmp_path / "taken")


def test_matplotlib_is_imported_only_when_a_figure_is_drawn():
    code = "import sys, gpusched.scheduler.cli, gpusched.scheduler.report.figures; print('matplotlib' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": ":".join(sys.path)}
    )
    assert done.stdout.strip() == "False"
