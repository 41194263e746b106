"""The page in a real browser: it draws, says no error, shows the figures, obeys the mouse and no stranger."""

from __future__ import annotations

import base64
import re
import shutil
import subprocess
from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest

from gpusched.scheduler.report import Waste, Window, summarize
from gpusched.scheduler.report.page import page
from gpusched.scheduler.report.table import duration

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,900",
    "--virtual-time-budget=5000",
    "--enable-logging=stderr",
]
CHARTS = (
    *("mean-jct", "makespan", "waiting", "allocated", "fragmentation", "cdf-jct", "cdf-delay", "cdf-slowdown"),
    *("cdf-rho", "size-jct", "size-delay", "users-rho", "users-delay"),
)
EVIL = "</script><img src=x onerror=document.documentElement.dataset.pwned=1>"

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")


@pytest.fixture
def browse(tmp_path):
    """Open a page; gives its elements after its scripts ran, and what it said on the console."""

    def load(text):
        file = tmp_path / "page.html"
        file.write_text(text, encoding="utf-8")
        command = [BROWSER, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", file.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]

    return load


@pytest.fixture
def drawn(make_run):
    runs = [make_run(200), make_run(200, policy="skip", skip=True)]
    return page(runs, list(map(summarize, runs)))


def obeying(text, script):
    """The page with a test's own script at its end, let in by the page's security policy, which else stays as it is."""
    text = re.sub("script-src '[^']*'", "script-src 'unsafe-inline'", text)
    return text.replace("</body>", f"<script>{script}</script></body>")


def test_the_page_draws_every_chart_without_an_error(browse, drawn, make_run):
    dom, console = browse(drawn)
    assert console == []
    assert 'data-drawn="yes"' in dom
    assert 'class="failed"' not in dom
    for chart in CHARTS:
        place = dom.index(f'id="{chart}"')
        assert "<svg" in dom[place : place + 200], chart
    assert "<canvas" in dom[dom.index('id="gantt"') :]
    assert duration(summarize(make_run(200)).jct.mean) in dom
    assert "hours since the first submission" in dom
    assert "8 nodes, 64 GPUs. Each bar is a job on a node" in dom


def test_a_stranger_s_names_are_shown_and_do_nothing(browse, make_run):
    run = make_run(60)
    for job in run.jobs:
        job.name, job.user, job.queue = f"{EVIL}{job.id}", f"{job.id % 3}{EVIL}", f"{job.id % 2}{EVIL}"
    cluster = [replace(node, name=EVIL) for node in run.cluster]
    hostile = replace(run, policy=EVIL, cluster=cluster, notes=[EVIL])
    show_users = (
        "const c = document.getElementById('gantt-colour'); c.value = 'user'; c.dispatchEvent(new Event('change'));"
    )
    dom, console = browse(obeying(page([hostile], [summarize(hostile)]), show_users))
    assert console == []
    assert 'data-drawn="yes"' in dom
    assert "data-pwned" not in dom
    assert "<img" not in dom
    legend = dom[dom.index('id="gantt-legend"') : dom.index('id="gantt"')]
    assert "&lt;/script&gt;&lt;img src=x onerror=" in legend
    for group in ("users", "queues"):
        assert "0&lt;/script&gt;&lt;img" in dom[dom.index(f'id="{group}-rho"') : dom.index(f'id="{group}-delay"')]


SAVED = """
  const text = svgOf(document.getElementById("%s"));
  document.body.dataset.svg = btoa(unescape(encodeURIComponent(text)));
  pngOf(text).then((blob) => { document.body.dataset.png = blob.type + " " + blob.size; });
"""


def test_each_chart_can_be_saved_as_svg_and_png(browse, drawn):
    for chart in ("cdf-jct", "users-rho"):
        dom, console = browse(obeying(drawn, SAVED % chart))
        assert console == []
        saved = ET.fromstring(base64.b64decode(dom.split('data-svg="')[1].split('"')[0]))  # noqa: S314 - our own page
        words = {element.text for element in saved.iter() if element.tag.endswith("text")}
        assert {"fifo", "skip"} <= words, "it carries its legend"
        assert "var(" not in ET.tostring(saved, encoding="unicode"), "and its colours"
        kind, size = dom.split('data-png="')[1].split('"')[0].split()
        assert (kind, int(size) > 10_000) == ("image/png", True)
    assert dom.count(">SVG</button>") == len(re.findall(r"<figure", dom))


def test_what_there_is_nothing_to_say_about_takes_no_room(browse, drawn):
    dom, _ = browse(drawn)
    assert '<section id="queues" hidden' in dom, "there is one queue alone"
    assert '<section id="users">' in dom
    assert '<figure hidden=""><figcaption>Wasted GPU time' in dom
    assert '<small data-bound="jct" hidden' in dom
    assert '<p class="hint" id="measured" hidden' in dom


def test_bounds_wasted_time_and_the_measured_window_are_drawn_where_they_are_known(browse, make_run):
    run = make_run(100)
    figures = replace(
        summarize(run, Window.parse("steady:10..60")), jct_bound=600.0, waste=Waste(overhead=7200.0, lost=3600.0)
    )
    dom, console = browse(page([run], [figures]))
    assert console == []
    assert dom.count('class="bound"') == 1, "of the JCT alone"
    waste = dom[dom.index('id="waste-legend"') : dom.index('id="waiting"')]
    assert "overhead" in waste
    assert "lost work" in waste
    assert "held idle" not in waste
    assert "3 GPU h" in waste
    assert dom.count('class="measured"') == 3


def test_the_security_policy_stops_a_script_that_is_not_ours(browse, drawn):
    smuggled = "<script>document.documentElement.setAttribute('data-pw' + 'ned', 1)</script></body>"
    dom, console = browse(drawn.replace("</body>", smuggled))
    assert "data-pwned" not in dom
    assert any("Content Security Policy" in line for line in console)


DRAG = """
Element.prototype.setPointerCapture = () => {};
function drag(id, x0, y0, x1, y1) {
  const box = document.getElementById(id), area = box.getBoundingClientRect();
  const send = (type, x, y) => {
    const at = { button: 0, clientX: area.left + x, clientY: area.top + y };
    box.dispatchEvent(new PointerEvent(type, at));
  };
  send("pointerdown", x0, y0); send("pointermove", x1, y1); send("pointerup", x1, y1);
}
"""


def test_dragging_zooms_all_charts_over_time_and_the_gantt(browse, drawn):
    script = DRAG + "drag('waiting', 400, 50, 500, 60); document.body.dataset.window = view.from + ' ' + view.to;"
    dom, console = browse(obeying(drawn, script))
    assert console == []
    start, end = map(float, dom.split('data-window="')[1].split('"')[0].split())
    assert 0 < start < end
    assert dom.count("time since the first submission") >= 2, "ticks now are clock times, in both charts"


def test_many_bars_are_a_map_until_the_mouse_zooms_in(browse, make_run):
    run = make_run(9000, nodes=24)
    text = page([run], [summarize(run)])
    dom, console = browse(text)
    assert console == []
    assert "The map shows how many of a node's GPUs jobs hold. Drag to zoom in" in dom
    zoomed, console = browse(obeying(text, DRAG + "drag('gantt', 300, 50, 400, 150);"))
    assert console == []
    assert "Each bar is a job on a node" in zoomed


def test_a_policy_can_be_hidden_and_the_gantt_can_show_another(browse, drawn):
    script = """
      document.querySelector('[data-run="0"]').click();
      const c = document.getElementById('gantt-policy'); c.value = '1'; c.dispatchEvent(new Event('change'));
      document.body.dataset.lines = document.querySelectorAll('#waiting path').length;
    """
    dom, console = browse(obeying(drawn, script))
    assert console == []
    assert 'data-lines="1"' in dom
    assert 'aria-pressed="false"' in dom


def test_a_page_of_an_empty_run_says_no_error(browse, make_run):
    empty = replace(make_run(0), notes=["nothing was submitted"])
    dom, console = browse(page([empty], [summarize(empty)]))
    assert console == []
    assert 'data-drawn="yes"' in dom


def test_a_screenshot_is_not_blank(tmp_path, drawn):
    file, picture = tmp_path / "page.html", tmp_path / "page.png"
    file.write_text(drawn, encoding="utf-8")
    command = [BROWSER, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", f"--screenshot={picture}", file.as_uri()]
    subprocess.run(command, capture_output=True, timeout=120, check=True)
    assert picture.stat().st_size > 30_000, "a blank picture of this size has about 5,000 bytes"
