"""Assertions on a policy: figures by hand, files that are wrong, what is printed, exit codes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from cli_kit import cli  # noqa: F401 - a fixture, found by name

from gpusched.jobs.errors import SpecError
from gpusched.scheduler.assertions.check import check
from gpusched.scheduler.assertions.metrics import SINGLE, find, listed
from gpusched.scheduler.assertions.quantities import QUANTITIES, nearest_rank
from gpusched.scheduler.assertions.reading import Overrides, read_suite

DOCS = Path(__file__).parents[2] / "docs" / "policy-tests.md"

TRACE = """job_id,user,queue,submit,seconds,gpus
a,ann,prod,0,100,8
b,bob,lab,10,50,8
c,ann,prod,20,30,4
d,bob,lab,30,10,2
"""
# On 1x8 by fifo: a 0-100, b 100-150, c and d 150-180 and 150-160. Delays 0, 90, 130, 120; JCTs 100, 140, 160, 130.
# By sjf: a 0-100, then d and c 100-110 and 100-130, b 130-180. Delays 0, 120, 80, 70; JCTs 100, 170, 110, 80.
TOP = """trace:
  {file: trace.csv, columns: "id=job_id,user=user,queue=queue,submitted=submit,duration=seconds,gpus=gpus"}
cluster: 1x8
policies: fifo
"""


def written(folder: Path, asserted: str, *, top: str = TOP) -> str:
    (folder / "trace.csv").write_text(TRACE)
    (folder / "site.yaml").write_text(f"{top}assert:\n{asserted}")
    return str(folder / "site.yaml")


def outcomes(folder: Path, asserted: str, *, top: str = TOP, **given) -> list:
    return check(read_suite(written(folder, asserted, top=top), Overrides(**given)))


def only(folder: Path, asserted: str, *, top: str = TOP, **given):
    found = outcomes(folder, asserted, top=top, **given)
    assert len(found) == 1
    return found[0]


def problems(folder: Path, asserted: str, *, top: str = TOP) -> list[str]:
    with pytest.raises(SpecError) as found:
        read_suite(written(folder, asserted, top=top))
    assert found.value.exit_code == 4
    return [str(problem).replace(f"{folder}/", "") for problem in found.value.problems]


# By hand --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "order", "index"),
    [
        (1, "0.001", 0), (4, "25", 0), (4, "25.001", 1), (4, "50", 1), (4, "75", 2), (4, "100", 3), (10, "95", 9),
        (100, "95", 94), (1000, "99.9", 998), (1001, "99.9", 999), (200, "99.5", 198), (3, "33.333333", 0),
    ],
)  # fmt: skip
def test_a_percentile_of_any_order_is_the_nearest_rank(count, order, index):
    assert nearest_rank(count, order) == index


@pytest.mark.parametrize(
    ("asserted", "value"),
    [
        ("metric: jct_mean\n  below: 1h", 132.5),
        ("metric: jct_p25\n  below: 1h", 100),
        ("metric: jct_p50\n  below: 1h", 130),
        ("metric: jct_median\n  below: 1h", 140),
        ("metric: jct_p75.1\n  below: 1h", 160),
        ("metric: jct_max\n  below: 1h", 160),
        ("metric: delay_mean\n  below: 1h", 85),
        ("metric: queueing_delay_p95\n  queue: prod\n  below: 1h", 130),
        ("metric: queueing_delay_mean\n  user: bob\n  below: 1h", 105),
        ("metric: queueing_delay_max\n  gpus: 2-4\n  below: 1h", 130),
        ("metric: queueing_delay_max\n  gpus: 8+\n  below: 1h", 90),
        ("metric: queueing_delay_max\n  gpus: 2\n  below: 1h", 120),
        ("metric: queueing_delay_max\n  window: steady:0..2\n  below: 1h", 90),
        ("metric: wait_max\n  below: 1h", 130),
        ("metric: slowdown_max\n  below: 100", 13),
        ("metric: bounded_slowdown_mean\n  below: 100", (1 + 140 / 50 + 160 / 30 + 13) / 4),
        ("metric: longest_wait\n  below: 1h", 130),
        ("metric: makespan\n  user: bob\n  below: 1h", 150),
        ("metric: jobs\n  user: bob\n  at_least: 2", 2),
        ("metric: unfinished\n  at_most: 0", 0),
        ("metric: preemptions\n  at_most: 0", 0),
        ("metric: gpu_seconds\n  user: ann\n  at_most: 1h", 920),
        ("metric: fairness_jain\n  at_least: 10%", (920 + 420) ** 2 / (2 * (920**2 + 420**2))),
        ("metric: allocation_ratio\n  at_least: 0.5", (920 + 420) / (8 * 180)),
        ("metric: rho_static_max\n  below: 100", 13),
    ],
)
def test_a_value_is_what_it_is_by_hand(tmp_path, asserted, value):
    found = only(tmp_path, f"- {asserted}\n")
    assert found.value == pytest.approx(value)
    assert found.passed


@pytest.mark.parametrize(
    ("bound", "passed"),
    [
        ("below: 130s", False), ("below: 131s", True), ("at_most: 130s", True), ("at_most: 129s", False),
        ("above: 130s", False), ("above: 129s", True), ("at_least: 130s", True), ("at_least: 131s", False),
        ("above: 100s\n  below: 200s", True), ("above: 100s\n  below: 110s", False),
    ],
)  # fmt: skip
def test_a_bound_is_strict_or_not_as_its_word_says(tmp_path, bound, passed):
    assert only(tmp_path, f"- metric: longest_wait\n  {bound}\n").passed is passed


def test_it_is_told_how_far_off_a_value_is_and_who_has_it(tmp_path):
    found = only(tmp_path, "- metric: longest_wait\n  at_most: 100s\n")
    assert (found.margin, found.share, found.who) == (-30, -0.3, "c of ann")
    middle = only(tmp_path, "- metric: jct_p50\n  at_most: 200s\n")
    assert (middle.margin, middle.who) == (70, "d of bob; worst c of ann")


@pytest.mark.parametrize(
    ("bound", "passed"),
    [("at_most_worse: 0%", True), ("at_least_better: 13%", True), ("at_least_better: 14%", False)],
)
def test_a_policy_is_held_against_another_on_the_same_jobs(tmp_path, bound, passed):
    found = only(tmp_path, f"- metric: jct_mean\n  {bound}\n  than: fifo\n", policies=("sjf",))
    assert (found.value, found.other) == (115, 132.5)  # 13.2 % better
    assert found.passed is passed


def test_worse_than_another_is_higher_for_times_and_lower_for_what_should_be_high(tmp_path):
    slower = "- metric: queueing_delay_max\n  user: bob\n  at_most_worse: {}%\n  than: sjf\n"
    assert only(tmp_path, slower.format(0)).passed  # 120 s under both
    wider = "- metric: jct_max\n  queue: prod\n  at_most_worse: {}%\n  than: sjf\n"  # 160 s against 110 s: 45.5 %
    assert not only(tmp_path, wider.format(45)).passed
    assert only(tmp_path, wider.format(46)).passed
    even = "- metric: fairness_jain\n  at_most_worse: 0%\n  than: sjf\n"
    assert only(tmp_path, even).passed


def test_no_job_at_all_is_a_failure_that_says_so(tmp_path):
    wide = "- metric: jct_p95\n  gpus: 16+\n  below: 100d\n"
    narrow = "- metric: longest_wait\n  queue: lab\n  gpus: 1\n  below: 9d\n"
    alone = "- metric: fairness_jain\n  user: ann\n  above: 0.1\n"
    found = outcomes(tmp_path, wide + narrow + alone)
    assert [one.passed for one in found] == [False, False, False]
    assert [one.why for one in found] == ["there is no such job in the window"] * 2 + [
        "fewer than two users have jobs here"
    ]


def test_a_window_without_jobs_is_a_failure_that_says_so(tmp_path):
    found = only(tmp_path, "- metric: jct_p95\n  window: batch:5d..6d\n  below: 100d\n")
    assert not found.passed
    assert "no job was submitted in it" in found.why


def test_every_assertion_is_about_every_policy_unless_it_names_some(tmp_path):
    top = TOP.replace("policies: fifo", "policies: [fifo, sjf]")
    found = outcomes(
        tmp_path, "- metric: jct_max\n  below: 165s\n- metric: jobs\n  policy: sjf\n  at_least: 4\n", top=top
    )
    assert [(one.policy, one.passed) for one in found] == [("fifo", True), ("sjf", False), ("sjf", True)]


def test_each_seed_has_to_hold_and_the_worst_is_told(tmp_path):
    top = "trace: generate:jobs=60,users=3,load=1.1\ncluster: 2x8\npolicies: fifo\nseeds: 3\n"
    of_each = [
        only(tmp_path, "- metric: jct_mean\n  below: 1s\n", top=top, seed=seed, seeds=1).value for seed in range(3)
    ]
    assert len(set(of_each)) == 3
    low, _, high = sorted(of_each)
    found = only(tmp_path, f"- metric: jct_mean\n  at_most: {low + 1:.0f}s\n", top=top)
    assert (found.value, found.seed, found.failed, found.seeds) == (high, of_each.index(high), 2, 3)


def test_a_queue_above_others_means_the_jobs_of_all_of_them(tmp_path):
    (tmp_path / "queues.yaml").write_text(
        "queues:\n- {name: all, nominal_quota: 8}\n- {name: prod, parent: all}\n- {name: lab, parent: all}\n"
    )
    top = TOP + "queues: queues.yaml\n"
    assert only(tmp_path, "- metric: jobs\n  queue: all\n  at_least: 4\n", top=top).value == 4
    assert only(tmp_path, "- metric: jobs\n  queue: lab\n  at_least: 2\n", top=top).value == 2


def test_a_policy_that_fails_fails_its_own_assertions_alone(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from gpusched.policies.greedy import Greedy\n\n\nclass Mine(Greedy):\n"
        "    def plan(self, now, queue, pool):\n        raise RuntimeError('no idea')\n"
    )
    top = TOP.replace("policies: fifo", "policies: ['mine.py:Mine', fifo]")
    mine, fifo = outcomes(tmp_path, "- metric: jct_max\n  below: 1d\n", top=top)
    assert (mine.passed, fifo.passed) == (False, True)
    assert "no idea" in mine.why
    assert "mine.py, line 6" in mine.why


def test_what_the_command_line_says_goes_before_the_file(tmp_path):
    found = only(tmp_path, "- metric: longest_wait\n  at_most: 0s\n", cluster="2x8", window="steady:0..2")
    assert (found.value, found.passed) == (0, True)


# Files that are wrong -------------------------------------------------------------------------------------------------


def test_every_problem_is_told_at_once_with_its_place_and_remedy(tmp_path):
    top = TOP.replace("policies: fifo", "policies: [fifo, sjfx]").replace("1x8", "1by8") + "window: batch:5..6\n"
    found = problems(
        tmp_path,
        "- metric: jct_p95\n  queue: prdo\n  below: 30\n- metric: jct_p95th\n  max: 3h\n- metric: allocation_ratio\n"
        "  user: eve\n  above: 90\n- metric: jct_mean\n  at_most_worse: 10\n",
        top=top,
    )
    told = "\n".join(found)
    assert [re.match(r"site\.yaml:(\d+):", one)[1] for one in found] == [
        "3", "4", "5", "8", "9", "10", "11", "13", "13", "14", "16",
    ]  # fmt: skip
    for words in (
        "cluster: '1by8' is no cluster",
        "policies[1]: no policy named 'sjfx'",
        "window: 'batch:5..6'",
        "assert[0].queue: the trace has no job of queue prdo (did you mean prod? its queues are lab, prod)",
        "assert[0].below: 30 has no unit (write 30s for seconds, 30m for minutes or 30h for hours; jct_p95 is",
        "assert[1].metric: there is no metric jct_p95th (did you mean `jct_p95`? the metrics are jct_{mean,",
        "assert[1].max: unknown key (did you mean `at_most`?)",
        "assert[2].user: the trace has no job of user eve (its users are ann, bob)",
        "assert[2].user: allocation_ratio is of the whole cluster (leave `user` out)",
        "assert[2].above: must be a share from 0 to 1, not 90 (write 90% if you mean per cent",
        "assert[3].at_most_worse: must be a percentage, not 10 (write it like 10%)",
    ):
        assert words in told, words


@pytest.mark.parametrize(
    ("asserted", "words"),
    [
        ("- metric: jct_mean\n", "assert[0]: has no bound (write one of below, at_most"),
        ("- below: 3h\n", "assert[0].metric: is required"),
        ("- metric: jct_mean\n  at_most_worse: 5%\n", "does not say than which policy"),
        ("- metric: jct_mean\n  than: fifo\n", "does not say how they compare"),
        ("- metric: jct_mean\n  than: fifi\n  at_most_worse: 5%\n", "assert[0].than: no policy named 'fifi'"),
        ("- metric: offered_load\n  than: fifo\n  at_most_worse: 5%\n", "offered_load is neither better nor worse"),
        ("- metric: jct_mean\n  policy: easy\n  below: 3h\n", "assert[0].policy: easy is not among the policies"),
        ("- metric: jct_mean\n  above: 3h\n  below: 2h\n", "nothing is both above this and below the other"),
        ("- metric: jct_mean\n  gpus: many\n  below: 2h\n", "not many (write it like 1, 2-4 or 8+)"),
        ("- metric: jct_mean\n  gpus: 4-2\n  below: 2h\n", "4-2 is the wrong way round (write 2-4)"),
        ("- metric: jct_p0\n  below: 2h\n", "there is no metric jct_p0"),
        ("- metric: jct_p101\n  below: 2h\n", "there is no metric jct_p101"),
        ("- metric: jct_jain\n  above: 0.9\n", "there is no metric jct_jain"),
        ("- metric: utilization\n  above: 0.9\n", "did you mean `allocation_ratio`?"),
        ("- metric: jain\n  above: 0.9\n", "did you mean `fairness_jain`?"),
        ("- metric: preemptions\n  below: 3h\n", "must be a number, 0 or more, not 3h"),
        ("- 5\n", "assert[0]: must be a mapping"),
        (" []\n", "has no assertion in it"),
        ("", "assert: is required"),
    ],
)  # fmt: skip
def test_a_wrong_assertion_is_a_problem_of_the_file(tmp_path, asserted, words):
    assert words in "\n".join(problems(tmp_path, asserted))


@pytest.mark.parametrize(
    ("top", "words"),
    [
        ("cluster: 1x8\npolicies: fifo\n", "says no trace (write `trace: history.jsonl.gz`, or give TRACE)"),
        (TOP.replace("cluster: 1x8\n", ""), "says no cluster"),
        (TOP.replace("policies: fifo\n", ""), "says no policy"),
        (TOP.replace("trace.csv", "gone.csv"), "gone.csv: no such file"),
        (TOP + "queues: gone.yaml\n", "gone.yaml: cannot be read"),
        (TOP + "profile: gone.yaml\n", "gone.yaml"),
        (TOP + "polices: [easy]\n", "polices: unknown key (did you mean `policies`?)"),
        (TOP + "kind: Job\n", "kind: must be PolicyTest"),
        (TOP + "seeds: 0\n", "seeds: must be from 1"),
        (TOP + "estimates: perfect\n", "estimates: must be exact, trace or none, not perfect"),
        (TOP.replace("{file", "{gangs: nodes, file"), "trace.gangs: unknown key (did you mean `gang`?)"),
    ],
)
def test_a_wrong_file_is_told_by_key(tmp_path, top, words):
    assert words in "\n".join(problems(tmp_path, "- metric: jct_mean\n  below: 3h\n", top=top))


def test_a_job_for_a_queue_that_the_queue_file_has_not_is_a_problem(tmp_path):
    (tmp_path / "queues.yaml").write_text("queues:\n- {name: prod, nominal_quota: 8}\n")
    found = problems(tmp_path, "- metric: jct_mean\n  below: 3h\n", top=TOP + "queues: queues.yaml\n")
    assert "queues: 2 jobs of the trace are for queues that the queue file does not have: lab (2)" in "\n".join(found)


def test_the_problems_of_a_file_that_it_names_are_told_with_their_own_lines(tmp_path):
    (tmp_path / "queues.yaml").write_text("queues:\n- {name: prod, nominal_quotas: 8}\n")
    found = problems(tmp_path, "- metric: jct_mean\n  below: 3h\n", top=TOP + "queues: queues.yaml\n")
    assert [one.split(":")[0] for one in found] == ["site.yaml", "queues.yaml"]


# The command ----------------------------------------------------------------------------------------------------------

GOOD = "- name: soon\n  metric: longest_wait\n  at_most: 200s\n"
BAD = "- name: at <once>\n  metric: longest_wait\n  at_most: 10s\n"


def test_the_exit_code_says_whether_all_hold(cli, tmp_path):  # noqa: F811 - the fixture
    assert "1 passed, 0 failed" in cli("policy", "test", written(tmp_path, GOOD)).stdout
    done = cli("policy", "test", written(tmp_path, GOOD + BAD), code=1)
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [line[0] for line in lines[1:3]] == ["PASS", "FAIL"]
    assert "2m 00s off; c of ann" in done.stdout.replace("130s", "")
    assert "1 passed, 1 failed" in done.stdout
    bad = cli("policy", "test", written(tmp_path, "- metric: jct\n  below: 1\n"), code=4)
    assert "there is no metric jct" in bad.stderr
    assert cli("policy", "test", "gone.yaml", code=4).stderr.count("gone.yaml") == 1


def test_only_what_fails_is_printed_on_demand(cli, tmp_path):  # noqa: F811 - the fixture
    done = cli("policy", "test", written(tmp_path, GOOD + BAD), "-q", code=1)
    assert "soon" not in done.stdout
    assert "at <once>" in done.stdout


def test_json_has_numbers_and_is_the_same_each_time(cli, tmp_path):  # noqa: F811 - the fixture
    file = written(tmp_path, GOOD + BAD)
    done = cli("policy", "test", file, "-o", "json", code=1)
    document = json.loads(done.stdout)
    assert (document["passed"], document["failed"]) == (1, 1)
    soon, once = document["assertions"]
    assert (soon["measured"], soon["limit"], soon["margin"], soon["unit"]) == (130, 200, 70, "time")
    assert (once["passed"], once["who"], once["line"]) == (False, "c of ann", 9)
    assert cli("policy", "test", file, "-o", "json", code=1).stdout == done.stdout


def test_junit_parses_and_counts(cli, tmp_path):  # noqa: F811 - the fixture
    file = written(tmp_path, GOOD + BAD, top=TOP.replace("policies: fifo", "policies: [fifo, sjf]"))
    done = cli("policy", "test", file, "-o", "junit", "--junit", "report.xml", code=1)
    for text in (done.stdout, (cli.folder / "report.xml").read_text()):
        tree = ET.fromstring(text)  # noqa: S314 - our own
        assert (tree.tag, tree.get("tests"), tree.get("failures")) == ("testsuites", "4", "2")
        assert [suite.get("name") for suite in tree] == ["fifo", "sjf"]
        cases = tree.findall("testsuite/testcase")
        assert [case.get("name") for case in cases] == ["soon", "at <once>"] * 2
        failures = [case.find("failure") for case in cases]
        assert [failure is not None for failure in failures] == [False, True] * 2
        assert "measured 2m 10s, at most 10s" in failures[1].get("message")


def test_a_trace_and_options_may_be_given(cli, tmp_path):  # noqa: F811 - the fixture
    bare = tmp_path / "bare.yaml"
    bare.write_text("assert:\n- metric: jct_mean\n  below: 100d\n")
    done = cli("policy", "test", str(bare), "generate:jobs=30", "--nodes", "2x8", "--policy", "fifo", "--policy", "sjf")
    assert "2 passed" in done.stdout
    assert "there is no 'sjfx'" not in cli("policy", "test", str(bare), "--policy", "sjfx", code=3).stderr


# The documentation ----------------------------------------------------------------------------------------------------


def test_the_example_of_the_documentation_holds(cli, tmp_path):  # noqa: F811 - the fixture
    (tmp_path / "site.yaml").write_text(re.search(r"```yaml\n(.*?)```", DOCS.read_text(), re.DOTALL)[1])
    assert " 0 failed" in cli("policy", "test", str(tmp_path / "site.yaml")).stdout


def test_every_metric_is_documented_and_found():
    text = DOCS.read_text()
    for name in (*SINGLE, *QUANTITIES):
        assert f"`{name}`" in text, name
    for name in SINGLE:
        assert find(name), name
    assert len(list(listed())) == len(SINGLE) + len(QUANTITIES)
